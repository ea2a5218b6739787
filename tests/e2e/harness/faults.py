"""What can go wrong in a call, as data and a deed each; ``run`` lets one happen to several callers at once.

The course is the same for all: the caller is greeted, the conversation is brought to a certain moment, the
fault strikes, the model's answer is waited for, and one more question is asked and answered. What the caller
had to bear is measured on his phone's wire between the stroke and the end of that first answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from ari_gemini.simulator.gemini_closes import CLOSES
from ari_gemini.simulator.gemini_record import Said

from .arrival import Arrival
from .measure import Endured, endured
from .scene import SLOW, Caller, Scene, until
from .tap import Way

Moment = Literal["model", "caller", "tool", "quiet"]
"""In the model's sentence, in the caller's, while a function works, while nobody speaks."""
Outcome = Literal["resumed", "seeded", "either", "same"]
"""How the conversation goes on: on a connection that resumes, on a new one that was told what was said, on
either as time will have it, or on the same."""

Deed = Callable[[Scene, Sequence[Caller]], Awaitable[None]]

HEARD_WELL = 0.95
"""Correlation of an answer with the phone's recording of it."""
_INTO_THE_SENTENCE = 0.5
"""Seconds of the caller's sentence before the fault strikes in it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """``deed`` sets each caller's ``struck`` and returns once the fault is over or takes its course."""

    name: str
    moment: Moment
    deed: Deed
    outcome: Outcome = "resumed"
    each: bool = True
    """It befalls each call by itself; otherwise all calls of the service at once."""
    with_redis: bool = False
    """The calls' states are kept in Redis."""


@dataclass(slots=True)
class Trial:
    """What one caller went through."""

    fault: str
    endured: Endured | None = None
    arrival: Arrival | None = None
    complaints: list[str] = field(default_factory=list)
    """What was not as it should be. When the call did not outlive the fault, nothing was measured."""


async def run(scene: Scene, trials: Sequence[tuple[Fault, Caller]]) -> list[Trial]:
    """Let these faults, which befall ``each`` call by itself, happen at the same time; one result each."""

    async def course(fault: Fault, caller: Caller) -> Trial:
        await caller.begin()
        await _lead_up(scene, fault.moment, caller)
        await fault.deed(scene, [caller])
        return await _outlive(scene, fault, caller)

    return list(await asyncio.gather(*(_trial(fault, caller, course) for fault, caller in trials)))


async def run_common(scene: Scene, fault: Fault, callers: Sequence[Caller]) -> list[Trial]:
    """Let one fault befall all of these callers at once; one result each."""
    await asyncio.gather(*(caller.begin() for caller in callers))
    await asyncio.gather(*(_lead_up(scene, fault.moment, caller) for caller in callers))
    await fault.deed(scene, callers)
    outlive = partial(_outlive, scene)
    return list(await asyncio.gather(*(_trial(fault, caller, outlive) for caller in callers)))


async def _trial(fault: Fault, caller: Caller, course: Callable[[Fault, Caller], Awaitable[Trial]]) -> Trial:
    try:
        return await course(fault, caller)
    except Exception as error:  # noqa: BLE001  # that a call did not outlive its fault is a result
        await caller.phone.hang_up()
        return Trial(fault.name, complaints=[f"{type(error).__name__}: {error}; {caller.told()}"])


async def _lead_up(scene: Scene, moment: Moment, caller: Caller) -> None:
    session = caller.session
    if moment == "model":
        begun = session.record.count("turn_start")
        await caller.say("ask_hours")
        await caller.phone.tap.wait_loud(Way.TO_PHONE, timeout=20)
        await session.wait_for("turn_start", count=begun + 1)
    elif moment == "caller":
        began = await caller.say("ask_delivery")
        await asyncio.sleep(began + _INTO_THE_SENTENCE - time.monotonic())
    elif moment == "tool":
        number = caller.phone.number
        session.call_tool(SLOW, {"caller": number}, then=("order_status",))
        await until(lambda: number in scene.slow.asked, lambda: "the function is not called")


async def _outlive(scene: Scene, fault: Fault, caller: Caller) -> Trial:
    if fault.moment == "tool":
        await asyncio.sleep(0.3)  # the stroke has been felt when the function answers
        scene.slow.answer(caller.phone.number)
    if fault.moment == "quiet":
        await caller.ask("ask_hours")
    else:
        await caller.answer(caller.asked if fault.moment == "model" else caller.struck)
    over = time.monotonic()
    if fault.outcome != "same":
        await until(lambda: _went_on(caller), lambda: f"no new connection; {caller.told()}")
    last = await caller.ask("ask_order")
    await caller.finish()
    voice = caller.phone.tap.last_loud(Way.TO_PHONE, since=caller.struck)
    end = min(over, voice.time) if voice is not None else over
    came = caller.arrival()
    return Trial(
        fault.name,
        endured(caller.phone.tap, caller.struck, end),
        came,
        _complaints(fault, caller, came, last),
    )


def _went_on(caller: Caller) -> bool:
    first = caller.sessions[0]
    return caller.session is not first and first.closed is not None


def _complaints(fault: Fault, caller: Caller, came: Arrival, last: Said) -> list[str]:
    first, newest = caller.sessions[0], caller.session
    wrong = []
    if fault.outcome == "same" and newest is not first:
        wrong.append(f"a connection that lived was left; {caller.told()}")
    if fault.outcome == "resumed" and not (newest.resumed and newest.conversation == first.conversation):
        wrong.append(f"not resumed; {caller.told()}")
    if fault.outcome == "either" and not (newest.resumed or newest.history):
        wrong.append(f"neither resumed nor told what was said; {caller.told()}")
    if fault.outcome == "seeded" and (newest.resumed or not newest.history):
        wrong.append(f"not told what was said before: {newest.history}; {caller.told()}")
    if (found := caller.heard(last)) < HEARD_WELL:
        wrong.append(f"the last answer was heard with a correlation of {found:.3f}")
    if came.lost_ms:
        wrong.append(f"{came.lost_ms:.1f} ms of the caller did not arrive: {came}")
    return wrong


# The deeds.


def _each(act: Callable[[Scene, Caller], None]) -> Deed:
    async def deed(scene: Scene, callers: Sequence[Caller]) -> None:
        for caller in callers:
            caller.struck = time.monotonic()
            act(scene, caller)

    return deed


def _nothing(scene: Scene, caller: Caller) -> None:
    """The control: what a caller hears when nothing goes wrong."""


def _close(name: str) -> Deed:
    code, reason = CLOSES[name]
    return _each(lambda _, caller: caller.session.disconnect(code, reason))


def _go_away(seconds: float) -> Deed:
    return _each(lambda _, caller: caller.session.go_away(seconds))


def _reset(scene: Scene, caller: Caller) -> None:
    scene.gemini_line.tunnel(caller.session.address).reset()


def _refuse_resumption(scene: Scene, caller: Caller) -> None:
    session = caller.session
    session.refuse_resumption()
    session.disconnect(*CLOSES["internal error"])


def _lose_session(scene: Scene, caller: Caller) -> None:
    session = caller.session
    session.lose_handles()
    session.disconnect(*CLOSES["aborted"])


def _freeze(seconds: float) -> Deed:
    async def deed(scene: Scene, callers: Sequence[Caller]) -> None:
        for caller in callers:
            caller.struck = time.monotonic()
        scene.gemini_line.freeze()
        await asyncio.sleep(seconds)
        scene.gemini_line.thaw()

    return deed


def _cut_ari(seconds: float) -> Deed:
    async def deed(scene: Scene, callers: Sequence[Caller]) -> None:
        for caller in callers:
            caller.struck = time.monotonic()
        scene.ari_line.refuse()
        scene.ari_line.reset()
        asyncio.get_running_loop().call_later(seconds, scene.ari_line.accept)

    return deed


def _lose_redis(seconds: float) -> Deed:
    """It comes back with nothing in it."""

    async def deed(scene: Scene, callers: Sequence[Caller]) -> None:
        redis, loop = scene.redis, asyncio.get_running_loop()
        assert redis is not None
        for caller in callers:
            caller.struck = time.monotonic()
        redis.kill()
        loop.call_later(seconds, loop.run_in_executor, None, redis.start)

    return deed


def _title(name: str) -> str:
    code, reason = CLOSES[name]
    return f"closed {code} {reason}".strip()


FAULTS: tuple[Fault, ...] = (
    Fault("nothing, the model speaking", "model", _each(_nothing), "same"),
    Fault("nothing, the caller speaking", "caller", _each(_nothing), "same"),
    *(
        Fault(_title(name), "model", _close(name))
        for name in (
            "shutdown",
            "not implemented",
            "aborted",
            "goAway ignored",
            "internal error",
            "deadline",
            "unavailable",
            "quota",
            "exhausted",
        )
    ),
    Fault("closed 1000", "model", _close("normal"), "seeded"),
    Fault("closed 1008 session expired", "model", _close("session expired"), "seeded"),
    Fault("closed 1008 session not found", "model", _close("session lost"), "seeded"),
    Fault("closed 1007 context exhausted", "model", _close("context exhausted"), "seeded"),
    Fault("closed 1011 in the caller's speech", "caller", _close("internal error")),
    Fault("closed 1011 with a function at work", "tool", _close("internal error")),
    Fault("closed 1011 while nobody speaks", "quiet", _close("internal error")),
    Fault("goAway in the caller's speech", "caller", _go_away(20.0)),
    Fault("goAway in the model's speech", "model", _go_away(20.0)),
    Fault("goAway with a function at work", "tool", _go_away(20.0)),
    Fault("TCP reset in the model's speech", "model", _each(_reset)),
    Fault("TCP reset in the caller's speech", "caller", _each(_reset)),
    Fault("10 s of silent packet loss, the model speaking", "model", _freeze(10.0), "either", each=False),
    Fault("10 s of silent packet loss, the caller speaking", "caller", _freeze(10.0), "either", each=False),
    Fault("Gemini refuses to resume", "model", _each(_refuse_resumption), "seeded"),
    Fault("the handle is dead", "model", _each(_lose_session), "seeded"),
    Fault("ARI cut for 10 s", "caller", _cut_ari(10.0), "same", each=False),
    Fault("Redis killed, empty after 5 s", "caller", _lose_redis(5.0), "same", each=False, with_redis=True),
)
"""In the order of the table."""
