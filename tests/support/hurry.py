"""A loop that does not wait: when nothing happens until the next timer, its clock jumps there.

What is on its way through the kernel still arrives first: before each jump the loop looks for it during a
twentieth of the time to be skipped. So a call of a minute takes three seconds, and every duration that a test
sees is that of the program, not of the machine.
"""

from __future__ import annotations

import asyncio
import select
import selectors
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SHARE = 1 / 20
LONGEST_LOOK = 0.05
"""Seconds: enough for the kernel to deliver anything on loopback."""


class _Hurried:
    """A selector that lets time pass instead of waiting for it."""

    def __init__(self, inner: selectors.EpollSelector) -> None:
        self._inner = inner
        self._skipped = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def time(self) -> float:
        return time.monotonic() + self._skipped

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return self._inner.select(timeout)
        due = self.time() + timeout
        # epoll itself counts whole milliseconds
        select.select([self._inner.fileno()], [], [], min(timeout * SHARE, LONGEST_LOOK))
        ready = self._inner.select(0)
        if not ready:
            self._skipped += max(0.0, due - self.time())
        return ready


@contextmanager
def hurried(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Let the running ``loop`` hurry. Nothing in it may wait for a thread."""
    inner = loop._selector  # type: ignore[attr-defined]
    fast = _Hurried(inner)
    loop._selector, loop.time = fast, fast.time  # type: ignore[attr-defined,method-assign]
    try:
        yield
    finally:
        loop._selector = inner  # type: ignore[attr-defined]
        # its clock stays ahead, for timers that are still set
