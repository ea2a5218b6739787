"""What a realtime model tells the call, in no vendor's words.

One server message may carry several events; a session hands them over in the order in which they must be
acted on (audio before the end of its turn, an interruption before anything that follows it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Speaker(Enum):
    """Whose words a transcript holds."""

    CALLER = "caller"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class AudioDelta:
    """Model speech: signed 16-bit little-endian mono at ``rate`` Hz, any length down to one sample."""

    pcm: bytes
    rate: int


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The model stopped because the caller spoke: whatever is unplayed must go now."""


@dataclass(frozen=True, slots=True)
class GenerationComplete:
    """The model has said all of this turn; its playout may still go on."""


@dataclass(frozen=True, slots=True)
class TurnComplete:
    """The turn is over. ``reason`` is the provider's own word when it gives one."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """Words of one speaker. Increments are concatenated; ``replaces`` marks a cumulative interim text."""

    speaker: Speaker
    text: str
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The provider's own detector heard the caller begin. ``offset_ms`` counts the audio it has received."""

    offset_ms: float | None = None


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The provider's own detector heard the caller end."""

    offset_ms: float | None = None


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """One call the model wants made. ``id`` is opaque and must come back with the result."""

    id: str
    name: str
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Calls to be made side by side."""

    calls: tuple[FunctionCall, ...]


@dataclass(frozen=True, slots=True)
class ToolCallCancelled:
    """These calls' results are no longer wanted."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GoAway:
    """The provider will close this connection in ``time_left`` seconds."""

    time_left: float


@dataclass(frozen=True, slots=True)
class HandleUpdate:
    """A new resumption handle, or (``resumable`` false) word that there is none just now."""

    handle: str | None
    resumable: bool


@dataclass(frozen=True, slots=True)
class WaitingForInput:
    """The model keeps silent on purpose."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the turn, as the provider counts them."""

    prompt: int = 0
    response: int = 0
    total: int = 0


Event = (
    AudioDelta
    | Interrupted
    | GenerationComplete
    | TurnComplete
    | Transcript
    | SpeechStarted
    | SpeechStopped
    | ToolCall
    | ToolCallCancelled
    | GoAway
    | HandleUpdate
    | WaitingForInput
    | Usage
)
