from __future__ import annotations

from typing import Any

import pytest

from ari_gemini.simulator.gemini_schema import RefusalError, read_message
from ari_gemini.simulator.gemini_setup import AcceptedSetup, accept_setup

LIVE = "gemini-3.8-live"
THINKING = "gemini-3.8-live-extended-thinking"
OLDER = "gemini-3.1-flash-live-preview"
NATIVE = "gemini-2.5-flash-native-audio-latest"
INVALID = "Request contains an invalid argument."
NO_THINKING = "Thinking level is not supported for this model"


def accept(model: str = LIVE, version: str = "v1beta", **fields: Any) -> AcceptedSetup:
    setup = {"model": f"models/{model}", **fields}
    return accept_setup(read_message(setup, "BidiGenerateContentSetup", "setup", version), version)


def refusal(model: str = LIVE, version: str = "v1beta", **fields: Any) -> tuple[int, str]:
    with pytest.raises(RefusalError) as caught:
        accept(model, version, **fields)
    return caught.value.code, caught.value.reason


def thinking(**config: Any) -> dict[str, Any]:
    return {"generationConfig": {"thinkingConfig": config}}


def function(**fields: Any) -> dict[str, Any]:
    return {"tools": [{"functionDeclarations": [{"name": "hangup_call", **fields}]}]}


def test_a_bare_setup_opens_a_session_with_the_services_defaults() -> None:
    session = accept()
    assert session.family.name == "3.8"
    assert not session.manual_activity
    assert session.interruptions
    assert session.tools == {}
    assert not session.transcribe_caller
    assert not session.transcribe_model
    assert not session.seeded_history
    assert not session.resumption_asked
    assert session.handle is None


def test_everything_a_telephone_bridge_sends_is_understood() -> None:
    session = accept(
        generationConfig={
            "responseModalities": ["AUDIO"],
            "speechConfig": {
                "voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}},
                "languageCode": "en-US",
            },
            "temperature": 0.7,
        },
        systemInstruction={"parts": [{"text": "Be kind."}]},
        tools=[
            {
                "functionDeclarations": [
                    {"name": "a", "description": "d", "parameters": {"type": "object", "properties": {}}},
                    {"name": "b", "behavior": "BLOCKING"},
                    {"name": "c", "parametersJsonSchema": {"type": "object", "additionalProperties": False}},
                ]
            },
            {"googleSearch": {}},
        ],
        realtimeInputConfig={
            "automaticActivityDetection": {
                "startOfSpeechSensitivity": "START_SENSITIVITY_LOW",
                "endOfSpeechSensitivity": "END_SENSITIVITY_LOW",
                "prefixPaddingMs": 20,
                "silenceDurationMs": 300,
            },
            "activityHandling": "NO_INTERRUPTION",
            "turnCoverage": "TURN_INCLUDES_ONLY_ACTIVITY",
        },
        inputAudioTranscription={},
        outputAudioTranscription={},
        sessionResumption={"handle": "h"},
        contextWindowCompression={"triggerTokens": "25000", "slidingWindow": {"targetTokens": "8000"}},
        historyConfig={"initialHistoryInClientContent": True},
    )
    assert session.tools == {"a": "NON_BLOCKING", "b": "BLOCKING", "c": "NON_BLOCKING"}
    assert (session.voice.prefix_ms, session.voice.silence_ms) == (20, 300)
    assert session.voice.start_dbfs > accept().voice.start_dbfs
    assert not session.interruptions
    assert session.transcribe_caller
    assert session.transcribe_model
    assert session.seeded_history
    assert session.handle == "h"


def test_a_model_is_needed() -> None:
    with pytest.raises(RefusalError, match=INVALID):
        accept_setup({}, "v1beta")
    assert refusal("gemini-1")[0] == 1008


@pytest.mark.parametrize(
    ("model", "fields", "reason"),
    [
        (LIVE, thinking(), NO_THINKING),
        (LIVE, thinking(thinkingLevel="LOW"), NO_THINKING),
        (THINKING, {}, "Thinking level must be specified for this model"),
        (THINKING, thinking(includeThoughts=True), "Thinking level must be specified for this model"),
        (THINKING, thinking(thinkingLevel="MINIMAL"), NO_THINKING),
        (THINKING, thinking(thinkingLevel="LOW", thinkingBudget=5), INVALID),
        (OLDER, thinking(thinkingBudget=5), INVALID),
        (NATIVE, thinking(thinkingLevel="LOW"), NO_THINKING),
    ],
)
def test_thinking_is_refused_where_the_family_has_none(
    model: str, fields: dict[str, Any], reason: str
) -> None:
    assert refusal(model, **fields) == (1007, reason)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (THINKING, thinking(thinkingLevel="HIGH", includeThoughts=True)),
        (OLDER, thinking(thinkingLevel="minimal")),
        (OLDER, {}),
        (NATIVE, thinking(thinkingBudget=0)),
        (NATIVE, {}),
    ],
)
def test_thinking_is_taken_where_the_family_has_it(model: str, fields: dict[str, Any]) -> None:
    session = accept(model, **fields)
    assert session.include_thoughts is (model == THINKING)


@pytest.mark.parametrize(
    ("generation", "reason"),
    [
        (
            {
                "responseModalities": ["TEXT"],
                "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}},
            },
            "Cannot extract voices from a non-audio request",
        ),
        ({"responseModalities": ["TEXT"]}, INVALID),
        ({"responseModalities": ["TEXT", "AUDIO"]}, INVALID),
        ({"responseMimeType": "application/json"}, INVALID),
        ({"stopSequences": ["x"]}, INVALID),
        ({"speechConfig": {"multiSpeakerVoiceConfig": {}}}, INVALID),
        ({"temperature": 2.5}, INVALID),
    ],
)
def test_what_is_not_live_speech_is_refused(generation: dict[str, Any], reason: str) -> None:
    assert refusal(generationConfig=generation) == (1007, reason)


@pytest.mark.parametrize(
    ("model", "fields", "reason"),
    [
        (THINKING, function(behavior="BLOCKING"), INVALID),
        (OLDER, function(behavior="NON_BLOCKING"), INVALID),
        (LIVE, function(name="9lives"), INVALID),
        (LIVE, function(name="a" * 129), INVALID),
        (LIVE, function(name=""), INVALID),
        (LIVE, function(parameters={"type": "STRING"}), INVALID),
        (LIVE, function(parameters={"type": "OBJECT"}, parametersJsonSchema={}), INVALID),
        (LIVE, {"tools": [{"codeExecution": {}}]}, INVALID),
        (
            LIVE,
            {"tools": [{"functionDeclarations": [{"name": "f"}, {"name": "f"}]}]},
            "Duplicate function declaration found: f",
        ),
    ],
)
def test_wrong_tools_are_refused(model: str, fields: dict[str, Any], reason: str) -> None:
    if model == THINKING:
        fields = {**fields, **thinking(thinkingLevel="LOW")}
    assert refusal(model, **fields) == (1007, reason)


@pytest.mark.parametrize(
    ("model", "behavior", "meant"),
    [
        (LIVE, "UNSPECIFIED", "NON_BLOCKING"),
        (LIVE, "BLOCKING", "BLOCKING"),
        (OLDER, "UNSPECIFIED", "BLOCKING"),
        (NATIVE, "UNSPECIFIED", "BLOCKING"),
        (NATIVE, "NON_BLOCKING", "NON_BLOCKING"),
    ],
)
def test_behavior_defaults_to_the_familys(model: str, behavior: str, meant: str) -> None:
    assert accept(model, **function(behavior=behavior)).tools == {"hangup_call": meant}


@pytest.mark.parametrize(
    ("model", "wanted", "fine"),
    [
        (LIVE, True, True),
        (LIVE, False, False),
        (NATIVE, True, True),
        (NATIVE, False, True),
        (OLDER, True, False),
    ],
)
def test_proactivity_is_the_familys_business(model: str, wanted: bool, fine: bool) -> None:
    fields = {"proactivity": {"proactiveAudio": wanted}}
    if fine:
        assert accept(model, "v1alpha", **fields)
    else:
        assert refusal(model, "v1alpha", **fields) == (1007, INVALID)


def test_affective_dialog_is_for_2_5_alone() -> None:
    fields = {"generationConfig": {"enableAffectiveDialog": True}}
    assert accept(NATIVE, "v1alpha", **fields)
    assert refusal(LIVE, "v1alpha", **fields) == (1007, INVALID)


@pytest.mark.parametrize(
    "fields",
    [
        {"systemInstruction": {"parts": [{"inlineData": {"mimeType": "image/png", "data": ""}}]}},
        {"contextWindowCompression": {"triggerTokens": 100, "slidingWindow": {"targetTokens": 100}}},
        {"contextWindowCompression": {"triggerTokens": 0}},
        {"realtimeInputConfig": {"automaticActivityDetection": {"prefixPaddingMs": -1}}},
        {"realtimeInputConfig": {"automaticActivityDetection": {"silenceDurationMs": "-5"}}},
    ],
)
def test_impossible_values_are_refused(fields: dict[str, Any]) -> None:
    assert refusal(**fields) == (1007, INVALID)
