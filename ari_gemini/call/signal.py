"""Something that happens again and again, and who waits for the next time, or for whichever comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Signal:
    """``fire`` wakes everybody who waits; who comes later waits for the next one. One event loop only."""

    def __init__(self) -> None:
        self.count = 0
        """How often it has happened."""
        self._waiting: list[asyncio.Future[None]] = []

    def fire(self) -> None:
        """It has happened."""
        self.count += 1
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self) -> None:
        """Wait for the next time. Cancelling changes nothing."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        finally:
            if future in self._waiting:
                self._waiting.remove(future)

    async def beyond(self, count: int) -> None:
        """Wait until it has happened more than ``count`` times, so that nothing is missed on the way here.

        Cancelling changes nothing.
        """
        while self.count <= count:
            await self.wait()


async def first_of(*works: Coroutine[Any, Any, object], timeout: float | None = None) -> int | None:
    """Run these side by side until one is done; the others are cancelled, and ended when this returns.

    Returns which one it was, the first named if several, or None after ``timeout`` seconds. Raises what that
    one raised. Cancelling cancels all of them.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        for number, task in enumerate(tasks):
            if task.done():
                task.result()
                return number
        return None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
