"""Sizes, silence and levels of PCM."""

from __future__ import annotations

import numpy as np
import pytest

from ari_gemini.audio.pcm import FRAME_MS, SILENCE_DBFS, AudioFormat, level_dbfs


@pytest.mark.parametrize(
    ("rate", "samples", "nbytes"),
    [(8000, 160, 320), (16000, 320, 640), (24000, 480, 960), (48000, 960, 1920)],
)
def test_a_frame_is_20_ms(rate: int, samples: int, nbytes: int) -> None:
    fmt = AudioFormat(rate)
    assert (fmt.frame_samples, fmt.frame_bytes) == (samples, nbytes)
    assert fmt.duration_ms(nbytes) == FRAME_MS == 20


def test_silence_is_a_frame_unless_told() -> None:
    assert AudioFormat(8000).silence() == bytes(320)
    assert AudioFormat(24000).silence(35) == bytes(24 * 35 * 2)


def test_silence_is_whole_samples() -> None:
    assert AudioFormat(8000).silence(0.2) == bytes(2)
    assert AudioFormat(11025).silence(1) == bytes(11 * 2)


def sine(peak: float, count: int = 8000) -> bytes:
    return np.rint(peak * np.sin(2 * np.pi * 1000 * np.arange(count) / 8000)).astype("<i2").tobytes()


@pytest.mark.parametrize(
    ("pcm", "dbfs"),
    [
        (np.full(160, -32768, "<i2").tobytes(), 0.0),
        (sine(32767), -3.01),
        (sine(32767 / 10), -23.01),
        (sine(32767 / 1000), -63.01),
        (np.full(160, 1, "<i2").tobytes(), -90.31),
    ],
)
def test_level(pcm: bytes, dbfs: float) -> None:
    assert level_dbfs(pcm) == pytest.approx(dbfs, abs=0.05)


@pytest.mark.parametrize("pcm", [b"", b"\x7f", bytes(2), bytes(320)])
def test_nothing_has_the_level_of_silence(pcm: bytes) -> None:
    assert level_dbfs(pcm) == SILENCE_DBFS


def test_a_single_bit_in_a_long_silence_is_not_below_silence() -> None:
    assert level_dbfs(b"\x01\x00" + bytes(200_000)) == SILENCE_DBFS


def test_half_a_sample_at_the_end_has_no_level() -> None:
    assert level_dbfs(sine(3000) + b"\x7f") == level_dbfs(sine(3000))
