from __future__ import annotations

import numpy as np
import pytest

from ari_gemini.errors import ConfigError
from ari_gemini.simulator import phrases as subject


@pytest.mark.parametrize("name", sorted(subject.phrases()))
def test_every_phrase_is_trimmed_speech_of_its_speakers_rate(name: str) -> None:
    one = subject.phrase(name)
    assert one.rate == {"model": 24_000, "caller": 8_000}[one.speaker]
    assert one.text[-1] in ".?!"
    samples = np.frombuffer(one.pcm, "<i2").astype(float)
    window = one.rate // 100
    levels = np.sqrt((samples[: len(samples) // window * window].reshape(-1, window) ** 2).mean(axis=1))
    loud = np.flatnonzero(levels > 32768 * 10 ** (-45 / 20))
    assert loud[0] <= 10
    assert loud[-1] >= len(levels) - 20
    assert 0.5 <= np.abs(samples).max() / 32768 <= 0.7


def test_the_recordings_stay_small() -> None:
    files = list(subject.SPEECH_DIR.glob("*.wav"))
    assert len(files) == len(subject.phrases())
    assert sum(path.stat().st_size for path in files) < 1_500_000


def test_there_is_a_long_story_to_interrupt() -> None:
    assert 10 < subject.phrase("long_story").seconds < 14


def test_phrases_join_with_a_pause() -> None:
    text, pcm = subject.join(["done", "goodbye"], pause_ms=100)
    assert text == "That is done. Thank you for calling. Goodbye!"
    done, goodbye = subject.phrase("done").pcm, subject.phrase("goodbye").pcm
    assert pcm == done + bytes(4800) + goodbye
    assert subject.join([]) == ("", b"")


def test_wrong_phrases_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="no recorded phrase 'sneeze'; there are: anything_else, ask_"):
        subject.phrase("sneeze")
    with pytest.raises(ConfigError, match="'ask_hours' is the caller's, at 8000 Hz"):
        subject.join(["ask_hours"])
