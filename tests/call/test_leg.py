"""What both ways share: reading channel variables."""

from __future__ import annotations

import asyncio

import pytest

from ari_gemini.ari.channel import Channel
from ari_gemini.call.leg import read_variables
from ari_gemini.errors import AriNotFound, AriTimeout


async def test_variables_are_read_side_by_side_and_unset_ones_left_out(ari, until) -> None:
    ari.held["getChannelVar"] = gate = asyncio.Event()
    ari.answers["getChannelVar"] = [
        {"value": "1"},
        AriNotFound("404 Provided variable was not found", 404),
        {"value": ""},
    ]
    reading = asyncio.create_task(read_variables(Channel(ari, "c"), ("A", "B", "C")))
    await until(lambda: len(ari.asked) >= 3)
    gate.set()
    assert await reading == {"A": "1", "C": ""}


async def test_no_names_no_request(ari) -> None:
    assert await read_variables(Channel(ari, "c"), ()) == {}
    assert ari.asked == []


async def test_one_that_fails_fails_all_and_leaves_no_request_behind(ari) -> None:
    calls = 0

    class Half(Channel):
        async def get_variable(self, name: str) -> str | None:
            nonlocal calls
            calls += 1
            if name == "B":
                raise AriTimeout("slow")
            await asyncio.Event().wait()
            return None

    with pytest.raises(AriTimeout, match="slow"):
        await read_variables(Half(ari, "c"), ("A", "B", "C"))
    assert calls == 3
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_cancelling_leaves_no_request_behind(ari) -> None:
    ari.held["getChannelVar"] = asyncio.Event()
    reading = asyncio.create_task(read_variables(Channel(ari, "c"), ("A", "B")))
    await ari.until("getChannelVar")
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert asyncio.all_tasks() == {asyncio.current_task()}
