"""A call's surroundings, played by the test: Asterisk's leg, the media connection, the model's session."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from ari_gemini.ari.client import AriClient
from ari_gemini.ari.settings import AriSettings
from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audiosocket.connection import EndReason, MediaEnd, MediaStats
from ari_gemini.call.agent import Agent
from ari_gemini.call.call import Call
from ari_gemini.call.leg import Identity
from ari_gemini.call.records import Records
from ari_gemini.call.registry import Registry
from ari_gemini.call.settings import CallSettings
from ari_gemini.errors import CallEnded, Cause, KeyRefused, SessionDropped
from ari_gemini.realtime.events import FunctionCall, ToolCall
from ari_gemini.realtime.functions import FunctionResult
from ari_gemini.realtime.session import Capabilities, HistoryTurn, Resume, SessionSettings
from ari_gemini.tools.base import Tool
from ari_gemini.tools.destination import Destination
from ari_gemini.tools.settings import ToolLimits
from ari_gemini.tools.toolbox import ToolUse

LONG = 30.0
"""Seconds: only a hanging test gets there."""


async def until(condition: Callable[[], object]) -> None:
    """Wait until ``condition`` holds, whatever makes it so."""
    async with asyncio.timeout(LONG):
        while not condition():  # noqa: ASYNC110  # no event for it: playout timers, tasks of the call
            await asyncio.sleep(0.001)


class Connection:
    """The media connection, without a socket."""

    def __init__(self, uuid: UUID | None = None, rate: int = 8000) -> None:
        self.uuid = uuid or uuid4()
        self.rate = rate
        self.stats = MediaStats()
        self.written: list[tuple[bytes, int]] = []
        self.sink = None
        self.end: MediaEnd | None = None
        self.farewell: str | None = None

    def attach(self, sink) -> None:
        assert self.sink is None
        self.sink = sink
        if self.end is not None:
            sink.ended(self.end)

    def write_audio(self, pcm: bytes, rate: int | None = None) -> bool:
        self.written.append((pcm, rate or self.rate))
        return True

    def finish(self, end: MediaEnd, farewell: str | None = None) -> None:
        if self.end is None:
            self.end, self.farewell = end, farewell
            if self.sink is not None:
                self.sink.ended(end)

    def close(self) -> None:
        self.finish(MediaEnd(EndReason.CLOSED_BY_US), "close")

    def hangup(self) -> None:
        self.finish(MediaEnd(EndReason.CLOSED_BY_US), "hangup")

    def refuse(self, why: str) -> None:
        self.finish(MediaEnd(EndReason.REFUSED, why), "refuse")

    async def wait_closed(self) -> None:
        assert self.end is not None, "waited for a connection that nobody closes"

    @property
    def speech(self) -> bytes:
        """Everything written, in one piece."""
        return b"".join(pcm for pcm, _ in self.written)


class Session:
    """A model session that says what the test puts into ``inbox``."""

    def __init__(
        self,
        steps: list[str] | None = None,
        input_rate: int = 16000,
        audio_during_tools: bool = True,
        resumed: bool = False,
    ) -> None:
        self.capabilities = Capabilities(
            AudioFormat(input_rate), AudioFormat(24000), audio_during_tools=audio_during_tools
        )
        self.steps = steps if steps is not None else []
        self.inbox: asyncio.Queue = asyncio.Queue()
        self.heard: list[bytes] = []
        self.texts: list[str] = []
        self.answers: list[FunctionResult] = []
        self.closed = 0
        self.sent = 0
        self.resumed = resumed
        self.resume: Resume | None = None
        self.dead = False
        """From now on, what is sent is lost."""
        self._confirmed = 0
        self.greet_error: Exception | None = None
        self.text_error: Exception | None = None
        self.close_error: Exception | None = None
        self.taking = asyncio.Event()
        self.taking.set()
        self._heard = asyncio.Event()

    @property
    def confirmed(self) -> int:
        if not self.dead:
            self._confirmed = self.sent
        return self._confirmed

    async def send_audio(self, pcm: bytes) -> None:
        _ = self.confirmed
        self.sent += 1
        self.heard.append(pcm)
        self._heard.set()
        await self.taking.wait()

    async def until_heard(self, count: int) -> bytes:
        """Wait for ``count`` bytes of caller audio; return all of it."""
        async with asyncio.timeout(LONG):
            while len(b"".join(self.heard)) < count:
                self._heard.clear()
                await self._heard.wait()
        return b"".join(self.heard)

    async def send_text(self, text: str) -> None:
        await self.taking.wait()
        if self.text_error is not None:
            raise self.text_error
        _ = self.confirmed
        self.sent += 1
        self.texts.append(text)
        self.steps.append("text")

    async def send_tool_results(self, results: Sequence[FunctionResult]) -> None:
        await self.taking.wait()
        _ = self.confirmed
        self.sent += 1
        for result in results:
            self.answers.append(result)
            self.steps.append(f"answer {result.name}")

    async def greet(self, instruction: str) -> None:
        self.steps.append(f"greet {instruction}")
        if self.greet_error is not None:
            raise self.greet_error

    async def receive(self) -> Sequence:
        said = await self.inbox.get()
        self.inbox.task_done()
        if isinstance(said, Exception):
            raise said
        return said

    async def say(self, *happened) -> None:
        """Let the model say that, and wait until the call has acted on it and asks for more."""
        self.inbox.put_nowait(happened)
        async with asyncio.timeout(LONG):
            await self.inbox.join()
        await asyncio.sleep(0)

    async def ask(self, name: str, number: str = "1", /, **args: Any) -> None:
        """Let the model call a tool, as its call ``number``."""
        await self.say(ToolCall((FunctionCall(number, name, args),)))

    def fail(self, error: Exception) -> None:
        self.inbox.put_nowait(error)

    async def close(self) -> None:
        self.closed += 1
        self.steps.append("session closed")
        if self.close_error is not None:
            raise self.close_error


class Steps(list[str]):
    """What happened, in order. A step may be told to hang, to wait or to fail; a test may wait for any."""

    def __init__(self) -> None:
        self.hang: set[str] = set()
        self.gates: dict[str, asyncio.Event] = {}
        self.fail: dict[str, Exception] = {}
        self.fail_on_cancel: dict[str, Exception] = {}
        self.on: dict[str, Callable[[], None]] = {}
        self._news = asyncio.Event()

    def append(self, step: str) -> None:
        super().append(step)
        self._news.set()

    def note(self, step: str) -> None:
        """A step that waits for nothing."""
        self.append(step)
        if step in self.on:
            self.on[step]()
        if step in self.fail:
            raise self.fail[step]

    def gate(self, step: str) -> asyncio.Event:
        """Let that step wait until the event is set."""
        return self.gates.setdefault(step, asyncio.Event())

    async def take(self, step: str) -> None:
        self.append(step)
        if step in self.on:
            self.on[step]()
        if step in self.gates:
            await self.gates[step].wait()
        if step in self.fail:
            raise self.fail[step]
        if step in self.hang:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if step in self.fail_on_cancel:
                    raise self.fail_on_cancel[step] from None
                raise

    async def until(self, step: str) -> None:
        async with asyncio.timeout(LONG):
            while step not in self:
                self._news.clear()
                await self._news.wait()


class Consultation:
    """Another party, who says yes unless a step is told otherwise."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.gone = asyncio.Event()

    async def ring(self) -> None:
        await self.steps.take("ring")

    async def introduce(self) -> None:
        await self.steps.take("introduce")

    async def left(self) -> None:
        await self.gone.wait()

    async def join(self) -> None:
        await self.steps.take("join party")

    async def abandon(self) -> None:
        await self.steps.take("abandon")


class Leg:
    """Asterisk's side of a call."""

    id = "1700000000.1"

    def __init__(self, steps: Steps, connection: Connection) -> None:
        self.steps = steps
        self.connection = connection
        self.agent = "default"
        self.adopted = False
        self.values: Mapping[str, str] = {}
        self.asked: Sequence[str] = ()
        self.digits: list[str] = []
        self.signals_digits = True
        self.has_place = True
        self.next_place: Destination | None = None
        self.parties: list[Consultation] = []
        self.released: list[CallEnded] = []
        self.release_hangs: asyncio.Event | None = None

    async def identify(self) -> Identity:
        await self.steps.take("identify")
        return Identity(self.agent, "0301234", "Ada {called_number}", "100")

    async def variables(self, names: Sequence[str]) -> Mapping[str, str]:
        self.asked = names
        await self.steps.take("variables")
        return self.values

    async def open_media(self) -> Connection:
        await self.steps.take("open_media")
        return self.connection

    async def settle_media(self) -> None:
        await self.steps.take("settle_media")

    async def join(self) -> None:
        await self.steps.take("join")

    async def send_digits(self, digits: str) -> bool:
        self.digits.append(digits)
        await self.steps.take("send_digits")
        return self.signals_digits

    async def place_exists(self, destination: Destination) -> bool:
        await self.steps.take("place_exists")
        return self.has_place

    def go_on_at(self, destination: Destination) -> None:
        self.steps.note("go_on_at")
        self.next_place = destination

    def consult(self, destination: Destination) -> Consultation:
        self.steps.note("consult")
        self.parties.append(Consultation(self.steps))
        return self.parties[-1]

    async def release(self, ended: CallEnded) -> None:
        self.released.append(ended)
        self.steps.append("release")
        if self.release_hangs is not None:
            await self.release_hangs.wait()
        self.connection.close()
        if "release" in self.steps.fail:
            raise self.steps.fail["release"]
        self.steps.append("released")

    def media_ended(self, end: MediaEnd) -> CallEnded:
        return CallEnded(Cause.MEDIA_LOST, str(end))


class Observer:
    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.transcripts: list[tuple[str, str]] = []
        self.turns: list = []
        self.uses: list[ToolUse] = []
        self.outcomes: list[CallEnded] = []

    def started(self, call: Call) -> None:
        self.steps.append("started")

    def transcript(self, call: Call, speaker, text: str) -> None:
        self.transcripts.append((speaker.value, text))

    def turn(self, call: Call, turn) -> None:
        self.turns.append(turn)

    def tool(self, call: Call, use: ToolUse) -> None:
        self.uses.append(use)

    def ended(self, call: Call, outcome: CallEnded) -> None:
        self.outcomes.append(outcome)


class ToolKit:
    """The tools that a test put into ``tools``."""

    def __init__(self) -> None:
        self.limits = ToolLimits()
        self.tools: list[Tool] = []
        self.asked: list[tuple[Sequence[str], Mapping[str, Destination]]] = []

    def pick(self, names: Sequence[str], destinations: Mapping[str, Destination]) -> Sequence[Tool]:
        self.asked.append((names, destinations))
        return [tool for tool in self.tools if tool.name in names]


class Rig:
    """A call with everything around it."""

    def __init__(self) -> None:
        self.steps = Steps()
        self.connection = Connection()
        self.leg = Leg(self.steps, self.connection)
        self.sessions: list[Session] = []
        self.resumes: list[Resume | None] = []
        self.histories: list[Sequence[HistoryTurn]] = []
        self.settings: list[SessionSettings] = []
        self.refusals: list[Exception] = []
        self.greet_error: Exception | None = None
        self.agents = {
            "default": Agent(greeting="Greet {caller_name}.", variables=("ORDER",), apology="none")
        }
        self.registry = Registry(2)
        self.observer = Observer(self.steps)
        self.tools = ToolKit()
        self.audio_during_tools = True
        self.records: Records | None = None

    def equip(self, *tools: Tool, **agent: Any) -> None:
        """These tools for an agent that does not speak first."""
        self.tools.tools = list(tools)
        names = tuple(tool.name for tool in tools)
        self.agents = {"default": Agent(tools=names, **{"apology": "none"} | agent)}

    async def open_session(
        self,
        settings: SessionSettings,
        *,
        resume: Resume | None = None,
        history: Sequence[HistoryTurn] = (),
        before_setup: Callable[[], Awaitable[Resume | None]] | None = None,
    ) -> Session:
        attempt = len(self.resumes)
        self.settings.append(settings)
        self.resumes.append(resume)
        self.histories.append(history)
        await self.steps.take("open_session")
        newest = None if before_setup is None else await before_setup()
        if resume is not None and newest is not None:
            self.resumes[attempt] = newest
        if self.refusals:
            raise self.refusals.pop(0)
        session = Session(self.steps, audio_during_tools=self.audio_during_tools, resumed=resume is not None)
        session.greet_error = self.greet_error
        self.sessions.append(session)
        return session

    def make(self, **settings) -> Call:
        self.call = Call(
            self.leg,
            settings=CallSettings(**{"setup_timeout": LONG, "prebuffer_ms": 0} | settings),
            agents=self.agents,
            open_session=self.open_session,
            registry=self.registry,
            tools=self.tools,
            observer=self.observer,
            records=self.records,
        )
        return self.call

    def start(self, **settings) -> asyncio.Task[CallEnded]:
        self.task = asyncio.create_task(self.make(**settings).run())
        return self.task

    async def up(self, **settings) -> Session:
        """Start the call and wait until caller and model talk."""
        self.start(**settings)
        await self.steps.until("started")
        if self.agents["default"].greeting:
            await until(lambda: any(step.startswith("greet") for step in self.steps))
        return self.sessions[0]

    def lose_model(self) -> None:
        """The session drops, and there is no other."""
        self.steps.fail["open_session"] = KeyRefused("no more")
        self.sessions[0].fail(SessionDropped("x"))

    async def done(self) -> CallEnded:
        """Wait for the call's end, however it comes, and see that nothing is left of it."""
        finished, _ = await asyncio.wait((self.task,), timeout=LONG)
        assert finished, "the call does not end"
        assert len(self.leg.released) == 1
        outcome = self.leg.released[0]
        assert self.task.cancelled() or self.task.result() is outcome
        assert self.observer.outcomes == [outcome]
        assert all(session.closed for session in self.sessions)
        assert self.connection.end is not None or "open_media" not in self.steps
        assert self.call.downlink._timer is None
        assert self.call._keys._timer is None
        assert self.registry.calls == {}
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return outcome


class Clock:
    """Makes the running loop's time its own: when nothing is left to do, it is the time of the next timer.

    So a farewell of half a minute takes none, and every length of time is exact. For tests without a socket.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._now = 1000.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def time(self) -> float:
        return self._now

    def select(self, timeout: float | None = None) -> list:
        self._now += timeout or 0.0
        return self._inner.select(None if timeout is None else 0)

    @classmethod
    @contextmanager
    def rule(cls) -> Iterator[Clock]:
        """Over the running loop, in this block."""
        loop: Any = asyncio.get_running_loop()
        inner, time = loop._selector, loop.time
        clock = cls(inner)
        loop._selector, loop.time = clock, clock.time
        try:
            yield clock
        finally:
            loop._selector, loop.time = inner, time


@pytest.fixture
async def clock() -> AsyncIterator[Clock]:
    with Clock.rule() as clock:
        yield clock


@pytest.fixture(scope="session")
def clock_type() -> type[Clock]:
    return Clock


@pytest.fixture(name="until", scope="session")
def _until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    return until


@pytest.fixture
async def rig() -> Rig:
    return Rig()


@pytest.fixture
def connection() -> Connection:
    return Connection()


@pytest.fixture(scope="session")
def make_connection() -> type[Connection]:
    return Connection


@pytest.fixture(scope="session")
def make_session() -> type[Session]:
    return Session


@pytest.fixture(scope="session")
def rig_type() -> type[Rig]:
    return Rig


def channel(channel_id: str, app: str = "Stasis", data: str = "ari-gemini,sales") -> dict:
    """A channel as ARI describes it."""
    return {
        "id": channel_id,
        "name": f"PJSIP/phone-{channel_id}",
        "state": "Ring",
        "caller": {"number": "0301234", "name": "Ada"},
        "connected": {"number": "", "name": ""},
        "dialplan": {"context": "in", "exten": "100", "priority": 2, "app_name": app, "app_data": data},
        "creationtime": "2026-11-22T10:00:00.000+0000",
    }


def bridge(bridge_id: str, *channels: str) -> dict:
    """A bridge as ARI describes it."""
    return {
        "id": bridge_id,
        "name": "",
        "bridge_type": "mixing",
        "technology": "simple_bridge",
        "channels": list(channels),
    }


class Ari(AriClient):
    """An Asterisk of which only the requests are real: it does what the test says, and notes everything."""

    def __init__(self) -> None:
        super().__init__(AriSettings(username="gemini"))
        self.asked: list[str] = []
        self.params: dict[str, dict] = {}
        """Of the last request of each operation."""
        self.requests: list[tuple[str, dict]] = []
        self.answers: dict[str, list] = {}
        """What an operation answers, one after the other; the last answer repeats. Errors are raised."""
        self.held: dict[str, asyncio.Event] = {}
        """Operations that answer only when their event is set."""
        self.on: dict[str, Callable[[], None]] = {}
        """What happens in Asterisk during an operation, before it answers."""
        self.finished: list[str] = []
        self._news = asyncio.Event()

    async def request(self, resource: str, nickname: str, **params):
        self.asked.append(nickname)
        self.params[nickname] = params
        self.requests.append((nickname, params))
        self._news.set()
        if nickname in self.held:
            await self.held[nickname].wait()
        if nickname in self.on:
            self.on[nickname]()
        answers = self.answers.get(nickname) or [self._usual(resource, nickname, params)]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        self.finished.append(nickname)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _usual(self, resource: str, nickname: str, params: dict):
        if nickname in ("externalMedia", "originate", "get") and resource == "channels":
            return channel(params["channelId"])
        if nickname == "createWithId":
            return bridge(params["bridgeId"])
        return [] if nickname == "list" else None

    def about(self, nickname: str) -> list[str]:
        """Which channels or bridges that operation was asked of, one after the other."""
        return [
            params.get("channelId") or params.get("bridgeId", "")
            for name, params in self.requests
            if name == nickname
        ]

    async def until(self, nickname: str, count: int = 1) -> None:
        async with asyncio.timeout(LONG):
            while self.asked.count(nickname) < count:
                self._news.clear()
                await self._news.wait()


@pytest.fixture
async def ari() -> Ari:
    return Ari()


@pytest.fixture
def ari_channel() -> Callable[..., dict]:
    return channel


@pytest.fixture
def ari_bridge() -> Callable[..., dict]:
    return bridge
