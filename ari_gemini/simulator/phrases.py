"""The recorded speech that ships with the package: short sentences with their exact words.

``speech/index.toml`` lists them; the sound is read once, on first use, and kept (about 1.5 MB in all).
"""

from __future__ import annotations

import tomllib
import wave
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from ari_gemini.audio.pcm import SAMPLE_BYTES
from ari_gemini.errors import ConfigError

SPEECH_DIR = Path(__file__).parent / "speech"

MODEL_RATE = 24_000
"""Hz. The Live API's output rate, which has no setting (Gemini API: Live API capabilities guide)."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """One recorded sentence. ``pcm`` is signed 16-bit little-endian mono at ``rate`` Hz."""

    name: str
    speaker: Literal["model", "caller"]
    text: str
    rate: int
    pcm: bytes

    @property
    def seconds(self) -> float:
        """How long the sentence lasts, s."""
        return len(self.pcm) / SAMPLE_BYTES / self.rate


@cache
def phrases() -> dict[str, Phrase]:
    """Every phrase by name. Raises ConfigError when the shipped files do not fit each other."""
    index = tomllib.loads((SPEECH_DIR / "index.toml").read_text(encoding="utf-8"))
    return {entry["name"]: _load(entry) for entry in index["phrases"]}


def phrase(name: str) -> Phrase:
    """The phrase of that name. Raises ConfigError, naming those there are, when there is none."""
    try:
        return phrases()[name]
    except KeyError:
        known = ", ".join(sorted(phrases()))
        raise ConfigError(f"no recorded phrase {name!r}; there are: {known}") from None


def join(names: Iterable[str], pause_ms: int = 150) -> tuple[str, bytes]:
    """Text and 24 kHz PCM of several model phrases spoken one after another, ``pause_ms`` apart.

    Raises ConfigError for an unknown phrase or one of the caller's, which has another rate.
    """
    chosen = [phrase(name) for name in names]
    for one in chosen:
        if one.rate != MODEL_RATE:
            raise ConfigError(f"phrase {one.name!r} is the {one.speaker}'s, at {one.rate} Hz")
    silence = bytes(MODEL_RATE * pause_ms // 1000 * SAMPLE_BYTES)
    return " ".join(one.text for one in chosen), silence.join(one.pcm for one in chosen)


def _load(entry: dict[str, str]) -> Phrase:
    path = SPEECH_DIR / entry["file"]
    with wave.open(str(path), "rb") as recording:
        if recording.getnchannels() != 1 or recording.getsampwidth() != SAMPLE_BYTES:
            raise ConfigError(f"{path.name}: not 16-bit mono")
        rate = recording.getframerate()
        pcm = recording.readframes(recording.getnframes())
    speaker: Literal["model", "caller"] = "model" if entry["speaker"] == "model" else "caller"
    if speaker == "model" and rate != MODEL_RATE:
        raise ConfigError(f"{path.name}: the model speaks at {MODEL_RATE} Hz, not {rate}")
    return Phrase(entry["name"], speaker, entry["text"], rate, pcm)
