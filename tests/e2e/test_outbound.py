"""Asterisk connects to the service, once per call: calls, a worker that dies, one that hands callers over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from bot import OUTBOUND, Bot, outbound, running
from harness.align import align
from harness.asterisk import Asterisk
from harness.command import Command, Running
from harness.phone import Phone, PhoneMaker
from harness.sound import Samples
from harness.tap import Way

from ari_gemini.ari.operations import ROUTES
from ari_gemini.errors import Cause
from ari_gemini.simulator.gemini_live import GeminiSimulator, SimulatedSession
from ari_gemini.simulator.phrases import phrase
from ari_gemini.simulator.scenario import load_scenario

pytestmark = pytest.mark.asterisk

TELEPHONE_BAND = (300.0, 3400.0)
LISTENING = b"= ari listening"


def caller_says(name: str) -> Samples:
    """A recorded caller phrase, 8 kHz."""
    return np.frombuffer(phrase(name).pcm, "<i2").astype(np.int16)


def heard_by_phone(phone: Phone, session: SimulatedSession) -> list[float]:
    """How well each utterance of this session is found in what the phone recorded."""
    return [
        align(
            phone.heard(),
            np.frombuffer(bytes(said.pcm), "<i2").astype(np.int16),
            reference_rate=24000,
            band=TELEPHONE_BAND,
        ).correlation
        for said in session.said
    ]


def heard_by_model(session: SimulatedSession, name: str) -> float:
    """How well a caller phrase is found in what this session received."""
    heard = np.frombuffer(bytes(session.heard.pcm), "<i2").astype(np.int16)
    found = align(heard, caller_says(name), reference_rate=8000, rate=16000, band=TELEPHONE_BAND)
    return found.correlation


async def ask(phone: Phone, session: SimulatedSession, name: str) -> None:
    """Say a phrase and wait until the model has finished its answer to it, playback included."""
    done = session.record.count("turn_complete")
    await phone.say(caller_says(name))
    await session.wait_for("turn_complete", count=done + 1, timeout=20)
    await phone.tap.wait_quiet(Way.TO_PHONE, packets=15)


async def hung_up(phone: Phone) -> None:
    await phone.hang_up()
    await phone.closed()


async def left_alone(bot: Bot) -> None:
    """Wait until Asterisk has closed the last connection."""
    assert bot.service.outbound is not None
    listener = bot.service.outbound.listener
    async with asyncio.timeout(20):
        while listener.connections:  # noqa: ASYNC110 - Asterisk's business
            await asyncio.sleep(0.05)


async def test_a_call(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice = await phone("1001")
    async with running(asterisk, "two_turns", environ=outbound(asterisk)) as bot:
        await alice.dial(OUTBOUND)
        session = await bot.session()
        up = await alice.established()
        assert up.time >= (await session.wait_for("setup_complete")).at
        await session.wait_for("turn_complete", timeout=20)
        await ask(alice, session, "ask_hours")
        await hung_up(alice)
        await asterisk.empty()
        await bot.idle()
        assert [outcome.cause for outcome in bot.watcher.outcomes] == [Cause.CALLER_HANGUP]
        assert min(heard_by_phone(alice, session)) >= 0.95
        assert heard_by_model(session, "ask_hours") >= 0.95
        await left_alone(bot)


async def test_the_session_is_open_before_the_caller_enters(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice = await phone("1001")
    async with running(asterisk, "two_turns", environ=outbound(asterisk)) as bot:
        await alice.dial(OUTBOUND)
        session = await bot.session()
        await session.wait_for("setup_complete")
        (application,) = [
            one for one in await asterisk.ari("GET", "applications") if one["name"].count(":PJSIP/1001-")
        ]
        callers = [c["id"] for c in await asterisk.channels() if c["name"].startswith("PJSIP/1001-")]
        assert not set(callers) & set(application["channel_ids"]), "the caller has entered already"
        assert await asterisk.bridges(), "nor was time lost with the media"
        await alice.established()
        await hung_up(alice)
        await asterisk.empty()
        await bot.idle()


@asynccontextmanager
async def worker(command: Command, asterisk: Asterisk) -> AsyncIterator[Running]:
    """A process of its own that takes Asterisk's connections."""
    process = await command.start("serve", environment=outbound(asterisk))
    try:
        await process.says(LISTENING)
        yield process
    finally:
        await process.kill()


async def open_session(gemini: GeminiSimulator, *before: SimulatedSession) -> SimulatedSession:
    """The session that is open now, or soon, other than those before."""
    async with asyncio.timeout(20):
        while True:
            for session in gemini.sessions:
                ready = session.closed is None and session.record.count("setup_complete") > 0
                if ready and session not in before:
                    return session
            await asyncio.sleep(0.02)


async def goes_on(phone: Phone, session: SimulatedSession) -> None:
    """See that a model that goes on with a conversation hears the caller, and is heard."""
    await session.wait_for("client_text", timeout=20)  # what it says before is interrupted
    done = session.record.count("turn_complete")
    session.say("opening_hours")
    await session.wait_for("turn_complete", count=done + 1, timeout=20)
    await phone.tap.wait_quiet(Way.TO_PHONE, packets=15)
    await phone.say(caller_says("ask_hours"))
    async with asyncio.timeout(20):
        while heard_by_model(session, "ask_hours") < 0.95:  # noqa: ASYNC110 - nothing tells when he is through
            await asyncio.sleep(0.5)


async def test_a_killed_worker_costs_no_caller(asterisk: Asterisk, phone: PhoneMaker, tmp_path: Path) -> None:
    alice = await phone("1001")
    async with GeminiSimulator("two_turns") as gemini:
        command = Command(tmp_path, asterisk, gemini)
        async with worker(command, asterisk) as first:
            await alice.dial(OUTBOUND)
            await alice.established()
            session = await gemini.wait_session(1)
            await session.wait_for("turn_complete", timeout=20)
            await first.kill()
        (caller,) = [c["id"] for c in await asterisk.channels() if c["name"].startswith("PJSIP/1001-")]
        async with worker(command, asterisk) as second:
            again = await open_session(gemini, session)
            await second.says(b"call.up")
            await goes_on(alice, again)
            left = [c["id"] for c in await asterisk.channels() if c["name"].startswith("PJSIP/1001-")]
            assert left == [caller], "the caller never left"
            assert len(await asterisk.bridges()) == 1
            await hung_up(alice)
            await asterisk.empty()
            await second.says(b"cause=caller_hangup")
        assert heard_by_phone(alice, again)[0] >= 0.95


async def test_a_worker_killed_before_the_caller_is_joined_costs_none(
    asterisk: Asterisk, phone: PhoneMaker, tmp_path: Path
) -> None:
    """There is a bridge then that no channel has been in: the application does not list it."""
    alice = await phone("1001")
    slow = load_scenario("two_turns").model_copy(update={"setup_delay": 3.0})
    async with GeminiSimulator(slow) as gemini:
        command = Command(tmp_path, asterisk, gemini)
        async with worker(command, asterisk) as first:
            await alice.dial(OUTBOUND)
            await alice.ringing(timeout=20)
            assert [bridge["channels"] for bridge in await asterisk.bridges()] == [[]]
            await first.kill()
        assert gemini.connections == 1
        async with worker(command, asterisk) as second:
            await alice.established(timeout=20)
            await second.says(b"call.up")
            again = await open_session(gemini)
            await again.wait_for("turn_complete", timeout=20)
            await alice.tap.wait_quiet(Way.TO_PHONE, packets=15)
            assert len(await asterisk.bridges()) == 1
            await hung_up(alice)
            await asterisk.empty()
            await second.says(b"cause=caller_hangup")
        assert heard_by_phone(alice, again)[0] >= 0.95


async def test_a_worker_hands_its_callers_over(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice = await phone("1001")
    settings = outbound(asterisk)
    async with running(asterisk, "two_turns", environ=settings) as one:
        gemini = one.gemini
        same = {"ARI_GEMINI__GEMINI__BASE_URL": gemini.url}
        async with running(asterisk, "two_turns", environ=settings | same) as other:
            await alice.dial(OUTBOUND)
            await alice.established()
            old, new = (one, other) if one.service.calls else (other, one)
            session = await gemini.wait_session(1)
            await session.wait_for("turn_complete", timeout=20)
            assert old.service.outbound is not None
            await old.service.outbound.hand_over()
            assert [outcome.cause for outcome in old.watcher.outcomes] == [Cause.HANDED_OVER]
            again = await open_session(gemini, session)
            await goes_on(alice, again)
            await hung_up(alice)
            await asterisk.empty()
            await new.watcher.wait_outcomes(1)
            assert [outcome.cause for outcome in new.watcher.outcomes] == [Cause.CALLER_HANGUP]
            assert heard_by_phone(alice, again)[0] >= 0.95


async def test_a_broken_connection_costs_nothing(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice = await phone("1001")
    async with running(asterisk, "two_turns", environ=outbound(asterisk)) as bot:
        await alice.dial(OUTBOUND)
        await alice.established()
        session = await bot.session()
        await session.wait_for("turn_complete", timeout=20)
        assert bot.service.outbound is not None
        listener = bot.service.outbound.listener
        (broken,) = listener.links
        broken.abort()
        async with asyncio.timeout(10):
            while not [link for link in listener.links if link is not broken]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await ask(alice, session, "ask_hours")
        assert bot.gemini.connections == 1, "one call, one session"
        await hung_up(alice)
        await asterisk.empty()
        await bot.idle()
        assert [outcome.cause for outcome in bot.watcher.outcomes] == [Cause.CALLER_HANGUP]
        assert min(heard_by_phone(alice, session)) >= 0.95


async def test_where_nobody_listens_the_dialplan_goes_on(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice = await phone("1001")

    def refused() -> int:
        words = "did not take the call of 1001: service_unavailable"
        return sum(words in line for line in asterisk.log())

    before = refused()
    await alice.dial(OUTBOUND)
    await alice.closed(timeout=30)
    assert refused() == before + 1
    await asterisk.empty()


async def test_the_operations_are_those_of_asterisk(asterisk: Asterisk) -> None:
    described: dict[tuple[str, str], tuple[str, str]] = {}
    for resource in {resource for resource, _ in ROUTES}:
        apis = (await asterisk.ari("GET", f"api-docs/{resource}.json"))["apis"]
        described |= {
            (resource, operation["nickname"]): (operation["httpMethod"], api["path"])
            for api in apis
            for operation in api["operations"]
        }
    assert {name: (method, f"/{path}") for name, (method, path) in ROUTES.items()} == {
        name: described.get(name) for name in ROUTES
    }
