"""Streaming change of sample rate: a polyphase linear-phase FIR with a short, constant delay.

The sum a FIR needs is done as one small matrix product per chunk. The input is cut into blocks of about 20
samples; each block, with the history before it, is a row; one column of the matrix yields one output
sample. That is the product BLAS is fastest at, and its matrix holds the taps of every phase, so up, down
and rational ratios are one code.

The output does not depend on how the input was cut. Taps are multiples of 2**-24 and samples are 16-bit
integers, so each product and each partial sum is a float64 without any rounding; whatever order or fused
instruction the BLAS of a machine prefers, the sum is the same number, and only then it is rounded, once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from ari_gemini.audio.pcm import SAMPLE_BYTES, AudioFormat

RATES = (8000, 12000, 16000, 24000, 32000, 48000)
"""Rates in Hz that AudioSocket (``res_audiosocket.c``) and realtime models use and whose ratios are small."""
PASS = 0.425
"""End of the passband as a part of the lower rate: 3.4 kHz at 8 kHz, the telephone band of ITU-T G.712."""
STOP = 0.575
"""Start of the stop band, the passband's mirror image: 4.6 kHz at 8 kHz."""
REJECTION_DB = 60.0
"""Least attenuation in the stop band, far beyond the 38 dB that G.711's own noise lies below the speech."""

# 16-bit samples, 24-bit taps and their sum stay far below the 53 bits that float64 holds exactly.
_COEFFICIENT_BITS = 24
_SHAPES = tuple(beta / 20 for beta in range(100, 132))  # around Kaiser's 0.1102 (A - 8.7) = 5.65
_RESPONSE_POINTS = 8192  # more than 40 points per side lobe of the longest filter here
_MARGIN_DB = 0.5  # for what lies between those points and for the rounding of the output to 16 bits
# New samples in a row, the measured optimum between copying and multiplying: a multiple of every ``down``;
# 10 % is gained by less where one sample gives several.
_BLOCK_SAMPLES = 24
_BLOCK_SAMPLES_UP = 20
_PIECE_MS = 40  # longer input is done piece by piece: the workspace stays small and BLAS never wakes a thread
_MAX_PLANS = 16  # chunk sizes remembered; a peer that never repeats one cannot fill the memory

_INT16 = np.dtype("<i2")
_HIGHEST = np.array(32767.0)
_LOWEST = np.array(-32768.0)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Filter:
    """A linear-phase low-pass for the ratio ``up``/``down``; its taps run at the input rate times ``up``."""

    up: int
    down: int
    taps: Floats
    rejection_db: float
    """Attenuation reached in the worst point of the stop band."""
    ripple_db: float
    """Difference between the largest and the smallest gain in the passband."""


@lru_cache(maxsize=32)
def design(up: int, down: int) -> Filter:
    """The shortest Kaiser-windowed filter for ``up``/``down`` (in lowest terms) that measures REJECTION_DB.

    Kaiser's estimate gives the length to begin with; the window's shape is chosen by measuring the
    quantised taps. The cut-off, half the lower rate, lies in the middle between pass and stop band.
    """
    ratio = max(up, down)
    width = 2.0 * math.pi * (STOP - PASS) / ratio
    half = math.ceil((REJECTION_DB - 7.95) / (2.285 * width) / 2)  # J. F. Kaiser, 1974
    while True:
        best = max((_measured(up, down, half, beta) for beta in _SHAPES), key=_rejection)
        if best.rejection_db >= REJECTION_DB + _MARGIN_DB:
            best.taps.setflags(write=False)
            return best
        half += 1


def _rejection(candidate: Filter) -> float:
    return candidate.rejection_db


def _measured(up: int, down: int, half: int, beta: float) -> Filter:
    ratio = max(up, down)
    taps = np.sinc(np.arange(-half, half + 1) / ratio) * np.kaiser(2 * half + 1, beta)
    for phase in range(up):  # every phase passes a constant unchanged: no image of it at all
        taps[phase::up] /= taps[phase::up].sum()
    scale = 2.0**_COEFFICIENT_BITS
    taps = np.rint(taps * scale) / scale
    gain = np.abs(np.fft.rfft(taps, _RESPONSE_POINTS)) / up
    points = _RESPONSE_POINTS / ratio  # for the lower rate; both edges lie within what is looked at
    passed = 20.0 * np.log10(gain[: math.ceil(PASS * points) + 1])
    rejection = -20.0 * math.log10(float(gain[math.floor(STOP * points) :].max()))
    return Filter(up, down, taps, rejection, float(np.ptp(passed)))


@dataclass(frozen=True, slots=True)
class _Kernel:
    """The filter as a matrix: a row of ``history + block_in`` input samples times it yields the outputs."""

    filter: Filter
    matrix: Floats
    history: int
    block_in: int
    block_out: int


@lru_cache(maxsize=32)
def _kernel(up: int, down: int) -> _Kernel:
    lowpass = design(up, down)
    count = len(lowpass.taps)
    periods = _BLOCK_SAMPLES // down if down > 1 else _BLOCK_SAMPLES_UP
    block_in, block_out = periods * down, periods * up
    history = (count - down) // up
    matrix = np.zeros((history + block_in, block_out))
    taps = np.arange(count)
    for output in range(block_out):
        # An output may use whatever arrived before it falls due, hence "down - 1": all the lead there is.
        position = output * down + down - 1 - taps
        used = position % up == 0
        matrix[position[used] // up + history, output] = lowpass.taps[used]
    matrix.setflags(write=False)
    return _Kernel(lowpass, matrix, history, block_in, block_out)


class _Plan:
    """The views on a resampler's workspace that a chunk needs, cut once for all chunks of its length."""

    __slots__ = ("carried", "history", "incoming", "integers", "outputs", "result", "rows", "tail", "windows")

    def __init__(self, work: _Workspace, carried: int, samples: int) -> None:
        kernel = work.kernel
        up, down, history = kernel.filter.up, kernel.filter.down, kernel.history
        total = carried + samples
        blocks = -(-total // kernel.block_in)
        done = total // down * down
        self.carried = total - done
        self.incoming = work.samples[history + carried : history + total]
        self.windows = work.windows[:blocks]
        self.rows = work.rows[:blocks]
        self.outputs = work.outputs[:blocks]
        self.integers = work.integers[:blocks]
        self.result = work.integers.reshape(-1)[carried * up // down : total * up // down]
        self.history = work.samples[: history + self.carried]
        self.tail = work.samples[done : done + history + self.carried]


class _Workspace:
    """The arrays of one resampler: history, carried and new samples in a row, and room for the product."""

    __slots__ = ("integers", "kernel", "outputs", "rows", "samples", "windows")

    def __init__(self, kernel: _Kernel, piece: int) -> None:
        blocks = -(-(piece + kernel.filter.down - 1) // kernel.block_in)
        width, block_out = kernel.matrix.shape
        self.kernel = kernel
        self.samples: Floats = np.zeros(kernel.history + blocks * kernel.block_in)
        step = self.samples.itemsize
        self.windows: Floats = as_strided(self.samples, (blocks, width), (kernel.block_in * step, step))
        self.rows: Floats = np.zeros((blocks, width))
        self.outputs: Floats = np.zeros((blocks, block_out))
        self.integers: NDArray[np.int16] = np.zeros((blocks, block_out), _INT16)


class Resampler:
    """Changes the rate of one stream, chunk by chunk; chunks may have any length, even split a sample in two.

    After N input samples exactly ``floor(N * target / source)`` samples have come out, delayed by
    ``delay_ms``, which never changes. The output's bytes depend on the input's alone, not on how it was
    cut. Equal rates pass through. Not for use from several threads at once.
    """

    def __init__(self, source: AudioFormat, target: AudioFormat) -> None:
        """Raises ValueError, naming both rates, unless both are among RATES."""
        if source.rate not in RATES or target.rate not in RATES:
            known = ", ".join(map(str, RATES))
            raise ValueError(
                f"cannot resample {source.rate} Hz to {target.rate} Hz: known rates are {known} Hz"
            )
        self._source = source
        self._target = target
        self._half = b""
        self._carried = 0
        self._dirty = False
        self._plans: dict[int, _Plan] = {}
        self._kernel: _Kernel | None = None
        self._piece_bytes = source.rate * _PIECE_MS // 1000 * SAMPLE_BYTES
        if source != target:
            common = math.gcd(source.rate, target.rate)
            self._kernel = _kernel(target.rate // common, source.rate // common)
            self._work = _Workspace(self._kernel, self._piece_bytes // SAMPLE_BYTES)
            self._matrix = self._kernel.matrix

    @property
    def source(self) -> AudioFormat:
        """What ``process`` takes."""
        return self._source

    @property
    def target(self) -> AudioFormat:
        """What ``process`` gives."""
        return self._target

    @property
    def filter(self) -> Filter | None:
        """The filter at work, None when the rates are equal."""
        return self._kernel.filter if self._kernel else None

    @property
    def delay_ms(self) -> float:
        """How far the output is behind the input, in ms, at every frequency; 0 when the rates are equal."""
        if self._kernel is None:
            return 0.0
        lowpass = self._kernel.filter
        centre = (len(lowpass.taps) - 1) / 2 - (lowpass.down - 1)
        return centre / (lowpass.up * self._source.rate) * 1000

    def process(self, pcm: bytes) -> bytes:
        """Resample the stream's next bytes. A half sample at the end waits for its other half."""
        if self._half or len(pcm) & 1:
            pcm = self._whole_samples(pcm)
        size = len(pcm)
        if self._kernel is None or not size:
            return pcm
        piece = self._piece_bytes
        if size <= piece:
            return self._convert(pcm)
        return b"".join([self._convert(pcm[at : at + piece]) for at in range(0, size, piece)])

    def flush(self) -> bytes:
        """End a turn: what the filter still holds, to the last echo of the last sample.

        The next turn begins in silence. Nothing comes when nothing went in. A half sample without its other
        half is lost.
        """
        tail = b""
        if self._kernel is not None and self._dirty:
            history, down = self._kernel.history, self._kernel.filter.down
            zeros = history + -(self._carried + history) % down
            tail = self._convert(bytes(zeros * SAMPLE_BYTES))
        self.reset()
        return tail

    def reset(self) -> None:
        """Forget everything, as on barge-in: the next sample follows silence."""
        self._half = b""
        self._carried = 0
        if self._dirty:
            self._work.samples[:] = 0.0
            self._dirty = False

    def _whole_samples(self, pcm: bytes) -> bytes:
        joined = self._half + pcm
        whole = len(joined) & ~1
        self._half = joined[whole:]
        return joined[:whole]

    def _plan(self, key: int, samples: int) -> _Plan:
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        plan = self._plans[key] = _Plan(self._work, self._carried, samples)
        return plan

    def _convert(self, pcm: bytes) -> bytes:
        # The hot path: nine calls into numpy and no array made but the input's view.
        samples = len(pcm) >> 1
        key = samples << 4 | self._carried  # fewer than 16 samples are ever carried
        plan = self._plans.get(key) or self._plan(key, samples)
        outputs = plan.outputs
        plan.incoming[:] = np.frombuffer(pcm, _INT16)
        plan.rows[:] = plan.windows
        np.dot(plan.rows, self._matrix, out=outputs)
        np.rint(outputs, out=outputs)
        np.minimum(outputs, _HIGHEST, out=outputs)
        np.maximum(outputs, _LOWEST, out=outputs)
        plan.integers[:] = outputs
        plan.history[:] = plan.tail
        self._carried = plan.carried
        self._dirty = True
        return plan.result.tobytes()
