"""How often somebody may ask: token buckets, told the time."""

from __future__ import annotations

from collections import OrderedDict

from ari_gemini.origin import network

MAX_CLIENTS = 4096
"""Client addresses remembered, some 200 bytes each. The one that was longest quiet is forgotten first: by
then its bucket is full again, unless thousands ask at once, and then the common limit holds."""


class Bucket:
    """Lets ``burst`` requests through at once and ``rate`` per second in the long run."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._level = float(burst)
        self._at = 0.0

    def take(self, now: float) -> float:
        """Take one request's worth: 0, or how many seconds it must wait until there is one (none is taken).

        ``now``: seconds of a clock that does not go back.
        """
        self._level = min(float(self._burst), self._level + (now - self._at) * self._rate)
        self._at = now
        if self._level >= 1.0:
            self._level -= 1.0
            return 0.0
        return (1.0 - self._level) / self._rate


class Clients:
    """A bucket for each client address."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, address: str, now: float) -> float:
        """As ``Bucket.take``, for that client."""
        key = network(address)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(self._rate, self._burst)
            if len(self._buckets) > MAX_CLIENTS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        return bucket.take(now)

    def __len__(self) -> int:
        return len(self._buckets)
