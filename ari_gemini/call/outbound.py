"""Way A with Asterisk's outbound WebSockets: every caller in ``Stasis()`` comes on a connection of his own.

A caller's *stay* in the application begins with a link, and may see several: one breaks, or a worker dies,
and Asterisk connects to whatever listens then. Whoever holds the newest link has the caller. Nobody else can
do anything to him, since every request goes over a link, and Asterisk has one at a time. So a race between
two workers, or between a call that ends and one that begins, is decided by Asterisk. What follows from it:

==============================  ==========================================================================
a link comes and this worker    then
==============================  ==========================================================================
does not know the caller        he is about to enter (StasisStart follows within 500 ms): his call begins
                                at once. Or he is inside: he is adopted, and what a former worker left of
                                media and bridge is destroyed. Or he is joined with a party: he stays so.
has a call with him that is up  the call goes on over the new link; what was missed is made up for
is cleaning his call up         the clean-up goes on over the new link; if he is inside still when it is
                                through, he is adopted
has handed him over             once that is cleaned up, he is adopted
==============================  ==========================================================================

An adopted caller is served however many are up here: ``max_calls`` keeps out those alone who are about to
enter.

A link breaks while a call is up: its sound flows on. If the media connection ends, too, another worker has
adopted the caller (or Asterisk is gone): the call ends as HANDED_OVER and asks for nothing any more. If
neither comes to pass within ``ari.link_timeout``, Asterisk has given up and the caller has gone on in the
dialplan; the call ends as ARI_FAILED.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Unpack

import structlog

from ari_gemini.ari.channel import Bridge, Channel
from ari_gemini.ari.events import BridgeInfo, ChannelInfo
from ari_gemini.ari.link import AriLink
from ari_gemini.ari.outbound import OutboundListener
from ari_gemini.ari.requests import Requests
from ari_gemini.ari.settings import AriSettings
from ari_gemini.audiosocket.connection import MediaEnd
from ari_gemini.call.names import bridge_of, caller_of_bridge, caller_of_media, caller_of_party, media_of
from ari_gemini.call.registry import Registry
from ari_gemini.call.stasis import StasisWay, WayOptions
from ari_gemini.call.stasis_leg import StasisLeg
from ari_gemini.errors import AriError, AriNotFound, CallEnded, Cause

log = structlog.get_logger(__name__)

ENTER_SECONDS: Final = 2.0
"""StasisStart follows ApplicationRegistered within 500 ms (``res/ari/ari_websockets.c`` polls so often)."""
LEAVE_SECONDS: Final = 1.0
"""Asterisk says yes to ``continue`` and ``hangup`` before the caller has left the application."""
UNWANTED: Final = (
    "BridgeDestroyed",
    "ChannelCallerId",
    "ChannelConnectedLine",
    "ChannelDialplan",
    "ChannelEnteredBridge",
    "ChannelHangupRequest",
    "ChannelLeftBridge",
    "ChannelStateChange",
    "ChannelVarset",
)
"""Events of which nothing is made here. When a process is killed, its media connections end together with
its links, and Asterisk tells dead connections so. The first event still goes out; one that fails closes the
socket under the thread that is to connect anew (``res_http_websocket.c``, Asterisk 22.10.1), which may crash
(segmentation fault). Therefore these are filtered, and the media channel is unsubscribed from: of eight
events one is left, its StasisEnd."""
TIDY_SECONDS: Final = 60.0
"""Between two looks of a worker for bridges that nobody needs: they are rare, and all of Asterisk's bridges
are read for it."""
IDLE_SECONDS: Final = 15.0
"""Asterisk closes a link 3 s after its caller has left, which it may take 5 s to see, and which may take him
some time (``res/ari/ari_websockets.c``)."""
RETRY_SECONDS: Final = 1.0
"""Between two looks at a caller of whom Asterisk did not say where he is."""


class Bond(Requests):
    """What a caller's call asks through: the newest of his links. Knows his channels and bridges alone."""

    def __init__(self, link: AriLink) -> None:
        self.link = link
        self.caller = ""
        """The id of his channel, once known."""
        self.inside: frozenset[str] = frozenset()
        """Channels that had entered the application when it was last looked at."""

    @property
    def app(self) -> str:
        """The caller's own application."""
        return self.link.app

    @property
    def request_timeout(self) -> float:
        """How long one request may take, s."""
        return self.link.request_timeout

    @property
    def connected(self) -> bool:
        """False from the end of one link to the beginning of the next."""
        return self.link.connected

    async def request(self, resource: str, nickname: str, **params: str | int | None) -> object:
        """As the link does it. Raises AriUnavailable while there is none."""
        return await self.link.request(resource, nickname, **params)

    async def channels(self) -> list[ChannelInfo]:
        """The caller's channel, and those that were made for his call: not all of Asterisk's."""
        application = await self.application(self.app)
        self.inside = frozenset(application.channel_ids)
        caller = await self._find_caller()
        # the application is not subscribed to the media channel, and so does not name it
        names = self.inside | {caller, media_of(caller)} if caller else self.inside
        found = await asyncio.gather(*(self._channel(name) for name in sorted(names)))
        return [channel for channel in found if channel is not None]

    async def bridges(self) -> list[BridgeInfo]:
        """The bridges that were made for his call."""
        application = await self.application(self.app)
        # the application does not name one that nobody has been in
        names = set(application.bridge_ids) | ({bridge_of(self.caller)} if self.caller else set())
        found = await asyncio.gather(*(self._bridge(name) for name in sorted(names)))
        return [bridge for bridge in found if bridge is not None]

    async def is_gone(self) -> bool:
        """The caller's channel is there no more. Raises AriError."""
        caller = await self._find_caller()
        return not caller or await self._channel(caller) is None

    async def _find_caller(self) -> str:
        """The caller's channel, by the name in the application's. Asterisk takes names here (22.10.1).

        Empty when it is gone: an id, once known, stays.
        """
        if not self.caller:
            try:
                self.caller = await Channel(self, self.link.channel_name).get_variable("UNIQUEID") or ""
            except AriNotFound:
                return ""
        return self.caller

    async def _channel(self, name: str) -> ChannelInfo | None:
        try:
            return await Channel(self, name).get()
        except AriNotFound:
            return None

    async def _bridge(self, name: str) -> BridgeInfo | None:
        try:
            return await Bridge(self, name).get()
        except AriNotFound:
            return None


class OutboundLeg(StasisLeg):
    """One caller whose requests and events share a connection."""

    def media_ended(self, end: MediaEnd) -> CallEnded:
        """Without a link the media is another worker's to end."""
        if self._client.connected:
            return super().media_ended(end)
        self.hand_over()
        return CallEnded(Cause.HANDED_OVER, f"no connection to Asterisk, and no media: {end}")

    async def _let_go(self, ended: CallEnded) -> None:
        # as long as he is about to enter, nothing can be done with his channel
        with suppress(TimeoutError):
            async with asyncio.timeout(ENTER_SECONDS):
                await self._entered.wait()
        await super()._let_go(ended)


class _Caller(StasisWay):
    """The way of one caller."""

    _leg_type = OutboundLeg

    def __init__(self, bond: Bond, base: str, registry: Registry, **given: Unpack[WayOptions]) -> None:
        super().__init__(bond, registry, **given)
        self._bond = bond
        self._apps = {base, bond.app}
        """The caller's channel says the first, the channels made for him the second."""

    @property
    def legs(self) -> list[StasisLeg]:
        """Calls in progress, those being cleaned up included: one, or none."""
        return list(self._legs.values())

    @property
    def joined(self) -> bool:
        """He talks with another party, without a model."""
        return bool(self._joined)

    def _is_ours(self, channel: ChannelInfo) -> bool:
        return channel.app_name == "Stasis" and channel.app_data.partition(",")[0] in self._apps

    def _is_inside(self, channel: ChannelInfo) -> bool:
        return channel.id in self._bond.inside

    def _entered(self, channel: ChannelInfo, agent: str) -> None:
        super()._entered(channel, agent)
        if caller_of_media(channel.id) in self._legs:
            self._spawn(self._unsubscribe(self._bond.link, channel.id))

    @staticmethod
    async def _unsubscribe(link: AriLink, channel_id: str) -> None:
        try:
            await link.unsubscribe(channel_id)
        except AriError as error:  # more events than needed, or it was done over a former link
            log.debug("! ari events not unsubscribed", application=link.app, error=str(error))


class _Stay:
    """One caller, from his first link here until neither link nor call is left."""

    def __init__(self, link: AriLink, way: OutboundWay, caller: Callable[[Bond], _Caller]) -> None:
        self.name = link.app
        self.over = asyncio.Event()
        self._bond = Bond(link)
        self._caller = caller(self._bond)
        self._way = way
        self._leaving = False
        self._late: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._look_again = False
        """A link came while a call was being cleaned up: it may have been too late for that."""
        self._next: AriLink | None = None
        """Came while a call that has been handed over is still being cleaned up."""
        self.take(link)

    def take(self, link: AriLink) -> None:
        """A new link, the first or in the place of one that broke."""
        link.on_closed = lambda: self._link_closed(link)
        old = self._next
        if self._handed_over:
            self._next = link
        else:
            old, self._bond.link = self._bond.link, link
            self._look_again = any(leg.over for leg in self._caller.legs)
            link.on_event = self._caller.on_event
            self._stop_waiting()
            self._way.spawn(self._meet(link))
        if old is not None and old is not link:
            self._way.spawn(old.close())

    def call_over(self, call_id: str) -> None:
        """That call has ended and cleaned up; nothing happens when it is another stay's."""
        if all(leg.id != call_id for leg in self._caller.legs):
            return
        handed_over = self._handed_over
        self._caller.call_over(call_id)
        if handed_over:
            self._end()
        elif not self._bond.connected:
            self._link_closed(self._bond.link)
        elif self._look_again:
            self._way.spawn(self._meet(self._bond.link, LEAVE_SECONDS))
        else:
            self._expect_end()

    def hand_over(self) -> None:
        """End the call without touching the caller, then close the link: Asterisk brings him elsewhere."""
        self._leaving = True
        if not self._caller.legs:
            self._end()
        for leg in self._caller.legs:
            leg.hand_over()
            self._way.end_call(leg.id, Cause.HANDED_OVER)

    @property
    def _handed_over(self) -> bool:
        return self._leaving or any(leg.handed_over for leg in self._caller.legs)

    async def _meet(self, link: AriLink, pause: float = 0.0) -> None:
        """Look at what there is of the caller, again and again until Asterisk has said it."""
        await asyncio.sleep(pause)
        while self._bond.link is link and link.connected:
            if await self._caller.reconciled():
                await self._hush(link)
                await self._way.tidy_up(link)
                self._expect_end()
                return
            await asyncio.sleep(RETRY_SECONDS)

    @staticmethod
    async def _hush(link: AriLink) -> None:
        try:
            await link.ignore(UNWANTED)
        except AriError as error:  # more events than needed, that is all
            log.debug("! ari events not filtered", application=link.app, error=str(error))

    def _expect_end(self) -> None:
        """Asterisk closes the link of who has gone, but forgets that of who went while it was down."""
        if self._idle is not None:
            self._idle.cancel()  # counted from the last call's end: a link closed before that is made anew
        if not self.over.is_set():
            self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._end_idle)

    def _end_idle(self) -> None:
        self._idle = None
        if self._bond.connected and not self._caller.legs and not self._caller.joined:
            self._way.spawn(self._end_if_gone(self._bond.link))

    async def _end_if_gone(self, link: AriLink) -> None:
        try:
            gone = await self._bond.is_gone()
        except AriError:
            gone = False
        if self._bond.link is not link or self._caller.legs or self._caller.joined or self.over.is_set():
            return
        if gone:
            log.info("! ari link of nobody", application=self.name)
            self._end()
        else:  # he has gone on in the dialplan, and may come back
            self._expect_end()

    def _link_closed(self, link: AriLink) -> None:
        if link is self._next:
            self._next = None
        if link is not self._bond.link or self._handed_over or self.over.is_set():
            return
        if not self._caller.legs and not self._caller.joined:
            self._end()
        elif self._late is None:
            log.info("! ari link lost", application=self.name)
            loop = asyncio.get_running_loop()
            self._late = loop.call_later(self._way.link_timeout, self._give_up)

    def _give_up(self) -> None:
        """Asterisk has not come back here: the caller is elsewhere, or gone."""
        detail = f"no connection for {self._way.link_timeout:g} s"
        log.warning("! ari link not made anew", application=self.name, detail=detail)
        if not self._caller.legs:
            self._end()
        for leg in self._caller.legs:
            self._way.end_call(leg.id, Cause.ARI_FAILED, detail)

    def _end(self) -> None:
        if self.over.is_set():
            return
        self.over.set()
        self._stop_waiting()
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self._way.forget(self)
        if self._bond.connected:
            self._way.spawn(self._bond.link.close())
        if self._next is not None:
            self._way.linked(self._next)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class OutboundWay:
    """Takes Asterisk's connections: starts a call for each caller, tells legs what happens to their channels.

    Callers do not wait for one another: each has a connection and tasks of his own.
    """

    def __init__(self, settings: AriSettings, registry: Registry, **given: Unpack[WayOptions]) -> None:
        """``given`` is what a StasisWay takes. Raises ConfigError when there is no password."""
        self.listener = OutboundListener(settings, self.linked)
        self.link_timeout = settings.link_timeout
        self.spawn = given["spawn"]
        self._settings = settings
        self._registry = registry
        self._given = given
        self._stays: dict[str, _Stay] = {}
        """By application, which is the caller's own."""
        self._tidy_at = 0.0

    async def start(self) -> None:
        """Take connections. Raises ConfigError when the address cannot be had."""
        await self.listener.start()

    async def close(self) -> None:
        """Close every connection. Comes after the end of every call, and while tasks can be spawned still.

        Callers who are there after all are brought elsewhere by Asterisk.
        """
        await self.listener.close()

    async def hand_over(self) -> None:
        """Give every caller away: take no more, end the calls as HANDED_OVER, close the links.

        Asterisk then connects to whatever listens, within its ``reconnect_attempts``; pairs that talk without
        a model are given away, too. Returns when it is done, which takes as long as the clean-up of the
        slowest call; cancelling ends the waiting alone.
        """
        self.listener.stop_accepting()
        stays = list(self._stays.values())
        for stay in stays:
            stay.hand_over()
        await asyncio.gather(*(stay.over.wait() for stay in stays))

    def linked(self, link: AriLink) -> None:
        """Asterisk has opened a connection for a caller. Never waits."""
        stay = self._stays.get(link.app)
        if stay is not None:
            log.info("= ari link again", application=link.app)
            stay.take(link)
        else:
            self._stays[link.app] = _Stay(link, self, self._new_caller)

    async def tidy_up(self, link: AriLink) -> None:
        """Now and then, remove the bridges of callers who left while no worker had them, and hang up on
        parties who are alone there. Never raises."""
        now = asyncio.get_running_loop().time()
        if now < self._tidy_at:
            return
        self._tidy_at = now + TIDY_SECONDS
        try:
            for bridge in await link.bridges():
                caller = caller_of_bridge(bridge.id)
                if caller is None or any(caller_of_party(one) != caller for one in bridge.channels):
                    continue
                where = await _where(Channel(link, caller))
                if where == "Stasis":
                    continue
                for party in bridge.channels:
                    log.info("outbound.orphaned_channel", channel=party)
                    await Channel(link, party).hangup()
                if where is None:  # from the dialplan he may come back, and need one of that name
                    log.info("outbound.orphaned_bridge", bridge=bridge.id)
                    await Bridge(link, bridge.id).destroy()
        except AriError as error:
            log.debug("! not tidied up", application=link.app, error=str(error))

    def call_over(self, call_id: str) -> None:
        """The call with that id has ended and cleaned up."""
        for stay in list(self._stays.values()):
            stay.call_over(call_id)

    def end_call(self, call_id: str, cause: Cause, detail: str = "") -> None:
        """End a call, if it runs."""
        call = self._registry.calls.get(call_id)
        if call is not None:
            call.end(cause, detail)

    def forget(self, stay: _Stay) -> None:
        """That stay is over."""
        if self._stays.get(stay.name) is stay:
            del self._stays[stay.name]

    def _new_caller(self, bond: Bond) -> _Caller:
        return _Caller(bond, self._settings.app, self._registry, **self._given)


async def _where(channel: Channel) -> str | None:
    """The dialplan application it is in; None when it is gone."""
    try:
        return (await channel.get()).app_name
    except AriNotFound:
        return None
