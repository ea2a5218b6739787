"""The whole service with Asterisk connecting to it, once per call: calls, broken links, other workers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.world import (
    GREETING,
    LONG,
    MODEL,
    TELEPHONE,
    Mouthpiece,
    World,
    another_worker,
    in_order,
    resampled,
    until,
)

from ari_gemini import app
from ari_gemini.app import Service
from ari_gemini.ari.channel import Bridge
from ari_gemini.ari.outbound import STRANGERS
from ari_gemini.call import outbound
from ari_gemini.call.caller_watch import CallerLimits
from ari_gemini.call.names import bridge_of
from ari_gemini.call.outbound import OutboundWay
from ari_gemini.errors import Cause
from ari_gemini.simulator.asterisk import SimulatedCall
from ari_gemini.simulator.gemini_connection import SimulatedSession
from ari_gemini.simulator.phrases import phrase

PATIENT = {"default": GREETING.model_copy(update={"limits": CallerLimits(no_input_after=0, max_silence=0)})}
"""Lets a caller say nothing."""


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
        await world.gemini.sessions[0].wait_for("turn_complete", timeout=LONG)
        async with another_worker(world) as other:
            await way(world.service).hand_over()
            assert world.outcomes[0].cause is Cause.HANDED_OVER
            await world.up(2)
            session = world.gemini.sessions[-1]
            await session.wait_for("turn_complete", timeout=LONG)  # it says that it is back
            await hears(call, session)
            assert (world.service.calls, other.calls) == (0, 1)
            call.hang_up()
            assert (await world.over(2)).cause is Cause.CALLER_HANGUP
        await world.nothing_left()


async def refused(world: World) -> SimulatedCall:
    """A new caller, who is sent on at once and costs no session."""
    over, sessions = len(world.outcomes), world.gemini.connections
    call = await world.call()
    await asyncio.wait_for(call.wait_left(), LONG)
    assert (await world.over(over + 1)).cause is Cause.OVERLOADED
    assert call.variables["ARI_GEMINI_CAUSE"] == "overloaded"
    assert world.gemini.connections == sessions
    return call


async def hands_over(service: Service) -> None:
    await way(service).hand_over()


async def loses_its_link(service: Service) -> None:
    for link in way(service).listener.links:
        link.abort()


async def dies(service: Service) -> None:
    """What Asterisk sees of a process that is killed: all that was open is cut."""
    await loses_its_link(service)
    await until(lambda: not way(service).listener.links)
    for connection in list(service.media._connections):
        connection.abort()


@pytest.mark.parametrize("leaves", [hands_over, loses_its_link, dies])
async def test_a_full_worker_takes_over_whom_another_leaves(
    leaves: Callable[[Service], Awaitable[None]],
) -> None:
    async with World(outbound=True, agents=PATIENT, calls={"max_calls": 1}) as world:
        first = await world.talks()
        async with another_worker(world) as other:
            way(world.service).listener.stop_accepting()
            second = await world.call()
            await world.up(2)
            assert (world.service.calls, other.calls) == (1, 1)
            assert not other.readiness.ready

            await leaves(world.service)
            await world.up(3)
            assert (await world.over()).cause is Cause.HANDED_OVER
            assert (first.continued, second.continued) == (None, None)
            assert len(other.registry.calls) == 2
            assert other.media.connections == 2
            session = world.gemini.sessions[-1]
            await world.hears_it_all(first, session)
            await world.hears_it_all(second, world.gemini.sessions[1])

            late = [await refused(world)]
            second.hang_up()
            await until(lambda: other.calls == 1)
            assert not other.readiness.ready, "whom it took over has a place like any other"
            late.append(await refused(world))
            await world.hears_it_all(first, session)
            first.hang_up()
            await until(lambda: other.calls == 0)
            last = await world.call()
            await world.up(4)
            last.hang_up()
            await until(lambda: other.calls == 0)
        await world.nothing_left(*late)


async def test_bridges_of_callers_who_left_while_nobody_had_them_are_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbound, "TIDY_SECONDS", 0.0)
    async with World(outbound=True) as world:
        first = await world.talks()
        (link,) = way(world.service).listener.links
        for name in ("somebody-elses", bridge_of("1700000000.9999")):
            await Bridge(link, name).create()
        second = await world.talks()
        await until(lambda: bridge_of("1700000000.9999") not in world.asterisk.bridges)
        assert len(world.asterisk.bridges) == 3
        await Bridge(link, "somebody-elses").destroy()
        for call in (first, second):
            call.hang_up()
        await world.over(2)
        await world.nothing_left()


async def test_where_nobody_takes_him_the_dialplan_goes_on() -> None:
    async with World(outbound=True) as world:
        way(world.service).listener.stop_accepting()
        call = await world.call()
        await call.wait_left()
        assert call.variables["STASISSTATUS"] == "FAILED"
        assert world.outcomes == []


async def test_there_are_descriptors_for_asterisks_connections_or_fewer_are_let_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted: list[int] = []

    def half(max_calls: int, *doors: int) -> tuple[int, ...]:
        wanted.extend(doors)
        return tuple(door // 2 for door in doors)

    monkeypatch.setattr(app, "room_for", half)
    async with World(outbound=True) as world:
        assert world.service.config.ari is not None
        media, links, strangers = wanted
        assert (links, strangers) == (world.service.config.ari.max_connections, STRANGERS)
        listener, door = way(world.service).listener, world.service.media
        assert (listener.max_connections, listener.max_strangers) == (links // 2, STRANGERS // 2)
        assert door.max_connections == media // 2
        await world.another_works()
