"""What goes wrong at Gemini's and at Asterisk's end: a typed reason, the caller sent on, and nothing left."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.world import LONG, Mouthpiece, World, quick, until

from ari_gemini.ari.channel import Bridge
from ari_gemini.ari.client import AriClient
from ari_gemini.ari.settings import AriSettings
from ari_gemini.errors import Cause
from ari_gemini.simulator.asterisk import Refused, SimulatedCall
from ari_gemini.simulator.scenario import Fault, Scenario, load_scenario

WAYS = pytest.mark.parametrize("way", ["A", "B"])


async def enter(world: World, way: str = "A") -> SimulatedCall:
    return await (world.call() if way == "A" else world.dial())


async def sent_on(world: World, call: SimulatedCall, cause: Cause) -> str:
    """See that the call ended so, and its caller went on in the dialplan knowing why; returns the detail."""
    outcome = await world.over()
    assert outcome.cause is cause, outcome
    await asyncio.wait_for(call.wait_left(), LONG)
    assert call.continued is not None
    in_stasis = call.channel.exten == "700"
    assert call.variables.get("ARI_GEMINI_CAUSE") == (cause.value if in_stasis else None)
    line = world.log_lines("call.ended")[0]
    assert (line["cause"], line["detail"]) == (cause.value, outcome.detail)
    await world.nothing_left(call)
    return outcome.detail


async def as_good_as_new(world: World, *kept: SimulatedCall) -> None:
    world.gemini.scenario = quick()
    world.on.clear()
    await world.another_works(*kept)


# Gemini does not take the call.

REFUSALS = [
    ("refuse_key", Cause.MODEL_REFUSED, "API key"),
    ("refuse_model", Cause.MODEL_REFUSED, "there is no such realtime model"),
    ("refuse_field", Cause.MODEL_REFUSED, "contextWindowCompression"),
    ("quota", Cause.MODEL_UNAVAILABLE, "quota"),
    ("quota_close", Cause.MODEL_UNAVAILABLE, "quota"),
]


@WAYS
@pytest.mark.parametrize(("scenario", "cause", "why"), REFUSALS)
async def test_gemini_refuses(way: str, scenario: str, cause: Cause, why: str) -> None:
    async with World(scenario) as world:
        call = await enter(world, way)
        assert why in await sent_on(world, call, cause)
        assert world.gemini.connections <= 1, "what is refused is not asked again"
        assert "call started" not in world.steps
        assert not call.channel.answered.is_set() or way == "B"
        await as_good_as_new(world, call)


@WAYS
@pytest.mark.parametrize("scenario", ["close_before_setup", "hang", "hang_upgrade"])
async def test_gemini_cannot_be_had_within_the_setup_timeout(way: str, scenario: str) -> None:
    async with World(scenario, calls={"setup_timeout": 2.0}) as world:
        begun = asyncio.get_running_loop().time()
        call = await enter(world, way)
        detail = await sent_on(world, call, Cause.MODEL_UNAVAILABLE)
        assert detail.startswith("no model within 2 s")
        assert 2.0 <= asyncio.get_running_loop().time() - begun < 4.0
        await as_good_as_new(world, call)


async def test_the_last_failure_is_told_with_the_timeout() -> None:
    async with World("close_before_setup", calls={"setup_timeout": 2.0}) as world:
        call = await world.call()
        assert "1011" in await sent_on(world, call, Cause.MODEL_UNAVAILABLE)
        assert world.gemini.connections > 1, "what may pass is tried again"


async def test_gemini_is_not_there_at_all() -> None:
    async with World(calls={"setup_timeout": 2.0}) as world:
        await world.gemini.stop()
        call = await world.call()
        assert "refuses the connection" in await sent_on(world, call, Cause.MODEL_UNAVAILABLE)


async def test_gemini_comes_back_while_it_rings() -> None:
    once = quick(faults=(Fault(at="setup", do="close", connection=1),))
    async with World(once) as world:
        await world.call()
        await world.up()
        assert world.gemini.connections == 2


# Gemini fails in mid-call.


async def heard_a_little(world: World, call: SimulatedCall) -> None:
    voice = call.voice
    assert isinstance(voice, Mouthpiece)
    await world.up()
    await until(lambda: any(voice.heard))


ONCE = {"connection": 1}


@WAYS
@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (Fault(at="speech", after=0.3, do="close", code=1011, reason="Unavailable.", **ONCE), "1011"),
        (Fault(at="speech", after=0.3, do="close", code=1008, reason="Was aborted.", **ONCE), "1008"),
        (Fault(at="speech", after=0.3, do="close", code=1007, reason="Invalid argument.", **ONCE), "1007"),
        (Fault(at="speech", after=0.3, do="close", code=1000, reason="", **ONCE), "1000"),
        (Fault(at="speech", after=0.3, do="abort", **ONCE), "broke"),
        (Fault(at="turn", do="malformed_json", **ONCE), "JSON"),
    ],
    ids=["fails", "aborted", "refused", "goodbye", "reset", "malformed"],
)
async def test_the_session_ends_in_mid_sentence_and_the_call_does_not(
    way: str, fault: Fault, why: str
) -> None:
    async with World(quick(faults=(fault,), pace=(1.5, 1.5))) as world:
        call = await enter(world, way)
        await world.up()
        second = await world.gemini.wait_session(2, timeout=LONG)
        assert why in world.log_lines("! session lost")[0]["reason"]
        await second.wait_for("turn_complete", timeout=LONG)  # it goes on where it was cut off
        await world.hears_it_all(call, second)
        assert world.service.calls == 1
        call.hang_up()
        assert (await world.over()).cause is Cause.CALLER_HANGUP
        await world.nothing_left()


@WAYS
async def test_a_model_lost_for_good_sends_the_caller_on(way: str) -> None:
    async with World(quick()) as world:
        call = await enter(world, way)
        await heard_a_little(world, call)
        world.gemini.scenario = quick(refuse_keys=True)
        world.gemini.sessions[0].cut()
        assert "API key" in await sent_on(world, call, Cause.MODEL_LOST)
        await as_good_as_new(world, call)


@WAYS
@pytest.mark.parametrize("do", ["unknown_message", "bad_base64", "text_frame"])
async def test_what_makes_no_sense_is_left_out_and_the_call_goes_on(way: str, do: Any) -> None:
    async with World(quick(faults=(Fault(at="turn", do=do),))) as world:
        call = await enter(world, way)
        await world.up()
        await world.hears_it_all(call, world.gemini.sessions[0])
        assert world.service.calls == 1
        call.hang_up()
        await world.over()
        await world.nothing_left()


async def test_the_oddest_frames_are_heard_like_any_others() -> None:
    odd = load_scenario("odd_frames").model_copy(update={"setup_delay": 0.1, "think_time": 0.1})
    async with World(odd) as world:
        await world.talks()


async def test_one_call_loses_its_model_and_the_other_does_not_notice() -> None:
    async with World() as world:
        first = await world.talks()
        second = await world.talks()
        world.gemini.sessions[0].cut()
        await world.hears_it_all(second, world.gemini.sessions[1])
        await until(lambda: world.gemini.sessions[-1].resumed)
        resumed = world.gemini.sessions[-1]
        await world.hears_it_all(first, resumed)
        assert world.service.calls == 2


# Asterisk refuses or does not answer.

SETUP = (
    "channels.ring",
    "bridges.createWithId",
    "channels.externalMedia",
    "channels.answer",
    "bridges.addChannel",
)


@pytest.mark.parametrize("operation", SETUP)
async def test_asterisk_fails_at_a_step(operation: str) -> None:
    async with World() as world:

        def fail() -> None:
            raise Refused(500)

        world.on[f"ari {operation}"] = fail
        call = await world.call()
        assert "500" in await sent_on(world, call, Cause.ARI_FAILED)
        await as_good_as_new(world, call)


async def test_external_media_answers_500() -> None:
    async with World() as world:
        world.asterisk.media_refused = True
        call = await world.call()
        detail = await sent_on(world, call, Cause.ARI_FAILED)
        assert "externalMedia" in detail
        world.asterisk.media_refused = False
        await as_good_as_new(world, call)


@pytest.mark.parametrize("carried_out", [True, False], ids=["too late", "never"])
@pytest.mark.parametrize("operation", SETUP)
async def test_asterisk_does_not_answer_a_step_in_time(operation: str, carried_out: bool) -> None:
    """A request that timed out may be carried out all the same: what it makes then is found and destroyed."""
    async with World(calls={"setup_timeout": 20.0}) as world:

        async def stall() -> None:
            await asyncio.sleep(3.3)
            if not carried_out:
                raise Refused(500)

        world.on[f"ari {operation}"] = stall
        call = await world.call()
        assert "no answer within 3 s" in await sent_on(world, call, Cause.ARI_FAILED)
        assert len(world.outcomes) == 1, "Asterisk's late dialling is no call of its own"
        await as_good_as_new(world, call)


async def test_all_of_asterisk_is_slow_but_not_too_slow() -> None:
    async with World() as world:
        world.asterisk.delay = 0.5
        call = await world.talks()
        call.hang_up()
        await world.over()
        await world.nothing_left()


async def test_asterisk_stalls_longer_than_the_setup_may_take() -> None:
    async with World(calls={"setup_timeout": 1.0}) as world:

        async def stall() -> None:
            await asyncio.sleep(2.5)

        world.on["ari channels.ring"] = stall
        call = await world.call()
        assert await sent_on(world, call, Cause.ARI_FAILED) == "no media within 1 s"
        await as_good_as_new(world, call)


@pytest.mark.parametrize("status", [404, 409, 412])
async def test_a_caller_who_is_gone_by_asterisks_word_has_hung_up(status: int) -> None:
    async with World() as world:

        def gone() -> None:
            world.asterisk.on_request = None
            raise Refused(status, "Channel not found")

        world.on["ari channels.answer"] = gone
        call = await world.call()
        assert (await world.over()).cause is Cause.CALLER_HANGUP
        await world.nothing_left(*([call] if call.id in world.asterisk.channels else []))


async def test_the_media_channel_is_hung_up_by_somebody_else() -> None:
    async with World() as world:
        call = await world.talks()
        (media,) = (c for c in world.asterisk.channels.values() if c.is_media)
        world.asterisk._switch.hang_up(media)
        await sent_on(world, call, Cause.MEDIA_LOST)
        await as_good_as_new(world, call)


# Asterisk comes and goes.


async def test_asterisk_is_not_there_at_the_start() -> None:
    async with World(connect=False) as world:
        await world.service.wait_listening()
        await world.service.client.wait_connected()
        await world.stop()
    async with World() as world:
        host, port = world.asterisk.host, world.asterisk.port
        await world.stop()
        await world.asterisk.stop()
        world.logs.clear()
        world.restart_service()
        await asyncio.sleep(20.0)
        trouble = world.log_lines("! ari unavailable, will keep trying")
        assert [line["log_level"] for line in trouble] == ["warning"]
        assert not world.service.client.connected
        await world.asterisk.start(host, port)
        async with asyncio.timeout(LONG):
            await world.service.client.wait_connected()
        assert len(world.log_lines("= ari is back")) == 1
        await world.at_rest()
        await world.another_works()


@pytest.mark.parametrize("answered", [True, False], ids=["in mid-call", "while it rings"])
async def test_asterisk_restarts(answered: bool) -> None:
    async with World(quick(setup_delay=0.1 if answered else 3.0)) as world:
        calls = [await world.call(), await world.call()]
        await (
            world.up(2) if answered else until(lambda: world.steps.count("ari channels.externalMedia") == 2)
        )
        await world.asterisk.restart()
        await world.over(2)
        assert {outcome.cause for outcome in world.outcomes} == {Cause.MEDIA_LOST}
        assert not any(call.id in world.asterisk.channels for call in calls)
        async with asyncio.timeout(LONG):
            await world.service.client.wait_connected()
        await world.at_rest()
        await world.nothing_left()
        await as_good_as_new(world)


async def test_the_event_connection_breaks_and_calls_go_on() -> None:
    async with World() as world:
        call = await world.talks()
        world.asterisk.drop_events()
        await until(lambda: not world.service.client.connected)
        async with asyncio.timeout(LONG):
            await world.service.client.wait_connected()
        await world.hears_it_all(call, world.gemini.sessions[0])
        call.hang_up()
        assert (await world.over()).cause is Cause.CALLER_HANGUP
        await world.at_rest()
        await world.nothing_left()


async def test_who_hangs_up_unheard_is_missed_when_the_events_are_back() -> None:
    async with World(quick(setup_delay=10.0), calls={"setup_timeout": 30.0}) as world:
        call = await world.call()
        await until(lambda: "ari channels.externalMedia" in world.steps)
        await asyncio.sleep(0.2)
        world.asterisk.drop_events()
        await asyncio.sleep(0)
        call.hang_up()
        assert (await world.over()).cause is Cause.CALLER_HANGUP
        await world.at_rest()
        await world.nothing_left()


async def test_garbage_among_the_events_does_no_harm() -> None:
    async with World() as world:
        for text in ("", "{", "[]", "null", '{"type": "StasisStart"}', '{"type": "StasisEnd", "channel": 5}'):
            world.asterisk.send_raw(text)
        await world.another_works()


REPLACED = "! another client took our ARI application: no calls arrive here"


async def test_another_client_takes_the_application_and_leaves_again() -> None:
    async with World() as world:
        call = await world.talks()
        settings = AriSettings(url=world.asterisk.url, username="gemini", password=world.asterisk.password)
        thief = AriClient(settings)
        stealing = asyncio.create_task(thief.run())
        await until(lambda: bool(world.log_lines(REPLACED)))
        await world.hears_it_all(call, world.gemini.sessions[0])
        assert not world.service.client.connected
        await asyncio.sleep(20.0)
        assert thief.connected, "no tug of war"
        assert len(world.log_lines(REPLACED)) == 1
        # the call ends without an event: by the model, so that the application is left to nobody
        world.gemini.scenario = quick(refuse_keys=True)
        world.gemini.sessions[0].cut()
        assert (await world.over()).cause is Cause.MODEL_LOST
        await call.wait_left()
        stealing.cancel()
        await asyncio.wait([stealing])
        async with asyncio.timeout(LONG):
            await world.service.client.wait_connected()
        await world.at_rest()
        await world.nothing_left(call)
        await as_good_as_new(world, call)


async def test_it_takes_its_application_back_while_calls_are_up() -> None:
    async with World() as world:
        call = await world.talks()
        settings = AriSettings(url=world.asterisk.url, username="gemini", password=world.asterisk.password)
        stealing = asyncio.create_task(AriClient(settings).run())
        await until(lambda: bool(world.log_lines(REPLACED)))
        call.hang_up()  # which the other client is told, not the service
        stealing.cancel()
        await asyncio.wait([stealing])
        assert (await world.over()).cause is Cause.CALLER_HANGUP
        await world.nothing_left()


async def test_what_a_dead_service_left_behind_is_cleared_away() -> None:
    async with World() as world:
        channel = "1700000000.1"
        for name in (f"ari-gemini-bridge-{channel}", "somebody-elses"):
            await Bridge(world.service.client, name).create()
        world.asterisk.drop_events()
        await until(lambda: not world.service.client.connected)
        async with asyncio.timeout(LONG):
            await world.service.client.wait_connected()
        await world.at_rest()
        await until(lambda: list(world.asterisk.bridges) == ["somebody-elses"])


async def test_a_caller_who_came_while_nobody_listened_is_served() -> None:
    async with World() as world:
        call = await world.call()
        world.asterisk.drop_events()  # before a word of the caller could go out
        await world.up()
        await world.hears_it_all(call, world.gemini.sessions[0])


def test_every_scenario_of_a_fault_is_one_that_ships() -> None:
    for scenario, _, _ in REFUSALS:
        assert isinstance(load_scenario(scenario), Scenario)
