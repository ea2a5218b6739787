from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator

import pytest

from support.freezer import Freezer

PATIENCE = 10.0
LOOK = 0.1
"""Seconds in which what is not to come would have come over loopback, many times over."""


class Echo:
    """A server that sends back what it gets, and remembers it."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.ends: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.heard += data
                writer.write(data)
                await writer.drain()
            self.ends.append("fin")
        except ConnectionResetError:
            self.ends.append("rst")
        finally:
            writer.close()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Freezer]:
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with Freezer(server.sockets[0].getsockname()[:2]) as made:
        yield made
    server.close()
    await server.wait_closed()


async def dial(proxy: Freezer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*proxy.address)


async def heard(reader: asyncio.StreamReader, count: int) -> bytes:
    async with asyncio.timeout(PATIENCE):
        return await reader.readexactly(count)


async def until_gone(proxy: Freezer, echo: Echo, ends: list[str]) -> None:
    async with asyncio.timeout(PATIENCE):
        while proxy.tunnels or echo.ends != ends:  # noqa: ASYNC110 - two sockets' own business
            await asyncio.sleep(0.005)


async def test_it_forwards_and_counts(proxy: Freezer, echo: Echo) -> None:
    for number in (1, 2):
        reader, writer = await dial(proxy)
        writer.write(b"x" * 3_000_000)
        assert await heard(reader, 3_000_000) == b"x" * 3_000_000
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert proxy.connections == number
    await until_gone(proxy, echo, ["fin", "fin"])


async def test_frozen_it_loses_nothing_and_tells_nothing(proxy: Freezer, echo: Echo) -> None:
    reader, writer = await dial(proxy)
    writer.write(b"before")
    assert await heard(reader, 6) == b"before"
    proxy.freeze()
    writer.write(b"during")
    late_reader, late_writer = await dial(proxy)
    late_writer.write(b"new")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(LOOK):
            await asyncio.wait((asyncio.ensure_future(reader.read(1)),))
    assert echo.heard == b"before"
    assert echo.ends == []
    proxy.thaw()
    assert await heard(late_reader, 3) == b"new"
    writer.close()
    late_writer.close()
    await until_gone(proxy, echo, ["fin", "fin"])
    assert bytes(echo.heard).replace(b"new", b"") == b"beforeduring"


async def test_frozen_a_hangup_is_not_noticed(proxy: Freezer, echo: Echo) -> None:
    reader, writer = await dial(proxy)
    writer.write(b"before")
    await heard(reader, 6)
    proxy.freeze()
    writer.close()
    await asyncio.sleep(LOOK)
    assert echo.ends == []
    proxy.thaw()
    await until_gone(proxy, echo, ["fin"])


async def test_a_reset_is_one_on_both_sides(proxy: Freezer, echo: Echo) -> None:
    reader, writer = await dial(proxy)
    writer.write(b"before")
    await heard(reader, 6)
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    await until_gone(proxy, echo, ["rst"])


async def test_a_cut_is_an_orderly_end(proxy: Freezer, echo: Echo) -> None:
    reader, writer = await dial(proxy)
    writer.write(b"before")
    await heard(reader, 6)
    proxy.cut()
    assert await reader.read() == b""
    writer.close()
    await until_gone(proxy, echo, ["fin"])


async def test_delayed_bytes_come_late_and_in_order(proxy: Freezer, echo: Echo) -> None:
    reader, writer = await dial(proxy)
    loop = asyncio.get_running_loop()
    proxy.delay(0.05)
    began = loop.time()
    for piece in (b"one ", b"two ", b"three"):
        writer.write(piece)
        await asyncio.sleep(0)
    assert await heard(reader, 13) == b"one two three"
    assert loop.time() - began >= 0.1
    writer.close()
    await until_gone(proxy, echo, ["fin"])


async def test_what_comes_after_a_delay_does_not_overtake(proxy: Freezer, echo: Echo) -> None:
    reader, writer = await dial(proxy)
    for number in range(20):
        proxy.delay(0.05 if number % 2 == 0 else 0.0)
        writer.write(b"%02d" % number)
        await asyncio.sleep(0.002)
    writer.write_eof()
    assert await heard(reader, 40) == b"".join(b"%02d" % number for number in range(20))
    assert await reader.read() == b""
    writer.close()
    await until_gone(proxy, echo, ["fin"])


async def test_refused_and_accepted_again(proxy: Freezer, echo: Echo) -> None:
    reader, writer = await dial(proxy)
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError) as caught:
        await dial(proxy)
    assert caught.value.errno == errno.ECONNREFUSED
    writer.write(b"still here")
    assert await heard(reader, 10) == b"still here"
    proxy.accept()
    _, second = await dial(proxy)
    assert proxy.connections == 2
    writer.close()
    second.close()
    await until_gone(proxy, echo, ["fin", "fin"])


async def test_one_tunnel_by_itself(proxy: Freezer, echo: Echo) -> None:
    first = await dial(proxy)
    second = await dial(proxy)
    for reader, writer in (first, second):
        writer.write(b"x")
        await heard(reader, 1)
    tunnel = proxy.tunnel(proxy.tunnels[0].upstream)
    tunnel.reset()
    with pytest.raises(ConnectionResetError):
        await first[0].read()
    second[1].write(b"y")
    assert await heard(second[0], 1) == b"y"
    for _, writer in (first, second):
        writer.close()
    await until_gone(proxy, echo, ["rst", "fin"])


async def test_a_dead_target_resets_the_client() -> None:
    async with Freezer() as dead, Freezer(dead.address) as proxy:
        dead.refuse()
        reader, writer = await dial(proxy)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        assert proxy.connections == 1
