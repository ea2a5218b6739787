"""The whole service in this process, between a simulated Asterisk and a simulated Gemini."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self
from uuid import UUID

import psutil
from pydantic import SecretStr
from structlog.testing import capture_logs

from ari_gemini.app import Service
from ari_gemini.ari.settings import AriSettings
from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.resample import Resampler
from ari_gemini.audiosocket.server import AudioSocketSettings
from ari_gemini.call.agent import Agent
from ari_gemini.call.call import Call
from ari_gemini.call.drain import DrainSettings
from ari_gemini.call.settings import CallSettings
from ari_gemini.config import Config
from ari_gemini.errors import CallEnded, Cause
from ari_gemini.gemini.settings import GeminiSettings
from ari_gemini.realtime.events import Speaker
from ari_gemini.simulator.asterisk import PASSWORD, USERNAME, Outbound, SimulatedAsterisk, SimulatedCall
from ari_gemini.simulator.gemini_connection import SimulatedSession
from ari_gemini.simulator.gemini_live import GeminiSimulator
from ari_gemini.simulator.phrases import phrase
from ari_gemini.simulator.scenario import Scenario, ScriptTurn, load_scenario
from ari_gemini.telemetry.timeline import Turn
from ari_gemini.tools.settings import ToolsSettings
from ari_gemini.tools.toolbox import ToolUse
from ari_gemini.web.health import HealthSettings
from support.hurry import hurried
from support.ports import free_port

LONG = 30.0
"""Seconds (of a clock that may hurry): only a hanging test gets there."""

TELEPHONE, WIDE, MODEL = AudioFormat(8000), AudioFormat(16000), AudioFormat(24000)
FRAME = TELEPHONE.frame_bytes

GREETING = Agent(greeting="Greet the caller.")

Reaction = Callable[[], Awaitable[None] | None]


def quick(*turns: ScriptTurn, **changes: Any) -> Scenario:
    """A Gemini that thinks fast, says a short hello and then what ``turns`` say."""
    script = (ScriptTurn(on="text", say=("done",)), *turns)
    fast = {"setup_delay": 0.1, "think_time": 0.1, "pace": (20.0, 20.0), "turns": script}
    return Scenario(**fast | changes)


async def until(condition: Callable[[], bool], what: str = "") -> None:
    """Wait until it holds; fail when it does not come to that."""
    try:
        async with asyncio.timeout(LONG):
            while not condition():  # noqa: ASYNC110  # what is waited for has no events
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(what or "it never came to that") from None


def resampled(pcm: bytes, source: AudioFormat, target: AudioFormat) -> bytes:
    """What the service makes of a whole utterance."""
    resampler = Resampler(source, target)
    return resampler.process(pcm) + resampler.flush()


class Mouthpiece:
    """A caller who says what the test gives him and keeps all he hears."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.times: list[float] = []
        """Loop time of each frame heard."""
        self.to_say: deque[bytes] = deque()

    def say(self, pcm: bytes) -> None:
        """Say this from the next frame on."""
        for at in range(0, len(pcm), FRAME):
            self.to_say.append(pcm[at : at + FRAME].ljust(FRAME, b"\0"))

    def next_frame(self) -> bytes:
        return self.to_say.popleft() if self.to_say else bytes(FRAME)

    def hear(self, frame: bytes, at: float) -> None:
        self.heard += frame
        self.times.append(at)


class World:
    """``async with World(...) as world:`` the service runs and is connected; at the end nothing is left.

    ``steps`` tells in one sequence what happened: ``ari channels.ring`` (a request came), ``gemini < setup``
    and ``gemini > setupComplete`` (messages, sound apart), ``call started``, ``call ended``. ``on`` holds
    what is to be done at the first of a step: it may raise Refused, or be awaited, if that is a request.
    """

    def __init__(
        self,
        scenario: Scenario | str | None = None,
        *,
        agents: Mapping[str, Agent] | None = None,
        calls: Mapping[str, Any] | None = None,
        audiosocket: Mapping[str, Any] | None = None,
        drain: Mapping[str, Any] | None = None,
        health: Mapping[str, Any] | None = None,
        ari: Mapping[str, Any] | None = None,
        gemini: Mapping[str, Any] | None = None,
        tools: Mapping[str, Any] | None = None,
        with_ari: bool = True,
        connect: bool = True,
        hurry: bool = True,
        outbound: bool = False,
    ) -> None:
        self._ari = dict(ari or {})
        self.asterisk = self._connecting() if outbound else SimulatedAsterisk()
        chosen = load_scenario(scenario) if isinstance(scenario, str) else scenario or quick()
        self.gemini = GeminiSimulator(chosen, tap=self._frame)
        self.steps: list[str] = []
        self.on: dict[str, Reaction] = {}
        self.outcomes: list[CallEnded] = []
        self.turns: list[Turn] = []
        self.transcripts: list[tuple[Speaker, str]] = []
        self.uses: list[ToolUse] = []
        self.logs: list[Any] = []
        self._agents = dict(agents or {"default": GREETING})
        self._sections = {"calls": calls or {}, "audiosocket": audiosocket or {}, "gemini": gemini or {}}
        self._sections |= {"drain": drain or {}, "health": health or {}}
        self._tools = tools or {}
        self._hurry = hurry
        self._with_ari = with_ari
        self._connect = connect
        self._stack = AsyncExitStack()
        self._loop = asyncio.get_running_loop()

    def _connecting(self) -> SimulatedAsterisk:
        """An Asterisk that connects to the service, once per call."""
        listen = f"127.0.0.1:{free_port()}"
        self._ari |= {"mode": "outbound", "listen": listen}
        return SimulatedAsterisk(outbound=Outbound(f"ws://{listen}/ari", USERNAME, PASSWORD))

    # What the service tells its observer.

    def started(self, call: Call) -> None:
        self.note("call started")

    def transcript(self, call: Call, speaker: Speaker, text: str) -> None:
        self.transcripts.append((speaker, text))

    def turn(self, call: Call, turn: Turn) -> None:
        self.turns.append(turn)

    def tool(self, call: Call, use: ToolUse) -> None:
        self.uses.append(use)

    def ended(self, call: Call, outcome: CallEnded) -> None:
        self.outcomes.append(outcome)
        self.note("call ended")

    # What happens around it.

    def note(self, step: str) -> Awaitable[None] | None:
        self.steps.append(step)
        reaction = self.on.pop(step, None)
        return reaction() if reaction is not None else None

    def _request(self, method: str, path: str) -> Awaitable[None] | None:
        return self.note(f"ari {self.asterisk.requests[-1].operation}")

    def _frame(self, number: int, direction: str, frame: str | bytes) -> None:
        try:
            message = json.loads(frame)
        except ValueError:
            return
        kind = next(iter(message), "")
        body = message.get(kind)
        if kind in ("realtimeInput", "serverContent"):
            kind = next((name for name in ("text", "interrupted") if name in body), "")
        if kind:
            self.note(f"gemini {direction} {kind}")

    # Its life.

    async def __aenter__(self) -> Self:
        self._before = psutil.Process().num_fds()
        self._tasks_before = asyncio.all_tasks()
        try:
            await self._begin()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _begin(self) -> None:
        if self._hurry:
            self._stack.enter_context(hurried())
        self.logs = self._stack.enter_context(capture_logs())
        await self._stack.enter_async_context(self.asterisk)
        await self._stack.enter_async_context(self.gemini)
        self.asterisk.on_request = self._request
        self.restart_service()
        self._stack.push_async_callback(self.stop)
        if not self._connect:
            return
        async with asyncio.timeout(LONG):
            await self.service.wait_listening()
            if self.service.client is not None:
                await self.service.client.wait_connected()
        await self.at_rest()
        self.steps.clear()

    def restart_service(self) -> None:
        """A new service in the place of one that was stopped."""
        self.service = Service(self._config(), observer=self)
        self.running = self._loop.create_task(self.service.run())

    async def at_rest(self) -> None:
        """Wait until the service, just connected, has looked for what it may have missed."""
        if self.service.client is not None:
            await until(lambda: not any("_guarded" in str(task) for task in asyncio.all_tasks()))
        self._at_rest = asyncio.all_tasks()

    async def stop(self) -> None:
        """Stop the service as SIGTERM does, and wait for its end."""
        self.service.stop()
        async with asyncio.timeout(LONG):
            await asyncio.wait([self.running])
        if not self.running.cancelled():
            self.running.result()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self._stack.aclose()
        if kind is None:
            await until(lambda: asyncio.all_tasks() <= self._tasks_before, "tasks are left")
            await until(lambda: psutil.Process().num_fds() <= self._before, "file descriptors are left")

    def _config(self) -> Config:
        ari = AriSettings(
            **{
                "url": self.asterisk.url,
                "username": self.asterisk.username,
                "password": SecretStr(self.asterisk.password),
                **self._ari,
            }
        )
        given = self._sections
        key = {"base_url": self.gemini.url, "api_key": SecretStr("a-key")}
        return Config(
            ari=ari if self._with_ari else None,
            audiosocket=AudioSocketSettings(**{"listen": "127.0.0.1:0", **given["audiosocket"]}),
            gemini=GeminiSettings(**key | dict(given["gemini"])),
            calls=CallSettings(**given["calls"]),
            drain=DrainSettings(**given["drain"]),
            health=HealthSettings(**given["health"]),
            agents=self._agents,
            tools=ToolsSettings(**self._tools),
        )

    # Calls.

    async def call(self, **options: Any) -> SimulatedCall:
        """Way A: a caller in ``Stasis()``."""
        return await self.asterisk.call(**{"voice": Mouthpiece(), "stays": True} | options)

    async def dial(self, call_id: UUID | None = None, **options: Any) -> SimulatedCall:
        """Way B: a caller in ``AudioSocket()``."""
        options = {"voice": Mouthpiece(), "stays": True} | options
        return await self.asterisk.audiosocket_call(str(self.service.media.advertised), call_id, **options)

    async def up(self, count: int = 1) -> None:
        """Wait until so many calls have come up."""
        await until(lambda: self.steps.count("call started") >= count, f"no call: {self.steps}")

    async def over(self, count: int = 1) -> CallEnded:
        """Wait until so many calls have ended; the outcome of the last of them."""
        await until(lambda: len(self.outcomes) >= count, f"not over: {self.steps}")
        return self.outcomes[count - 1]

    async def nothing_left(self, *kept: SimulatedCall) -> None:
        """See that only these callers' channels are there, and nothing else of any call."""
        service, ids = self.service, {call.id for call in kept}
        await until(lambda: service.calls == 0, "a call's task is left")
        await until(lambda: set(self.asterisk.channels) == ids, f"left: {list(self.asterisk.channels)}")
        assert self.asterisk.bridges == {}
        assert service.registry.calls == {}
        assert service.registry._expected == {}
        await until(lambda: service.media.connections == 0, "a media connection is left")
        await until(lambda: all(s.closed for s in self.gemini.sessions), "a model session is left")
        await until(lambda: not self.strange_tasks(), f"left: {self.strange_tasks()}")

    def strange_tasks(self) -> list[str]:
        """Tasks that were not there when the service was at rest.

        Kept HTTP connections of the simulated Asterisk are no leak, nor is a caller whom the dialplan keeps.
        """
        extra = asyncio.all_tasks() - self._at_rest - {asyncio.current_task()}
        neighbours = ("aiohttp", "simulator/asterisk")
        codes = {task: str(getattr(task.get_coro(), "cr_code", "")) for task in extra}
        return [str(task) for task, code in codes.items() if not any(name in code for name in neighbours)]

    async def talks(self) -> SimulatedCall:
        """A new call of way A that works: the caller hears every sample the model says."""
        sessions, started = self.gemini.connections, self.steps.count("call started")
        call = await self.call()
        await self.up(started + 1)
        await self.hears_it_all(call, await self.gemini.wait_session(sessions + 1))
        return call

    async def hears_it_all(self, call: SimulatedCall, session: SimulatedSession) -> None:
        """Let the model say something; the caller hears exactly that."""
        voice = call.voice
        assert isinstance(voice, Mouthpiece)
        wanted = resampled(phrase("done").pcm, MODEL, TELEPHONE)
        if self._agents["default"].greeting:
            await session.wait_for("turn_complete", timeout=LONG)  # the instruction to greet would interrupt
        begin = len(voice.heard)
        session.say("done")
        await until(lambda: wanted in voice.heard[begin:], "the caller does not hear what the model says")

    async def another_works(self, *kept: SimulatedCall) -> None:
        """See that the service is as good as new."""
        call = await self.talks()
        count = len(self.outcomes)
        call.hang_up()
        assert (await self.over(count + 1)).cause is Cause.CALLER_HANGUP
        await self.nothing_left(*kept)

    def log_lines(self, event: str) -> list[Mapping[str, Any]]:
        """The log lines with this event."""
        return [line for line in self.logs if line["event"] == event]


def in_order(steps: Sequence[str], *wanted: str) -> bool:
    """Whether all of these steps happened, and in this order (each one's first)."""
    return all(step in steps for step in wanted) and sorted(wanted, key=steps.index) == list(wanted)


@asynccontextmanager
async def another_worker(world: World) -> AsyncIterator[Service]:
    """A second service on the same port, with the same Asterisk and Gemini."""
    service = Service(world._config(), observer=world)
    running = asyncio.create_task(service.run())
    try:
        await service.wait_listening()
        yield service
    finally:
        service.stop()
        await running
