"""Way A: ``Stasis(ari-gemini,AGENT)``. ARI events become calls; a call's leg is bridge and external media.

Order of a call (Asterisk, ``res/ari/resource_channels.c``, external media): the UUID is registered, then
Asterisk is asked to dial, which it does during that request; the media channel enters the application with a
StasisStart of its own; only then both are bridged. Ids are made from the caller's channel id, so that
everything about a call can be found again by asking Asterisk; the UUID is random, so that nobody can guess a
media address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any
from uuid import uuid4

import structlog

from ari_gemini.ari.channel import Bridge, Channel
from ari_gemini.ari.client import AriClient
from ari_gemini.ari.events import ChannelDestroyed, ChannelInfo, Event, StasisEnd, StasisStart
from ari_gemini.audiosocket.connection import Connection, MediaEnd
from ari_gemini.call.leg import DEFAULT_AGENT, MEDIA_FAULTS, Identity, Leg, read_variables
from ari_gemini.call.registry import Registry
from ari_gemini.errors import AriConflict, AriError, AriNotFound, AriRejected, CallEnded, Cause, Retry

log = structlog.get_logger(__name__)

MEDIA_PREFIX = "ari-gemini-media-"
BRIDGE_PREFIX = "ari-gemini-bridge-"
CAUSE_VARIABLE = "ARI_GEMINI_CAUSE"
"""Channel variable that tells the dialplan why the caller goes on; values are those of errors.Cause."""

WATCH_SECONDS = 5.0
"""While no events flow, callers are looked after this often, s: so long may a call outlive its caller."""

CLEANUP_DELAYS = (0.5, 2.0)
"""Pauses before a clean-up request is repeated, s: long enough for a short stall of Asterisk's."""


class StasisLeg:
    """One caller in Stasis with his bridge and his media channel."""

    def __init__(
        self,
        client: AriClient,
        registry: Registry,
        caller: ChannelInfo,
        *,
        agent: str,
        answer_at_once: bool,
        media_address: str,
    ) -> None:
        self.id = caller.id
        self.media_id = MEDIA_PREFIX + caller.id
        self._client = client
        self._registry = registry
        self._caller = caller
        self._agent = agent
        self._answer_at_once = answer_at_once
        self._media_address = media_address
        self._channel = Channel(client, caller.id)
        self._media = Channel(client, self.media_id)
        self._bridge = Bridge(client, BRIDGE_PREFIX + caller.id)
        self._connection: Connection | None = None
        self._connected = asyncio.Event()
        self._media_entered = asyncio.Event()
        self._expecting = ExitStack()
        self._making: list[asyncio.Task[Any]] = []
        self._gone = False
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
        """Ring or answer, make bridge and media channel, wait until Asterisk has dialled."""
        self._still_there()
        if self._answer_at_once:
            await self._channel.answer()
        else:
            await self._channel.ring()
        await self._make(self._bridge.create(name=self.id))
        uuid = uuid4()
        # expected until release is through with Asterisk: who dials for a call that is over is ours to refuse
        self._expecting.enter_context(self._registry.expect(uuid, self._media_arrived))
        await self._make(
            self._client.external_media(
                channel_id=self.media_id,
                app=self._client.settings.app,
                external_host=self._media_address,
                data=uuid,
            )
        )
        return await self._arrival()

    async def settle_media(self) -> None:
        """Wait for the media channel's own StasisStart; let a caller who is answered already be heard."""
        await self._media_entered.wait()
        if self._answer_at_once:
            await self._bridge_both()

    async def join(self) -> None:
        """Answer a caller who still hears ringing, and bridge him with the media."""
        if not self._answer_at_once:
            await self._channel.answer()
            await self._bridge_both()

    async def release(self, ended: CallEnded) -> None:
        """Send the caller on in the dialplan unless he left; meanwhile destroy media channel and bridge.

        Takes at most four requests and CLEANUP_DELAYS.
        """
        self._over = True
        if self._connection is not None:
            self._connection.close()
        await asyncio.gather(self._send_on(ended), self._unmake())

    def media_ended(self, end: MediaEnd) -> CallEnded:
        """The caller's channel outlives its media: Asterisk restarts, or somebody hung the media up."""
        return CallEnded(Cause.MEDIA_ERROR if end.reason in MEDIA_FAULTS else Cause.MEDIA_LOST, str(end))

    def caller_left(self) -> None:
        """The caller's channel has left the application: there is nobody to be sent on."""
        self._gone = True

    def media_entered(self) -> None:
        """The media channel is in the application: from now on it can be bridged."""
        self._media_entered.set()

    def _still_there(self) -> None:
        if self._gone:
            raise CallEnded(Cause.CALLER_HANGUP)

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

    async def _send_on(self, ended: CallEnded) -> None:
        if self._gone:
            return
        try:
            await self._channel.set_variable(CAUSE_VARIABLE, ended.cause.value)
        except (AriNotFound, AriConflict):
            return  # he left, or somebody else has sent him on
        except AriError as error:  # he goes on without it
            self._log.warning("call.cause_not_set", error=str(error))
        await self._persist(self._continue)

    async def _continue(self) -> None:
        try:
            await self._channel.continue_in_dialplan()
        except (AriNotFound, AriConflict):
            return
        except AriRejected as error:
            self._log.warning("call.not_sent_on", error=str(error))
            await self._channel.hangup()  # better than to be left alone in silence

    async def _unmake(self) -> None:
        with self._expecting:
            await self._destroy_what_was_made()

    async def _destroy_what_was_made(self) -> None:
        results = await asyncio.gather(*self._making, return_exceptions=True)
        if not results:
            return
        # what was asked for without an answer may yet be made: look again even when it is not there
        insist = any(isinstance(made, AriError) and made.retry is Retry.BACKOFF for made in results)
        await asyncio.gather(
            self._persist(self._media.hangup, insist=insist),
            self._persist(self._bridge.destroy, insist=insist),
        )

    async def _persist(self, verb: Callable[[], Coroutine[Any, Any, None]], *, insist: bool = False) -> None:
        """Repeat a clean-up while repeating can help; with ``insist`` also when it went well."""
        failure: AriError | None = None
        for pause in (*CLEANUP_DELAYS, None):
            failure = await _failure_of(verb)
            again = insist if failure is None else failure.retry is Retry.BACKOFF
            if pause is None or not again:
                break
            await asyncio.sleep(pause)
        if failure is not None:
            self._log.warning("call.not_cleaned_up", error=str(failure))


async def _failure_of(verb: Callable[[], Coroutine[Any, Any, None]]) -> AriError | None:
    try:
        await verb()
    except AriError as error:
        return error
    return None


class StasisWay:
    """Feeds on ARI events: starts a call for each caller, tells legs what happens to their channels."""

    def __init__(
        self,
        client: AriClient,
        registry: Registry,
        *,
        start_call: Callable[[Leg], None],
        answer_at_once: bool,
        media_address: str,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._client = client
        self._registry = registry
        self._app = client.settings.app
        self._start_call = start_call
        self._answer_at_once = answer_at_once
        self._media_address = media_address
        self._spawn = spawn
        self._legs: dict[str, StasisLeg] = {}

    def on_event(self, event: Event) -> None:
        """Take one ARI event. Never waits, never raises."""
        if isinstance(event, StasisStart):
            self._entered(event.channel, event.args[0] if event.args else "")
        elif isinstance(event, StasisEnd | ChannelDestroyed):
            self._left(event.channel.id)

    async def reconcile(self) -> None:
        """Make up for the events that an outage of their connection cost, one of this service's included.

        Ends calls whose caller left, serves who came, and destroys bridges whose caller no longer exists.
        """
        try:
            there = await self._see_off()
            bridges = await self._client.bridges()
        except AriError as error:
            log.warning("stasis.not_reconciled", error=str(error))
            return
        for channel in there.values():
            if not self._is_ours(channel):
                continue
            self._entered(channel, channel.app_data.split(",")[1] if "," in channel.app_data else "")
        for bridge in bridges:
            caller = bridge.id.removeprefix(BRIDGE_PREFIX)
            if caller != bridge.id and caller not in there and caller not in self._legs:
                log.info("stasis.orphaned_bridge", bridge=bridge.id)
                self._spawn(_drop(Bridge(self._client, bridge.id).destroy, bridge.id))

    async def watch(self) -> None:
        """See callers off whose leaving no event tells, while no events flow. Runs until cancelled."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self._legs and not self._client.connected:
                with suppress(AriError):  # Asterisk is away altogether: the media connections say so
                    await self._see_off()

    async def _see_off(self) -> Mapping[str, ChannelInfo]:
        """End the calls whose caller has left; returns all channels that are there."""
        known = list(self._legs)  # who comes from now on is announced by events, or found next time
        there = {channel.id: channel for channel in await self._client.channels()}
        for call_id in known:
            if call_id not in there or not self._is_ours(there[call_id]):
                self._left(call_id)
        return there

    def call_over(self, call_id: str) -> None:
        """The call with that id has ended and cleaned up."""
        self._legs.pop(call_id, None)

    def _is_ours(self, channel: ChannelInfo) -> bool:
        return channel.app_name == "Stasis" and channel.app_data.partition(",")[0] == self._app

    def _entered(self, channel: ChannelInfo, agent: str) -> None:
        caller = channel.id.removeprefix(MEDIA_PREFIX)
        leg = self._legs.get(caller)
        if caller == channel.id:
            if leg is None:
                self._arrived(channel, agent or DEFAULT_AGENT)
        elif leg is not None:
            leg.media_entered()
        else:
            log.info("stasis.orphaned_media", channel=channel.id)
            self._spawn(_drop(Channel(self._client, channel.id).hangup, channel.id))

    def _arrived(self, channel: ChannelInfo, agent: str) -> None:
        leg = StasisLeg(
            self._client,
            self._registry,
            channel,
            agent=agent,
            answer_at_once=self._answer_at_once,
            media_address=self._media_address,
        )
        self._legs[channel.id] = leg
        self._start_call(leg)

    def _left(self, channel_id: str) -> None:
        caller = channel_id.removeprefix(MEDIA_PREFIX)
        leg = self._legs.get(caller)
        if leg is None:
            return
        call = self._registry.calls.get(caller)
        if caller != channel_id:
            if call is not None:
                call.end(Cause.MEDIA_LOST, "the media channel left")
            return
        leg.caller_left()  # for a call that has not begun to run yet, too
        if call is not None:
            call.end(Cause.CALLER_HANGUP)


async def _drop(verb: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    failure = await _failure_of(verb)
    if failure is not None:
        log.warning("stasis.orphan_stays", name=name, error=str(failure))
