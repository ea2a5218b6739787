"""ARI requests to the simulated Asterisk: what each asks of the switch, and how a refusal is worded.

Status codes and messages are those of a real Asterisk 22.10.1.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from uuid import UUID, uuid4

from ari_gemini.simulator.asterisk_media import FORMAT_KINDS
from ari_gemini.simulator.asterisk_party import Exchange
from ari_gemini.simulator.asterisk_state import (
    HANGUP_REASONS,
    Continuation,
    Json,
    SimBridge,
    SimChannel,
)
from ari_gemini.simulator.asterisk_switch import Switch

VERSION = "22.10.1-simulated"
MODULES = (
    "app_audiosocket.so",
    "app_stasis.so",
    "bridge_simple.so",
    "bridge_softmix.so",
    "chan_audiosocket.so",
    "func_uuid.so",
    "res_ari.so",
    "res_ari_applications.so",
    "res_ari_asterisk.so",
    "res_ari_bridges.so",
    "res_ari_channels.so",
    "res_ari_events.so",
    "res_audiosocket.so",
    "res_http_websocket.so",
    "res_stasis.so",
    "res_stasis_answer.so",
)
"""What the simulated Asterisk claims to have loaded."""

DTMF_MS = 100
"""Length of a digit and of the pause after it, ms, unless told (``AST_DEFAULT_EMULATE_DTMF_DURATION``)."""
DTMF_SHORTEST = 0.100
"""No digit is shorter, s, whatever was told."""
DTMF_LEAD = 0.100
"""What Asterisk waits before the first digit of a request, s."""
DTMF_PAUSE = 0.500
"""A ``w`` among the digits, s."""
DISSOLVING = 0.020
"""So long the channels of a destroyed bridge take to leave it, s; the real Asterisk needs it now and then.
Nobody else can have its name meanwhile, though it is no more to be found (``res/ari/resource_bridges.c``)."""
INTERNAL_ERROR = "An internal error prevented this request from being handled"


class Refused(Exception):  # an answer, not a defect
    """An HTTP error status with Asterisk's words. A fault hook may raise it too."""

    def __init__(self, status: int, message: str = INTERNAL_ERROR) -> None:
        super().__init__(f"{status} {message}")
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Ask:
    """One request's parameters, from path, query and body alike."""

    params: Mapping[str, str]

    def get(self, name: str) -> str | None:
        """A parameter; empty counts as absent."""
        return self.params.get(name) or None

    def __getitem__(self, name: str) -> str:
        """A required parameter. Raises Refused (400)."""
        value = self.get(name)
        if value is None:
            raise Refused(400, f"{name} can not be empty")
        return value

    def ms(self, name: str, default: int) -> float:
        """A time in milliseconds, as seconds. Raises Refused (400)."""
        value = self.get(name)
        if value is not None and not value.isdecimal():
            raise Refused(400, f"{name} must be a number")
        return (default if value is None else int(value)) / 1000


Handler = Callable[[Ask], Awaitable[object]]
"""Answers one request: JSON, or None for 204. Raises Refused."""


class Rest:
    """The operations, one method each, named resource_nickname."""

    def __init__(self, switch: Switch, listening: Callable[[], set[str]]) -> None:
        """``listening`` names the applications that somebody is connected for."""
        self._switch = switch
        self._listening = listening
        self._dissolving: set[str] = set()
        self.exchange = Exchange(switch)
        """Who can be called."""

    def handler(self, resource: str, nickname: str) -> Handler:
        """The method for an operation of the description."""
        snake = re.sub(r"([A-Z]+)", r"_\1", nickname).lower()
        found: Handler = getattr(self, f"{resource}_{snake}")
        return found

    # -- who is it about -----------------------------------------------------------------------------------

    def _channel(self, ask: Ask) -> SimChannel:
        channel = self._switch.channels.get(ask["channelId"])
        if channel is None:
            raise Refused(404, "Channel not found")
        return channel

    def _in_stasis(self, ask: Ask) -> SimChannel:
        channel = self._channel(ask)
        _must_be_in_stasis(channel, 409)
        return channel

    async def _in_stasis_idle(self, ask: Ask) -> SimChannel:
        """The channel, once it has played the digits it was given: Asterisk does one thing after another."""
        channel = self._in_stasis(ask)
        await self._digits_played(channel)
        if channel.id not in self._switch.channels:
            raise Refused(404, "Channel not found")
        _must_be_in_stasis(channel, 409)
        return channel

    @staticmethod
    async def _digits_played(channel: SimChannel) -> None:
        wait = channel.busy_until - asyncio.get_running_loop().time()
        if wait > 0 and channel.hangup_cause is None:
            try:
                await asyncio.wait_for(channel.gone.wait(), wait)
            except TimeoutError:
                return

    def _bridge(self, ask: Ask) -> SimBridge:
        bridge = self._switch.bridges.get(ask["bridgeId"])
        if bridge is None:
            raise Refused(404, "Bridge not found")
        return bridge

    async def _listed(self, ask: Ask) -> list[SimChannel]:
        listed = []
        for channel_id in filter(None, ask["channel"].split(",")):
            channel = self._switch.channels.get(channel_id)
            if channel is None:
                raise Refused(400, "Channel not found")
            _must_be_in_stasis(channel, 422)
            await self._digits_played(channel)
            listed.append(channel)
        return listed

    # -- asterisk, applications ----------------------------------------------------------------------------

    async def asterisk_get_info(self, _ask: Ask) -> Json:
        return {
            "system": {"version": VERSION, "entity_id": "02:00:00:00:00:01"},
            "config": {"name": "simulated", "default_language": "en", "setid": {"user": "", "group": ""}},
        }

    async def asterisk_ping(self, _ask: Ask) -> Json:
        return {"asterisk_id": "02:00:00:00:00:01", "ping": "pong"}

    async def asterisk_list_modules(self, _ask: Ask) -> list[Json]:
        return [
            {"name": name, "description": "", "use_count": 0, "status": "Running", "support_level": "core"}
            for name in MODULES
        ]

    async def applications_list(self, _ask: Ask) -> list[Json]:
        return [self._application(name) for name in sorted(self._applications())]

    async def applications_get(self, ask: Ask) -> Json:
        if ask["applicationName"] not in self._applications():
            raise Refused(404, "Application not found")
        return self._application(ask["applicationName"])

    async def applications_filter(self, ask: Ask) -> Json:
        return await self.applications_get(ask)  # events left out are none that a test would miss

    async def applications_unsubscribe(self, ask: Ask) -> Json:
        await self.applications_get(ask)
        name = ask["applicationName"]
        for source in ask["eventSource"].split(","):
            scheme, _, channel_id = source.partition(":")
            if scheme != "channel":
                raise Refused(400, "Invalid event source URI scheme")
            channel = self._switch.channels.get(channel_id)
            if (
                channel is None
                or channel.subscriptions <= 0
                or name not in {channel.stasis, channel.subscriber}
            ):
                raise Refused(422, "Event source was not subscribed to")
            channel.unsubscribed += 1
        return self._application(name)

    def _applications(self) -> set[str]:
        """Connected ones, and those that still have channels though nobody is connected."""
        held = {c.stasis or c.subscriber for c in self._switch.channels.values()}
        return self._listening() | {name for name in held if name}

    def _application(self, name: str) -> Json:
        known = [c for c in self._switch.channels.values() if name in {c.stasis, c.subscriber}]
        channels = [channel.id for channel in known if channel.subscriptions > 0]
        bridges = [b.id for b in self._switch.bridges.values() if name in b.audience]
        return {
            "name": name,
            "channel_ids": channels,
            "bridge_ids": bridges,
            "endpoint_ids": [],
            "device_names": [],
            "events_allowed": [],
            "events_disallowed": [],
        }

    # -- channels ------------------------------------------------------------------------------------------

    async def channels_list(self, _ask: Ask) -> list[Json]:
        return [channel.to_json() for channel in self._switch.channels.values()]

    async def channels_get(self, ask: Ask) -> Json:
        return self._channel(ask).to_json()

    async def channels_hangup(self, ask: Ask) -> None:
        channel = self._channel(ask)
        cause = HANGUP_REASONS.get(ask.get("reason") or "normal")
        if cause is None:
            raise Refused(400, "Invalid reason for hangup reason provided")
        self._switch.hang_up(channel, cause, requested=True)

    async def channels_answer(self, ask: Ask) -> None:
        self._switch.answer(await self._in_stasis_idle(ask))

    async def channels_ring(self, ask: Ask) -> None:
        self._switch.ring(self._in_stasis(ask))

    async def channels_ring_stop(self, ask: Ask) -> None:
        self._in_stasis(ask).ringing = False

    async def channels_continue_in_dialplan(self, ask: Ask) -> None:
        channel = self._in_stasis(ask)
        priority = ask.get("priority")
        where = Continuation(
            ask.get("context"),
            ask.get("extension"),
            int(priority) if priority and priority.isdecimal() else None,
            ask.get("label"),
        )
        loop = asyncio.get_running_loop()
        if channel.busy_until <= loop.time():
            self._switch.continue_in_dialplan(channel, where)
        else:  # Asterisk answers at once and lets the channel go when it has played its digits
            loop.call_at(channel.busy_until, self._switch.continue_in_dialplan, channel, where)

    async def channels_send_dtmf(self, ask: Ask) -> None:
        digits = ask.get("dtmf")
        if digits is None:
            raise Refused(400, "DTMF is required")
        channel = self._in_stasis(ask)
        length, pause = max(DTMF_SHORTEST, ask.ms("duration", DTMF_MS)), ask.ms("between", DTMF_MS)
        at = max(asyncio.get_running_loop().time(), channel.busy_until) + ask.ms("before", 0) + DTMF_LEAD
        spans = []
        for digit in digits:
            if digit in "wW":
                at += DTMF_PAUSE
            else:
                spans.append((at, at + length))
                at += length + pause
        keys = "".join(digit for digit in digits if digit not in "wW")
        self._switch.play_digits(channel, keys, spans, at + ask.ms("after", 0))

    async def channels_get_channel_var(self, ask: Ask) -> Json:
        channel, name = self._named(ask["channelId"]), ask["variable"]
        if channel is None:
            raise Refused(404, "Provided channel was not found")
        builtin = {
            "CALLERID(num)": channel.caller_number,
            "CALLERID(name)": channel.caller_name,
            "UNIQUEID": channel.id,
        }
        if place := re.fullmatch(r"DIALPLAN_EXISTS\((.*)\)", name):
            return {"value": str(int(self._switch.has_place(place[1])))}
        value = builtin.get(name, channel.variables.get(name))
        if value is None:
            raise Refused(404, "Provided variable was not found")
        return {"value": value}

    def _named(self, name: str) -> SimChannel | None:
        """A channel by id or, as Asterisk does for variables, by name."""
        found = (channel for channel in self._switch.channels.values() if name in {channel.id, channel.name})
        return next(found, None)

    async def channels_set_channel_var(self, ask: Ask) -> None:
        channel = await self._in_stasis_idle(ask)
        self._switch.set_variable(channel, ask["variable"], ask.get("value") or "")

    async def channels_originate(self, ask: Ask) -> Json:
        endpoint, app = ask["endpoint"], ask["app"]
        timeout = ask.get("timeout") or "30"
        if not timeout.isdecimal():
            raise Refused(400, "timeout must be a number")
        originator, channel_id = ask.get("originator"), ask.get("channelId") or str(uuid4())
        if originator is not None and originator not in self._switch.channels:
            raise Refused(400, "Provided originator channel was not found")
        if {channel_id, ask.get("otherChannelId")} & self._switch.channels.keys():
            raise Refused(409, "Channel with given unique ID already exists")
        try:
            channel = self.exchange.dial(
                endpoint, channel_id, ask.get("otherChannelId"), app, ask.get("callerId") or ""
            )
        except LookupError:
            raise Refused(500, "Allocation failed") from None
        args = [arg for arg in (ask.get("appArgs") or "").split(",") if arg]
        answer = channel.to_json()
        self.exchange.go_on(endpoint, channel, app, args, float(timeout))
        return answer

    async def channels_external_media(self, ask: Ask) -> Json:
        app, form = ask["app"], ask["format"]
        where, call_id = _external_host(ask), ask["data"]
        if ask.get("encapsulation") != "audiosocket" or ask.get("transport") != "tcp":
            raise Refused(501, "The simulated Asterisk does AudioSocket over TCP only")
        try:
            channel = await self._switch.external_media(
                ask.get("channelId") or str(uuid4()), app, where, UUID(call_id), _known(form)
            )
        except (OSError, TimeoutError, ValueError, KeyError):
            raise Refused(500) from None
        answer = {
            **channel.to_json(),
            "channelvars": {"AUDIOSOCKET_SERVICE": where, "AUDIOSOCKET_UUID": call_id},
        }
        asyncio.get_running_loop().call_soon(self._switch.bring_up, channel, app, [call_id])
        return answer

    # -- bridges -------------------------------------------------------------------------------------------

    async def bridges_list(self, _ask: Ask) -> list[Json]:
        return [bridge.to_json() for bridge in self._switch.bridges.values()]

    async def bridges_create(self, ask: Ask) -> Json:
        return self._make_bridge(ask, ask.get("bridgeId") or str(uuid4()))

    async def bridges_create_with_id(self, ask: Ask) -> Json:
        return self._make_bridge(ask, ask["bridgeId"])

    def _make_bridge(self, ask: Ask, bridge_id: str) -> Json:
        if bridge_id in self._switch.bridges or bridge_id in self._dissolving:
            raise Refused(409, f"Bridge with id '{bridge_id}' already exists")
        bridge = SimBridge(bridge_id, ask.get("name") or "", ask.get("type") or "mixing")
        self._switch.bridges[bridge_id] = bridge
        return bridge.to_json()

    async def bridges_get(self, ask: Ask) -> Json:
        return self._bridge(ask).to_json()

    async def bridges_destroy(self, ask: Ask) -> None:
        bridge = self._bridge(ask)
        if bridge.channels:
            self._dissolving.add(bridge.id)
            asyncio.get_running_loop().call_later(DISSOLVING, self._dissolving.discard, bridge.id)
        self._switch.destroy(bridge)

    async def bridges_add_channel(self, ask: Ask) -> None:
        bridge = self._bridge(ask)
        for channel in await self._listed(ask):
            if channel.stasis is not None and bridge.id in self._switch.bridges:
                self._switch.join(bridge, channel)

    async def bridges_remove_channel(self, ask: Ask) -> None:
        bridge, channels = self._bridge(ask), await self._listed(ask)
        if any(channel.bridge is not bridge for channel in channels):
            raise Refused(422, "Channel not in this bridge")
        for channel in channels:
            self._switch.leave_bridge(channel)


def _must_be_in_stasis(channel: SimChannel, otherwise: int) -> None:
    if channel.stasis is None:
        raise Refused(otherwise, "Channel not in Stasis application")


def _external_host(ask: Ask) -> str:
    where = ask.get("external_host")
    if where is None:
        raise Refused(400, "external_host is required for all but websocket server connections")
    host, _, port = where.rpartition(":")
    if not host or not port.isdecimal():
        raise Refused(400, "external_host must be <host>:<port> for all transports other than websocket")
    return where


def _known(form: str) -> str:
    if form not in FORMAT_KINDS:
        raise KeyError(form)
    return form
