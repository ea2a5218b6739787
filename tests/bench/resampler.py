"""Prints what the live resampler delays, rejects and costs, beside soxr's streams in the same run.

Each engine is fed 20 ms at a time, as a call feeds it. Lag is how far its output is behind its input after a
chunk: the filter's delay and whatever the engine holds back. Rejection is the strongest image that a tone of
the telephone band leaves (up), or the strongest alias of a tone beyond the new band (down); ripple is the
spread of gains from 300 to 3400 Hz; both are scaled to the lower rate. Cost is that of one 20 ms chunk,
median and mean: an engine that works in blocks does nothing for most chunks and much for some.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import soxr
from numpy.typing import NDArray

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.resample import PASS, STOP, Resampler

PAIRS = (
    (8000, 16000),
    (24000, 8000),
    (16000, 8000),
    (24000, 16000),
    (8000, 24000),
    (8000, 48000),
    (48000, 8000),
)
QUALITIES = ("HQ", "QQ")
PEAK = 29000.0
SETTLED = 0.3
"""Seconds after which every engine's answer to a tone is steady."""
MEASURED = 0.2
"""Seconds of it that are looked at: tones are multiples of 5 Hz, so whole periods."""

Samples = NDArray[np.int16]
Feed = Callable[[Samples], Samples]


class Row(NamedTuple):
    """One line of the table."""

    engine: str
    taps: str
    lag: tuple[float, float, float]
    rejection_db: float
    ripple_db: float
    cost_us: tuple[float, float]


def ours(source: int, target: int) -> Feed:
    resampler = Resampler(AudioFormat(source), AudioFormat(target))
    return lambda chunk: np.frombuffer(resampler.process(chunk.tobytes()), "<i2")


def soxr_stream(quality: str) -> Callable[[int, int], Feed]:
    def make(source: int, target: int) -> Feed:
        stream = soxr.ResampleStream(source, target, 1, dtype="int16", quality=quality)
        return lambda chunk: np.asarray(stream.resample_chunk(chunk))

    return make


def chunks(sound: Samples, rate: int) -> Iterable[Samples]:
    step = rate // 50
    return (sound[at : at + step] for at in range(0, len(sound), step))


def spectrum(feed: Feed, source: int, target: int, hertz: float) -> NDArray[np.float64]:
    """Magnitudes every 5 Hz of the steady answer to a tone; 1.0 is the tone's own."""
    t = np.arange(int(source * (SETTLED + MEASURED + 0.2))) / source
    sound = np.rint(PEAK * np.sin(2 * np.pi * hertz * t)).astype(np.int16)
    out = np.concatenate([feed(chunk) for chunk in chunks(sound, source)])
    steady = out[int(target * SETTLED) : int(target * (SETTLED + MEASURED))]
    return np.asarray(np.abs(np.fft.rfft(steady)) / (len(steady) / 2 * PEAK))


def quality(make: Callable[[int, int], Feed], source: int, target: int) -> tuple[float, float]:
    """Rejection and ripple in dB."""
    lower = min(source, target)
    gains, strays = [], [1e-9]
    for hertz in np.round(np.linspace(0.0375 * lower, PASS * lower, 18) / 5) * 5:
        answer = spectrum(make(source, target), source, target, hertz)
        wanted = round(hertz / 5)
        gains.append(answer[wanted])
        if target > source:
            answer[[0, wanted - 1, wanted, wanted + 1]] = 0.0
            strays.append(answer.max())
    if target < source:
        beyond = np.round(np.linspace(STOP * lower, source / 2 - 100, 40) / 5) * 5
        strays += [spectrum(make(source, target), source, target, hertz).max() for hertz in beyond]
    return max(0.0, float(-20 * np.log10(max(strays)))), float(20 * np.log10(max(gains) / min(gains)))


def lag(feed: Feed, source: int, target: int) -> tuple[float, float, float]:
    """Least, mean and greatest ms that a held-back stream's output is short of its input."""
    noise = np.random.default_rng(1).integers(-9000, 9000, source * 2).astype(np.int16)
    given = got = 0
    short = []
    for chunk in chunks(noise, source):
        given += len(chunk)
        got += len(feed(chunk))
        short.append((given / source - got / target) * 1000)
    settled = short[len(short) // 4 :]
    return min(settled), float(np.mean(settled)), max(settled)


def cost(feed: Callable[[bytes], object], pcm: bytes, rounds: int) -> tuple[float, float]:
    """Median and mean microseconds of one call."""
    spent = []
    for _ in range(rounds):
        begun = time.perf_counter_ns()
        feed(pcm)
        spent.append(time.perf_counter_ns() - begun)
    return float(np.median(spent)) / 1000, float(np.mean(spent)) / 1000


def rows(source: int, target: int, rounds: int) -> list[Row]:
    """Our own row and soxr's. All are given bytes and asked for bytes when their cost is taken."""
    pcm = np.random.default_rng(1).integers(-9000, 9000, source // 50).astype(np.int16).tobytes()
    own = Resampler(AudioFormat(source), AudioFormat(target))
    assert own.filter is not None
    least, mean, greatest = (held + own.delay_ms for held in lag(ours(source, target), source, target))
    table = [
        Row(
            "ari-gemini",
            str(len(own.filter.taps)),
            (least, mean, greatest),
            *quality(ours, source, target),
            cost(own.process, pcm, rounds),
        )
    ]
    for name in QUALITIES:
        make = soxr_stream(name)
        stream = soxr.ResampleStream(source, target, 1, dtype="int16", quality=name)

        def feed(pcm: bytes, stream: soxr.ResampleStream = stream) -> bytes:
            return bytes(stream.resample_chunk(np.frombuffer(pcm, "<i2")).tobytes())

        held = lag(make(source, target), source, target)
        table.append(Row(f"soxr {name}", "-", held, *quality(make, source, target), cost(feed, pcm, rounds)))
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3000, help="chunks timed for each cost (default 3000)")
    rounds = parser.parse_args().rounds
    print(
        "| Hz | engine | taps | lag ms, min / mean / max | reject dB | ripple dB | us per 20 ms, p50 / mean |"
    )
    print("|---|---|---|---|---|---|---|")
    for source, target in PAIRS:
        for row in rows(source, target, rounds):
            lags = " / ".join(f"{ms:.2f}" for ms in row.lag)
            cost_us = " / ".join(f"{us:.1f}" for us in row.cost_us)
            print(
                f"| {source} -> {target} | {row.engine} | {row.taps} | {lags} "
                f"| {row.rejection_db:.1f} | {row.ripple_db:.3f} | {cost_us} |"
            )


if __name__ == "__main__":
    main()
