"""How the simulated Asterisk behaves: what happens to channels and bridges, and which events tell of it.

The order of events is that of a real Asterisk 22.10.1, watched through the same steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

from ari_gemini.simulator.asterisk_media import (
    FORMAT_KINDS,
    RINGING_ON,
    RINGING_PERIOD,
    RINGING_TONE,
    SILENCE,
    Leg,
)
from ari_gemini.simulator.asterisk_state import (
    NORMAL_CLEARING,
    SOFT_HANGUP,
    Continuation,
    Json,
    SimBridge,
    SimChannel,
)

USER_BUSY, NO_ANSWER = 17, 19
"""ITU-T Q.850."""

CAUSE_TEXTS = {
    NORMAL_CLEARING: "Normal Clearing",
    USER_BUSY: "User busy",
    NO_ANSWER: "User alerting, no answer",
}
"""Asterisk's words for a Q.850 cause, where a test may see them."""

OUTGOING = ("AppDial2", "(Outgoing Line)")
"""Application and data of a channel that Asterisk made by request, before and after its own."""

Emit = Callable[[str | None, str, Json], None]
"""Sends an event: application (None: nobody), type, fields."""


class Switch:
    """Channels, bridges, and what can happen to them. Every method acts at once."""

    def __init__(self, emit: Emit, listening: Callable[[str], bool]) -> None:
        """``listening`` tells whether anybody is connected for an application."""
        self.channels: dict[str, SimChannel] = {}
        self.bridges: dict[str, SimBridge] = {}
        self.places: set[str] | None = None
        """What the dialplan has, as ``context,extension,priority``; None: whatever one asks for."""
        self._emit = emit
        self._listening = listening

    def _tell(self, channel: SimChannel, kind: str, **fields: object) -> None:
        if channel.subscriptions > 0 or kind in {"StasisStart", "StasisEnd"}:
            self._emit(channel.stasis or channel.subscriber, kind, {**fields, "channel": channel.to_json()})

    def _varset(self, channel: SimChannel, name: str, value: str) -> None:
        self._tell(channel, "ChannelVarset", variable=name, value=value)

    # -- Stasis --------------------------------------------------------------------------------------------

    def add(self, channel: SimChannel) -> None:
        """Take a new channel in. Raises KeyError when its id is taken."""
        if channel.id in self.channels:
            raise KeyError(channel.id)
        self.channels[channel.id] = channel

    def enter_stasis(self, channel: SimChannel, app: str, args: list[str], written: str = "") -> None:
        """``Stasis(app,args...)``. Where nobody is connected for it, the dialplan goes on at once.

        ``written`` is the application's name in the dialplan, when the channel has one of its own.
        """
        channel.app_name, channel.app_data = "Stasis", ",".join([written or app, *args])
        channel.variables["STASISSTATUS"] = ""
        if not self._listening(app):
            self._leave_app(channel, "FAILED")
            return
        channel.stasis = app
        if channel.subscriber is not None:
            self._varset(channel, "STASISSTATUS", "")
        self._tell(channel, "StasisStart", args=args)

    def continue_in_dialplan(self, channel: SimChannel, where: Continuation) -> None:
        """Leave Stasis for the dialplan, unless it has left already."""
        if channel.stasis is None:
            return
        channel.continued = where
        self._end_stasis(channel)

    def _end_stasis(self, channel: SimChannel) -> None:
        self.leave_bridge(channel)
        self._tell(channel, "StasisEnd")
        channel.stasis = None
        self._leave_app(channel, "SUCCESS")

    def fail_stasis(self, channel: SimChannel) -> None:
        """The application is given up: the dialplan goes on, with STASISSTATUS as it is then."""
        self.leave_bridge(channel)
        channel.stasis = None
        self._leave_app(channel, "FAILED")

    def _leave_app(self, channel: SimChannel, status: str) -> None:
        channel.variables["STASISSTATUS"] = status
        self._varset(channel, "STASISSTATUS", status)
        self.go_on(channel)

    def go_on(self, channel: SimChannel) -> None:
        """The dialplan has the channel again: it keeps it, or that was its end."""
        if channel.hangup_cause is None:
            channel.continued = channel.continued or Continuation()
            where = channel.continued
            channel.context = where.context or channel.context
            channel.exten = where.extension or channel.exten
            channel.priority = where.priority or channel.priority + 1
            channel.app_name, channel.app_data = "Wait", "60"
        channel.left.set()
        stays = channel.dialplan_stays and not channel.is_media and self._leads_on(channel)
        if channel.hangup_cause is None and not stays:
            self.hang_up(channel)

    def _leads_on(self, channel: SimChannel) -> bool:
        """Where the dialplan has no such place, that is the end of the call."""
        where = channel.continued
        if where is None or where == Continuation():
            return True
        return self.has_place(f"{channel.context},{channel.exten},{channel.priority}")

    def has_place(self, place: str) -> bool:
        """Whether the dialplan has ``context,extension,priority``."""
        return self.places is None or place in self.places

    # -- verbs ---------------------------------------------------------------------------------------------

    def answer(self, channel: SimChannel) -> None:
        """Answer; the caller begins to speak and to hear."""
        channel.ringing = False
        if channel.state == "Up":
            return
        channel.state = "Up"
        self._tell(channel, "ChannelStateChange")
        channel.answered.set()
        if channel.phone is not None:
            channel.phone.start(lambda frame: self._from_phone(channel, frame))

    def ring(self, channel: SimChannel) -> None:
        """Let the caller hear that it rings; in a bridge he does not."""
        channel.ringing = channel.bridge is None
        channel.tone_frames = 0

    def play_digits(
        self, channel: SimChannel, digits: str, spans: list[tuple[float, float]], end: float
    ) -> None:
        """Digits sound to the caller at these times; until ``end`` the channel does nothing else."""
        channel.digits_heard += digits
        channel.sounding = [*(one for one in channel.sounding if one[1] > spans[0][0] - 60), *spans]
        channel.busy_until = end
        if channel.is_media and channel.leg is not None:
            for digit in digits:
                channel.leg.send_digit(digit)

    def set_variable(self, channel: SimChannel, name: str, value: str) -> None:
        """Set a channel variable."""
        channel.variables[name] = value
        self._varset(channel, name, value)

    def press(self, channel: SimChannel, digit: str) -> None:
        """The caller pressed a key: an event, and a message to the AudioSocket it is bridged with."""
        self._tell(channel, "ChannelDtmfReceived", digit=digit, duration_ms=100)
        if (leg := self._leg_of(channel)) is not None:
            leg.send_digit(digit)

    def hang_up(
        self,
        channel: SimChannel,
        cause: int = NORMAL_CLEARING,
        *,
        requested: bool = False,
        told: bool = False,
    ) -> None:
        """End a channel, by the caller, by request through ARI, or (``told`` False) by itself."""
        if channel.hangup_cause is not None:
            return
        if requested:
            self._tell(channel, "ChannelHangupRequest", cause=SOFT_HANGUP, soft=True)
        elif told:
            self._tell(channel, "ChannelHangupRequest", cause=cause)
        if channel.called and channel.state != "Up" and (requested or told):
            self.dialled(channel, "NOANSWER" if requested else "BUSY" if cause == USER_BUSY else "CONGESTION")
        channel.hangup_cause = cause
        if channel.stasis is not None:
            self._end_stasis(channel)
        channel.left.set()
        if channel.subscriber is not None:
            channel.app_name, channel.app_data = OUTGOING
            # what happened behind the first half of a Local channel is the second half's cause alone
            known = 0 if channel.far_half is not None and channel.state != "Up" and told else cause
            text = CAUSE_TEXTS.get(known, "Unknown")
            self._tell(channel, "ChannelDestroyed", cause=known, cause_txt=text)
        self.channels.pop(channel.id, None)
        self._release(channel)
        channel.gone.set()
        if channel.far_half is not None:
            self.hang_up(channel.far_half, cause)

    def dialled(self, channel: SimChannel, status: str) -> None:
        """Tell how the calling of a channel goes on."""
        fields = {"dialstatus": status, "forward": "", "dialstring": channel.name.rpartition("-")[0]}
        self._emit(channel.subscriber, "Dial", {**fields, "peer": channel.to_json()})

    def rings(self, channel: SimChannel) -> None:
        """The phone that was called rings."""
        channel.state = "Ringing"
        self._tell(channel, "ChannelStateChange")
        self.dialled(channel, "RINGING")

    def picked_up(self, channel: SimChannel, app: str, args: list[str]) -> None:
        """The one who was called answers, and his channel enters the application."""
        self.answer(channel)
        self.dialled(channel, "ANSWER")
        self.enter_stasis(channel, app, args)

    def _release(self, channel: SimChannel) -> None:
        if channel.phone is not None:
            channel.phone.stop()
        if channel.leg is not None:
            channel.leg.close()

    # -- bridges -------------------------------------------------------------------------------------------

    def join(self, bridge: SimBridge, channel: SimChannel) -> None:
        """Put a channel into a bridge, out of the one it is in."""
        if channel.bridge is not None:
            self.leave_bridge(channel)
        bridge.channels.append(channel)
        channel.bridge = bridge
        if channel.stasis is not None:
            bridge.audience.add(channel.stasis)
        self._tell(channel, "ChannelEnteredBridge", bridge=bridge.to_json())
        if len(bridge.channels) == 2:
            first, second = bridge.channels
            self._varset(first, "BRIDGEPEER", second.name)
            self._varset(second, "BRIDGEPEER", first.name)
            self._connect_line(first, second)
            self._connect_line(second, first)

    def _connect_line(self, channel: SimChannel, other: SimChannel) -> None:
        known = channel.connected_name, channel.connected_number
        channel.connected_name, channel.connected_number = other.caller_name, other.caller_number
        if known != (channel.connected_name, channel.connected_number):
            self._tell(channel, "ChannelConnectedLine")

    def leave_bridge(self, channel: SimChannel) -> None:
        """Take a channel out of its bridge, if it is in one; it stays in Stasis."""
        bridge = channel.bridge
        if bridge is None:
            return
        bridge.channels.remove(channel)
        channel.bridge = None
        self._varset(channel, "BRIDGEPEER", "")
        self._tell(channel, "ChannelLeftBridge", bridge=bridge.to_json())

    def destroy(self, bridge: SimBridge) -> None:
        """Destroy a bridge; its channels stay in Stasis, unbridged."""
        for channel in list(bridge.channels):
            self.leave_bridge(channel)
        del self.bridges[bridge.id]
        for app in sorted(bridge.audience):
            self._emit(app, "BridgeDestroyed", {"bridge": bridge.to_json()})

    # -- AudioSocket ---------------------------------------------------------------------------------------

    async def external_media(
        self, channel_id: str, app: str, where: str, call_id: UUID, form: str
    ) -> SimChannel:
        """Dial the service and make the channel that will enter ``app``.

        Raises OSError or TimeoutError when nobody answers; KeyError when the format is unknown or, after
        dialling as Asterisk does, when the id is taken.
        """
        channel = SimChannel(channel_id, f"AudioSocket/{where}-{call_id}", state="Down", subscriber=app)
        channel.app_name, channel.app_data = OUTGOING
        leg = await self._dial(channel, where, call_id, FORMAT_KINDS[form])
        try:
            self.add(channel)
        except KeyError:
            leg.close()
            raise
        leg.on_audio = lambda frame: self._to_caller(channel, frame)
        leg.on_end = lambda _orderly: self.hang_up(channel)
        return channel

    def bring_up(self, channel: SimChannel, app: str, args: list[str]) -> None:
        """What follows the answer to ``externalMedia``: the channel is up and enters the application."""
        if channel.hangup_cause is not None:
            return
        peer = channel.to_json()
        self._emit(app, "Dial", {"dialstatus": "", "forward": "", "dialstring": channel.name, "peer": peer})
        channel.state = "Up"
        self._tell(channel, "ChannelStateChange")
        answer: Json = {"dialstatus": "ANSWER", "forward": "", "dialstring": channel.name}
        self._emit(app, "Dial", {**answer, "peer": channel.to_json()})
        self.enter_stasis(channel, app, args)

    async def audiosocket_app(self, channel: SimChannel, where: str, call_id: UUID) -> None:
        """``AudioSocket(UUID,HOST:PORT)`` on an answered channel.

        After a hangup message or end of file the dialplan goes on; after anything worse the channel is gone.
        Raises OSError or TimeoutError when nobody answers; the channel is gone then.
        """
        channel.app_name, channel.app_data = "AudioSocket", f"{call_id},{where}"
        try:
            leg = await self._dial(channel, where, call_id, FORMAT_KINDS["slin"])
        except (OSError, TimeoutError):
            self.hang_up(channel)
            raise
        if channel.hangup_cause is not None:
            leg.close()
            return
        leg.on_audio = lambda frame: self._to_phone(channel, frame)
        leg.on_end = lambda orderly: self.go_on(channel) if orderly else self.hang_up(channel)

    @staticmethod
    async def _dial(channel: SimChannel, where: str, call_id: UUID, kind: int) -> Leg:
        host, _, port = where.rpartition(":")
        leg = Leg(call_id, kind)
        channel.leg = leg
        await leg.dial(host.strip("[]"), int(port))
        return leg

    def _from_phone(self, channel: SimChannel, frame: bytes) -> bool:
        """20 ms of somebody with a phone, to everybody he is bridged with. False: nobody heard it."""
        if channel.ringing:
            on = channel.tone_frames % RINGING_PERIOD < RINGING_ON
            channel.tone_frames += 1
            if channel.phone is not None:
                channel.phone.hear(RINGING_TONE if on else SILENCE)
        leg = self._leg_of(channel)
        heard = leg is not None and leg.open
        if leg is not None and heard:
            leg.send_audio(frame)
        for other in channel.bridge.channels if channel.bridge is not None else ():
            if other is not channel and other.phone is not None:
                if channel.far_half is not None or other.far_half is not None:
                    other.ringing = False  # Asterisk passes the sound on itself, which ends the tone
                self._to_phone(other, frame)
                heard = True
        return heard

    def _leg_of(self, channel: SimChannel) -> Leg | None:
        """The AudioSocket that hears this caller now."""
        if channel.leg is not None:
            return channel.leg
        for other in channel.bridge.channels if channel.bridge is not None else ():
            if other.leg is not None:
                return other.leg
        return None

    def _to_caller(self, media: SimChannel, frame: bytes) -> None:
        for other in media.bridge.channels if media.bridge is not None else ():
            if other is not media:
                other.ringing = False
                self._to_phone(other, frame)

    @staticmethod
    def _to_phone(channel: SimChannel, frame: bytes) -> None:
        if channel.phone is None or channel.state != "Up":
            return
        now = asyncio.get_running_loop().time() if channel.sounding else 0.0
        if not any(begin <= now < end for begin, end in channel.sounding):
            channel.phone.hear(frame)

    async def wait_quiet(self) -> None:
        """Hang everybody up, destroy every bridge, and wait until no connection is left."""
        legs = [channel.leg for channel in self.channels.values() if channel.leg is not None]
        for channel in list(self.channels.values()):
            self.hang_up(channel)
        for bridge in list(self.bridges.values()):
            self.destroy(bridge)
        await asyncio.gather(*(leg.wait_closed() for leg in legs))
