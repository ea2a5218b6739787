"""Call states in this process: nothing outlives it. For trials, and where calls may end with the service."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from ari_gemini.state.record import CallState, decode, encode
from ari_gemini.state.store import LIFETIME

MAX_CALLS = 4096
"""Records kept, the ones saved last: calls forget their own, so that only defects make more."""


class MemoryStore:
    """A StateStore. Never waits."""

    def __init__(self, *, lifetime: float = LIFETIME, clock: Callable[[], float] = time.monotonic) -> None:
        self._lifetime = lifetime
        self._clock = clock
        self._records: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    async def save(self, state: CallState) -> None:
        """See StateStore."""
        data = encode(state)
        self._records.pop(state.call_id, None)
        self._records[state.call_id] = (self._clock() + self._lifetime, data)
        while len(self._records) > MAX_CALLS or self._expired(next(iter(self._records))):
            self._records.popitem(last=False)

    async def load(self, call_id: str) -> CallState | None:
        """See StateStore."""
        if call_id not in self._records or self._expired(call_id):
            return None
        return decode(self._records[call_id][1])

    async def delete(self, call_id: str) -> None:
        """See StateStore."""
        self._records.pop(call_id, None)

    async def sweep(self) -> None:
        """See StateStore."""
        while self._records and self._expired(next(iter(self._records))):
            self._records.popitem(last=False)

    async def close(self) -> None:
        """See StateStore."""

    def _expired(self, call_id: str) -> bool:
        return self._records[call_id][0] <= self._clock()
