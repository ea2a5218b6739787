"""A call's toolbox with tools that do what a test says, answering on a session, a played or a real one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pydantic import SecretStr

from ari_gemini.errors import SessionDropped, SessionError, ToolError
from ari_gemini.gemini.session import GeminiSession, open_session
from ari_gemini.gemini.settings import GeminiSettings
from ari_gemini.realtime.events import FunctionCall, ToolCall, ToolCallCancelled
from ari_gemini.realtime.functions import FunctionDeclaration, FunctionResult, Scheduling
from ari_gemini.realtime.session import RealtimeSession, SessionSettings
from ari_gemini.simulator.gemini_connection import SimulatedSession
from ari_gemini.simulator.gemini_live import GeminiSimulator
from ari_gemini.simulator.scenario import Scenario, ScriptedCall, ScriptTurn
from ari_gemini.tools.base import CallControl, Tool, ToolContext
from ari_gemini.tools.destination import Destination
from ari_gemini.tools.settings import ToolLimits
from ari_gemini.tools.toolbox import Toolbox, ToolUse

LONG = 30.0
"""Seconds (of a clock that may hurry): only a hanging test gets there."""

NUMBERED = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}

Does = Callable[[Mapping[str, Any], ToolContext], Awaitable[Any]]


class FakeCall(CallControl):
    """Notes what its tools do to it; ``fails`` names what cannot be done, and with which words."""

    def __init__(self, **fails: str) -> None:
        self.done: list[Any] = []
        self._fails = fails

    @property
    def id(self) -> str:
        return "c1"

    @property
    def caller_number(self) -> str:
        return "0731"

    @property
    def called_number(self) -> str:
        return "100"

    async def farewell(self) -> None:
        self._do("farewell")

    def hang_up(self) -> None:
        self._do("hang_up")

    async def send_digits(self, digits: str) -> None:
        self._do("send_digits", digits)

    async def transfer(self, destination: Destination) -> None:
        self._do("transfer", destination)

    async def consult(self, destination: Destination) -> None:
        self._do("consult", destination)

    def _do(self, what: str, *args: Any) -> None:
        if what in self._fails:
            raise ToolError(self._fails[what])
        self.done.append((what, *args) if args else what)


class Handy(Tool):
    """Does what the test says."""

    goes_to = "nowhere"

    def __init__(
        self,
        does: Does,
        name: str = "handy",
        *,
        parameters: Mapping[str, Any] | None = None,
        blocking: bool | None = None,
        time_limit: float | None = None,
        undoable: bool = True,
        scheduling: Scheduling | None = None,
    ) -> None:
        self.declaration = FunctionDeclaration(name, "Does what is needed.", parameters, blocking)
        self._does = does
        self.time_limit = time_limit
        self.undoable = undoable
        self.scheduling = scheduling

    async def run(self, args: Mapping[str, Any], context: ToolContext) -> Any:
        return await self._does(args, context)


class Patient:
    """What a tool does that works until it is let go."""

    def __init__(self, value: Any = "done") -> None:
        self.begun = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()
        self._value = value

    async def __call__(self, args: Mapping[str, Any], context: ToolContext) -> Any:
        self.begun.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return self._value


class Stubborn(Patient):
    """Ends as if it had not been cancelled."""

    async def __call__(self, args: Mapping[str, Any], context: ToolContext) -> Any:
        try:
            return await super().__call__(args, context)
        except asyncio.CancelledError:
            return "done all the same"


class Inbox:
    """Takes answers as a session does. While ``gate`` is not set they are on their way; ``lose`` loses those.

    ``on_send`` hears of the ids whenever some are sent. ``arrived``: of the messages only so many did.
    """

    def __init__(self, on_send: Callable[[set[str]], None] = lambda _: None) -> None:
        self._on_send = on_send
        self.begun: list[list[FunctionResult]] = []
        self.messages: list[list[FunctionResult]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.lost = False
        self.sent = 0
        self.confirmed = 0
        self.arrived: int | None = None
        self.sending = asyncio.Event()
        self.ended = asyncio.Event()

    async def send_tool_results(self, results: Sequence[FunctionResult]) -> None:
        message = list(results)
        assert message, "an empty message"
        self._on_send({result.id for result in message})
        self.begun.append(message)
        self.sending.set()
        await self.gate.wait()
        self.ended.set()
        if self.lost:
            raise SessionDropped("gone")
        self.sent += 1
        self.messages.append(message)

    def lose(self) -> None:
        self.lost = True
        self.gate.set()

    @property
    def results(self) -> list[FunctionResult]:
        return [result for message in self.messages[: self.arrived] for result in message]

    @property
    def answers(self) -> dict[str, Mapping[str, Any]]:
        """By id; each at most once."""
        ids = [result.id for result in self.results]
        assert len(set(ids)) == len(ids), f"answered twice: {ids}"
        return {result.id: result.response for result in self.results}


class Rig:
    """A toolbox, and what it told those who watch."""

    def __init__(
        self,
        tools: Sequence[Tool],
        limits: ToolLimits,
        tasks: asyncio.TaskGroup,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_idle = on_idle
        self._use = asyncio.Event()
        self.control = FakeCall()
        self.uses: list[ToolUse] = []
        self.busy: list[bool] = []
        self.told: list[str] = []
        self.kept: list[str] = []
        """What is remembered of what was told."""
        self.notes: list[Callable[[bool], str]] = []
        self._idle = asyncio.Event()
        self.toolbox = Toolbox(
            tools,
            self.control,
            limits,
            tasks=tasks,
            on_use=self._on_use,
            on_busy=self._on_busy,
            tell=self._tell,
            note=self.notes.append,
        )

    def _tell(self, text: str, keep: str) -> None:
        self.told.append(text)
        self.kept.append(keep)

    def accounts(self, *, discreet: bool = False) -> list[str]:
        """What a session that begins now is told of the calls, where it is."""
        return [words for note in self.notes if (words := note(discreet))]

    def _on_use(self, use: ToolUse) -> None:
        self.uses.append(use)
        self._use.set()

    def _on_busy(self, busy: bool) -> None:
        assert busy is self.toolbox.busy
        assert [*self.busy[-1:], busy] != [busy, busy]
        self.busy.append(busy)
        if busy:
            self._idle.clear()
        else:
            self._idle.set()
            self._on_idle()

    def call(self, name: str = "handy", call_id: str = "1", **args: Any) -> None:
        self.toolbox.call([FunctionCall(call_id, name, args)])

    async def used(self, count: int = 1) -> None:
        """Wait until so many uses are over."""
        while len(self.uses) < count:
            self._use.clear()
            await self._use.wait()

    async def idle(self) -> None:
        """Wait until nothing works and no answer waits."""
        async with asyncio.timeout(LONG):
            await self._idle.wait()

    @property
    def outcomes(self) -> list[str]:
        return [use.outcome.value for use in self.uses]


@asynccontextmanager
async def rigged(
    *tools: Tool, answers: Inbox | None = None, limits: ToolLimits | None = None
) -> AsyncIterator[Rig]:
    """A toolbox whose tasks are over at the end."""
    before = asyncio.all_tasks()
    async with asyncio.timeout(LONG), asyncio.TaskGroup() as tasks:
        rig = Rig(tools, limits or ToolLimits(), tasks)
        if answers is not None:
            rig.toolbox.attach(answers)
        yield rig
    assert asyncio.all_tasks() <= before


async def answered(
    tool: Handy, limits: ToolLimits | None = None, **args: Any
) -> tuple[Rig, Mapping[str, Any]]:
    """One call, and its answer."""
    inbox = Inbox()
    async with rigged(tool, answers=inbox, limits=limits) as rig:
        rig.call(**args)
        await rig.idle()
    assert rig.busy == [True, False]
    return rig, inbox.answers["1"]


async def raises(error: BaseException) -> Any:
    raise error


class Talk(Rig):
    """A toolbox and its model: a session of GeminiSession with the simulator. Sessions follow one another."""

    def __init__(
        self, simulator: GeminiSimulator, model: str, tools: Sequence[Tool], tasks: asyncio.TaskGroup
    ) -> None:
        super().__init__(tools, ToolLimits(), tasks)
        key = SecretStr("a-key")
        self.simulator = simulator
        self._tasks = tasks
        self._gemini = GeminiSettings(base_url=simulator.url, api_key=key, model=model)
        self._settings = SessionSettings(
            tools=tuple(tool.declaration for tool in tools),
            thinking="low" if self._gemini.family.thinking_required else None,
        )
        self.sessions: list[GeminiSession] = []
        self.listening: asyncio.Task[SessionError] | None = None

    @property
    def session(self) -> GeminiSession:
        return self.sessions[-1]

    async def open(self) -> SimulatedSession:
        """The next session, which resumes the one before; nothing is answered on it before ``attach``."""
        resume = self.session.resume if self.sessions else None
        session = await open_session(self._gemini, self._settings, resume=resume)
        self.sessions.append(session)
        self.listening = self._tasks.create_task(self._listen(session))
        return await self.simulator.wait_session(len(self.sessions), timeout=LONG)

    async def start(self) -> SimulatedSession:
        """The first session, which has the answers at once."""
        wire = await self.open()
        self.toolbox.attach(self.session)
        await wire.wait_for("resumption_update", timeout=LONG)
        return wire

    async def lost(self) -> None:
        """Wait until the session has noticed its end; the answers are kept from then on."""
        assert self.listening is not None
        await self.listening
        self.toolbox.detach()

    async def _listen(self, session: RealtimeSession) -> SessionError:
        try:
            while True:
                for event in await session.receive():
                    if isinstance(event, ToolCall):
                        self.toolbox.call(event.calls)
                    elif isinstance(event, ToolCallCancelled):
                        self.toolbox.take_back(event.ids)
        except SessionError as error:
            return error


@asynccontextmanager
async def talking(simulator: GeminiSimulator, model: str, *tools: Tool) -> AsyncIterator[Talk]:
    """Sessions with ``simulator``, closed at the end."""
    async with asyncio.timeout(LONG), asyncio.TaskGroup() as tasks:
        talk = Talk(simulator, model, tools, tasks)
        yield talk
        if talk.listening is not None:
            talk.listening.cancel()
        for session in talk.sessions:
            await session.close()


async def echo(args: Mapping[str, Any], context: ToolContext) -> Any:
    return dict(args)


def calls(count: int, name: str = "handy") -> Scenario:
    """A model that makes so many calls in one message when it is spoken to; of several each has its ``n``."""
    wanted = tuple(ScriptedCall(name=name, args={"n": n} if count > 1 else {}) for n in range(count))
    turn = ScriptTurn(on="any", calls=wanted, say=("done",))
    return Scenario(
        setup_delay=0.1, think_time=0.1, tool_time=0.1, pace=(20.0, 20.0), resume_hold=0, turns=(turn,)
    )


class Released:
    """Tools of the calls 0 to ``count - 1``: none ends before all have begun and its own turn has come."""

    def __init__(self, count: int) -> None:
        self.order: list[int] = []
        self.turn = [asyncio.Event() for _ in range(count)]
        self.all_begun = asyncio.Event()

    async def __call__(self, args: Mapping[str, Any], context: ToolContext) -> Any:
        n = args["n"]
        self.order.append(n)
        if len(self.order) == len(self.turn):
            self.all_begun.set()
        await self.all_begun.wait()
        await self.turn[n].wait()
        return n


def responses(*wires: SimulatedSession) -> dict[str, Any]:
    """What the model got as answers: id and response. No answer went astray."""
    events = [event.detail for wire in wires for event in wire.record.of("tool_response")]
    assert [wire.record.count("stray_tool_response") for wire in wires] == [0] * len(wires)
    ids = [event["id"] for event in events]
    assert len(set(ids)) == len(ids)
    return {event["id"]: event["response"] for event in events}


async def asked(talk: Any, wire: SimulatedSession) -> list[str]:
    """Let the scenario's turn come; the ids of its calls, in order."""
    await talk.session.send_text("Go on.")
    return list((await wire.wait_for("tool_call", timeout=LONG)).detail["ids"])


class Schedule:
    """A toolbox under random events. What it promises is checked when it is due, not only at the end.

    Each call is of a tool of its own, so that a result in words tells which one it is.
    """

    MOST = 200
    """More calls than any schedule makes."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.tools: list[asyncio.Future[Any]] = []
        self.asked: list[str] = []
        self.taken: set[str] = set()
        self.unknown: set[str] = set()
        self.inboxes: list[Inbox] = []
        self.hung_up = False
        tools = [Handy(self._work, f"handy{number}") for number in range(self.MOST)]
        self.rig = Rig(tools, ToolLimits(max_open=4), tasks, on_idle=self._idle)

    async def _work(self, args: Mapping[str, Any], context: ToolContext) -> Any:
        future = asyncio.get_running_loop().create_future()
        self.tools.append(future)
        return await future

    def _idle(self) -> None:
        owed = self.owed() - self.unknown  # a new session does not wait for those
        assert self.hung_up or not owed, "it says that it is not busy, and owes answers"

    def _sends(self, ids: set[str]) -> None:
        assert ids <= self.owed(), "answered twice, after it was taken back, or without having been asked"

    def owed(self) -> set[str]:
        """Calls that must still be answered."""
        delivered = {result.id for inbox in self.inboxes for result in inbox.results}
        told = [re.findall(r"^\[(?:handy|none)([0-9]+), called before ", text) for text in self.rig.told]
        ids = [call_id for (call_id,) in told]
        assert len(set(ids)) == len(ids), "told twice"
        return set(self.asked) - self.taken - delivered - set(ids)

    def attach(self, gate: bool = True, resumed: bool = True) -> None:
        inbox = Inbox(self._sends)
        if not gate:
            inbox.gate.clear()
        self.inboxes.append(inbox)
        if not resumed:
            self.unknown.update(self.asked)
        self.rig.toolbox.attach(inbox, resumed=resumed)

    # What may happen; the number says to what, and how.

    def ask(self, number: int) -> None:
        """One to four calls; now and then for no tool, with a wrong argument, or once more what is open."""
        calls = []
        for _ in range(number % 4 + 1):
            call_id = str(len(self.asked))
            self.asked.append(call_id)
            args = {"n": 1} if number % 11 == 5 else {}
            calls.append(FunctionCall(call_id, ("none" if number % 7 == 3 else "handy") + call_id, args))
        if number % 5 == 0:
            calls += [calls[0], *(call for call in self.rig.toolbox.open[:1] if call.id not in self.unknown)]
        self.rig.toolbox.call(calls)

    def finish(self, number: int) -> None:
        """A tool ends: well, badly, or because something of its own was cancelled."""
        waiting = [future for future in self.tools if not future.done()]
        if waiting:
            future = waiting[number % len(waiting)]
            ends: list[Callable[[], object]] = [
                lambda: future.set_result(number),
                lambda: future.set_exception(ToolError("no")),
                lambda: future.set_exception(ValueError()),
                future.cancel,
            ]
            ends[number % 4]()

    def take_back(self, number: int) -> None:
        owed = sorted(self.owed(), key=int)
        ids = owed[number % 3 :: 3][: number % 4 + 1]
        self.taken.update(ids)
        self.rig.toolbox.take_back([*ids, "nobody's"])

    def change_session(self, number: int) -> None:
        if number % 3 == 0:
            self.rig.toolbox.detach()
        else:
            self.lose_session(number)
            self.attach(gate=number % 2 == 0, resumed=number % 5 > 1)

    def lose_session(self, number: int) -> None:
        """What was written to it has arrived up to some message; what is being written may fail or not."""
        inbox = self.inboxes[-1]
        if inbox.arrived is None:
            inbox.arrived = max(inbox.confirmed, number // 3 % (inbox.sent + 1))
            self.rig.toolbox.recover(inbox.arrived)

    def confirm(self, number: int) -> None:
        inbox = self.inboxes[-1]
        inbox.confirmed = max(inbox.confirmed, number % (inbox.sent + 1))

    def end_send(self, number: int) -> None:
        """What is on its way arrives, or is lost with its session."""
        for inbox in self.inboxes:
            if not inbox.gate.is_set():
                if number % 2:
                    inbox.lose()
                else:
                    inbox.gate.set()
                return

    async def play(self, events: list[tuple[str, int]]) -> None:
        for event, number in events:
            if event == "wait":
                for _ in range(number % 5 + 1):
                    await asyncio.sleep(0)
            else:
                getattr(self, event)(number)

    async def settle(self) -> None:
        """Let everything end, on a last session that works."""
        self.lose_session(0)
        self.attach()
        while self.rig.toolbox.busy or self.rig.toolbox.open:  # each round lets one more thing end
            self.finish(0)
            self.end_send(0)
            await asyncio.sleep(0)
