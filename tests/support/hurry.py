"""A loop that does not wait: when nothing happens until the next timer, its clock jumps there.

What is on its way through the kernel still arrives first: before each jump the loop looks for it during a
fiftieth of the time to be skipped. So a call of a minute takes a few seconds, and every duration that a test
sees is that of the program, not of the machine.
"""

from __future__ import annotations

import asyncio
import select
import selectors
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from ari_gemini.simulator import gemini_connection, gemini_live

SHARE = 1 / 50
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
def hurried() -> Iterator[None]:
    """Let the running loop hurry, and the simulated Gemini with it. Nothing in it may wait for a thread."""
    loop = asyncio.get_running_loop()
    inner = loop._selector
    fast = _Hurried(inner)
    clock = SimpleNamespace(monotonic=fast.time)
    with patch.object(gemini_connection, "time", clock), patch.object(gemini_live, "time", clock):
        loop._selector, loop.time = fast, fast.time
        try:
            yield
        finally:
            loop._selector = inner  # the clock stays ahead, for timers that are still set
