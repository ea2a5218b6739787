"""How a call hangs on Asterisk: what ways A and B have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ari_gemini.ari.channel import Channel
from ari_gemini.audiosocket.connection import Connection, EndReason, MediaEnd
from ari_gemini.errors import CallEnded
from ari_gemini.tools.destination import Destination

DEFAULT_AGENT = "default"
"""Who answers when the dialplan names nobody."""

MEDIA_FAULTS = frozenset({EndReason.ERROR, EndReason.PROTOCOL, EndReason.FLOOD, EndReason.DEFECT})
"""Endings of the media connection that are nobody's hanging up."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls whom, and which agent answers. Unknown is empty."""

    agent: str
    caller_number: str = ""
    caller_name: str = ""
    called_number: str = ""


class Consultation(Protocol):
    """Another party that is asked whether it takes the caller. Used by one task, in the order of the methods.

    Every method but ``left`` and ``abandon`` may raise AriError or ToolError; AriNotFound and AriConflict
    mean that the caller is gone.
    """

    async def ring(self) -> None:
        """Call the party; return when it has answered.

        Raises ToolError, for the model to read, when it does not. Cancelling hangs up on it.
        """

    async def introduce(self) -> None:
        """Let the party hear the model in the caller's place, who hears a ringing tone meanwhile."""

    async def left(self) -> None:
        """Return when the party has hung up. Cancelling changes nothing."""

    async def join(self) -> None:
        """Let caller and party hear each other, and the model no longer.

        From here on they stay joined however the call ends. When one of them leaves, the other is hung up and
        everything cleaned up. Cancelled, it may still come to pass: ``abandon`` knows.
        """

    async def abandon(self) -> None:
        """Hang up on the party and bring the caller back to the model.

        Idempotent; never raises; does nothing after ``join``. Cancelling ends the waiting alone.
        """


class Leg(Protocol):
    """How a call hangs on Asterisk. Ways A and B differ here and nowhere else.

    ``identify`` and ``open_media`` run side by side. Every method but ``release`` and ``media_ended`` may
    raise AriError or CallEnded; AriNotFound and AriConflict mean that the caller is gone. Cancelling one
    leaves nothing that ``release`` does not clean up.
    """

    @property
    def id(self) -> str: ...

    @property
    def adopted(self) -> bool:
        """The caller was found, not announced: another worker, or an earlier life, may have served him."""

    async def identify(self) -> Identity:
        """Who is calling."""

    async def variables(self, names: Sequence[str]) -> Mapping[str, str]:
        """Channel variables that are set, of those asked for. Comes after ``identify``."""

    async def open_media(self) -> Connection:
        """Bring up the AudioSocket connection; return as soon as it stands: silence must flow from then."""

    async def settle_media(self) -> None:
        """Wait until the media can be bridged; bridge it now where the caller is answered already."""

    async def join(self) -> None:
        """The model is there: answer, and let caller and media hear each other."""

    async def send_digits(self, digits: str) -> bool:
        """Have Asterisk send these keys to the caller's phone as his channel's technology does it.

        ``0-9 * # A-D``, a ``w`` being half a second's pause. Returns True when they have been played, False
        when that cannot be done here: nothing was sent. While one sounds the caller hears nothing else.
        Cancelling ends it within a few keys.
        """

    async def place_exists(self, destination: Destination) -> bool:
        """Whether the dialplan has that place. True when Asterisk does not say."""

    def go_on_at(self, destination: Destination) -> None:
        """Where ``release`` sends the caller when the call ends as TRANSFERRED.

        Raises ToolError where the dialplan keeps control of the channel.
        """

    def consult(self, destination: Destination) -> Consultation:
        """Begin to ask another party, when the one before has been abandoned.

        Raises ToolError otherwise, and where the dialplan keeps control of the channel.
        """

    async def release(self, ended: CallEnded) -> None:
        """Undo everything. Bounded in time; never raises.

        A caller joined with the party of a Consultation is left to it. Else MODEL_HANGUP hangs up on him,
        TRANSFERRED sends him where ``go_on_at`` said, and after any other cause he is sent on where that
        makes sense.
        """

    def media_ended(self, end: MediaEnd) -> CallEnded:
        """What the end of the AudioSocket connection means for the call."""


async def read_variables(channel: Channel, names: Sequence[str]) -> dict[str, str]:
    """Read the channel variables side by side; those that are not set are left out.

    Raises the first error that comes. However it ends, no request of its own goes on.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            reading = {name: tasks.create_task(channel.get_variable(name)) for name in names}
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    values = {name: task.result() for name, task in reading.items()}
    return {name: value for name, value in values.items() if value is not None}
