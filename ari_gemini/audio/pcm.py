"""Linear PCM as this project carries it: signed 16-bit little-endian mono."""

from __future__ import annotations

from dataclasses import dataclass

SAMPLE_BYTES = 2
FRAME_MS = 20
"""Asterisk's packetisation: one frame is 20 ms (measured; also the default ptime of RFC 3551, section 4.2)."""


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """The rate travels with the sound. ``rate`` in Hz; samples are always signed 16-bit little-endian mono."""

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
