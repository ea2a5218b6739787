"""The last messages of a session, one line each, to be read when it ends badly.

No content stands in it: neither words nor keys, only kinds and sizes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(slots=True)
class _Entry:
    at: float
    glyph: str
    what: str
    audio_sent: int
    audio_received: int
    times: int = 1


class Trail:
    """A ring of the newest ``limit`` messages. Audio is only counted, so it cannot push them out."""

    def __init__(self, limit: int = 32) -> None:
        self._entries: deque[_Entry] = deque(maxlen=limit)
        self.audio_sent = 0
        self.audio_received = 0

    def note(self, now: float, glyph: str, what: str) -> None:
        """Remember ``what`` went out (``>``) or came in (``<``) at ``now`` (s). Repetitions share a line."""
        last = self._entries[-1] if self._entries else None
        if last is not None and last.glyph == glyph and last.what == what:
            last.times += 1
            last.at = now
            last.audio_sent, last.audio_received = self.audio_sent, self.audio_received
            return
        self._entries.append(_Entry(now, glyph, what, self.audio_sent, self.audio_received))

    def lines(self, now: float) -> list[str]:
        """Oldest first: age in seconds, glyph, message, and how much audio had gone each way by then."""
        return [*(self._line(entry, now) for entry in self._entries), f"+0.000s ={self._audio(self)}"]

    def _line(self, entry: _Entry, now: float) -> str:
        times = f" x{entry.times}" if entry.times > 1 else ""
        return f"{entry.at - now:+.3f}s {entry.glyph} {entry.what}{times}{self._audio(entry)}"

    @staticmethod
    def _audio(counted: _Entry | Trail) -> str:
        return f" (audio {counted.audio_sent}>, {counted.audio_received}<)"
