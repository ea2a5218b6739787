"""The whole service in one process, between simulated neighbours: calls that go well, and its own life."""

from __future__ import annotations

import asyncio
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.world import (
    FRAME,
    GREETING,
    LONG,
    MODEL,
    TELEPHONE,
    WIDE,
    Mouthpiece,
    World,
    in_order,
    quick,
    resampled,
    until,
)

from ari_gemini.app import STOP_SECONDS
from ari_gemini.call.agent import Agent
from ari_gemini.errors import Cause, ConfigError
from ari_gemini.realtime.events import Speaker
from ari_gemini.simulator.asterisk import SimulatedCall
from ari_gemini.simulator.phrases import phrase
from ari_gemini.simulator.scenario import ScriptTurn

READY, ANSWERED, BRIDGED = "gemini > setupComplete", "ari channels.answer", "ari bridges.addChannel"
GREETED = "gemini < text"

TALK = quick(
    ScriptTurn(expect="ask_delivery", say=("long_story",)),
    ScriptTurn(expect="interrupt", say=("go_on",)),
    late_frames=2,
    pace=(3.0, 3.0),
)


def spoken(name: str) -> bytes:
    """What a caller should hear of a phrase, 8 kHz."""
    return resampled(phrase(name).pcm, MODEL, TELEPHONE)


def common(wanted: bytes, heard: bytes) -> int:
    """How many bytes of ``wanted`` begin ``heard``."""
    pairs = zip(wanted, heard, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(wanted), len(heard)))


def voice_of(call: SimulatedCall) -> Mouthpiece:
    assert isinstance(call.voice, Mouthpiece)
    return call.voice


def correlation(one: bytes, other: bytes) -> float:
    return float(np.corrcoef(np.frombuffer(one, "<i2"), np.frombuffer(other, "<i2"))[0, 1])


# Two turns and an interruption.


@pytest.mark.parametrize("way", ["A", "B"])
async def test_a_conversation_with_an_interruption_is_exact_both_ways(way: str) -> None:
    async with World(TALK) as world:
        call = await (world.call() if way == "A" else world.dial())
        voice = voice_of(call)
        session = await world.gemini.wait_session()
        await session.wait_for("turn_complete", timeout=LONG)
        voice.say(phrase("ask_delivery").pcm)
        await session.wait_for("turn_start", count=2, timeout=LONG)
        await asyncio.sleep(2.0)
        assert not session.said[-1].complete
        voice.say(phrase("interrupt").pcm)
        await session.wait_for("interrupted", timeout=LONG)
        await session.wait_for("turn_complete", count=3, timeout=LONG)
        await until(lambda: len(world.turns) == 3)
        await asyncio.sleep(0.2)
        call.hang_up()
        assert (await world.over()).cause is Cause.CALLER_HANGUP
        await world.nothing_left()

    hears_every_sample_up_to_the_interruption(bytes(voice.heard), world)
    heard = bytes(session.heard.pcm)
    for name in ("ask_delivery", "interrupt"):
        said = resampled(phrase(name).pcm, TELEPHONE, WIDE)
        assert said in heard, name
    # said and heard, told apart by who spoke
    words = "".join(text for speaker, text in world.transcripts if speaker is Speaker.CALLER)
    assert phrase("ask_delivery").text in words
    assert phrase("interrupt").text in words


def hears_every_sample_up_to_the_interruption(heard: bytes, world: World) -> None:
    """The greeting and the last answer whole; of the story its beginning, then digital silence."""
    greeting, story, last = (spoken(name) for name in ("done", "long_story", "go_on"))
    at = heard.find(greeting)
    assert at >= 0
    assert not any(heard[:at])
    begins = heard.find(story[: 10 * FRAME])
    assert begins > at
    assert not any(heard[at + len(greeting) : begins])
    length = common(story, heard[begins:])
    assert world.turns[1].interrupted is not None
    assert length == pytest.approx(TELEPHONE.frame_bytes * world.turns[1].heard_ms / 20, abs=FRAME)
    assert 1.5 < length / 2 / TELEPHONE.rate < 3.5
    again = heard.find(last)
    assert again > begins
    # nothing of the two messages that followed `interrupted`, nothing left over in a queue
    assert not any(heard[begins + length : again])
    assert correlation(story[:length], heard[begins : begins + length]) >= 0.95
    assert not any(heard[again + len(last) :])


async def test_the_caller_hears_silence_within_a_frame_of_the_interruption() -> None:
    async with World(TALK) as world:
        call = await world.call()
        voice, session = voice_of(call), await world.gemini.wait_session()
        await session.wait_for("turn_complete", timeout=LONG)
        session.say("long_story")
        await session.wait_for("turn_start", count=2, timeout=LONG)
        await asyncio.sleep(2.0)
        frames = len(voice.times)
        assert any(voice.heard[-FRAME:])
        session.interrupt()
        await asyncio.sleep(0.5)
        after = [any(voice.heard[at * FRAME : (at + 1) * FRAME]) for at in range(frames, len(voice.times))]
        assert len(after) > 20
        assert not any(after[1:])


async def test_a_frame_comes_every_20_ms_from_the_first_on() -> None:
    async with World() as world:
        call = await world.talks()
        await asyncio.sleep(1.0)
        gaps = [round((b - a) * 1000) for a, b in pairwise(voice_of(call).times)]
        assert len(gaps) > 100
        assert sum(gaps) / len(gaps) == pytest.approx(20, abs=0.5)


async def test_two_calls_do_not_hear_each_other() -> None:
    async with World() as world:
        one, two = await world.call(), await world.call()
        await world.up(2)
        first, second = world.gemini.sessions
        mine, others = (one, two) if first.number == 1 else (two, one)
        await asyncio.sleep(2.0)
        before = len(voice_of(others).heard)
        await world.hears_it_all(mine, first)
        assert not any(voice_of(others).heard[before:]) or not any(voice_of(mine).heard[before:])
        await world.hears_it_all(others, second)


# The order of the set-up.


async def test_who_is_answered_when_ready_is_answered_by_a_model_that_is_ready() -> None:
    async with World(quick(setup_delay=2.0)) as world:
        call = await world.call()
        await until(lambda: "ari channels.externalMedia" in world.steps)
        await asyncio.sleep(1.0)
        assert call.channel.ringing
        assert not call.channel.answered.is_set()
        await world.up()
        await until(lambda: GREETED in world.steps)
        assert in_order(world.steps, "ari channels.ring", READY, ANSWERED, BRIDGED, "call started", GREETED)
        await world.hears_it_all(call, world.gemini.sessions[0])


async def test_who_is_answered_immediately_is_bridged_before_the_model_is_ready() -> None:
    async with World(quick(setup_delay=2.0), calls={"answer": "immediately"}) as world:
        call = await world.call()
        await call.wait_answered()
        await world.up()
        await until(lambda: GREETED in world.steps)
        assert "ari channels.ring" not in world.steps
        assert in_order(world.steps, ANSWERED, BRIDGED, READY, GREETED)
        await world.hears_it_all(call, world.gemini.sessions[0])


async def test_what_is_said_before_the_model_is_ready_reaches_it_all_the_same() -> None:
    async with World(quick(setup_delay=1.0), calls={"answer": "immediately"}) as world:
        voice = Mouthpiece()
        call = await world.call(voice=voice)
        await call.wait_answered()
        await until(lambda: BRIDGED in world.steps)
        await asyncio.sleep(0.05)
        voice.say(phrase("ask_hours").pcm)
        session = await world.gemini.wait_session()
        said = resampled(phrase("ask_hours").pcm, TELEPHONE, WIDE)
        await until(lambda: said in session.heard.pcm)


async def test_gemini_is_asked_while_asterisk_is_still_busy() -> None:
    """The model's set-up does not wait for the media, nor the media for the model."""
    async with World() as world:
        go_on = asyncio.Event()
        world.on["ari bridges.createWithId"] = go_on.wait
        await world.call()
        await until(lambda: READY in world.steps)
        assert "ari channels.externalMedia" not in world.steps
        go_on.set()
        await world.up()


@pytest.mark.parametrize("way", ["A", "B"])
async def test_the_model_is_told_to_greet_only_when_the_caller_can_hear_it(way: str) -> None:
    async with World() as world:
        call = await (world.call() if way == "A" else world.dial())
        await world.up()
        await until(lambda: GREETED in world.steps)
        assert world.steps.index(GREETED) > world.steps.index("call started")
        assert way == "B" or in_order(world.steps, BRIDGED, GREETED)
        await until(lambda: spoken("done") in voice_of(call).heard)


async def test_without_a_greeting_the_model_waits() -> None:
    async with World(agents={"default": Agent()}) as world:
        await world.call()
        await world.up()
        await asyncio.sleep(1.0)
        assert GREETED not in world.steps
        assert not world.gemini.sessions[0].said


# Who answers, and what he knows.

ORDERS = Agent(
    instructions="{caller_name} of {caller_number} dialled {called_number} about {ORDER}.{NONE}",
    greeting="Greet {caller_name}.",
    variables=("ORDER", "NONE"),
    voice="Kore",
)


@pytest.mark.parametrize("way", ["A", "B"])
async def test_the_model_is_told_who_calls_and_what_the_dialplan_knows(way: str) -> None:
    about = {"number": "0301234", "name": "Ada {ORDER}", "exten": "77"}
    variables = {"ORDER": "47-11", "ARI_GEMINI_AGENT": "orders"}
    async with World(agents={"default": GREETING, "orders": ORDERS}) as world:
        if way == "A":
            await world.call(args=("orders",), variables=variables, **about)
        else:
            await world.dial(variables=variables, **about)
        await world.up()
        await until(lambda: GREETED in world.steps)
        session = world.gemini.sessions[0]
        assert session.setup is not None
        told = session.setup["systemInstruction"]["parts"][0]["text"]
        assert told == "Ada {ORDER} of 0301234 dialled 77 about 47-11."
        assert session.messages[0].body["text"] == "Greet Ada {ORDER}."
        speech = session.setup["generationConfig"]["speechConfig"]
        assert speech["voiceConfig"]["prebuiltVoiceConfig"]["voiceName"] == "Kore"


async def test_way_b_without_a_named_agent_gets_the_default_one() -> None:
    async with World(agents={"default": Agent(instructions="I am the default.")}) as world:
        await world.dial()
        await world.up()
        assert world.gemini.sessions[0].setup is not None
        assert "I am the default." in str(world.gemini.sessions[0].setup["systemInstruction"])


async def test_way_b_leaves_the_channel_to_the_dialplan_alone() -> None:
    async with World() as world:
        call = await world.dial()
        await world.up()
        await world.hears_it_all(call, world.gemini.sessions[0])
        assert {step for step in world.steps if step.startswith("ari ")} == {
            "ari channels.list",
            "ari channels.getChannelVar",
        }
        call.hang_up()
        assert (await world.over()).cause is Cause.CALLER_HANGUP
        await world.nothing_left()
        await world.another_works()


async def test_without_ari_way_b_works_with_any_uuid() -> None:
    async with World(with_ari=False, audiosocket={"verify": "none"}) as world:
        call = await world.dial(variables={"ARI_GEMINI_AGENT": "somebody"})
        await world.up()
        await world.hears_it_all(call, world.gemini.sessions[0])
        assert world.asterisk.operations() == []
        call.hang_up()
        assert (await world.over()).cause is Cause.CALLER_HANGUP
        await world.nothing_left()


async def test_without_ari_only_who_may_come_is_let_in() -> None:
    settings = {"verify": "none", "allow_from": ["10.0.0.0/8"]}
    async with World(with_ari=False, audiosocket=settings) as world:
        call = await world.dial()
        await call.wait_left()
        assert world.outcomes == []
        assert world.gemini.connections == 0
        assert world.service.media.stats.accepted == 0


# Who is sent on.


async def test_an_unknown_agent_sends_the_caller_on() -> None:
    async with World() as world:
        call = await world.call(args=("nobody",))
        assert (await world.over()).cause is Cause.NO_AGENT
        assert "'nobody'" in world.outcomes[0].detail
        await call.wait_left()
        assert call.continued is not None
        assert call.variables["ARI_GEMINI_CAUSE"] == "no_agent"
        assert world.gemini.connections == 0
        await world.nothing_left(call)
        await world.another_works(call)


async def test_an_unknown_agent_sends_the_caller_of_way_b_on() -> None:
    async with World() as world:
        call = await world.dial(variables={"ARI_GEMINI_AGENT": "nobody"})
        assert (await world.over()).cause is Cause.NO_AGENT
        await call.wait_left()
        assert call.continued is not None
        await world.nothing_left(call)


@pytest.mark.parametrize("way", ["A", "B"])
async def test_one_caller_too_many_is_sent_on_and_the_others_do_not_notice(way: str) -> None:
    async with World(calls={"max_calls": 1}) as world:
        first = await world.talks()
        second = await (world.call() if way == "A" else world.dial())
        assert (await world.over()).cause is Cause.OVERLOADED
        await second.wait_left()
        assert second.continued is not None
        assert way == "B" or second.variables["ARI_GEMINI_CAUSE"] == "overloaded"
        await world.hears_it_all(first, world.gemini.sessions[0])
        first.hang_up()
        await world.over(2)
        await world.nothing_left(second)
        await world.another_works(second)


# Its own life.


async def test_stopping_sends_every_caller_on_and_leaves_nothing() -> None:
    async with World(quick(setup_delay=1.0)) as world:
        talking = [await world.call(), await world.dial()]
        await world.up(2)
        begun = await world.call()
        await until(lambda: world.steps.count("ari channels.externalMedia") == 2)
        calls = [*talking, begun]
        await world.stop()
        assert [outcome.cause for outcome in world.outcomes] == [Cause.SHUTDOWN] * 3
        for call in calls:
            await call.wait_left()
            assert call.continued is not None
        assert [call.variables.get("ARI_GEMINI_CAUSE") for call in calls] == ["shutdown", None, "shutdown"]
        assert world.asterisk.connected_apps() == set()
        await world.nothing_left(*calls)


async def test_who_comes_while_it_stops_is_sent_on() -> None:
    async with World() as world:
        first = await world.talks()
        late: list[SimulatedCall] = []

        async def another() -> None:
            late.append(await world.call())

        world.on["ari channels.continueInDialplan"] = another
        await world.stop()
        assert [outcome.cause for outcome in world.outcomes] == [Cause.SHUTDOWN] * 2
        assert late[0].variables["ARI_GEMINI_CAUSE"] == "shutdown"
        await world.nothing_left(first, *late)


async def test_stopping_without_calls_is_quick_and_may_be_said_twice() -> None:
    async with World() as world:
        world.service.stop()
        world.service.stop()
        await world.stop()
        assert world.outcomes == []


async def test_cancelling_cleans_up_as_well() -> None:
    async with World() as world:
        call = await world.talks()
        world.running.cancel()
        await asyncio.wait([world.running])
        assert world.running.cancelled()
        assert [outcome.cause for outcome in world.outcomes] == [Cause.SHUTDOWN]
        assert call.variables["ARI_GEMINI_CAUSE"] == "shutdown"
        assert call.continued is not None
        await world.nothing_left(call)


async def test_a_call_that_has_not_begun_to_run_is_ended_by_stopping_as_well() -> None:
    async with World() as world:
        begun = asyncio.get_running_loop().time()
        call = await world.call()
        while not world.service.calls:  # noqa: ASYNC110  # the first moment is wanted
            await asyncio.sleep(0)
        await world.stop()
        assert asyncio.get_running_loop().time() - begun < STOP_SECONDS
        assert [outcome.cause for outcome in world.outcomes] == [Cause.SHUTDOWN]
        assert call.continued is not None
        await world.nothing_left(call)


async def test_a_call_that_hangs_does_not_keep_the_service_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ari_gemini.app.STOP_SECONDS", 0.05)
    async with World() as world:
        call = await world.talks()
        world.asterisk.delay = 1.0
        await world.stop()
        assert world.log_lines("service.calls_hang")[0]["calls"] == [call.id]
        assert [outcome.cause for outcome in world.outcomes] == [Cause.SHUTDOWN]
        assert world.service.media.connections == 0
        assert world.gemini.sessions[0].closed


async def test_an_address_that_is_taken_is_said_before_anything_is_opened() -> None:
    async with World() as world:
        taken = str(world.service.media.address)
        other = World(audiosocket={"listen": taken}, connect=False)
        with pytest.raises(ConfigError, match=f"audiosocket.listen: cannot listen on {taken}"):
            async with other:
                await other.running
        assert other.asterisk.operations() == []
        await world.talks()


@pytest.mark.parametrize("way", ["A", "B"])
async def test_ten_calls_one_after_another_leave_nothing(way: str) -> None:
    async with World() as world:
        for count in range(1, 11):
            call = await (world.call() if way == "A" else world.dial())
            await world.up(count)
            call.hang_up()
            assert (await world.over(count)).cause is Cause.CALLER_HANGUP
            await world.nothing_left()


async def test_twenty_calls_at_once_leave_nothing() -> None:
    async with World() as world:
        calls = [await (world.call() if number % 2 else world.dial()) for number in range(20)]
        await world.up(20)
        await until(lambda: all(spoken("done") in voice_of(call).heard for call in calls))
        for call in calls:
            call.hang_up()
        await world.over(20)
        assert {outcome.cause for outcome in world.outcomes} == {Cause.CALLER_HANGUP}
        await world.nothing_left()
