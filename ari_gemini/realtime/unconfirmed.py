"""What was sent on a connection and may not have arrived: a write into a dead socket succeeds for minutes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Unconfirmed(Generic[T]):
    """Items in the order in which they were sent, each with the count of messages sent by then.

    At most ``most``: a connection without pings confirms nothing until its end. The oldest goes first.
    """

    def __init__(self, most: int) -> None:
        self._items: deque[tuple[int, T]] = deque(maxlen=most)

    def sent(self, mark: int, item: T) -> None:
        """``item`` went out as message number ``mark`` (``RealtimeSession.sent`` after it), or before."""
        self._items.append((mark, item))

    def settle(self, confirmed: int) -> T | None:
        """The first ``confirmed`` messages have arrived: forget what was in them. Returns the newest."""
        items, newest = self._items, None
        while items and items[0][0] <= confirmed:
            newest = items.popleft()[1]
        return newest

    def discard(self, unwanted: Callable[[T], bool]) -> None:
        """These need not arrive any more."""
        wanted = (entry for entry in self._items if not unwanted(entry[1]))
        self._items = deque(wanted, self._items.maxlen)

    def __iter__(self) -> Iterator[T]:
        """The oldest first."""
        return iter([item for _, item in self._items])

    def __len__(self) -> int:
        return len(self._items)

    def take(self) -> list[T]:
        """All of them, the oldest first; none is left."""
        items = [item for _, item in self._items]
        self._items.clear()
        return items
