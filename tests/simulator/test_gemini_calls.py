from __future__ import annotations

import re
from typing import Any

import pytest

from ari_gemini.simulator import gemini_calls as subject
from ari_gemini.simulator.scenario import Scenario, ScriptedCall, ScriptTurn

NATIVE = "models/gemini-2.5-flash-native-audio-latest"
OLDER = "models/gemini-3.1-flash-live-preview"
LIVE = "models/gemini-3.8-live"

TWO = Scenario(
    turns=(
        ScriptTurn(
            on="any",
            calls=(ScriptedCall(name="f", args={"a": 1}), ScriptedCall(name="g")),
            say=("done",),
        ),
    )
)


def tools(*names: str, **fields: Any) -> list[Any]:
    return [{"functionDeclarations": [{"name": name, **fields} for name in names]}]


def calling(paper_call: Any, model: str = LIVE, scenario: Scenario = TWO, **declared: Any) -> Any:
    call = paper_call(scenario)
    call.setup(model, tools=tools("f", "g", **declared))
    call.text()
    call.finish()
    return call


def called(call: Any) -> list[dict[str, Any]]:
    [message] = [message for message in call.wire.messages if "toolCall" in message]
    return list(message["toolCall"]["functionCalls"])


def answer(call: Any, *ids: str, **fields: Any) -> None:
    responses = [{"id": id_, "name": "f", "response": {"output": "ok"}, **fields} for id_ in ids]
    call.send({"toolResponse": {"functionResponses": responses}})
    call.finish()


@pytest.mark.parametrize(
    ("model", "shape"),
    [(LIVE, r"call_\d{6}"), (OLDER, r"fc_\d{19}"), (NATIVE, r"function-call-\d{20}")],
)
def test_calls_go_out_together_with_ids_of_the_family(paper_call: Any, model: str, shape: str) -> None:
    first, second = called(calling(paper_call, model))
    assert (first["name"], first["args"]) == ("f", {"a": 1})
    assert (second["name"], second["args"]) == ("g", {})
    assert first["id"] != second["id"]
    assert all(re.fullmatch(shape, one["id"]) for one in (first, second))


def test_3_1_clears_its_throat_first(paper_call: Any, kit: Any) -> None:
    kinds = [kit.kind_of(message) for message in calling(paper_call, OLDER).wire.messages]
    assert kinds[kinds.index("toolCall") - 1] == "serverContent:{}"


def test_what_is_not_declared_is_not_called(paper_call: Any) -> None:
    call = paper_call(TWO)
    call.setup(tools=tools("g"))
    call.text()
    call.finish()
    assert [one["name"] for one in called(call)] == ["g"]
    assert [event.detail for event in call.record.of("call_skipped")] == [{"name": "f"}]


def test_without_any_declared_function_the_answer_is_said_at_once(paper_call: Any) -> None:
    call = paper_call(TWO)
    call.setup()
    call.text()
    call.finish()
    assert [said.name for said in call.record.said] == ["done"]
    assert call.record.count("call_skipped") == 2


def test_results_may_come_one_by_one_and_in_any_order(paper_call: Any) -> None:
    call = calling(paper_call)
    first, second = (one["id"] for one in called(call))
    answer(call, second)
    assert not call.record.said
    answer(call, first)
    assert [said.name for said in call.record.said] == ["done"]
    assert [event.detail["id"] for event in call.record.of("tool_response")] == [second, first]


def test_both_results_may_share_a_message(paper_call: Any) -> None:
    call = calling(paper_call)
    answer(call, *(one["id"] for one in called(call)))
    assert [said.name for said in call.record.said] == ["done"]


def test_a_generator_call_stays_open(paper_call: Any) -> None:
    call = calling(paper_call)
    ids = [one["id"] for one in called(call)]
    answer(call, *ids, willContinue=True)
    answer(call, *ids, willContinue=True)
    assert not call.record.said
    answer(call, *ids, willContinue=False)
    assert [said.name for said in call.record.said] == ["done"]


def test_strays_are_noted_and_do_no_harm(paper_call: Any) -> None:
    call = calling(paper_call)
    ids = [one["id"] for one in called(call)]
    answer(call, "call_000000")
    answer(call, *ids)
    answer(call, *ids)
    assert call.record.count("stray_tool_response") == 3
    assert [said.name for said in call.record.said] == ["done"]
    assert call.wire.closed is None


def test_cancelling_names_every_open_id(paper_call: Any) -> None:
    call = calling(paper_call)
    ids = sorted(one["id"] for one in called(call))
    call.talk.cancel_tools(call.now)
    assert call.wire.messages[-1] == {"toolCallCancellation": {"ids": ids}}
    answer(call, *ids)
    assert not call.record.said
    assert call.record.count("stray_tool_response") == 2


def test_cancelling_a_blocking_call_ends_its_turn(paper_call: Any) -> None:
    call = calling(paper_call, behavior="BLOCKING")
    assert call.record.count("turn_complete") == 0
    call.talk.cancel_tools(call.now)
    assert call.wire.kinds[-2:] == ["toolCallCancellation", "turnComplete"]


def test_open_calls_are_bounded(paper_call: Any) -> None:
    call = paper_call("silent_model")
    call.setup(tools=tools("f"))
    for _ in range(subject.MAX_GROUPS + 3):
        call.talk.call("f", {}, (), call.now)
        call.finish()
    call.talk.cancel_tools(call.now)
    assert len(call.wire.messages[-1]["toolCallCancellation"]["ids"]) == subject.MAX_GROUPS
