"""A soft sign of life for a caller who waits while something is looked up."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from ari_gemini.audio.pcm import FULL_SCALE, AudioFormat

PERIOD_MS = 2000
"""Swell and rest, 100 frames: about the pace of calm breathing out and in, too slow for a busy tone."""
SWELL_MS = 1200
TONES = ((520.0, 1.0), (650.0, 0.5))
"""Hz and strength: a major third (4:5), low in the telephone's band, and nothing that a line says. Dialling,
ringing and busy have 400 to 450 Hz (ITU-T E.180), in North America 350, 440, 480 and 620 Hz; keys begin at
697 Hz (ITU-T Q.23)."""
LOUDEST_DBFS = -35.0
"""RMS level that the swell reaches: 9 dB below speech of nominal level (-26 dBov), which is background, and
far above the noise of a line."""

_CACHED = 6  # rates of the live resampler; 0.6 MB when every one has been asked for


@lru_cache(maxsize=_CACHED)
def comfort_tone(fmt: AudioFormat) -> bytes:
    """One period to be played over and over: whole 20 ms frames that begin and end in silence.

    A chord that swells and fades as a squared sine, whose slope is nothing at both ends: there is no click at
    the loop's edge, nor where it begins.
    """
    time = np.arange(fmt.rate * PERIOD_MS // 1000) / fmt.rate
    chord = sum(strength * np.sin(2 * math.pi * hertz * time) for hertz, strength in TONES)
    length = SWELL_MS / 1000
    envelope = np.where(time < length, np.sin(math.pi * time / length) ** 2, 0.0)
    power = sum(strength * strength for _, strength in TONES) / 2
    peak = FULL_SCALE * 10 ** (LOUDEST_DBFS / 20) / math.sqrt(power)
    return np.rint(peak * envelope * chord).astype("<i2").tobytes()
