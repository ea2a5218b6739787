from __future__ import annotations

from typing import Any

import pytest

from ari_gemini.simulator.phrases import phrase
from ari_gemini.simulator.scenario import Scenario, ScriptedCall, ScriptTurn

LIVE = "models/gemini-3.8-live"
NATIVE = "models/gemini-2.5-flash-native-audio-latest"
OLDER = "models/gemini-3.1-flash-live-preview"
THINKING = "models/gemini-3.8-live-extended-thinking"

LOOK_UP = Scenario(
    turns=(
        ScriptTurn(
            on="text", first=("one_moment",), calls=(ScriptedCall(name="look_up"),), say=("order_status",)
        ),
        ScriptTurn(say=("long_story",)),
    ),
)


def tools(**fields: Any) -> list[Any]:
    return [{"functionDeclarations": [{"name": "look_up", **fields}]}]


def looked_up(paper_call: Any, model: str = LIVE, *, behavior: str = "UNSPECIFIED", **changes: Any) -> Any:
    """A call in which the function has been called and everything else is over."""
    call = paper_call(LOOK_UP, **changes)
    generation = {"thinkingConfig": {"thinkingLevel": "LOW"}} if model == THINKING else {}
    call.setup(model, tools=tools(behavior=behavior), generationConfig=generation)
    call.text()
    call.finish()
    return call


def answer(call: Any, **fields: Any) -> None:
    [event] = call.record.of("tool_call")
    response = {"id": event.detail["ids"][0], "name": "look_up", "response": {"output": "ok"}, **fields}
    call.send({"toolResponse": {"functionResponses": [response]}})


def new_kinds(call: Any, since: int) -> list[str]:
    return list(call.wire.kinds[since:])


def said(call: Any) -> list[str]:
    return [one.name for one in call.record.said]


# --- the course of a turn ---


def test_the_recorded_course_of_a_spoken_turn_on_3_8(paper_call: Any, kit: Any) -> None:
    """As published: one spoken turn with automatic detection, no resumption in the setup."""
    call = paper_call("two_turns", empties=0.0)
    call.setup()
    call.say("ask_hours")
    call.finish()
    kinds = [kit.kind_of(message) for message in call.wire.messages]
    told = [kind for i, kind in enumerate(kinds) if kind != "audio" or kinds[i - 1] != "audio"]
    assert told == [
        "setupComplete",
        "sessionResumptionUpdate",
        "voiceActivity",
        "inputTranscription",
        "voiceActivity",
        "{}",
        "serverContent:{}",
        "audio",
        "generationComplete",
        "turnComplete",
    ]
    start, end = (message for message in call.wire.messages if "voiceActivity" in message)
    assert start == {"voiceActivity": {"type": "ACTIVITY_START", "audioOffset": "0.010s"}}
    assert end["voiceActivity"]["type"] == "ACTIVITY_END"
    assert end["serverContent"] == {}
    whole = [message for message in call.wire.messages if kit.kind_of(message) == "inputTranscription"]
    assert whole == [{"serverContent": {"inputTranscription": {"text": "When are you open?"}}}]
    first = next(message for message in call.wire.messages if kit.kind_of(message) == "audio")
    assert first["serverContent"]["modelTurn"]["role"] == "model"
    assert first["serverContent"]["outputTranscription"]["text"].startswith("We are")
    assert set(call.wire.messages[-1]) == {"serverContent", "usageMetadata"}


def test_usage_counts_25_tokens_a_second_and_the_whole_context(paper_call: Any) -> None:
    call = paper_call("two_turns")
    call.setup()
    call.text()
    call.finish()
    call.say("ask_hours")
    call.finish()
    first, second = (message["usageMetadata"] for message in call.wire.messages if "usageMetadata" in message)
    greeting = 25 * phrase("greeting").seconds
    assert first["promptTokenCount"] == 0
    assert greeting <= first["responseTokenCount"] < greeting + 1
    heard = 25 * (phrase("ask_hours").seconds + 1)
    assert 0 <= second["promptTokenCount"] - first["responseTokenCount"] - heard < 1
    assert second["totalTokenCount"] == second["promptTokenCount"] + second["responseTokenCount"]
    assert second["responseTokensDetails"] == [
        {"modality": "AUDIO", "tokenCount": second["responseTokenCount"]}
    ]


# --- interruption ---


def telling(paper_call: Any, **changes: Any) -> Any:
    """A call in which the long story has been going on for a second."""
    call = paper_call("barge_in", **{"late_frames": 0, **changes})
    call.setup()
    call.say("ask_delivery")
    call.settle(call.scenario.think_time + 1.0)
    assert call.wire.kinds[-1] == "audio"
    return call


def test_an_interruption_stops_the_turn_without_generation_complete(paper_call: Any) -> None:
    call = telling(paper_call)
    before = len(call.wire.kinds)
    call.talk.interrupt(call.now)
    assert new_kinds(call, before) == ["interrupted", "turnComplete"]
    call.finish()
    assert new_kinds(call, before) == ["interrupted", "turnComplete"]
    assert call.record.count("generation_complete") == 0
    [story] = call.record.said
    assert story.interrupted
    assert not story.complete
    assert phrase("long_story").pcm.startswith(bytes(story.pcm))
    assert 2.5 < len(story.pcm) / 48_000 < 4
    assert story.text.startswith(story.sent_text)


def test_late_audio_may_follow_an_interruption_before_the_turn_is_complete(paper_call: Any) -> None:
    call = telling(paper_call, late_frames=2)
    before, sent = len(call.wire.kinds), len(call.record.said[0].pcm)
    call.talk.interrupt(call.now)
    call.finish()
    assert new_kinds(call, before) == ["interrupted", "audio", "turnComplete"]
    last = [message for message in call.wire.messages if message not in ({}, {"serverContent": {}})][-4:]
    assert ["outputTranscription" in message["serverContent"] for message in last[1:3]] == [False, False]
    assert len(call.record.said[0].pcm) > sent


def test_what_was_sent_can_still_be_interrupted_while_it_plays(paper_call: Any) -> None:
    call = paper_call("greeting")
    call.setup()
    call.text()
    call.settle(call.scenario.think_time + 1.5)
    assert call.wire.kinds[-1] == "generationComplete"
    call.talk.interrupt(call.now)
    call.finish()
    assert call.wire.kinds[-3:] == ["generationComplete", "interrupted", "turnComplete"]
    assert call.record.said[0].interrupted


def test_nothing_is_sent_when_there_is_nothing_to_interrupt(paper_call: Any) -> None:
    call = paper_call("greeting")
    call.setup()
    call.talk.interrupt(call.now)
    assert call.wire.kinds == ["setupComplete", "sessionResumptionUpdate"]


def test_a_turn_cut_off_before_its_first_sound_comes_again(paper_call: Any) -> None:
    call = paper_call("two_turns")
    call.setup()
    call.text()
    call.settle(call.scenario.think_time / 2)
    call.talk.interrupt(call.now)
    assert call.wire.kinds[-2:] == ["interrupted", "turnComplete"]
    call.text()
    call.finish()
    assert said(call) == ["greeting"]


# --- calls that block ---


@pytest.mark.parametrize(
    ("model", "behavior"), [(LIVE, "BLOCKING"), (OLDER, "UNSPECIFIED"), (NATIVE, "UNSPECIFIED")]
)
def test_a_blocking_call_holds_the_turn_until_it_is_answered(
    paper_call: Any, model: str, behavior: str
) -> None:
    call = looked_up(paper_call, model, behavior=behavior)
    assert call.wire.kinds[-1] == "toolCall"
    assert call.record.count("turn_complete") == 0
    assert call.record.of("tool_call")[0].detail["blocking"]
    answer(call)
    call.finish()
    assert said(call) == ["one_moment", "order_status"]
    assert call.record.count("turn_complete") == 1
    assert call.wire.kinds[-2:] == ["generationComplete", "turnComplete"] or model == NATIVE


def test_3_1_sends_a_fresh_handle_after_the_result(paper_call: Any) -> None:
    call = looked_up(paper_call, OLDER)
    before = len(call.wire.kinds)
    answer(call)
    assert new_kinds(call, before) == ["sessionResumptionUpdate"]


def test_2_5_sends_a_fresh_handle_after_each_turn_when_asked(paper_call: Any) -> None:
    def handles(**fields: Any) -> int:
        call = paper_call("greeting")
        call.setup(NATIVE, **fields)
        call.text()
        call.finish()
        return int(call.record.count("resumption_update"))

    assert handles() == 0
    assert handles(sessionResumption={}) == 2


def test_interrupting_a_blocking_call_takes_it_back_first(paper_call: Any) -> None:
    call = looked_up(paper_call, behavior="BLOCKING")
    before = len(call.wire.kinds)
    call.say("interrupt")
    assert new_kinds(call, before)[:4] == [
        "voiceActivity",
        "toolCallCancellation",
        "interrupted",
        "turnComplete",
    ]
    answer(call)
    call.finish()
    assert call.record.count("stray_tool_response") == 1
    assert said(call) == ["one_moment", "long_story"]


# --- calls that do not block ---


def test_a_call_that_does_not_block_completes_its_turn_at_once(paper_call: Any) -> None:
    call = paper_call(LOOK_UP)
    call.setup(tools=tools())
    call.text()
    call.settle(10)
    [called] = call.record.of("tool_call")
    [complete] = call.record.of("turn_complete")
    assert call.wire.kinds[-2:] == ["toolCall", "turnComplete"]
    assert complete.at == called.at
    answer(call)
    call.finish()
    assert said(call) == ["one_moment", "order_status"]
    assert call.record.count("turn_complete") == 2
    assert [event.detail["origin"] for event in call.record.of("turn_start")] == ["text", "tool"]


def test_silent_results_are_not_spoken_of(paper_call: Any) -> None:
    call = looked_up(paper_call)
    before = len(call.wire.kinds)
    answer(call, scheduling="SILENT")
    call.finish()
    assert new_kinds(call, before) == []


def test_results_wait_until_the_model_is_idle(paper_call: Any) -> None:
    call = looked_up(paper_call)
    call.say("ask_delivery")
    call.settle(3)
    before = len(call.wire.kinds)
    answer(call, scheduling="WHEN_IDLE")
    call.finish()
    assert said(call) == ["one_moment", "long_story", "order_status"]
    assert "interrupted" not in new_kinds(call, before)


def test_an_interrupting_result_cuts_in(paper_call: Any) -> None:
    call = looked_up(paper_call, NATIVE, behavior="NON_BLOCKING")
    call.say("ask_delivery")
    call.settle(3)
    before = len(call.wire.kinds)
    answer(call, scheduling="INTERRUPT")
    call.finish()
    told = [kind for kind in new_kinds(call, before) if kind not in ("outputTranscription", "audio")]
    assert told == ["interrupted", "turnComplete", "thought", "generationComplete", "turnComplete"]
    assert said(call) == ["one_moment", "long_story", "order_status"]


@pytest.mark.parametrize("scheduling", ["INTERRUPT", "WHEN_IDLE"])
def test_results_wait_while_the_caller_speaks(paper_call: Any, kit: Any, scheduling: str) -> None:
    call = looked_up(paper_call)
    call.hear(kit.tone(500, -20))
    before = len(call.wire.kinds)
    answer(call, scheduling=scheduling)
    call.settle(5)
    assert new_kinds(call, before) == []
    call.hear(kit.silence(1000), pace=0)
    call.finish()
    assert said(call) == ["one_moment", "long_story", "order_status"]


def test_the_callers_speech_leaves_background_calls_alone(paper_call: Any) -> None:
    call = looked_up(paper_call)
    call.say("interrupt")
    call.finish()
    assert call.record.count("tool_cancelled") == 0
    answer(call)
    call.finish()
    assert said(call)[-1] == "order_status"


def test_a_scenario_may_cancel_background_calls_too(paper_call: Any) -> None:
    call = looked_up(paper_call, cancel_on_interrupt="all")
    before = len(call.wire.kinds)
    call.say("interrupt")
    assert new_kinds(call, before)[:2] == ["voiceActivity", "toolCallCancellation"]


def test_extended_thinking_tells_when_it_is_really_idle(paper_call: Any) -> None:
    def statuses(call: Any) -> list[str]:
        contents = [message.get("serverContent", {}) for message in call.wire.messages]
        return [content["interactionStatus"] for content in contents if "turnComplete" in content]

    call = looked_up(paper_call, THINKING)
    assert statuses(call) == ["IN_PROGRESS"]
    answer(call)
    call.finish()
    assert statuses(call) == ["IN_PROGRESS", "IDLE"]


# --- the queue ---


def test_replies_wait_for_their_turn(paper_call: Any) -> None:
    call = paper_call("greeting")
    call.setup()
    for name in ("done", "goodbye", "go_on"):
        call.talk.say([name], call.now)
    call.finish()
    assert said(call) == ["done", "goodbye", "go_on"]
    assert call.record.count("turn_complete") == 3
    turns = call.record.of("turn_start")
    assert turns[1].at - turns[0].at > phrase("done").seconds


# --- answers that are none ---


def test_a_silent_answer_has_its_words_and_no_sound_to_hear(paper_call: Any, kit: Any) -> None:
    call = paper_call(Scenario(turns=(ScriptTurn(on="text", say=("done",), silent=True),)))
    call.setup()
    call.text()
    call.finish()
    pcm = b"".join(map(kit.sound, call.wire.messages))
    assert len(pcm) == len(phrase("done").pcm)
    loudest = max(
        abs(int.from_bytes(pcm[at : at + 2], "little", signed=True)) for at in range(0, len(pcm), 2)
    )
    assert 0 < loudest <= 32
    assert call.record.said[0].sent_text == "That is done."


@pytest.mark.parametrize("reason", [None, "RESPONSE_REJECTED"])
def test_an_empty_turn_is_complete_with_its_reason(paper_call: Any, reason: str | None) -> None:
    call = paper_call(Scenario(empties=0.0, turns=(ScriptTurn(on="text", reason=reason),)))
    call.setup()
    call.text()
    call.finish()
    [complete] = [m for m in call.wire.messages if "turnComplete" in m.get("serverContent", {})]
    assert complete["serverContent"].get("turnCompleteReason") == reason
    assert call.record.count("audio") == call.record.count("generation_complete") == 0
    call.text()
    call.finish()
    assert said(call) == ["anything_else"]


def test_a_stalled_turn_is_never_answered_and_the_next_is(paper_call: Any) -> None:
    call = paper_call(Scenario(turns=(ScriptTurn(stall=True, times=2), ScriptTurn(say=("done",)))))
    call.setup()
    for _ in range(2):
        call.say("ask_hours")
        call.finish()
    assert call.record.count("stalled") == 2
    assert call.record.count("activity_end") == 2
    assert call.record.count("turn_complete") == call.record.count("audio") == 0
    call.say("ask_hours")
    call.finish()
    assert said(call) == ["done"]
