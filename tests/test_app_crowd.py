"""More callers, and more strangers, than there is room for: neither calls nor callers are harmed."""

from __future__ import annotations

import asyncio
import sys
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.world import FRAME, LONG, Mouthpiece, World, until

from ari_gemini.ari.events import ChannelDtmfReceived
from ari_gemini.errors import Cause
from ari_gemini.simulator.asterisk import SimulatedCall

LISTING = "ari channels.list"


def frames_come(call: SimulatedCall, begin: int) -> bool:
    """Whether a frame came every 20 ms of the loop's time from the ``begin``-th on."""
    voice = call.voice
    assert isinstance(voice, Mouthpiece)
    gaps = [round((later - earlier) * 1000) for earlier, later in pairwise(voice.times[begin:])]
    return len(voice.heard) == FRAME * len(voice.times) and len(gaps) > 0


# Callers.


@pytest.mark.parametrize("way", ["A", "B"])
async def test_a_hundred_callers_too_many_are_sent_on_and_cost_no_session(way: str) -> None:
    async with World(calls={"max_calls": 2}) as world:
        calls = [await world.talks(), await world.talks()]
        late = await asyncio.gather(
            *(world.call() if way == "A" else world.dial() for _ in range(100)),
        )
        await world.over(100)
        assert {outcome.cause for outcome in world.outcomes} == {Cause.OVERLOADED}
        async with asyncio.timeout(LONG):
            await asyncio.gather(*(call.wait_left() for call in late))
        assert all(call.continued is not None for call in late)
        causes = {call.variables.get("ARI_GEMINI_CAUSE") for call in late}
        assert causes == ({"overloaded"} if way == "A" else {None})
        assert world.gemini.connections == 2
        for number, call in enumerate(calls):
            await world.hears_it_all(call, world.gemini.sessions[number])
            call.hang_up()
        await world.over(102)
        await world.nothing_left(*late)


async def test_events_of_a_call_do_not_wait_for_those_who_are_sent_on() -> None:
    """A hundred callers come, Asterisk takes its time with each, and then one caller hangs up."""
    async with World(calls={"max_calls": 1}) as world:
        call = await world.talks()
        world.asterisk.delay = 2.0
        late = [await world.call() for _ in range(100)]
        begun = asyncio.get_running_loop().time()
        call.hang_up()
        await until(lambda: not world.service.registry.calls)
        assert asyncio.get_running_loop().time() - begun < 2.0, "before Asterisk has answered once"
        assert world.outcomes == []
        world.asterisk.delay = 0.0
        await world.over(101)
        await world.nothing_left(*late)


# Events.


async def test_a_call_that_is_stuck_does_not_delay_anothers_events() -> None:
    async with World(ari={"request_timeout": 60.0}, calls={"setup_timeout": 60.0}) as world:
        stuck = asyncio.Event()
        world.on["ari bridges.createWithId"] = stuck.wait
        waiting = await world.call()
        await until(lambda: "ari bridges.createWithId" in world.steps)
        call = await world.talks()
        call.press("5")
        session = world.gemini.sessions[-1]
        await until(lambda: any("5" in str(message.body) for message in session.messages), "the key is lost")
        call.hang_up()
        assert (await world.over()).cause is Cause.CALLER_HANGUP
        stuck.set()
        await world.up(2)
        assert waiting.channel.answered.is_set()
        await world.hears_it_all(waiting, world.gemini.sessions[0])


async def test_a_handler_that_raises_harms_neither_the_others_nor_the_connection() -> None:
    async with World() as world:
        client = world.service.client
        assert client is not None

        def defective(event: object) -> None:
            if isinstance(event, ChannelDtmfReceived):
                raise RuntimeError("a defect")  # noqa: TRY004

        client._on_event.insert(0, defective)
        call = await world.talks()
        session = world.gemini.sessions[0]
        call.press("7")
        await until(lambda: any("7" in str(message.body) for message in session.messages))
        assert client.handler_errors == 1
        assert client.connected
        assert len(world.log_lines("! handler failed")) == 1
        await world.hears_it_all(call, session)


async def test_keys_of_one_call_arrive_in_order_whatever_another_does() -> None:
    async with World() as world:
        one, two = await world.talks(), await world.talks()
        pressed: dict[str, list[str]] = {one.id: [], two.id: []}
        client = world.service.client
        assert client is not None
        client.on_event(
            lambda event: (
                pressed[event.channel.id].append(event.digit)
                if isinstance(event, ChannelDtmfReceived)
                else None
            )
        )
        for digit in "1234567890":
            one.press(digit)
            two.press(digit)
        await until(lambda: all(len(keys) == 10 for keys in pressed.values()))
        assert list(pressed.values()) == [list("1234567890")] * 2


# Strangers.


async def strangers(world: World, count: int, *, say: bool) -> list[asyncio.StreamWriter]:
    """So many from 127.0.0.2, who make up UUIDs or say nothing."""
    address = world.service.media.address
    writers = []
    for _ in range(count):
        _, writer = await asyncio.open_connection(*address, local_addr=("127.0.0.2", 0))
        writers.append(writer)
        if say:
            writer.write(b"\x01\x00\x10" + uuid4().bytes)
    return writers


@pytest.mark.parametrize("way", ["A", "B"])
@pytest.mark.parametrize("say", [True, False], ids=["made-up UUIDs", "silence"])
async def test_a_flood_from_one_address_keeps_no_caller_out(way: str, say: bool) -> None:
    settings = {"max_unidentified_per_address": 10}
    async with World(audiosocket=settings, calls={"max_calls": 10}) as world:
        first = await world.talks()
        writers = await strangers(world, 60, say=say)
        call = await (world.call() if way == "A" else world.dial())
        await world.up(2)
        assert world.gemini.connections == 2, "nobody pays for strangers"
        await world.hears_it_all(call, world.gemini.sessions[1])
        await world.hears_it_all(first, world.gemini.sessions[0])
        assert not {Cause.OVERLOADED} & {outcome.cause for outcome in world.outcomes}
        assert world.service.media.stats.crowded > 0
        for writer in writers:
            writer.close()
        ended = len(world.outcomes)
        for caller in (first, call):
            caller.hang_up()
        await until(lambda: len(world.outcomes) >= ended + 2)
        await until(lambda: world.service.calls == 0)
        await world.nothing_left()
        await world.another_works()


async def test_made_up_uuids_take_no_place_among_the_calls_and_few_requests() -> None:
    async with World(calls={"max_calls": 2}) as world:
        held = asyncio.Event()
        world.on[LISTING] = held.wait
        writers = await strangers(world, 50, say=True)
        await until(lambda: world.service.media.stats.identified == 50)
        await until(lambda: LISTING in world.steps)
        assert world.service.registry.calls == {}
        held.set()
        await world.over(50)
        assert {outcome.cause for outcome in world.outcomes} == {Cause.UNKNOWN_CALL}
        assert world.steps.count(LISTING) < 20, "they share what is asked"
        for writer in writers:
            writer.close()
        await world.nothing_left()
        await world.another_works()
