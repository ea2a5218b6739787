"""When does the caller speak? An energy detector for the latency timeline; the model has its own, better one.

A frame is voiced when its level stands out from the noise floor, and the floor is the quietest frame of the
last two seconds ("minimum statistics", R. Martin, 2001): speech pauses more often than that, steady noise
never does, so noise that sets in is learned within that time and noise that stops at once.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ari_gemini.audio.pcm import AudioFormat, level_dbfs

HANGOVER_MS = 300.0
"""Silence that ends speech: longer than a plosive's closure (150 ms at most), shorter than a breath."""
MIN_SPEECH_MS = 60.0
"""Voice without a break that begins speech: a click or a bump is shorter."""
QUIETEST_DBFS = -52.0
"""Softer than this is never the beginning of speech: 12 dB below the softest speech to be found, -40 dBFS."""
LOUDEST_NOISE_DBFS = -35.0
"""The floor rises no higher, however steady the sound: else a long loud tone would count as silence."""

_START_ABOVE_FLOOR_DB = 9.0  # the quietest frame lies about 1 dB below the noise's mean, its peaks 2 dB above
_STAY_ABOVE_FLOOR_DB = 6.0  # less, once speech is on: its soft ends belong to it
_QUIETEST_STAY_DBFS = QUIETEST_DBFS - (_START_ABOVE_FLOOR_DB - _STAY_ABOVE_FLOOR_DB)
_SLOT_MS = 250.0
_SLOTS = 8  # 2 s in all
_INITIAL_FLOOR_DBFS = -60.0  # an ordinary line, until the first frames are heard


class SpeechEdge(NamedTuple):
    """Speech began or ended."""

    speaking: bool
    """True: it began."""
    at: float
    """When the first voiced frame began, or the last one ended: a while ago, for it took that to be sure."""


class SpeechEdges:
    """Finds the edges of speech in a stream of frames. The clock is the caller's, in seconds."""

    def __init__(self, fmt: AudioFormat, *, hangover_ms: float = HANGOVER_MS) -> None:
        self._format = fmt
        self._hangover_ms = hangover_ms
        self.reset()

    def reset(self) -> None:
        """Forget everything heard, the noise floor too."""
        self._speaking = False
        self._voiced_ms = 0.0
        self._unvoiced_ms = 0.0
        self._edge_at = 0.0
        self._minima: deque[float] = deque([_INITIAL_FLOOR_DBFS], maxlen=_SLOTS)
        self._slot_minimum = 0.0
        self._slot_ms = 0.0
        self._floor = _INITIAL_FLOOR_DBFS

    @property
    def speaking(self) -> bool:
        """Speech is on; still true during the hangover."""
        return self._speaking

    @property
    def floor_dbfs(self) -> float:
        """The noise floor as it is known now."""
        return self._floor

    def feed(self, pcm: bytes, at: float) -> SpeechEdge | None:
        """Hear one frame, whole samples, whose last sample was there at ``at``.

        Lengths of pauses are counted in sound, not by the clock, so frames that arrive late or in a bunch
        do no harm.
        """
        if not pcm:
            return None
        level = level_dbfs(pcm)
        length_ms = self._format.duration_ms(len(pcm))
        self._learn(level, length_ms)
        if self._speaking:
            return self._look_for_end(level, length_ms, at)
        return self._look_for_start(level, length_ms, at)

    def _learn(self, level: float, length_ms: float) -> None:
        self._slot_minimum = min(self._slot_minimum, level)
        self._slot_ms += length_ms
        self._floor = min(self._floor, level)
        if self._slot_ms >= _SLOT_MS:
            self._minima.append(self._slot_minimum)
            self._floor = min(LOUDEST_NOISE_DBFS, *self._minima)
            self._slot_minimum = 0.0
            self._slot_ms = 0.0

    def _look_for_start(self, level: float, length_ms: float, at: float) -> SpeechEdge | None:
        if level < QUIETEST_DBFS or level < self._floor + _START_ABOVE_FLOOR_DB:
            self._voiced_ms = 0.0
            return None
        if not self._voiced_ms:
            self._edge_at = at - length_ms / 1000
        self._voiced_ms += length_ms
        if self._voiced_ms < MIN_SPEECH_MS:
            return None
        began, self._edge_at = self._edge_at, at
        self._speaking = True
        self._unvoiced_ms = 0.0
        return SpeechEdge(True, began)

    def _look_for_end(self, level: float, length_ms: float, at: float) -> SpeechEdge | None:
        if level >= max(_QUIETEST_STAY_DBFS, self._floor + _STAY_ABOVE_FLOOR_DB):
            self._unvoiced_ms = 0.0
            self._edge_at = at
            return None
        self._unvoiced_ms += length_ms
        if self._unvoiced_ms < self._hangover_ms:
            return None
        self._speaking = False
        self._voiced_ms = 0.0
        return SpeechEdge(False, self._edge_at)
