"""A real phone, a real Asterisk, the service, a simulated Gemini: they talk, interrupt and hang up."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from bot import WAY_A, WAY_B, Bot, open_sockets, running
from google.genai import types
from harness.align import align
from harness.asterisk import Asterisk
from harness.phone import Phone, PhoneMaker
from harness.sound import Samples
from harness.tap import Way

from ari_gemini.audio.wav import read_wav
from ari_gemini.call.agent import APOLOGY
from ari_gemini.errors import Cause
from ari_gemini.simulator.gemini_live import SimulatedSession
from ari_gemini.simulator.phrases import phrase

pytestmark = pytest.mark.asterisk

TELEPHONE_BAND = (300.0, 3400.0)
JUST_BEFORE = 0.6
"""Seconds before the interruption in which the model must have been heard; longer than its pauses."""
SILENCED_WITHIN = 0.060
"""Seconds from the model's ``interrupted`` to the last audible packet at the phone."""


def caller_says(name: str) -> Samples:
    """A recorded caller phrase, 8 kHz."""
    return np.frombuffer(phrase(name).pcm, "<i2").astype(np.int16)


async def ask(phone: Phone, session: SimulatedSession, name: str) -> None:
    """Say a phrase and wait until the model has finished its answer to it, playback included."""
    done = session.record.count("turn_complete")
    await phone.say(caller_says(name))
    await session.wait_for("turn_complete", count=done + 1, timeout=20)
    await phone.tap.wait_quiet(Way.TO_PHONE, packets=15)


def compare_what_the_phone_heard(phone: Phone, session: SimulatedSession) -> list[float]:
    """How well each utterance of the model is found in what the phone recorded."""
    heard = phone.heard()
    return [
        align(
            heard,
            np.frombuffer(bytes(said.pcm), "<i2").astype(np.int16),
            reference_rate=24000,
            band=TELEPHONE_BAND,
        ).correlation
        for said in session.said
    ]


def compare_what_the_model_heard(session: SimulatedSession, *names: str) -> list[float]:
    """How well each caller phrase is found in what the model received."""
    heard = np.frombuffer(bytes(session.heard.pcm), "<i2").astype(np.int16)
    return [
        align(heard, caller_says(name), reference_rate=8000, rate=16000, band=TELEPHONE_BAND).correlation
        for name in names
    ]


def validated(frame: str | bytes) -> str:
    """The one key of a client message that the vendor's own types accept."""
    assert isinstance(frame, str), "the service takes TEXT frames"
    message = json.loads(frame)
    (kind,) = message
    body = dict(message[kind])
    # LiveClientSetup lacks this field, which the service has
    types.RealtimeInputConfig.model_validate(body.pop("realtimeInputConfig", {}))
    types.LiveClientMessage.model_validate({kind: body})
    return str(kind)


async def assert_nothing_left(asterisk: Asterisk, bot: Bot) -> None:
    await asterisk.empty()
    await bot.idle()


@pytest.mark.parametrize("way", [WAY_A, WAY_B])
async def test_two_turns_both_ways(asterisk: Asterisk, phone: PhoneMaker, way: str) -> None:
    alice = await phone("1001")
    frames: list[str | bytes] = []

    def tap(_number: int, direction: str, frame: str | bytes) -> None:
        if direction == "<":
            frames.append(frame)

    async with running(asterisk, "two_turns", simulator={"tap": tap}) as bot:
        sockets = open_sockets()
        await alice.dial(way)
        session = await bot.session()
        up = await alice.established()
        if way == WAY_A:
            assert up.time >= (await session.wait_for("setup_complete")).at, (
                "answered before the model was ready"
            )
        await session.wait_for("turn_complete", timeout=20)
        await alice.tap.wait_quiet(Way.TO_PHONE, packets=15)
        await ask(alice, session, "ask_hours")
        await ask(alice, session, "ask_order")
        await alice.hang_up()
        await alice.closed()
        await assert_nothing_left(asterisk, bot)

        assert [said.name for said in session.said] == ["greeting", "opening_hours", "order_status"]
        assert min(compare_what_the_phone_heard(alice, session)) >= 0.95
        assert min(compare_what_the_model_heard(session, "ask_hours", "ask_order")) >= 0.95
        assert [outcome.cause for outcome in bot.watcher.outcomes] == [Cause.CALLER_HANGUP]
        assert len(bot.watcher.turns) == 3
        async with asyncio.timeout(10):  # idle ARI connections are kept for 5 s
            while open_sockets() - sockets:  # noqa: ASYNC110 - the HTTP client's own timers
                await asyncio.sleep(0.1)
        assert alice.tap.lost(Way.TO_PHONE) == 0
        assert len(frames) > 300
        assert [kind for frame in frames if (kind := validated(frame)) != "realtimeInput"] == ["setup"]
        print(
            f"\nway {'A' if way == WAY_A else 'B'}: phone heard "
            f"{[f'{c:.4f}' for c in compare_what_the_phone_heard(alice, session)]}, model heard "
            f"{[f'{c:.4f}' for c in compare_what_the_model_heard(session, 'ask_hours', 'ask_order')]}"
        )


@pytest.mark.parametrize("way", [WAY_A, WAY_B])
async def test_barge_in_silences_the_phone(asterisk: Asterisk, phone: PhoneMaker, way: str) -> None:
    alice = await phone("1001")
    async with running(asterisk, "barge_in") as bot:
        await alice.dial(way)
        session = await bot.session()
        await alice.established()
        await session.wait_for("turn_complete", timeout=20)
        await alice.say(caller_says("ask_delivery"))
        await session.wait_for("turn_start", count=2)
        await alice.tap.wait_loud(Way.TO_PHONE)
        await alice.say(caller_says("interrupt"))
        interrupted = await session.wait_for("interrupted")
        answered = await session.wait_for("turn_start", count=3, timeout=20)
        await alice.tap.wait_quiet(Way.TO_PHONE, packets=2)
        packets = alice.tap.packets(Way.TO_PHONE, since=interrupted.at, until=answered.at)
        last = alice.tap.packets(Way.TO_PHONE, since=interrupted.at - JUST_BEFORE, until=answered.at)
        loud = [packet.time - interrupted.at for packet in last if packet.level > -45.0]
        await session.wait_for("turn_complete", count=3, timeout=20)
        await alice.tap.wait_quiet(Way.TO_PHONE, packets=15)
        await alice.hang_up()
        await alice.closed()
        await assert_nothing_left(asterisk, bot)

        assert len(packets) >= 10
        assert loud, "the model was speaking when it was interrupted"
        assert max(loud) <= SILENCED_WITHIN
        long_story = session.said[1]
        turn = bot.watcher.turns[1]
        assert long_story.interrupted
        assert turn.interrupted is not None
        assert 0 < turn.heard_ms < len(long_story.pcm) / 48
        assert compare_what_the_phone_heard(alice, session)[2] >= 0.95, (
            "the answer after the interruption is whole"
        )
        print(f"\nextension {way}: last audible packet {max(loud) * 1000:+.0f} ms from interrupted")


async def test_what_the_phone_heard_of_an_interrupted_answer_is_known(
    asterisk: Asterisk, phone: PhoneMaker
) -> None:
    alice = await phone("1001")
    async with running(asterisk, "barge_in") as bot:
        await alice.dial(WAY_A)
        session = await bot.session()
        await alice.established()
        await session.wait_for("turn_complete", timeout=20)
        await alice.say(caller_says("ask_delivery"))
        first = await alice.tap.wait_loud(Way.TO_PHONE)
        await alice.say(caller_says("interrupt"))
        interrupted = await session.wait_for("interrupted")
        await alice.hang_up()
        await alice.closed()
        await assert_nothing_left(asterisk, bot)
        last = alice.tap.last_loud(Way.TO_PHONE, since=first.time)
        assert last is not None
        assert last.time <= interrupted.at + SILENCED_WITHIN
        # the first loud packet may come some frames after the turn's first one, which can begin softly
        assert bot.watcher.turns[1].heard_ms >= (last.time - first.time) * 1000 - 40


async def test_a_caller_who_interrupts_at_once_and_often(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice = await phone("1001")
    async with running(asterisk, "barge_in") as bot:
        await alice.dial(WAY_A)
        session = await bot.session()
        await alice.established()
        await session.wait_for("turn_complete", timeout=20)
        for turn in range(2, 5):
            await alice.say(caller_says("interrupt"))
            await session.wait_for("turn_start", count=turn, timeout=20)
            await alice.tap.wait_loud(Way.TO_PHONE)
        await session.wait_for("interrupted", count=2)
        await alice.hang_up()
        await alice.closed()
        await assert_nothing_left(asterisk, bot)


async def test_immediately_answers_first(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice = await phone("1001")
    async with running(asterisk, "slow_model", answer="immediately", setup_timeout="30") as bot:
        await alice.dial(WAY_A)
        up = await alice.established()
        session = await bot.session()
        assert up.time < (await session.wait_for("setup_complete", timeout=20)).at
        await session.wait_for("turn_start", timeout=20)
        await alice.tap.wait_loud(Way.TO_PHONE)
        await alice.hang_up()
        await alice.closed()
        await assert_nothing_left(asterisk, bot)


async def test_the_caller_hears_ringing_until_the_model_is_ready(
    asterisk: Asterisk, phone: PhoneMaker
) -> None:
    alice = await phone("1001")
    async with running(asterisk, "two_turns") as bot:
        await alice.dial(WAY_A)
        ringing = await alice.ringing()
        up = await alice.established()
        ready = await (await bot.session()).wait_for("setup_complete")
        assert ringing.time < ready.at <= up.time
        await alice.hang_up()
        await alice.closed()
        await assert_nothing_left(asterisk, bot)


async def test_the_caller_gives_up_while_it_rings(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice = await phone("1001")
    async with running(asterisk, "hang", setup_timeout="30") as bot:
        await alice.dial(WAY_A)
        await alice.ringing()
        await bot.session()
        await alice.hang_up()
        await alice.closed()
        await assert_nothing_left(asterisk, bot)
        assert [outcome.cause for outcome in bot.watcher.outcomes] == [Cause.CALLER_HANGUP]


@pytest.mark.parametrize("scenario", ["refuse_key", "quota", "close_before_setup"])
async def test_without_gemini_the_caller_goes_on_in_the_dialplan(
    asterisk: Asterisk, phone: PhoneMaker, scenario: str
) -> None:
    alice = await phone("1001")
    async with running(asterisk, scenario, setup_timeout="1") as bot:
        await alice.dial(WAY_A)
        assert (await alice.closed()).param == "503 Service Unavailable"
        await assert_nothing_left(asterisk, bot)
        assert bot.watcher.outcomes[0].cause in {Cause.MODEL_REFUSED, Cause.MODEL_UNAVAILABLE}

        await alice.dial(WAY_B)
        await alice.established()
        await alice.tap.wait_loud(Way.TO_PHONE)  # the fallback's congestion tone
        await alice.hang_up()
        await alice.closed()
        await assert_nothing_left(asterisk, bot)


@pytest.mark.parametrize("way", [WAY_A, WAY_B])
async def test_a_lost_model_sends_the_caller_on(asterisk: Asterisk, phone: PhoneMaker, way: str) -> None:
    alice = await phone("1001")
    async with running(asterisk, "two_turns") as bot:
        await alice.dial(way)
        await alice.established()
        session = await bot.session()
        await session.wait_for("turn_start")
        await alice.tap.wait_loud(Way.TO_PHONE)
        bot.gemini.scenario = bot.gemini.scenario.model_copy(update={"refuse_keys": True})
        session.disconnect(1011, "Internal error encountered.")
        await bot.idle()
        await alice.tap.wait_loud(Way.TO_PHONE)  # the fallback's congestion tone
        await alice.hang_up()
        await alice.closed()
        await asterisk.empty()
        assert [outcome.cause for outcome in bot.watcher.outcomes] == [Cause.MODEL_LOST]
        apology = np.frombuffer(read_wav(APOLOGY).mono, "<i2").astype(np.int16)
        match = align(alice.heard(), apology, reference_rate=24000, band=TELEPHONE_BAND)
        assert match.correlation > 0.99, "the caller was told"


@pytest.mark.parametrize("way", [WAY_A, WAY_B])
async def test_asterisk_hangs_up(asterisk: Asterisk, phone: PhoneMaker, way: str) -> None:
    alice = await phone("1001")
    async with running(asterisk, "two_turns") as bot:
        await alice.dial(way)
        await alice.established()
        await (await bot.session()).wait_for("turn_start")
        channel = next(c["id"] for c in await asterisk.channels() if c["name"].startswith("PJSIP/"))
        await asterisk.ari("DELETE", f"channels/{channel}")
        await alice.closed()
        await assert_nothing_left(asterisk, bot)
        assert [outcome.cause for outcome in bot.watcher.outcomes] == [Cause.CALLER_HANGUP]


async def test_the_media_channel_is_hung_up(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice = await phone("1001")
    async with running(asterisk, "two_turns") as bot:
        await alice.dial(WAY_A)
        await alice.established()
        await (await bot.session()).wait_for("turn_start")
        channel = next(c["id"] for c in await asterisk.channels() if c["name"].startswith("AudioSocket/"))
        await asterisk.ari("DELETE", f"channels/{channel}")
        await bot.idle()
        assert [outcome.cause for outcome in bot.watcher.outcomes] == [Cause.MEDIA_LOST]
        await alice.hang_up()
        await asterisk.empty()


async def test_stopping_the_service_sends_its_callers_on(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice, bob = await phone("1001"), await phone("1002")
    async with running(asterisk, "two_turns") as bot:
        await alice.dial(WAY_A)
        await bob.dial(WAY_B)
        await asyncio.gather(alice.established(), bob.established())
        await (await bot.session(2)).wait_for("turn_start")
        bot.service.stop()
        await bot.idle()
        assert [outcome.cause for outcome in bot.watcher.outcomes] == [Cause.SHUTDOWN, Cause.SHUTDOWN]
        await asyncio.gather(alice.tap.wait_loud(Way.TO_PHONE), bob.tap.wait_loud(Way.TO_PHONE))
        await asyncio.gather(alice.hang_up(), bob.hang_up())
    await asterisk.empty()


async def test_asterisk_restarts_in_mid_call_and_the_next_call_works(
    asterisk: Asterisk, phone: PhoneMaker
) -> None:
    alice, bob = await phone("1001"), await phone("1002")
    async with running(asterisk, "two_turns") as bot:
        await alice.dial(WAY_A)
        await alice.established()
        await (await bot.session()).wait_for("turn_start")
        await asterisk.restart()
        await bot.idle()
        assert len(bot.watcher.outcomes) == 1
        assert bot.watcher.outcomes[0].cause in {Cause.MEDIA_LOST, Cause.CALLER_HANGUP}
        assert bot.service.client is not None
        async with asyncio.timeout(20):
            while not await asterisk.ari("GET", "applications"):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
            await bot.service.client.wait_connected()
        await bob.dial(WAY_A)
        await bob.established()
        await (await bot.session(2)).wait_for("turn_start")
        await bob.hang_up()
        await bob.closed()
        await assert_nothing_left(asterisk, bot)
