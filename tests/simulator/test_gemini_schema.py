from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ari_gemini.simulator import gemini_schema as subject
from ari_gemini.simulator.gemini_schema import RefusalError

SETUP = "BidiGenerateContentSetup"
REALTIME = "BidiGenerateContentRealtimeInput"
API = "type.googleapis.com/google.ai.generativelanguage.v1beta"
NOT_REPEATING = "Proto field is not repeating, cannot start list."
JSON_RECEIVED = "Invalid JSON payload received."


def read(value: object, message: str = SETUP, path: str = "setup", version: str = "v1beta") -> dict[str, Any]:
    return subject.read_message(value, message, path, version)


def refusal(value: object, message: str = SETUP, path: str = "setup", version: str = "v1beta") -> str:
    with pytest.raises(RefusalError) as caught:
        read(value, message, path, version)
    assert caught.value.code == 1007
    assert len(caught.value.reason.encode()) <= 123
    return caught.value.reason


def test_both_spellings_become_one() -> None:
    assert read({"generation_config": {"speechConfig": {"language_code": "en-US"}}}) == {
        "generationConfig": {"speechConfig": {"languageCode": "en-US"}}
    }


@pytest.mark.parametrize(
    ("setup", "name", "where"),
    [
        ({"nonsense": 1}, "nonsense", "setup"),
        ({"generationConfig": {"audioTimestamp": True}}, "audioTimestamp", "setup.generation_config"),
        ({"generation_config": {"x": 1}}, "x", "setup.generation_config"),
        ({"sessionResumption": {"transparent": True}}, "transparent", "setup.session_resumption"),
        ({"safetySettings": []}, "safetySettings", "setup"),
        ({"labels": {}}, "labels", "setup"),
        ({"explicitVadSignal": True}, "explicitVadSignal", "setup"),
        ({"proactivity": {"proactiveAudio": True}}, "proactivity", "setup"),
        (
            {"generationConfig": {"enableAffectiveDialog": True}},
            "enableAffectiveDialog",
            "setup.generation_config",
        ),
        (
            {"realtimeInputConfig": {"automaticActivityDetection": {"threshold": 0.5}}},
            "threshold",
            "setup.realtime_input_config.automatic_activity_detection",
        ),
    ],
)
def test_an_unknown_field_is_named_with_its_snake_case_path(
    setup: dict[str, Any], name: str, where: str
) -> None:
    text = f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}': Cannot find field."
    assert refusal(setup) == text[:123]


@pytest.mark.parametrize("name", ["additionalProperties", "$schema", "const"])
def test_json_schema_words_are_unknown_to_the_openapi_subset(name: str) -> None:
    parameters = {"type": "OBJECT", "properties": {"to": {"type": "STRING", name: "x"}}}
    setup = {"tools": [{"functionDeclarations": [{"name": "f", "parameters": parameters}]}]}
    reason = refusal(setup)
    assert reason.startswith(f'Invalid JSON payload received. Unknown name "{name}" at')
    setup = {"tools": [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": parameters}]}]}
    assert read(setup)


def test_the_top_of_a_message_has_no_path() -> None:
    assert (
        refusal({"foo": {}}, "BidiGenerateContentClientMessage", "")
        == 'Invalid JSON payload received. Unknown name "foo": Cannot find field.'
    )


def test_v1alpha_knows_two_more_fields() -> None:
    setup = {"proactivity": {"proactiveAudio": True}, "generationConfig": {"enableAffectiveDialog": True}}
    assert read(setup, version="v1alpha") == setup


def test_values_are_read_by_the_rules_of_proto3_json() -> None:
    assert read(
        {
            "generationConfig": {
                "temperature": "0.5",
                "topK": 40.0,
                "maxOutputTokens": "4096",
                "responseModalities": ["audio"],
                "seed": None,
            },
            "contextWindowCompression": {"triggerTokens": "25000", "slidingWindow": {"targetTokens": 8000}},
            "avatarConfig": {"any": ["thing"]},
        }
    ) == {
        "generationConfig": {
            "temperature": 0.5,
            "topK": 40,
            "maxOutputTokens": 4096,
            "responseModalities": ["AUDIO"],
        },
        "contextWindowCompression": {"triggerTokens": 25000, "slidingWindow": {"targetTokens": 8000}},
        "avatarConfig": {"any": ["thing"]},
    }
    content = {"parts": [{"text": "x", "videoMetadata": {"startOffset": "1.500s"}}]}
    assert read(content, "Content", "c")["parts"][0]["videoMetadata"] == {"startOffset": 1.5}


@pytest.mark.parametrize(
    ("setup", "reason"),
    [
        ({"model": 1}, "Invalid value at 'setup.model' (TYPE_STRING), \"1\""),
        (
            {"generationConfig": {"temperature": "hot"}},
            "Invalid value at 'setup.generation_config.temperature' (TYPE_FLOAT), \"hot\"",
        ),
        (
            {"generationConfig": {"temperature": True}},
            "Invalid value at 'setup.generation_config.temperature' (TYPE_FLOAT), \"True\"",
        ),
        (
            {"generationConfig": {"seed": 1.5}},
            "Invalid value at 'setup.generation_config.seed' (TYPE_INT64), \"1.5\"",
        ),
        (
            {"generationConfig": {"seed": True}},
            "Invalid value at 'setup.generation_config.seed' (TYPE_INT64), \"True\"",
        ),
        (
            {"historyConfig": {"initialHistoryInClientContent": "yes"}},
            "Invalid value at 'setup.history_config.initial_history_in_client_content' (TYPE_BOOL), \"yes\"",
        ),
        (
            {"generationConfig": {"responseModalities": ["SMELL"]}},
            f"Invalid value at 'setup.generation_config.response_modalities[0]' ({API}.GenerationConfig.Mod",
        ),
        (
            {"systemInstruction": "Be kind."},
            f"Invalid value at 'setup.system_instruction' ({API}.Content), \"Be kind.\"",
        ),
        (
            {"model": ["m"]},
            f"{JSON_RECEIVED} Unknown name \"model\" at 'setup.model': {NOT_REPEATING}",
        ),
        (
            {"avatarConfig": 1},
            "Invalid value at 'setup.avatar_config' (type.googleapis.com/google.protobuf.Struct), \"1\"",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_type(setup: dict[str, Any], reason: str) -> None:
    assert refusal(setup) == reason[:123]


def test_a_wrong_duration_is_refused() -> None:
    part = {"text": "x", "videoMetadata": {"startOffset": "1,5"}}
    assert "google.protobuf.Duration" in refusal(part, "Part", "p")


@given(st.binary(max_size=60), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_both_base64_alphabets_are_read_padded_or_not(data: bytes, url_safe: bool, padded: bool) -> None:
    text = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(data).decode()
    blob = {"audio": {"data": text if padded else text.rstrip("=")}}
    assert read(blob, REALTIME, "realtime_input")["audio"]["data"] == data


@pytest.mark.parametrize("data", ["@@@@", "abcde", "ab cd", "ab=cd", "äöü="])
def test_undecodable_base64_is_refused(data: str) -> None:
    reason = refusal({"audio": {"data": data}}, REALTIME, "realtime_input")
    assert reason.startswith(
        "Invalid value at 'realtime_input.audio.data' (TYPE_BYTES), Base64 decoding failed"
    )


def test_bytes_must_be_a_string() -> None:
    assert "TYPE_BYTES" in refusal({"audio": {"data": 5}}, REALTIME, "realtime_input")


def test_reasons_are_cut_between_characters() -> None:
    assert subject.cut_reason("a" * 200) == "a" * 123
    assert subject.cut_reason("a" * 122 + "é") == "a" * 122
    assert RefusalError(1008, "b" * 200).reason == "b" * 123


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["model", "tools", "generationConfig", "parts", "text", "x", "responseModalities"]
            )
            | st.text(max_size=4),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(JSON)
@settings(max_examples=150, deadline=None)
def test_any_json_is_read_or_refused_and_nothing_else(value: object) -> None:
    try:
        outcome: object = read(value)
    except RefusalError as refused:
        outcome = refused
    assert isinstance(outcome, dict) or outcome.code == 1007
