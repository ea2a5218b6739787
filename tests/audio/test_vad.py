"""Edges of speech at telephone levels over telephone noise, and what must not be taken for speech."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.vad import SpeechEdge, SpeechEdges

RATE = 8000
FORMAT = AudioFormat(RATE)
Sound = NDArray[np.float64]


def amplitude(dbfs: float) -> float:
    return float(32768 * 10 ** (dbfs / 20))


def hiss(seconds: float, dbfs: float, seed: int = 1) -> Sound:
    """White noise of that RMS level."""
    return np.random.default_rng(seed).normal(0, amplitude(dbfs), int(RATE * seconds))


def voice(seconds: float, dbfs: float) -> Sound:
    """Harmonics of 120 Hz in four syllables a second, 18 dB up and down; begins and ends loud."""
    t = np.arange(int(RATE * seconds)) / RATE
    tone = sum(np.sin(2 * np.pi * 120 * k * t + k) / k for k in range(1, 20))
    swing = 10 ** ((9 * np.cos(2 * np.pi * 4 * t) - 3) / 20)
    speech = tone * swing
    return np.asarray(speech / np.sqrt(np.mean(speech**2)) * amplitude(dbfs))


def frames(sound: Sound) -> Iterator[bytes]:
    pcm = np.clip(np.rint(sound), -32768, 32767).astype("<i2").tobytes()
    size = FORMAT.frame_bytes
    return (pcm[at : at + size] for at in range(0, len(pcm) - size + 1, size))


def listen(detector: SpeechEdges, sound: Sound, since: float = 0.0) -> list[SpeechEdge]:
    edges = (detector.feed(frame, since + (n + 1) * 0.020) for n, frame in enumerate(frames(sound)))
    return [edge for edge in edges if edge is not None]


def over_noise(noise_dbfs: float, *parts: tuple[float, Sound]) -> Sound:
    """``parts`` are (seconds of pause before, sound); a second of pause follows them."""
    sound = np.concatenate(
        [part for pause, voiced in parts for part in (np.zeros(int(RATE * pause)), voiced)]
    )
    sound = np.append(sound, np.zeros(RATE))
    return sound + hiss(len(sound) / RATE, noise_dbfs)


@pytest.mark.parametrize("dbfs", [-40, -30, -20, -10])
@pytest.mark.parametrize("noise_dbfs", [-60, -70, -200])
def test_edges_of_telephone_speech(dbfs: float, noise_dbfs: float) -> None:
    edges = listen(
        SpeechEdges(FORMAT), over_noise(noise_dbfs, (0.5, voice(1.0, dbfs)), (1.0, voice(0.75, dbfs)))
    )
    assert [edge.speaking for edge in edges] == [True, False, True, False]
    assert [edge.at for edge in edges] == pytest.approx([0.5, 1.5, 2.5, 3.25], abs=0.021)


def test_the_true_edge_is_told_however_late_it_is_known() -> None:
    detector = SpeechEdges(FORMAT)
    told = [
        (n, edge)
        for n, frame in enumerate(frames(over_noise(-60, (0.4, voice(1.0, -20)))))
        if (edge := detector.feed(frame, 100 + (n + 1) * 0.020)) is not None
    ]
    (began_at, began), (ended_at, ended) = told
    assert (began.speaking, ended.speaking) == (True, False)
    assert began.at == pytest.approx(100.4)
    assert began_at == 20 + 2  # the third voiced frame convinces
    assert ended.at == pytest.approx(101.4)
    assert ended_at == 70 + 14  # fifteen silent frames are the hangover


def test_a_gap_shorter_than_the_hangover_belongs_to_speech() -> None:
    sound = over_noise(-60, (0.5, voice(0.5, -20)), (0.24, voice(0.5, -20)))
    assert [round(edge.at, 2) for edge in listen(SpeechEdges(FORMAT), sound)] == [0.5, 1.74]


def test_the_hangover_can_be_set() -> None:
    sound = over_noise(-60, (0.5, voice(0.5, -20)), (0.24, voice(0.5, -20)))
    edges = listen(SpeechEdges(FORMAT, hangover_ms=200), sound)
    assert [round(edge.at, 2) for edge in edges] == [0.5, 1.0, 1.24, 1.74]


def test_a_click_is_no_speech() -> None:
    sound = over_noise(-60, (0.51, voice(0.015, -10)), (0.5, voice(0.015, -10)))
    assert listen(SpeechEdges(FORMAT), sound) == []


@pytest.mark.parametrize("dbfs", [-200, -70, -60, -55])
def test_noise_is_no_speech(dbfs: float) -> None:
    assert listen(SpeechEdges(FORMAT), hiss(10, dbfs)) == []


def test_speech_is_not_learned_as_noise() -> None:
    edges = listen(SpeechEdges(FORMAT), over_noise(-60, (0.5, voice(20.0, -25))))
    assert [round(edge.at, 1) for edge in edges] == [0.5, 20.5]


def test_noise_that_sets_in_is_learned_and_speech_over_it_found() -> None:
    detector = SpeechEdges(FORMAT)
    listen(detector, hiss(3, -70))
    listen(detector, hiss(4, -42, seed=2), since=3.0)  # a car window opens
    assert not detector.speaking
    assert detector.floor_dbfs == pytest.approx(-43, abs=1.5)
    edges = listen(detector, over_noise(-42, (1.0, voice(1.0, -20))), since=7.0)
    assert [edge.speaking for edge in edges] == [True, False]
    assert [edge.at for edge in edges] == pytest.approx([8.0, 9.0], abs=0.041)


def test_noise_that_stops_is_forgotten_at_once() -> None:
    detector = SpeechEdges(FORMAT)
    listen(detector, hiss(4, -42))
    assert detector.floor_dbfs > -45
    detector.feed(next(frames(hiss(0.02, -70))), 4.02)
    assert detector.floor_dbfs < -65


def test_a_loud_tone_never_becomes_the_noise_floor() -> None:
    t = np.arange(RATE * 8) / RATE
    tone = amplitude(-17) * np.sin(2 * np.pi * 440 * t)
    edges = listen(SpeechEdges(FORMAT), over_noise(-60, (0.5, tone)))
    assert [(edge.speaking, round(edge.at, 2)) for edge in edges] == [(True, 0.5), (False, 8.5)]


def test_frames_that_arrive_in_a_bunch_do_not_end_speech() -> None:
    detector = SpeechEdges(FORMAT)
    speech = list(frames(voice(0.5, -20)))
    for n, frame in enumerate(speech):
        detector.feed(frame, (n + 1) * 0.020)
    pause = list(frames(hiss(0.2, -60)))
    assert [detector.feed(frame, 5.0) for frame in pause] == [None] * 10  # 4.5 s late, but 200 ms of sound
    assert detector.speaking


def test_other_rates_and_frame_lengths() -> None:
    fmt = AudioFormat(16000)
    detector = SpeechEdges(fmt)
    loud = np.full(160, 8000, "<i2").tobytes()  # 10 ms
    edges = [detector.feed(loud, (n + 1) * 0.010) for n in range(6)]
    assert edges[:5] == [None] * 5
    assert edges[5] is not None
    assert edges[5].speaking
    assert edges[5].at == pytest.approx(0.0)


def test_nothing_and_half_a_sample_do_no_harm() -> None:
    detector = SpeechEdges(FORMAT)
    assert detector.feed(b"", 1.0) is None
    assert detector.feed(b"\x7f", 1.0) is None
    assert not detector.speaking


def test_reset_forgets_speech_and_floor() -> None:
    detector = SpeechEdges(FORMAT)
    listen(detector, hiss(4, -42))
    listen(detector, voice(1.0, -10), since=4.0)
    assert detector.speaking
    detector.reset()
    assert not detector.speaking
    assert detector.floor_dbfs == SpeechEdges(FORMAT).floor_dbfs
