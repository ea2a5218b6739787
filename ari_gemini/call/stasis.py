"""Way A: ``Stasis(ari-gemini,AGENT)``. ARI events become calls, and what happens to the channels of calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from functools import partial
from typing import Any, TypedDict, Unpack

import structlog

from ari_gemini.ari.channel import Bridge, Channel
from ari_gemini.ari.events import (
    BridgeInfo,
    ChannelDestroyed,
    ChannelDtmfReceived,
    ChannelInfo,
    Dial,
    Event,
    StasisEnd,
    StasisStart,
)
from ari_gemini.ari.requests import Requests
from ari_gemini.call.cleanup import Verb, failure_of
from ari_gemini.call.consult import StasisConsultation
from ari_gemini.call.joined import Joined
from ari_gemini.call.leg import DEFAULT_AGENT, Leg
from ari_gemini.call.names import bridge_of, caller_of_bridge, caller_of_media, caller_of_party
from ari_gemini.call.registry import Registry
from ari_gemini.call.stasis_leg import PARTY_VARIABLE, StasisLeg, note_party
from ari_gemini.errors import AriError, AriNotFound, Cause

log = structlog.get_logger(__name__)

WATCH_SECONDS = 5.0
"""While no events flow, callers are looked after this often, s: so long may a call outlive its caller."""

GONE_PAUSES = (0.01, 0.04, 0.15, 0.3, 0.5, 1.0)
"""A channel is gone soon after Asterisk has said yes to its hangup: seconds between one look and the next."""


class WayOptions(TypedDict):
    """What a way is told by the service."""

    start_call: Callable[[Leg], None]
    answer_at_once: bool
    media_address: str
    """``HOST:PORT`` that Asterisk dials for the media."""
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    """Runs what no call waits for."""


class StasisWay:
    """Feeds on ARI events: starts a call for each caller, tells legs what happens to their channels.

    It also looks after those whom a call has joined and left to each other.
    """

    _leg_type = StasisLeg

    def __init__(
        self,
        client: Requests,
        registry: Registry,
        **given: Unpack[WayOptions],
    ) -> None:
        self._client = client
        self._registry = registry
        self._app = client.app
        self._start_call = given["start_call"]
        self._answer_at_once = given["answer_at_once"]
        self._media_address = given["media_address"]
        self._spawn = given["spawn"]
        self._legs: dict[str, StasisLeg] = {}
        self._joined: dict[str, Joined] = {}
        """By the caller's channel."""
        self._again: dict[str, tuple[ChannelInfo, str]] = {}
        """Callers whom the dialplan has sent here again while their former call was being cleaned up, each
        with the agent he asks for."""
        self._owed = False
        """An outage has not been made up for: Asterisk did not answer."""

    def on_event(self, event: Event) -> None:
        """Take one ARI event. Never waits, never raises."""
        if isinstance(event, StasisStart):
            if event.replace is None or not self._replaced(event.replace.id, event.channel.id):
                self._entered(event.channel, event.args[0] if event.args else "")
        elif isinstance(event, StasisEnd):
            self._left(event.channel.id)
        elif isinstance(event, ChannelDestroyed):
            self._left(event.channel.id, event.cause)
        elif isinstance(event, ChannelDtmfReceived):
            self._key_pressed(event.channel.id, event.digit)
        elif isinstance(event, Dial):
            self._dialled(event)

    async def reconcile(self) -> None:
        """Make up for what an outage cost, as far as Asterisk lets itself be asked."""
        await self.reconciled()

    async def reconciled(self) -> bool:
        """Make up for the events that an outage of their connection cost, one of this service's included.

        Ends calls whose caller left, serves who came, leaves alone who was joined with another party, hangs
        up on parties whom nobody asks any more, and destroys bridges whose caller no longer exists. False:
        Asterisk did not say what there is.
        """
        known = self._legs.keys() | self._joined.keys()  # who ends during a request is still listed after it
        try:
            there = await self._see_off()
            bridges = await self._client.bridges()
        except AriError as error:
            self._owed = True
            log.warning("stasis.not_reconciled", error=str(error))
            return False
        self._owed = False
        self._adopt(there, bridges)
        over = await self._clear_up(there, bridges)
        for channel in there.values():
            if self._is_ours(channel) and caller_of_party(channel.id) is None and channel.id not in over:
                self._found(channel, new=channel.id not in known)
        for bridge in bridges:
            caller = caller_of_bridge(bridge.id)
            if caller is not None and not any(caller in known for known in (there, self._legs, self._joined)):
                log.info("stasis.orphaned_bridge", bridge=bridge.id)
                self._spawn(_drop(Bridge(self._client, bridge.id).destroy, bridge.id))
        return True

    async def watch(self) -> None:
        """See those off whose leaving no event tells, while no events flow. Runs until cancelled.

        Once they flow again, it also makes up for the outage as often as it takes.
        """
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self._owed and self._client.connected:
                await self.reconcile()
            elif (self._legs or self._joined) and not self._client.connected:
                with suppress(AriError):  # Asterisk is away altogether: the media connections say so
                    await self._see_off()

    async def _see_off(self) -> dict[str, ChannelInfo]:
        """Tell of everybody known who has left, and of parties who have answered; undo what could not be
        undone. Returns all channels there are."""
        # who comes from now on is announced by events, or found next time
        legs, pairs = list(self._legs), list(self._joined.values())
        asked = [(one, one.party) for leg in self._legs.values() for one in leg.consultations if one.asked]
        there = {channel.id: channel for channel in await self._client.channels()}
        ours = {name for name, channel in there.items() if self._is_ours(channel)}
        for call_id in legs:
            if call_id not in ours:
                self._left(call_id)
        for one, party in asked:
            if party in ours:
                one.entered()
            elif party not in there and party == one.party:
                one.party_left()
        for leg in self._legs.values():
            for one in leg.consultations:
                if one.owed:  # the caller may be with the next party already: then he stays there
                    elsewhere = any(other.has_caller for other in leg.consultations)
                    self._spawn(one.dismiss() if elsewhere else one.abandon())
        for pair in pairs:
            self._part(pair, pair.members - ours)
        return there

    def call_over(self, call_id: str) -> None:
        """The call with that id has ended and cleaned up."""
        self._legs.pop(call_id, None)
        again = self._again.pop(call_id, None)
        if again is not None:
            self._arrived(*again)

    def _is_ours(self, channel: ChannelInfo) -> bool:
        return channel.app_name == "Stasis" and channel.app_data.partition(",")[0] == self._app

    # Who comes.

    def _entered(self, channel: ChannelInfo, agent: str) -> None:
        media_of = caller_of_media(channel.id)
        if media_of is not None:
            if media_of in self._legs:
                self._legs[media_of].media_entered()
            else:
                self._hang_up_orphan(channel.id)
        elif caller_of_party(channel.id) is not None:
            consultation = self._asking(channel.id)
            if consultation is not None and not consultation.over:
                consultation.entered()
            else:
                self._hang_up_orphan(channel.id)
        elif (leg := self._legs.get(channel.id)) is None:
            if self._pair_of(channel.id) is None:
                self._arrived(channel, agent)
        elif leg.over and leg.entered:
            self._again[channel.id] = channel, agent
        else:
            leg.adopted = False  # he has only just come
            leg.caller_entered()

    def _found(self, channel: ChannelInfo, *, new: bool) -> None:
        """A caller or media that no event has told of; or not ``new``, a caller known when it was asked."""
        leg = self._legs.get(channel.id)
        if caller_of_media(channel.id) is not None:
            self._entered(channel, "")
        elif leg is not None:
            if self._is_inside(channel):
                leg.caller_entered()
        elif new and self._pair_of(channel.id) is None:
            arguments = channel.app_data.split(",")
            self._arrived(channel, arguments[1] if len(arguments) > 1 else "", found=True)

    def _is_inside(self, channel: ChannelInfo) -> bool:
        """Whether a channel that is ours has entered the application, or is about to."""
        return True

    def _arrived(self, channel: ChannelInfo, agent: str, *, found: bool = False) -> None:
        if self._asking(channel.id) is not None:
            return  # in a party's place
        if any(channel.id in one.strays for leg in self._legs.values() for one in leg.consultations):
            self._hang_up_orphan(channel.id)
            return
        inside = not found or self._is_inside(channel)
        leg = self._leg_type(
            self._client,
            self._registry,
            channel,
            agent=agent or DEFAULT_AGENT,
            answer_at_once=self._answer_at_once,
            media_address=self._media_address,
            keep=self._keep,
            entered=inside,
            adopted=found and inside,
        )
        self._legs[channel.id] = leg
        self._start_call(leg)

    def _hang_up_orphan(self, channel_id: str) -> None:
        log.info("stasis.orphaned_channel", channel=channel_id)
        self._spawn(_drop(Channel(self._client, channel_id).hangup, channel_id))

    # Who does something, or leaves.

    def _key_pressed(self, channel_id: str, digit: str) -> None:
        call = self._registry.calls.get(channel_id)
        if call is not None and channel_id in self._legs:
            call.key_pressed(digit)

    def _asking(self, party: str) -> StasisConsultation | None:
        """Who asks the party with that channel."""
        found = (leg.consultation(party) for leg in self._legs.values())
        return next((one for one in found if one is not None), None)

    def _dialled(self, event: Dial) -> None:
        consultation, forwarded = self._asking(event.channel.id), event.forwarded
        if consultation is not None:
            consultation.dialled(event.status)
        if forwarded is not None and caller_of_party(event.channel.id) is not None:
            if consultation is not None:
                consultation.forwarded(forwarded.id)
            self._hang_up_orphan(forwarded.id)

    def _left(self, channel_id: str, cause: int = 0) -> None:
        media_of = caller_of_media(channel_id)
        caller = media_of or channel_id
        self._again.pop(channel_id, None)
        pair = self._pair_of(channel_id)
        if pair is not None:
            self._part(pair, pair.members & {channel_id})
        consultation = self._asking(channel_id)
        if consultation is not None:
            consultation.party_left(cause)
        leg, call = self._legs.get(caller), self._registry.calls.get(caller)
        if leg is None:
            return
        if media_of is not None:
            if call is not None:
                call.end(Cause.MEDIA_LOST, "the media channel left")
        else:
            leg.caller_left()  # for a call that has not begun to run yet, too
            if call is not None:
                call.end(Cause.CALLER_HANGUP)

    # Those who talk without a model.

    def _keep(self, pair: Joined, left: AbstractSet[str]) -> None:
        log.info("stasis.joined", call=pair.caller)
        self._joined[pair.caller] = pair
        self._part(pair, left)

    def _pair_of(self, channel_id: str) -> Joined | None:
        return next((pair for pair in self._joined.values() if channel_id in pair.members), None)

    def _replaced(self, old: str, new: str) -> bool:
        """``new`` has the place of ``old`` in its bridge, who has transferred the other one on. It comes
        before the old one leaves (``res/stasis/stasis_bridge.c``). False: ``old`` was neither joined with
        anybody nor a party."""
        pair = self._pair_of(old)
        if pair is None:
            consultation = self._asking(old)
            if consultation is not None and not consultation.replaced(new):
                self._hang_up_orphan(new)
            return consultation is not None
        log.info("stasis.transferred_on", call=pair.caller)
        pair.replace(old, new)
        if old != pair.caller:
            self._spawn(_drop(partial(note_party, self._client, pair.caller, new), pair.caller))
        return True

    def _part(self, pair: Joined, gone: AbstractSet[str]) -> None:
        """One of them has left, if ``gone`` names any: end the other's call."""
        if gone and not pair.parting:
            pair.parting = True
            self._spawn(self._end_pair(pair, gone))

    async def _end_pair(self, pair: Joined, gone: AbstractSet[str]) -> None:
        if await pair.part(gone):
            log.info("stasis.parted", call=pair.caller)
            self._joined.pop(pair.caller, None)
        # else it is known still, and tried again when the events are back

    def _adopt(self, there: Mapping[str, ChannelInfo], bridges: Iterable[BridgeInfo]) -> None:
        """Parties of calls that nobody knows: of an earlier life of this service, or given up too late."""
        inside = {bridge.id: bridge.channels for bridge in bridges}
        for channel in there.values():
            caller = caller_of_party(channel.id)
            if caller is None or caller in self._legs or caller in self._joined:
                continue
            pair = Joined(self._client, caller, channel.id)
            together = pair.members <= set(inside.get(bridge_of(caller), ()))
            if together and all(self._is_ours(there[member]) for member in pair.members if member in there):
                self._keep(pair, pair.members - there.keys())
            else:
                self._hang_up_orphan(channel.id)

    async def _clear_up(
        self, there: dict[str, ChannelInfo], bridges: Iterable[BridgeInfo]
    ) -> AbstractSet[str]:
        """Destroy media and bridges of calls that an earlier life of this service had, or another worker, so
        that they can begin anew. Media that are destroyed are taken out of ``there``.

        Returns the callers who shall not: each had been joined with a party, which has left.
        """
        orphans = [name for name in there if (caller_of_media(name) or "") not in self._legs]
        media = [name for name in orphans if caller_of_media(name) is not None]
        await asyncio.gather(*map(self._clear_media, media))
        for name in media:
            del there[name]
        known = self._legs.keys() | self._joined.keys()
        held = {caller_of_bridge(bridge.id): bridge for bridge in bridges}
        callers = [name for name in there if name in held.keys() - known and self._is_ours(there[name])]
        parties = await asyncio.gather(*map(self._party_of, callers))
        over = set()
        for caller, party in zip(callers, parties, strict=True):
            if party and {caller, party} <= set(held[caller].channels):  # his party has transferred him on
                self._keep(Joined(self._client, caller, party), frozenset())
            elif party:
                over.add(caller)
                self._hang_up_orphan(caller)
        unmade = [Bridge(self._client, bridge_of(one)) for one in callers if one not in self._joined]
        await asyncio.gather(*(_drop(bridge.destroy, bridge.id) for bridge in unmade))
        return over

    async def _clear_media(self, name: str) -> None:
        """Its name is that of the next one for the same caller: wait until it is free."""
        channel = Channel(self._client, name)
        log.info("stasis.orphaned_channel", channel=name)
        await _drop(channel.hangup, name)
        for pause in GONE_PAUSES:
            if isinstance(await failure_of(channel.get), AriNotFound):
                return
            await asyncio.sleep(pause)

    async def _party_of(self, caller: str) -> str:
        try:
            return await Channel(self._client, caller).get_variable(PARTY_VARIABLE) or ""
        except AriError:
            return ""


async def _drop(verb: Verb, name: str) -> None:
    failure = await failure_of(verb)
    if failure is not None:
        log.warning("stasis.orphan_stays", name=name, error=str(failure))
