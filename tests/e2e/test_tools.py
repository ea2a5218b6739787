"""The model acts on a real Asterisk and real phones: digits, hanging up, transfers, the time in between."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from bot import WAY_A, WAY_B, Bot, running
from harness.align import align
from harness.asterisk import Asterisk
from harness.phone import Phone, PhoneMaker
from harness.sound import RATE, Samples, resample, speechlike
from harness.tap import Way

from ari_gemini.errors import Cause
from ari_gemini.simulator.gemini_live import SimulatedSession
from ari_gemini.simulator.phrases import phrase
from ari_gemini.simulator.scenario import Scenario, ScriptedCall, ScriptTurn

pytestmark = pytest.mark.asterisk

TELEPHONE_BAND = (300.0, 3400.0)
GREETING = ScriptTurn(on="text", say=("done",))
EVERY_DIGIT = "0123456789*#ABCD"


def scenario(*turns: ScriptTurn, **given: Any) -> Scenario:
    return Scenario(turns=(GREETING, *turns), think_time=0.2, **given)


def tools(*names: str, **agent: object) -> Mapping[str, str]:
    """The default agent's settings as environment variables."""
    settings = {"tools": list(names), **agent}
    return {
        f"ARI_GEMINI__AGENTS__DEFAULT__{key.upper()}": json.dumps(value) for key, value in settings.items()
    }


def caller_says(name: str) -> Samples:
    return np.frombuffer(phrase(name).pcm, "<i2").astype(np.int16)


def found(phone: Phone, name: str) -> float:
    """How well a phrase of the model is found in what the phone recorded."""
    said = np.frombuffer(phrase(name).pcm, "<i2").astype(np.int16)
    return align(phone.heard(), said, reference_rate=24000, band=TELEPHONE_BAND).correlation


async def greeted(phone: Phone, bot: Bot, way: str) -> SimulatedSession:
    """Dial, and hear the greeting out."""
    await phone.dial(way)
    await phone.established()
    session = await bot.session()
    await session.wait_for("turn_complete", timeout=20)
    await phone.tap.wait_quiet(Way.TO_PHONE, packets=15)
    return session


async def answer_to(session: SimulatedSession, count: int = 1) -> Mapping[str, Any]:
    """The ``count``-th result that the model was given."""
    event = await session.wait_for("tool_response", count=count, timeout=30)
    return dict(event.detail["response"])


async def nothing_left(asterisk: Asterisk, bot: Bot) -> None:
    await asterisk.empty()
    await bot.idle()


async def hung_up(phone: Phone) -> None:
    await phone.hang_up()
    await phone.closed()


# Digits.


async def test_the_phone_gets_the_digits_that_the_model_sends(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice = await phone("1001")
    async with running(asterisk, scenario(), environ=tools("send_dtmf")) as bot:
        session = await greeted(alice, bot, WAY_A)
        digits = EVERY_DIGIT * 2
        session.call_tool("send_dtmf", {"digits": digits}, then=("opening_hours",))
        response = await answer_to(session)
        assert response["result"] == f"Successfully sent DTMF digits: {digits}"
        assert await alice.received_digits(len(digits)) == digits
        await session.wait_for("turn_complete", count=3, timeout=20)
        await alice.tap.wait_quiet(Way.TO_PHONE, packets=15)
        reported = alice.reported_digits()
        await hung_up(alice)
        await nothing_left(asterisk, bot)
        assert found(alice, "opening_hours") >= 0.95, "what the model says after them is whole"
        assert reported, "baresip itself prints those that follow a voice packet"
        print(f"\nthe phone's wire: {alice.digits()}, printed by baresip: {reported}")


async def test_in_band_digits_are_decoded_by_an_independent_detector(
    asterisk: Asterisk, phone: PhoneMaker
) -> None:
    alice = await phone("1001")
    generator = np.random.default_rng(4733)
    digits = "".join(generator.choice(list(EVERY_DIGIT), 100))
    async with running(asterisk, scenario(), environ=tools("send_dtmf")) as bot:
        session = await greeted(alice, bot, WAY_B)
        for number, part in enumerate((digits[:50], digits[50:])):
            session.call_tool("send_dtmf", {"digits": part})
            assert "result" in await answer_to(session, number + 1)
        session.say("opening_hours")
        await session.wait_for("turn_start", count=4, timeout=20)
        await alice.tap.wait_loud(Way.TO_PHONE)
        await alice.tap.wait_quiet(Way.TO_PHONE, packets=25)
        await hung_up(alice)
        await nothing_left(asterisk, bot)
        decoded = multimon(alice.heard())
        assert decoded == digits
        assert alice.digits() == "", "in the audio, not as events"
        assert found(alice, "opening_hours") >= 0.95
        matching = sum(a == b for a, b in zip(decoded, digits, strict=True))
        print(f"\nmultimon-ng decoded {matching} of {len(digits)}")


def multimon(samples: Samples) -> str:
    """The keys that multimon-ng hears in sound of the telephone's rate."""
    tool = shutil.which("multimon-ng")
    assert tool, "tests/e2e/fetch installs it"
    sound = resample(samples, RATE, 22050).astype("<i2").tobytes()
    done = subprocess.run(
        [tool, "-q", "-a", "DTMF", "-t", "raw", "-"], input=sound, capture_output=True, check=True
    )
    return "".join(line.split()[1] for line in done.stdout.decode().splitlines() if line.startswith("DTMF:"))


@pytest.mark.parametrize("way", [WAY_A, WAY_B])
async def test_the_callers_keys_reach_the_model_once_and_silence_it(
    asterisk: Asterisk, phone: PhoneMaker, way: str
) -> None:
    alice = await phone("1001")
    async with running(asterisk, scenario(ScriptTurn(say=("long_story",)))) as bot:
        session = await greeted(alice, bot, way)
        await alice.say(caller_says("ask_delivery"))
        await session.wait_for("turn_start", count=2, timeout=20)
        await alice.tap.wait_loud(Way.TO_PHONE)
        await alice.press("1")
        await alice.tap.wait_quiet(Way.TO_PHONE, packets=25)
        assert session.record.count("interrupted") == 0, "silenced here, before the model knows of it"
        await alice.press("2233#")
        text = await session.wait_for("client_text", count=2, timeout=20)
        assert text.detail["text"] == "The caller pressed these keys on his phone: 12233"
        await session.wait_for("turn_start", count=3, timeout=20)
        await alice.tap.wait_loud(Way.TO_PHONE)
        assert session.record.count("client_text") == 2
        await hung_up(alice)
        await nothing_left(asterisk, bot)


# Hanging up.


@pytest.mark.parametrize("way", [WAY_A, WAY_B])
async def test_the_model_hangs_up_after_the_whole_farewell(
    asterisk: Asterisk, phone: PhoneMaker, way: str
) -> None:
    alice = await phone("1001")
    goodbye = ScriptTurn(first=("goodbye",), calls=(ScriptedCall(name="hangup_call"),))
    async with running(asterisk, scenario(goodbye), environ=tools("hangup_call")) as bot:
        session = await greeted(alice, bot, way)
        await alice.say(caller_says("say_goodbye"))
        called = await session.wait_for("tool_call", timeout=20)
        closed = await alice.closed()
        last = alice.tap.last_loud(Way.TO_PHONE)
        await nothing_left(asterisk, bot)
        assert last is not None
        assert called.at < last.time < closed.time, "the call came while the farewell was still being heard"
        assert found(alice, "goodbye") >= 0.99
        assert [outcome.cause for outcome in bot.watcher.outcomes] == [Cause.MODEL_HANGUP]
        print(
            f"\nextension {way}: farewell {found(alice, 'goodbye'):.4f}, "
            f"hangup {closed.time - last.time:.3f} s after its last sound, "
            f"{closed.time - called.at:.3f} s after the model's call"
        )


async def test_a_caller_who_speaks_calls_the_hangup_off(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice = await phone("1001")
    goodbye = ScriptTurn(first=("goodbye",), calls=(ScriptedCall(name="hangup_call"),))
    async with running(asterisk, scenario(goodbye, goodbye), environ=tools("hangup_call")) as bot:
        session = await greeted(alice, bot, WAY_A)
        await alice.say(caller_says("say_goodbye"))
        await session.wait_for("tool_call", timeout=20)
        await alice.say(caller_says("interrupt"))
        assert "began to speak" in (await answer_to(session))["error"]
        await session.wait_for("tool_call", count=2, timeout=20)
        await alice.closed()
        await nothing_left(asterisk, bot)
        assert [outcome.cause for outcome in bot.watcher.outcomes] == [Cause.MODEL_HANGUP]


# Transfers.

SAY_WHO = "I am connecting Ada, who asks about her order."


async def talk(one: Phone, other: Phone) -> tuple[float, float]:
    """Both say something, one after the other; how well each is found in what the other heard meanwhile."""
    results = []
    for speaker, hearer, seed in ((one, other, 11), (other, one, 12)):
        said = speechlike(2.0, seed=seed)
        begun = await speaker.say(said)
        await hearer.tap.wait_loud(Way.TO_PHONE)
        await hearer.tap.wait_quiet(Way.TO_PHONE, packets=20)
        heard = hearer.tap.sound(Way.TO_PHONE, since=begun)
        results.append(align(heard, said, band=TELEPHONE_BAND).correlation)
    return results[0], results[1]


async def test_blind_transfer_reaches_the_second_phone(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice, bob = await phone("1001"), await phone("1002", register=True, answer="auto")
    turn = ScriptTurn(
        first=("connecting",), calls=(ScriptedCall(name="transfer_call", args={"destination": "sales"}),)
    )
    places = {"sales": "from-internal,1002,1", "nowhere": "from-internal,9999,1"}
    async with running(asterisk, scenario(turn), environ=tools("transfer_call", transfer=places)) as bot:
        session = await greeted(alice, bot, WAY_A)
        session.call_tool("transfer_call", {"destination": "nowhere"})
        assert "does not exist" in (await answer_to(session))["error"]
        await alice.say(caller_says("ask_person"))
        await bob.established(timeout=20)
        await bot.idle()
        assert [outcome.cause for outcome in bot.watcher.outcomes] == [Cause.TRANSFERRED]
        there, back = await talk(alice, bob)
        await hung_up(alice)
        await bob.closed()
        await nothing_left(asterisk, bot)
        assert found(alice, "connecting") >= 0.95, "the caller is sent on when he has heard the model out"
        assert min(there, back) >= 0.95
        print(f"\nblind: alice to bob {there:.4f}, bob to alice {back:.4f}")


def boss(**given: object) -> Mapping[str, Mapping[str, object]]:
    """A table with one attended destination: the second phone."""
    return {"boss": {"context": "from-internal", "extension": "1002", "attended": True, **given}}


def ask_boss(*, first: tuple[str, ...] = (), say: tuple[str, ...]) -> ScriptTurn:
    """The turn in which the model wants the second phone rung, and what it says when it has its answer."""
    call = ScriptedCall(name="transfer_call", args={"destination": "boss", "summary": SAY_WHO})
    return ScriptTurn(first=first, calls=(call,), say=say)


@pytest.mark.parametrize(("endpoint", "who_hangs_up"), [(None, "alice"), ("PJSIP/1002", "bob")])
async def test_attended_transfer_joins_both(
    asterisk: Asterisk, phone: PhoneMaker, endpoint: str | None, who_hangs_up: str
) -> None:
    alice, bob = await phone("1001"), await phone("1002", register=True, answer="auto")
    turn = ask_boss(first=("one_moment",), say=("order_status",))
    table = boss() if endpoint is None else boss(endpoint=endpoint)
    async with running(asterisk, scenario(turn), environ=tools("transfer_call", transfer=table)) as bot:
        session = await greeted(alice, bot, WAY_A)
        await alice.say(caller_says("ask_person"))
        await bob.established(timeout=20)
        response = await answer_to(session)
        assert SAY_WHO in response["result"]
        await alice.tap.wait_loud(Way.TO_PHONE)  # the ringing tone, for the model is not for her to hear
        await bot.watcher.wait_outcomes(1)
        await bot.idle()
        assert [outcome.cause for outcome in bot.watcher.outcomes] == [Cause.TRANSFERRED]
        there, back = await talk(alice, bob)
        await hung_up({"alice": alice, "bob": bob}[who_hangs_up])
        await {"alice": bob, "bob": alice}[who_hangs_up].closed()
        await nothing_left(asterisk, bot)
        assert found(bob, "order_status") >= 0.95, "the party was told"
        assert found(alice, "order_status") < 0.5, "which the caller did not hear"
        assert min(there, back) >= 0.95
        print(
            f"\nattended: alice to bob {there:.4f}, bob to alice {back:.4f}, "
            f"told {found(bob, 'order_status'):.4f}"
        )


@pytest.mark.parametrize(
    "place", [{}, {"endpoint": "PJSIP/1002"}], ids=["beside our bridge", "in our bridge"]
)
async def test_the_party_transfers_the_caller_on(
    asterisk: Asterisk, phone: PhoneMaker, place: Mapping[str, str]
) -> None:
    alice, bob = await phone("1001"), await phone("1002", register=True, answer="auto")
    carol = await phone("1003", register=True, answer="auto")
    turn = ask_boss(first=("one_moment",), say=("order_status",))
    environ = tools("transfer_call", transfer=boss(**place))
    async with running(asterisk, scenario(turn), environ=environ) as bot:
        await greeted(alice, bot, WAY_A)
        await alice.say(caller_says("ask_person"))
        await bob.established(timeout=20)
        await bot.watcher.wait_outcomes(1)
        await bot.idle()
        await talk(alice, bob)
        await bob.command("transfer", f"sip:1003@{asterisk.sip_address}")
        await carol.established(timeout=20)
        await bob.closed(timeout=20)
        there, back = await talk(alice, carol)
        assert min(there, back) >= 0.95
        assert len(bot.watcher.outcomes) == 1, "and no model is needed"
        await hung_up(carol)
        await alice.closed()
        await nothing_left(asterisk, bot)


async def test_a_caller_who_is_transferred_back_here_is_served_again(
    asterisk: Asterisk, phone: PhoneMaker
) -> None:
    """He enters while his former call is being cleaned up."""
    alice = await phone("1001")
    back = {"again": f"from-internal,{WAY_A},1"}
    async with running(asterisk, scenario(), environ=tools("transfer_call", transfer=back)) as bot:
        first = await greeted(alice, bot, WAY_A)
        first.call_tool("transfer_call", {"destination": "again"})
        second = await bot.gemini.wait_session(2)
        await second.wait_for("turn_complete", timeout=20)
        await alice.tap.wait_quiet(Way.TO_PHONE, packets=15)
        await hung_up(alice)
        await nothing_left(asterisk, bot)
        causes = [outcome.cause for outcome in bot.watcher.outcomes]
        assert causes == [Cause.TRANSFERRED, Cause.CALLER_HANGUP]


async def test_when_nobody_answers_the_caller_is_back_with_the_model(
    asterisk: Asterisk, phone: PhoneMaker
) -> None:
    alice, bob = await phone("1001"), await phone("1002", register=True)
    turn = ask_boss(first=("one_moment",), say=("anything_else",))
    environ = tools("transfer_call", transfer=boss(ring_seconds=2))
    async with running(asterisk, scenario(turn), environ=environ) as bot:
        session = await greeted(alice, bot, WAY_A)
        await alice.say(caller_says("ask_person"))
        await bob.incoming(timeout=20)
        assert "error" in await answer_to(session)
        await session.wait_for("turn_complete", count=3, timeout=20)
        await alice.tap.wait_quiet(Way.TO_PHONE, packets=15)
        await bob.closed()
        await hung_up(alice)
        await nothing_left(asterisk, bot)
        assert found(alice, "anything_else") >= 0.95
        assert [outcome.cause for outcome in bot.watcher.outcomes] == [Cause.CALLER_HANGUP]


async def test_a_party_who_hangs_up_before_it_is_joined(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice, bob = await phone("1001"), await phone("1002", register=True, answer="auto")
    sorry = ScriptTurn(on="text", say=("anything_else",))
    environ = tools("transfer_call", transfer=boss(endpoint="PJSIP/1002"))
    async with running(asterisk, scenario(ask_boss(say=("long_story",)), sorry), environ=environ) as bot:
        session = await greeted(alice, bot, WAY_A)
        await alice.say(caller_says("ask_person"))
        await bob.established(timeout=20)
        await bob.tap.wait_loud(Way.TO_PHONE, timeout=20)
        await hung_up(bob)
        told = await session.wait_for("client_text", count=2, timeout=20)
        assert "was not connected" in told.detail["text"]
        await alice.tap.wait_quiet(Way.TO_PHONE, packets=25)
        await hung_up(alice)
        await nothing_left(asterisk, bot)
        assert found(alice, "anything_else") >= 0.95
        assert [outcome.cause for outcome in bot.watcher.outcomes] == [Cause.CALLER_HANGUP]


async def test_a_party_that_cannot_be_reached(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice = await phone("1001")
    environ = tools("transfer_call", transfer=boss(endpoint="PJSIP/1020"))
    async with running(asterisk, scenario(ask_boss(say=("anything_else",))), environ=environ) as bot:
        session = await greeted(alice, bot, WAY_A)
        await alice.say(caller_says("ask_person"))
        assert (await answer_to(session))["error"] == "the other party cannot be reached"
        await session.wait_for("turn_complete", count=3, timeout=20)
        await alice.tap.wait_quiet(Way.TO_PHONE, packets=15)
        await hung_up(alice)
        await nothing_left(asterisk, bot)
        assert found(alice, "anything_else") >= 0.95


async def test_a_restarted_service_leaves_joined_parties_alone(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice, bob = await phone("1001"), await phone("1002", register=True, answer="auto")
    environ = tools("transfer_call", transfer=boss())
    async with running(asterisk, scenario(ask_boss(say=("order_status",))), environ=environ) as bot:
        await greeted(alice, bot, WAY_A)
        await alice.say(caller_says("ask_person"))
        await bot.watcher.wait_outcomes(1)
        assert [outcome.cause for outcome in bot.watcher.outcomes] == [Cause.TRANSFERRED]
    async with running(asterisk, scenario(), environ=environ) as bot:
        there, back = await talk(alice, bob)
        assert bot.gemini.connections == 0, "nobody is answered by a bot"
        assert min(there, back) >= 0.95
        await hung_up(alice)
        await bob.closed()
        await nothing_left(asterisk, bot)


async def test_way_b_cannot_transfer_and_says_so(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice = await phone("1001")
    environ = tools("transfer_call", transfer={"sales": "from-internal,1002,1"})
    async with running(asterisk, scenario(), environ=environ) as bot:
        session = await greeted(alice, bot, WAY_B)
        session.call_tool("transfer_call", {"destination": "sales"})
        assert "cannot be transferred" in (await answer_to(session))["error"]
        await hung_up(alice)
        await nothing_left(asterisk, bot)


# While a tool works.


async def test_a_slow_tool_delays_no_frame_and_is_no_silence(asterisk: Asterisk, phone: PhoneMaker) -> None:
    alice = await phone("1001")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(5)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    named = {"slow": {"description": "Takes five seconds.", "url": f"http://127.0.0.1:{port}/"}}
    environ = {**tools("slow"), "ARI_GEMINI__TOOLS__NAMED": json.dumps(named)}
    async with server, running(asterisk, scenario(), environ=environ) as bot:
        session = await greeted(alice, bot, WAY_A)
        arrived = [await alice.tap.wait(lambda p: p.way is Way.TO_PHONE) for _ in range(150)]
        session.call_tool("slow", {}, then=("opening_hours",))
        called = await session.wait_for("tool_call", timeout=20)
        tone = await alice.tap.wait_loud(Way.TO_PHONE, above=-50.0)
        answered = await session.wait_for("tool_response", timeout=20)
        await session.wait_for("turn_complete", count=3, timeout=20)
        await alice.tap.wait_quiet(Way.TO_PHONE, packets=15)
        await hung_up(alice)
        await nothing_left(asterisk, bot)
        assert alice.tap.lost(Way.TO_PHONE) == 0
        before = alice.tap.gaps(Way.TO_PHONE, since=arrived[0].time, until=called.at)
        during = alice.tap.gaps(Way.TO_PHONE, since=called.at, until=answered.at)
        assert len(during) >= 240, "a frame for each 20 ms of the five seconds"
        assert tone.time < answered.at
        assert found(alice, "opening_hours") >= 0.95
        print(
            f"\ngap p99: {np.percentile(before, 99) * 1000:.1f} ms before, "
            f"{np.percentile(during, 99) * 1000:.1f} ms while the tool works; "
            f"tone after {tone.time - called.at:.2f} s"
        )
