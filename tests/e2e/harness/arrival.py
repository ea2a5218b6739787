"""What of a stream arrived, sample by sample, when several connections carried it one after another.

The caller's sound is made so that no two moments of it are alike (``unlike``), silence included. Whatever a
model's connection received can then be found in what was sent, exactly; what no connection received is lost,
and what two received was repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.resample import Resampler

from .sound import RATE, Samples, level_dbfs

_ANCHOR = 160
"""Samples that must be alike for a place to be believed: 10 ms at 16 kHz."""
_AUDIBLE_DBFS = -45.0
_FRAME_MS = 20


@dataclass(frozen=True, slots=True)
class Run:
    """``received[at:at + length]`` is ``sent[start:start + length]``, sample by sample."""

    start: int
    at: int
    length: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """Milliseconds of the caller's sound, counted from the first moment that arrived to the given end."""

    sent_ms: float
    lost_ms: float
    """Of it, what no connection received."""
    lost_speech_ms: float
    """Of that, what was audible: words."""
    repeated_ms: float
    """What more than one connection received."""
    strange_ms: float
    """What was received and never sent, such as the silence that stands for the time without a caller."""


def unlike(samples: Samples, *, seed: int, level: float = -60.0) -> Samples:
    """``samples`` with a noise of that level under them: no two moments are alike. Deterministic."""
    noise = np.random.default_rng(seed).normal(0.0, 32768 * 10 ** (level / 20), len(samples))
    return np.clip(np.round(samples + noise), -32768, 32767).astype(np.int16)


def as_the_model_gets_it(sent: Samples, rate: int = 16000) -> Samples:
    """An 8 kHz stream as the service's resampler gives it on, from its very beginning."""
    resampler = Resampler(AudioFormat(RATE), AudioFormat(rate))
    pcm = resampler.process(sent.astype("<i2").tobytes()) + resampler.flush()
    return np.frombuffer(pcm, "<i2").astype(np.int16)


def find_runs(sent: Samples, received: Samples) -> list[Run]:
    """Where each stretch of ``received`` comes from; stretches in the order received."""
    haystack, needles = sent.astype("<i2").tobytes(), received.astype("<i2").tobytes()
    runs: list[Run] = []
    at, expected = 0, 0
    while at + _ANCHOR <= len(received):
        start = _find(haystack, needles[2 * at : 2 * (at + _ANCHOR)], expected)
        if start is None:
            at += _ANCHOR // 2
            continue
        length = _alike(sent[start:], received[at:])
        back = _alike(sent[:start][::-1], received[_end(runs) : at][::-1])
        runs.append(Run(start - back, at - back, length + back))
        at += length
        expected = start + length
    return runs


def arrival(
    sent: Samples, connections: Sequence[Samples], *, until: int | None = None, rate: int = 16000
) -> Arrival:
    """What of ``sent`` (as the model gets it, ``rate`` Hz) came by these connections, oldest first.

    ``until``: the sample at which what was sent need not have arrived any more; the end unless given.
    """
    per_ms = rate / 1000
    covered = np.zeros(len(sent) + 1, np.int64)
    strange = 0
    for received in connections:
        runs = find_runs(sent, received)
        strange += len(received) - sum(run.length for run in runs)
        for run in runs:
            covered[run.start] += 1
            covered[run.start + run.length] -= 1
    times = np.cumsum(covered)[:-1]
    came = np.flatnonzero(times)
    if not len(came):
        return Arrival(0.0, 0.0, 0.0, 0.0, strange / per_ms)
    span = slice(int(came[0]), len(sent) if until is None else until)
    lost = times[span] == 0
    return Arrival(
        sent_ms=len(lost) / per_ms,
        lost_ms=float(lost.sum()) / per_ms,
        lost_speech_ms=_audible(sent[span], lost, rate) / per_ms,
        repeated_ms=float(np.maximum(times[span] - 1, 0).sum()) / per_ms,
        strange_ms=strange / per_ms,
    )


def _find(haystack: bytes, needle: bytes, expected: int) -> int | None:
    """The sample at which ``needle`` stands; near ``expected`` if there. Odd places are no samples."""
    found = 2 * expected if haystack.startswith(needle, 2 * expected) else haystack.find(needle)
    while found >= 0 and found % 2:
        found = haystack.find(needle, found + 1)
    return None if found < 0 else found // 2


def _alike(one: Samples, other: Samples) -> int:
    """How many samples from the beginning are the same."""
    length = min(len(one), len(other))
    differ = np.flatnonzero(one[:length] != other[:length])
    return int(differ[0]) if len(differ) else length


def _end(runs: Sequence[Run]) -> int:
    return runs[-1].at + runs[-1].length if runs else 0


def _audible(sent: Samples, lost: np.ndarray[tuple[int], np.dtype[np.bool_]], rate: int) -> int:
    """Lost samples within frames that can be heard."""
    frame = rate * _FRAME_MS // 1000
    return sum(
        int(lost[at : at + frame].sum())
        for at in range(0, len(sent), frame)
        if lost[at : at + frame].any() and level_dbfs(sent[at : at + frame]) > _AUDIBLE_DBFS
    )
