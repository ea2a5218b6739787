"""The keeper: the newest state, not too often, whatever the store does, and nothing after the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.states import state

from ari_gemini.errors import StateError, StateUnavailable
from ari_gemini.state.keeper import MAX_PAUSE, Keeper
from ari_gemini.state.memory import MemoryStore
from ari_gemini.state.record import CallState

CALL = "1700000000.1"


class Clock:
    """The loop's selector and time: when nothing is left to do, it is the time of the next timer."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._now = 100.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None = None) -> list[Any]:
        self._now += timeout or 0.0
        found: list[Any] = self._inner.select(None if timeout is None else 0)
        return found


@pytest.fixture(autouse=True)
async def _clock() -> AsyncIterator[None]:
    loop: Any = asyncio.get_running_loop()
    inner, time = loop._selector, loop.time
    clock = Clock(inner)
    loop._selector, loop.time = clock, clock.time
    yield
    loop._selector, loop.time = inner, time


class Store(MemoryStore):
    """Says when what was saved; ``trouble`` is raised instead, ``gate`` is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.saved: list[tuple[float, int]] = []
        self.tried = 0
        self.trouble: BaseException | None = None
        self.gate: asyncio.Event | None = None
        self.entered = asyncio.Event()

    async def save(self, state: CallState) -> None:
        self.tried += 1
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        await super().save(state)
        self.saved.append((asyncio.get_running_loop().time() - 100.0, state.budgets["n"]))

    async def delete(self, call_id: str) -> None:
        if self.trouble is not None:
            raise self.trouble
        await super().delete(call_id)


class Desk:
    """A call's state that changes, its keeper, and the store."""

    def __init__(self) -> None:
        self.n = 0
        self.store = Store()
        self.broken = False
        self.keeper = Keeper(self.store, CALL, self.snapshot, interval=0.5, refresh=60.0)

    def snapshot(self) -> CallState:
        if self.broken:
            raise ZeroDivisionError
        return state(CALL, budgets={"n": self.n})

    def change(self) -> None:
        self.n += 1
        self.keeper.changed()


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    running = asyncio.create_task(made.keeper.run())
    yield made
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled() or running.exception() is None


async def test_nothing_changed_nothing_is_saved(desk: Desk) -> None:
    await asyncio.sleep(59)
    assert desk.store.tried == 0


async def test_the_first_change_is_saved_at_once_and_the_newest_of_the_others_later(desk: Desk) -> None:
    await asyncio.sleep(1)
    for _ in range(5):
        desk.change()
    await asyncio.sleep(0.1)
    for _ in range(5):
        desk.change()
    await asyncio.sleep(10)
    assert desk.store.saved == [(1.0, 5), (1.5, 10)]


async def test_without_end_of_changes_it_saves_at_each_interval(desk: Desk) -> None:
    for _ in range(100):
        desk.change()
        await asyncio.sleep(0.03125)
    assert [moment for moment, _ in desk.store.saved] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]


async def test_what_changes_while_it_is_saved_is_saved_next(desk: Desk) -> None:
    desk.store.gate = asyncio.Event()
    desk.change()
    await desk.store.entered.wait()
    desk.change()
    desk.store.gate.set()
    await asyncio.sleep(5)
    assert [n for _, n in desk.store.saved] == [1, 2]


async def test_what_does_not_change_is_written_before_it_expires(desk: Desk) -> None:
    desk.change()
    await asyncio.sleep(125)
    assert desk.store.saved == [(0.0, 1), (60.5, 1), (121.0, 1)]


@pytest.mark.parametrize("trouble", [StateUnavailable("full"), StateError("too long"), KeyError("defect")])
async def test_trouble_is_logged_when_it_begins_and_when_it_ends(desk: Desk, trouble: Exception) -> None:
    with capture_logs() as logs:
        desk.store.trouble = trouble
        desk.change()
        await asyncio.sleep(60)
        assert [(log["log_level"], log["event"], log["call"]) for log in logs] == [
            ("warning", "! state not saved, will keep trying", CALL)
        ]
        # pauses of 1, 2, and then 3 seconds
        assert desk.store.tried == 2 + 19
        desk.store.trouble = None
        await asyncio.sleep(MAX_PAUSE)
        assert desk.store.saved[0][1] == 1, "it needs no other change"
        assert [log["event"] for log in logs[1:]] == ["= state is saved again"]
        desk.store.trouble = trouble
        desk.change()
        await asyncio.sleep(1)
        assert len(logs) == 3


async def test_a_snapshot_that_fails_ends_nothing(desk: Desk) -> None:
    desk.broken = True
    with capture_logs() as logs:
        desk.change()
        await asyncio.sleep(0.1)
        assert (logs[0]["error"], logs[0]["exc_info"]) == ("ZeroDivisionError: ", True)
        desk.broken = False
        await asyncio.sleep(MAX_PAUSE)
    assert [n for _, n in desk.store.saved] == [1]


async def test_the_end_of_the_call_is_the_end_of_the_record(desk: Desk) -> None:
    desk.change()
    await asyncio.sleep(1)
    assert await desk.store.load(CALL) is not None
    await desk.keeper.forget()
    assert await desk.store.load(CALL) is None
    desk.change()
    await desk.keeper.flush()
    await asyncio.sleep(200)
    assert await desk.store.load(CALL) is None
    assert desk.store.tried == 1


async def test_a_record_on_its_way_is_forgotten_too(desk: Desk) -> None:
    desk.store.gate = asyncio.Event()
    desk.change()
    await desk.store.entered.wait()
    forgetting = asyncio.create_task(desk.keeper.forget())
    await asyncio.sleep(0)
    desk.store.gate.set()
    await forgetting
    assert desk.store.saved == [(0.0, 1)]
    assert await desk.store.load(CALL) is None


async def test_it_ends_by_itself_when_the_call_is_forgotten() -> None:
    desk = Desk()
    running = asyncio.create_task(desk.keeper.run())
    await asyncio.sleep(0)
    await desk.keeper.forget()
    await running
    assert desk.store.tried == 0


async def test_a_record_that_cannot_be_removed_is_logged(desk: Desk) -> None:
    desk.store.trouble = StateUnavailable("gone")
    with capture_logs() as logs:
        await desk.keeper.forget()
    assert [(log["event"], log["error"]) for log in logs] == [("! state not removed, it will expire", "gone")]


async def test_a_flush_saves_now_and_once(desk: Desk) -> None:
    desk.change()
    await asyncio.sleep(0.1)
    desk.change()
    await desk.keeper.flush()
    assert [n for _, n in desk.store.saved] == [1, 2]
    await asyncio.sleep(5)
    assert len(desk.store.saved) == 2, "there was nothing new"


async def test_cancelled_while_it_saves_it_can_still_forget() -> None:
    desk = Desk()
    desk.store.gate = asyncio.Event()
    running = asyncio.create_task(desk.keeper.run())
    desk.change()
    await desk.store.entered.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await desk.keeper.forget()
    assert desk.store.saved == []
