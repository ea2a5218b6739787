"""The connection to Asterisk fails in all the ways it can: calls go on; what was missed is made up for."""

from __future__ import annotations

import asyncio
import sys
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.world import GREETING, LONG, Mouthpiece, World, quick, until

from ari_gemini.ari.channel import Bridge
from ari_gemini.call.caller_watch import CallerLimits
from ari_gemini.errors import Cause
from ari_gemini.simulator.asterisk import Refused, SimulatedCall

PATIENT = {"default": GREETING.model_copy(update={"limits": CallerLimits(no_input_after=0, max_silence=0)})}
"""Lets a caller say nothing."""
LISTING = "ari channels.list"


async def cut_off(world: World) -> tuple[str, int]:
    """Asterisk cannot be reached any more; its channels and their sound go on. Returns where it was."""
    host, port = world.asterisk.host, world.asterisk.port
    await world.asterisk.stop_listening()
    await until(lambda: not world.service.client.connected)
    return host, port


async def back(world: World, host: str, port: int) -> None:
    await world.asterisk.start(host, port)
    async with asyncio.timeout(LONG):
        await world.service.client.wait_connected()
    await world.at_rest()


def frames(call: SimulatedCall) -> list[float]:
    voice = call.voice
    assert isinstance(voice, Mouthpiece)
    return voice.times


async def test_for_a_minute_asterisk_cannot_be_reached_and_the_sound_never_stops() -> None:
    async with World(agents=PATIENT) as world:
        call = await world.talks()
        session = world.gemini.sessions[0]
        where = await cut_off(world)
        begin = len(frames(call))
        await asyncio.sleep(60.0)
        await world.hears_it_all(call, session)
        times = frames(call)[begin:]
        assert len(times) > 2900
        assert max(later - earlier for earlier, later in pairwise(times)) < 0.2
        await back(world, *where)
        assert world.outcomes == []
        await world.hears_it_all(call, session)
        call.hang_up()
        assert (await world.over()).cause is Cause.CALLER_HANGUP
        await world.nothing_left()
        assert len(world.log_lines("! ari unavailable, will keep trying")) == 1, "said once"
        await world.another_works()


async def test_who_hung_up_meanwhile_has_ended_and_the_other_goes_on() -> None:
    async with World() as world:
        one, two = await world.talks(), await world.talks()
        where = await cut_off(world)
        one.hang_up()
        await asyncio.sleep(20.0)
        await back(world, *where)
        outcome = await world.over()
        assert outcome.cause in {Cause.CALLER_HANGUP, Cause.MEDIA_LOST}
        await world.hears_it_all(two, world.gemini.sessions[1])
        two.hang_up()
        assert (await world.over(2)).cause is Cause.CALLER_HANGUP
        await world.nothing_left()


async def test_a_call_that_ends_during_the_outage_leaves_nothing_after_it() -> None:
    """It ends while nothing can be asked of Asterisk: bridge and media channel are found later."""
    async with World() as world:
        call = await world.talks()
        where = await cut_off(world)
        world.service.registry.calls[call.id].end(Cause.MODEL_LOST)
        assert (await world.over()).cause is Cause.MODEL_LOST
        await until(lambda: world.service.calls == 0)
        assert world.asterisk.bridges, "Asterisk has them still"
        await back(world, *where)
        # the caller is in Stasis yet, and nobody's: he is served anew
        await until(lambda: world.steps.count("call started") == 2)
        await world.hears_it_all(call, world.gemini.sessions[-1])
        assert len(world.asterisk.bridges) == 1
        assert len(world.asterisk.channels) == 2
        call.hang_up()
        await world.over(2)
        await world.nothing_left()


async def test_asterisk_does_not_answer_when_the_events_are_back_and_is_asked_again() -> None:
    async with World() as world:
        await Bridge(world.service.client, "ari-gemini-bridge-1700000000.1").create()
        failures = 0

        def refuse() -> None:
            nonlocal failures
            failures += 1
            if failures < 3:
                world.on[LISTING] = refuse
            raise Refused(500)

        world.on[LISTING] = refuse
        world.asterisk.drop_events()
        await until(lambda: not world.service.client.connected)
        async with asyncio.timeout(LONG):
            await world.service.client.wait_connected()
        await until(lambda: not world.asterisk.bridges, "the orphaned bridge is never removed")
        assert failures == 3
        assert len(world.log_lines("stasis.not_reconciled")) == 3
        await world.another_works()


async def test_who_ends_while_it_looks_is_not_taken_for_a_new_caller() -> None:
    async with World() as world:
        call = await world.talks()
        listed = asyncio.Event()

        async def hold() -> None:
            listed.set()
            world.service.registry.calls[call.id].end(Cause.MODEL_LOST)
            await world.over()
            await until(lambda: world.service.calls == 0)

        world.on["ari bridges.list"] = hold
        world.asterisk.drop_events()
        await listed.wait()
        await world.over()
        await until(lambda: world.service.client.connected)
        await world.at_rest()
        assert world.gemini.connections == 1
        assert len(world.outcomes) == 1
        await world.nothing_left(call)


async def test_a_call_is_being_set_up_when_asterisk_is_cut_off_and_the_caller_is_served_later() -> None:
    async with World(quick(setup_delay=1.0)) as world:
        call = await world.call()
        await until(lambda: "ari channels.ring" in world.steps)
        where = await cut_off(world)
        outcome = await world.over()
        assert outcome.cause in (Cause.ARI_FAILED, Cause.MEDIA_LOST), "whichever is noticed first"
        await until(lambda: world.service.calls == 0)
        await back(world, *where)
        await world.up()
        await world.hears_it_all(call, world.gemini.sessions[-1])
        call.hang_up()
        await world.over(2)
        await world.nothing_left()


@pytest.mark.parametrize("way", ["A", "B"])
async def test_asterisk_is_killed_and_all_calls_end_with_a_cause(way: str) -> None:
    async with World() as world:
        for _ in range(3):
            await (world.call() if way == "A" else world.dial())
        await world.up(3)
        await world.asterisk.restart()
        await world.over(3)
        # to the one side it is the media that ends, to the other the call itself
        cause = Cause.MEDIA_LOST if way == "A" else Cause.CALLER_HANGUP
        assert {outcome.cause for outcome in world.outcomes} == {cause}
        async with asyncio.timeout(LONG):
            await world.service.client.wait_connected()
        await world.at_rest()
        await world.nothing_left()
        await world.another_works()
