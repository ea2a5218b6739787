"""Way A, one caller: his channel in Stasis, the bridge, the media channel, and to whom he is put through.

Order of a call (Asterisk, ``res/ari/resource_channels.c``, external media): the UUID is registered, then
Asterisk is asked to dial, which it does during that request; the media channel enters the application with a
StasisStart of its own; only then both are bridged. The UUID is random, so that nobody can guess a media
address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from functools import partial
from http import HTTPStatus
from typing import Any, TypeAlias
from uuid import uuid4

import structlog

from ari_gemini.ari.channel import Bridge, Channel
from ari_gemini.ari.events import ChannelInfo
from ari_gemini.ari.requests import Requests
from ari_gemini.audiosocket.connection import Connection, MediaEnd
from ari_gemini.call.cleanup import Verb, failure_of, persist, unanswered
from ari_gemini.call.consult import StasisConsultation
from ari_gemini.call.joined import Joined
from ari_gemini.call.leg import MEDIA_FAULTS, Consultation, Identity, read_variables
from ari_gemini.call.names import bridge_of, media_of
from ari_gemini.call.portions import GAP_MS, TONE_MS, portions
from ari_gemini.call.registry import Registry
from ari_gemini.errors import (
    AriConflict,
    AriError,
    AriNotFound,
    AriRejected,
    CallEnded,
    Cause,
    ToolError,
)
from ari_gemini.tools.destination import Destination

log = structlog.get_logger(__name__)

CAUSE_VARIABLE = "ARI_GEMINI_CAUSE"
"""Channel variable that tells the dialplan why the caller goes on; values are those of errors.Cause."""

BRIDGE_PAUSES = (0.01, 0.04, 0.15, 0.3, 0.5, 1.0)
"""Between attempts to make the bridge, s. That of a former worker, destroyed a moment ago, is no more to be
found, and yet nobody else can have its name until the last channel has left it: 409, because its topic is
there still (Asterisk, ``res/ari/resource_bridges.c``)."""

PARTY_VARIABLE = "ARI_GEMINI_PARTY"
"""Channel variable of a caller who was joined with another party: that one's channel. Whoever finds him
alone, after this service was started anew, knows by it that he is through with the model."""

Keep: TypeAlias = Callable[[Joined, AbstractSet[str]], None]
"""Takes two who talk without the model over from a call that is over; the set holds who has left already."""


class StasisLeg:
    """One caller in Stasis with his bridge and his media channel."""

    def __init__(
        self,
        client: Requests,
        registry: Registry,
        caller: ChannelInfo,
        *,
        agent: str,
        answer_at_once: bool,
        media_address: str,
        keep: Keep,
        entered: bool = True,
        adopted: bool = False,
    ) -> None:
        self.id = caller.id
        self.adopted = adopted
        """He was in the application already when he was found: another worker, or an earlier life of this
        one, has talked to him, and may have saved where they were."""
        self.media_id = media_of(caller.id)
        self._client = client
        self._registry = registry
        self._caller = caller
        self._agent = agent
        self._answer_at_once = answer_at_once
        self._media_address = media_address
        self._keep = keep
        self._channel = Channel(client, caller.id)
        self._media = Channel(client, self.media_id)
        self._bridge = Bridge(client, bridge_of(caller.id))
        self._connection: Connection | None = None
        self._connected = asyncio.Event()
        self._media_entered = asyncio.Event()
        self._entered = asyncio.Event()
        if entered:
            self._entered.set()
        self._received = False
        self._expecting = ExitStack()
        self._making: list[asyncio.Task[Any]] = []
        self._next_place: Destination | None = None
        self._consultations: list[StasisConsultation] = []
        self._gone = False
        self.handed_over = False
        """Another worker has the caller, or takes him."""
        self._over = False
        self._log = log.bind(call=self.id)

    async def identify(self) -> Identity:
        """Everything came with StasisStart. Raises CallEnded when the caller has left since."""
        self._still_there()
        caller = self._caller
        return Identity(self._agent, caller.caller_number, caller.caller_name, caller.called_number)

    async def variables(self, names: Sequence[str]) -> Mapping[str, str]:
        """Read the channel variables side by side; unset ones are left out."""
        return await read_variables(self._channel, names)

    async def open_media(self) -> Connection:
        """Ring or answer, make bridge and media channel, wait until Asterisk has dialled.

        While the caller is about to enter the application Asterisk refuses (409) what is asked of his
        channel, but makes bridge and media channel: he is received in ``settle_media`` then.
        """
        self._still_there()
        if self._entered.is_set():
            await self._receive()
        await self._make_bridge()
        uuid = uuid4()
        # expected until release is through with Asterisk: who dials for a call that is over is ours to refuse
        self._expecting.enter_context(self._registry.expect(uuid, self._media_arrived))
        await self._make(
            self._client.external_media(
                channel_id=self.media_id,
                app=self._client.app,
                external_host=self._media_address,
                data=uuid,
            )
        )
        return await self._arrival()

    async def settle_media(self) -> None:
        """Wait for both channels' StasisStart; let a caller who is answered already be heard."""
        await self._entered.wait()
        await self._receive()
        await self._media_entered.wait()
        if self._answer_at_once:
            await self._bridge_both()

    async def join(self) -> None:
        """Answer a caller who still hears ringing, and bridge him with the media."""
        if not self._answer_at_once:
            await self._channel.answer()
            await self._bridge_both()

    async def send_digits(self, digits: str) -> bool:
        """Play them in portions: hardly anything else that is asked of the channel is done meanwhile.

        A portion takes half the time that a request may: what waits behind one still gets through. Cancelling
        ends it after the portion that is being played.
        """
        for portion in portions(digits, self._client.request_timeout / 2):
            if portion.keys:
                await self._channel.send_dtmf(portion.keys, between_ms=GAP_MS, duration_ms=TONE_MS)
            await asyncio.sleep(portion.seconds)
        return True

    async def place_exists(self, destination: Destination) -> bool:
        """Ask the dialplan; without ``func_dialplan`` (status 500) it does not say."""
        try:
            value = await self._channel.get_variable(f"DIALPLAN_EXISTS({destination.place})")
        except AriRejected:
            return True
        return value != "0"

    def go_on_at(self, destination: Destination) -> None:
        """Remember it."""
        self._next_place = destination

    def consult(self, destination: Destination) -> Consultation:
        """Begin to ask another party, one at a time. Nothing is asked of Asterisk yet."""
        if not all(earlier.over for earlier in self._consultations):
            raise ToolError("another party is being asked already")
        consultation = StasisConsultation(
            self._client, self._caller, destination, len(self._consultations) + 1
        )
        self._consultations.append(consultation)
        return consultation

    async def release(self, ended: CallEnded) -> None:
        """Let the caller go where he is to go, unless he left; meanwhile destroy media channel and bridge.

        Takes at most four requests one after another, CLEANUP_DELAYS, and what a consultation has under
        way. Two who are joined stay so, whatever the cause: they have no use for this service any more. After
        HANDED_OVER nothing is asked about the caller: he, bridge and media channel are another worker's.
        """
        self._over = True
        if self._connection is not None:
            self._connection.close()
        for consultation in self._consultations:
            if await consultation.settled():
                await self._leave(consultation)
                return
        over = ended.cause is Cause.HANDED_OVER
        steps = [self._leave_behind()] if over else [self._let_go(ended), self._unmake()]
        await asyncio.gather(*steps, *(one.dismiss() for one in self._consultations))

    def media_ended(self, end: MediaEnd) -> CallEnded:
        """The caller's channel outlives its media: Asterisk restarts, or somebody hung the media up."""
        return CallEnded(Cause.MEDIA_ERROR if end.reason in MEDIA_FAULTS else Cause.MEDIA_LOST, str(end))

    def caller_left(self) -> None:
        """The caller's channel has left the application: there is nobody to be sent on."""
        self._gone = True

    def caller_entered(self) -> None:
        """The caller is in the application: from now on his channel does what it is asked."""
        self._entered.set()

    def hand_over(self) -> None:
        """Another worker takes the caller, also when the call has not begun to run yet."""
        self.handed_over = True

    @property
    def entered(self) -> bool:
        """The caller is, or was, in the application."""
        return self._entered.is_set()

    @property
    def over(self) -> bool:
        """The call has ended and is being cleaned up."""
        return self._over

    @property
    def consultations(self) -> Sequence[StasisConsultation]:
        """Whoever has been asked, one after another."""
        return self._consultations

    def consultation(self, party: str) -> StasisConsultation | None:
        """The one whose party has that channel."""
        return next((one for one in self._consultations if one.party == party), None)

    def media_entered(self) -> None:
        """The media channel is in the application: from now on it can be bridged."""
        self._media_entered.set()

    def _still_there(self) -> None:
        if self.handed_over:
            raise CallEnded(Cause.HANDED_OVER)
        if self._gone:
            raise CallEnded(Cause.CALLER_HANGUP)

    async def _receive(self) -> None:
        """Ring or answer, once. Who was talking already hears nothing of it."""
        if self._received or (self.adopted and self._caller.state == "Up"):
            return
        self._received = True
        if self._answer_at_once:
            await self._channel.answer()
        else:
            await self._channel.ring()

    def _media_arrived(self, connection: Connection) -> None:
        if self._over:
            connection.refuse("its call is over")
            return
        self._connection = connection
        self._connected.set()

    async def _arrival(self) -> Connection:
        while self._connection is None:
            await self._connected.wait()
        return self._connection

    async def _make_bridge(self) -> None:
        for pause in (*BRIDGE_PAUSES, None):
            try:
                await self._make(self._bridge.create(name=self.id))
                return
            except AriRejected as error:
                if error.status != HTTPStatus.CONFLICT or pause is None:
                    raise
                await failure_of(self._bridge.destroy)  # nobody was in it, and so no application lists it
                await asyncio.sleep(pause)

    async def _make(self, request: Coroutine[Any, Any, Any]) -> None:
        # A request cut off on our side is carried out on Asterisk's all the same, possibly after the clean-up
        # has looked: what makes something is always heard out, also when the call is cancelled meanwhile.
        task = asyncio.ensure_future(request)
        self._making.append(task)
        try:
            await asyncio.shield(task)
        except (AriConflict, AriNotFound) as error:
            # about the caller these mean that he left; here something of ours is in the way
            raise AriRejected(str(error), error.status) from error

    async def _bridge_both(self) -> None:
        try:
            await self._bridge.add_channel(self.id, self.media_id)
        except AriRejected:
            # an unknown channel is a bad request here (400, or 422 when it is elsewhere): is it the caller's?
            await self._channel.get()
            raise

    async def _leave(self, consultation: StasisConsultation) -> None:
        """Caller and party go on without the call: only the media goes."""
        left = {self.id} if self._gone else set()
        left |= {consultation.party} if consultation.gone else set()
        self._keep(Joined(self._client, self.id, consultation.party), left)
        await asyncio.gather(self._unmake(bridge=False), self._note_party(consultation.party))

    async def _note_party(self, party: str) -> None:
        failure = await failure_of(partial(note_party, self._client, self.id, party))
        if failure is not None and not self._gone:
            self._log.info("call.party_not_noted", error=str(failure))

    async def _let_go(self, ended: CallEnded) -> None:
        if self._gone:
            return
        if ended.cause is Cause.MODEL_HANGUP:
            await self._surely(self._channel.hangup)
            return
        try:
            await self._channel.set_variable(CAUSE_VARIABLE, ended.cause.value)
        except (AriNotFound, AriConflict):
            return  # he left, or somebody else has sent him on
        except AriError as error:  # he goes on without it
            self._log.warning("call.cause_not_set", error=str(error))
        place = self._next_place if ended.cause is Cause.TRANSFERRED else None
        await self._surely(partial(self._continue, place))

    async def _continue(self, place: Destination | None) -> None:
        try:
            if place is None:
                await self._channel.continue_in_dialplan()
            else:
                await self._channel.continue_in_dialplan(place.context, place.extension, place.priority)
        except (AriNotFound, AriConflict):
            return
        except AriRejected as error:
            self._log.warning("call.not_sent_on", error=str(error))
            await self._channel.hangup()  # better than to be left alone in silence

    async def _unmake(self, *, bridge: bool = True) -> None:
        """Take down what was made. ``bridge`` false: all but that."""
        with self._expecting:
            results = await asyncio.gather(*self._making, return_exceptions=True)
            if not results:
                return
            # what was asked for without an answer may yet be made: look again even when it is not there
            insist = unanswered(results)
            verbs = [self._media.hangup, self._bridge.destroy] if bridge else [self._media.hangup]
            await asyncio.gather(*(self._surely(verb, insist=insist) for verb in verbs))

    async def _leave_behind(self) -> None:
        with self._expecting:  # whoever dials for what is still being made finds nobody
            await asyncio.gather(*self._making, return_exceptions=True)

    async def _surely(self, verb: Verb, *, insist: bool = False) -> None:
        failure = await persist(verb, insist=insist)
        if failure is not None:
            self._log.warning("call.not_cleaned_up", error=str(failure))


async def note_party(client: Requests, caller: str, party: str) -> None:
    """Write down with the caller whom he talks to without the model. Raises AriError."""
    await Channel(client, caller).set_variable(PARTY_VARIABLE, party)
