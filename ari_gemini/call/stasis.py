"""Way A: ``Stasis(ari-gemini,AGENT)``. ARI events become calls; a call's leg is bridge and external media.

Order of a call (Asterisk, ``res/ari/resource_channels.c``, external media): the UUID is registered, then Asterisk is
asked to dial, which it does during that request; the media channel enters the application with a StasisStart of its
own; only then both are bridged. Ids are made from the caller's channel id, so that everything about a call can be
found again by asking Asterisk; the UUID is random, so that nobody can guess a media address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any
from uuid import uuid4

import structlog

from ari_gemini.ari.channel import Bridge, Channel
from ari_gemini.ari.client import AriClient
from ari_gemini.ari.events import ChannelDestroyed, ChannelInfo, Event, StasisEnd, StasisStart
from ari_gemini.audiosocket.connection import Connection, MediaEnd
from ari_gemini.call.call import MEDIA_FAULTS, Identity, Leg
from ari_gemini.call.registry import Registry
from ari_gemini.errors import AriError, AriNotFound, CallEnded, Cause, Retry

log = structlog.get_logger(__name__)

MEDIA_PREFIX = "ari-gemini-media-"
BRIDGE_PREFIX = "ari-gemini-bridge-"
CAUSE_VARIABLE = "ARI_GEMINI_CAUSE"
"""Channel variable that tells the dialplan why the caller goes on; values are those of errors.Cause."""

CLEANUP_DELAYS = (0.5, 2.0)
"""Pauses before a failed clean-up request is repeated, s: long enough for a short stall of Asterisk's."""


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
        self._making: list[asyncio.Task[Any]] = []
        self._joined = False
        self._log = log.bind(call=self.id)

    async def identify(self) -> Identity:
        """Everything came with StasisStart; waits for nothing."""
        caller = self._caller
        return Identity(self._agent, caller.caller_number, caller.caller_name, caller.called_number)

    async def variables(self, names: Sequence[str]) -> Mapping[str, str]:
        """Read the channel variables side by side; unset ones are left out."""
        values = await asyncio.gather(*(self._channel.get_variable(name) for name in names))
        return {name: value for name, value in zip(names, values, strict=True) if value is not None}

    async def open_media(self) -> Connection:
        """Ring or answer, make bridge and media channel, wait until Asterisk has dialled us and the media is in."""
        if self._answer_at_once:
            await self._channel.answer()
        else:
            await self._channel.ring()
        await self._make(self._bridge.create(name=self.id))
        uuid = uuid4()
        with self._registry.expect(uuid, self._media_arrived):
            await self._make(
                self._client.external_media(
                    channel_id=self.media_id,
                    app=self._client.settings.app,
                    external_host=self._media_address,
                    data=uuid,
                )
            )
            await self._connected.wait()
        await self._media_entered.wait()
        if self._answer_at_once:
            await self._bridge_both()
        assert self._connection is not None, "_connected is set with the connection"
        return self._connection

    async def join(self) -> None:
        """Answer a caller who still hears ringing, and bridge him with the media."""
        if self._joined:
            return
        await self._channel.answer()
        await self._bridge_both()

    async def release(self, ended: CallEnded) -> None:
        """Send the caller on in the dialplan unless he is gone; destroy media channel and bridge."""
        if self._connection is not None:
            self._connection.close()
        if ended.cause is not Cause.CALLER_HANGUP:
            await self._send_on(ended)
        await asyncio.gather(*self._making, return_exceptions=True)
        if self._making:
            await asyncio.gather(self._clean(self._media.hangup), self._clean(self._bridge.destroy))

    def media_ended(self, end: MediaEnd) -> CallEnded:
        """The caller's channel outlives its media: Asterisk restarts, or somebody hung the media channel up."""
        return CallEnded(Cause.MEDIA_ERROR if end.reason in MEDIA_FAULTS else Cause.MEDIA_LOST, str(end))

    def media_entered(self) -> None:
        """The media channel is in the application: from now on it can be bridged."""
        self._media_entered.set()

    def _media_arrived(self, connection: Connection) -> None:
        self._connection = connection
        self._connected.set()

    async def _make(self, request: Coroutine[Any, Any, Any]) -> None:
        # A request cut off on our side is carried out on Asterisk's all the same, possibly after the clean-up has
        # looked: what makes something is always heard out, also when the call is cancelled meanwhile.
        task = asyncio.ensure_future(request)
        self._making.append(task)
        await asyncio.shield(task)

    async def _bridge_both(self) -> None:
        self._joined = True
        await self._bridge.add_channel(self.id, self.media_id)

    async def _send_on(self, ended: CallEnded) -> None:
        try:
            await self._channel.set_variable(CAUSE_VARIABLE, ended.cause.value)
            await self._channel.continue_in_dialplan()
        except AriNotFound:
            pass
        except AriError as error:
            self._log.warning("call.not_sent_on", error=str(error))

    async def _clean(self, verb: Callable[[], Coroutine[Any, Any, None]]) -> None:
        for delay in (*CLEANUP_DELAYS, None):
            try:
                return await verb()
            except AriError as error:
                if delay is None or error.retry is not Retry.BACKOFF:
                    self._log.warning("call.not_cleaned_up", error=str(error))
                    return None
            await asyncio.sleep(delay)
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
            self._entered(event)
        elif isinstance(event, StasisEnd | ChannelDestroyed):
            self._left(event.channel.id)

    async def reconcile(self) -> None:
        """After an outage of the event connection: end calls whose caller left meanwhile, serve who came meanwhile."""
        try:
            there = {channel.id: channel for channel in await self._client.channels()}
        except AriError as error:
            log.warning("stasis.not_reconciled", error=str(error))
            return
        for call_id in [call_id for call_id in self._legs if call_id not in there]:
            self._left(call_id)
        for channel in there.values():
            app, _, args = channel.app_data.partition(",")
            if channel.app_name == "Stasis" and app == self._app and channel.id not in self._legs:
                self._arrived(channel, args.split(",")[0])

    def call_over(self, call_id: str) -> None:
        """The call with that id has ended and cleaned up."""
        self._legs.pop(call_id, None)

    def _entered(self, event: StasisStart) -> None:
        channel = event.channel
        if channel.id.startswith(MEDIA_PREFIX):
            leg = self._legs.get(channel.id.removeprefix(MEDIA_PREFIX))
            if leg is None:
                log.info("stasis.orphaned_media", channel=channel.id)
                self._spawn(self._drop(channel.id))
            else:
                leg.media_entered()
            return
        self._arrived(channel, event.args[0] if event.args else "")

    def _arrived(self, channel: ChannelInfo, agent: str) -> None:
        if channel.id in self._legs:
            return
        leg = StasisLeg(
            self._client,
            self._registry,
            channel,
            agent=agent or "default",
            answer_at_once=self._answer_at_once,
            media_address=self._media_address,
        )
        self._legs[channel.id] = leg
        self._start_call(leg)

    def _left(self, channel_id: str) -> None:
        call = self._registry.calls.get(channel_id)
        if call is not None:
            call.end(Cause.CALLER_HANGUP)
            return
        call = self._registry.calls.get(channel_id.removeprefix(MEDIA_PREFIX))
        if call is not None:
            call.end(Cause.MEDIA_LOST, "the media channel left")

    async def _drop(self, channel_id: str) -> None:
        try:
            await Channel(self._client, channel_id).hangup()
        except AriError as error:
            log.warning("stasis.orphan_stays", channel=channel_id, error=str(error))
