"""The resampler against scipy as independent witness, by tones measured on its output, by random cuts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import signal

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.resample import RATES, Resampler, design

PAIRS = list(itertools.permutations(RATES, 2))
LIVE = [(8000, 16000), (24000, 8000)]
"""The two ratios of every call: uplink and downlink."""

Samples = NDArray[np.int16]


def make(source: int, target: int) -> Resampler:
    return Resampler(AudioFormat(source), AudioFormat(target))


def noise(count: int, seed: int = 1, peak: int = 32767) -> bytes:
    return np.random.default_rng(seed).integers(-peak, peak, count, endpoint=True).astype("<i2").tobytes()


def samples(pcm: bytes) -> Samples:
    return np.frombuffer(pcm, "<i2")


def witness(pcm: bytes, resampler: Resampler) -> bytes:
    """All that the stream and its tail must come to: scipy's convolution, rounded and saturated."""
    lowpass = resampler.filter
    assert lowpass is not None
    full = signal.upfirdn(lowpass.taps, samples(pcm).astype(float), up=lowpass.up)
    exact = full[lowpass.down - 1 :: lowpass.down]
    return np.clip(np.rint(exact), -32768, 32767).astype("<i2").tobytes()


def tone(rate: int, hertz: float, seconds: float, peak: float = 29000.0) -> bytes:
    return (
        np.rint(peak * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate))
        .astype("<i2")
        .tobytes()
    )


def steady(resampler: Resampler, hertz: float) -> NDArray[np.complex128]:
    """Spectrum of 200 ms of the answer to a tone (a multiple of 5 Hz), its onset over; 1.0 is the input."""
    rate = resampler.target.rate
    resampler.reset()
    out = samples(resampler.process(tone(resampler.source.rate, hertz, 0.25)))
    part = out[rate // 50 : rate // 50 + rate // 5]
    return np.fft.rfft(part) / (len(part) / 2 * 29000.0)


def db(ratio: float) -> float:
    return float(20 * np.log10(max(ratio, 1e-12)))


# --- the filter itself, through scipy's eyes


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_freqz_confirms_rejection_ripple_and_linear_phase(source: int, target: int) -> None:
    lowpass = make(source, target).filter
    assert lowpass is not None
    lower = min(source, target)
    hertz, response = signal.freqz(lowpass.taps, worN=20000, fs=source * lowpass.up)
    gain = np.abs(response) / lowpass.up
    rejection = -db(gain[hertz >= 0.575 * lower].max())
    passed = gain[hertz <= 0.425 * lower]
    assert rejection >= 60.0
    assert rejection == pytest.approx(lowpass.rejection_db, abs=0.5)
    assert db(passed.max()) - db(passed.min()) <= 0.05
    assert lowpass.ripple_db <= 0.05
    assert np.array_equal(lowpass.taps, lowpass.taps[::-1])


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_taps_keep_every_sum_exact_in_float64(source: int, target: int) -> None:
    lowpass = make(source, target).filter
    assert lowpass is not None
    integers = lowpass.taps * 2**24
    assert np.array_equal(integers, np.rint(integers))
    assert np.abs(integers).sum() * 32768 < 2**53


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_delay_is_short(source: int, target: int) -> None:
    assert 0 < make(source, target).delay_ms <= 2.0


def test_a_filter_is_designed_once_and_shared() -> None:
    assert make(8000, 16000).filter is make(24000, 48000).filter is design(2, 1)


def test_a_shared_filter_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        design(2, 1).taps[0] = 1.0


# --- what comes out, measured


@pytest.mark.parametrize(
    ("source", "target"), [*LIVE, (16000, 8000), (24000, 16000), (8000, 24000), (8000, 12000)]
)
def test_images_of_speech_are_60_db_down(source: int, target: int) -> None:
    resampler = make(source, target)
    scale = min(source, target) / 8000
    for hertz in range(300, 3401, 100):
        spectrum = np.abs(steady(resampler, hertz * scale))
        wanted = round(hertz * scale / 5)
        assert db(spectrum[wanted]) == pytest.approx(0.0, abs=0.05)
        spectrum[wanted - 1 : wanted + 2] = 0.0
        spectrum[0] = 0.0
        assert db(spectrum.max()) <= -60.0, f"{hertz * scale} Hz"


@pytest.mark.parametrize(("source", "target"), [(24000, 8000), (16000, 8000), (48000, 8000), (24000, 16000)])
def test_aliases_are_60_db_down_from_the_stop_band_on(source: int, target: int) -> None:
    resampler = make(source, target)
    first = round(0.575 * target)
    for hertz in range(first, source // 2, 100):
        assert db(np.abs(steady(resampler, hertz)).max()) <= -60.0, f"{hertz} Hz"


@pytest.mark.parametrize(("source", "target"), LIVE)
def test_ripple_over_the_telephone_band(source: int, target: int) -> None:
    resampler = make(source, target)
    gains = [db(abs(steady(resampler, hertz)[hertz // 5])) for hertz in range(50, 3401, 50)]
    assert max(gains) - min(gains) <= 0.5  # what is asked for
    assert max(map(abs, gains)) <= 0.02  # what it does


@pytest.mark.parametrize(("source", "target"), LIVE)
def test_delay_is_the_same_at_every_frequency(source: int, target: int) -> None:
    resampler = make(source, target)
    for hertz in range(100, 3401, 100):
        # 20 ms and 200 ms hold whole periods, so the phase of a tone begun as a sine tells its delay.
        phase = np.angle(steady(resampler, hertz)[hertz // 5] * 1j)
        delay = -phase / (2 * np.pi * hertz) * 1000
        off = (delay - resampler.delay_ms + 500 / hertz) % (1000 / hertz) - 500 / hertz
        assert abs(off) < 0.001, f"{hertz} Hz"


@pytest.mark.parametrize(("source", "target"), LIVE)
def test_cross_correlation_finds_the_delay_that_is_promised(source: int, target: int) -> None:
    resampler = make(source, target)
    speech = signal.sosfilt(
        signal.butter(4, [300, 3400], "bandpass", fs=source, output="sos"), samples(noise(source, peak=20000))
    )
    pcm = np.rint(speech).astype("<i2")
    out = samples(resampler.process(pcm.tobytes())).astype(float)
    fine = 48000
    slow = signal.resample_poly(pcm.astype(float), fine // source, 1)
    late = signal.resample_poly(out, fine // target, 1)
    lags = np.arange(-200, 201)
    middle = slice(5000, 40000)
    match = [np.dot(slow[middle], np.roll(late, -lag)[middle]) for lag in lags]
    lag_ms = lags[int(np.argmax(match))] / fine * 1000
    assert lag_ms == pytest.approx(resampler.delay_ms, abs=0.6 / fine * 1000)
    assert lag_ms <= 2.0


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_constant_passes_unchanged(source: int, target: int) -> None:
    out = samples(make(source, target).process(np.full(source // 10, 12345, "<i2").tobytes()))
    assert set(out[target // 50 :].tolist()) == {12345}


# --- the stream


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_stream_and_tail_are_what_scipy_computes(source: int, target: int) -> None:
    resampler = make(source, target)
    pcm = noise(source // 7)
    expected = witness(pcm, resampler)
    got = resampler.process(pcm) + resampler.flush()
    assert got[: len(expected)] == expected
    assert not any(got[len(expected) :])
    assert len(got) - len(expected) <= 2 * 8  # the tail ends with a whole period


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_frames_give_the_very_bytes_of_the_whole_signal(source: int, target: int) -> None:
    """No click at frame borders: nothing at all tells where a border was."""
    pcm = noise(source // 5)
    whole = make(source, target).process(pcm)
    by_frame = make(source, target)
    size = by_frame.source.frame_bytes
    frames = [by_frame.process(pcm[at : at + size]) for at in range(0, len(pcm), size)]
    assert b"".join(frames) == whole
    assert {len(frame) for frame in frames} == {by_frame.target.frame_bytes}


@pytest.mark.parametrize(("source", "target"), [*LIVE, (24000, 16000), (32000, 12000)])
def test_sample_by_sample_and_byte_by_byte(source: int, target: int) -> None:
    pcm = noise(400)
    whole = make(source, target).process(pcm)
    for step in (1, 2, 3):
        resampler = make(source, target)
        assert b"".join(resampler.process(pcm[at : at + step]) for at in range(0, len(pcm), step)) == whole


@settings(max_examples=150, deadline=None)
@given(
    pair=st.sampled_from(LIVE * 8 + PAIRS),
    sizes=st.lists(st.one_of(st.integers(0, 9), st.integers(0, 4000)), min_size=1, max_size=24),
    peak=st.sampled_from([1, 1000, 32767]),
)
def test_output_does_not_depend_on_the_chunking(pair: tuple[int, int], sizes: list[int], peak: int) -> None:
    resampler = make(*pair)
    pcm = noise(sum(sizes), seed=len(sizes), peak=peak)[: sum(sizes)]
    given_bytes, out = 0, b""
    for size in sizes:
        out += resampler.process(pcm[given_bytes : given_bytes + size])
        given_bytes += size
        assert len(out) // 2 == given_bytes // 2 * pair[1] // pair[0]  # nothing is held back, nothing made up
    out += resampler.flush()
    expected = witness(pcm[: len(pcm) & ~1], resampler) if len(pcm) > 1 else b""
    assert out[: len(expected)] == expected
    assert not any(out[len(expected) :])


def test_many_different_chunk_sizes_give_the_same_bytes() -> None:
    sizes = [2 * size for size in range(1, 60)]
    pcm = noise(sum(sizes) // 2)
    resampler = make(24000, 8000)
    cuts = list(itertools.accumulate(sizes, initial=0))
    out = b"".join(resampler.process(pcm[a:b]) for a, b in itertools.pairwise(cuts))
    assert out == make(24000, 8000).process(pcm)


def test_a_burst_is_cut_into_pieces_that_wake_no_blas_thread() -> None:
    """OpenBLAS multiplies in the calling thread as long as m * n * k <= 4 * 65536 (its interface/gemm.c)."""
    for source, target in PAIRS:
        resampler = make(source, target)
        rows, matrix = resampler._work.rows, resampler._work.kernel.matrix
        assert rows.shape[0] * rows.shape[1] * matrix.shape[1] <= 4 * 65536
        pcm = noise(source)
        expected = witness(pcm, resampler)
        assert (resampler.process(pcm) + resampler.flush())[: len(expected)] == expected


def test_streams_do_not_mix() -> None:
    one, other = make(8000, 16000), make(8000, 16000)
    loud, soft = noise(480, peak=32767), noise(480, seed=2, peak=9)
    mixed = [
        (one.process(loud[at : at + 320]), other.process(soft[at : at + 320])) for at in range(0, 960, 320)
    ]
    assert b"".join(a for a, _ in mixed) == make(8000, 16000).process(loud)
    assert b"".join(b for _, b in mixed) == make(8000, 16000).process(soft)


# --- its edges


@pytest.mark.parametrize(("source", "target"), LIVE)
def test_full_scale_saturates_and_never_wraps(source: int, target: int) -> None:
    square = np.where(np.arange(source // 10) // 40 % 2, 32767, -32768).astype("<i2")
    resampler = make(source, target)
    lowpass = resampler.filter
    assert lowpass is not None
    exact = signal.upfirdn(lowpass.taps, square.astype(float), up=lowpass.up)[
        lowpass.down - 1 :: lowpass.down
    ]
    assert exact.max() > 32767.5  # the filter does overshoot
    assert exact.min() < -32768.5
    out = samples(resampler.process(square.tobytes()) + resampler.flush())[: len(exact)]
    assert (out.max(), out.min()) == (32767, -32768)
    assert np.all(np.sign(out[np.abs(exact) > 1000]) == np.sign(exact[np.abs(exact) > 1000]))
    assert out[exact > 32767].tolist() == [32767] * int((exact > 32767).sum())
    assert out[exact < -32768].tolist() == [-32768] * int((exact < -32768).sum())


@pytest.mark.parametrize(("source", "target"), LIVE)
def test_flush_brings_the_last_sample_out(source: int, target: int) -> None:
    resampler = make(source, target)
    before = resampler.process(bytes(2 * 240) + (30000).to_bytes(2, "little", signed=True))
    tail = resampler.flush()
    assert np.abs(samples(before)).max() < 1000
    share = min(1.0, target / source)  # an impulse keeps its area
    assert np.abs(samples(tail)).max() > 20000 * share
    at = int(np.argmax(np.abs(samples(before + tail)))) / target * 1000
    assert at == pytest.approx(240 / source * 1000 + resampler.delay_ms, abs=500 / target)


@pytest.mark.parametrize(("source", "target"), LIVE)
def test_after_flush_a_turn_begins_in_silence(source: int, target: int) -> None:
    resampler = make(source, target)
    pcm = noise(1003)
    first = resampler.process(pcm) + resampler.flush()
    assert resampler.process(pcm) + resampler.flush() == first


@pytest.mark.parametrize(("source", "target"), LIVE)
def test_reset_forgets(source: int, target: int) -> None:
    resampler = make(source, target)
    resampler.process(noise(1001) + b"\x7f")
    resampler.reset()
    assert resampler.flush() == b""
    assert not any(resampler.process(bytes(2000)))


def test_flush_without_input_gives_nothing() -> None:
    resampler = make(24000, 8000)
    assert resampler.flush() == b""
    assert resampler.process(b"") == b""
    assert resampler.flush() == b""


def test_half_a_sample_waits_for_the_other_half() -> None:
    resampler = make(8000, 16000)
    pcm = noise(160)
    assert resampler.process(pcm[:1]) == b""
    assert resampler.process(pcm[1:]) == make(8000, 16000).process(pcm)


def test_half_a_sample_does_not_reach_the_next_turn() -> None:
    resampler = make(8000, 16000)
    resampler.process(b"\x01")
    assert resampler.flush() == b""
    pcm = noise(160)
    assert resampler.process(pcm) == make(8000, 16000).process(pcm)


@pytest.mark.parametrize("rate", RATES)
def test_equal_rates_pass_through(rate: int) -> None:
    resampler = make(rate, rate)
    pcm = noise(rate)
    assert resampler.process(pcm) is pcm
    assert resampler.delay_ms == 0.0
    assert resampler.filter is None
    assert resampler.flush() == b""


def test_equal_rates_still_give_whole_samples() -> None:
    resampler = make(8000, 8000)
    assert [resampler.process(part) for part in (b"abc", b"d", b"e")] == [b"ab", b"cd", b""]
    resampler.reset()
    assert resampler.process(b"fg") == b"fg"


def test_formats_are_known_to_the_caller() -> None:
    resampler = make(24000, 8000)
    assert (resampler.source, resampler.target) == (AudioFormat(24000), AudioFormat(8000))


@pytest.mark.parametrize(
    ("source", "target"), [(44100, 8000), (8000, 11025), (0, 8000), (8000, -8000), (44100, 44100)]
)
def test_other_rates_are_refused_by_name(source: int, target: int) -> None:
    with pytest.raises(ValueError, match=f"{source} Hz to {target} Hz"):
        make(source, target)
