"""Threads for what may block: results, errors, and those that hang."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from ari_gemini.state.workers import Workers


async def test_results_and_errors_come_back() -> None:
    workers = Workers(2)
    assert await workers.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await workers.run(divmod, 7, 0)
    name = await workers.run(lambda: threading.current_thread().name)
    assert name.startswith("state-")
    workers.close()


async def test_no_more_run_at_once_than_there_are_threads() -> None:
    workers = Workers(2)
    gate, lock = threading.Event(), threading.Lock()
    running = highest = 0

    def job() -> None:
        nonlocal running, highest
        with lock:
            running += 1
            highest = max(highest, running)
        gate.wait(10)
        with lock:
            running -= 1

    jobs = [asyncio.create_task(workers.run(job)) for _ in range(5)]
    while running < 2:  # noqa: ASYNC110  # it is a thread that counts
        await asyncio.sleep(0.001)
    assert workers._jobs.empty()
    gate.set()
    await asyncio.gather(*jobs)
    assert highest == 2
    workers.close()


async def test_who_hangs_holds_up_nobody_but_the_own_thread() -> None:
    workers = Workers(2)
    gate, begun = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        gate.wait(10)

    hanging = asyncio.create_task(workers.run(hang))
    while not begun.is_set():  # noqa: ASYNC110  # it is a thread that sets it
        await asyncio.sleep(0.001)
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    for number in range(5):
        assert await workers.run(abs, -number) == number
    second = asyncio.create_task(workers.run(gate.wait, 10))
    third = asyncio.create_task(workers.run(abs, -3))
    await asyncio.sleep(0)
    third.cancel()
    with pytest.raises(asyncio.CancelledError):
        await third
    gate.set()
    assert await second
    meeting = threading.Barrier(2)
    await asyncio.gather(*(workers.run(meeting.wait, 10) for _ in range(2)))  # both are free again
    assert await asyncio.gather(*(workers.run(abs, -n) for n in range(9))) == list(range(9))
    workers.close()


async def test_closing_ends_the_threads_after_their_jobs() -> None:
    workers = Workers(3)
    thread = await workers.run(threading.current_thread)
    workers.close()
    workers.close()
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()
    assert await workers.run(abs, -1) == 1, "it opens again"
    workers.close()


def test_neither_a_closed_loop_nor_the_exit_waits_for_one_that_hangs() -> None:
    source = """
import asyncio, sys, threading
from ari_gemini.state.workers import Workers

async def main():
    for gate in (late, threading.Event()):
        task = asyncio.create_task(workers.run(gate.wait))
        await asyncio.sleep(0.01)
        task.cancel()

workers, late = Workers(2), threading.Event()
asyncio.run(main())
late.set()  # ends when the loop is closed
print("over")
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "over\n", "")
