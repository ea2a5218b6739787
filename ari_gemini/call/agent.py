"""Agents: who answers. Settings of ``[agents.NAME]`` and the filling-in of what is known about the caller."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    StringConstraints,
    field_validator,
    model_validator,
)

from ari_gemini.audio.wav import read_prompt
from ari_gemini.call.caller_watch import CallerLimits
from ari_gemini.call.digits import DigitSettings
from ari_gemini.call.model_watch import StallSettings
from ari_gemini.realtime.functions import FunctionDeclaration
from ari_gemini.realtime.session import ActivityDetection, ContextCompression, SessionSettings
from ari_gemini.tools.destination import Destination

CALLER_FIELDS = ("caller_number", "caller_name", "called_number")
"""Placeholders every agent may use."""

MAX_VALUE_CHARS = 256
"""A stranger chooses his caller name: what is filled in is one line of at most this many characters."""

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}|\{([A-Za-z_]\w*)\}")

MAX_PROMPT_MS = 10_000.0
"""A prompt that covers a pause is one sentence; longer is a wrong file."""

APOLOGY = Path(__file__).with_name("apology.wav")
"""\"I am sorry, I have lost my connection. Please hold the line.\" (espeak-ng, 24 kHz)"""

DestinationName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]*$", max_length=64)]
"""What the model calls a destination: words, for it chooses by them."""
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=80)]


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replace each ``{name}`` by its value; ``{{name}}`` stands for a literal ``{name}``.

    Unknown names stay as they are; a value is never looked into for further names.
    """

    def one(match: re.Match[str]) -> str:
        literal, name = match.groups()
        if literal is not None:
            return f"{{{literal}}}"
        return clean(values[name]) if name in values else match.group(0)

    return _PLACEHOLDER.sub(one, template)


def clean(value: str) -> str:
    """One printable line of bounded length: control characters become spaces."""
    return "".join(c if c.isprintable() else " " for c in value[:MAX_VALUE_CHARS]).strip()


class Agent(BaseModel):
    """One ``[agents.NAME]`` table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    voice: str | None = None
    language: str | None = None
    instructions: str = "You are a helpful assistant."
    greeting: str = ""
    """An instruction to the model to speak first; empty: the caller speaks first."""
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    thinking: str | None = None
    variables: tuple[VariableName, ...] = ()
    """Channel variables read at the start and usable as ``{NAME}``."""
    activity_detection: ActivityDetection = ActivityDetection()
    transcribe_caller: bool = True
    transcribe_model: bool = True
    context_compression: ContextCompression | None = ContextCompression()
    tools: tuple[str, ...] = ()
    """Names of the tools this agent may use; no other one exists for it."""
    transfer: dict[DestinationName, Destination] = Field(default_factory=dict)
    """Where ``transfer_call`` may send a caller, by the name that the model uses."""
    digits: DigitSettings = DigitSettings()
    filler: Literal["tone", "none"] | FilePath = "tone"
    """What the caller hears while a tool works: a soft tone, nothing, or first this WAV file, once."""
    filler_after: float = Field(default=1.5, ge=0.2, le=60)
    """Seconds of silence, a tool being at work, until he hears it."""
    limits: CallerLimits = CallerLimits()
    stall: StallSettings = StallSettings()

    apology: Literal["spoken", "none"] | FilePath = "spoken"
    """What the caller hears when the model is lost for good, before he goes on in the dialplan: an English
    sentence, nothing, or this WAV file."""

    @field_validator("filler", "apology")
    @classmethod
    def _is_a_prompt(cls, prompt: str | FilePath) -> str | FilePath:
        if not isinstance(prompt, str):
            try:
                length = read_prompt(prompt).duration_ms
            except OSError as error:
                raise ValueError(f"{prompt}: {error.strerror}") from None
            if length > MAX_PROMPT_MS:
                raise ValueError(f"{prompt}: longer than {MAX_PROMPT_MS / 1000:g} s")
        return prompt

    @property
    def apology_prompt(self) -> Path | None:
        """The file with it; None when there is none to be heard."""
        if self.apology == "none":
            return None
        return APOLOGY if self.apology == "spoken" else Path(self.apology)

    @model_validator(mode="after")
    def _tools_fit(self) -> Self:
        if len(set(self.tools)) != len(self.tools):
            raise ValueError("tools: a name stands there twice")
        if "transfer_call" in self.tools and not self.transfer:
            raise ValueError("tools: transfer_call needs destinations, in a table transfer")
        return self

    @model_validator(mode="after")
    def _placeholders_are_known(self) -> Self:
        known = {*CALLER_FIELDS, *self.variables}
        for key in ("instructions", "greeting"):
            for match in _PLACEHOLDER.finditer(getattr(self, key)):
                name = match.group(2)
                if name is not None and name not in known:
                    raise ValueError(
                        f"{key}: {{{name}}} is neither {', '.join(CALLER_FIELDS)} nor listed in variables "
                        f"(write {{{{{name}}}}} for the plain text)"
                    )
        return self

    def session_settings(
        self, values: Mapping[str, str], tools: Sequence[FunctionDeclaration] = ()
    ) -> SessionSettings:
        """What the model is told for one caller; ``values`` maps placeholder names to what is known."""
        return SessionSettings(
            voice=self.voice,
            language=self.language,
            temperature=self.temperature,
            instructions=fill(self.instructions, values),
            activity_detection=self.activity_detection,
            transcribe_caller=self.transcribe_caller,
            transcribe_model=self.transcribe_model,
            context_compression=self.context_compression,
            thinking=self.thinking,
            tools=tuple(tools),
        )
