"""Serving, draining, over: with a number of calls that the test turns."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from ari_gemini.call.drain import PROGRESS_SECONDS, Drain, DrainSettings
from ari_gemini.errors import Cause


class Calls:
    """So many calls are in progress."""

    def __init__(self, count: int, timeout: float = 3600.0) -> None:
        self.count = count
        self.drain = Drain(DrainSettings(timeout=timeout), lambda: self.count)
        self.over = asyncio.ensure_future(self.drain.wait_over())

    def one_ends(self) -> None:
        self.count -= 1
        self.drain.call_over()


async def a_moment() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_nothing_is_over_before_it_begins() -> None:
    calls = Calls(0)
    await a_moment()
    assert calls.drain.refusal is None
    assert not calls.drain.begun
    assert not calls.over.done()
    calls.drain.begin()
    await calls.over
    assert calls.drain.refusal is Cause.SHUTDOWN


async def test_it_waits_for_the_last_call() -> None:
    calls = Calls(2)
    calls.drain.begin()
    assert calls.drain.refusal is Cause.DRAINING
    calls.one_ends()
    await a_moment()
    assert not calls.over.done()
    calls.one_ends()
    assert not await calls.over
    assert calls.drain.refusal is Cause.SHUTDOWN


@pytest.mark.parametrize("how", ["begin", "end"])
async def test_told_again_it_waits_for_nobody(how: str) -> None:
    calls = Calls(2)
    calls.drain.begin()
    await a_moment()
    getattr(calls.drain, how)()
    assert calls.drain.refusal is Cause.SHUTDOWN
    assert not await calls.over
    assert calls.count == 2


async def test_end_alone_is_enough() -> None:
    calls = Calls(2)
    calls.drain.end()
    await calls.over
    assert calls.drain.begun


async def test_time_is_up_at_once() -> None:
    calls = Calls(1, timeout=0.0)
    with capture_logs() as logs:
        calls.drain.begin()
        assert await calls.over
    assert [line["event"] for line in logs] == ["= draining", "! drain timeout: calls are ended"]
    assert logs[0]["calls"] == logs[1]["calls"] == 1


async def test_time_is_up_later_whatever_ends_meanwhile() -> None:
    calls = Calls(100, timeout=0.2)
    calls.drain.begin()
    while not calls.over.done():
        calls.one_ends()
        assert calls.count > 0
        await asyncio.sleep(0.01)
    assert calls.drain.refusal is Cause.SHUTDOWN


async def test_cancelled_it_stays_as_it_is() -> None:
    calls = Calls(1)
    calls.drain.begin()
    await a_moment()
    calls.over.cancel()
    await asyncio.wait([calls.over])
    assert calls.drain.refusal is Cause.DRAINING


@pytest.mark.parametrize("timeout", [-1, 86_401, float("nan")])
def test_a_time_that_is_none(timeout: float) -> None:
    with pytest.raises(ValidationError):
        DrainSettings(timeout=timeout)


def test_a_drain_says_something_before_its_default_time_is_up() -> None:
    assert DrainSettings().timeout > PROGRESS_SECONDS
