"""A call's tools: run side by side, answered once or taken back, whatever the session does meanwhile."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ari_gemini.errors import CallEnded, Cause, SessionError, ToolError
from ari_gemini.realtime.events import FunctionCall
from ari_gemini.simulator.gemini_live import GeminiSimulator
from ari_gemini.simulator.scenario import Scenario, ScriptedCall, ScriptTurn
from ari_gemini.tools.base import ToolContext
from ari_gemini.tools.settings import ToolLimits
from ari_gemini.tools.toolbox import Outcome

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from support.hurry import hurried
from toolbox_support import (
    LONG,
    NUMBERED,
    Handy,
    Inbox,
    Patient,
    Released,
    Schedule,
    Stubborn,
    answered,
    asked,
    calls,
    echo,
    raises,
    responses,
    rigged,
    talking,
)

LIVE = "gemini-3.8-live"
THINKING = "gemini-3.8-live-extended-thinking"
OLDER = "gemini-3.1-flash-live-preview"
NATIVE = "gemini-2.5-flash-native-audio-latest"

MODELS = [(LIVE, None), (LIVE, True), (THINKING, None), (OLDER, None), (NATIVE, None), (NATIVE, True)]
"""Model, and whether it is told to wait for results; None is what it does by itself."""

every_model = pytest.mark.parametrize(("model", "blocking"), MODELS)

Logs = list[Any]


@pytest.fixture
def logs() -> Iterator[Logs]:
    with capture_logs() as lines:
        yield lines


def lines(logs: Logs, event: str) -> Logs:
    return [line for line in logs if line["event"] == event]


# --- with every model, in real sessions


@every_model
async def test_ten_calls_at_once_run_side_by_side(model: str, blocking: bool | None) -> None:
    work = Released(10)
    tool = Handy(work, parameters=NUMBERED, blocking=blocking)
    with hurried():
        async with GeminiSimulator(calls(10)) as simulator, talking(simulator, model, tool) as talk:
            wire = await talk.start()
            ids = await asked(talk, wire)
            await work.all_begun.wait()
            order = random.Random(1).sample(range(10), 10)
            for done, n in enumerate(order[:7], 1):
                work.turn[n].set()
                await wire.wait_for("tool_response", count=done, timeout=LONG)
            for n in order[7:]:
                work.turn[n].set()
            await talk.idle()
            await wire.wait_for("generation_complete", timeout=LONG)
    assert work.order == list(range(10))
    assert responses(wire) == {call_id: {"result": n} for n, call_id in enumerate(ids)}
    assert list(responses(wire))[:7] == [ids[n] for n in order[:7]]
    assert len(wire.messages) == 1 + 7 + 1, "the last three share a message"
    assert [said.name for said in wire.said] == ["done"]
    assert talk.outcomes == ["done"] * 10
    assert talk.busy == [True, False]


@every_model
async def test_a_call_taken_back_is_cancelled_and_not_answered(
    model: str, blocking: bool | None, logs: Logs
) -> None:
    work, other = Patient(), Handy(echo, "other", blocking=blocking)
    tool = Handy(work, blocking=blocking, undoable=False)
    with hurried():
        async with (
            GeminiSimulator("silent_model") as simulator,
            talking(simulator, model, tool, other) as talk,
        ):
            wire = await talk.start()
            wire.call_tool("handy")
            await work.begun.wait()
            wire.cancel_tools()
            await work.cancelled.wait()
            assert talk.toolbox.open == ()
            wire.call_tool("other")  # whatever went out before arrives before its answer
            await wire.wait_for("tool_response", timeout=LONG)
            await talk.idle()
    (answered,) = responses(wire)
    assert answered == wire.record.of("tool_call")[1].detail["ids"][0]
    assert talk.outcomes == ["cancelled", "done"]
    assert talk.busy == [True, False] * 2
    (warning,) = lines(logs, "tool.cannot_be_undone")
    assert (warning["tool"], [warning["id"]]) == ("handy", wire.record.of("tool_call")[0].detail["ids"])


@pytest.mark.parametrize(("model", "blocking"), MODELS[:-1])  # the last takes no audio during a call
async def test_a_slow_tool_holds_up_nothing(model: str, blocking: bool | None) -> None:
    slow = Patient()
    tools = Handy(slow, "slow", blocking=blocking), Handy(echo, blocking=blocking)
    turn = ScriptTurn(on="any", calls=(ScriptedCall(name="slow"), ScriptedCall(name="handy")))
    with hurried():
        scenario = Scenario(turns=(turn,))
        async with GeminiSimulator(scenario) as simulator, talking(simulator, model, *tools) as talk:
            wire = await talk.start()
            ids = await asked(talk, wire)
            await wire.wait_for("tool_response", timeout=LONG)
            for _ in range(50):
                await talk.session.send_audio(bytes(640))
            talk.toolbox.attach(talk.session)
            assert not slow.release.is_set()
            assert [call.name for call in talk.toolbox.open] == ["slow"]
            slow.release.set()
            await wire.wait_for("tool_response", count=2, timeout=LONG)
            assert wire.heard.total_bytes == 50 * 640
    assert list(responses(wire)) == ids[::-1]


@every_model
@pytest.mark.parametrize("ready", ["while there is no session", "later"])
async def test_a_call_outlives_its_session(model: str, blocking: bool | None, ready: str) -> None:
    work = Patient("here it is")
    tool = Handy(work, blocking=blocking)
    with hurried():
        async with GeminiSimulator(calls(1)) as simulator, talking(simulator, model, tool) as talk:
            first = await talk.start()
            ids = await asked(talk, first)
            await work.begun.wait()
            first.cut()
            await talk.lost()
            if ready != "later":
                work.release.set()
                await asyncio.sleep(10)  # of the loop's own time: long enough for anything
                assert (talk.outcomes, talk.busy) == (["done"], [True])
            second = await talk.open()
            talk.toolbox.attach(talk.session)
            work.release.set()
            await talk.idle()
            await second.wait_for("generation_complete", timeout=LONG)
    assert second.record.count("resumed") == 1
    assert first.record.count("tool_response") == 0
    assert responses(first, second) == {ids[0]: {"result": "here it is"}}
    assert [said.name for said in second.said] == ["done"]
    assert talk.outcomes == ["done"]
    assert talk.busy == [True, False]


async def test_an_answer_whose_session_ends_in_mid_send_goes_to_the_next() -> None:
    """The service has stopped reading: the answer waits behind audio that the socket does not take."""
    work = Patient()
    with hurried():
        async with GeminiSimulator(calls(1)) as simulator, talking(simulator, LIVE, Handy(work)) as talk:
            first = await talk.start()
            ids = await asked(talk, first)
            await work.begun.wait()
            first._link.transport.pause_reading()
            # in base64 more than the kernel's buffers of both ends take together (tcp_wmem and tcp_rmem)
            sending = asyncio.create_task(talk.session.send_audio(bytes(24 << 20)))
            work.release.set()
            await talk.used()
            await asyncio.sleep(1.0)
            assert not sending.done()
            assert (talk.outcomes, talk.busy) == (["done"], [True])
            first.cut()
            with pytest.raises(SessionError):
                await sending
            await talk.lost()
            second = await talk.open()
            assert talk.busy == [True]
            talk.toolbox.attach(talk.session)
            await talk.idle()
            await second.wait_for("tool_response", timeout=LONG)
    assert first.record.count("tool_response") == 0
    assert responses(first, second) == {ids[0]: {"result": "done"}}
    assert talk.busy == [True, False]


async def test_an_interruption_takes_back_what_blocks() -> None:
    work = Patient()
    with hurried():
        tool = Handy(work, blocking=True)
        async with GeminiSimulator(calls(1)) as simulator, talking(simulator, LIVE, tool) as talk:
            wire = await talk.start()
            await asked(talk, wire)
            await work.begun.wait()
            wire.interrupt()
            await work.cancelled.wait()
            await talk.idle()
    assert responses(wire) == {}
    assert talk.outcomes == ["cancelled"]


# --- taken back at the worst moment


async def test_taken_back_before_it_began(logs: Logs) -> None:
    inbox, work = Inbox(), Patient()
    async with rigged(Handy(work), answers=inbox) as rig:
        rig.call()
        rig.toolbox.take_back(["1"])
        assert rig.toolbox.open == ()
    assert not work.begun.is_set()
    assert inbox.begun == []
    assert rig.outcomes == ["cancelled"]
    assert rig.busy == [True, False]


async def test_taken_back_at_any_step_of_its_end() -> None:
    """Whatever has happened when it is taken back: an answer that is not on its way by then never is."""
    answered = []
    for steps in range(8):
        inbox, work = Inbox(), Patient()
        async with rigged(Handy(work), answers=inbox) as rig:
            rig.call()
            await work.begun.wait()
            work.release.set()
            for _ in range(steps):
                await asyncio.sleep(0)
            before = list(inbox.begun)
            rig.toolbox.take_back(["1"])
        assert inbox.begun == before
        assert len(rig.uses) == 1
        assert rig.busy == [True, False]
        answered.append(bool(before))
    assert answered == sorted(answered)
    assert set(answered) == {False, True}


async def test_taken_back_and_not_to_be_cancelled() -> None:
    inbox, work = Inbox(), Stubborn()
    async with rigged(Handy(work), answers=inbox) as rig:
        rig.call()
        await work.begun.wait()
        rig.toolbox.take_back(["1"])
    assert work.cancelled.is_set()
    assert inbox.begun == []
    assert rig.outcomes == ["cancelled"]


@pytest.mark.parametrize("error", [ValueError("in cleaning up"), ToolError("in cleaning up")])
async def test_taken_back_and_failing_because_of_it(error: Exception) -> None:
    async def fails(args: Mapping[str, Any], context: ToolContext) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            raise error

    inbox = Inbox()
    async with rigged(Handy(fails), answers=inbox) as rig:
        rig.call()
        await asyncio.sleep(0)
        rig.toolbox.take_back(["1"])
    assert inbox.begun == []
    assert rig.outcomes == ["cancelled"]


async def test_taken_back_while_the_answer_waits_for_a_session() -> None:
    inbox, work = Inbox(), Patient()
    async with rigged(Handy(work), Handy(echo, "other")) as rig:
        rig.call()
        rig.call("other", "2")
        await work.begun.wait()
        work.release.set()
        await rig.used(2)
        assert rig.busy == [True]
        rig.toolbox.take_back(["1"])
        rig.toolbox.attach(inbox)
        await rig.idle()
    assert inbox.answers == {"2": {"result": {}}}
    assert rig.busy == [True, False]


async def test_taking_back_the_only_answer_leaves_nothing_to_do() -> None:
    async with rigged(Handy(echo)) as rig:
        rig.call()
        await rig.used()
        assert rig.toolbox.busy
        rig.toolbox.take_back(["1"])
        assert not rig.toolbox.busy
    assert rig.busy == [True, False]


async def test_taken_back_while_its_answer_is_being_lost() -> None:
    """The way on which it was fails afterwards; what was beside it is sent again, it is not."""
    old, new = Inbox(), Inbox()
    old.gate.clear()
    async with rigged(Handy(echo), answers=old) as rig:
        rig.toolbox.call([FunctionCall("1", "handy"), FunctionCall("2", "handy")])
        await old.sending.wait()
        assert [result.id for result in old.begun[0]] == ["1", "2"]
        rig.toolbox.take_back(["1"])
        old.lose()
        rig.toolbox.attach(new)
        await rig.idle()
    assert list(new.answers) == ["2"]
    assert rig.busy == [True, False]


async def test_what_nobody_asked_for_may_be_taken_back() -> None:
    inbox, work = Inbox(), Patient()
    async with rigged(Handy(work), answers=inbox) as rig:
        rig.toolbox.take_back(["9"])
        rig.call()
        rig.toolbox.take_back(["9", "8"])
        work.release.set()
        await rig.idle()
    assert list(inbox.answers) == ["1"]


# --- sessions come and go


async def test_a_result_that_comes_in_during_a_send_follows_it() -> None:
    inbox, work = Inbox(), Patient()
    inbox.gate.clear()
    async with rigged(Handy(work), Handy(echo, "other"), answers=inbox) as rig:
        rig.call("other", "1")
        rig.call("handy", "2")
        await inbox.sending.wait()
        work.release.set()
        await rig.used(2)
        assert len(inbox.begun) == 1, "one sender at a time"
        inbox.gate.set()
        await rig.idle()
    assert [[result.id for result in message] for message in inbox.messages] == [["1"], ["2"]]
    assert rig.busy == [True, False]


async def test_without_a_session_an_answer_waits_and_what_is_on_its_way_goes_on() -> None:
    old, new = Inbox(), Inbox()
    old.gate.clear()
    async with rigged(Handy(echo), answers=old) as rig:
        rig.call(call_id="1")
        await old.sending.wait()
        rig.toolbox.detach()
        rig.call(call_id="2")
        old.gate.set()
        await old.ended.wait()
        await rig.used(2)
        assert rig.busy == [True]
        rig.toolbox.attach(new)
        await rig.idle()
    assert (list(old.answers), list(new.answers)) == (["1"], ["2"])


@pytest.mark.parametrize("attached_first", [True, False])
async def test_a_failed_send_is_repeated_on_the_next_session(attached_first: bool) -> None:
    old, new = Inbox(), Inbox()
    old.gate.clear()
    async with rigged(Handy(echo), answers=old) as rig:
        rig.call(call_id="1")
        await old.sending.wait()
        rig.call(call_id="1")  # its answer is on its way
        rig.call(call_id="2")
        await rig.used(2)
        rig.toolbox.take_back(["9"])
        if attached_first:
            rig.toolbox.attach(new)
        old.lose()
        await old.ended.wait()
        if not attached_first:
            rig.call(call_id="1")  # its answer waits
            rig.toolbox.attach(new)
        await rig.idle()
    assert len(old.begun) == 1, "nothing more goes to a session that failed"
    assert list(new.answers) == ["1", "2"]
    assert len(new.messages) == 1
    assert rig.busy == [True, False]


async def test_busy_until_the_answer_has_gone_out() -> None:
    inbox = Inbox()
    inbox.gate.clear()
    async with rigged(Handy(echo), answers=inbox) as rig:
        rig.call()
        await inbox.sending.wait()
        rig.toolbox.take_back(["9"])
        assert rig.toolbox.open == ()
        assert rig.busy == [True]
        inbox.gate.set()
        await rig.idle()
    assert rig.busy == [True, False]


# --- what goes wrong in a tool


@pytest.mark.parametrize(("own", "said"), [(None, "20 s"), (1.5, "1.5 s")])
async def test_a_tool_that_takes_too_long_is_stopped(own: float | None, said: str, logs: Logs) -> None:
    work = Patient()
    with hurried():
        began = asyncio.get_running_loop().time()
        rig, response = await answered(Handy(work, time_limit=own))
        took = asyncio.get_running_loop().time() - began
    assert work.cancelled.is_set()
    assert response == {"error": f"handy took longer than {said} and was stopped"}
    assert rig.outcomes == ["timeout"]
    assert rig.uses[0].seconds == pytest.approx(took, abs=0.5)
    assert [line["outcome"] for line in lines(logs, "tool.over")] == ["timeout"]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("secret"),
        TimeoutError("secret"),
        asyncio.CancelledError("secret"),
        ExceptionGroup("x", [OSError()]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_defect_ends_no_call_and_tells_the_model_nothing(error: BaseException, logs: Logs) -> None:
    """Even a CancelledError, when nobody has cancelled the tool: something of its own was cancelled."""
    rig, response = await answered(Handy(lambda args, context: raises(error)))
    assert response == {"error": "handy failed"}
    assert rig.outcomes == ["defect"]
    (line,) = lines(logs, "tool.defect")
    assert line["exc_info"] is error


async def test_a_tool_error_is_for_the_model(logs: Logs) -> None:
    rig, response = await answered(Handy(lambda args, context: raises(ToolError("try 7 instead"))))
    assert response == {"error": "try 7 instead"}
    assert rig.outcomes == ["error"]
    assert lines(logs, "tool.defect") == []


async def test_the_log_holds_no_argument_and_no_result(logs: Logs) -> None:
    tool = Handy(echo, parameters={"type": "object", "properties": {"pin": {"type": "string"}}})
    await answered(tool, pin="0000-secret")
    assert lines(logs, "tool.called")[0]["args"] == ["pin"]
    assert "0000-secret" not in str(logs)


@pytest.mark.parametrize(
    ("name", "args", "why"),
    [
        ("other", {}, "there is no tool 'other' for you; there are: handy"),
        ("o" * 10_000, {}, f"there is no tool '{'o' * 128}' for you; there are: handy"),
        ("handy", {}, "wrong arguments: n is missing"),
        ("handy", {"n": "7"}, "wrong arguments: n must be of type integer"),
        ("handy", {"n": 7, "m": 1}, "wrong arguments: m is unknown (there are: n)"),
    ],
    ids=["no such tool", "a long name", "missing", "wrong type", "extra"],
)
async def test_what_cannot_be_run_is_refused(name: str, args: dict[str, Any], why: str, logs: Logs) -> None:
    inbox, work = Inbox(), Patient()
    async with rigged(Handy(work, parameters=NUMBERED), answers=inbox) as rig:
        rig.toolbox.call([FunctionCall("1", name, args)])
        await rig.idle()
    assert inbox.answers == {"1": {"error": why}}
    assert inbox.results[0].name == name
    assert not work.begun.is_set()
    assert [(use.name, use.outcome) for use in rig.uses] == [
        ("handy" if name == "handy" else "unknown", Outcome.REFUSED)
    ]
    assert len(str(lines(logs, "tool.refused"))) < 400
    assert rig.busy == [True, False]


async def test_without_tools_every_call_is_refused() -> None:
    inbox = Inbox()
    async with rigged(answers=inbox) as rig:
        rig.call()
        await rig.idle()
    assert inbox.answers == {"1": {"error": "there is no tool 'handy' for you; there are: none"}}


async def test_arguments_that_break_the_check_are_refused(logs: Logs) -> None:
    parameters = {"type": "object", "properties": {"x": {"type": "number", "multipleOf": 0.5}}}
    rig, response = await answered(Handy(echo, parameters=parameters), x=float("inf"))
    assert response == {"error": "the arguments cannot be checked"}
    assert rig.outcomes == ["refused"]
    assert len(lines(logs, "tool.not_checked")) == 1


async def test_a_tool_without_parameters_takes_none() -> None:
    assert (await answered(Handy(echo)))[1] == {"result": {}}
    assert (await answered(Handy(echo), x=1))[1] == {
        "error": "wrong arguments: x is unknown (there are: none)"
    }


async def test_more_than_may_be_open_are_refused() -> None:
    inbox, work = Inbox(), Patient()
    async with rigged(Handy(work), answers=inbox, limits=ToolLimits(max_open=2)) as rig:
        rig.toolbox.call([FunctionCall(str(n), "handy") for n in range(4)])
        assert [call.id for call in rig.toolbox.open] == ["0", "1"]
        work.release.set()
        await rig.idle()
        rig.call(call_id="5")
        await rig.idle()
    full = {"error": "2 tools are at work already: wait for their results"}
    done = {"result": "done"}
    assert inbox.answers == {"0": done, "1": done, "2": full, "3": full, "5": done}


@pytest.mark.parametrize("name", ["handy", "unknown_tool"])
async def test_the_same_id_twice_is_answered_once(name: str, logs: Logs) -> None:
    inbox = Inbox()
    async with rigged(Handy(echo), answers=inbox) as rig:
        rig.toolbox.call([FunctionCall("1", name), FunctionCall("1", name)])
        await rig.idle()
        assert list(inbox.answers) == ["1"]
        rig.call()
        await rig.idle()
    assert [result.id for result in inbox.results] == ["1", "1"], "an id that was answered may come again"
    assert len(lines(logs, "tool.asked_twice")) == 1
    assert len(rig.uses) == 2


async def test_calls_without_an_id_are_each_answered() -> None:
    inbox = Inbox()
    async with rigged(Handy(echo, parameters=NUMBERED), answers=inbox) as rig:
        rig.toolbox.call([FunctionCall("", "handy", {"n": n}) for n in range(3)])
        await rig.idle()
    assert [(one.id, one.response) for one in inbox.results] == [("", {"result": {"n": n}}) for n in range(3)]


async def test_scheduling_goes_with_results_and_not_with_errors() -> None:
    async def picky(args: Mapping[str, Any], context: ToolContext) -> Any:
        if args["n"]:
            raise ToolError("no")

    inbox = Inbox()
    async with rigged(Handy(picky, parameters=NUMBERED, scheduling="silent"), answers=inbox) as rig:
        rig.toolbox.call([FunctionCall(str(n), "handy", {"n": n}) for n in range(2)])
        await rig.idle()
    assert [result.scheduling for result in inbox.results] == ["silent", None]


async def test_a_tool_knows_its_call() -> None:
    async def who(args: Mapping[str, Any], context: ToolContext) -> Any:
        context.log.info("tool.says")
        return [context.call.id, context.call.caller_number]

    with capture_logs() as logs:
        _, response = await answered(Handy(who))
    assert response == {"result": ["c1", "0731"]}
    assert [(line["tool"], line["id"]) for line in lines(logs, "tool.says")] == [("handy", "1")]


# --- results


@pytest.mark.parametrize(
    "value",
    [float("nan"), {1, 2}, b"bytes", {(1, 2): 3}, object(), int("9" * 4300) * 10],
    ids=lambda value: type(value).__name__,
)
async def test_a_result_that_json_cannot_hold_is_an_error(value: object) -> None:
    async def gives(args: Mapping[str, Any], context: ToolContext) -> Any:
        return value

    rig, response = await answered(Handy(gives))
    assert str(response["error"]).startswith("the result is not JSON (")
    assert rig.outcomes == ["done"]


async def test_a_result_that_is_too_long_is_cut() -> None:
    async def gives(args: Mapping[str, Any], context: ToolContext) -> Any:
        return "ä" * 10_000

    _, response = await answered(Handy(gives))
    kept = len(response["result"])
    assert response == {"result": "ä" * kept, "note": f"cut: the first {kept} of 10000 characters"}
    assert 8190 <= len(json.dumps(response, ensure_ascii=False).encode()) <= 8192


async def test_a_long_error_is_cut_as_well() -> None:
    _, response = await answered(Handy(lambda args, context: raises(ToolError("no" * 8192))))
    assert response["error"].startswith("nono")
    assert len(json.dumps(response, ensure_ascii=False).encode()) == 8192


# --- the call ends


@pytest.mark.parametrize("steps", range(4))
async def test_a_caller_who_hangs_up_ends_every_tool(steps: int, logs: Logs) -> None:
    """One that has not begun, others that may work by now, and one of these that does not care."""
    inbox, work, stubborn = Inbox(), Patient(), Stubborn()
    tools = Handy(work, undoable=False), Handy(stubborn, "stubborn")
    before = asyncio.all_tasks()
    ended = []
    try:
        async with rigged(*tools, answers=inbox) as rig:
            rig.call("handy", "1")
            rig.call("stubborn", "2")
            for _ in range(steps):
                await asyncio.sleep(0)
            rig.call("handy", "3")
            raise CallEnded(Cause.CALLER_HANGUP)
    except* CallEnded as caught:
        ended.append(caught)
    assert len(ended) == 1
    assert asyncio.all_tasks() == before
    assert rig.toolbox.open == ()
    assert inbox.begun == []
    assert rig.outcomes == ["cancelled"] * 3
    assert rig.busy == [True, False]
    assert sorted(line["id"] for line in lines(logs, "tool.over")) == ["1", "2", "3"]
    begun = ["1"] if work.begun.is_set() else []
    assert begun == (["1"] if steps else [])
    assert [line["id"] for line in lines(logs, "tool.cannot_be_undone")] == begun


async def test_a_group_that_ends_by_itself_waits_for_the_answers() -> None:
    inbox, work = Inbox(), Patient()
    async with rigged(Handy(work), answers=inbox) as rig:
        rig.call()
        asyncio.get_running_loop().call_later(0, work.release.set)
    assert list(inbox.answers) == ["1"]
    assert rig.busy == [True, False]


# --- any order of events


EVENTS = st.sampled_from(
    ["ask", "finish", "take_back", "change_session", "lose_session", "confirm", "end_send", "wait"]
)
schedules = st.lists(st.tuples(EVENTS, st.integers(0, 1000)), max_size=40)


@pytest.mark.parametrize("hangs_up", [False, True])
@settings(max_examples=200, deadline=None)
@given(events=schedules)
def test_every_call_is_answered_once_or_taken_back(hangs_up: bool, events: list[tuple[str, int]]) -> None:
    async def play() -> None:
        async with asyncio.timeout(LONG), asyncio.TaskGroup() as tasks:
            schedule = Schedule(tasks)
            schedules.append(schedule)
            schedule.attach(gate=len(events) % 2 == 0)
            await schedule.play(events)
            if hangs_up:
                schedule.hung_up = True
                raise CallEnded(Cause.CALLER_HANGUP)
            await schedule.settle()

    async def main() -> None:
        try:
            await play()
        except* CallEnded:
            assert hangs_up
        assert asyncio.all_tasks() == {asyncio.current_task()}

    schedules: list[Schedule] = []
    with capture_logs():
        asyncio.run(main())
    (schedule,) = schedules
    rig = schedule.rig
    assert rig.toolbox.open == ()
    assert len(rig.uses) == len(schedule.asked)
    if not hangs_up:
        assert schedule.owed() == set()
        assert rig.busy == [True, False] * (len(rig.busy) // 2)
