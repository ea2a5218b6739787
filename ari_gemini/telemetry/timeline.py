"""When everything in a call happened, and from that where each turn's latency came from. Pure; times are handed in.

All times are seconds of one monotonic clock. A turn's latency is what the caller feels: from the true end of his
speech to the first audible frame written towards him. It falls into three parts::

    caller ends ──────────▶ provider believes it ──▶ first model audio here ──▶ first frame on the wire
                 endpointing                 thinking                  playout
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

MAX_TURNS = 512
"""Turns remembered per call: over an hour of quick talk; older ones leave, the counts stay right."""


@dataclass(slots=True)
class Turn:
    """One answer of the model and what led to it. None is "was not seen"."""

    number: int
    caller_stopped: float | None = None
    """True end of the caller's last speech before this answer, by our own detector."""
    endpointed: float | None = None
    """The provider said the caller has stopped."""
    first_audio: float | None = None
    first_frame: float | None = None
    """First audible frame written towards the caller."""
    ended: float | None = None
    interrupted: float | None = None
    """The provider's word of the interruption arrived."""
    heard_ms: float = 0.0
    """Milliseconds of this answer written towards the caller."""

    @property
    def latency_ms(self) -> float | None:
        """What the caller waited, ms; None for an answer nobody asked for (the greeting)."""
        return _between(self.caller_stopped, self.first_frame)

    @property
    def endpointing_ms(self) -> float | None:
        return _between(self.caller_stopped, self.endpointed)

    @property
    def thinking_ms(self) -> float | None:
        return _between(self.endpointed or self.caller_stopped, self.first_audio)

    @property
    def playout_ms(self) -> float | None:
        return _between(self.first_audio, self.first_frame)


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else (end - start) * 1000


class Timeline:
    """Collects one call's moments into turns."""

    def __init__(self) -> None:
        self.turns: deque[Turn] = deque(maxlen=MAX_TURNS)
        self.count = 0
        self._current: Turn | None = None
        self._caller_stopped: float | None = None
        self._endpointed: float | None = None

    def caller_started(self) -> None:
        """Our own detector heard the caller begin: an older end of speech no longer counts."""
        self._caller_stopped = None
        self._endpointed = None

    def caller_stopped(self, at: float) -> None:
        """Our own detector heard the caller end at ``at`` (the true edge, before its hangover)."""
        self._caller_stopped = at
        turn = self._current
        if turn is not None and turn.caller_stopped is None and turn.first_frame is None:
            turn.caller_stopped = at

    def endpointed(self, at: float) -> None:
        """The provider's detector says that the caller has ended."""
        self._endpointed = at

    def model_audio(self, at: float) -> bool:
        """Model audio arrived. True when it opens a new turn."""
        if self._current is not None:
            return False
        self.count += 1
        self._current = Turn(self.count, self._caller_stopped, self._endpointed, first_audio=at)
        self._caller_stopped = self._endpointed = None
        self.turns.append(self._current)
        return True

    def first_frame(self, at: float) -> None:
        """The turn's first audible frame was written."""
        if self._current is not None and self._current.first_frame is None:
            self._current.first_frame = at

    def turn_ended(self, at: float, heard_ms: float, *, interrupted: bool = False) -> Turn | None:
        """The turn's last frame was written, or the rest of it was thrown away."""
        turn, self._current = self._current, None
        if turn is None:
            return None
        turn.ended = at
        turn.heard_ms = heard_ms
        if interrupted:
            turn.interrupted = at
        return turn
