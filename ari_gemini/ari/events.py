"""What Asterisk's JSON means: the events and resources a call needs, as frozen values. Pure.

Field names and shapes are those of Asterisk's own API description (``rest-api/api-docs/events.json``,
``channels.json``, ``bridges.json``, ``applications.json``). Nothing here raises: what cannot be understood is
``None``, and :class:`EventParser` counts it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Json: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ChannelInfo:
    """A channel as Asterisk describes it at one moment. Absent texts are empty."""

    id: str
    name: str = ""
    """Technology, resource and serial number, as in ``PJSIP/trunk-00000001``."""
    state: str = ""
    """``Down``, ``Ring``, ``Ringing``, ``Up`` …"""
    caller_number: str = ""
    caller_name: str = ""
    connected_number: str = ""
    connected_name: str = ""
    called_number: str = ""
    """The extension the channel is in: what the caller dialled, unless the dialplan moved it."""
    context: str = ""
    priority: int = 0
    app_name: str = ""
    """The dialplan application the channel is in, ``Stasis`` or ``AudioSocket``."""
    app_data: str = ""
    """That application's arguments, as the dialplan wrote them."""
    creationtime: str = ""
    """ISO 8601 with milliseconds and offset, by Asterisk's clock."""


@dataclass(frozen=True, slots=True)
class BridgeInfo:
    """A bridge and who is in it."""

    id: str
    name: str = ""
    bridge_type: str = ""
    technology: str = ""
    channels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ApplicationInfo:
    """A Stasis application that somebody is, or was, connected for."""

    name: str
    channel_ids: tuple[str, ...] = ()
    bridge_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AsteriskInfo:
    """Who answers at the ARI address."""

    version: str
    entity_id: str = ""
    startup_time: str = ""


@dataclass(frozen=True, slots=True)
class StasisStart:
    """A channel entered the application."""

    channel: ChannelInfo
    args: tuple[str, ...] = ()
    replace: ChannelInfo | None = None
    """The channel this one takes the place of, after an attended transfer."""


@dataclass(frozen=True, slots=True)
class StasisEnd:
    """A channel left the application: hung up, or sent on in the dialplan."""

    channel: ChannelInfo


@dataclass(frozen=True, slots=True)
class ChannelDestroyed:
    """A channel is gone. ``cause`` is a Q.850 cause number, 0 when Asterisk gave none."""

    channel: ChannelInfo
    cause: int = 0
    cause_txt: str = ""


@dataclass(frozen=True, slots=True)
class ChannelHangupRequest:
    """Somebody asked for a channel to end. ``cause`` is a Q.850 cause number, 0 when none was given."""

    channel: ChannelInfo
    cause: int = 0


@dataclass(frozen=True, slots=True)
class ChannelDtmfReceived:
    """The caller pressed a key; sent when the key is released."""

    channel: ChannelInfo
    digit: str
    duration_ms: int = 0


@dataclass(frozen=True, slots=True)
class ChannelStateChange:
    """A channel began to ring or was answered; the new state is in ``channel.state``."""

    channel: ChannelInfo


@dataclass(frozen=True, slots=True)
class Dial:
    """How the calling of a channel goes on: of one that this service had made, or that a dialplan dials."""

    channel: ChannelInfo
    """The one that is called."""
    status: str = ""
    """Empty at the beginning, then ``RINGING``, ``ANSWER``, ``BUSY``, ``CONGESTION``, ``NOANSWER`` …"""
    forwarded: ChannelInfo | None = None
    """The channel that is called in its place from now on: it was told to forward the call."""


@dataclass(frozen=True, slots=True)
class ApplicationReplaced:
    """Another connection took this application's name; from here on Asterisk sends the events there."""

    application: str


ChannelEvent: TypeAlias = (
    StasisStart
    | StasisEnd
    | ChannelDestroyed
    | ChannelHangupRequest
    | ChannelDtmfReceived
    | ChannelStateChange
    | Dial
)
"""Events about one channel: all have ``channel``."""

Event: TypeAlias = ChannelEvent | ApplicationReplaced

DTMF_DIGITS = frozenset("0123456789*#ABCD")
"""The sixteen keys of ITU-T Q.23."""


def _text(raw: Json, key: str) -> str:
    value = raw.get(key)
    return value if isinstance(value, str) else ""


def _number(raw: Json, key: str) -> int:
    value = raw.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _part(raw: Json, key: str) -> Json:
    value = raw.get(key)
    return value if isinstance(value, Mapping) else {}


def _texts(raw: Json, key: str) -> tuple[str, ...]:
    value = raw.get(key)
    if not isinstance(value, list):
        return ()
    return tuple(item for item in value if isinstance(item, str))


def parse_channel(raw: object) -> ChannelInfo | None:
    """Read a ``Channel`` object; None when it is not one or has no id."""
    if not isinstance(raw, Mapping) or not _text(raw, "id"):
        return None
    caller, connected, dialplan = _part(raw, "caller"), _part(raw, "connected"), _part(raw, "dialplan")
    return ChannelInfo(
        id=_text(raw, "id"),
        name=_text(raw, "name"),
        state=_text(raw, "state"),
        caller_number=_text(caller, "number"),
        caller_name=_text(caller, "name"),
        connected_number=_text(connected, "number"),
        connected_name=_text(connected, "name"),
        called_number=_text(dialplan, "exten"),
        context=_text(dialplan, "context"),
        priority=_number(dialplan, "priority"),
        app_name=_text(dialplan, "app_name"),
        app_data=_text(dialplan, "app_data"),
        creationtime=_text(raw, "creationtime"),
    )


def parse_bridge(raw: object) -> BridgeInfo | None:
    """Read a ``Bridge`` object; None when it is not one or has no id."""
    if not isinstance(raw, Mapping) or not _text(raw, "id"):
        return None
    return BridgeInfo(
        id=_text(raw, "id"),
        name=_text(raw, "name"),
        bridge_type=_text(raw, "bridge_type"),
        technology=_text(raw, "technology"),
        channels=_texts(raw, "channels"),
    )


def parse_application(raw: object) -> ApplicationInfo | None:
    """Read an ``Application`` object; None when it is not one or has no name."""
    if not isinstance(raw, Mapping) or not _text(raw, "name"):
        return None
    return ApplicationInfo(
        name=_text(raw, "name"), channel_ids=_texts(raw, "channel_ids"), bridge_ids=_texts(raw, "bridge_ids")
    )


def parse_asterisk_info(raw: object) -> AsteriskInfo | None:
    """Read an ``AsteriskInfo`` object; None when it names no version."""
    if not isinstance(raw, Mapping):
        return None
    system, status = _part(raw, "system"), _part(raw, "status")
    version = _text(system, "version")
    if not version:
        return None
    return AsteriskInfo(
        version=version, entity_id=_text(system, "entity_id"), startup_time=_text(status, "startup_time")
    )


def _stasis_start(raw: Json, channel: ChannelInfo) -> StasisStart:
    return StasisStart(channel, _texts(raw, "args"), parse_channel(raw.get("replace_channel")))


def _stasis_end(_raw: Json, channel: ChannelInfo) -> StasisEnd:
    return StasisEnd(channel)


def _destroyed(raw: Json, channel: ChannelInfo) -> ChannelDestroyed:
    return ChannelDestroyed(channel, _number(raw, "cause"), _text(raw, "cause_txt"))


def _hangup_request(raw: Json, channel: ChannelInfo) -> ChannelHangupRequest:
    return ChannelHangupRequest(channel, _number(raw, "cause"))


def _dtmf(raw: Json, channel: ChannelInfo) -> ChannelDtmfReceived | None:
    digit = _text(raw, "digit").upper()
    if len(digit) != 1 or digit not in DTMF_DIGITS:
        return None
    return ChannelDtmfReceived(channel, digit, max(0, _number(raw, "duration_ms")))


def _state_change(_raw: Json, channel: ChannelInfo) -> ChannelStateChange:
    return ChannelStateChange(channel)


def _dial(raw: Json, peer: ChannelInfo) -> Dial:
    return Dial(peer, _text(raw, "dialstatus"), parse_channel(raw.get("forwarded")))


_CHANNEL_EVENTS: Mapping[str, Callable[[Json, ChannelInfo], ChannelEvent | None]] = {
    "StasisStart": _stasis_start,
    "StasisEnd": _stasis_end,
    "ChannelDestroyed": _destroyed,
    "ChannelHangupRequest": _hangup_request,
    "ChannelDtmfReceived": _dtmf,
    "ChannelStateChange": _state_change,
    "Dial": _dial,
}


class EventParser:
    """Turns plain event objects into events and counts what it leaves out."""

    def __init__(self) -> None:
        self.unknown = 0
        """Well-formed events of a type no call needs."""
        self.malformed = 0
        """Objects that are no event, or lack what their type requires."""

    def parse(self, raw: object) -> Event | None:
        """Read one decoded JSON message; None when there is nothing in it for a call. Never raises."""
        if not isinstance(raw, Mapping) or not _text(raw, "type"):
            self.malformed += 1
            return None
        kind = _text(raw, "type")
        if kind == "ApplicationReplaced":
            return ApplicationReplaced(_text(raw, "application"))
        build = _CHANNEL_EVENTS.get(kind)
        if build is None:
            self.unknown += 1
            return None
        channel = parse_channel(raw.get("peer" if build is _dial else "channel"))
        event = build(raw, channel) if channel is not None else None
        if event is None:
            self.malformed += 1
        return event
