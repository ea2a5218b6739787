"""What a connection received before anybody was there to take it. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

from ari_gemini.audio.pcm import SAMPLE_BYTES

HELD_SECONDS: Final = 1.0
"""Audio kept: the caller's first word, not what he said to nobody before it."""
HELD_AUDIO_MESSAGES: Final = 1_000
"""Bounds what 1 s of audio costs in memory when a peer cuts it into the smallest pieces (1 ms each)."""
HELD_DIGITS: Final = 32
"""Digits kept: more than anybody dials in the seconds that setting up a call takes."""


class Held:
    """Audio and digits in the order of arrival. Too much drops the oldest of its sort."""

    __slots__ = ("_audio", "_digits", "_order", "_seconds")

    def __init__(self) -> None:
        self._audio: deque[tuple[int, bytes, float]] = deque()
        self._digits: deque[tuple[int, str]] = deque()
        self._order = 0
        self._seconds = 0.0

    def audio(self, pcm: bytes, rate: int) -> int:
        """Keep ``pcm``, 16-bit samples at ``rate`` Hz; return how many older messages had to go for it.

        The newest message always stays, however long it is.
        """
        self._order += 1
        seconds = len(pcm) / (SAMPLE_BYTES * rate)
        self._audio.append((self._order, pcm, seconds))
        self._seconds += seconds
        dropped = 0
        while len(self._audio) > 1 and self._is_too_much():
            self._seconds -= self._audio.popleft()[2]
            dropped += 1
        return dropped

    def digit(self, digit: str) -> int:
        """Keep ``digit``; return how many older ones had to go for it."""
        self._order += 1
        self._digits.append((self._order, digit))
        if len(self._digits) <= HELD_DIGITS:
            return 0
        self._digits.popleft()
        return 1

    def take(self) -> list[bytes | str]:
        """Return everything, audio as bytes and digits as str, in the order of arrival, and keep nothing."""
        everything: list[tuple[int, bytes | str]] = [(order, pcm) for order, pcm, _ in self._audio]
        everything += self._digits
        everything.sort(key=lambda item: item[0])
        self._audio.clear()
        self._digits.clear()
        self._seconds = 0.0
        return [item for _, item in everything]

    def _is_too_much(self) -> bool:
        # The margin is for the rounding of the sum, far below one sample.
        return self._seconds > HELD_SECONDS + 1e-9 or len(self._audio) > HELD_AUDIO_MESSAGES
