"""Every message the simulator can send, against the official client library's own types."""

from __future__ import annotations

import base64
import warnings
from typing import Any

import pytest

from ari_gemini.simulator import gemini_frames as subject


@pytest.fixture(scope="module")
def message_type() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from google.genai import types
    return types.LiveServerMessage


MESSAGES: dict[str, Any] = {
    "setup complete": subject.setup_complete(),
    "handle": subject.resumption_update("cd613e30-d8f1-4adf-91b7-584a2265b1f5"),
    "go away": subject.go_away(50),
    "caller text": subject.caller_text("Hello"),
    "model text": subject.model_text("Hello"),
    "audio": subject.audio(b"\0\1\2\3", role=True, text="Hello"),
    "audio alone": subject.audio(b"\0\1", role=False),
    "url-safe audio": subject.audio(b"\xff\xfe\xfb\xff", role=False, url_safe=True),
    "thought": subject.thought("Hm."),
    "generation complete": subject.generation_complete(),
    "interrupted": subject.interrupted(),
    "waiting": subject.waiting_for_input(),
    "turn complete": subject.turn_complete(subject.usage(12, 30)),
    "turn complete, idle": subject.turn_complete(subject.usage(12, 30), "IDLE"),
    "turn complete, in progress": subject.turn_complete({}, "IN_PROGRESS"),
    "tool call": subject.tool_call([("call_1", "f", {"a": 1}), ("call_2", "g", {})]),
    "tool cancelled": subject.tool_cancelled(["call_1"]),
    "empty": subject.EMPTY[0],
    "empty content": subject.EMPTY[1],
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_are_those_of_the_client_library(message_type: Any, name: str) -> None:
    message = MESSAGES[name]
    back = message_type.model_validate(message).model_dump(by_alias=True, exclude_none=True, mode="json")
    assert set(back) == set(message)


def test_voice_activity_is_the_one_field_the_library_renames(message_type: Any) -> None:
    message = subject.activity("start", 1880)
    assert message == {"voiceActivity": {"type": "ACTIVITY_START", "audioOffset": "1.880s"}}
    renamed = {"voiceActivity": {"voiceActivityType": "ACTIVITY_START", "audioOffset": "1.880s"}}
    assert message_type.model_validate(renamed)


def test_audio_is_24_khz_and_names_its_role_only_where_the_family_does() -> None:
    turn = subject.audio(b"\0\1", role=True)["serverContent"]["modelTurn"]
    assert turn["role"] == "model"
    assert turn["parts"][0]["inlineData"]["mimeType"] == "audio/pcm;rate=24000"
    assert "role" not in subject.audio(b"\0\1", role=False)["serverContent"]["modelTurn"]


def test_base64_comes_in_the_alphabet_asked_for() -> None:
    pcm = bytes([0xFB, 0xEF, 0xFF, 0xFE])

    def data(url_safe: bool) -> str:
        message = subject.audio(pcm, role=True, url_safe=url_safe)
        return str(message["serverContent"]["modelTurn"]["parts"][0]["inlineData"]["data"])

    assert data(False) == base64.b64encode(pcm).decode()
    assert data(True) == base64.urlsafe_b64encode(pcm).decode()
    assert data(True) != data(False)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "5s"), (5.0, "5s"), (1.88, "1.880s"), (0.0005, "0s"), (0.001, "0.001s"), (50, "50s")],
)
def test_durations_carry_decimals_only_when_they_have_any(seconds: float, text: str) -> None:
    assert subject.duration(seconds) == text
