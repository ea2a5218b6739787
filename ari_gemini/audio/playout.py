"""Paced playout: bursts of model speech in, one frame every 20 ms out.

Deadlines are absolute, ``start + n * 20 ms``, so no delay of the event loop ever adds up. What comes out
never stops: silence fills every deadline for which there is no speech, because Asterisk's reader may spin
when its AudioSocket peer is idle (asterisk/asterisk#2089).

::

    a turn is    when                                             a deadline yields
    ---------    -----------------------------------------------  -----------------------------
    waiting      from its first push, until the cushion is full,  silence
                 the turn has ended, or the cushion's time is over
    playing      from its first frame to its last                 speech; silence in an underrun
    drained      its last frame was handed out                    silence, or the next turn

While the buffer is held, every deadline yields silence, and turns stay as they are.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from ari_gemini.audio.pcm import FRAME_MS, SAMPLE_BYTES, AudioFormat

FRAME_S = FRAME_MS / 1000
CATCH_UP_FRAMES = 2
"""Missed deadlines that are made up for at once: the 40 ms that a phone's jitter buffer absorbs."""
PARTIAL_HOLD_FRAMES = 2
"""Deadlines that a part of a frame waits for its rest, before silence is put in the rest's place."""


class PlayoutFrame(NamedTuple):
    """What one deadline yields."""

    pcm: bytes
    """Exactly one frame."""
    audible: bool
    """False: silence, because there was nothing to say."""
    starts_turn: bool
    """The first audible frame of a turn."""
    ends_turn: bool
    """The last frame of a turn: with it, the turn has been played to its end."""


class Heard(NamedTuple):
    """What became of an interrupted turn, in milliseconds of speech."""

    played_ms: float
    """Handed out at its deadlines, without the silence in between."""
    dropped_ms: float
    """Thrown away, later turns included."""


@dataclass(slots=True)
class PlayoutCounters:
    """Counted since the buffer was made."""

    frames: int = 0
    """Every frame handed out, silence included."""
    silence_frames: int = 0
    underruns: int = 0
    """Gaps within a turn: the caller heard silence in the middle of what the model said."""
    skipped_deadlines: int = 0
    """Given up after a stall longer than CATCH_UP_FRAMES: speech was delayed by so many frames, not lost."""
    refused_bytes: int = 0
    """Pushed beyond the bound."""


class PlayoutBuffer:
    """Holds the model's speech until it is due. The clock is whatever the caller hands in, in seconds.

    Turns queue up one behind the other. The queue is bounded by ``limit_s`` seconds of speech: a model
    sends its answer several times faster than it is spoken, and 120 s are more than anyone listens to in
    one go, yet stop a model that runs away from filling the memory (1.9 MB a call at 8 kHz). What is beyond
    the bound is the newest, and that is what is refused: the oldest is being spoken, and dropping from it
    would tear the sentence the caller hears.
    """

    def __init__(self, fmt: AudioFormat, *, prebuffer_ms: int = 40, limit_s: float = 120.0) -> None:
        """``prebuffer_ms`` of speech are gathered, or waited for, before a turn begins.

        Raises ValueError when it is negative or the bound is not above it.
        """
        if prebuffer_ms < 0 or limit_s * 1000 <= prebuffer_ms:
            raise ValueError(f"prebuffer_ms {prebuffer_ms} must lie between 0 and the bound of {limit_s} s")
        self.counters = PlayoutCounters()
        self._format = fmt
        self._frame_bytes = fmt.frame_bytes
        self._silence = PlayoutFrame(fmt.silence(), audible=False, starts_turn=False, ends_turn=False)
        self._limit = int(fmt.rate * limit_s) * SAMPLE_BYTES
        self._cushion = max(fmt.frame_bytes, len(fmt.silence(prebuffer_ms)))
        self._cushion_patience = max(PARTIAL_HOLD_FRAMES, -(-prebuffer_ms // FRAME_MS))
        self._pcm = bytearray()  # unplayed speech of all turns; deleting at its front moves nothing
        self._read = 0  # stream position of its first byte
        self._ends: deque[int] = deque()  # stream positions where turns end
        self._playing = False
        self._held = False
        self._gap = False  # since the last audible frame, silence was heard that nobody wanted
        self._waited = 0  # deadlines that passed with too little on hand
        self._heard = 0
        self._start = 0.0
        self._count = 0
        self._next = math.inf

    @property
    def format(self) -> AudioFormat:
        """What is pushed and what comes out."""
        return self._format

    @property
    def playing(self) -> bool:
        """The caller is in the middle of a turn, an underrun included."""
        return self._playing

    @property
    def empty(self) -> bool:
        """Nothing waits: all that was pushed has been handed out or thrown away."""
        return not self._pcm

    @property
    def held(self) -> bool:
        """Between ``hold`` and ``release``."""
        return self._held

    @property
    def buffered_ms(self) -> float:
        """Speech that waits, of all turns."""
        return self._format.duration_ms(len(self._pcm))

    @property
    def heard_ms(self) -> float:
        """Speech played of the turn that plays, or (until the next one begins) that played last."""
        return self._format.duration_ms(self._heard)

    def start(self, now: float) -> None:
        """Begin: the first frame is due at ``now``. Begun again, deadlines count anew and nothing is lost."""
        self._start = now
        self._count = 0
        self._next = now

    def next_at(self) -> float:
        """When the next frame is due; infinity before ``start``."""
        return self._next

    def push(self, pcm: bytes) -> bool:
        """Queue speech of the open turn, or begin one. False: it went beyond the bound and was refused whole.

        Raises ValueError when ``pcm`` ends within a sample.
        """
        if len(pcm) % SAMPLE_BYTES:
            raise ValueError(f"{len(pcm)} bytes are not whole 16-bit samples")
        if len(self._pcm) + len(pcm) > self._limit:
            self.counters.refused_bytes += len(pcm)
            return False
        self._pcm += pcm
        return True

    def end_turn(self) -> bool:
        """Nothing more belongs to the open turn; what is left of it, a part of a frame too, will be played.

        True when the turn is over with that, because all of it has been played already. Else its last frame
        is still to come and says ``ends_turn``: each turn that begins is reported over exactly once. Does
        nothing when no turn is open.
        """
        if not self._pcm:
            was_playing = self._playing
            self._playing = False
            return was_playing
        written = self._read + len(self._pcm)
        if not self._ends or self._ends[-1] < written:
            self._ends.append(written)
        return False

    def clear(self) -> Heard:
        """Throw away everything unplayed: the caller interrupts.

        The turn is over; what is pushed next begins another. Between turns nothing was interrupted, and 0 ms
        are reported played.
        """
        heard = Heard(
            played_ms=self.heard_ms if self._playing else 0.0,
            dropped_ms=self._format.duration_ms(len(self._pcm)),
        )
        self._read += len(self._pcm)
        self._pcm = bytearray()
        self._ends.clear()
        self._waited = 0
        self._playing = False
        return heard

    def hold(self) -> None:
        """Keep what waits: deadlines yield silence until ``release``, which is no underrun. Idempotent.

        Speech can be pushed, ended and cleared meanwhile.
        """
        self._held = True

    def release(self) -> None:
        """Go on where ``hold`` broke off. Idempotent."""
        self._held = False

    def due(self, now: float) -> PlayoutFrame | None:
        """The frame that is due, None when it is not yet time. A stall leaves several: ask until None."""
        if now < self._next:
            return None
        if now >= self._start + (self._count + CATCH_UP_FRAMES + 1) * FRAME_S:
            self._skip(now)
        self._count += 1
        self._next = self._start + self._count * FRAME_S
        self.counters.frames += 1
        if not self._held:
            if size := self._ready():
                return self._take(size)
            self._gap = True
        self.counters.silence_frames += 1
        return self._silence

    def _skip(self, now: float) -> None:
        """Move on to the oldest deadline that may still be caught up."""
        latest = int((now - self._start) / FRAME_S) + 1
        while self._start + latest * FRAME_S > now:  # the division may be one off either way
            latest -= 1
        oldest = latest - CATCH_UP_FRAMES
        self.counters.skipped_deadlines += oldest - self._count
        self._count = oldest

    def _ready(self) -> int:
        """Bytes of speech to be played at this deadline, at most a frame; 0 for none."""
        waiting = len(self._pcm)
        if not waiting:
            return 0
        frame = self._frame_bytes
        if self._ends:
            return min(frame, self._ends[0] - self._read)
        if waiting >= (frame if self._playing else self._cushion):
            return frame
        if self._waited < (PARTIAL_HOLD_FRAMES if self._playing else self._cushion_patience):
            self._waited += 1
            return 0
        return min(frame, waiting)

    def _take(self, size: int) -> PlayoutFrame:
        pcm = bytes(self._pcm[:size])
        del self._pcm[:size]
        self._read += size
        starts = not self._playing
        if starts:
            self._playing = True
            self._heard = 0
        elif self._gap:
            self.counters.underruns += 1
        self._heard += size
        self._waited = 0
        ends = bool(self._ends) and self._ends[0] == self._read
        self._gap = size < self._frame_bytes
        if ends:
            self._ends.popleft()
            self._playing = False
        if size < self._frame_bytes:
            pcm += bytes(self._frame_bytes - size)
        return PlayoutFrame(pcm, True, starts, ends)
