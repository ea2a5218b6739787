from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address

import pytest

from ari_gemini.tools.resolver import LOOKUPS, PinnedResolver, SystemResolver


async def test_the_system_resolver() -> None:
    assert await SystemResolver()("127.0.0.1", 80) == ["127.0.0.1"]


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_lookups_that_hang_leave_room_for_the_others() -> None:
    """A place is free again when a lookup has ended, not when nobody waits for it any more."""
    running: list[asyncio.Future[list[str]]] = []

    class Slow(SystemResolver):
        async def _look_up(self, host: str, port: int) -> list[str]:
            running.append(asyncio.get_running_loop().create_future())
            return await running[-1]

    resolve = Slow()
    tasks = [asyncio.create_task(resolve("h", 80)) for _ in range(LOOKUPS + 2)]
    await settle()
    assert len(running) == LOOKUPS
    tasks[0].cancel()
    await settle()
    assert tasks[0].cancelled()
    assert len(running) == LOOKUPS, "its lookup still runs"
    running[0].set_exception(OSError("late"))
    await settle()
    assert len(running) == LOOKUPS + 1
    running[1].set_result(["10.0.0.1"])
    await settle()
    running[2].set_result(["10.0.0.2"])
    running[3].set_result([])
    assert await asyncio.gather(*tasks[1:]) == [["10.0.0.1"], ["10.0.0.2"], []]


async def test_a_pinned_name_has_the_addresses_given_and_no_other_name_any() -> None:
    pinned = PinnedResolver("h", [ip_address("192.0.2.1"), ip_address("2001:db8::1")])
    found = await pinned.resolve("h", 8080)
    assert [(one["host"], one["port"], one["family"]) for one in found] == [
        ("192.0.2.1", 8080, socket.AF_INET),
        ("2001:db8::1", 8080, socket.AF_INET6),
    ]
    assert {one["flags"] for one in found} == {socket.AI_NUMERICHOST}
    with pytest.raises(OSError, match="not been checked"):
        await pinned.resolve("g", 8080)
    await pinned.close()
