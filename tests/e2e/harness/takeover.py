"""A worker is killed with calls up, and another goes on with them: in outbound mode one that runs already,
with the classic connection the same one, started anew. The calls' states are in a directory, or in a Redis
that has been killed itself before, and came back with nothing in it.

The callers are in the middle of a sentence. What they say until somebody takes over is lost; once they are
connected again they ask anew.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bot import OUTBOUND, WAY_A, outbound
from redis.asyncio import Redis
from support.redis_server import RedisServer

from ari_gemini.simulator.gemini_live import GeminiSimulator
from ari_gemini.state.redis import PREFIX

from .asterisk import Asterisk, AsteriskCrashed
from .command import CONNECTED, Command, Running
from .faults import HEARD_WELL, Trial
from .measure import endured, is_voice
from .phone import Phone
from .scene import INSTRUCTIONS, SCENARIO, Caller, in_redis, until
from .tap import Way

OUTBOUND_KILLED = "kill -9 of a worker, another one running (outbound)"
REDIS_KILLED = "kill -9 of a worker, another one running (outbound), after kill -9 of Redis"
CLASSIC_KILLED = "kill -9 of the only worker, started anew at once (classic)"
_INTO_THE_SENTENCE = 0.5


@dataclass(slots=True)
class Takeover:
    """How it went."""

    back: list[float]
    """Seconds from the kill until each caller's new model session stood."""
    trials: list[Trial]


class Workers:
    """Processes that share Asterisk, the simulated Gemini and the calls' states. ``work``: a directory."""

    def __init__(
        self,
        work: Path,
        asterisk: Asterisk,
        gemini: GeminiSimulator,
        *,
        is_outbound: bool,
        redis: RedisServer | None = None,
    ) -> None:
        self._work = work
        self._asterisk = asterisk
        self._gemini = gemini
        self._outbound = is_outbound
        self._redis = redis
        self._commands: dict[str, Command] = {}

    @asynccontextmanager
    async def worker(self, name: str) -> AsyncIterator[Running]:
        """A worker that callers reach; of the same name, it has the same addresses."""
        if name not in self._commands:
            os.makedirs(self._work / name)
            self._commands[name] = Command(self._work / name, self._asterisk, self._gemini)
        process = await self._commands[name].start("serve", environment=self._settings())
        try:
            await process.says(b"= ari listening" if self._outbound else CONNECTED)
            yield process
        finally:
            await process.kill()

    def _settings(self) -> dict[str, str]:
        return {
            **(
                {"ARI_GEMINI__STATE__DIRECTORY": str(self._work / "state")}
                if self._redis is None
                else in_redis(self._redis)
            ),
            "ARI_GEMINI__AGENTS__DEFAULT__INSTRUCTIONS": INSTRUCTIONS,
            **(outbound(self._asterisk) if self._outbound else {}),
        }


async def kill_and_take_over(asterisk: Asterisk, work: Path, phones: Sequence[Phone], name: str) -> Takeover:
    """Let it happen to these phones' calls at once. ``name``: which of the ``..._KILLED``.

    Raises AsteriskCrashed: then it is for the caller to restart it.
    """
    is_outbound = name != CLASSIC_KILLED
    async with AsyncExitStack() as stack:
        gemini = await stack.enter_async_context(GeminiSimulator(SCENARIO))
        redis = None
        if name == REDIS_KILLED:
            os.makedirs(work / "redis")
            redis = stack.enter_context(RedisServer(work / "redis"))
        workers = Workers(work, asterisk, gemini, is_outbound=is_outbound, redis=redis)
        callers = [Caller(gemini, phone, OUTBOUND if is_outbound else WAY_A) for phone in phones]
        async with workers.worker("first") as first:
            await asyncio.gather(*(caller.begin() for caller in callers))
            if redis is not None:
                redis.kill()
                await asyncio.gather(*(caller.ask("ask_hours") for caller in callers))
                redis.start()
                await _kept(redis, len(callers))
            if is_outbound:
                async with workers.worker("second") as second:
                    await _strike(callers, first)
                    return await _aftermath(asterisk, callers, name, second)
            await _strike(callers, first)
        async with workers.worker("first") as again:
            return await _aftermath(asterisk, callers, name, again)


async def _kept(redis: RedisServer, calls: int) -> None:
    """Wait until the records of so many calls are there again."""
    async with Redis.from_url(redis.url) as client, asyncio.timeout(20):
        while len(await client.keys(f"{PREFIX}*")) < calls:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def _strike(callers: Sequence[Caller], first: Running) -> None:
    await asyncio.gather(*(caller.say("ask_delivery") for caller in callers))
    await asyncio.sleep(_INTO_THE_SENTENCE)
    for caller in callers:
        caller.struck = time.monotonic()
    await first.kill()


async def _aftermath(asterisk: Asterisk, callers: Sequence[Caller], name: str, worker: Running) -> Takeover:
    trials = list(await asyncio.gather(*(_trial(caller, name) for caller in callers)))
    if not asterisk.running:
        raise AsteriskCrashed(f"during: {name}")
    try:
        await asterisk.empty(10.0)
    except AssertionError as left:
        trials[0].complaints.append(str(left))
        for bridge in await asterisk.bridges():  # what follows is not to blame
            await asterisk.ari("DELETE", f"bridges/{bridge['id']}")
    if any(trial.complaints for trial in trials):
        lines = worker.said.decode().splitlines()
        trials[0].complaints += [
            line for line in lines if "call.ended" in line and "caller_hangup" not in line
        ]
    back = [_ready(caller) - caller.struck for caller in callers if _ready(caller)]
    return Takeover(sorted(back), trials)


async def _trial(caller: Caller, name: str) -> Trial:
    try:
        await until(lambda: bool(_ready(caller)), lambda: "nobody took over")
        await caller.quiet()
        last = await caller.ask("ask_order")
        await caller.finish()
    except Exception as error:  # noqa: BLE001  # that a call did not outlive the kill is a result
        await caller.phone.hang_up()
        return Trial(name, complaints=[f"{type(error).__name__}: {error}; {caller.told()}"])
    voices = filter(is_voice, caller.phone.tap.packets(Way.TO_PHONE, since=caller.struck))
    first_voice = next((packet.time for packet in voices), time.monotonic())
    trial = Trial(name, endured(caller.phone.tap, caller.struck, first_voice), caller.arrival())
    session = caller.session
    if not session.history and session.conversation != caller.sessions[0].conversation:
        trial.complaints.append(f"the model does not know what was said before; {caller.told()}")
    if (found := caller.heard(last)) < HEARD_WELL:
        trial.complaints.append(f"the last answer was heard with a correlation of {found:.3f}")
    return trial


def _ready(caller: Caller) -> float:
    """When the first session after the kill stood; 0.0 before."""
    ready = [s.record.of("setup_complete") for s in caller.sessions]
    late = [events[0].at for events in ready if events and events[0].at > caller.struck]
    return late[0] if late else 0.0
