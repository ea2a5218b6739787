"""Linear PCM as this project carries it: signed 16-bit little-endian mono."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

SAMPLE_BYTES = 2
FRAME_MS = 20
"""Asterisk's packetisation (measured), and the default of RFC 3551, section 4.2: one frame is 20 ms."""

FULL_SCALE = 32768.0
"""0 dBFS is the RMS of the largest square wave (0 dBov of ITU-T G.100.1); the largest sine has -3.01 dBFS."""
SILENCE_DBFS = -100.0
"""Stands for no sound at all, as a number unlike -inf; one single bit has -90.3 dBFS."""

_INT16 = np.dtype("<i2")


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """The rate travels with the sound. ``rate`` in Hz; samples are signed 16-bit little-endian mono."""

    rate: int

    @property
    def frame_samples(self) -> int:
        """Samples in one 20 ms frame."""
        return self.rate * FRAME_MS // 1000

    @property
    def frame_bytes(self) -> int:
        """Bytes in one 20 ms frame."""
        return self.frame_samples * SAMPLE_BYTES

    def duration_ms(self, nbytes: int) -> float:
        """Milliseconds that ``nbytes`` of this format last."""
        return nbytes / SAMPLE_BYTES * 1000 / self.rate

    def silence(self, ms: float = FRAME_MS) -> bytes:
        """``ms`` milliseconds of silence, one frame unless told, rounded down to whole samples."""
        return bytes(int(self.rate * ms / 1000) * SAMPLE_BYTES)


def level_dbfs(pcm: bytes) -> float:
    """RMS level of ``pcm`` in dBFS, from SILENCE_DBFS up to 0. Half a sample at the end has no level."""
    samples = np.frombuffer(pcm, _INT16, len(pcm) // SAMPLE_BYTES).astype(np.float64)
    energy = float(np.dot(samples, samples))
    if energy == 0.0:
        return SILENCE_DBFS
    return max(SILENCE_DBFS, 10.0 * math.log10(energy / (len(samples) * FULL_SCALE * FULL_SCALE)))
