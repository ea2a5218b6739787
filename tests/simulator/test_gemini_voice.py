from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ari_gemini.simulator.gemini_voice import Edge, VoiceDetector, VoiceSettings, cut_speech
from ari_gemini.simulator.phrases import phrase

DEFAULT = VoiceSettings.of(start_low=False, end_low=False, prefix_ms=None, silence_ms=None)


def settings_of(**changes: int | bool | None) -> VoiceSettings:
    given = {"start_low": False, "end_low": False, "prefix_ms": None, "silence_ms": None, **changes}
    return VoiceSettings.of(**given)  # type: ignore[arg-type]


def edges(detector: VoiceDetector, *sounds: bytes, rate: int = 8000, step_ms: int = 20) -> list[Edge]:
    pcm = b"".join(sounds)
    step = rate * step_ms // 1000 * 2
    found: list[Edge] = []
    for start in range(0, len(pcm), step):
        found += detector.feed(pcm[start : start + step], rate)
    return found


def kinds(found: Sequence[Edge]) -> list[str]:
    return [edge.kind for edge in found]


def test_a_sentence_is_a_start_and_an_end(kit) -> None:  # type: ignore[no-untyped-def]
    found = edges(VoiceDetector(DEFAULT), kit.silence(500), kit.tone(1000, -20), kit.silence(1000))
    assert found == [Edge("start", 500.0), Edge("end", 2000.0, 1000.0)]


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100])
def test_offsets_count_sound_whatever_its_rate(kit, rate: int) -> None:  # type: ignore[no-untyped-def]
    sounds = (kit.silence(300, rate), kit.tone(500, -20, rate), kit.silence(700, rate))
    found = edges(VoiceDetector(DEFAULT), *sounds, rate=rate)
    assert found == [Edge("start", 300.0), Edge("end", 1300.0, 500.0)]


def test_prefix_padding_is_speech_needed_before_the_start(kit) -> None:  # type: ignore[no-untyped-def]
    short = kit.silence(100) + kit.tone(80, -20) + kit.silence(900)
    assert kinds(edges(VoiceDetector(settings_of(prefix_ms=100)), short)) == []
    assert kinds(edges(VoiceDetector(settings_of(prefix_ms=80)), short)) == ["start", "end"]
    assert kinds(edges(VoiceDetector(settings_of(prefix_ms=0)), short)) == ["start", "end"]


def test_silence_duration_is_silence_needed_before_the_end(kit) -> None:  # type: ignore[no-untyped-def]
    pause = kit.tone(300, -20) + kit.silence(400) + kit.tone(300, -20) + kit.silence(1000)
    assert kinds(edges(VoiceDetector(settings_of(silence_ms=500)), pause)) == ["start", "end"]
    assert kinds(edges(VoiceDetector(settings_of(silence_ms=300)), pause)) == ["start", "end"] * 2


def test_sensitivity_is_loudness(kit) -> None:  # type: ignore[no-untyped-def]
    soft = kit.tone(500, -38) + kit.silence(1000)
    assert kinds(edges(VoiceDetector(settings_of()), soft)) == ["start", "end"]
    assert kinds(edges(VoiceDetector(settings_of(start_low=True)), soft)) == []
    tail = kit.tone(500, -20) + kit.tone(1500, -46)
    assert kinds(edges(VoiceDetector(settings_of()), tail)) == ["start", "end"]
    assert kinds(edges(VoiceDetector(settings_of(end_low=True)), tail)) == ["start"]


def test_line_noise_is_not_speech() -> None:
    noise = (np.random.default_rng(7).normal(0, 32768 * 10 ** (-55 / 20), 16000)).astype("<i2").tobytes()
    assert edges(VoiceDetector(DEFAULT), noise) == []


def test_a_click_is_not_speech(kit) -> None:  # type: ignore[no-untyped-def]
    clicks = (kit.tone(10, -6) + kit.silence(190)) * 10
    assert edges(VoiceDetector(DEFAULT), clicks) == []


def test_the_end_of_the_stream_ends_speech(kit) -> None:  # type: ignore[no-untyped-def]
    detector = VoiceDetector(DEFAULT)
    assert detector.flush() is None
    edges(detector, kit.silence(100), kit.tone(600, -20))
    assert detector.speaking
    assert detector.flush() == Edge("end", 700.0, 600.0)
    assert detector.flush() is None
    assert kinds(edges(detector, kit.tone(600, -20))) == ["start"]


def test_counting_goes_on_from_an_offset(kit) -> None:  # type: ignore[no-untyped-def]
    found = edges(VoiceDetector(DEFAULT, 5000.0), kit.silence(100), kit.tone(500, -20), kit.silence(600))
    assert found[0] == Edge("start", 5100.0)


def test_a_change_of_rate_is_survived(kit) -> None:  # type: ignore[no-untyped-def]
    detector = VoiceDetector(DEFAULT)
    assert detector.feed(kit.silence(505), 8000) == []
    assert kinds(detector.feed(kit.tone(500, -20, 16000) + kit.silence(600, 16000), 16000)) == [
        "start",
        "end",
    ]
    assert detector.received_ms == 1605.0


@given(st.lists(st.integers(1, 700), min_size=1, max_size=60))
@settings(max_examples=25, deadline=None)
def test_edges_do_not_depend_on_the_chunking(sizes: list[int]) -> None:
    pcm = bytes(4000) + phrase("ask_hours").pcm + bytes(12_000)
    whole = VoiceDetector(DEFAULT).feed(pcm, 8000)
    detector = VoiceDetector(DEFAULT)
    found: list[Edge] = []
    position = 0
    while position < len(pcm):
        size = sizes[position % len(sizes)] * 2
        found += detector.feed(pcm[position : position + size], 8000)
        position += size
    assert found == whole
    assert kinds(found) == ["start", "end"]


@pytest.mark.parametrize(
    "name", ["ask_hours", "ask_order", "ask_delivery", "ask_person", "interrupt", "say_goodbye"]
)
@pytest.mark.parametrize("low", [False, True])
def test_every_caller_phrase_is_one_turn(name: str, low: bool) -> None:
    detector = VoiceDetector(settings_of(start_low=low, end_low=low))
    found = edges(detector, bytes(1600), phrase(name).pcm, bytes(16_000))
    assert kinds(found) == ["start", "end"]
    assert abs(found[0].offset_ms - 100) <= 100
    assert abs(found[1].spoken_ms - phrase(name).seconds * 1000) < 300


@given(
    st.integers(1, 30_000),
    st.sampled_from([(960, 1440), (2, 15_360), (2, 2, 4, 482), (7680, 7680)]),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_speech_is_cut_without_loss(samples: int, sizes: tuple[int, ...], seed: int) -> None:
    pcm = bytes(i % 251 for i in range(samples * 2))
    text = "One two three four five."
    pieces = list(cut_speech(text, pcm, sizes, 4.0, random.Random(seed)))
    assert b"".join(piece.pcm for piece in pieces) == pcm
    assert "".join(piece.text for piece in pieces) == text
    assert all(len(piece.pcm) % 2 == 0 for piece in pieces)
    low, high = min(sizes), max(sizes)
    assert all(low <= len(piece.pcm) <= high for piece in pieces[:-1])
    assert [piece.due for piece in pieces] == sorted(piece.due for piece in pieces)
    assert pieces[0].due == 0.0
    sent_before_last = sum(len(piece.pcm) for piece in pieces[:-1])
    assert pieces[-1].due == pytest.approx(sent_before_last / 48_000 / 4.0)


def test_words_come_with_their_sound() -> None:
    pieces = list(cut_speech("alpha beta gamma delta", bytes(4000), (1000, 1000), 1.0, random.Random(1)))
    assert [piece.text for piece in pieces] == ["alpha", " beta", " gamma", " delta"]
