"""Sound for tests: WAV files, G.711 decoding, and a signal that behaves like speech.

Everywhere ``Samples`` is an int16 array, mono. G.711 is decoded straight from the formulas of ITU-T G.711,
not with the code under test.
"""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

Samples = npt.NDArray[np.int16]
RATE = 8000
"""Hz of everything a G.711 phone says and hears."""
SILENCE_DBFS = -100.0


def read_wav(path: Path) -> tuple[Samples, int]:
    """The samples (first channel) and the rate of a 16-bit WAV file.

    A file still being written, whose header does not know its length yet, is read up to its present end.
    """
    data = path.read_bytes()
    with wave.open(io.BytesIO(data)) as reader:
        rate, channels, width = reader.getframerate(), reader.getnchannels(), reader.getsampwidth()
    if width != 2:
        raise ValueError(f"{path}: {8 * width} bits per sample, 16 expected")
    start = data.index(b"data") + 8
    end = start + (len(data) - start) // (2 * channels) * 2 * channels
    return np.frombuffer(data[start:end], "<i2").astype(np.int16)[::channels], rate


def write_wav(path: Path, samples: Samples, rate: int = RATE) -> None:
    """Write a 16-bit mono WAV file."""
    with wave.open(str(path), "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(samples.astype("<i2").tobytes())


def resample(samples: Samples, rate: int, to: int = RATE) -> Samples:
    """Offline conversion between rates, as good as soxr can."""
    if rate == to:
        return samples
    return np.asarray(soxr.resample(samples, rate, to, quality="VHQ"), np.int16)


def level_dbfs(samples: Samples) -> float:
    """RMS level; SILENCE_DBFS for nothing or silence."""
    if len(samples) == 0:
        return SILENCE_DBFS
    power = float(np.mean(np.square(samples.astype(np.float64) / 32768.0)))
    return max(SILENCE_DBFS, 10 * np.log10(power)) if power > 0 else SILENCE_DBFS


def silence(seconds: float, rate: int = RATE) -> Samples:
    """That many seconds of nothing."""
    return np.zeros(round(seconds * rate), np.int16)


def speechlike(seconds: float, rate: int = RATE, *, seed: int = 1, level: float = -20.0) -> Samples:
    """A signal with the traits of speech that matter here, the same for the same seed.

    Pitch wanders, harmonics fall off with frequency up to 3.2 kHz, syllables come at an irregular 4-5 per
    second: no two moments are alike, so an alignment has one answer only. ``level`` is its RMS in dBFS.
    """
    generator = np.random.default_rng(seed)
    n = round(seconds * rate)
    t = np.arange(n) / rate
    knots = np.arange(0, seconds + 0.3, 0.22)
    pitch = np.interp(t, knots, generator.uniform(95, 210, len(knots)))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    sound = np.zeros(n)
    for harmonic in range(1, 34):
        strength = np.interp(t, knots, generator.uniform(0.1, 1.0, len(knots))) / harmonic**0.7
        strength[harmonic * pitch > 3200] = 0
        sound += strength * np.sin(harmonic * phase)
    sound *= np.interp(t, knots, generator.uniform(0.05, 1.0, len(knots)))
    sound *= 10 ** (level / 20) / np.sqrt(np.mean(sound**2))
    return np.clip(np.round(sound * 32768), -32768, 32767).astype(np.int16)


def ulaw_table() -> Samples:
    """G.711 µ-law: all 256 octets decoded to 16 bits."""
    octets = ~np.arange(256) & 0xFF
    magnitude = (((octets & 0x0F) << 3) + 0x84 << ((octets >> 4) & 7)) - 0x84
    return np.where(octets & 0x80, -magnitude, magnitude).astype(np.int16)


def alaw_table() -> Samples:
    """G.711 A-law: all 256 octets decoded to 16 bits."""
    octets = np.arange(256) ^ 0x55
    segment, step = (octets >> 4) & 7, (octets & 0x0F) << 4
    magnitude = np.where(segment == 0, step + 8, (step + 0x108) << np.maximum(segment - 1, 0))
    return np.where(octets & 0x80, magnitude, -magnitude).astype(np.int16)
