"""The provider seam: what every realtime model session offers and what it must be told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.realtime.events import Event, Speaker
from ari_gemini.realtime.functions import FunctionDeclaration, FunctionResult

Sensitivity = Literal["low", "high"]
TurnCoverage = Literal["only_activity", "all_input", "audio_activity_and_all_video"]


class ActivityDetection(BaseModel):
    """When the provider believes that the caller begins and ends to speak. None: the provider's default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start_sensitivity: Sensitivity | None = None
    end_sensitivity: Sensitivity | None = None
    prefix_padding_ms: int | None = Field(default=None, ge=0, le=10_000)
    """Speech that must be heard before its start is believed, ms."""
    silence_duration_ms: int | None = Field(default=None, ge=0, le=60_000)
    """Silence that must be heard before the end of speech is believed, ms."""
    interruptions: bool = True
    """False: the caller cannot interrupt the model."""
    turn_coverage: TurnCoverage | None = None


class ContextCompression(BaseModel):
    """Sliding-window compression of the model's context, in tokens; None leaves the provider's default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trigger_tokens: int | None = Field(default=None, gt=0)
    target_tokens: int | None = Field(default=None, gt=0)


class SessionSettings(BaseModel):
    """One conversation, in no vendor's words. Templates are already filled in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    voice: str | None = None
    language: str | None = None
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    instructions: str = ""
    activity_detection: ActivityDetection = ActivityDetection()
    transcribe_caller: bool = True
    transcribe_model: bool = True
    resumption: bool = True
    context_compression: ContextCompression | None = ContextCompression()
    thinking: str | None = None
    """Thinking level or budget, where the model takes one; refused at start where it does not."""
    tools: tuple[FunctionDeclaration, ...] = ()
    """What the model may call."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What differs between providers and models, as data."""

    input_format: AudioFormat
    output_format: AudioFormat
    resumption: bool = False
    truncation: bool = False
    """The provider wants to be told how much of an interrupted turn was heard."""
    audio_during_tools: bool = True
    """Audio may be sent while a tool call is open."""


@dataclass(frozen=True, slots=True)
class Resume:
    """What a later session goes on from. Opaque to the call, which keeps it and hands it back."""

    handle: str
    credential: SecretStr | None = None
    """With what the session was opened, where it was made for this one conversation."""
    patience: float = 0.0
    """Seconds of silence that the connection shall bear at least: learned from the former one."""

    def __repr__(self) -> str:
        return "Resume(...)"  # whoever holds a handle may listen to the conversation


@dataclass(frozen=True, slots=True)
class HistoryTurn:
    """What was said, for a session that knows nothing of it."""

    speaker: Speaker
    text: str
    note: bool = False
    """Nobody said it: it tells in brackets what happened then."""


class RealtimeSession(Protocol):
    """One conversation with a model, already set up.

    ``receive`` and the senders may run in different tasks; each sender by one task at a time.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def resume(self) -> Resume | None:
        """What a later session resumes this one with, the newest there is; also after the end."""

    @property
    def resumed(self) -> bool:
        """It goes on from a former session: what was said there is known, open calls take their answers."""

    @property
    def sent(self) -> int:
        """Messages given to the connection so far, the setup included."""

    @property
    def confirmed(self) -> int:
        """So many of these, the first ones, are known to have reached the provider; also after the end."""

    async def send_audio(self, pcm: bytes) -> None:
        """Send caller audio in ``capabilities.input_format``.

        Cancelling may leave a frame unsent, never half sent. Raises SessionError when the session is over.
        """

    async def send_text(self, text: str) -> None:
        """Send text as user input. Raises SessionError when the session is over."""

    async def greet(self, instruction: str) -> None:
        """Make the model speak first, told how by ``instruction``.

        Raises SessionError when the session is over.
        """

    async def send_tool_results(self, results: Sequence[FunctionResult]) -> None:
        """Answer function calls. Ids of cancelled calls must not be among them.

        Raises SessionError when the session is over; the calls are open still, and a session that resumes
        this one takes the answers.
        """

    async def receive(self) -> Sequence[Event]:
        """Wait for the next server message and return its events, possibly none.

        Cancelling loses nothing. Raises SessionError (with its retry) when the session is over.
        """

    async def close(self) -> None:
        """End the session. Idempotent; never raises; bounded in time."""


class OpenSession(Protocol):
    """How a session is had."""

    async def __call__(
        self,
        settings: SessionSettings,
        *,
        resume: Resume | None = None,
        history: Sequence[HistoryTurn] = (),
        before_setup: Callable[[], Awaitable[Resume | None]] | None = None,
    ) -> RealtimeSession:
        """Connect and set up a session: one that goes on from ``resume``, or else a new one that knows
        ``history``, oldest first, and says nothing about it by itself.

        ``before_setup`` is awaited once the connection stands: the place to end the session that is resumed.
        It returns what to go on from instead of ``resume``, for a newer handle may have come until that end.
        Raises SessionError; cancelling closes what was opened.
        """
