"""Things to be done at given times, on a clock that is handed in."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

Action = Callable[[float], None]


class Agenda:
    """Actions in the order of their times; those of the same time in the order they were entered."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, str, Action]] = []
        self._order = count()
        self._closed = False

    def at(self, due: float, action: Action, group: str = "") -> None:
        """Call ``action(now)`` once ``now`` has reached ``due``; ``group`` is a name to drop it by."""
        if not self._closed:
            heapq.heappush(self._entries, (due, next(self._order), group, action))

    def drop(self, group: str) -> None:
        """Forget every action of this group."""
        self._entries = [entry for entry in self._entries if entry[2] != group]
        heapq.heapify(self._entries)

    def close(self) -> None:
        """Forget everything, and take in nothing more."""
        self._closed = True
        self._entries.clear()

    @property
    def next_at(self) -> float | None:
        """When the next action is due, or None."""
        return self._entries[0][0] if self._entries else None

    def run(self, now: float) -> None:
        """Do all that is due at ``now``, including what those actions enter for now or before."""
        while self._entries and self._entries[0][0] <= now:
            action = heapq.heappop(self._entries)[3]
            action(now)
