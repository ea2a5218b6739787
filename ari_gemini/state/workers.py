"""Threads for what may block. They are daemons: a disk that hangs holds up neither a call nor the exit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar, cast

T = TypeVar("T")

_Job = Callable[[], None]


class Workers:
    """``count`` threads, started with the first job. Jobs wait on the loop until a thread is free, so that
    none is ever left in a queue behind a thread that hangs."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._free = asyncio.Semaphore(count)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._started = False

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """What the function returns or raises. Cancelling does not wait for it: its thread goes on, and is
        free for others when it has come to an end."""
        await self._free.acquire()
        self._start()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def deliver(result: T | None, error: BaseException | None) -> None:
            self._free.release()
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(cast(T, result))

        def job() -> None:
            outcome: tuple[Any, BaseException | None]
            try:
                outcome = (function(*args), None)
            except BaseException as error:  # noqa: BLE001  # whatever it is belongs to who asked, not to the thread
                outcome = (None, error)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(deliver, *outcome)

        self._jobs.put(job)
        return await done

    def close(self) -> None:
        """Let the threads end after what they do now. Idempotent."""
        if self._started:
            self._started = False
            for _ in range(self._count):
                self._jobs.put(None)

    def _start(self) -> None:
        if not self._started:
            self._started = True
            for number in range(self._count):
                threading.Thread(target=self._work, name=f"state-{number}", daemon=True).start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
