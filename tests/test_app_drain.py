"""How the whole service stops: no new calls, then those in progress end, or are ended. Also readiness, and
what is left of calls that nobody ended."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.states import state
from support.world import GREETING, LONG, World, another_worker, quick, until

from ari_gemini.call.caller_watch import CallerLimits
from ari_gemini.errors import Cause, ConfigError
from ari_gemini.simulator.asterisk import SimulatedCall
from ari_gemini.state.directory import DirectoryStore
from ari_gemini.state.settings import default_directory
from ari_gemini.state.store import LIFETIME

PATIENT = {"default": GREETING.model_copy(update={"limits": CallerLimits(no_input_after=0, max_silence=0)})}
"""Lets a caller say nothing."""
OPEN = {"listen": "127.0.0.1:0"}


async def ended(world: World) -> None:
    """Wait until the service has ended by itself."""
    async with asyncio.timeout(LONG):
        await asyncio.wait([world.running])
    world.running.result()


async def enter(world: World, way: str) -> SimulatedCall:
    return await (world.call() if way == "A" else world.dial())


# Draining.


@pytest.mark.parametrize("way", ["A", "B"])
async def test_calls_go_on_until_they_end_and_then_it_stops(way: str) -> None:
    async with World(agents=PATIENT, drain={"timeout": 3600.0}) as world:
        call = await enter(world, way)
        await world.up()
        world.service.drain()
        await asyncio.sleep(60.0)
        await world.hears_it_all(call, world.gemini.sessions[0])
        assert not world.running.done()
        call.hang_up()
        await ended(world)
        assert [outcome.cause for outcome in world.outcomes] == [Cause.CALLER_HANGUP]
        assert call.continued is None
        await world.nothing_left()
        assert [line["calls"] for line in world.log_lines("= draining")] == [1]
        assert len(world.log_lines("= still draining")) >= 5


@pytest.mark.parametrize("way", ["A", "B"])
async def test_who_comes_meanwhile_is_sent_on_and_costs_no_session(way: str) -> None:
    async with World() as world:
        first = await world.talks()
        world.service.drain()
        late = await enter(world, way)
        await asyncio.wait_for(late.wait_left(), LONG)
        assert late.continued is not None
        assert late.variables.get("ARI_GEMINI_CAUSE") == ("draining" if way == "A" else None)
        assert way == "B" or (await world.over()).cause is Cause.DRAINING
        assert world.gemini.connections == 1
        assert not world.running.done()
        await world.hears_it_all(first, world.gemini.sessions[0])
        first.hang_up()
        await ended(world)
        await world.nothing_left(late)


async def test_a_call_that_is_being_set_up_still_gets_its_media() -> None:
    async with World() as world:
        go_on = asyncio.Event()
        world.on["ari channels.externalMedia"] = go_on.wait
        call = await world.call()
        await until(lambda: "ari channels.externalMedia" in world.steps)
        world.service.drain()
        go_on.set()
        await world.up()
        await world.hears_it_all(call, world.gemini.sessions[0])
        call.hang_up()
        await ended(world)
        assert [outcome.cause for outcome in world.outcomes] == [Cause.CALLER_HANGUP]
        await world.nothing_left()


async def test_those_who_do_not_end_in_time_are_sent_on() -> None:
    async with World(drain={"timeout": 20.0}) as world:
        clock = asyncio.get_running_loop().time
        calls = [await world.talks(), await world.talks()]
        begun = clock()
        world.service.drain()
        await asyncio.sleep(10.0)
        calls[0].hang_up()
        await ended(world)
        assert 20.0 <= clock() - begun < 25.0
        assert [outcome.cause for outcome in world.outcomes] == [Cause.CALLER_HANGUP, Cause.SHUTDOWN]
        assert calls[1].continued is not None
        assert calls[1].variables["ARI_GEMINI_CAUSE"] == "shutdown"
        await world.nothing_left(calls[1])
        assert [line["calls"] for line in world.log_lines("! drain timeout: calls are ended")] == [1]


async def test_said_twice_it_does_not_wait() -> None:
    async with World(drain={"timeout": 3600.0}) as world:
        call = await world.talks()
        begun = asyncio.get_running_loop().time()
        world.service.drain()
        world.service.drain()
        await ended(world)
        assert asyncio.get_running_loop().time() - begun < 5.0
        assert [outcome.cause for outcome in world.outcomes] == [Cause.SHUTDOWN]
        assert call.variables["ARI_GEMINI_CAUSE"] == "shutdown"
        await world.nothing_left(call)


async def test_said_three_times_it_still_cleans_up() -> None:
    async with World(drain={"timeout": 3600.0}) as world:
        call = await world.talks()
        world.asterisk.delay = 0.5
        for _ in range(3):
            world.service.drain()
            await asyncio.sleep(0.2)
        await ended(world)
        world.asterisk.delay = 0.0
        assert call.variables["ARI_GEMINI_CAUSE"] == "shutdown"
        await world.nothing_left(call)


async def test_without_calls_it_stops_at_once() -> None:
    async with World(drain={"timeout": 3600.0}) as world:
        begun = asyncio.get_running_loop().time()
        world.service.drain()
        await ended(world)
        assert asyncio.get_running_loop().time() - begun < 1.0


async def test_a_stream_of_callers_does_not_keep_it_from_ending() -> None:
    """Those who are sent on are not waited for."""
    async with World(drain={"timeout": 3600.0}) as world:
        first = await world.talks()
        world.service.drain()
        late: list[SimulatedCall] = []

        async def ring() -> None:
            while True:
                late.append(await world.call())
                await asyncio.sleep(0.01)

        ringing = asyncio.create_task(ring())
        await until(lambda: len(world.outcomes) > 3)
        world.asterisk.delay = 1.0  # each takes long to be sent on: there is always one
        first.hang_up()
        await until(lambda: not world.service.registry.calls)
        async with asyncio.timeout(LONG):
            await world.service._drain._over.wait()
        ringing.cancel()
        await asyncio.wait([ringing])
        world.asterisk.delay = 0.0
        await ended(world)
        assert {outcome.cause for outcome in world.outcomes} <= {
            Cause.DRAINING,
            Cause.CALLER_HANGUP,
            Cause.SHUTDOWN,
        }


async def test_a_call_in_the_middle_of_a_drain_loses_its_model_alone() -> None:
    async with World(quick(), drain={"timeout": 3600.0}) as world:
        one, two = await world.talks(), await world.talks()
        world.service.drain()
        one.hang_up()
        await world.over()
        await asyncio.sleep(1.0)
        assert not world.running.done()
        await world.hears_it_all(two, world.gemini.sessions[1])
        two.hang_up()
        await ended(world)
        await world.nothing_left()


# Where Asterisk connects to the service, another one takes over.


async def test_another_worker_takes_new_callers_and_then_who_is_left() -> None:
    async with World(outbound=True, drain={"timeout": 20.0}) as world:
        first = await world.talks()
        async with another_worker(world) as other:
            world.service.drain()
            second = await world.call()
            await world.up(2)
            assert (world.service.calls, other.calls) == (1, 1)
            assert world.outcomes == []
            await ended(world)
            assert [outcome.cause for outcome in world.outcomes] == [Cause.HANDED_OVER]
            await world.up(3)
            assert other.calls == 2
            assert first.continued is second.continued is None
            for call in (first, second):
                call.hang_up()
            await world.over(3)
        await world.nothing_left()


async def test_who_is_left_goes_to_another_worker_though_that_one_is_full() -> None:
    settings = {"calls": {"max_calls": 1}, "drain": {"timeout": 20.0}}
    async with World(outbound=True, agents=PATIENT, **settings) as world:
        first = await world.talks()
        async with another_worker(world) as other:
            world.service.drain()
            second = await world.call()
            await world.up(2)
            assert other.readiness.why_not == ["max_calls are up"]
            await ended(world)
            await world.up(3)
            assert [outcome.cause for outcome in world.outcomes] == [Cause.HANDED_OVER]
            assert first.continued is second.continued is None
            assert (other.calls, other.readiness.calls) == (2, 2)
            await world.hears_it_all(first, world.gemini.sessions[-1])
            await world.hears_it_all(second, world.gemini.sessions[1])
            for call in (first, second):
                call.hang_up()
            await world.over(3)
            assert other.readiness.ready
        await world.nothing_left()


async def test_told_to_stop_at_once_it_sends_the_caller_on_itself() -> None:
    async with World(outbound=True, drain={"timeout": 3600.0}) as world:
        call = await world.talks()
        world.service.drain()
        world.service.drain()
        await ended(world)
        assert [outcome.cause for outcome in world.outcomes] == [Cause.SHUTDOWN]
        assert call.variables["ARI_GEMINI_CAUSE"] == "shutdown"
        await world.nothing_left(call)


# What is kept of calls.


async def test_what_an_earlier_service_left_is_removed_when_it_has_expired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    at = default_directory({}) / "calls"
    earlier = DirectoryStore(at, timeout=LONG, clock=lambda: time.time() - LIFETIME - 60)
    await earlier.save(state())
    await earlier.close()
    async with World(hurry=False) as world:  # nothing waits for a thread while the clock hurries
        await until(lambda: not os.listdir(at), "a record stays")
        (sweeping,) = (task for task in asyncio.all_tasks() if task.get_name() == "state sweep")
        assert not sweeping.done()
        await world.stop()
        assert sweeping.cancelled()


# Readiness.


@asynccontextmanager
async def health(world: World) -> AsyncIterator[Any]:
    """Asks the health endpoint: status and JSON."""
    address = world.service.health.address
    assert address is not None

    async def ask(path: str) -> tuple[int, dict[str, Any]]:
        async with aiohttp.ClientSession() as session, session.get(f"http://{address}{path}") as answer:
            return answer.status, await answer.json()

    yield ask


async def test_ready_follows_what_decides_about_the_next_caller() -> None:
    async with World(calls={"max_calls": 2}, health=OPEN) as world, health(world) as ask:
        assert await ask("/live") == (200, {"live": True})
        status, said = await ask("/ready")
        assert (status, said["ready"], said["why_not"], said["calls"]) == (200, True, [], 0)

        calls = [await world.talks()]
        assert (await ask("/ready"))[0] == 200
        calls.append(await world.talks())
        status, said = await ask("/ready")
        assert (status, said["why_not"], said["calls"]) == (503, ["max_calls are up"], 2)
        calls[1].hang_up()
        await world.over()

        world.asterisk.drop_events()
        await until(lambda: not world.service.client.connected)
        status, said = await ask("/ready")
        assert (status, said["why_not"]) == (503, ["not connected to Asterisk"])
        async with asyncio.timeout(LONG):
            await world.service.client.wait_connected()
        assert (await ask("/ready"))[0] == 200

        world.service.drain()
        status, said = await ask("/ready")
        assert (status, said["why_not"], said["calls"]) == (503, ["draining"], 1)
        assert (await ask("/live"))[0] == 200
        calls[0].hang_up()
        await ended(world)
        assert world.service.health.address is None


async def test_without_ari_listening_is_enough() -> None:
    settings = {"verify": "none"}
    async with World(with_ari=False, audiosocket=settings, health=OPEN) as world, health(world) as ask:
        status, said = await ask("/ready")
        assert (status, said["ari_connected"]) == (200, None)


async def test_it_is_off_unless_it_is_asked_for() -> None:
    async with World() as world:
        assert world.service.health.address is None
        assert world.service.readiness.ready


async def test_a_health_address_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        world = World(health={"listen": listen}, connect=False)
        with pytest.raises(ConfigError, match=f"health.listen: cannot listen on {listen}"):
            async with world:
                await world.running
        assert world.asterisk.operations() == []
