"""One call's tools: checks what the model calls, runs it beside everything else, answers it or takes it back.

::

    asked ──▶ refused (unknown, not allowed, wrong arguments, too many) ────▶ answered with an error
      └─────▶ running ──▶ done, failed, out of time ──▶ finished ──▶ answered, once a session takes the answer
                 └──────▶ taken back: cancelled, and never answered

The ledger of open calls belongs to the call and not to a session: what is running when a session drops goes
on, and is answered on the one that resumes it. So is what was answered on a connection without arriving. A
session that knows nothing of the calls is told their results in words, and those that had arrived before it
as a part of what was said.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import structlog
from structlog.typing import FilteringBoundLogger

from ari_gemini.errors import SessionError, ToolError
from ari_gemini.realtime.events import FunctionCall
from ari_gemini.realtime.functions import FunctionResult, Scheduling
from ari_gemini.realtime.unconfirmed import Unconfirmed
from ari_gemini.tools.base import CallControl, Tool, ToolContext
from ari_gemini.tools.result import bounded
from ari_gemini.tools.schema import ArgumentCheck
from ari_gemini.tools.settings import ToolLimits

UNKNOWN = "unknown"
_MAX_NAME = 128
"""Characters of a name that no tool has, in logs and answers; no tool's name is longer (Gemini API)."""

_MAX_TOLD = 500
"""Characters of the arguments, and of the result, that a session is told which never made the call: what was
agreed on, and not the whole list that it was chosen from."""
_PENDING = "; its result is not there yet and will be told"
_TAKEN_BACK = " and taken back before it was answered"

_MAX_UNCONFIRMED = 256
"""Answers of which it is noted whether they arrived: as many as may be asked for at once (``ToolLimits``)."""

log = structlog.get_logger(__name__)


STOP_SECONDS = 2.0
"""How long a tool that is cancelled may take to clean up before the call goes on without it."""
_STOPPING: set[asyncio.Future[Any]] = set()
"""Cancelled tools, so that one which lingers is not collected in the middle of its work."""


class _TookTooLongError(Exception):
    """The tool's time is over."""


def _stopped(work: asyncio.Future[Any]) -> None:
    _STOPPING.discard(work)
    if not work.cancelled():
        work.exception()  # nobody is left to take it


class Outcome(Enum):
    """What became of one use of a tool."""

    DONE = "done"
    ERROR = "error"
    """The tool itself said that it cannot."""
    REFUSED = "refused"
    """It was not run: unknown, not allowed, wrong arguments, or too many at once."""
    TIMEOUT = "timeout"
    DEFECT = "defect"
    """It raised what no tool may raise; the log holds the traceback."""
    CANCELLED = "cancelled"
    """The model took it back, or the call ended."""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One use of a tool, for whoever watches calls. Holds neither arguments nor results."""

    name: str
    """Of a tool of this call, or UNKNOWN: what a model makes up must not become a label of a metric."""
    outcome: Outcome
    seconds: float


class Answers(Protocol):
    """Who takes the answers: a model's session."""

    @property
    def sent(self) -> int: ...
    @property
    def confirmed(self) -> int: ...

    async def send_tool_results(self, results: Sequence[FunctionResult]) -> None: ...


@dataclass(slots=True, eq=False)
class _Account:
    """A call as a session is told of it that never made it. Bounded, for it is kept longer than the call."""

    called: str
    discreetly: str
    """``called`` without the values of arguments."""
    result: FunctionResult | None = None
    """What it was answered, if that is not told in other words."""
    fate: str = _PENDING
    """While there is no result, or that has not arrived."""


@dataclass(slots=True, eq=False)
class _Use:
    """An entry of the ledger."""

    call: FunctionCall
    tool: Tool
    began: float
    account: _Account
    task: asyncio.Task[None] | None = None
    begun: bool = False
    """The tool has been let loose."""
    unknown: bool = False
    """The present session never made this call: its result is told in words."""


class Toolbox:
    """The tools of one call. Used from its event loop only; its tasks live in the call's TaskGroup.

    ``on_use`` hears of each use that is over, ``on_busy`` whenever the first one begins and the last one ends
    (answered or taken back). ``tell`` gets results in words, and what is to be remembered of them;
    ``on_sent`` hears of results that went out. ``note`` gets, as each call is made, what a later session is
    told of it; with True, without the values of its arguments. None of them may raise. An answer that is on
    its way when its call is taken back crosses with that; when that way fails, it is not sent again.
    """

    def __init__(
        self,
        tools: Sequence[Tool],
        control: CallControl,
        limits: ToolLimits,
        *,
        tasks: asyncio.TaskGroup,
        on_use: Callable[[ToolUse], None] | None = None,
        on_busy: Callable[[bool], None] | None = None,
        tell: Callable[[str, str], None] | None = None,
        note: Callable[[Callable[[bool], str]], None] | None = None,
        on_sent: Callable[[Sequence[FunctionResult]], None] | None = None,
    ) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._checks: dict[str, ArgumentCheck] = {}
        self._control = control
        self._limits = limits
        self._tasks = tasks
        self._on_use = on_use or (lambda _: None)
        self._on_busy = on_busy or (lambda _: None)
        self._tell = tell or (lambda _, __: None)
        self._note = note or (lambda _: None)
        self._on_sent = on_sent or (lambda _: None)
        self._clock = asyncio.get_running_loop().time
        self._open: list[_Use] = []
        self._finished: list[FunctionResult] = []
        self._leaving: list[FunctionResult] = []
        self._accounts: list[_Account] = []  # of the results that may not have arrived
        self._unconfirmed: Unconfirmed[FunctionResult] = Unconfirmed(_MAX_UNCONFIRMED)
        self._answers: Answers | None = None
        self._sending = False
        self._recovered = 0
        self._busy = False

    @property
    def open(self) -> tuple[FunctionCall, ...]:
        """The calls that the model still waits for, the oldest first."""
        return tuple(use.call for use in self._open)

    @property
    def busy(self) -> bool:
        """A tool works that the present session waits for, or its answer has not gone out."""
        return self._busy

    def attach(self, answers: Answers, *, resumed: bool = True) -> None:
        """Answer on this session from now on, beginning with what has waited.

        ``resumed``: it knows the calls that were made on the one before. Otherwise it is told in words.
        """
        if not resumed:
            for use in self._open:
                use.unknown = True
            known, self._leaving, self._finished = self._leaving + self._finished, [], []
            for result in known:
                self._put_into_words(result)
            self._note_busy()
        self._answers = answers
        self._send_soon()

    def detach(self) -> None:
        """Keep the answers for a session to come. One that is being sent still goes out if it can."""
        self._answers = None

    def recover(self, confirmed: int) -> None:
        """A session is over of which the first ``confirmed`` messages arrived: answers that did not, wait for
        the next one."""
        self._answers = None
        self._recovered += 1
        self._unconfirmed.settle(confirmed)
        self._finished = self._unconfirmed.take() + self._finished
        self._note_busy()

    @property
    def unconfirmed(self) -> tuple[FunctionResult, ...]:
        """Results that may not have reached the model."""
        if self._answers is not None:
            self._unconfirmed.settle(self._answers.confirmed)
        return (*self._unconfirmed, *self._leaving, *self._finished)

    def inherit(self, results: Sequence[FunctionResult]) -> None:
        """Answer calls that the model made of somebody else, before a session is attached."""
        for result in results:
            # whoever made the call has told of it
            called = f"Tool {result.name[:_MAX_NAME]} was called"
            self._owe(result, self._account(called, called, fate=""))
        self._note_busy()

    def call(self, calls: Sequence[FunctionCall]) -> None:
        """The model wants these made, side by side. Returns at once."""
        for call in calls:
            self._begin(call)

    def take_back(self, ids: Sequence[str]) -> None:
        """The model no longer wants these: they are cancelled and never answered."""
        for account in self._accounts:
            if account.result is not None and account.result.id in ids and self._is_owed(account.result):
                account.result, account.fate = None, _TAKEN_BACK
        self._finished = [result for result in self._finished if result.id not in ids]
        self._leaving = [result for result in self._leaving if result.id not in ids]
        self._unconfirmed.discard(lambda result: result.id in ids)
        for use in [use for use in self._open if use.call.id in ids]:
            use.account.fate = _TAKEN_BACK
            self._over(use, Outcome.CANCELLED)
            if use.task is not None:
                use.task.cancel()
        self._note_busy()

    # One use.

    def _begin(self, call: FunctionCall) -> None:
        if call.id and self._is_open(call.id):
            log.warning("tool.asked_twice", tool=call.name[:_MAX_NAME], id=call.id)
            return
        account = self._called(call)
        try:
            tool = self._admit(call)
        except ToolError as error:
            self._refuse(call, str(error), account)
            return
        use = _Use(call, tool, self._clock(), account)
        self._open.append(use)
        self._note_busy()
        # names of arguments only: what the caller said stands in their values
        self._log(use).info("tool.called", args=sorted(call.args))
        use.task = self._tasks.create_task(self._work(use), name=f"{self._control.id} tool {call.name}")
        # also when it is cancelled before its first step, in which nothing of it runs
        use.task.add_done_callback(lambda _: self._over(use, Outcome.CANCELLED))

    def _is_open(self, call_id: str) -> bool:
        """The model waits for the answer to this call already."""
        answers = (*self._finished, *self._leaving)
        known = (use.call.id for use in self._open if not use.unknown)
        return call_id in known or call_id in {result.id for result in answers}

    def _admit(self, call: FunctionCall) -> Tool:
        """The tool for this call. Raises ToolError when it may not be run."""
        tool = self._tools.get(call.name)
        if tool is None:
            name = call.name[:_MAX_NAME]
            raise ToolError(f"there is no tool {name!r} for you; there are: {self._names()}")
        if len(self._open) >= self._limits.max_open:
            raise ToolError(f"{self._limits.max_open} tools are at work already: wait for their results")
        try:
            self._check(tool)(call.args)
        except ToolError:
            raise
        except Exception as error:  # no arguments (infinity against multipleOf, say) may end the call
            log.exception("tool.not_checked", tool=tool.name, id=call.id)
            raise ToolError("the arguments cannot be checked") from error
        return tool

    def _refuse(self, call: FunctionCall, why: str, account: _Account) -> None:
        known = call.name in self._tools
        log.warning("tool.refused", tool=call.name[:_MAX_NAME], id=call.id, known=known)
        self._on_use(ToolUse(call.name if known else UNKNOWN, Outcome.REFUSED, 0.0))
        self._answer(FunctionResult(call.id, call.name, {"error": why}), account)

    async def _work(self, use: _Use) -> None:
        outcome, result = await self._run(use)
        # A tool may end as if nothing had happened although it was cancelled: then nobody wants its result.
        if use in self._open and not _cancelled():
            # first, since the toolbox is busy until that has gone out
            if use.unknown:
                self._put_into_words(result)
            else:
                self._answer(result, use.account)
            self._over(use, outcome)

    async def _run(self, use: _Use) -> tuple[Outcome, FunctionResult]:
        """The tool's outcome and the answer it makes. Raises nothing, except when it is cancelled."""
        tool, call = use.tool, use.call
        use.begun = True
        limit = self._limits.time_limit if tool.time_limit is None else tool.time_limit
        try:
            value = await self._within(limit, use)
            return Outcome.DONE, self._result(call, {"result": value}, tool.scheduling)
        except ToolError as error:
            return Outcome.ERROR, self._result(call, {"error": str(error)})
        except (Exception, asyncio.CancelledError) as error:  # anybody's code: it must not end the call
            if isinstance(error, asyncio.CancelledError) and _cancelled():
                raise
            if isinstance(error, _TookTooLongError):
                why = f"{call.name} took longer than {limit:g} s and was stopped"
                return Outcome.TIMEOUT, self._result(call, {"error": why})
            self._log(use).error("tool.defect", exc_info=error)
            return Outcome.DEFECT, self._result(call, {"error": f"{call.name} failed"})

    async def _within(self, limit: float, use: _Use) -> Any:
        """What the tool gives back. Raises what it raises, _TookTooLongError after ``limit`` seconds.

        It runs in a task of its own: one that will not be cancelled is left behind after STOP_SECONDS, for
        the call must be able to end.
        """
        work = asyncio.ensure_future(use.tool.run(use.call.args, ToolContext(self._control, self._log(use))))
        try:
            await asyncio.wait((work,), timeout=limit)
            if not work.done():
                raise _TookTooLongError
        finally:
            if not work.done():
                work.cancel()
                _STOPPING.add(work)
                work.add_done_callback(_stopped)
                await asyncio.wait((work,), timeout=STOP_SECONDS)
                if not work.done():
                    self._log(use).error("tool.does_not_stop")
        return work.result()

    def _over(self, use: _Use, outcome: Outcome) -> None:
        """Strike it off the ledger, once."""
        if use not in self._open:
            return
        self._open.remove(use)
        seconds = self._clock() - use.began
        self._log(use).info("tool.over", outcome=outcome.value, ms=round(seconds * 1000))
        if outcome is Outcome.CANCELLED and use.begun and not use.tool.undoable:
            self._log(use).warning("tool.cannot_be_undone")
        self._on_use(ToolUse(use.call.name, outcome, seconds))
        self._note_busy()

    def _check(self, tool: Tool) -> ArgumentCheck:
        check = self._checks.get(tool.name)
        if check is None:
            check = self._checks[tool.name] = ArgumentCheck(tool.declaration.parameters)
        return check

    def _names(self) -> str:
        return ", ".join(self._tools) or "none"

    def _log(self, use: _Use) -> FilteringBoundLogger:
        bound: FilteringBoundLogger = log.bind(tool=use.call.name, id=use.call.id)
        return bound

    # The answers.

    def _result(
        self, call: FunctionCall, response: Mapping[str, Any], scheduling: Scheduling | None = None
    ) -> FunctionResult:
        return FunctionResult(call.id, call.name, bounded(response, self._limits.result_limit), scheduling)

    def _put_into_words(self, result: FunctionResult) -> None:
        for account in self._accounts:
            if account.result is result:
                account.result = None
        words = json.dumps(dict(result.response), ensure_ascii=False, default=str)
        begin = f"[{result.name}, called before the connection was interrupted, has ended: "
        self._tell(f"{begin}{words}]", f"{begin}{_shortened(words)}]")

    def _answer(self, result: FunctionResult, account: _Account) -> None:
        self._owe(result, account)
        self._note_busy()
        self._send_soon()

    def _owe(self, result: FunctionResult, account: _Account) -> None:
        account.result = result
        owed = (one for one in self._accounts if one.result is not None and self._is_owed(one.result))
        self._accounts = [*owed, account]
        self._finished.append(result)

    def _is_owed(self, result: FunctionResult) -> bool:
        """It may not have reached the model."""
        return any(one is result for one in self.unconfirmed)

    # What a later session is told of it.

    def _called(self, call: FunctionCall) -> _Account:
        called, names = f"Tool {call.name[:_MAX_NAME]} was called with", ", ".join(sorted(call.args))
        hidden = f"values for {_shortened(names)} that are not shown" if names else "{}"
        return self._account(f"{called} {_shortened(_json(call.args))}", f"{called} {hidden}")

    def _account(self, called: str, discreetly: str, fate: str = _PENDING) -> _Account:
        account = _Account(called, discreetly, fate=fate)
        self._note(lambda discreet: self._words(account, discreet=discreet))
        return account

    def _words(self, account: _Account, *, discreet: bool) -> str:
        """Nothing of what the session is told anyway."""
        fate = account.fate
        if account.result is not None and not self._is_owed(account.result):
            fate = f" and gave {_shortened(_json(account.result.response))}"
        return f"[{account.discreetly if discreet else account.called}{fate}]" if fate else ""

    def _send_soon(self) -> None:
        if self._finished and self._answers is not None and not self._sending:
            self._sending = True
            self._tasks.create_task(self._send(), name=f"{self._control.id} tool results")

    async def _send(self) -> None:
        """Send what is finished, all of it in one message, until nothing is left or the session is gone."""
        try:
            while self._finished and (answers := self._answers) is not None:
                self._leaving, self._finished = self._finished, []
                recovered = self._recovered
                try:
                    await answers.send_tool_results(self._leaving)
                except SessionError:
                    # whoever listens to the session learns of its end; the answers wait for the next one
                    self._finished = self._leaving + self._finished
                    if self._answers is answers:
                        self._answers = None
                else:
                    if recovered == self._recovered:
                        self._note_sent(answers)
                    else:  # on a session that was given up meanwhile: nobody will say whether they arrived
                        self._finished = self._leaving + self._finished
                self._leaving = []
        finally:
            self._sending = False
            self._note_busy()

    def _note_sent(self, answers: Answers) -> None:
        self._unconfirmed.settle(answers.confirmed)
        for result in self._leaving:
            self._unconfirmed.sent(answers.sent, result)
        self._on_sent(self._leaving)

    def _note_busy(self) -> None:
        awaited = any(not use.unknown for use in self._open)
        busy = awaited or bool(self._finished or self._sending)
        if busy != self._busy:
            self._busy = busy
            self._on_busy(busy)


def _json(value: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(value), ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):  # what a model writes may be nested as deep as it likes
        return "what cannot be shown"


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_TOLD else f"{text[:_MAX_TOLD]}… (cut)"


def _cancelled() -> bool:
    """Somebody else wants the current task to end, and not just a timeout in it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
