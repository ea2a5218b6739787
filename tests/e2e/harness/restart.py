"""Asterisk is killed in mid-call and started anew: its calls are over, and the next ones work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from bot import WAY_A, WAY_B

from ari_gemini.errors import Cause

from .asterisk import Asterisk
from .measure import is_voice
from .phone import Phone
from .scene import Caller, staged, until
from .tap import Way

ASTERISK_KILLED = "kill -9 of Asterisk, started anew"


@dataclass(slots=True)
class Restart:
    """How it went."""

    causes: list[Cause]
    """With what the calls of the killed Asterisk ended."""
    connected: float
    """Seconds from the new Asterisk's being up until its callers reached the service."""
    greeted: list[float]
    """Seconds from each new caller's dialling until he heard the model."""


async def kill_and_call_again(asterisk: Asterisk, before: Sequence[Phone], after: Sequence[Phone]) -> Restart:
    """The calls of the phones ``before`` end with Asterisk; those ``after`` dial when it is back. Every other
    one goes way A, the rest way B.

    Raises AssertionError or TimeoutError when one of these is not served, or something of the others is left.
    """
    async with staged(asterisk) as scene:
        bot = scene.bot
        client = bot.service.client
        assert client is not None
        ways = (WAY_A, WAY_B)

        def callers(phones: Sequence[Phone]) -> list[Caller]:
            return [Caller(bot.gemini, phone, way) for phone, way in zip(phones, cycle(ways), strict=False)]

        await asyncio.gather(*(caller.begin() for caller in callers(before)))
        asterisk.kill()
        await bot.watcher.wait_outcomes(len(before))
        causes = [outcome.cause for outcome in bot.watcher.outcomes]
        await bot.idle()
        await until(lambda: not bot.service.readiness.ready, lambda: "ready without Asterisk")
        await asterisk.restart()
        up = time.monotonic()
        await asyncio.wait_for(client.wait_connected(), 20)
        connected = time.monotonic() - up
        assert bot.service.readiness.ready
        # the global variable went with the old Asterisk
        await asterisk.set_global("ARI_GEMINI_AUDIOSOCKET", str(bot.service.media.address))
        greeted = await asyncio.gather(*(_call(caller) for caller in callers(after)))
        return Restart(causes, connected, greeted)


async def _call(caller: Caller) -> float:
    """One whole call; seconds until the model was heard."""
    dialled = time.monotonic()
    await caller.begin()
    voices = filter(is_voice, caller.phone.tap.packets(Way.TO_PHONE, since=dialled))
    heard = next(packet.time for packet in voices)
    await caller.ask("ask_hours")
    await caller.finish()
    return heard - dialled
