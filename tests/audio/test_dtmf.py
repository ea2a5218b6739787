"""Keys as sound: exact in length, level and pitch, and understood by two receivers that know nothing of them.

One receiver is written here from the tolerances of ITU-T Q.24; the other is multimon-ng. Both must also
understand what G.711 leaves of the tones.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import subprocess

import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ari_gemini.audio.comfort import comfort_tone
from ari_gemini.audio.dtmf import CHARACTERS, DIGITS, duration_ms, tones
from ari_gemini.audio.pcm import AudioFormat

LOW = (697, 770, 852, 941)
HIGH = (1209, 1336, 1477, 1633)
KEYS = dict(zip("123A456B789C*0#D", [(low, high) for low in LOW for high in HIGH], strict=True))
NARROW = AudioFormat(8000)
RATES = (8000, 12000, 16000, 24000, 32000, 44100, 48000, 96000)

Floats = NDArray[np.float64]


def samples(pcm: bytes) -> Floats:
    return np.frombuffer(pcm, "<i2").astype(np.float64)


def hundred_digits(seed: int) -> str:
    """All 16 keys in random order, each several times, some twice in a row."""
    generator = random.Random(seed)
    digits = list("123A456B789C*0#D") + generator.choices("123A456B789C*0#D", k=84)
    generator.shuffle(digits)
    return "".join(digits)


# --- ITU-T G.711

ULAW_OCTETS = ~np.arange(256) & 0xFF
ULAW = np.where(ULAW_OCTETS & 0x80, -1, 1) * (
    (((ULAW_OCTETS & 0x0F) << 3) + 0x84 << ((ULAW_OCTETS >> 4) & 7)) - 0x84
)
ALAW_OCTETS = np.arange(256) ^ 0x55
ALAW = np.where(ALAW_OCTETS & 0x80, 1, -1) * np.where(
    ALAW_OCTETS & 0x70,
    ((ALAW_OCTETS & 0x0F) << 4) + 0x108 << np.maximum(((ALAW_OCTETS >> 4) & 7) - 1, 0),
    ((ALAW_OCTETS & 0x0F) << 4) + 8,
)
LAWS = {"linear": None, "µ-law": ULAW, "A-law": ALAW}
MILLIWATT = {
    "µ-law": bytes.fromhex("1E0B0B1E9E8B8B9E"),
    "A-law": bytes.fromhex("34212134B4A1A1B4"),
}
"""One period of 1 kHz at 0 dBm0 (tables 5 and 6)."""


def through(law: NDArray[np.int64] | None, pcm: bytes) -> bytes:
    """``pcm`` coded and decoded: the nearest value of 256."""
    if law is None:
        return pcm
    values = np.unique(law)
    wanted = samples(pcm)
    above = np.clip(np.searchsorted(values, wanted), 1, len(values) - 1)
    nearest = np.where(wanted - values[above - 1] <= values[above] - wanted, values[above - 1], values[above])
    return nearest.astype("<i2").tobytes()


def milliwatt_amplitude(law: str) -> float:
    table = LAWS[law]
    assert table is not None
    return math.sqrt(2) * float(np.sqrt(np.mean(table[list(MILLIWATT[law])].astype(float) ** 2)))


# --- length and limits


@pytest.mark.parametrize("rate", RATES)
def test_lengths_are_exact_at_every_rate(rate: int) -> None:
    fmt = AudioFormat(rate)
    assert len(tones("5", fmt)) == 2 * rate * 160 // 1000
    assert len(tones("w", fmt)) == 2 * rate // 2
    said = samples(tones("59", fmt))
    digit, on = rate * 160 // 1000, rate // 10
    for begin in (0, digit):
        assert np.any(said[begin + on - rate // 200 : begin + on]), "100 ms are sounding"
        assert not np.any(said[begin + on : begin + digit]), "and 60 ms are not"


@given(st.text("".join(sorted(CHARACTERS)), max_size=12), st.text("".join(sorted(CHARACTERS)), max_size=12))
def test_a_sequence_is_its_characters_in_a_row(one: str, other: str) -> None:
    both = tones(one + other, NARROW)
    assert both == tones(one, NARROW) + tones(other, NARROW)
    assert NARROW.duration_ms(len(both)) == duration_ms(one + other)


def test_how_long_it_takes() -> None:
    assert [duration_ms(digits) for digits in ("", "1", "w", "1w2#")] == [0, 160, 500, 980]


def test_whole_frames() -> None:
    assert all(len(tones(character, NARROW)) % NARROW.frame_bytes == 0 for character in CHARACTERS)


def test_all_sixteen_keys_and_the_pause() -> None:
    assert set(KEYS) == DIGITS
    assert DIGITS | {"w"} == CHARACTERS
    assert len({tones(digit, NARROW) for digit in DIGITS}) == 16
    assert tones("", NARROW) == b""


@pytest.mark.parametrize("digits", ["a", "E", "W", " ", "1 2", "1-2", "+49", "\uff11", "0\n"])
def test_what_no_telephone_has_is_refused(digits: str) -> None:
    with pytest.raises(ValueError, match="no such keys"):
        tones(digits, NARROW)
    with pytest.raises(ValueError, match="no such keys"):
        duration_ms(digits)


# --- level and pitch


@pytest.mark.parametrize("law", sorted(MILLIWATT))
@pytest.mark.parametrize("digit", sorted(KEYS))
def test_levels_against_the_digital_milliwatt(digit: str, law: str) -> None:
    steady = samples(tones(digit, NARROW))[80:720]
    time = np.arange(80, 720) / 8000
    waves = [f(2 * np.pi * hertz * time) for hertz in KEYS[digit] for f in (np.sin, np.cos)]
    fitted, *_ = np.linalg.lstsq(np.column_stack(waves), steady, rcond=None)
    low, high = np.hypot(fitted[0::2], fitted[1::2]) / milliwatt_amplitude(law)
    # G.711 defines its two scales 0.06 dB apart
    assert 20 * math.log10(low) == pytest.approx(-11.0, abs=0.07)
    assert 20 * math.log10(high) == pytest.approx(-9.0, abs=0.07)
    rest = steady - np.column_stack(waves) @ fitted
    assert np.abs(rest).max() < 1.0, "nothing but two pure tones: no product to be 20 dB below them (Q.23)"


@pytest.mark.parametrize("rate", RATES)
def test_pitch_is_the_same_at_every_rate(rate: int) -> None:
    wide = soxr.resample(samples(tones("19#", AudioFormat(rate))), rate, 8000, quality="HQ")
    assert np.abs(wide[:3840] - samples(tones("19#", NARROW))).max() < 40, "0.3 % of a digit's peak"


@pytest.mark.parametrize("rate", RATES)
def test_no_click(rate: int) -> None:
    said = samples(tones("6", AudioFormat(rate)))
    assert said[0] == 0
    steps = np.abs(np.diff(said))
    edge = rate // 1000
    on = rate // 10
    assert steps[:edge].max() < steps.max() / 2
    assert steps[on - edge : on + 1].max() < steps.max() / 2


# --- a receiver after ITU-T Q.24, table A-1

WINDOW = 200
HOP = 40
"""Samples at 8 kHz: each 5 ms, what the last 25 ms hold."""
ACCEPTED_MS = 32
"""Between the 40 ms that are a digit and the 23 ms that are not."""
ACCEPTED_DEVIATION = 0.025
"""Between the 1.5 % that are the digit's and the 3.5 % that are not."""


def goertzel(frames: Floats, hertz: int) -> NDArray[np.complex128]:
    """The strength of one frequency in each frame, all frames at once."""
    turn = 2 * np.pi * hertz / 8000
    one, two = np.zeros(len(frames)), np.zeros(len(frames))
    for column in frames.T:
        one, two = column + 2 * math.cos(turn) * one - two, one
    return one - np.exp(-1j * turn) * two


def strongest(frames: Floats, group: tuple[int, ...]) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """For each frame, of the group's strongest tone: level in dBm0, deviation of its pitch, its number."""
    found = np.array([goertzel(frames, hertz) for hertz in group])
    number = np.argmax(np.abs(found), axis=0)
    nominal = np.array(group)[number]
    level = np.abs(np.take_along_axis(found, number[None], 0)[0]) / (np.hanning(WINDOW).sum() / 2)
    level = 20 * np.log10(np.maximum(level, 1e-9) / milliwatt_amplitude("A-law"))
    advance = np.zeros((len(group), len(frames)))
    for row, hertz in enumerate(group):
        turned = found[row, 1:] * np.conj(found[row, :-1]) * np.exp(-2j * np.pi * hertz * HOP / 8000)
        advance[row, 1:] = np.angle(turned) / (2 * np.pi * HOP / 8000)
    off = np.take_along_axis(advance, number[None], 0)[0] / nominal
    return level, np.abs(off), number


def receive(pcm: bytes) -> str:
    """The digits in 8 kHz audio, each as often as it was pressed."""
    padded = np.concatenate([np.zeros(WINDOW), samples(pcm), np.zeros(WINDOW)])
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    weighted = frames * np.hanning(WINDOW)
    low, low_off, row = strongest(weighted, LOW)
    high, high_off, column = strongest(weighted, HIGH)
    heard = (low > -30) & (high > -30)  # the least is -25 dBm; windows at the edge hold a part of it
    heard &= (low < 1) & (high < 1)
    heard &= (high - low < 5) & (low - high < 9)  # 4 dB and 8 dB
    heard &= (low_off < ACCEPTED_DEVIATION) & (high_off < ACCEPTED_DEVIATION)
    digits, begin = "", 0
    keys = "123A456B789C*0#D"
    for at in range(1, len(frames) + 1):
        same = at < len(frames) and (heard[at], row[at], column[at]) == (
            heard[begin],
            row[begin],
            column[begin],
        )
        if same:
            continue
        # a window that holds half of a tone is 6 dB weaker: those above are as many hops as the tone is long
        loud = low[begin:at] > low[begin:at].max() - 6
        if heard[begin] and loud.sum() * HOP / 8 >= ACCEPTED_MS:
            digits += keys[4 * row[begin] + column[begin]]
        begin = at
    return digits


def pressed(
    digit: str, ms: float = 40, *, detune: float = 1.0, low: float = -10.0, high: float = -10.0
) -> bytes:
    """A key as someone else would play it, between silences of 40 ms."""
    time = np.arange(round(8 * ms)) / 8000
    unit = milliwatt_amplitude("A-law")
    wave = sum(
        unit * 10 ** (level / 20) * np.sin(2 * np.pi * hertz * detune * time)
        for hertz, level in zip(KEYS[digit], (low, high), strict=True)
    )
    gap = bytes(2 * 8 * 40)
    return gap + np.clip(np.rint(wave), -32768, 32767).astype("<i2").tobytes() + gap


ACCEPTED = {
    "40 ms": {},
    "1.5 % high": {"detune": 1.015},
    "1.5 % low": {"detune": 0.985},
    "loud": {"low": -3.0, "high": -3.0},
    "faint": {"low": -25.0, "high": -25.0},
    "high tone 4 dB above": {"high": -6.0},
    "high tone 8 dB below": {"high": -18.0},
}
REFUSED = {
    "23 ms": {"ms": 23},
    "3.5 % high": {"detune": 1.035, "ms": 100},
    "3.5 % low": {"detune": 0.965, "ms": 100},
    "one tone alone": {"high": -70.0, "ms": 100},
    "too faint": {"low": -55.0, "high": -55.0, "ms": 100},
    "high tone 12 dB below": {"high": -22.0, "ms": 100},
}


@pytest.mark.parametrize("trait", ACCEPTED)
def test_the_receiver_accepts_what_it_must(trait: str) -> None:
    digits = "123A456B789C*0#D"
    assert receive(b"".join(pressed(digit, **ACCEPTED[trait]) for digit in digits)) == digits


@pytest.mark.parametrize("trait", REFUSED)
def test_the_receiver_refuses_what_it_must(trait: str) -> None:
    assert receive(b"".join(pressed(digit, **REFUSED[trait]) for digit in "123A456B789C*0#D")) == ""


# --- understood


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_a_q24_receiver_hears_100_of_100(rate: int, law: str) -> None:
    digits = hundred_digits(rate)
    said = tones(digits, AudioFormat(rate))
    assert receive(through(LAWS[law], resampled(said, rate, 8000))) == digits


def test_a_pause_changes_nothing_but_the_time() -> None:
    assert receive(tones("1w1ww2", NARROW)) == "112"


@pytest.mark.parametrize("law", LAWS)
def test_the_comfort_tone_is_no_key(law: str) -> None:
    assert receive(through(LAWS[law], comfort_tone(NARROW) * 2)) == ""


@pytest.fixture
def multimon() -> str:
    """The path of multimon-ng; where it may be missing a test that asks for it is left out."""
    path = shutil.which("multimon-ng")
    if path is not None:
        return path
    reason = "missing: multimon-ng; tests/e2e/fetch installs it"
    if os.environ.get("ARI_GEMINI_REQUIRE_ASTERISK") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def decoded(multimon: str, pcm: bytes, rate: int) -> str:
    """What multimon-ng hears, half a second of silence before and behind."""
    silence = bytes(rate // 2 * 2)
    done = subprocess.run(
        [multimon, "-q", "-a", "DTMF", "-t", "raw", "-"],
        input=resampled(silence + pcm + silence, rate, 22050),
        capture_output=True,
        timeout=60,
        check=True,
    )
    lines = done.stdout.decode().splitlines()
    assert all(line.startswith("DTMF: ") for line in lines), lines
    return "".join(line.removeprefix("DTMF: ") for line in lines)


def resampled(pcm: bytes, source: int, target: int) -> bytes:
    if source == target:
        return pcm
    return np.rint(soxr.resample(samples(pcm), source, target, quality="HQ")).astype("<i2").tobytes()


@pytest.mark.asterisk
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_multimon_hears_100_of_100(multimon: str, rate: int, law: str) -> None:
    digits = hundred_digits(rate + 1)
    narrow = through(LAWS[law], resampled(tones(digits, AudioFormat(rate)), rate, 8000))
    assert decoded(multimon, narrow, 8000) == digits
    assert decoded(multimon, tones("w1w1", AudioFormat(rate)), rate) == "11"


@pytest.mark.asterisk
def test_multimon_hears_no_key_in_the_comfort_tone(multimon: str) -> None:
    assert decoded(multimon, comfort_tone(NARROW) * 3, 8000) == ""
