"""The caller hangs up at every single step of the set-up: nothing is left, and the next call works."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.world import Mouthpiece, World, quick, until

from ari_gemini.call.agent import Agent
from ari_gemini.errors import Cause
from ari_gemini.simulator.asterisk import SimulatedCall

ASKS = Agent(greeting="Greet.", instructions="{ORDER}", variables=("ORDER",))

WHEN_READY = (
    "ari channels.ring",
    "ari channels.getChannelVar",
    "ari bridges.createWithId",
    "ari channels.externalMedia",
    "gemini < setup",
    "gemini > setupComplete",
    "ari channels.answer",
    "ari bridges.addChannel",
    "call started",
    "gemini < text",
)
IMMEDIATELY = (
    "ari channels.answer",
    "ari channels.getChannelVar",
    "ari bridges.createWithId",
    "ari channels.externalMedia",
    "ari bridges.addChannel",
    "gemini < setup",
    "gemini > setupComplete",
    "call started",
    "gemini < text",
)
DIALPLAN = (
    "ari channels.list",
    "ari channels.getChannelVar",
    "gemini < setup",
    "gemini > setupComplete",
    "call started",
    "gemini < text",
)
STEPS = {"when_ready": WHEN_READY, "immediately": IMMEDIATELY, "dialplan": DIALPLAN}
EVERY = [(way, step) for way, steps in STEPS.items() for step in steps]


def world_of(way: str, **changes: Any) -> World:
    answer = "immediately" if way == "immediately" else "when_ready"
    return World(quick(**changes), agents={"default": ASKS}, calls={"answer": answer})


class Caller:
    """One who hangs up when the test says so, even before he knows that he has called."""

    def __init__(self, world: World, way: str) -> None:
        self._world, self._way = world, way
        self.call: SimulatedCall | None = None
        self._voice = Mouthpiece()

    async def dial(self) -> None:
        options = {"voice": self._voice, "variables": {"ORDER": "4711"}}
        if self._way == "dialplan":
            self.call = await self._world.dial(**options)
        else:
            self.call = await self._world.call(**options)

    def hang_up(self) -> None:
        if self.call is not None:
            self.call.hang_up()
            return
        # the dialplan's request is on its way before the dialling coroutine has come back
        asyncio.get_running_loop().call_soon(self.hang_up)


@pytest.mark.parametrize("way", STEPS)
async def test_these_are_all_the_steps_there_are(way: str) -> None:
    async with world_of(way) as world:
        await Caller(world, way).dial()
        await world.up()
        await until(lambda: "gemini < text" in world.steps)
        seen = {step for step in world.steps if step != "gemini > sessionResumptionUpdate"}
        assert seen == set(STEPS[way])


async def gone_without_a_trace(
    world: World, *, started: bool | None = None, causes: Collection[Cause] = (Cause.CALLER_HANGUP,)
) -> None:
    outcome = await world.over()
    assert outcome.cause in causes, outcome
    assert not [line for line in world.logs if line["log_level"] in ("error", "critical")]
    assert not world.log_lines("call.not_cleaned_up")
    if started is not None:
        assert ("call started" in world.steps) is started
    await world.nothing_left()
    await world.another_works()


def at_once(caller: Caller) -> Callable[[], None]:
    return caller.hang_up


def a_moment_later(caller: Caller) -> Callable[[], None]:
    return lambda: asyncio.get_running_loop().call_soon(caller.hang_up) and None


def when_it_is_on_its_way_back(caller: Caller) -> Callable[[], None]:
    return lambda: asyncio.get_running_loop().call_later(0.0005, caller.hang_up) and None


@pytest.mark.parametrize("moment", [at_once, a_moment_later, when_it_is_on_its_way_back])
@pytest.mark.parametrize(("way", "step"), EVERY)
async def test_the_caller_hangs_up(way: str, step: str, moment: Callable[[Caller], Any]) -> None:
    async with world_of(way) as world:
        caller = Caller(world, way)
        world.on[step] = moment(caller)
        await caller.dial()
        await gone_without_a_trace(world)


@pytest.mark.parametrize(("way", "step"), [one for one in EVERY if one[1].startswith("ari ")])
async def test_the_caller_hangs_up_while_asterisk_takes_its_time(way: str, step: str) -> None:
    async with world_of(way) as world:
        caller = Caller(world, way)

        async def slowly() -> None:
            await asyncio.sleep(0.5)
            caller.hang_up()
            await asyncio.sleep(0.5)

        world.on[step] = slowly
        await caller.dial()
        await gone_without_a_trace(world)


@pytest.mark.parametrize("way", STEPS)
async def test_the_caller_hangs_up_before_the_model_is_ready(way: str) -> None:
    async with world_of(way, setup_delay=3.0) as world:
        caller = Caller(world, way)
        await caller.dial()
        await until(lambda: "gemini < setup" in world.steps)
        await asyncio.sleep(1.0)
        assert world.service.calls == 1
        caller.hang_up()
        await world.over()
        assert "gemini > setupComplete" not in world.steps
        world.gemini.scenario = quick()
        await gone_without_a_trace(world, started=False)


@pytest.mark.parametrize("way", STEPS)
async def test_the_caller_hangs_up_while_gemini_does_not_even_answer(way: str) -> None:
    async with world_of(way, upgrade=False) as world:
        caller = Caller(world, way)
        await caller.dial()
        await asyncio.sleep(1.0)
        assert world.service.calls == 1
        caller.hang_up()
        await world.over()
        world.gemini.scenario = quick()
        await gone_without_a_trace(world, started=False)


async def test_the_caller_hangs_up_before_the_service_has_heard_of_him() -> None:
    async with World() as world:
        call = await world.call()
        call.hang_up()
        outcome = await world.over()
        assert outcome.cause is Cause.CALLER_HANGUP
        await world.nothing_left()
        await world.another_works()


@pytest.mark.parametrize("step", [step for step in WHEN_READY if step.startswith("ari ")])
async def test_he_hangs_up_at_a_step_and_nobody_tells(step: str) -> None:
    """The event connection breaks at the same moment: the answers to requests are all there is to go by.

    A media channel that is made meanwhile finds nobody in its application and leaves: its end comes first.
    """
    async with world_of("when_ready") as world:
        caller = Caller(world, "when_ready")

        def cut() -> None:
            world.asterisk.drop_events()
            caller.hang_up()

        world.on[step] = cut
        await caller.dial()
        await world.over()
        await world.service.client.wait_connected()
        await gone_without_a_trace(world, causes=(Cause.CALLER_HANGUP, Cause.MEDIA_LOST))
