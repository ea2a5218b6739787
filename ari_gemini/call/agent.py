"""Agents: who answers. Settings of ``[agents.NAME]`` and the filling-in of what is known about the caller."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from ari_gemini.realtime.session import ActivityDetection, ContextCompression, SessionSettings

CALLER_FIELDS = ("caller_number", "caller_name", "called_number")
"""Placeholders every agent may use."""

MAX_VALUE_CHARS = 256
"""A stranger chooses his caller name: what is filled in is one line of at most this many characters."""

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}|\{([A-Za-z_]\w*)\}")

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

    def session_settings(self, values: Mapping[str, str]) -> SessionSettings:
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
        )
