"""The simulated service's ears and mouth: when the caller speaks, in what pieces the model's speech leaves.

Pure: everything here is counted in samples of sound, nothing in time of a clock.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from ari_gemini.audio.pcm import SAMPLE_BYTES
from ari_gemini.simulator.phrases import MODEL_RATE

WINDOW_MS = 10
"""The detector decides every 10 ms, the granularity of the service's published offsets."""

_START_DBFS = {"high": -45.0, "low": -32.0}
_END_DBFS = {"high": -42.0, "low": -50.0}
_PREFIX_MS = {"high": 20, "low": 60}
_SILENCE_MS = {"high": 500, "low": 800}
# The service does not publish its levels. These put an undisturbed telephone voice (-25 dBFS) well above and
# line noise (-55 dBFS) well below both; low sensitivity asks for a louder start and a deeper, longer silence.


@dataclass(frozen=True, slots=True)
class VoiceSettings:
    """A session's activity detection. Levels in dBFS (mean over 10 ms), durations in ms of sound."""

    start_dbfs: float
    end_dbfs: float
    prefix_ms: int
    """Speech that must be heard before its start is believed."""
    silence_ms: int
    """Silence that must be heard before the end is believed."""

    @classmethod
    def of(cls, start_low: bool, end_low: bool, prefix_ms: int | None, silence_ms: int | None) -> Self:
        """Settings from the two sensitivities of ``automaticActivityDetection`` and its two durations."""
        start = "low" if start_low else "high"
        end = "low" if end_low else "high"
        return cls(
            _START_DBFS[start],
            min(_END_DBFS[end], _START_DBFS[start]),
            _PREFIX_MS[start] if prefix_ms is None else prefix_ms,
            _SILENCE_MS[end] if silence_ms is None else silence_ms,
        )


@dataclass(frozen=True, slots=True)
class Edge:
    """The caller began or stopped.

    ``offset_ms`` counts the sound received: for a start where the voice began, for an end where the end was
    decided, silence included.
    """

    kind: Literal["start", "end"]
    offset_ms: float
    spoken_ms: float = 0.0
    """How long the caller spoke (ends only)."""


class VoiceDetector:
    """Energy detector over sound of any rate; time is what the sound itself lasts.

    ``offset_ms`` is where counting begins: a resumed session goes on where it stopped.
    """

    def __init__(self, settings: VoiceSettings, offset_ms: float = 0.0) -> None:
        self.settings = settings
        self.received_ms = offset_ms
        self.speaking = False
        self._examined_ms = offset_ms
        self._rate = 0
        self._rest = np.empty(0, dtype=np.float32)
        self._onset_ms = offset_ms
        self._last_voice_ms = offset_ms
        self._run_ms = 0

    def feed(self, pcm: bytes, rate: int) -> list[Edge]:
        """Listen to ``pcm`` (16-bit little-endian mono, whole samples) at ``rate`` Hz; the edges in it."""
        if rate != self._rate:
            self._rest = np.empty(0, dtype=np.float32)
            self._examined_ms = self.received_ms
            self._rate = rate
        samples = np.frombuffer(pcm, dtype="<i2").astype(np.float32)
        self.received_ms += len(samples) * 1000 / rate
        sound = np.concatenate((self._rest, samples)) if len(self._rest) else samples
        size = rate * WINDOW_MS // 1000
        count = len(sound) // size
        self._rest = sound[count * size :]
        if count == 0:
            return []
        windows = sound[: count * size].reshape(count, size)
        power = np.einsum("ij,ij->i", windows, windows) / (size * 32768.0**2)
        levels = 10.0 * np.log10(power + 1e-12)
        return [edge for level in levels.tolist() if (edge := self._window(level)) is not None]

    def flush(self) -> Edge | None:
        """The sound stops here: end whatever the caller was saying."""
        self._run_ms = 0
        return self._end() if self.speaking else None

    def _window(self, level: float) -> Edge | None:
        self._examined_ms += WINDOW_MS
        if self.speaking:
            if level > self.settings.end_dbfs:
                self._last_voice_ms = self._examined_ms
            elif self._examined_ms - self._last_voice_ms >= self.settings.silence_ms:
                return self._end()
            return None
        if level <= self.settings.start_dbfs:
            self._run_ms = max(0, self._run_ms - WINDOW_MS)
            return None
        if self._run_ms == 0:
            self._onset_ms = self._examined_ms - WINDOW_MS
        self._run_ms += WINDOW_MS
        if self._run_ms < self.settings.prefix_ms:
            return None
        self._run_ms = 0
        self.speaking = True
        self._last_voice_ms = self._examined_ms
        return Edge("start", self._onset_ms)

    def _end(self) -> Edge:
        self.speaking = False
        return Edge("end", self._examined_ms, self._last_voice_ms - self._onset_ms)


@dataclass(frozen=True, slots=True)
class SpeechFrame:
    """One piece of model speech: 24 kHz PCM, the words that begin in it, and when it leaves."""

    pcm: bytes
    text: str
    due: float
    """Seconds after the utterance's first piece."""


def cut_speech(
    text: str,
    pcm: bytes | memoryview,
    sizes: Sequence[int] | tuple[int, int],
    pace: float,
    rng: random.Random,
) -> Iterator[SpeechFrame]:
    """Cut an utterance into pieces that leave ``pace`` times faster than they play.

    ``sizes`` is either (shortest, longest) in bytes, or a list of three or more sizes to choose from; every
    size is even. The words are spread over the pieces by their place in the text.
    """
    words = text.split()
    total = max(1, len(text))
    position = 0
    told = 0
    next_word = 0
    while position < len(pcm):
        end = min(len(pcm), position + _piece(sizes, rng))
        share = end / len(pcm)
        here: list[str] = []
        while next_word < len(words) and (told / total < share or end == len(pcm)):
            here.append(words[next_word])
            told += len(words[next_word]) + 1
            next_word += 1
        spoken = " ".join(here)
        lead = " " if spoken and next_word > len(here) else ""
        yield SpeechFrame(
            bytes(pcm[position:end]), lead + spoken, position / SAMPLE_BYTES / MODEL_RATE / pace
        )
        position = end


def _piece(sizes: Sequence[int], rng: random.Random) -> int:
    if len(sizes) == 2:
        return rng.randrange(sizes[0], sizes[1] + 2, 2)
    return rng.choice(sizes)
