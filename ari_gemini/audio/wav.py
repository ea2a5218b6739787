"""WAV files and one-shot conversion of rates: for prompts, recordings and tests, where nothing waits."""

from __future__ import annotations

import os
import wave
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from ari_gemini.audio.pcm import SAMPLE_BYTES, AudioFormat

_INT16 = np.dtype("<i2")


@dataclass(frozen=True, slots=True)
class Wav:
    """The sound of a file: one ``AudioFormat`` stream for each channel, all of one length."""

    format: AudioFormat
    channels: tuple[bytes, ...]

    @property
    def mono(self) -> bytes:
        """The only channel, or the mean of both."""
        if len(self.channels) == 1:
            return self.channels[0]
        left, right = (np.frombuffer(channel, _INT16).astype(np.float64) for channel in self.channels)
        return _to_pcm((left + right) / 2)

    @property
    def duration_ms(self) -> float:
        """Length in milliseconds."""
        return self.format.duration_ms(len(self.channels[0]))


def read_wav(path: str | os.PathLike[str]) -> Wav:
    """Read a WAV file of 16-bit PCM with one or two channels at any rate.

    Raises ValueError, naming the file, when it is not that; OSError when it cannot be read.
    """
    try:
        with wave.open(os.fspath(path), "rb") as file:
            width, count, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            pcm = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path}: not a PCM WAV file ({str(error) or 'it ends too early'})") from error
    if width != SAMPLE_BYTES or count not in (1, 2) or rate <= 0:
        raise ValueError(
            f"{path}: {8 * width}-bit, {count} channels, {rate} Hz; wanted is 16-bit mono or stereo"
        )
    whole = (
        len(pcm) // (count * SAMPLE_BYTES) * count * SAMPLE_BYTES
    )  # a file cut short may end within a sample
    samples = np.frombuffer(pcm[:whole], _INT16).reshape(-1, count)
    return Wav(AudioFormat(rate), tuple(samples[:, channel].tobytes() for channel in range(count)))


def write_wav(path: str | os.PathLike[str], fmt: AudioFormat, *channels: bytes) -> None:
    """Write one channel (mono) or two (left, right); the shorter of two is filled up with silence.

    Raises ValueError for another number of channels or half samples; OSError when it cannot be written.
    """
    if len(channels) not in (1, 2) or any(len(channel) % SAMPLE_BYTES for channel in channels):
        raise ValueError("a WAV file takes one or two channels of whole 16-bit samples")
    length = max(map(len, channels)) // SAMPLE_BYTES
    samples = np.zeros((length, len(channels)), _INT16)
    for number, channel in enumerate(channels):
        samples[: len(channel) // SAMPLE_BYTES, number] = np.frombuffer(channel, _INT16)
    with wave.open(os.fspath(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(SAMPLE_BYTES)
        file.setframerate(fmt.rate)
        file.writeframes(samples.tobytes())


def convert(pcm: bytes, source: AudioFormat, target: AudioFormat) -> bytes:
    """Resample a whole recording at once, any rate to any rate, with nothing delayed. Never in the live path.

    Raises ValueError when ``pcm`` ends within a sample.
    """
    samples = np.frombuffer(pcm, _INT16)
    if source == target or not len(samples):
        return pcm
    return _to_pcm(soxr.resample(samples.astype(np.float64), source.rate, target.rate, quality="HQ"))


_PROMPTS = 64
"""A prompt is played in many calls; agents and rates are few."""


@lru_cache(maxsize=_PROMPTS)
def read_prompt(path: str | Path) -> Wav:
    """As ``read_wav``, once: the sound stays what it was, whatever becomes of the file."""
    return read_wav(path)


@lru_cache(maxsize=_PROMPTS)
def prompt_pcm(path: str | Path, rate: int) -> bytes:
    """The sound of a WAV file at ``rate`` Hz. Raises as ``read_prompt``."""
    sound = read_prompt(path)
    return convert(sound.mono, sound.format, AudioFormat(rate))


def _to_pcm(samples: NDArray[np.float64]) -> bytes:
    return np.clip(np.rint(samples), -32768, 32767).astype(_INT16).tobytes()
