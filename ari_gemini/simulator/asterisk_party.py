"""Whom the simulated Asterisk can call, and what they do when their phone rings.

The order of events is that of a real Asterisk 22.10.1 with a SIP phone.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from ari_gemini.simulator.asterisk_media import Phone, SilentVoice, Voice
from ari_gemini.simulator.asterisk_state import SimChannel
from ari_gemini.simulator.asterisk_switch import NO_ANSWER, OUTGOING, USER_BUSY, Switch

DECLINED = 21
"""ITU-T Q.850: call rejected."""

__all__ = ["DECLINED", "USER_BUSY", "Exchange", "Party"]


@dataclass
class Party:
    """Somebody with a phone."""

    voice: Voice = field(default_factory=SilentVoice)
    answers: float | None = 0.05
    """Seconds of ringing until he picks up; None: he never does."""
    refuses: int | None = None
    """A Q.850 cause with which he refuses instead, then: USER_BUSY, DECLINED."""


class Exchange:
    """Calls parties, by their dial strings (``PJSIP/1002``, ``Local/1002@from-internal/n``).

    A Local channel has two halves here and no third channel behind it: the party's phone is at the first.
    """

    def __init__(self, switch: Switch) -> None:
        self.parties: dict[str, Party] = {}
        """Who is there. Others cannot be reached."""
        self._switch = switch
        self._serial = itertools.count(1)
        self._called: list[SimChannel] = []
        self._news = asyncio.Event()

    async def called(self, number: int = 1) -> SimChannel:
        """The channel of the ``number``-th call to any party, now or when it is made."""
        while len(self._called) < number:
            self._news.clear()
            await self._news.wait()
        return self._called[number - 1]

    def dial(
        self, endpoint: str, channel_id: str, other_id: str | None, app: str, caller_id: str
    ) -> SimChannel:
        """Make the channel. Raises LookupError when nobody is there, except behind a Local channel."""
        party, local = self.parties.get(endpoint), endpoint.startswith("Local/")
        if party is None and not local:
            raise LookupError(endpoint)
        name = f"{endpoint.removesuffix('/n')}-{next(self._serial):08x}"
        channel = self._channel(channel_id, f"{name};1" if local else name, app)
        channel.called = True
        channel.phone = Phone(party.voice) if party is not None else None
        if match := re.fullmatch(r'(?:"(.*)" )?<?([^<>]*)>?', caller_id):
            channel.caller_name, channel.caller_number = match[1] or "", match[2]
        if local:
            channel.far_half = self._channel(other_id or f"{channel_id};2", f"{name};2", app)
        return channel

    def go_on(self, endpoint: str, channel: SimChannel, app: str, args: list[str], timeout: float) -> None:
        """Ring, and let the party do what he does."""
        asyncio.get_running_loop().call_soon(
            self._ring, self.parties.get(endpoint), channel, app, args, timeout
        )

    def _channel(self, channel_id: str, name: str, app: str) -> SimChannel:
        channel = SimChannel(channel_id, name, state="Down", subscriber=app)
        channel.app_name, channel.app_data = OUTGOING
        self._switch.add(channel)
        return channel

    def _ring(
        self, party: Party | None, channel: SimChannel, app: str, args: list[str], timeout: float
    ) -> None:
        if channel.hangup_cause is not None:
            return
        if party is None:  # the dialplan has no such extension
            self._switch.hang_up(channel, 0)
            return
        self._switch.dialled(channel, "")
        self._switch.rings(channel)
        if party.answers is None or party.answers >= timeout:
            after, act = timeout, partial(self._switch.hang_up, channel, NO_ANSWER)
        elif party.refuses is not None:
            after, act = party.answers, partial(self._switch.hang_up, channel, party.refuses, told=True)
        else:
            after, act = party.answers, partial(self._switch.picked_up, channel, app, args)
        asyncio.get_running_loop().call_later(after, _if_it_rings, channel, act)
        self._called.append(channel)
        self._news.set()


def _if_it_rings(channel: SimChannel, act: Callable[[], None]) -> None:
    if channel.hangup_cause is None and channel.state == "Ringing":
        act()
