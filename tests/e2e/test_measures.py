"""The instruments that need no Asterisk: what arrived, what had to be borne."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from harness.arrival import Run, arrival, as_the_model_gets_it, find_runs, unlike
from harness.measure import endured, is_soft_tone, is_voice
from harness.sound import RATE, Samples, level_dbfs, silence, speechlike
from harness.tap import Packet, Way

from ari_gemini.audio.comfort import comfort_tone
from ari_gemini.audio.pcm import AudioFormat

MS = 16
"""Samples that the model gets."""
SPOKEN = unlike(np.concatenate([silence(1.0), speechlike(2.0), silence(1.0)]), seed=1)
SENT = as_the_model_gets_it(SPOKEN)
NOBODY = np.zeros(50 * MS, np.int16)


def test_all_that_came_on_one_connection() -> None:
    came = arrival(SENT, [SENT])
    assert (came.sent_ms, came.lost_ms, came.repeated_ms, came.strange_ms) == (len(SENT) / MS, 0, 0, 0)
    assert find_runs(SENT, SENT) == [Run(0, 0, len(SENT))]


@pytest.mark.parametrize("overlap_ms", [0, 20, 500])
def test_two_connections_that_overlap(overlap_ms: int) -> None:
    cut = 1500 * MS
    came = arrival(SENT, [SENT[:cut], SENT[cut - overlap_ms * MS :]])
    assert (came.lost_ms, came.repeated_ms, came.strange_ms) == (0, overlap_ms, 0)


@pytest.mark.parametrize(("at_ms", "speech_ms"), [(400, 0), (1500, 300)])
def test_what_no_connection_got_is_lost(at_ms: int, speech_ms: int) -> None:
    came = arrival(SENT, [SENT[: at_ms * MS], SENT[(at_ms + 300) * MS :]])
    assert came.lost_ms == 300
    assert came.lost_speech_ms == pytest.approx(speech_ms, abs=120)  # syllables have pauses
    assert came.repeated_ms == came.strange_ms == 0


def test_a_frame_lost_within_a_connection_and_sound_that_was_never_sent() -> None:
    came = arrival(SENT, [np.concatenate([SENT[: 1200 * MS], NOBODY, SENT[1220 * MS :]])])
    assert (came.lost_ms, came.strange_ms) == (20, 50)


def test_what_had_no_time_to_arrive_does_not_count() -> None:
    assert arrival(SENT, [SENT[: 2000 * MS]], until=2000 * MS).lost_ms == 0
    assert arrival(SENT, [SENT[: 2000 * MS]], until=2020 * MS).lost_ms == 20
    assert arrival(SENT, [NOBODY]).sent_ms == 0


def test_a_changed_sample_is_no_arrival() -> None:
    changed = SENT.copy()
    changed[16_000] += 1
    assert arrival(SENT, [changed]).lost_ms == 1 / MS


def packet(number: int, pcm: Samples) -> Packet:
    level = level_dbfs(pcm)
    return Packet(number * 0.02, Way.TO_PHONE, number, number * 160, 0, False, 1, b"", pcm, level)


class Tape:
    """A tap that has heard this."""

    def __init__(self, sound: Samples, lost: range = range(0)) -> None:
        frames = [sound[at : at + 160] for at in range(0, len(sound), 160)]
        self._packets = [packet(n, frame) for n, frame in enumerate(frames) if n not in lost]

    def packets(self, way: Way, *, since: float = 0.0, until: float = float("inf")) -> list[Packet]:
        return [p for p in self._packets if p.way is way and since <= p.time <= until]

    def gaps(self, way: Way, *, since: float = 0.0, until: float = float("inf")) -> list[float]:
        times = [p.time for p in self.packets(way, since=since, until=until)]
        return [b - a for a, b in itertools.pairwise(times)]


def tone() -> Samples:
    return np.frombuffer(comfort_tone(AudioFormat(RATE)), "<i2").astype(np.int16)[: RATE * 12 // 10]


STEADY = speechlike(1.0, seed=3)[:1600] + 0
LOUD = np.tile(STEADY, 5)


def test_silence_and_the_soft_tone_are_told_apart() -> None:
    sound = np.concatenate([LOUD, silence(0.5), tone(), silence(0.3), LOUD])
    begin, end = 0.9, 3.1  # both within the voice
    borne = endured(Tape(sound), begin, end)
    assert borne.voiceless_ms == pytest.approx(2000, abs=120)
    assert borne.silence_ms == pytest.approx(500, abs=120)
    assert borne.gap_p99_ms == pytest.approx(20)


def test_missing_packets_are_silence() -> None:
    borne = endured(Tape(LOUD, lost=range(10, 25)), 0.0, 1.0)
    assert borne.silence_ms == pytest.approx(300, abs=41)
    assert borne.gap_max_ms == pytest.approx(320)


def test_the_soft_tone_is_known_through_mu_law() -> None:
    frames = [packet(n, tone()[at : at + 160]) for n, at in enumerate(range(0, 9600 - 159, 160))]
    audible = [frame for frame in frames if frame.level > -60]
    assert len(audible) > 40
    assert all(is_soft_tone(frame.pcm) for frame in audible)
    assert not any(is_voice(frame) for frame in audible)
    spoken = [packet(n, LOUD[at : at + 160]) for n, at in enumerate(range(0, len(LOUD) - 159, 160))]
    assert sum(map(is_voice, spoken)) > 0.8 * len(spoken)
