"""What a tool is, and what it may ask of the call it serves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from structlog.typing import FilteringBoundLogger

from ari_gemini.realtime.functions import FunctionDeclaration, Scheduling
from ari_gemini.tools.destination import Destination

FAREWELL_LIMIT = 30.0
"""Seconds ``CallControl.farewell`` waits at most: longer than anyone says goodbye."""


class CallControl(Protocol):
    """What a call lets its tools do. All but ``hang_up`` may raise ToolError, for the model to read."""

    @property
    def id(self) -> str:
        """The call's id, as in the logs."""

    @property
    def caller_number(self) -> str:
        """Who calls; empty when it is not known."""

    @property
    def called_number(self) -> str:
        """What he dialled; empty when it is not known."""

    async def farewell(self) -> None:
        """Wait until the caller has heard everything that the model had to say.

        Raises ToolError when he begins to speak meanwhile. Cancelling just ends the waiting.
        """

    def hang_up(self) -> None:
        """End the call."""

    async def send_digits(self, digits: str) -> None:
        """Let the caller's side hear these keys, ``0-9 * # A-D``, a ``w`` being half a second's pause.

        Returns when they have been played; the model's speech waits meanwhile. Cancelling ends what is under
        way as soon as it can be ended.
        """

    async def transfer(self, destination: Destination) -> None:
        """Send the caller on in the dialplan; the call ends with it."""

    async def consult(self, destination: Destination) -> None:
        """Ring another party; return when it has answered and hears the model instead of the caller.

        What the model says next is for that party; then both are joined and the call ends. Cancelling hangs
        up on the other party and brings the caller back.
        """


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What one use of a tool gets to know and to touch."""

    call: CallControl
    log: FilteringBoundLogger
    """Names the call and the tool already. What is logged must hold nothing that a caller said."""


class Tool(ABC):
    """One thing a model may do. An object serves every call of its agent, several at once."""

    declaration: FunctionDeclaration
    goes_to: str
    """Where it leads, in a few words for ``ari-gemini check``."""
    time_limit: float | None = None
    """Seconds one use may take; None: the toolbox's own limit."""
    undoable: bool = True
    """False: what it has begun may stay done when the model takes the call back; the log says so."""
    scheduling: Scheduling | None = None
    """When the model takes note of the result; None: as it pleases."""

    @property
    def name(self) -> str:
        """What the model calls it."""
        return self.declaration.name

    @abstractmethod
    async def run(self, args: Mapping[str, Any], context: ToolContext) -> Any:
        """Do it. ``args`` fit the declared schema. Returns JSON: what the model gets as ``result``.

        Raises ToolError with words for the model. Any other exception is a defect, logged, of which the
        model learns no more than that the tool failed. Cancelled when the model takes the call back, when the
        time is over, or when the call ends.
        """
