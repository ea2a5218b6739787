from __future__ import annotations

import json
from typing import Any

import pytest

from ari_gemini.simulator.gemini_access import Admission
from ari_gemini.simulator.gemini_schema import RefusalError
from ari_gemini.simulator.gemini_session import Conversation
from ari_gemini.simulator.phrases import phrase
from ari_gemini.simulator.scenario import Fault, Lifetime, Scenario

LIVE = "models/gemini-3.8-live"
NATIVE = "models/gemini-2.5-flash-native-audio-latest"
INVALID = (1007, "Request contains an invalid argument.")
INTERNAL = (1011, "Internal error encountered.")
GO_AWAY_REASON = (
    "Connection aborted because the client failed to close the connection after receiving a GoAway signal "
    "once the session durat"
)
GO_AWAY = (1008, GO_AWAY_REASON)
UNKNOWN_X = (
    "Invalid JSON payload received. Unknown name \"x\" at 'setup.generation_config': Cannot find field."
)


def handle_of(call: Any) -> str:
    return str(call.record.of("resumption_update")[-1].detail["handle"])


def resume(paper_call: Any, former: Any, after: float, scenario: Any = "two_turns", **fields: Any) -> Any:
    """A new connection with the former one's handle, ``after`` seconds past its end."""
    call = paper_call(scenario, book=former.book, now=former.now + after)
    call.setup(sessionResumption={"handle": handle_of(former)}, **fields)
    return call


# --- setup ---


def test_setup_is_answered_after_its_delay(paper_call: Any) -> None:
    call = paper_call(setup_delay=0.4)
    call.send({"setup": {"model": LIVE, "generation_config": {"temperature": 1}}})
    call.settle(0.39)
    assert call.wire.frames == []
    call.settle(0.02)
    first, second = call.wire.messages
    assert first == {"setupComplete": {}}
    assert second["sessionResumptionUpdate"]["resumable"] is True
    assert call.record.setup == {"model": LIVE, "generation_config": {"temperature": 1}}
    assert call.record.kinds() == ["connected", "setup", "setup_complete", "resumption_update"]


@pytest.mark.parametrize(
    ("model", "fields", "handles"),
    [
        (LIVE, {}, 1),
        (LIVE, {"sessionResumption": {}}, 1),
        ("models/gemini-3.1-flash-live-preview", {}, 1),
        (NATIVE, {}, 0),
        (NATIVE, {"sessionResumption": {}}, 1),
    ],
)
def test_3_x_sends_a_handle_unasked(paper_call: Any, model: str, fields: Any, handles: int) -> None:
    call = paper_call()
    call.setup(model, **fields)
    assert call.record.count("resumption_update") == handles


@pytest.mark.parametrize(
    "message",
    [
        {"realtimeInput": {"audio": {"mimeType": "audio/pcm;rate=16000", "data": ""}}},
        {"realtimeInput": {"text": "hi"}},
        {"clientContent": {"turnComplete": True}},
        {"toolResponse": {"functionResponses": []}},
    ],
)
def test_anything_before_setup_is_an_invalid_argument(paper_call: Any, message: Any) -> None:
    call = paper_call()
    call.send(message)
    assert call.wire.closed == INVALID


@pytest.mark.parametrize(
    ("policy", "closed"),
    [("close", (1008, "Operation is not implemented, or supported, or enabled.")), ("drop", None)],
)
def test_what_comes_before_setup_complete_is_closed_upon_or_dropped(
    paper_call: Any, policy: str, closed: Any
) -> None:
    call = paper_call(early_messages=policy)
    call.send({"setup": {"model": LIVE}})
    call.text()
    assert call.wire.closed == closed
    call.finish()
    assert call.record.count("early_message") == 1
    assert call.record.count("setup_complete") == (policy == "drop")
    assert call.record.said.__len__() == 0


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("{", "Invalid JSON payload received. Unexpected token."),
        (
            {"setup": {"model": LIVE, "generationConfig": {"x": 1}}},
            UNKNOWN_X,
        ),
    ],
)
def test_a_wrong_first_message_is_refused(paper_call: Any, message: Any, reason: str) -> None:
    call = paper_call()
    call.send(message)
    assert call.wire.closed == (1007, reason)
    assert call.record.of("refused")[0].detail == {"code": 1007, "reason": reason}


def test_after_the_end_nothing_is_heard_or_sent(paper_call: Any) -> None:
    call = paper_call()
    call.setup()
    call.text()
    call.talk.close(1011, "Enough.", call.now)
    frames = len(call.wire.frames)
    call.text()
    call.finish()
    call.talk.interrupt(call.now)
    call.talk.say(["done"], call.now)
    call.talk.go_away(5, call.now)
    assert (call.wire.closed, len(call.wire.frames)) == ((1011, "Enough."), frames)
    assert call.talk.agenda.next_at is None


@pytest.mark.parametrize("frame", ["not json", '{"setup":{"model":"models/gemini-3.8-live"}}', None])
def test_bad_credentials_are_refused_with_the_first_frame_or_after_a_second(
    paper_call: Any, frame: str | None
) -> None:
    call = paper_call()
    talk = Conversation(call.scenario, call.book, call.wire, call.record)
    talk.connected(0.0, RefusalError(1007, "API key not valid. Please pass a valid API key."))
    assert call.wire.closed is None
    if frame is None:
        talk.tick(1.0)
    else:
        talk.receive(frame, 0.1)
    assert call.wire.closed == (1007, "API key not valid. Please pass a valid API key.")


def test_a_token_may_overrule_the_setup(paper_call: Any) -> None:
    call = paper_call()
    talk = Conversation(
        call.scenario,
        call.book,
        call.wire,
        call.record,
        admit=Admission(lambda setup: {**setup, "model": NATIVE}),
    )
    talk.connected(0.0)
    talk.receive(json.dumps({"setup": {"model": "models/none"}}), 0.0)
    talk.tick(1.0)
    assert [list(message) for message in call.wire.messages] == [["setupComplete"]]


def test_a_session_ends_with_its_token(paper_call: Any) -> None:
    call = paper_call()
    talk = Conversation(
        call.scenario, call.book, call.wire, call.record, admit=Admission(seconds_left=lambda: 60.0)
    )
    call.talk = talk
    talk.connected(0.0)
    call.setup()
    opened = call.record.of("setup_complete")[0].at
    call.settle(opened + 59.9 - call.now)
    assert call.wire.closed is None
    call.settle(0.2)
    assert call.wire.closed == (1011, "auth token has expired")


# --- the life of a connection ---


def test_ten_minutes_with_notice(paper_call: Any) -> None:
    call = paper_call("lifetime_10_minutes")
    call.setup()
    ready = call.now
    call.finish()
    assert {"goAway": {"timeLeft": "50s"}} in call.wire.messages
    assert call.record.of("go_away")[0].at - ready == 540
    assert call.now - ready == 590
    assert call.wire.closed == GO_AWAY


def test_fifty_eight_minutes_without(paper_call: Any) -> None:
    call = paper_call("lifetime_58_minutes")
    call.setup()
    ready = call.now
    call.finish()
    assert call.now - ready == 3480
    assert call.wire.closed == (1011, "Deadline expired before operation could complete.")
    assert call.record.count("go_away") == 0


def test_go_away_on_demand(paper_call: Any) -> None:
    call = paper_call()
    call.setup()
    call.talk.go_away(2.5, call.now)
    assert call.wire.messages[-1] == {"goAway": {"timeLeft": "2.500s"}}
    call.text()
    call.finish()
    assert call.wire.closed == GO_AWAY


# --- resumption ---


def test_an_idle_session_is_held_for_a_second_and_then_comes_back(paper_call: Any) -> None:
    first = paper_call()
    first.setup()
    first.talk.disconnected(first.now)
    second = resume(paper_call, first, 0.1)
    assert second.wire.closed == INTERNAL
    second.talk.disconnected(second.now)
    third = resume(paper_call, first, 1.0)
    assert third.wire.kinds == ["setupComplete", "sessionResumptionUpdate"]
    assert third.record.count("resumed") == 1


def test_a_living_connection_keeps_its_session(paper_call: Any) -> None:
    first = paper_call()
    first.setup()
    assert resume(paper_call, first, 100).wire.closed == INTERNAL
    first.text()
    first.finish()
    assert [said.name for said in first.record.said] == ["greeting"]


def test_an_unknown_handle_is_not_found(paper_call: Any) -> None:
    call = paper_call()
    call.setup(sessionResumption={"handle": "nonsense"})
    assert call.wire.closed == (1008, "BidiGenerateContent session not found")
    assert call.record.count("setup_complete") == 0


def test_a_resumed_session_goes_on_where_it_was(paper_call: Any, kit: Any) -> None:
    declared = [{"functionDeclarations": [{"name": "api_call"}]}]
    first = paper_call("tool_call")
    first.setup(tools=declared)
    first.text()
    first.finish()
    first.say("ask_order")
    first.finish()
    [called] = first.record.of("tool_call")
    received = first.record.heard.total_bytes / 16
    first.talk.disconnected(first.now)

    second = resume(paper_call, first, 5.0, "tool_call", tools=declared)
    assert "toolCall" not in second.wire.kinds
    assert handle_of(second) != handle_of(first)
    response = {"id": called.detail["ids"][0], "name": "api_call", "response": {"output": 1}}
    second.send({"toolResponse": {"functionResponses": [response]}})
    second.finish()
    assert [said.name for said in second.record.said] == ["order_status"]
    second.hear(kit.silence(100) + kit.tone(500, -20))
    [start] = second.record.of("activity_start")
    assert start.detail["offset_ms"] == received + 100
    second.talk.disconnected(second.now)

    third = resume(paper_call, second, 5.0, "tool_call", tools=declared)
    third.say("ask_person")
    assert third.record.of("input_transcription")[0].detail["text"] == "Please enter the code for me."


def test_a_cut_sentence_is_taken_up_again_without_delay(paper_call: Any) -> None:
    first = paper_call("barge_in")
    first.setup()
    first.say("ask_delivery")
    first.settle(first.scenario.think_time + 2.0)
    heard = first.now - first.record.of("audio")[0].at
    first.talk.disconnected(first.now)
    second = resume(paper_call, first, 0.0, "barge_in")
    second.finish()
    story = phrase("long_story")
    [rest] = second.record.said
    assert bytes(rest.pcm) == story.pcm[int(heard * 24_000) * 2 :]
    assert story.text.endswith(rest.text)
    assert second.record.of("turn_start")[0].detail == {"origin": "resume"}


def test_a_sentence_that_was_heard_is_not_said_again(paper_call: Any) -> None:
    first = paper_call()
    first.setup()
    first.text()
    first.finish()
    first.talk.disconnected(first.now)
    second = resume(paper_call, first, 2.0)
    second.finish()
    assert not second.record.said


# --- faults ---


def faulty(paper_call: Any, do: str, at: str = "turn", **fields: Any) -> Any:
    fault = Fault.model_validate({"at": at, "do": do, **fields})
    call = paper_call(Scenario(faults=(fault,)))
    call.setup()
    call.text()
    return call


def test_closing_in_mid_sentence(paper_call: Any) -> None:
    call = faulty(paper_call, "close", "speech", after=0.5, code=1011, reason="The service is gone.")
    call.finish()
    assert call.wire.closed == (1011, "The service is gone.")
    sent = len(call.record.said[0].pcm) / 48_000
    assert 0.5 <= sent < 0.5 + 0.33
    assert call.record.said[0].interrupted


def test_closing_after_so_many_messages_heard(paper_call: Any, kit: Any) -> None:
    call = faulty(paper_call, "close", "heard", after=10)
    call.hear(kit.silence(180))
    assert call.wire.closed is None
    call.hear(kit.silence(20))
    assert call.wire.closed == INTERNAL


def test_closing_after_a_time_and_when_the_caller_begins(paper_call: Any, kit: Any) -> None:
    call = faulty(paper_call, "close", "time", after=30.0)
    ready = call.record.of("setup_complete")[0].at
    call.finish()
    assert call.now - ready == 30.0
    call = faulty(paper_call, "close", "caller")
    call.hear(kit.tone(100, -20))
    assert call.wire.closed == INTERNAL


def test_a_reset_sends_no_close_frame(paper_call: Any) -> None:
    call = faulty(paper_call, "abort")
    call.finish()
    assert call.wire.aborted
    assert call.wire.closed is None


def test_reasons_may_name_model_and_version(paper_call: Any) -> None:
    call = paper_call("refuse_model")
    call.setup()
    text = (
        f"{LIVE} is not found for API version v1beta, or is not supported for bidiGenerateContent. "
        "Call ModelService.ListModels"
    )
    assert call.wire.closed == (1008, text[:123])


@pytest.mark.parametrize(
    ("do", "frame"),
    [
        ("malformed_json", b'{"serverContent": {"modelTurn": '),
        ("unknown_message", b'{"novelty": {"level": 1}}'),
        ("text_frame", '{"serverContent":{}}'),
    ],
)
def test_odd_frames_on_demand(paper_call: Any, do: str, frame: str | bytes) -> None:
    call = faulty(paper_call, do)
    call.finish()
    assert frame in call.wire.frames
    assert [said.complete for said in call.record.said] == [True]


def test_undecodable_audio_on_demand(paper_call: Any) -> None:
    call = faulty(paper_call, "bad_base64")
    call.finish()
    assert any(b"@@@ not base64 @@@" in frame for frame in call.wire.frames)


def test_the_other_faults(paper_call: Any) -> None:
    call = faulty(paper_call, "go_away", seconds=9)
    call.settle(2)
    assert {"goAway": {"timeLeft": "9s"}} in call.wire.messages
    call = faulty(paper_call, "slow_pongs", "ready", seconds=12)
    assert call.wire.pongs == 12
    call = faulty(paper_call, "interrupt", "speech", after=1.0)
    call.finish()
    assert call.wire.kinds[-2:] == ["interrupted", "turnComplete"]


def test_a_fault_can_take_calls_back(paper_call: Any) -> None:
    scenario = Scenario(faults=(Fault(at="tool", do="cancel_tools"),))
    call = paper_call(scenario)
    call.setup(tools=[{"functionDeclarations": [{"name": "f", "behavior": "BLOCKING"}]}])
    call.talk.call("f", {}, ("done",), call.now)
    call.finish()
    assert call.wire.kinds[-3:] == ["toolCall", "toolCallCancellation", "turnComplete"]
    assert not call.record.said


def test_a_mute_service_takes_everything_and_says_nothing(paper_call: Any) -> None:
    call = paper_call("hang")
    call.setup()
    call.text()
    call.send("nonsense")
    call.finish()
    assert call.wire.frames == []
    assert call.wire.closed is None


def test_going_mute_in_mid_sentence(paper_call: Any) -> None:
    call = faulty(paper_call, "mute", "speech", after=0.5)
    call.finish()
    frames = len(call.wire.frames)
    call.say("ask_hours")
    call.finish()
    assert len(call.wire.frames) == frames
    assert call.record.count("turn_complete") == 0


def test_a_lifetime_can_be_any(paper_call: Any) -> None:
    call = paper_call(Scenario(lifetime=Lifetime(close_at=7, code=1008, reason="The operation was aborted.")))
    call.setup()
    call.finish()
    assert call.wire.closed == (1008, "The operation was aborted.")


# --- steering ---


def test_saying_and_calling_on_demand(paper_call: Any) -> None:
    call = paper_call()
    call.setup(tools=[{"functionDeclarations": [{"name": "f"}]}])
    call.talk.say(["one_moment", "done"], call.now)
    call.talk.call("f", {"a": 1}, ("goodbye",), call.now)
    call.finish()
    [called] = call.record.of("tool_call")
    response = {"id": called.detail["ids"][0], "name": "f", "response": {}}
    call.send({"toolResponse": {"functionResponses": [response]}})
    call.finish()
    assert [said.name for said in call.record.said] == ["one_moment+done", "goodbye"]


def test_a_turn_that_a_drop_overtook_comes_again_when_it_is_asked_again(paper_call: Any) -> None:
    first = paper_call("two_turns", think_time=1.0)
    first.setup()
    first.say("ask_hours")
    first.talk.abort(first.now)
    second = resume(paper_call, first, 2.0)
    second.say("ask_hours")
    second.finish()
    assert [said.name for said in second.record.said] == ["opening_hours"]


def test_a_client_gone_silent_is_closed_and_its_handles_die(paper_call: Any) -> None:
    first = paper_call("two_turns", silence_limit=480.0)
    first.setup()
    first.settle(400.0)
    first.hear(bytes(320))
    first.settle(479.9)
    assert first.wire.closed is None
    first.settle(0.2)
    assert first.wire.closed == (1011, "Deadline expired before operation could complete.")
    assert resume(paper_call, first, 2.0).wire.closed == (1008, "BidiGenerateContent session not found")
