"""The comfort tone, measured: soft, within the telephone's band, and without a click wherever it repeats."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ari_gemini.audio.comfort import comfort_tone
from ari_gemini.audio.pcm import AudioFormat, level_dbfs

RATES = (8000, 12000, 16000, 24000, 32000, 44100, 48000)


def samples(pcm: bytes) -> NDArray[np.float64]:
    return np.frombuffer(pcm, "<i2").astype(np.float64)


@pytest.mark.parametrize("rate", RATES)
def test_two_seconds_in_whole_frames(rate: int) -> None:
    fmt = AudioFormat(rate)
    assert len(comfort_tone(fmt)) == 100 * fmt.frame_bytes


@pytest.mark.parametrize("rate", RATES)
def test_it_is_soft(rate: int) -> None:
    fmt = AudioFormat(rate)
    pcm = comfort_tone(fmt)
    frames = [pcm[at : at + fmt.frame_bytes] for at in range(0, len(pcm), fmt.frame_bytes)]
    assert max(map(level_dbfs, frames)) == pytest.approx(-35.0, abs=0.7)
    assert level_dbfs(pcm) == pytest.approx(-41.5, abs=0.2)
    assert np.abs(samples(pcm)).max() < 0.035 * 32768


@pytest.mark.parametrize("rate", RATES)
def test_no_click_at_the_loops_edge_nor_within(rate: int) -> None:
    twice = samples(comfort_tone(AudioFormat(rate)) * 2)
    edge = len(twice) // 2
    assert not np.any(twice[edge - rate // 2 : edge + 1]), "half a second of silence before it begins again"
    # a wave of this height and of 650 Hz at most has no steeper slope, rounding aside
    steepest = 2 * np.pi * 650 / rate * np.abs(twice).max()
    assert np.abs(np.diff(twice)).max() <= steepest + 1
    attack = np.abs(twice[edge : edge + rate // 50]).max()
    assert attack < 10, "the first frame is all but silent"


@pytest.mark.parametrize("rate", RATES)
def test_its_energy_lies_within_the_telephones_band(rate: int) -> None:
    # one period's spectrum is that of the endless loop: a click anywhere would be broadband
    wave = samples(comfort_tone(AudioFormat(rate)))
    power = np.abs(np.fft.rfft(wave)) ** 2
    hertz = np.fft.rfftfreq(len(wave), 1 / rate)
    outside = power[(hertz < 300) | (hertz > 3400)].sum() / power.sum()
    assert 10 * np.log10(outside) < -55
    chord = power[(hertz > 510) & (hertz < 660)].sum() / power.sum()
    assert chord > 0.999
    assert power[(hertz > 610) & (hertz < 690)].sum() / power.sum() == pytest.approx(0.2, abs=0.01)
