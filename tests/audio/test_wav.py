"""WAV files there and back, files that are none, and one-shot conversion."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.wav import convert, prompt_pcm, read_prompt, read_wav, write_wav


def pcm(*values: int) -> bytes:
    return np.array(values, "<i2").tobytes()


def sine(rate: int, hertz: float, seconds: float, peak: float = 20000) -> bytes:
    return (
        np.rint(peak * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate))
        .astype("<i2")
        .tobytes()
    )


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100])
def test_mono_there_and_back(tmp_path: Path, rate: int) -> None:
    path, sound = tmp_path / "a.wav", sine(rate, 440, 0.1)
    write_wav(path, AudioFormat(rate), sound)
    wav = read_wav(path)
    assert wav.format == AudioFormat(rate)
    assert wav.channels == (sound,)
    assert wav.mono == sound
    assert wav.duration_ms == pytest.approx(100)


def test_stereo_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, AudioFormat(8000), pcm(1, 2, 3), pcm(-4, -5, -6))
    assert read_wav(path).channels == (pcm(1, 2, 3), pcm(-4, -5, -6))


def test_the_shorter_channel_is_filled_up(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, AudioFormat(8000), pcm(1), pcm(4, 5, 6))
    assert read_wav(path).channels == (pcm(1, 0, 0), pcm(4, 5, 6))


def test_mono_of_stereo_is_the_mean_without_overflow(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, AudioFormat(8000), pcm(32767, -32768, 100), pcm(32767, -32768, -49))
    assert read_wav(str(path)).mono == pcm(32767, -32768, 26)


def test_no_sound_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, AudioFormat(8000), b"", b"")
    wav = read_wav(path)
    assert (wav.channels, wav.mono, wav.duration_ms) == ((b"", b""), b"", 0)


def test_what_others_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, AudioFormat(24000), pcm(1, 2), pcm(3, 4))
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 24000)
        assert file.readframes(9) == pcm(1, 3, 2, 4)


@pytest.mark.parametrize("channels", [(), (b"ab", b"cd", b"ef"), (b"abc",), (b"ab", b"c")])
def test_what_is_no_pcm_is_not_written(tmp_path: Path, channels: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="one or two channels"):
        write_wav(tmp_path / "a.wav", AudioFormat(8000), *channels)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b"RIFF", b"RIFF\x04\0\0\0WAVE", b"ID3\x04 not a wave file at all" * 4]
)
def test_a_file_that_is_no_wav_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.wav: not a PCM WAV file \(.+\)"):
        read_wav(path)


@pytest.mark.parametrize(("width", "count"), [(1, 1), (3, 1), (2, 3)])
def test_other_widths_and_channel_counts_are_refused(tmp_path: Path, width: int, count: int) -> None:
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(count)
        file.setsampwidth(width)
        file.setframerate(8000)
        file.writeframes(bytes(width * count * 10))
    with pytest.raises(ValueError, match=f"{8 * width}-bit, {count} channels, 8000 Hz"):
        read_wav(path)


def test_a_file_cut_short_gives_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, AudioFormat(8000), pcm(1, 2, 3), pcm(4, 5, 6))
    path.write_bytes(path.read_bytes()[:-3])
    assert read_wav(path).channels == (pcm(1, 2), pcm(4, 5))


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_wav(tmp_path / "a.wav")


@pytest.mark.parametrize(("source", "target"), [(24000, 8000), (8000, 16000), (44100, 8000), (8000, 44100)])
def test_convert_keeps_a_tone_and_its_place(source: int, target: int) -> None:
    out = np.frombuffer(
        convert(sine(source, 1000, 0.5), AudioFormat(source), AudioFormat(target)), "<i2"
    ).astype(float)
    wanted = np.frombuffer(sine(target, 1000, 0.5), "<i2").astype(float)
    assert abs(len(out) - len(wanted)) <= 1
    middle = slice(target // 20, target // 20 * 9)
    assert np.abs(out[middle] - wanted[middle]).max() <= 4  # of 20000: 74 dB


def test_convert_saturates() -> None:
    square = np.where(np.arange(2400) // 40 % 2, 32767, -32768).astype("<i2")
    out = np.frombuffer(convert(square.tobytes(), AudioFormat(24000), AudioFormat(48000)), "<i2")
    assert (out.max(), out.min()) == (32767, -32768)
    assert np.mean(np.sign(out[::2][:2400]) == np.sign(square)) > 0.97


def test_convert_of_nothing_or_to_the_same_rate_is_no_work() -> None:
    sound = pcm(1, 2, 3)
    assert convert(sound, AudioFormat(8000), AudioFormat(8000)) is sound
    assert convert(b"", AudioFormat(8000), AudioFormat(16000)) == b""


def test_convert_refuses_half_samples() -> None:
    with pytest.raises(ValueError, match="multiple"):
        convert(b"abc", AudioFormat(8000), AudioFormat(16000))


def test_a_prompt_is_the_mean_of_its_channels_at_the_rate_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    left, right = sine(44100, 1000, 0.5), sine(44100, 1000, 0.5, peak=10000)
    write_wav(path, AudioFormat(44100), left, right)
    assert prompt_pcm(path, 44100) == read_wav(path).mono
    assert prompt_pcm(path, 8000) == convert(read_wav(path).mono, AudioFormat(44100), AudioFormat(8000))


def test_a_prompt_is_read_once_and_stays_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, AudioFormat(8000), pcm(1, 2, 3, 4))
    assert read_prompt(path).channels == (pcm(1, 2, 3, 4),)
    path.unlink()
    assert prompt_pcm(path, 8000) == pcm(1, 2, 3, 4)
    assert prompt_pcm(path, 8000) is prompt_pcm(path, 8000)
    assert len(prompt_pcm(path, 16000)) == 2 * len(prompt_pcm(path, 8000)), "at another rate, too"


def test_a_prompt_that_is_none_is_looked_at_again(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with pytest.raises(FileNotFoundError):
        prompt_pcm(path, 8000)
    path.write_bytes(b"RIFF")
    with pytest.raises(ValueError, match="not a PCM WAV file"):
        prompt_pcm(path, 8000)
    write_wav(path, AudioFormat(8000), pcm(7))
    assert prompt_pcm(path, 8000) == pcm(7)
