"""What the things of a call are called in Asterisk. Pure.

Every name is made from the id of the caller's channel: so that all there is of a call can be found by asking
Asterisk, after the events about it were missed and after this service was started anew, too.
"""

from __future__ import annotations

import re

MEDIA_PREFIX = "ari-gemini-media-"
BRIDGE_PREFIX = "ari-gemini-bridge-"
_PARTY = re.compile(r"ari-gemini-party-\d+-(.+)")


def media_of(caller: str) -> str:
    """The channel to this service that the caller is bridged with."""
    return MEDIA_PREFIX + caller


def bridge_of(caller: str) -> str:
    """The one bridge of a call."""
    return BRIDGE_PREFIX + caller


def party_of(caller: str, number: int) -> str:
    """The channel of the ``number``-th other party that is asked whether it takes the caller.

    A number, so that a late event about one is never taken for news of the next.
    """
    return f"ari-gemini-party-{number}-{caller}"


def far_half_of(party: str) -> str:
    """The second half of a party's Local channel, which runs the dialplan; it goes when the first does."""
    return f"ari-gemini-far-half-of-{party}"


def caller_of_party(channel: str) -> str | None:
    """Whose party that channel is; None when it is none."""
    match = _PARTY.fullmatch(channel)
    return match[1] if match else None


def caller_of_media(channel: str) -> str | None:
    """Whose media channel that is; None when it is none."""
    return channel.removeprefix(MEDIA_PREFIX) if channel.startswith(MEDIA_PREFIX) else None


def caller_of_bridge(bridge: str) -> str | None:
    """Whose bridge that is; None when it is none of ours."""
    return bridge.removeprefix(BRIDGE_PREFIX) if bridge.startswith(BRIDGE_PREFIX) else None
