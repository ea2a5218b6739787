"""Who waits for the next time, and who comes first: nothing missed, nobody left waiting."""

from __future__ import annotations

import asyncio

import pytest

from ari_gemini.call.signal import Signal, first_of


def alone() -> bool:
    return asyncio.all_tasks() == {asyncio.current_task()}


async def rounds(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def value(result: object) -> object:
    return result


async def fails(error: Exception) -> None:
    raise error


async def test_everybody_who_waits_is_woken_and_who_comes_later_waits_for_the_next_time() -> None:
    signal = Signal()
    first, second = (asyncio.create_task(signal.wait()) for _ in range(2))
    await rounds()
    assert not first.done()
    assert not second.done()
    signal.fire()
    late = asyncio.create_task(signal.wait())
    await rounds()
    assert first.done()
    assert second.done()
    assert not late.done()
    signal.fire()
    await late
    assert signal.count == 2


async def test_firing_for_nobody_is_counted() -> None:
    signal = Signal()
    signal.fire()
    signal.fire()
    assert signal.count == 2


async def test_cancelling_leaves_nothing_behind() -> None:
    signal = Signal()
    gone, stays = (asyncio.create_task(signal.wait()) for _ in range(2))
    await rounds()
    gone.cancel()
    await rounds()
    assert len(signal._waiting) == 1
    signal.fire()
    await stays
    assert gone.cancelled()
    assert signal._waiting == []


async def test_one_who_is_cancelled_as_it_fires_does_not_hinder_the_others() -> None:
    signal = Signal()
    gone, stays = (asyncio.create_task(signal.wait()) for _ in range(2))
    await rounds()
    gone.cancel()
    signal.fire()
    await stays
    assert signal.count == 1


async def test_beyond_a_count_misses_nothing_that_happens_on_the_way() -> None:
    signal = Signal()
    waiting = signal.beyond(signal.count)
    signal.fire()  # before anything of it has run
    await asyncio.wait_for(waiting, 10)


async def test_beyond_a_count_that_is_still_far() -> None:
    signal = Signal()
    waiting = asyncio.create_task(signal.beyond(1))
    await rounds()
    signal.fire()
    await rounds()
    assert not waiting.done()
    signal.fire()
    await waiting


async def test_the_first_one_is_named_and_the_others_are_over_when_it_returns() -> None:
    ended = []

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # takes its time to end
            ended.append(True)

    assert await first_of(hangs(), value("x"), hangs()) == 1
    assert ended == [True, True]
    assert alone()


async def test_of_several_the_first_named() -> None:
    assert await first_of(value(1), value(2)) == 0


async def test_what_the_first_one_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        await first_of(asyncio.Event().wait(), fails(ZeroDivisionError()))
    assert alone()


async def test_what_the_others_raise_when_they_are_cancelled_is_nobodys_business() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ZeroDivisionError from None

    async def later() -> None:
        await rounds()

    assert await first_of(stubborn(), later()) == 1
    assert alone()


async def test_when_the_time_is_over(clock) -> None:
    began = clock.time()
    assert await first_of(asyncio.Event().wait(), timeout=2.5) is None
    assert clock.time() - began == pytest.approx(2.5)
    assert alone()


@pytest.mark.parametrize("wait", [1, 2, 3])
async def test_cancelling_cancels_all_of_them(wait: int) -> None:
    ended = []

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    task = asyncio.create_task(first_of(hangs(), hangs(), timeout=10))
    await rounds(wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended in ([], [True, True])  # [] when they never began
    assert alone()
