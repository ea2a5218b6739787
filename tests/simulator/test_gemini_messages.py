from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from ari_gemini.simulator import gemini_messages as subject
from ari_gemini.simulator.gemini_families import family_of
from ari_gemini.simulator.gemini_schema import RefusalError

INVALID = "Request contains an invalid argument."
LIVE = family_of("models/gemini-3.8-live", "v1beta")
THINKING = family_of("models/gemini-3.8-live-extended-thinking", "v1beta")
OLDER = family_of("models/gemini-3.1-flash-live-preview", "v1beta")
NATIVE = family_of("models/gemini-2.5-flash-native-audio-latest", "v1beta")


def reason(read: Any, *args: Any) -> str:
    with pytest.raises(RefusalError) as caught:
        read(*args)
    assert caught.value.code == 1007
    return caught.value.reason


@pytest.mark.parametrize("frame", ['{"realtimeInput":{"text":"hi"}}', b'{"realtime_input":{"text":"hi"}}'])
def test_text_and_binary_frames_are_read_in_both_spellings(frame: str | bytes) -> None:
    assert subject.read_frame(frame, "v1beta") == ("realtimeInput", {"text": "hi"})


@pytest.mark.parametrize(
    "frame", ["", "{", "nonsense", '{"setup":NaN}', b"\xff\xfe\x00", "[" * 5000 + "]" * 5000, '{"a":1} x']
)
def test_what_is_not_json_is_refused(frame: str | bytes) -> None:
    assert reason(subject.read_frame, frame, "v1beta").startswith("Invalid JSON payload received. Unexpected")


def test_one_key_is_the_rule() -> None:
    two = json.dumps({"setup": {}, "realtimeInput": {}})
    assert reason(subject.read_frame, two, "v1beta") == (
        "Invalid value (oneof), oneof field 'message_type' is already set. Cannot set 'realtimeInput'"
    )
    assert reason(subject.read_frame, "{}", "v1beta") == INVALID
    unknown = json.dumps({"contextUpdate": {}})
    assert (
        reason(subject.read_frame, unknown, "v1beta")
        == 'Invalid JSON payload received. Unknown name "contextUpdate": Cannot find field.'
    )


@pytest.mark.parametrize(
    ("mime", "rate", "labelled"),
    [
        ("audio/pcm;rate=16000", 16000, True),
        ("audio/pcm; rate=8000", 8000, True),
        ("Audio/PCM;rate=24000", 24000, True),
        ("audio/pcm", 16000, False),
    ],
)
def test_the_rate_is_in_the_mime_type(mime: str, rate: int, labelled: bool) -> None:
    audio = subject.read_audio({"mimeType": mime, "data": b"\1\2"})
    assert audio == subject.Audio(b"\1\2", rate, labelled)


@pytest.mark.parametrize(
    "mime",
    [
        "audio/pcmu",
        "audio/pcmu;rate=8000",
        "audio/x-mulaw",
        "audio/basic",
        "audio/pcma",
        "audio/wav",
        "audio/pcm;rate=4000",
        "audio/pcm;rate=96000",
        "",
    ],
)
def test_nothing_but_linear_pcm_is_heard(mime: str) -> None:
    assert reason(subject.read_audio, {"mimeType": mime, "data": b"\1\2"}) == INVALID


def test_half_a_sample_is_refused() -> None:
    assert reason(subject.read_audio, {"mimeType": "audio/pcm;rate=16000", "data": b"\1"}) == INVALID


def test_media_chunks_are_a_thing_of_the_past() -> None:
    data = base64.b64encode(b"\0\0").decode()
    for spelling in ("mediaChunks", "media_chunks"):
        frame = json.dumps({"realtimeInput": {spelling: [{"mimeType": "audio/pcm", "data": data}]}})
        _, body = subject.read_frame(frame, "v1beta")
        assert (
            reason(subject.check_realtime, body, False)
            == "realtime_input.media_chunks is deprecated. Use audio, video, or text instead."
        )


@pytest.mark.parametrize(
    ("body", "manual", "fine"),
    [
        ({"audioStreamEnd": True}, False, True),
        ({"audioStreamEnd": True}, True, False),
        ({"activityStart": {}}, True, True),
        ({"activityEnd": {}}, True, True),
        ({"activityStart": {}}, False, False),
        ({"activityEnd": {}}, False, False),
        ({"video": {"mimeType": "image/jpeg", "data": b""}}, False, True),
        ({"video": {"mimeType": "video/mp4", "data": b""}}, False, False),
        ({}, False, False),
    ],
)
def test_activity_belongs_to_one_kind_of_detection(body: dict[str, Any], manual: bool, fine: bool) -> None:
    if fine:
        subject.check_realtime(body, manual)
    else:
        assert reason(subject.check_realtime, body, manual) == INVALID


def content(role: str | None) -> dict[str, Any]:
    turn: dict[str, Any] = {"parts": [{"text": "hi"}]}
    if role is not None:
        turn["role"] = role
    return {"turns": [turn], "turnComplete": True}


@pytest.mark.parametrize("role", ["user", "model"])
@pytest.mark.parametrize("family", [LIVE, THINKING, NATIVE], ids=lambda family: family.name)
def test_content_with_roles_is_taken(family: Any, role: str) -> None:
    subject.check_content(content(role), family, seeding=False)


@pytest.mark.parametrize("role", [None, "system", ""])
def test_roles_are_required_on_3_x(role: str | None) -> None:
    assert reason(subject.check_content, content(role), LIVE, False) == INVALID
    if role is None:
        subject.check_content(content(role), NATIVE, seeding=False)
    else:
        assert reason(subject.check_content, content(role), NATIVE, False) == INVALID


def test_on_3_1_content_only_seeds_the_history() -> None:
    subject.check_content(content("user"), OLDER, seeding=True)
    assert reason(subject.check_content, content("user"), OLDER, False) == INVALID


def test_function_responses_do_not_travel_as_content() -> None:
    body = {"turns": [{"role": "user", "parts": [{"functionResponse": {}}]}]}
    assert reason(subject.check_content, body, LIVE, False) == INVALID


def answer(**fields: Any) -> dict[str, Any]:
    return {"functionResponses": [{"id": "1", "name": "f", "response": {"output": 1}, **fields}]}


@pytest.mark.parametrize(
    ("fields", "scheduling"),
    [
        ({}, ""),
        ({"scheduling": "SILENT"}, "SILENT"),
        ({"scheduling": "SCHEDULING_UNSPECIFIED"}, ""),
        ({"response": {"scheduling": "INTERRUPT"}}, "INTERRUPT"),
        ({"scheduling": "WHEN_IDLE", "response": {"scheduling": "INTERRUPT"}}, "WHEN_IDLE"),
    ],
)
def test_scheduling_stands_beside_the_response_or_in_it(fields: dict[str, Any], scheduling: str) -> None:
    [result] = subject.read_tool_results(answer(**fields), LIVE)
    assert (result.id, result.name, result.scheduling) == ("1", "f", scheduling)
    assert not result.will_continue


def test_scheduling_is_the_familys_business() -> None:
    body = answer(scheduling="SILENT")
    [ignored] = subject.read_tool_results(body, OLDER)
    assert ignored.scheduling == ""
    assert (
        reason(subject.read_tool_results, body, THINKING)
        == "Function response scheduling is not supported for this model"
    )


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"functionResponses": []},
        {"functionResponses": [{"name": "f", "response": {}}]},
        {"functionResponses": [{"id": "1", "name": "f"}]},
    ],
)
def test_a_result_needs_an_id_and_an_object(body: dict[str, Any]) -> None:
    assert reason(subject.read_tool_results, body, LIVE) == INVALID
