"""How well a recording matches what was said, both brought to the same moment to a fraction of a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.signal import correlate

from .sound import RATE, Samples, resample

_Float = npt.NDArray[np.float64]
_Complex = npt.NDArray[np.complexfloating[Any, Any]]


@dataclass(frozen=True, slots=True)
class Match:
    """How alike two sounds are.

    ``correlation``: 1.0 is the same sound. ``delay``: seconds from the recording's start to the place where
    the reference starts. ``gain``: how much louder the recording is (1.0: equally loud).
    """

    correlation: float
    delay: float
    gain: float


def align(
    recorded: Samples,
    reference: Samples,
    *,
    reference_rate: int = RATE,
    rate: int = RATE,
    band: tuple[float, float] | None = None,
) -> Match:
    """Find ``reference`` inside ``recorded`` (``rate`` Hz) and compare them over all of the reference.

    The reference is first brought to ``rate``. ``band`` (Hz) looks at that band of both alone, for example
    (300, 3400), where telephony filters were in the way. A reference that begins before the recording or ends
    after it is compared with silence there: what is missing costs correlation.
    """
    heard = recorded.astype(np.float64)
    said = resample(reference, reference_rate, rate).astype(np.float64)
    if band is not None:
        heard, said = _band(heard, band, rate), _band(said, band, rate)
    if not heard.any() or not said.any():
        return Match(0.0, 0.0, 0.0)
    scores = correlate(heard, said, "full", "fft")
    start = int(np.argmax(scores)) - (len(said) - 1)
    window = _cut(heard, start, len(said))
    shift = _fraction(window, said)
    said = _shift(said, shift)
    norm = float(np.sqrt(np.dot(window, window) * np.dot(said, said)))
    product = float(np.dot(window, said))
    correlation = product / norm if norm else 0.0
    return Match(correlation, (start + shift) / rate, product / float(np.dot(said, said)))


def _cut(sound: _Float, start: int, length: int) -> _Float:
    """``length`` samples from ``start`` on, zeros where the sound has none."""
    out = np.zeros(length)
    first, last = max(start, 0), min(start + length, len(sound))
    if last > first:
        out[first - start : last - start] = sound[first:last]
    return out


def _fraction(window: _Float, said: _Float) -> float:
    """The delay of ``window`` against ``said`` in samples, between -1 and 1.

    The cross spectrum gives the correlation at any delay, whole or not; its peak is narrowed down by thirds.
    """
    n = 2 * len(said)
    cross = np.fft.rfft(window, n) * np.conj(np.fft.rfft(said, n))
    omega = 2j * np.pi * np.arange(len(cross)) / n
    low, high = -1.0, 1.0
    while high - low > 1e-4:
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if _score(cross, omega, left) < _score(cross, omega, right):
            low = left
        else:
            high = right
    return (low + high) / 2


def _score(cross: _Complex, omega: _Complex, delay: float) -> float:
    return float(np.real(np.dot(cross, np.exp(omega * delay))))


def _shift(sound: _Float, delay: float) -> _Float:
    n = 2 * len(sound)
    spectrum = np.fft.rfft(sound, n)
    ramp = np.exp(-2j * np.pi * np.arange(len(spectrum)) / n * delay)
    return np.fft.irfft(spectrum * ramp, n)[: len(sound)]


def _band(sound: _Float, band: tuple[float, float], rate: int) -> _Float:
    spectrum = np.fft.rfft(sound, 2 * len(sound))
    frequencies = np.fft.rfftfreq(2 * len(sound), 1 / rate)
    spectrum[(frequencies < band[0]) | (frequencies > band[1])] = 0
    return np.fft.irfft(spectrum, 2 * len(sound))[: len(sound)]
