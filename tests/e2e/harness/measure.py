"""What a caller had to bear, from the packets on his phone's wire.

Three kinds of sound are told apart in the packets to the phone: silence (below -60 dBFS, or no packet at
all), the service's soft tone, and everything else, which is the model's voice or a prompt.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ari_gemini.audio.comfort import TONES

from .sound import RATE, Samples
from .tap import Packet, RtpTap, Way

SILENT_DBFS = -60.0
VOICE_DBFS = -45.0
PACKET_SECONDS = 0.020
_TONAL = 0.8
"""A packet is the soft tone's when so much of its power lies in the tone's two frequencies."""


@dataclass(frozen=True, slots=True)
class Endured:
    """The longest stretches, in ms, between two moments."""

    silence_ms: float
    """Of nothing to hear."""
    voiceless_ms: float
    """Without the model's voice: silence and soft tone."""
    gap_p99_ms: float
    """Between one packet and the next, 99th percentile."""
    gap_max_ms: float


def endured(tap: RtpTap, since: float, until: float) -> Endured:
    """What the phone got in [``since``, ``until``] (CLOCK_MONOTONIC). Both ends count as sound."""
    packets = [p for p in tap.packets(Way.TO_PHONE, since=since, until=until) if len(p.pcm)]
    gaps = sorted(1000 * gap for gap in tap.gaps(Way.TO_PHONE, since=since, until=until))
    return Endured(
        silence_ms=_longest(packets, since, until, (p.level > SILENT_DBFS for p in packets)),
        voiceless_ms=_longest(packets, since, until, map(is_voice, packets)),
        gap_p99_ms=percentile(gaps, 0.99),
        gap_max_ms=gaps[-1] if gaps else math.inf,
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that so much of ``ordered`` does not exceed; infinity for nothing."""
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.inf


def is_voice(packet: Packet) -> bool:
    """Somebody speaks: it is loud enough, and not the soft tone."""
    return packet.level > VOICE_DBFS and not is_soft_tone(packet.pcm)


def is_soft_tone(pcm: Samples) -> bool:
    """Whether this is the service's sign of life, at whatever phase of its swell."""
    sound = pcm.astype(np.float64)
    power = float(sound @ sound)
    if not power:
        return False
    basis = _tone_basis(len(sound))
    inside = basis @ sound
    return float(inside @ inside) / power > _TONAL


@lru_cache(maxsize=4)
def _tone_basis(length: int) -> npt.NDArray[np.float64]:
    """Orthonormal: what any mixture of the tones, at any phase, is made of."""
    time = 2 * np.pi * np.arange(length) / RATE
    waves = [wave(hertz * time) for hertz, _ in TONES for wave in (np.sin, np.cos)]
    return np.asarray(np.linalg.qr(np.array(waves).T)[0].T)


def _longest(packets: Sequence[Packet], since: float, until: float, wanted: Iterable[bool]) -> float:
    """ms of the longest stretch without a wanted packet."""
    times = [p.time for p, is_wanted in zip(packets, wanted, strict=True) if is_wanted]
    starts = [since, *(time + PACKET_SECONDS for time in times)]
    ends = [*times, until]
    return 1000 * max(0.0, *(end - start for start, end in zip(starts, ends, strict=True)))
