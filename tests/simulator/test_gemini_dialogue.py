from __future__ import annotations

from typing import Any

import pytest

from ari_gemini.simulator.phrases import phrase

LIVE = "models/gemini-3.8-live"
NATIVE = "models/gemini-2.5-flash-native-audio-latest"
OLDER = "models/gemini-3.1-flash-live-preview"
INVALID = (1007, "Request contains an invalid argument.")
MANUAL = {"realtimeInputConfig": {"automaticActivityDetection": {"disabled": True}}}


def said(call: Any) -> list[str]:
    return [one.name for one in call.record.said]


def content(text: str = "Hello", complete: bool | None = True, role: str | None = "user") -> dict[str, Any]:
    turn: dict[str, Any] = {"parts": [{"text": text}]}
    if role is not None:
        turn["role"] = role
    body: dict[str, Any] = {"turns": [turn]}
    if complete is not None:
        body["turnComplete"] = complete
    return {"clientContent": body}


@pytest.fixture
def opened(paper_call: Any) -> Any:
    def open_session(scenario: Any = "two_turns", model: str = LIVE, **fields: Any) -> Any:
        call = paper_call(scenario)
        call.setup(model, **fields)
        return call

    return open_session


# --- what the caller says ---


def test_a_whole_call(opened: Any) -> None:
    call = opened(tools=[{"functionDeclarations": [{"name": "hangup_call"}]}])
    call.text()
    call.finish()
    for name in ("ask_hours", "ask_order", "say_goodbye"):
        call.say(name)
        call.finish()
    assert said(call) == ["greeting", "opening_hours", "order_status", "goodbye"]
    transcripts = [event.detail["text"] for event in call.record.of("input_transcription")]
    assert transcripts == [phrase(name).text for name in ("ask_hours", "ask_order", "say_goodbye")]
    assert call.wire.kinds[-2:] == ["toolCall", "turnComplete"]


def test_the_callers_sound_is_kept_as_it_came(opened: Any) -> None:
    call = opened()
    call.say("ask_hours")
    assert call.record.heard.rate == 8000
    assert call.record.heard.pcm == phrase("ask_hours").pcm + bytes(16_000)


def test_words_come_one_by_one_on_2_5(opened: Any, kit: Any) -> None:
    call = opened(model=NATIVE)
    call.say("ask_hours")
    texts = [
        message["serverContent"]["inputTranscription"]["text"]
        for message in call.wire.messages
        if kit.kind_of(message) == "inputTranscription"
    ]
    assert texts == ["When", " are", " you", " open?"]
    assert "voiceActivity" not in call.wire.kinds


def test_unscripted_speech_is_told_by_its_length(opened: Any) -> None:
    call = opened("greeting")
    call.say("ask_hours")
    [event] = call.record.of("input_transcription")
    assert event.detail["text"] == "(0.8 s of speech)"
    call.finish()
    assert said(call) == ["anything_else"]


def test_no_transcript_unless_asked(paper_call: Any) -> None:
    call = paper_call("two_turns")
    call.send({"setup": {"model": LIVE}})
    call.settle(1)
    call.say("ask_hours")
    assert "inputTranscription" not in call.wire.kinds
    assert call.record.count("activity_end") == 1


def test_a_turn_stays_open_until_silence_comes_as_sound(opened: Any) -> None:
    call = opened()
    one = phrase("ask_hours")
    call.hear(one.pcm, one.rate)
    call.settle(30)
    assert call.record.count("activity_end") == 0
    call.send({"realtimeInput": {"audioStreamEnd": True}})
    assert call.record.count("activity_end") == 1
    call.finish()
    assert said(call) == ["opening_hours"]
    call.say("ask_order")
    call.finish()
    assert said(call) == ["opening_hours", "order_status"]


def test_the_end_of_a_silent_stream_means_nothing(opened: Any) -> None:
    call = opened()
    call.send({"realtimeInput": {"audioStreamEnd": True}})
    assert call.record.count("activity_end") == 0
    assert call.wire.closed is None


def test_the_callers_speech_interrupts(opened: Any) -> None:
    call = opened("barge_in")
    call.say("ask_delivery")
    call.settle(call.scenario.think_time + 2)
    before = len(call.wire.kinds)
    call.say("interrupt")
    call.finish()
    assert call.wire.kinds[before:] == [
        "voiceActivity",
        "interrupted",
        "audio",
        "turnComplete",
        "inputTranscription",
        "voiceActivity",
        "audio",
        "generationComplete",
        "turnComplete",
    ]
    assert said(call) == ["long_story", "go_on"]
    [interrupted] = call.record.of("interrupted")
    [start] = call.record.of("activity_start")[1:]
    assert interrupted.at == start.at


def test_a_session_may_forbid_interruptions(opened: Any) -> None:
    call = opened("barge_in", realtimeInputConfig={"activityHandling": "NO_INTERRUPTION"})
    call.say("ask_delivery")
    call.settle(call.scenario.think_time + 2)
    call.say("interrupt")
    call.finish()
    assert call.record.count("interrupted") == 0
    assert call.record.count("generation_complete") == 2
    assert said(call) == ["long_story", "go_on"]


def test_detection_follows_the_sessions_settings(opened: Any) -> None:
    def turns(**detection: Any) -> int:
        call = opened(realtimeInputConfig={"automaticActivityDetection": detection})
        goodbye = phrase("say_goodbye")
        call.hear(goodbye.pcm + bytes(32_000), pace=0)
        return int(call.record.count("activity_end"))

    assert turns() == 1
    assert turns(silenceDurationMs=200) == 2
    assert turns(prefixPaddingMs=3000) == 0


def test_sound_of_any_rate_is_counted_in_its_own_time(opened: Any, kit: Any) -> None:
    call = opened()
    call.hear(kit.silence(1000, 16_000), 16_000)
    call.hear(kit.tone(400, -20, 16_000) + kit.silence(600, 16_000), 16_000)
    [start] = call.record.of("activity_start")
    assert start.detail["offset_ms"] == 1000.0


def test_bare_pcm_is_16_khz_and_remarked_upon(opened: Any, kit: Any) -> None:
    call = opened()
    call.send(kit.audio_message(kit.tone(400, -20, 16_000) + kit.silence(600, 16_000), "audio/pcm"))
    call.send(kit.audio_message(kit.silence(20, 16_000), "audio/pcm"))
    assert call.record.heard.rate == 16_000
    assert call.record.of("activity_end")[0].detail["spoken_ms"] == 400.0
    assert call.record.count("unlabelled_audio") == 1


def test_mu_law_is_refused(opened: Any, kit: Any) -> None:
    call = opened()
    call.send(kit.audio_message(bytes(160), "audio/pcmu;rate=8000"))
    assert call.wire.closed == INVALID


def test_video_is_taken_and_noted(opened: Any) -> None:
    call = opened()
    call.send({"realtimeInput": {"video": {"mimeType": "image/jpeg", "data": "AAAA"}}})
    assert call.record.of("video")[0].detail == {"bytes": 3}


# --- text ---


def test_text_starts_a_reply_and_interrupts_one(opened: Any) -> None:
    call = opened()
    call.text()
    call.settle(call.scenario.think_time + 1)
    call.text("Say something else.")
    call.finish()
    assert [event.detail["text"] for event in call.record.of("client_text")] == [
        "Greet the caller.",
        "Say something else.",
    ]
    assert call.record.count("interrupted") == 1
    assert said(call) == ["greeting", "anything_else"]


@pytest.mark.parametrize("text", ["", " "])
def test_even_a_blank_text_is_a_nudge(opened: Any, text: str) -> None:
    call = opened()
    call.text(text)
    call.finish()
    assert said(call) == ["greeting"]


def test_content_waits_for_turn_complete_and_always_interrupts(opened: Any) -> None:
    call = opened(realtimeInputConfig={"activityHandling": "NO_INTERRUPTION"})
    call.send(content(complete=None))
    call.finish()
    assert said(call) == []
    call.send(content(complete=True))
    call.settle(call.scenario.think_time + 1)
    call.send(content(complete=False))
    call.finish()
    assert said(call) == ["greeting"]
    assert call.record.count("interrupted") == 1


@pytest.mark.parametrize("model", [LIVE, OLDER])
def test_history_is_seeded_without_a_reply(opened: Any, model: str) -> None:
    call = opened(model=model, historyConfig={"initialHistoryInClientContent": True})
    call.send(content(complete=False))
    call.send(content(complete=True, role="model"))
    call.finish()
    assert said(call) == []
    call.text(" ")
    call.finish()
    assert said(call) == ["greeting"]
    call.send(content())
    assert (call.wire.closed == INVALID) is (model == OLDER)


def test_3_1_takes_no_content_without_seeding(opened: Any) -> None:
    call = opened(model=OLDER)
    call.send(content())
    assert call.wire.closed == INVALID


@pytest.mark.parametrize(("model", "fine"), [(LIVE, False), (NATIVE, True)])
def test_roles_are_required_on_3_x(opened: Any, model: str, fine: bool) -> None:
    call = opened(model=model)
    call.send(content(role=None))
    assert call.wire.closed == (None if fine else INVALID)


# --- manual activity ---


def mark(call: Any, edge: str) -> None:
    call.send({"realtimeInput": {f"activity{edge}": {}}})


def test_manual_activity_is_what_the_client_says_it_is(opened: Any, kit: Any) -> None:
    call = opened(**MANUAL)
    call.hear(kit.tone(500, -20))
    assert call.record.count("activity_start") == 0
    mark(call, "Start")
    mark(call, "Start")
    call.hear(kit.silence(300))
    mark(call, "End")
    mark(call, "End")
    call.finish()
    assert [event.detail["offset_ms"] for event in call.record.of("activity_start")] == [500.0]
    assert [event.detail["offset_ms"] for event in call.record.of("activity_end")] == [800.0]
    assert said(call) == ["opening_hours"]


def test_manual_activity_interrupts(opened: Any, kit: Any) -> None:
    call = opened("barge_in", **MANUAL)
    call.text()
    call.settle(call.scenario.think_time + 1)
    mark(call, "Start")
    assert call.record.count("interrupted") == 1


def test_an_empty_activity_is_an_empty_turn_and_the_end(opened: Any) -> None:
    call = opened(**MANUAL)
    mark(call, "Start")
    mark(call, "End")
    assert call.wire.messages[-1] == {"serverContent": {"turnComplete": True}, "usageMetadata": {}}
    assert call.wire.closed == (1007, "Precondition check failed.")


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        (MANUAL, {"audioStreamEnd": True}),
        ({}, {"activityStart": {}}),
        ({}, {"activityEnd": {}}),
        ({}, {}),
    ],
)
def test_the_other_kind_of_detection_is_refused(opened: Any, fields: Any, body: Any) -> None:
    call = opened(**fields)
    call.send({"realtimeInput": body})
    assert call.wire.closed == INVALID


# --- tools and the caller ---


def test_2_5_does_not_listen_during_a_blocking_call(opened: Any, kit: Any) -> None:
    call = opened("tool_call", NATIVE, tools=[{"functionDeclarations": [{"name": "api_call"}]}])
    call.say("ask_order")
    call.finish()
    assert call.wire.kinds[-1] == "toolCall"
    call.send(kit.audio_message(kit.silence(20)))
    assert call.wire.closed == (1008, "Operation is not implemented, or supported, or enabled.")


@pytest.mark.parametrize(
    ("model", "behavior"), [(LIVE, "BLOCKING"), (NATIVE, "NON_BLOCKING"), (OLDER, "BLOCKING")]
)
def test_everyone_else_does(opened: Any, kit: Any, model: str, behavior: str) -> None:
    declared = [{"functionDeclarations": [{"name": "api_call", "behavior": behavior}]}]
    call = opened("tool_call", model, tools=declared)
    call.say("ask_order")
    call.finish()
    call.send(kit.audio_message(kit.silence(20)))
    assert call.wire.closed is None


# --- models that do not answer ---


def test_a_silent_model_hears_and_says_nothing(opened: Any) -> None:
    call = opened("silent_model")
    call.text()
    call.say("ask_hours")
    call.finish()
    assert call.wire.kinds[2:] == ["voiceActivity", "inputTranscription", "voiceActivity"]


def test_a_waiting_model_says_so(opened: Any) -> None:
    call = opened("waiting_model")
    call.text()
    call.finish()
    assert call.wire.messages[-1] == {"serverContent": {"waitingForInput": True}}


def test_a_second_setup_is_refused(opened: Any) -> None:
    call = opened()
    call.send({"setup": {"model": LIVE}})
    assert call.wire.closed == INVALID


def test_client_messages_are_kept_as_read(opened: Any) -> None:
    call = opened()
    call.text("Hi")
    call.send(content("There"))
    assert [message.kind for message in call.record.messages] == ["text", "clientContent"]
    assert call.record.messages[0].body == {"text": "Hi"}
