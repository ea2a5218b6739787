"""Many calls for a long time, while all that can fail fails: nothing may be lost, and nothing may be left.

    python tests/e2e/soak.py --minutes 60 --calls 20 --seed 1

Real Asterisk, simulated Gemini. Each caller talks for 20 to 120 s, hangs up, and another takes his place.
Faults come all the time: closes, resets, goAway, stalls, refused resumption, silent packet loss, the ARI
connection cut. The exit code is 1 when a call ended for another reason than its caller, or when tasks,
descriptors, memory, objects, channels or bridges were left.

Faults that befall the whole service wait until nobody is about to be connected: a call that cannot begin is
the dialplan's, and tested elsewhere.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import logging
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import structlog

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from bot import WAY_A, WAY_B
from harness.asterisk import PHONES, Asterisk
from harness.scene import SLOW, Scene, instructions, staged
from harness.sound import RATE, Samples, silence

from ari_gemini.audiosocket.connection import Connection
from ari_gemini.call.call import Call
from ari_gemini.call.downlink import Downlink
from ari_gemini.call.model_watch import StallSettings
from ari_gemini.errors import Cause
from ari_gemini.gemini.session import GeminiSession
from ari_gemini.simulator.gemini_closes import CLOSES
from ari_gemini.simulator.gemini_connection import SimulatedSession
from ari_gemini.simulator.phrases import phrase
from ari_gemini.simulator.scenario import Scenario, ScriptTurn

SHORTEST, LONGEST = 20.0, 120.0
"""Seconds a caller stays."""
FAULT_EVERY = (0.3, 1.5)
"""Seconds from one fault to the next, over all calls: with twenty, each call meets one about every 18 s."""
COMMON_EVERY = (15.0, 45.0)
"""Seconds from one fault of the whole service to the next."""
STALLS = StallSettings().max_reconnects
"""In one call: a model that falls silent once more is given up on purpose."""
SAMPLE_EVERY = 5.0
TELL_EVERY = 12
"""Samples, a minute, between two lines about how it goes."""
MIB = 2**20
MEMORY_LIMIT = 16 * MIB
"""Growth, from the middle of the run to its end, of this process, the simulator included."""

QUESTIONS = ("ask_hours", "ask_order", "ask_delivery", "interrupt")
SCENARIO = Scenario(
    turns=(
        ScriptTurn(on="text", say=("greeting",)),
        ScriptTurn(say=("opening_hours",)),
        ScriptTurn(say=("long_story",)),
        ScriptTurn(say=("order_status",)),
    ),
    after_script="generic",
    generic=("opening_hours", "order_status"),
)
_KINDS = (Call, Connection, Downlink, GeminiSession)


@dataclass
class Tally:
    """What happened, counted."""

    calls: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    """Callers who were not connected any more when they wanted to hang up."""
    memory: list[int] = field(default_factory=list)
    asterisk_memory: list[int] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """What was there at the end and not at the beginning."""
    causes: Counter[Cause] = field(default_factory=Counter)
    bad_ends: list[str] = field(default_factory=list)
    """Calls that their caller did not end, in words."""
    connections: int = 0
    """To the model, those refused included."""

    @property
    def grown(self) -> int:
        """Bytes between the middle of the run and its end."""
        third = max(1, len(self.memory) // 3)
        middle, end = self.memory[third : 2 * third], self.memory[-third:]
        return int(statistics.median(end) - statistics.median(middle)) if middle else 0

    @property
    def violations(self) -> list[str]:
        """What was not as it should be."""
        found = [f"lost: {caller}" for caller in self.lost] + [f"left: {what}" for what in self.left]
        found += [f"a call ended with {outcome}" for outcome in self.bad_ends]
        if self.grown > MEMORY_LIMIT:
            found.append(f"memory grew by {self.grown / MIB:.1f} MiB")
        return found

    def table(self) -> str:
        """For the eye."""
        causes = ", ".join(f"{cause.value} {count}" for cause, count in self.causes.most_common())
        rows = [
            ("calls", str(self.calls)),
            ("ended", causes),
            ("lost", str(len(self.lost))),
            ("connections to the model", str(self.connections)),
            *((f"fault: {name}", str(count)) for name, count in sorted(self.faults.items())),
            ("memory, MiB", _course(self.memory)),
            ("memory grown since the middle, MiB", f"{self.grown / MIB:+.1f}"),
            ("memory of Asterisk, MiB", _course(self.asterisk_memory)),
            ("left", ", ".join(self.left) or "nothing"),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _course(memory: list[int]) -> str:
    shown = memory[:: max(1, len(memory) // 6)]
    return " ".join(f"{size / MIB:.0f}" for size in shown)


class Soak:
    """One run. ``seed`` decides who calls when, what he says and which fault comes next."""

    def __init__(self, scene: Scene, calls: int, seconds: float, seed: int) -> None:
        self.tally = Tally()
        self._scene = scene
        self._calls = calls
        self._end = time.monotonic() + seconds
        self._rng = random.Random(seed)
        self._open = asyncio.Event()
        self._open.set()
        self._connecting = 0
        self._stalls: Counter[str] = Counter()
        self._microphones = [microphone(random.Random(seed + n)) for n in range(6)]

    async def run(self) -> None:
        """Until the time is over and every caller has hung up."""
        async with asyncio.TaskGroup() as tasks:
            lives = [tasks.create_task(self._lives(number)) for number in range(self._calls)]
            others = [tasks.create_task(work()) for work in (self._faults, self._common_faults, self._sample)]
            await asyncio.wait(lives)
            for task in others:
                task.cancel()

    # Callers.

    async def _lives(self, number: int) -> None:
        rng = random.Random(self._rng.random())
        await asyncio.sleep(rng.uniform(0, 10))
        while (left := self._end - time.monotonic()) > 1.0:
            await self._call(number, min(left, rng.uniform(SHORTEST, LONGEST)), rng)

    async def _call(self, number: int, seconds: float, rng: random.Random) -> None:
        asterisk, way = self._scene.asterisk, rng.choice((WAY_A, WAY_B))
        self._stalls[PHONES[number]] = 0
        async with self._connected():
            sound = rng.choice(self._microphones)
            caller = await asterisk.call(way, sound, caller=PHONES[number], record=False)
            for _ in range(200):
                if await caller.up():
                    break
                await asyncio.sleep(0.05)
            await asyncio.sleep(3.0)  # way B is up before it is known who calls, and the model is there
        self.tally.calls += 1
        begun = await caller.up()
        await asyncio.sleep(seconds)
        if not await caller.up():
            what = "in mid-call" if begun else "before it began"
            self._lose(f"{PHONES[number]} by way {way} {what}, {seconds:.0f} s before he wanted to hang up")
        await caller.hang_up()
        for path in asterisk.sounds.glob(f"{caller.channel.removeprefix('caller-')}*"):
            path.unlink()

    def _lose(self, what: str) -> None:
        self.tally.lost.append(what)
        ends = [f"{o.cause.value}: {o.detail}" for o in self._scene.bot.watcher.outcomes]
        odd = [end for end in ends if not end.startswith(Cause.CALLER_HANGUP.value)]
        print(f"LOST {what}; ends so far: {odd}", file=sys.stderr, flush=True)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        await self._open.wait()
        self._connecting += 1
        try:
            yield
        finally:
            self._connecting -= 1

    # Faults of one call.

    async def _faults(self) -> None:
        gemini = self._scene.bot.gemini
        deeds = (
            self._close,
            self._reset,
            self._go_away,
            self._stall,
            self._refuse,
            self._lose_handles,
            self._cut,
            self._call_tool,
        )
        while True:
            await asyncio.sleep(self._rng.uniform(*FAULT_EVERY))
            settled = [s for s in gemini.sessions if s.closed is None and s.record.count("turn_complete")]
            if settled:
                deed = self._rng.choice(deeds)
                deed(self._rng.choice(settled))
                self.tally.faults[deed.__name__.strip("_").replace("_", " ")] += 1

    def _close(self, session: SimulatedSession) -> None:
        session.disconnect(*self._rng.choice(list(CLOSES.values())))

    def _reset(self, session: SimulatedSession) -> None:
        with suppress(LookupError):  # the call is leaving it in this moment
            self._scene.gemini_line.tunnel(session.address).reset()

    def _cut(self, session: SimulatedSession) -> None:
        session.cut()

    def _go_away(self, session: SimulatedSession) -> None:
        session.go_away(self._rng.uniform(5.0, 20.0))

    def _stall(self, session: SimulatedSession) -> None:
        caller = next((n for n in PHONES if f"caller {n}." in instructions(session)), "")
        if self._stalls[caller] < STALLS:
            self._stalls[caller] += 1
            session.stall(self._rng.randint(1, 3))

    def _refuse(self, session: SimulatedSession) -> None:
        session.refuse_resumption(self._rng.choice((1.0, 3.0, float("inf"))))
        session.disconnect(*CLOSES["internal error"])

    def _lose_handles(self, session: SimulatedSession) -> None:
        session.lose_handles()
        session.disconnect(*CLOSES["aborted"])

    def _call_tool(self, session: SimulatedSession) -> None:
        caller = f"{session.number}"
        session.call_tool(SLOW, {"caller": caller}, then=("order_status",))
        asyncio.get_running_loop().call_later(self._rng.uniform(0.5, 5.0), self._scene.slow.answer, caller)

    # Faults of the whole service.

    async def _common_faults(self) -> None:
        while True:
            await asyncio.sleep(self._rng.uniform(*COMMON_EVERY))
            if time.monotonic() > self._end - 15.0:
                return
            self._open.clear()
            while self._connecting:  # noqa: ASYNC110 - a few times a minute
                await asyncio.sleep(0.05)
            deed = self._rng.choice((self._freeze, self._slow_line, self._cut_ari))
            self.tally.faults[deed.__name__.strip("_").replace("_", " ")] += 1
            await deed()
            self._open.set()

    async def _freeze(self) -> None:
        self._scene.gemini_line.freeze()
        await asyncio.sleep(self._rng.uniform(1.0, 8.0))
        self._scene.gemini_line.thaw()
        await asyncio.sleep(8.0)  # a new caller's session shall not have to wait for the others'

    async def _slow_line(self) -> None:
        self._scene.gemini_line.delay(self._rng.uniform(0.1, 0.4))
        await asyncio.sleep(5.0)
        self._scene.gemini_line.delay(0.0)

    async def _cut_ari(self) -> None:
        client = self._scene.bot.service.client
        assert client is not None
        self._scene.ari_line.refuse()
        self._scene.ari_line.reset()
        await asyncio.sleep(self._rng.uniform(1.0, 10.0))
        self._scene.ari_line.accept()
        async with asyncio.timeout(30):
            await client.wait_connected()
        await asyncio.sleep(1.0)

    async def _sample(self) -> None:
        process, tally = psutil.Process(), self.tally
        trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)
        while True:
            await asyncio.sleep(SAMPLE_EVERY)
            trim(0)  # what the allocator keeps for later is no leak
            tally.memory.append(process.memory_info().rss)
            tally.asterisk_memory.append(self._scene.asterisk.resident_bytes())
            if len(tally.memory) % TELL_EVERY == 0:
                print(
                    f"{self._end - time.monotonic():.0f} s left, {tally.calls} calls, "
                    f"{len(tally.lost)} lost, {tally.faults.total()} faults, "
                    f"{tally.memory[-1] / MIB:.0f} MiB",
                    file=sys.stderr,
                    flush=True,
                )


def microphone(rng: random.Random) -> Samples:
    """What a caller says in his time: questions, pauses, and now and then an interruption."""
    parts = [silence(rng.uniform(4.0, 8.0))]
    while sum(map(len, parts)) < (LONGEST + 10) * RATE:
        parts += [
            np.frombuffer(phrase(rng.choice(QUESTIONS)).pcm, "<i2").astype(np.int16),
            silence(rng.uniform(2.0, 10.0)),
        ]
    return np.concatenate(parts)


async def soak(asterisk: Asterisk, *, minutes: float, calls: int, seed: int) -> Tally:
    """Let it run; what came of it."""
    process = psutil.Process()
    simulator = {"keep_sound": False, "keep_sessions": 64}
    limit = str(calls + 10)
    async with staged(asterisk, SCENARIO, simulator=simulator, only_ends=True, max_calls=limit) as scene:
        before, descriptors = asyncio.all_tasks(), process.num_fds()
        living = _living()
        run = Soak(scene, calls, 60 * minutes, seed)
        await run.run()
        tally = run.tally
        try:
            await asterisk.empty(10.0)
            await scene.bot.idle()
        except (AssertionError, TimeoutError) as error:
            tally.left.append(f"{type(error).__name__} {error}")
        outcomes = scene.bot.watcher.outcomes
        tally.causes = Counter(outcome.cause for outcome in outcomes)
        tally.bad_ends = [
            f"{o.cause.value}: {o.detail}" for o in outcomes if o.cause is not Cause.CALLER_HANGUP
        ]
        tally.connections = scene.bot.gemini.connections
        await _idle_connections(process, descriptors)
        if (more := process.num_fds() - descriptors) > 0:
            tally.left.append(f"{more} descriptors")
        tasks = {task.get_name() for task in asyncio.all_tasks() - before if not task.done()}
        tally.left += [f"task {name}" for name in sorted(tasks)]
        tally.left += [f"{count} {name} objects" for name, count in (_living() - living).items()]
    return tally


def _living() -> Counter[str]:
    gc.collect()
    return Counter(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, _KINDS))


async def _idle_connections(process: psutil.Process, descriptors: int) -> None:
    """ARI connections are kept for 5 s, those that Asterisk closed are noticed then."""
    deadline = time.monotonic() + 15
    while process.num_fds() > descriptors and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.1)


def main() -> int:
    """The script."""
    parser = argparse.ArgumentParser(description="Calls for a long time, while all that can fail fails.")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    print(
        f"{arguments.calls} calls at once for {arguments.minutes:g} minutes, seed {arguments.seed}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as work:
        asterisk = Asterisk(Path(work))
        try:
            asterisk.start()
            tally = asyncio.run(
                soak(asterisk, minutes=arguments.minutes, calls=arguments.calls, seed=arguments.seed)
            )
        finally:
            asterisk.close()
    print(tally.table())
    for violation in tally.violations:
        print(f"VIOLATION  {violation}")
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
