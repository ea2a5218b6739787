"""The whole service with Asterisk connecting to it, once per call: calls, broken links, other workers."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from support.world import (
    GREETING,
    MODEL,
    TELEPHONE,
    Mouthpiece,
    World,
    another_worker,
    in_order,
    resampled,
    until,
)

from ari_gemini.app import Service
from ari_gemini.call.outbound import OutboundWay
from ari_gemini.errors import Cause
from ari_gemini.simulator.asterisk import SimulatedCall
from ari_gemini.simulator.gemini_connection import SimulatedSession
from ari_gemini.simulator.phrases import phrase


def way(service: Service) -> OutboundWay:
    assert service.outbound is not None
    return service.outbound


async def hears(call: SimulatedCall, session: SimulatedSession) -> None:
    """The caller hears exactly what a model says that goes on with a conversation."""
    voice = call.voice
    assert isinstance(voice, Mouthpiece)
    begin = len(voice.heard)
    session.say("done")
    wanted = resampled(phrase("done").pcm, MODEL, TELEPHONE)
    await until(lambda: wanted in voice.heard[begin:], "the caller does not hear what the model says")


async def test_a_call_and_the_next() -> None:
    async with World(outbound=True) as world:
        call = await world.talks()
        call.hang_up()
        assert (await world.over()).cause is Cause.CALLER_HANGUP
        await until(lambda: not way(world.service).listener.links, "Asterisk ends the connection")
        await world.another_works()


async def test_the_model_is_asked_before_the_caller_enters() -> None:
    async with World(outbound=True) as world:
        await world.call()
        await world.up()
        asked = ("gemini < setup", "gemini > setupComplete", "ari channels.ring", "ari channels.answer")
        assert in_order(world.steps, *asked)
        assert in_order(world.steps, "ari channels.externalMedia", "ari channels.ring")


async def test_the_service_sends_a_caller_on_and_keeps_nothing() -> None:
    async with World(outbound=True, gemini={"model": "no-such-model"}) as world:
        call = await world.call()
        await call.wait_left()
        assert call.variables["ARI_GEMINI_CAUSE"] == (await world.over()).cause.value
        await world.nothing_left(call)


async def test_a_broken_connection_costs_nothing() -> None:
    async with World(outbound=True) as world:
        call = await world.talks()
        listener = way(world.service).listener
        (broken,) = listener.links
        broken.abort()
        await until(lambda: any(link is not broken for link in listener.links))
        await world.hears_it_all(call, world.gemini.sessions[0])
        assert world.gemini.connections == 1
        assert world.outcomes == []
        call.hang_up()
        assert (await world.over()).cause is Cause.CALLER_HANGUP
        await world.nothing_left()


async def test_a_worker_hands_its_callers_over() -> None:
    async with World(outbound=True, agents={"default": GREETING}) as world:
        call = await world.talks()
        async with another_worker(world) as other:
            await way(world.service).hand_over()
            assert world.outcomes[0].cause is Cause.HANDED_OVER
            await world.up(2)
            await hears(call, world.gemini.sessions[-1])
            assert (world.service.calls, other.calls) == (0, 1)
            call.hang_up()
            assert (await world.over(2)).cause is Cause.CALLER_HANGUP
        await world.nothing_left()


async def test_where_nobody_takes_him_the_dialplan_goes_on() -> None:
    async with World(outbound=True) as world:
        way(world.service).listener.stop_accepting()
        call = await world.call()
        await call.wait_left()
        assert call.variables["STASISSTATUS"] == "FAILED"
        assert world.outcomes == []
