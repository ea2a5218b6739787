"""The tones of telephone keys (ITU-T Q.23), for lines that carry digits as sound."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from ari_gemini.audio.pcm import FULL_SCALE, SAMPLE_BYTES, AudioFormat

LOW_GROUP = (697, 770, 852, 941)
"""Hz, one for each row of keys (ITU-T Q.23)."""
HIGH_GROUP = (1209, 1336, 1477, 1633)
"""Hz, one for each column of keys (ITU-T Q.23)."""
KEYS = ("123A", "456B", "789C", "*0#D")
"""The rows of keys (ITU-T Q.23)."""
DIGITS = frozenset("".join(KEYS))
PAUSE = "w"
"""Half a second of silence, as in Asterisk's SendDTMF() (main/app.c)."""
CHARACTERS = DIGITS | {PAUSE}
"""All that ``tones`` takes."""

TONE_MS = 100
"""As long as Asterisk's own digits (AST_DEFAULT_EMULATE_DTMF_DURATION in main/channel.c). Receivers must take
40 ms (ITU-T Q.24, table A-1)."""
GAP_MS = 60
"""Silence after each digit. Receivers need 40 ms (ITU-T Q.24, table A-1), Asterisk's 50 ms (main/dsp.c)."""
PAUSE_MS = 500
LOW_DBM0 = -11.0
HIGH_DBM0 = -9.0
"""Levels of the two tones. The middle, -10 dBm0, is the level of Asterisk's own (main/indications.c, where
7219 is the amplitude) and far from both ends of what receivers must take: 0 to -25 dBm, elsewhere -3 to -24
dBm (ITU-T Q.24, table A-1). The high tone is the louder by 2 dB, for cables weaken it more; ETSI ES 201 235-2
asks for 1 to 4 dB."""
FULL_SCALE_DBM0 = 3.14
"""Level of the largest sine: ITU-T G.711, A-law. In µ-law 0.06 dB more, for its scale ends a little lower."""
RAMP_MS = 4
"""Rise and fall of a digit as half a cosine: no click, and 92 ms at full strength."""

_COMBINATIONS = {
    key: (low, high)
    for low, row in zip(LOW_GROUP, KEYS, strict=True)
    for high, key in zip(HIGH_GROUP, row, strict=True)
}
_CACHED = 96
"""All 16 digits at six rates, those of the live resampler: 0.7 MB when every one has been asked for."""


def duration_ms(digits: str) -> int:
    """Milliseconds that ``tones(digits, ...)`` lasts. Raises ValueError as it does."""
    pauses = _checked(digits).count(PAUSE)
    return pauses * PAUSE_MS + (len(digits) - pauses) * (TONE_MS + GAP_MS)


def tones(digits: str, fmt: AudioFormat) -> bytes:
    """The sound of ``digits``, of ``0-9 * # A-D``, each with the gap after it; ``w`` is a pause.

    Whole samples: lengths are exact at every rate that is a multiple of 50 Hz. Raises ValueError for any
    other character.
    """
    return b"".join([_sound(character, fmt.rate) for character in _checked(digits)])


def _checked(digits: str) -> str:
    if unknown := set(digits) - CHARACTERS:
        raise ValueError(f"no such keys on a telephone: {''.join(sorted(unknown))!r}")
    return digits


@lru_cache(maxsize=_CACHED)
def _sound(character: str, rate: int) -> bytes:
    if character == PAUSE:
        return bytes(rate * PAUSE_MS // 1000 * SAMPLE_BYTES)
    low, high = _COMBINATIONS[character]
    samples = rate * TONE_MS // 1000
    time = np.arange(samples) / rate
    wave = _amplitude(LOW_DBM0) * np.sin(2 * math.pi * low * time)
    wave += _amplitude(HIGH_DBM0) * np.sin(2 * math.pi * high * time)
    to_edge = np.minimum(time, TONE_MS / 1000 - time)
    wave *= np.sin(math.pi / 2 * np.minimum(1.0, to_edge / (RAMP_MS / 1000))) ** 2
    gap = rate * (TONE_MS + GAP_MS) // 1000 - samples
    return np.rint(wave).astype("<i2").tobytes() + bytes(gap * SAMPLE_BYTES)


def _amplitude(dbm0: float) -> float:
    return FULL_SCALE * 10 ** ((dbm0 - FULL_SCALE_DBM0) / 20)
