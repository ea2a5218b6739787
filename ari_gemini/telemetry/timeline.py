"""When everything in a call happened, and from that where each turn's latency came from. Pure.

All times are handed in and are seconds of one monotonic clock. A turn's latency is what the caller feels:
from the true end of his speech to the first audible frame written towards him. It falls into three parts::

    caller ends ──────────▶ provider believes it ──▶ first model audio here ──▶ first frame on the wire
                 endpointing                 thinking                  playout

A model sends its answer faster than it is spoken, so the next turn may arrive while the last one still plays:
sound is received for the newest turn and played from the oldest.
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
        """From the caller's end to the provider's word of it, ms."""
        return _between(self.caller_stopped, self.endpointed)

    @property
    def thinking_ms(self) -> float | None:
        """From the provider's word, or without one from the caller's end, to the first audio, ms."""
        begin = self.caller_stopped if self.endpointed is None else self.endpointed
        return _between(begin, self.first_audio)

    @property
    def playout_ms(self) -> float | None:
        """From the first audio to the first frame written, ms."""
        return _between(self.first_audio, self.first_frame)


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else (end - start) * 1000


class Timeline:
    """Collects one call's moments into turns."""

    def __init__(self) -> None:
        self.turns: deque[Turn] = deque(maxlen=MAX_TURNS)
        self.count = 0
        self._arriving: Turn | None = None
        """The turn whose sound comes in."""
        self._unplayed: deque[Turn] = deque(maxlen=MAX_TURNS)
        """Turns that have not been played to their end, the oldest first, the arriving one included."""
        self._caller_stopped: float | None = None
        self._endpointed: float | None = None

    def caller_started(self) -> None:
        """Our own detector heard the caller begin: an older end of speech no longer counts."""
        self._caller_stopped = None
        self._endpointed = None

    def caller_stopped(self, at: float) -> None:
        """Our own detector heard the caller end at ``at`` (the true edge, before its hangover).

        It may be sure only after the answer has begun to arrive; then this end of speech is that answer's.
        """
        newest = self._unplayed[-1] if self._unplayed else None
        if newest is not None and _could_have_led_to(newest, at):
            newest.caller_stopped = at
        else:
            self._caller_stopped = at

    def endpointed(self, at: float) -> None:
        """The provider's detector says that the caller has ended."""
        self._endpointed = at

    def model_audio(self, at: float) -> bool:
        """Model audio arrived. True when it opens a new turn."""
        if self._arriving is not None:
            return False
        self.count += 1
        self._arriving = turn = Turn(self.count, self._caller_stopped, self._endpointed, first_audio=at)
        self._caller_stopped = self._endpointed = None
        self.turns.append(turn)
        self._unplayed.append(turn)
        return True

    def turn_received(self) -> None:
        """All of the arriving turn's audio is here: what arrives next is another turn's."""
        self._arriving = None

    def first_frame(self, at: float) -> None:
        """The first audible frame of the oldest unplayed turn was written."""
        if self._unplayed and self._unplayed[0].first_frame is None:
            self._unplayed[0].first_frame = at

    def turn_played(self, at: float, heard_ms: float) -> Turn | None:
        """The last frame of the oldest unplayed turn was written; returns that turn, ended."""
        if not self._unplayed:
            return None
        turn = self._unplayed.popleft()
        if turn is self._arriving:
            self._arriving = None
        turn.ended = at
        turn.heard_ms = heard_ms
        return turn

    def interrupted(self, at: float, heard_ms: float) -> list[Turn]:
        """Everything unplayed was thrown away. Returns the turns this ended: of the oldest ``heard_ms`` were
        heard, of the others nothing."""
        ended = list(self._unplayed)
        self._unplayed.clear()
        self._arriving = None
        for turn in ended:
            turn.ended = turn.interrupted = at
        if ended:
            ended[0].heard_ms = heard_ms
        return ended


def _could_have_led_to(turn: Turn, stopped: float) -> bool:
    """Whether the end of speech that became known only now is what ``turn`` answers."""
    if turn.caller_stopped is not None or turn.first_audio is None:
        return False
    return stopped <= turn.first_audio
