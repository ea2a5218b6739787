"""What the simulated Asterisk knows: channels, bridges, and how Asterisk writes them down as JSON.

Shapes and values are those a real Asterisk 22.10.1 showed.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ari_gemini.simulator.asterisk_media import Leg, Phone

Json = dict[str, object]

NORMAL_CLEARING = 16
"""ITU-T Q.850, cause 16: what a hangup is by default."""
SOFT_HANGUP = 32
"""The cause Asterisk names when a hangup was asked for through ARI (``AST_SOFTHANGUP_EXPLICIT``)."""

HANGUP_REASONS = {
    "normal": NORMAL_CLEARING,
    "busy": 17,
    "congestion": 34,
    "no_answer": 19,
    "timeout": 102,
    "rejected": 21,
    "unallocated": 1,
    "normal_unspecified": 31,
    "number_incomplete": 28,
    "codec_mismatch": 58,
    "interworking": 127,
    "failure": 38,
    "answered_elsewhere": 26,
}
"""Reasons that ``DELETE /channels/{id}`` takes, with their Q.850 causes (``res/ari/resource_channels.c``)."""


def timestamp(at: float | None = None) -> str:
    """ISO 8601 with milliseconds and offset, as Asterisk writes it. ``at``: seconds of the epoch, or now."""
    now = time.time() if at is None else at
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}+0000"


@dataclass(frozen=True, slots=True)
class Continuation:
    """Where a channel went on in the dialplan; None where the request named nothing."""

    context: str | None = None
    extension: str | None = None
    priority: int | None = None
    label: str | None = None


@dataclass(eq=False)
class SimChannel:
    """One channel. Written to only by the :class:`~ari_gemini.simulator.asterisk_switch.Switch`."""

    id: str
    name: str
    state: Literal["Down", "Ring", "Ringing", "Up"] = "Ring"
    caller_number: str = ""
    caller_name: str = ""
    connected_number: str = ""
    connected_name: str = ""
    """Who it was bridged with last."""
    context: str = "default"
    exten: str = "s"
    priority: int = 1
    app_name: str = ""
    app_data: str = ""
    created: str = field(default_factory=timestamp)
    variables: dict[str, str] = field(default_factory=dict)
    stasis: str | None = None
    """The Stasis application it is in."""
    subscriber: str | None = None
    """The application that hears of it even outside Stasis, because its request made the channel."""
    unsubscribed: int = 0
    """How often an application has unsubscribed from it: it had subscribed once as ``subscriber``, once as
    ``stasis``. Of a channel without a subscription only StasisStart and StasisEnd are told."""
    bridge: SimBridge | None = None
    ringing: bool = False
    """It rings for the caller: by signalling, or as a tone once he is answered."""
    tone_frames: int = 0
    """Frames of that tone so far."""
    digits_heard: str = ""
    """Digits the service played to the caller."""
    busy_until: float = 0.0
    """Loop time until which digits are being played; what is asked of the channel meanwhile waits."""
    sounding: list[tuple[float, float]] = field(default_factory=list)
    """From when to when (loop time) a digit sounds: nothing else is heard then."""
    continued: Continuation | None = None
    hangup_cause: int | None = None
    """Q.850, once it is gone."""
    phone: Phone | None = None
    """The caller's voice and ear, on a channel that has one."""
    leg: Leg | None = None
    """The AudioSocket connection, on a channel that is one or is in ``AudioSocket()``."""
    called: bool = False
    """It was made to call somebody, who has a phone."""
    far_half: SimChannel | None = None
    """The second half, of a Local channel: it goes with the first."""
    dialplan_stays: bool = False
    """After Stasis the dialplan keeps the channel instead of hanging it up."""
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """It has left Stasis or ``AudioSocket()``."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_media(self) -> bool:
        """True for an external media channel, which has an AudioSocket and no caller."""
        return self.leg is not None and self.phone is None

    @property
    def subscriptions(self) -> int:
        """What is left of them: Asterisk counts."""
        return (self.subscriber is not None) + (self.stasis is not None) - self.unsubscribed

    def to_json(self) -> Json:
        """The ``Channel`` model."""
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "protocol_id": "",
            "caller": {"name": self.caller_name, "number": self.caller_number},
            "connected": {"name": self.connected_name, "number": self.connected_number},
            "accountcode": "",
            "dialplan": {
                "context": self.context,
                "exten": self.exten,
                "priority": self.priority,
                "app_name": self.app_name,
                "app_data": self.app_data,
            },
            "creationtime": self.created,
            "language": "en",
        }


@dataclass(eq=False)
class SimBridge:
    """One bridge and the channels in it, in the order they came."""

    id: str
    name: str = ""
    bridge_type: str = "mixing"
    channels: list[SimChannel] = field(default_factory=list)
    created: str = field(default_factory=timestamp)
    audience: set[str] = field(default_factory=set)
    """Applications whose channels were in it: they hear of its end."""

    def to_json(self) -> Json:
        """The ``Bridge`` model."""
        return {
            "id": self.id,
            "technology": "simple_bridge" if len(self.channels) < 3 else "softmix",
            "bridge_type": self.bridge_type,
            "bridge_class": "stasis",
            "creator": "Stasis",
            "name": self.name,
            "channels": [channel.id for channel in self.channels],
            "creationtime": self.created,
            "video_mode": "talker",
        }
