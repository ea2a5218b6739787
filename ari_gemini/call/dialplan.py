"""Way B: the ``AudioSocket()`` dialplan application. The connection comes first and names its channel."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import structlog

from ari_gemini.ari.channel import Channel, find_audiosocket_channel
from ari_gemini.ari.client import AriClient
from ari_gemini.ari.events import ChannelInfo
from ari_gemini.audiosocket.connection import Connection, MediaEnd
from ari_gemini.call.leg import DEFAULT_AGENT, MEDIA_FAULTS, Consultation, Identity, read_variables
from ari_gemini.errors import AriConflict, AriError, AriNotFound, CallEnded, Cause, ToolError
from ari_gemini.tools.destination import Destination

log = structlog.get_logger(__name__)

AGENT_VARIABLE = "ARI_GEMINI_AGENT"
"""Channel variable that names the agent; the dialplan sets it before ``AudioSocket()``."""

CALLER_HUNG_UP = 0x01
"""AudioSocket error code "hangup of the calling party" (AudioSocket's specification; Asterisk 22.10.1
itself only closes the connection)."""

NOT_OURS = "this call cannot be transferred: the dialplan keeps control of it"

LOOKUP_PAUSES = (0.05, 0.15, 0.3)
"""Asterisk publishes which application a channel is in beside running it: who asks at once may ask too early.
Seconds between one look and the next."""


class SharedListing:
    """Asterisk's channels for everybody who asks at the same moment: however many come, one request runs."""

    def __init__(self, client: AriClient) -> None:
        self._client = client
        self._running: asyncio.Task[list[ChannelInfo]] | None = None
        self._next: asyncio.Task[list[ChannelInfo]] | None = None

    async def channels(self) -> list[ChannelInfo]:
        """The channels there were at some moment after this was called. Raises AriError.

        Cancelling ends the waiting alone.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._running), name="channels")
            self._next.add_done_callback(_heard)
        return await asyncio.shield(self._next)

    async def _after(self, earlier: asyncio.Task[list[ChannelInfo]] | None) -> list[ChannelInfo]:
        if earlier is not None:
            await asyncio.wait([earlier])
        self._running, self._next = self._next, None
        return await self._client.channels()


def _heard(task: asyncio.Task[Any]) -> None:
    """Everybody who asked may have gone: then nobody is told of a failure."""
    if not task.cancelled():
        task.exception()


class DialplanLeg:
    """One caller in ``AudioSocket()``. Without an ARI client nothing is known of him but his UUID."""

    def __init__(
        self,
        connection: Connection,
        client: AriClient | None,
        *,
        verify: bool,
        listing: SharedListing | None = None,
    ) -> None:
        self.id = str(connection.uuid)
        self.connection = self._connection = connection
        self.adopted = False
        self._client = client
        self._verify = verify
        self._listing = listing or client
        self._channel: Channel | None = None
        self._found: Identity | CallEnded | None = None

    async def look_up(self, patience: float) -> CallEnded | None:
        """Find out whether this connection is a call's. None: it is; else how that ends, ``patience`` s later
        at most.

        What is found out here is what ``identify`` then says, without asking again.
        """
        try:
            async with asyncio.timeout(patience):
                self._found = await self._identify()
                return None
        except TimeoutError:
            ended = CallEnded(Cause.ARI_FAILED, f"no word of who calls within {patience:g} s")
        except (AriNotFound, AriConflict) as error:  # the channel was there a moment ago
            ended = CallEnded(Cause.CALLER_HANGUP, str(error))
        except AriError as error:
            ended = CallEnded(Cause.ARI_FAILED, str(error))
        except CallEnded as unknown:
            ended = unknown
        if self._connection.end is not None:  # who hangs up meanwhile is known no more
            ended = self.media_ended(self._connection.end)
        self._found = ended
        return ended

    async def identify(self) -> Identity:
        """Find the channel and read its agent.

        Raises CallEnded(UNKNOWN_CALL) when verification is on and no channel has this UUID, AriError when
        Asterisk cannot be asked; without verification both mean the default agent.
        """
        if isinstance(self._found, CallEnded):
            raise self._found
        return self._found or await self._identify()

    async def _identify(self) -> Identity:
        try:
            info = await self._find(self._connection.uuid)
        except AriError:
            if self._verify:
                raise
            info = None
        if info is None or self._client is None:
            if self._verify:
                raise CallEnded(Cause.UNKNOWN_CALL, "no channel is in AudioSocket() with this UUID")
            return Identity(DEFAULT_AGENT)
        self._channel = Channel(self._client, info.id)
        agent = await self._channel.get_variable(AGENT_VARIABLE)
        return Identity(agent or DEFAULT_AGENT, info.caller_number, info.caller_name, info.called_number)

    async def variables(self, names: Sequence[str]) -> Mapping[str, str]:
        """Read the channel variables side by side; none when the channel is unknown."""
        return {} if self._channel is None else await read_variables(self._channel, names)

    async def open_media(self) -> Connection:
        """The connection is what the call began with."""
        return self._connection

    async def settle_media(self) -> None:
        """The dialplan has connected already."""

    async def join(self) -> None:
        """The dialplan has answered and connected already."""

    async def send_digits(self, digits: str) -> bool:
        """Asterisk sends digits to channels in Stasis only (409 otherwise)."""
        return False

    async def place_exists(self, destination: Destination) -> bool:
        """Nobody goes there from here."""
        return True

    def go_on_at(self, destination: Destination) -> None:
        """The dialplan alone decides what comes after ``AudioSocket()``."""
        raise ToolError(NOT_OURS)

    def consult(self, destination: Destination) -> Consultation:
        """Without Stasis the caller cannot be moved."""
        raise ToolError(NOT_OURS)

    async def release(self, ended: CallEnded) -> None:
        """A hangup message makes the dialplan go on with the priority after ``AudioSocket()``.

        MODEL_HANGUP hangs up through ARI, where the channel is known; else the dialplan goes on then, too.
        """
        if ended.cause is Cause.CALLER_HANGUP or (
            ended.cause is Cause.MODEL_HANGUP and await self._hung_up()
        ):
            self._connection.close()
        else:
            self._connection.hangup()

    def media_ended(self, end: MediaEnd) -> CallEnded:
        """Here the connection is the call.

        A reset is a hangup too: closing a socket with our last silence still unread in it sends one (RFC
        1122, section 4.2.2.13).
        """
        fault = end.reason in MEDIA_FAULTS and end.code != CALLER_HUNG_UP
        return CallEnded(Cause.MEDIA_ERROR if fault else Cause.CALLER_HANGUP, str(end))

    async def _hung_up(self) -> bool:
        if self._channel is None:
            return False
        try:
            await self._channel.hangup()
        except AriError as error:
            log.warning("call.not_hung_up", call=self.id, error=str(error))
            return False
        return True

    async def _find(self, uuid: UUID) -> ChannelInfo | None:
        if self._listing is None:
            return None
        for pause in (*LOOKUP_PAUSES, None):
            found = find_audiosocket_channel(await self._listing.channels(), uuid)
            if found is not None or pause is None:
                return found
            await asyncio.sleep(pause)
        return None
