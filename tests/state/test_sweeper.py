"""Regular sweeps: at once and again, whatever fails, until the end; and no record outstays its time."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.states import state

from ari_gemini.errors import StateUnavailable
from ari_gemini.state.directory import DirectoryStore
from ari_gemini.state.memory import MemoryStore
from ari_gemini.state.store import StateStore
from ari_gemini.state.sweeper import LONGEST, SHORTEST, period_for, sweep_regularly

LONG = 20.0
"""Seconds: only a hanging test gets there."""
FAR = 3600.0
"""A period that no test lives to see the end of."""


class Told(MemoryStore):
    """Says how often it has been swept; ``trouble`` is raised instead, the next one first."""

    def __init__(self, *trouble: Exception) -> None:
        super().__init__()
        self.trouble = list(trouble)
        self.sweeps = 0
        self.swept = asyncio.Event()

    async def sweep(self) -> None:
        self.sweeps += 1
        self.swept.set()
        if self.trouble:
            raise self.trouble.pop(0)

    async def times(self, count: int) -> None:
        """Wait until so many sweeps have begun, all but the last of which are over."""
        async with asyncio.timeout(LONG):
            while self.sweeps < count:
                self.swept.clear()
                await self.swept.wait()


@asynccontextmanager
async def sweeping(store: StateStore, period: float) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(sweep_regularly(store, period))
    yield task
    assert not task.done()
    task.cancel()
    await asyncio.wait([task], timeout=LONG)
    assert task.cancelled()


class Directory(DirectoryStore):
    """Says when a sweep is over."""

    def __init__(self, at: Path, now: list[float]) -> None:
        super().__init__(at, lifetime=7200, timeout=LONG, clock=lambda: now[0])
        self.over: asyncio.Queue[None] = asyncio.Queue()

    async def sweep(self) -> None:
        await super().sweep()
        self.over.put_nowait(None)

    async def next(self) -> None:
        """Wait until a sweep that begins from now on is over."""
        while not self.over.empty():
            self.over.get_nowait()
        for _ in range(2):  # one may be under way
            await asyncio.wait_for(self.over.get(), LONG)


async def test_what_was_left_is_gone_soon_after_the_start_and_nobody_writes(tmp_path: Path) -> None:
    now = [1_000_000.0]
    left = DirectoryStore(tmp_path / "calls", clock=lambda: now[0], timeout=LONG)
    await left.save(state())
    await left.close()
    now[0] += 7201
    store = Directory(tmp_path / "calls", now)
    async with sweeping(store, FAR):
        await asyncio.wait_for(store.over.get(), LONG)
        assert os.listdir(tmp_path / "calls") == []
    await store.close()


async def test_what_expires_while_the_service_runs_goes_without_another_write(tmp_path: Path) -> None:
    now = [float(round(time.time()))]  # for a moment an unfinished file has the system's own time
    store = Directory(tmp_path / "calls", now)
    async with sweeping(store, 0.001):
        await store.save(state())
        now[0] += 7200
        await store.next()
        assert await store.load(state().call_id) == state(), "not so soon"
        now[0] += 1
        await store.next()
        assert os.listdir(tmp_path / "calls") == []
    await store.close()


async def test_between_two_sweeps_it_waits() -> None:
    store = Told()
    async with sweeping(store, FAR):
        await store.times(1)
        for _ in range(100):
            await asyncio.sleep(0)
        assert store.sweeps == 1


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (StateUnavailable("/x: Permission denied"), "/x: Permission denied"),
        (ZeroDivisionError("a defect"), "ZeroDivisionError: a defect"),
    ],
)
async def test_what_fails_is_said_once_and_ends_nothing(trouble: Exception, said: str) -> None:
    store = Told(*[trouble] * 5)
    with capture_logs() as logs:
        async with sweeping(store, 0.0):
            await store.times(5)
            assert [(line["log_level"], line["error"]) for line in logs] == [("warning", said)]
            await store.times(10)
            assert [line["event"] for line in logs[1:]] == ["= expired states are removed again"]
            store.trouble.append(trouble)
            await store.times(store.sweeps + 3)
    assert [line["log_level"] for line in logs] == ["warning", "info"] * 2


@pytest.mark.parametrize(
    ("lifetime", "period"), [(1, SHORTEST), (200, 10), (7200, 360), (12_000, 600), (86_400, LONGEST)]
)
def test_the_period_is_a_share_of_the_lifetime_within_bounds(lifetime: float, period: float) -> None:
    assert period_for(lifetime) == period
