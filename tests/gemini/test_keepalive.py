from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from websockets.exceptions import ConnectionClosedError

from ari_gemini.gemini.keepalive import Keepalive

LONG = 30.0
TICK = 0.001
"""Seconds between pings. Silence is counted in pings, so no test depends on how long one really takes."""

Pong = Callable[[int, "asyncio.Future[float]"], Awaitable[None]]


class Websocket:
    """Counts pings; ``answer`` decides what becomes of each."""

    def __init__(self, answer: Pong) -> None:
        self.pings = 0
        self._answer = answer

    async def ping(self) -> asyncio.Future[float]:
        self.pings += 1
        pong: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        await self._answer(self.pings, pong)
        return pong


async def nothing(_number: int, _pong: asyncio.Future[float]) -> None: ...


async def at_once(_number: int, pong: asyncio.Future[float]) -> None:
    pong.set_result(0.0)


async def run(answer: Pong, lost_after: float) -> tuple[bool, int]:
    websocket = Websocket(answer)
    async with asyncio.timeout(LONG):
        lost = await Keepalive(websocket, TICK, lost_after, lambda: 0).silence()  # type: ignore[arg-type]
    return lost, websocket.pings


@pytest.mark.parametrize(("lost_after", "pings"), [(TICK, 1), (5 * TICK, 5), (5.5 * TICK, 6)])
async def test_silence_is_counted_in_pings(lost_after: float, pings: int) -> None:
    assert await run(nothing, lost_after * 0.999) == (True, pings)


async def test_a_pong_starts_the_count_again() -> None:
    async def answer(number: int, pong: asyncio.Future[float]) -> None:
        if number % 4 == 0 and number <= 12:
            pong.set_result(0.0)

    # after the twelfth ping was answered, five more silent ones
    assert await run(answer, 4.9 * TICK) == (True, 12 + 5)


async def test_a_late_pong_counts_when_it_comes() -> None:
    waiting: list[asyncio.Future[float]] = []

    async def answer(number: int, pong: asyncio.Future[float]) -> None:
        waiting.append(pong)
        if number == 4:
            waiting[0].set_result(3 * TICK)

    assert await run(answer, 4.9 * TICK) == (True, 4 + 5)


async def test_messages_count_like_pongs() -> None:
    keepalive: Keepalive

    async def answer(number: int, _pong: asyncio.Future[float]) -> None:
        keepalive.heard = number <= 20

    websocket = Websocket(answer)
    keepalive = Keepalive(websocket, TICK, 2.9 * TICK, lambda: 0)  # type: ignore[arg-type]
    async with asyncio.timeout(LONG):
        assert await keepalive.silence()
    assert websocket.pings == 20 + 3


async def test_a_ping_that_cannot_be_sent_is_silence() -> None:
    async def answer(_number: int, _pong: asyncio.Future[float]) -> None:
        await asyncio.Event().wait()

    assert await run(answer, 2.9 * TICK) == (True, 3)


async def test_a_closed_connection_ends_it() -> None:
    async def answer(number: int, _pong: asyncio.Future[float]) -> None:
        if number == 3:
            raise ConnectionClosedError(None, None)

    assert await run(answer, LONG) == (False, 3)


@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_a_pong_that_will_not_come_is_none(how: str) -> None:
    async def answer(_number: int, pong: asyncio.Future[float]) -> None:
        if how == "cancelled":
            pong.cancel()
        else:
            pong.set_exception(ConnectionClosedError(None, None))

    assert await run(answer, 2.9 * TICK) == (True, 3)


async def test_cancelling_ends_the_pings() -> None:
    websocket = Websocket(at_once)
    task = asyncio.create_task(Keepalive(websocket, TICK, LONG, lambda: 0).silence())  # type: ignore[arg-type]
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert websocket.pings == 1


# What has arrived


class Sender:
    """Sends one message more whenever a ping has gone out; ``answer`` decides on the pong as above."""

    def __init__(self, answer: Pong, first: int = 10) -> None:
        self.count = first
        self._answer = answer
        self.keepalive = Keepalive(Websocket(self._ping), TICK, 2.9 * TICK, lambda: self.count)  # type: ignore[arg-type]
        self.seen: list[int] = []

    async def _ping(self, number: int, pong: asyncio.Future[float]) -> None:
        self.seen.append(self.keepalive.confirmed)
        self.count += 1
        await self._answer(number, pong)

    async def run(self) -> int:
        async with asyncio.timeout(LONG):
            assert await self.keepalive.silence()
        return self.keepalive.confirmed


async def test_a_pong_confirms_what_was_sent_before_its_ping_and_nothing_after() -> None:
    async def answer(number: int, pong: asyncio.Future[float]) -> None:
        if number <= 3:
            pong.set_result(0.0)

    sender = Sender(answer)
    assert sender.keepalive.confirmed == 0
    assert await sender.run() == 12, "the third ping went out behind twelve messages"
    assert sender.seen == [0, 10, 11, 12, 12, 12]
    assert sender.count == 16


async def test_a_late_pong_takes_no_confirmation_back() -> None:
    waiting: list[asyncio.Future[float]] = []

    async def answer(number: int, pong: asyncio.Future[float]) -> None:
        waiting.append(pong)
        if number == 2:
            pong.set_result(0.0)
        if number == 3:
            waiting[0].set_result(0.0)

    assert await Sender(answer).run() == 11


@pytest.mark.parametrize("how", ["nothing", "cancelled", "failed"])
async def test_without_a_pong_nothing_is_confirmed(how: str) -> None:
    async def answer(_number: int, pong: asyncio.Future[float]) -> None:
        if how == "cancelled":
            pong.cancel()
        elif how == "failed":
            pong.set_exception(ConnectionClosedError(None, None))

    assert await Sender(answer).run() == 0


async def test_messages_from_the_peer_confirm_nothing() -> None:
    async def answer(number: int, _pong: asyncio.Future[float]) -> None:
        sender.keepalive.heard = number <= 5

    sender = Sender(answer)
    assert await sender.run() == 0
    assert len(sender.seen) == 5 + 3
