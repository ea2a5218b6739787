"""Functions a realtime model may call: how they are declared to it and answered, in no vendor's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Scheduling = Literal["silent", "when_idle", "interrupt"]
"""When the model takes note of a result: never aloud, when it has finished speaking, or at once."""


@dataclass(frozen=True, slots=True)
class FunctionDeclaration:
    """A function offered to the model. ``parameters`` is JSON Schema of an object, or None for no parameters.

    ``blocking`` says whether the model waits for the result before it goes on. None: it does not, where the
    model leaves a choice; True or False is refused at the start by a model that cannot.
    """

    name: str
    description: str
    parameters: Mapping[str, Any] | None = None
    blocking: bool | None = None


@dataclass(frozen=True, slots=True)
class FunctionResult:
    """The answer to one FunctionCall: its ``id`` and ``name``, and what the function gave back.

    ``response`` is a JSON object; by convention ``{"result": ...}`` or ``{"error": ...}``. ``scheduling`` is
    left out where the model does not know it.
    """

    id: str
    name: str
    response: Mapping[str, Any]
    scheduling: Scheduling | None = None
