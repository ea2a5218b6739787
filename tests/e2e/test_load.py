"""Many calls through the real Asterisk, one after another and at once: nothing may be left of any of them."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter

import numpy as np
import psutil
import pytest
from bot import WAY_A, WAY_B, Bot, running
from harness.asterisk import PHONES, Asterisk
from harness.sound import silence

from ari_gemini.audiosocket.connection import Connection
from ari_gemini.call.call import Call
from ari_gemini.call.downlink import Downlink
from ari_gemini.errors import Cause
from ari_gemini.gemini.session import GeminiSession
from ari_gemini.simulator.phrases import phrase

pytestmark = pytest.mark.asterisk

KINDS = (Call, Connection, Downlink, GeminiSession)
WAYS = (WAY_A, WAY_B)
QUESTION = np.frombuffer(phrase("ask_hours").pcm, "<i2").astype(np.int16)
MICROPHONE = np.concatenate([silence(0.2), QUESTION, silence(60)])
PATIENT_MICROPHONE = np.concatenate([silence(6.0), QUESTION, silence(60)])
"""Lets the greeting (3.1 s, after 0.8 s of thinking) end before it asks."""


def living() -> Counter[str]:
    """How many objects that belong to one call exist."""
    gc.collect()
    return Counter(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, KINDS))


class Belongings:
    """What this process and Asterisk hold, to be compared after calls."""

    def __init__(self, asterisk: Asterisk) -> None:
        self._asterisk = asterisk
        self._process = psutil.Process()
        self.tasks = set(asyncio.all_tasks())
        self.objects = living()  # other tests' own
        self.descriptors = self._process.num_fds()
        self.memory = self._process.memory_info().rss
        self.asterisk_descriptors = asterisk.file_descriptors()
        self.asterisk_memory = asterisk.resident_bytes()

    async def assert_nothing_more(self, bot: Bot) -> None:
        await self._asterisk.empty()
        await bot.idle()
        assert living() - self.objects == Counter()
        async with asyncio.timeout(15):  # idle ARI connections are kept for 5 s, on both sides
            while not self._descriptors_are_back():  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
        assert {task for task in asyncio.all_tasks() if not task.done()} - self.tasks == set()

    def _descriptors_are_back(self) -> bool:
        ours, theirs = self._process.num_fds(), self._asterisk.file_descriptors()
        return ours <= self.descriptors and theirs <= self.asterisk_descriptors

    def grown(self) -> tuple[float, float]:
        """MiB by which this process and Asterisk have grown."""
        return (
            (self._process.memory_info().rss - self.memory) / 2**20,
            (self._asterisk.resident_bytes() - self.asterisk_memory) / 2**20,
        )


async def one_call(asterisk: Asterisk, bot: Bot, number: int, way: str) -> None:
    """A call that is greeted, says something, and hangs up."""
    caller = await asterisk.call(way, MICROPHONE, caller=PHONES[number % len(PHONES)])
    session = await bot.session(number)
    await session.wait_for("turn_start")
    await session.wait_for("activity_start", timeout=20)
    await caller.hang_up()
    await session.wait_closed()


async def test_fifty_calls_one_after_another(asterisk: Asterisk) -> None:
    fast = {"speed": 10.0, "keep_sound": False, "keep_sessions": 64}
    async with running(asterisk, "two_turns", simulator=fast) as bot:
        before = Belongings(asterisk)
        for number in range(1, 51):
            await one_call(asterisk, bot, number, WAYS[number % 2])
        await before.assert_nothing_more(bot)
        outcomes = Counter(outcome.cause for outcome in bot.watcher.outcomes)
        assert outcomes == {Cause.CALLER_HANGUP: 50}
        ours, theirs = before.grown()
        print(f"\n50 calls: this process {ours:+.1f} MiB, Asterisk {theirs:+.1f} MiB")
        assert ours < 25


async def test_twenty_calls_at_once(asterisk: Asterisk) -> None:
    async with running(asterisk, "two_turns", simulator={"keep_sound": False}) as bot:
        before = Belongings(asterisk)
        callers = await asyncio.gather(
            *(asterisk.call(WAYS[n % 2], PATIENT_MICROPHONE, caller=PHONES[n]) for n in range(20))
        )
        sessions = [await bot.session(number) for number in range(1, 21)]
        async with asyncio.timeout(30):
            await asyncio.gather(
                *(session.wait_for("turn_complete", count=2, timeout=30) for session in sessions)
            )
        assert bot.service.calls == 20
        assert len(await asterisk.bridges()) == 10
        assert all([await caller.up() for caller in callers])
        await asyncio.gather(*(caller.hang_up() for caller in callers))
        await before.assert_nothing_more(bot)
        assert Counter(outcome.cause for outcome in bot.watcher.outcomes) == {Cause.CALLER_HANGUP: 20}
        assert min(session.heard.messages for session in sessions) > 100
        ours, theirs = before.grown()
        print(f"\n20 calls at once: this process {ours:+.1f} MiB, Asterisk {theirs:+.1f} MiB")


async def test_the_call_after_the_last_one_goes_on_in_the_dialplan(asterisk: Asterisk) -> None:
    async with running(asterisk, "two_turns", simulator={"keep_sound": False}, max_calls="2") as bot:
        callers = [await asterisk.call(WAY_A, MICROPHONE) for _ in range(2)]
        for number in (1, 2):
            await (await bot.session(number)).wait_for("setup_complete")
        await asterisk.call(WAY_A, MICROPHONE)
        await bot.watcher.wait_outcomes(1)
        assert [outcome.cause for outcome in bot.watcher.outcomes] == [Cause.OVERLOADED]
        assert all([await caller.up() for caller in callers])
        await asyncio.gather(*(caller.hang_up() for caller in callers))
        await bot.idle()
        await asterisk.empty(timeout=10)
