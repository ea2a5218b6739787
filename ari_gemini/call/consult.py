"""Way A: asking another party whether it takes the caller, by moving three channels in and out of one bridge.

==============  ==================================  ===================================
step            in the bridge                       outside
==============  ==================================  ===================================
``ring``        caller, media                       party: called, then answered
``introduce``   party, media                        caller: hears a ringing tone
``join``        caller, party                       media
``abandon``     caller, media                       party: hung up
==============  ==================================  ===================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from ari_gemini.ari.channel import Bridge, Channel
from ari_gemini.ari.events import ChannelInfo
from ari_gemini.ari.requests import Requests
from ari_gemini.call.cleanup import Verb, persist, unanswered
from ari_gemini.call.names import bridge_of, far_half_of, media_of, party_of
from ari_gemini.errors import AriConflict, AriError, AriNotFound, AriRejected, ToolError
from ari_gemini.tools.destination import Destination

log = structlog.get_logger(__name__)

RING_GRACE = 3.0
"""Asterisk ends the ringing, and its word of that may be lost: it is waited for so much longer, s."""

ABSENT = frozenset({400, 422})
"""How Asterisk refuses to move a channel: it is gone; it is not in Stasis, or not in that bridge."""

HUNG_UP = "the other party has hung up"
UNREACHABLE = "the other party cannot be reached"
NO_ANSWER = "nobody answered"
BUSY = "the other party's line is busy"

BY_CAUSE = {17: BUSY, 18: NO_ANSWER, 19: NO_ANSWER, 20: UNREACHABLE, 21: "the other party declined the call"}
"""ITU-T Q.850: why a channel that was never answered is gone. Half of a Local channel gives 0."""
BY_STATUS = {"BUSY": BUSY, "NOANSWER": NO_ANSWER, "CANCEL": NO_ANSWER}
"""What ``Dial`` said last; tells what happened behind a Local channel."""


class StasisConsultation:
    """One other party. ``entered``, ``dialled``, ``forwarded``, ``replaced`` and ``party_left`` tell it what
    happens to the party's channel."""

    def __init__(self, client: Requests, caller: ChannelInfo, destination: Destination, number: int) -> None:
        self.party = party_of(caller.id, number)
        """The party's channel; another's when it has transferred the call on."""
        self.asked = False
        """Asterisk has said that it calls: from here on that channel is there, or was."""
        self.gone = False
        """The party has hung up, or was never reached."""
        self.owed = False
        """It was given up, and Asterisk did not answer: ``abandon`` and ``dismiss`` try again."""
        self.strays: set[str] = set()
        """Channels that others have put in the party's place and that nobody wants: to be hung up."""
        self._client = client
        self._caller_info = caller
        self._destination = destination
        self._caller = Channel(client, caller.id)
        self._channel = Channel(client, self.party)
        self._bridge = Bridge(client, bridge_of(caller.id))
        self._answered = False
        self._status, self._cause = "", 0
        self._news = asyncio.Event()
        self._steps: list[asyncio.Task[None]] = []
        self._caller_out = False
        self._joined = False
        self._released = False
        self._ending: asyncio.Task[None] | None = None
        self._log = log.bind(call=caller.id)

    # What the call asks for.

    async def ring(self) -> None:
        """Call the party; return when it has answered. Raises ToolError when it does not, AriError."""
        try:
            await self._step(self._call())
            await self._answer()
        except BaseException:  # cancelling included: nobody shall pick up for nothing
            self._end()
            raise

    async def introduce(self) -> None:
        """The party takes the caller's place in the bridge; he hears a ringing tone.

        Raises ToolError when the party has left, AriNotFound or AriConflict when he has.
        """
        await self._step(self._swap())

    async def left(self) -> None:
        """Return when the party has hung up."""
        while not self.gone:
            self._news.clear()
            await self._news.wait()

    async def join(self) -> None:
        """The caller takes the model's place.

        Raises ToolError when the party has left, AriNotFound when he has.
        """
        await self._step(self._connect())

    async def abandon(self) -> None:
        """Hang up on the party, bring the caller back. Idempotent; cancelling ends the waiting alone.

        Never raises. What Asterisk gave no answer to is ``owed``, and tried again when this is called again.
        """
        await asyncio.shield(self._end())

    # What the leg asks for when the call is over.

    @property
    def over(self) -> bool:
        """It has been given up: another party may be asked."""
        return self._ending is not None

    @property
    def has_caller(self) -> bool:
        """For its sake the caller is not with the model."""
        return self._caller_out and (self._joined or not self.over)

    async def settled(self) -> bool:
        """Hear out what is under way. True: caller and party are joined."""
        await asyncio.gather(*self._steps, return_exceptions=True)
        return self._joined

    async def dismiss(self) -> None:
        """Hang up on the party; the caller goes elsewhere. Never raises."""
        self._released = True
        await asyncio.shield(self._end())

    # What happens in Asterisk.

    def entered(self) -> None:
        """The party has answered: its channel is in the application."""
        self._answered = True
        self._news.set()

    def dialled(self, status: str) -> None:
        """How the calling goes on."""
        self._status = status or self._status

    def forwarded(self, channel: str) -> None:
        """The party's phone sends the call elsewhere: Asterisk calls that channel now, and the party's goes.

        It has a name of Asterisk's choosing, and tells nobody how it fares before it is answered.
        """
        self.strays.add(channel)

    def replaced(self, channel: str) -> bool:
        """The party transfers the call on: that channel takes its place. False: it is not wanted."""
        if self.gone or (self.over and not self._joined):
            self.strays.add(channel)
            return False
        self.party, self._channel = channel, Channel(self._client, channel)
        return True

    def party_left(self, cause: int = 0) -> None:
        """The party's channel has left the application or is gone; ``cause`` (Q.850) or 0."""
        self._cause = cause or self._cause
        self.gone = True
        self._news.set()

    # The steps. Each is heard out, cancelled or not: Asterisk does what it was asked all the same, if later.

    async def _step(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._steps.append(task)
        await asyncio.shield(task)

    async def _call(self) -> None:
        where = self._destination.dial
        try:
            await self._client.originate(
                where,
                channel_id=self.party,
                other_channel_id=far_half_of(self.party) if where.startswith("Local/") else None,
                app=self._client.app,
                timeout=self._destination.ring_seconds,
                caller_id=caller_id(self._caller_info),
                originator=self._caller.id,
            )
        except (AriRejected, AriConflict, AriNotFound) as error:
            await self._caller.get()  # raises when it is the caller who is gone
            self._log.warning("consult.refused", endpoint=where, error=str(error))
            raise ToolError(UNREACHABLE) from error
        self.asked = True

    async def _answer(self) -> None:
        try:
            async with asyncio.timeout(self._destination.ring_seconds + RING_GRACE):
                while not (self._answered or self.gone):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise ToolError(NO_ANSWER) from None
        if self.gone:
            raise ToolError(self._why())

    def _why(self) -> str:
        if self._answered:
            return HUNG_UP
        if self.strays:
            return UNREACHABLE
        return BY_CAUSE.get(self._cause) or BY_STATUS.get(self._status, UNREACHABLE)

    async def _swap(self) -> None:
        self._caller_out = True
        await self._move_out(self._caller.id)
        await self._caller.ring()
        if self.gone or not await self._move_in(self.party):
            raise ToolError(HUNG_UP)

    async def _connect(self) -> None:
        if self.gone:
            raise ToolError(HUNG_UP)
        self._caller_out = True  # and back he comes, with the media, should this go wrong
        await self._move_out(media_of(self._caller.id))
        # in a bridge of two SIP channels Asterisk itself writes nothing that would end the tone
        await self._caller.ring_stop()
        if not await self._move_in(self._caller.id):
            raise AriNotFound("the caller has left", 404)
        if self.gone:  # meanwhile: joined with nobody he would be hung up
            raise ToolError(HUNG_UP)
        self._joined = True

    async def _move_in(self, *channels: str) -> bool:
        """Put channels into the bridge. False: one of them is not there any more."""
        try:
            await self._bridge.add_channel(*channels)
        except AriNotFound as error:  # no word about the caller: the bridge is gone
            raise AriRejected(str(error), error.status) from error
        except AriRejected as error:
            if error.status not in ABSENT:
                raise
            return False
        return True

    async def _move_out(self, channel: str) -> None:
        """Take a channel out of the bridge; success when it is not in it, or not there at all."""
        try:
            await self._bridge.remove_channel(channel)
        except AriNotFound as error:
            raise AriRejected(str(error), error.status) from error
        except AriRejected as error:
            if error.status not in ABSENT:
                raise

    # The end.

    def _end(self) -> asyncio.Task[None]:
        if self._ending is None or (self.owed and self._ending.done()):
            self._ending = asyncio.ensure_future(self._undo())
        return self._ending

    async def _undo(self) -> None:
        done = await asyncio.gather(*self._steps, return_exceptions=True)
        if self._joined:
            return
        # by the time it is tried again Asterisk has carried out what it ever will
        insist = unanswered(done) and not self.owed
        undoing = [self._surely(self._channel.hangup, insist)] if done and not self.gone else []
        if self._caller_out and not self._released:
            undoing.append(self._surely(self._bring_back, insist))
        self.owed = unanswered(await asyncio.gather(*undoing))

    async def _bring_back(self) -> None:
        await self._move_in(self._caller.id, media_of(self._caller.id))

    async def _surely(self, verb: Verb, insist: bool) -> AriError | None:
        failure = await persist(verb, insist=insist)
        if failure is not None:
            self._log.warning("consult.not_undone", error=str(failure))
        return failure


def caller_id(caller: ChannelInfo) -> str | None:
    """Name and number as Asterisk reads them, less what would end the name early; None without a number."""
    name, number = (
        "".join(c for c in text if c.isprintable() and c not in '"\\<>').strip()
        for text in (caller.caller_name, caller.caller_number)
    )
    if not number:
        return None
    return f'"{name}" <{number}>' if name else number
