"""What a simulated caller says and when, and what it makes of what it hears. Pure: the clock is handed in.

:class:`ScriptedVoice` offers ``next_frame`` and ``hear``, so it can hold any phone: the one of
:mod:`ari_gemini.simulator.caller`, which dials an AudioSocket itself, or that of the simulated Asterisk.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

from ari_gemini.audio.pcm import FRAME_MS, SAMPLE_BYTES, AudioFormat, level_dbfs
from ari_gemini.audio.wav import convert, read_wav, write_wav

PHONE = AudioFormat(8000)
"""A narrow-band phone (G.711)."""
FRAME_SECONDS = FRAME_MS / 1000
AUDIBLE_DBFS = -45.0
"""A frame as loud as this is speech; the line itself is digitally silent, so this need not be clever."""
PAUSE_SECONDS = 0.100
"""Silence that separates two stretches of the model's speech. Short, for a model that has been interrupted
may go on with its answer at once, and that answer has a beginning of its own."""
JITTER_SECONDS = 0.060
"""How late sound may come without a hole in the recording: what a phone's jitter buffer commonly bridges."""
_ROUNDING = 1e-6  # of sums of 20 ms, in seconds
LAST_PAUSE_MS = 1000.0
"""Silence after the last answer until the caller hangs up."""


class Cue(Enum):
    """What a line waits for. ``Line.delay_ms`` counts from there."""

    REPLY_END = "reply_end"
    """The other has spoken since the caller's last line, and has been silent for the delay."""
    REPLY_BEGIN = "reply_begin"
    """The other has begun to speak since the caller's last line: a barge-in."""
    NOTHING = "nothing"
    """The caller's own last line (or the beginning of the call), whatever the other does."""


@dataclass(frozen=True, slots=True)
class Line:
    """Something to say: signed 16-bit little-endian mono at the voice's rate (8 kHz unless told
    otherwise)."""

    pcm: bytes
    text: str = ""
    cue: Cue = Cue.REPLY_END
    delay_ms: float = 700.0

    @classmethod
    def from_wav(
        cls,
        path: str | os.PathLike[str],
        text: str = "",
        cue: Cue = Cue.REPLY_END,
        delay_ms: float = 700.0,
        fmt: AudioFormat = PHONE,
    ) -> Self:
        """Read a WAV file of any rate. Raises ValueError or OSError, naming it, when it cannot be read."""
        wav = read_wav(path)
        return cls(convert(wav.mono, wav.format, fmt), text, cue, delay_ms)


@dataclass(frozen=True, slots=True)
class CallerEvent:
    """Something that happened, ``at_ms`` after the caller's first frame."""

    at_ms: float
    what: str
    """line_began, line_ended, model_began, model_ended, gave_up, connected, hung_up, ended_by_service,
    lost."""
    detail: str = ""


@dataclass(slots=True)
class CallerTurn:
    """One line and what came of it. Times in ms after the caller's first frame; only audible sound counts."""

    text: str
    cue: Cue
    began_ms: float
    ended_ms: float = 0.0
    reply_began_ms: float | None = None
    reply_ended_ms: float | None = None
    silenced_ms: float | None = None
    """From the line's first audible frame until the other, who was speaking then, had been silenced."""

    @property
    def latency_ms(self) -> float | None:
        """From the caller's last audible frame to the first audible one of the answer."""
        return None if self.reply_began_ms is None else self.reply_began_ms - self.ended_ms


@dataclass(slots=True)
class CallerReport:
    """What a caller said, heard and measured."""

    format: AudioFormat
    said: bytes = b""
    """Everything said from the first frame on, silence included."""
    heard: bytes = b""
    """Everything heard on the same time scale and of the same length as ``said``."""
    gaps_ms: list[float] = field(default_factory=list)
    """Time between each two messages of sound that arrived."""
    turns: list[CallerTurn] = field(default_factory=list)
    events: list[CallerEvent] = field(default_factory=list)
    speech: list[tuple[float, float]] = field(default_factory=list)
    """When the other spoke: beginnings and ends in ms."""
    frames_said: int = 0
    frames_heard: int = 0
    completed: bool = False
    """Every line was said, and every cue came."""
    ended_by: str = ""
    """caller, service or lost; who used the voice fills it in."""
    detail: str = ""

    @property
    def latencies_ms(self) -> list[float]:
        """The latency of every turn that was answered."""
        return [turn.latency_ms for turn in self.turns if turn.latency_ms is not None]

    def write_wav(self, path: str | os.PathLike[str]) -> None:
        """Write the call as stereo: the caller left, the other right. Raises OSError."""
        write_wav(path, self.format, self.said, self.heard)


class Track:
    """Sound on a time scale. Small lateness is bridged, as a phone does; more leaves a hole."""

    def __init__(self, fmt: AudioFormat) -> None:
        self._format = fmt
        self._pcm = bytearray()

    def add(self, pcm: bytes, at: float) -> None:
        """Append ``pcm``, which came ``at`` seconds after the beginning."""
        bytes_at = max(0, round(at * self._format.rate)) * SAMPLE_BYTES
        late = bytes_at - len(self._pcm)
        if late > 0 and (not self._pcm or late > JITTER_SECONDS * self._format.rate * SAMPLE_BYTES):
            self._pcm += bytes(late)
        self._pcm += pcm

    def __len__(self) -> int:
        return len(self._pcm)

    def pcm(self, length: int) -> bytes:
        """Everything, filled up with silence to ``length`` bytes."""
        return bytes(self._pcm).ljust(length, b"\x00")


class Ear:
    """Finds the stretches of speech in what is heard. Times are the clock's, in seconds."""

    def __init__(self, fmt: AudioFormat) -> None:
        self._format = fmt
        self.stretches: list[list[float]] = []
        """Beginning and end of each; the last may still go on."""
        self.gaps: list[float] = []
        self._last_message: float | None = None

    def hear(self, pcm: bytes, at: float) -> None:
        """Take a message that arrived at ``at``."""
        if self._last_message is not None:
            self.gaps.append(at - self._last_message)
        self._last_message = at
        if level_dbfs(pcm) < AUDIBLE_DBFS:
            return
        end = at + self._format.duration_ms(len(pcm)) / 1000
        if self.stretches and at - self.stretches[-1][1] < PAUSE_SECONDS:
            self.stretches[-1][1] = end
        else:
            self.stretches.append([at, end])

    def silent_for(self, now: float) -> float:
        """Seconds since the last audible sound; endless when there was none."""
        return max(0.0, now - self.stretches[-1][1]) if self.stretches else float("inf")

    def reply_after(self, moment: float) -> float | None:
        """When the first stretch of speech that did not begin before ``moment`` began."""
        return next((began for began, _ in self.stretches if began >= moment), None)


class ScriptedVoice:
    """Says its lines on their cues, frame by frame, and keeps a record of the call."""

    def __init__(
        self,
        script: Sequence[Line],
        clock: Callable[[], float],
        *,
        fmt: AudioFormat = PHONE,
        patience: float = 20.0,
    ) -> None:
        """``clock`` gives seconds; ``patience`` is how long a cue may stay away (s) before the caller gives
        up."""
        self.format = fmt
        self.done = False
        """Nothing is left to be said or waited for: time to hang up."""
        self._clock = clock
        self._patience = patience
        self._lines = deque(script)
        self._frames: deque[tuple[bytes, bool, bool]] = deque()
        """The rest of the line being said: frame, is it the first audible one, is it the last."""
        self._began: float | None = None
        self._free_at = 0.0
        """When the caller's last audible frame ended; delays count from there."""
        self._last_word_at = 0.0
        """When that frame was handed out. Nothing that began earlier answers it, and an answer may come at
        once when the voice has been late and is catching up."""
        self._ear = Ear(fmt)
        self._said = Track(fmt)
        self._heard = Track(fmt)
        self._turns: list[CallerTurn] = []
        self._events: list[CallerEvent] = []
        self._announced = 0
        self._frames_said = 0
        self._frames_heard = 0
        self._gave_up = False

    @property
    def lines_left(self) -> int:
        """Lines that have not been said to their end."""
        return len(self._lines) + bool(self._frames)

    @property
    def lines_said(self) -> int:
        """Lines that have been said to their end."""
        return len(self._turns) - bool(self._frames)

    @property
    def hears_speech(self) -> bool:
        """The other speaks; still true in pauses shorter than PAUSE_SECONDS."""
        return self._ear.silent_for(self._clock()) < PAUSE_SECONDS

    def silent_ms(self) -> float:
        """How long the other has been silent, ms; endless when it has not said anything yet."""
        return self._ear.silent_for(self._clock()) * 1000

    def say(self, line: Line) -> None:
        """Add a line to the script."""
        self._lines.append(line)
        self.done = False

    def note(self, what: str, detail: str = "") -> None:
        """Enter an event."""
        self._note(self._clock(), what, detail)

    def next_frame(self) -> bytes:
        """What the caller says in the next 20 ms. To be called every 20 ms from answering on."""
        now = self._clock()
        if self._began is None:
            self._began = self._free_at = self._last_word_at = now
        self._announce(now)
        if not self._frames:
            self._consider(now)
        frame = self._next_of_line(now) if self._frames else self.format.silence()
        self._said.add(frame, now - self._began)
        self._frames_said += 1
        return frame

    def hear(self, frame: bytes, at: float) -> None:
        """Take sound that arrived at ``at`` by the same clock."""
        if self._began is None:
            self._began = self._free_at = self._last_word_at = at
        self._ear.hear(frame, at)
        self._heard.add(frame, at - self._began)
        self._frames_heard += 1

    def report(self) -> CallerReport:
        """Everything so far."""
        self._close_turn(self._clock())
        length = max(len(self._said), len(self._heard))
        return CallerReport(
            format=self.format,
            said=self._said.pcm(length),
            heard=self._heard.pcm(length),
            gaps_ms=[gap * 1000 for gap in self._ear.gaps],
            turns=self._turns,
            events=sorted(self._events, key=lambda event: event.at_ms),
            speech=[(self._ms(began), self._ms(ended)) for began, ended in self._ear.stretches],
            frames_said=self._frames_said,
            frames_heard=self._frames_heard,
            completed=self.done and not self._gave_up,
        )

    def _consider(self, now: float) -> None:
        """Begin the next line when its cue has come; see whether the call is over."""
        line = self._lines[0] if self._lines else None
        cue, delay_ms = (line.cue, line.delay_ms) if line else (Cue.REPLY_END, LAST_PAUSE_MS)
        if self.done:
            return
        if not self._has_come(cue, delay_ms / 1000, now):
            self._lose_patience(now)
        elif line is None:
            self.done = True
        else:
            self._lines.popleft()
            self._begin(line, now)

    def _has_come(self, cue: Cue, delay: float, now: float) -> bool:
        if cue is Cue.NOTHING:
            return now - self._free_at >= delay - _ROUNDING
        reply = self._ear.reply_after(self._last_word_at)
        if reply is None:
            return False
        if cue is Cue.REPLY_BEGIN:
            return now - reply >= delay - _ROUNDING
        return self._ear.silent_for(now) >= delay - _ROUNDING

    def _lose_patience(self, now: float) -> None:
        if min(now - self._free_at, self._ear.silent_for(now)) > self._patience:
            self._gave_up = self.done = True
            self._note(now, "gave_up", self._lines[0].text if self._lines else "the last answer")

    def _begin(self, line: Line, now: float) -> None:
        self._close_turn(now)
        size = self.format.frame_bytes
        frames = [line.pcm[at : at + size].ljust(size, b"\x00") for at in range(0, len(line.pcm), size)]
        audible = [i for i, frame in enumerate(frames) if level_dbfs(frame) >= AUDIBLE_DBFS]
        first, last = (audible[0], audible[-1]) if audible else (0, len(frames) - 1)
        self._frames.extend((frame, i == first, i == last) for i, frame in enumerate(frames))
        self._turns.append(CallerTurn(line.text, line.cue, self._ms(now), self._ms(now)))
        self._note(now, "line_began", line.text)

    def _next_of_line(self, now: float) -> bytes:
        frame, is_first, is_last = self._frames.popleft()
        turn = self._turns[-1]
        if is_first:
            turn.began_ms = self._ms(now)
        if is_last:
            self._last_word_at = now
            self._free_at = now + FRAME_SECONDS
            turn.ended_ms = self._ms(self._free_at)
            self._note(self._free_at, "line_ended", turn.text)
        return frame

    def _close_turn(self, now: float) -> None:
        """Enter what came of the last line."""
        if not self._turns or self._frames:
            return
        turn = self._turns[-1]
        reply = self._ear.reply_after(self._last_word_at)
        if reply is not None:
            turn.reply_began_ms = self._ms(reply)
            turn.reply_ended_ms = self._ms(min(now, self._ear.stretches[-1][1]))
        over = [ended for began, ended in self._ear.stretches if began < self._last_word_at]
        if over and self._ms(over[-1]) > turn.began_ms:
            turn.silenced_ms = self._ms(over[-1]) - turn.began_ms

    def _announce(self, now: float) -> None:
        """Enter the beginnings and ends of the other's speech as events, once each."""
        stretches = self._ear.stretches
        while self._announced < 2 * len(stretches):
            which, is_end = divmod(self._announced, 2)
            began, ended = stretches[which]
            if is_end and which == len(stretches) - 1 and now - ended < PAUSE_SECONDS:
                return
            self._note(ended if is_end else began, "model_ended" if is_end else "model_began")
            self._announced += 1

    def _note(self, at: float, what: str, detail: str = "") -> None:
        self._events.append(CallerEvent(self._ms(at), what, detail))

    def _ms(self, at: float) -> float:
        return round((at - (at if self._began is None else self._began)) * 1000, 3)
