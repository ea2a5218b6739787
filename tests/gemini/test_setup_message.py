from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ari_gemini.errors import SetupRefused
from ari_gemini.gemini.settings import GeminiSettings
from ari_gemini.gemini.setup_message import encode_setup
from ari_gemini.realtime.functions import FunctionDeclaration
from ari_gemini.realtime.session import ActivityDetection, ContextCompression, SessionSettings

Validated = Callable[..., dict[str, Any]]

MODELS = {
    "gemini-3.8-live": None,
    "gemini-3.8-live-extended-thinking": "low",
    "gemini-3.1-flash-live-preview": "minimal",
    "gemini-2.5-flash-native-audio-preview-12-2025": "0",
}
"""Each family's model, and a thinking setting that it takes."""

TOOLS = (
    FunctionDeclaration(
        "transfer_call",
        "Put the caller through.",
        {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]},
    ),
    FunctionDeclaration("hangup_call", "Hang up.", {"type": "object", "properties": {}}),
    FunctionDeclaration("look_around", "See who is there.", blocking=True),
)
EVERYTHING = SessionSettings(
    voice="Aoede",
    language="de-AT",
    temperature=0.7,
    instructions='Sag "Grüß Gott" 👋.',
    activity_detection=ActivityDetection(
        start_sensitivity="low",
        end_sensitivity="high",
        prefix_padding_ms=20,
        silence_duration_ms=500,
        interruptions=False,
        turn_coverage="all_input",
    ),
    context_compression=ContextCompression(trigger_tokens=25_000, target_tokens=8_000),
    tools=TOOLS,
)


def test_everything_at_once() -> None:
    """The bytes as they go out."""
    expected = (
        '{"setup":{"model":"models/gemini-3.8-live","generationConfig":{"responseModalities":["AUDIO"],'
        '"speechConfig":{"voiceConfig":{"prebuiltVoiceConfig":{"voiceName":"Aoede"}},"languageCode":"de-AT"},'
        '"temperature":0.7},"systemInstruction":{"parts":[{"text":"Sag \\"Grüß Gott\\" 👋."}]},'
        '"tools":[{"functionDeclarations":[{"name":"transfer_call","description":"Put the caller through.",'
        '"parameters":{"type":"OBJECT","properties":{"to":{"type":"STRING"}},"required":["to"]},'
        '"behavior":"NON_BLOCKING"},'
        '{"name":"hangup_call","description":"Hang up.","behavior":"NON_BLOCKING"},'
        '{"name":"look_around","description":"See who is there.","behavior":"BLOCKING"}]}],'
        '"realtimeInputConfig":{"automaticActivityDetection":{'
        '"startOfSpeechSensitivity":"START_SENSITIVITY_LOW","endOfSpeechSensitivity":"END_SENSITIVITY_HIGH",'
        '"prefixPaddingMs":20,"silenceDurationMs":500},"activityHandling":"NO_INTERRUPTION",'
        '"turnCoverage":"TURN_INCLUDES_ALL_INPUT"},"inputAudioTranscription":{},"outputAudioTranscription":{},'
        '"sessionResumption":{"handle":"h-1"},'
        '"contextWindowCompression":{"triggerTokens":"25000","slidingWindow":{"targetTokens":"8000"}}}}'
    )
    assert encode_setup(GeminiSettings(), EVERYTHING, "h-1").decode() == expected


def test_the_least() -> None:
    session = SessionSettings(
        transcribe_caller=False, transcribe_model=False, resumption=False, context_compression=None
    )
    expected = (
        '{"setup":{"model":"models/gemini-3.8-live","generationConfig":{"responseModalities":["AUDIO"]}}}'
    )
    assert encode_setup(GeminiSettings(), session).decode() == expected


def test_the_defaults() -> None:
    setup = json.loads(encode_setup(GeminiSettings(), SessionSettings()))["setup"]
    assert setup == {
        "model": "models/gemini-3.8-live",
        "generationConfig": {"responseModalities": ["AUDIO"]},
        "inputAudioTranscription": {},
        "outputAudioTranscription": {},
        "sessionResumption": {},
        "contextWindowCompression": {"slidingWindow": {}},
    }


@pytest.mark.parametrize("name", ["gemini-3.8-live", "models/gemini-3.8-live"])
def test_the_model_is_named_as_the_wire_wants_it(name: str) -> None:
    setup = json.loads(encode_setup(GeminiSettings(model=name), SessionSettings()))["setup"]
    assert setup["model"] == "models/gemini-3.8-live"


@pytest.mark.parametrize("seeded", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_a_history_is_announced_where_it_must_be(model: str, seeded: bool, validated: Validated) -> None:
    fitting = SessionSettings(thinking=MODELS[model])
    message = validated(encode_setup(GeminiSettings(model=model), fitting, seeded=seeded), model)
    announced = {"initialHistoryInClientContent": True} if seeded and "3.1" in model else None
    assert message["setup"].get("historyConfig") == announced


@pytest.mark.parametrize("model", MODELS)
def test_every_family_takes_its_setup(model: str, validated: Validated) -> None:
    settings = GeminiSettings(model=model)
    for session, handle, tools in itertools.product(
        (SessionSettings(), EVERYTHING), (None, "h-1"), ((), TOOLS[:2])
    ):
        fitting = session.model_copy(update={"thinking": MODELS[model], "tools": tools})
        validated(encode_setup(settings, fitting, handle), model)


@pytest.mark.parametrize(
    ("model", "thinking", "config"),
    [
        ("gemini-3.8-live-extended-thinking", "low", {"thinkingLevel": "LOW"}),
        ("gemini-3.8-live-extended-thinking", " High ", {"thinkingLevel": "HIGH"}),
        ("gemini-3.1-flash-live-preview", "minimal", {"thinkingLevel": "MINIMAL"}),
        ("gemini-2.5-flash-native-audio-latest", "0", {"thinkingBudget": 0}),
        ("gemini-2.5-flash-native-audio-latest", "-1", {"thinkingBudget": -1}),
        ("gemini-2.5-flash-native-audio-latest", "1024", {"thinkingBudget": 1024}),
        ("gemini-4-live", "medium", {"thinkingLevel": "MEDIUM"}),
        ("gemini-4-live", "5", {"thinkingBudget": 5}),
    ],
)
def test_thinking(model: str, thinking: str, config: dict[str, Any]) -> None:
    message = json.loads(encode_setup(GeminiSettings(model=model), SessionSettings(thinking=thinking)))
    assert message["setup"]["generationConfig"]["thinkingConfig"] == config


@pytest.mark.parametrize("model", ["gemini-3.8-live", "gemini-3.1-flash-live-preview", "gemini-4-live"])
def test_thinking_is_sent_only_when_asked_for(model: str) -> None:
    message = json.loads(encode_setup(GeminiSettings(model=model), SessionSettings()))
    assert "thinkingConfig" not in message["setup"]["generationConfig"]


LEVELS = "low or medium or high"
BUDGET = r"a number of tokens \(-1 to 32768\)"


@pytest.mark.parametrize(
    ("model", "thinking", "why"),
    [
        ("gemini-3.8-live", "low", "gemini-3.8-live takes no thinking setting: remove thinking = 'low'"),
        ("gemini-3.8-live", "0", "takes no thinking setting"),
        ("gemini-3.8-live-extended-thinking", None, f"needs thinking = {LEVELS}$"),
        ("gemini-3.8-live-extended-thinking", "minimal", f"takes thinking = {LEVELS}, not 'minimal'"),
        ("gemini-3.8-live-extended-thinking", "100", f"takes thinking = {LEVELS}, not '100'"),
        ("gemini-3.1-flash-live-preview", "a lot", f"takes thinking = minimal or {LEVELS}, not 'a lot'"),
        ("gemini-2.5-flash-native-audio-latest", "low", f"takes thinking = {BUDGET}, not 'low'"),
        ("gemini-2.5-flash-native-audio-latest", "-2", f"takes thinking = {BUDGET}, not '-2'"),
        ("gemini-2.5-flash-native-audio-latest", "--1", f"takes thinking = {BUDGET}, not '--1'"),
        ("gemini-2.5-flash-native-audio-latest", "²", f"takes thinking = {BUDGET}, not '²'"),
        ("gemini-2.5-flash-native-audio-latest", "40000", f"takes thinking = {BUDGET}, not '40000'"),
    ],
)
def test_thinking_that_the_family_refuses(model: str, thinking: str | None, why: str) -> None:
    with pytest.raises(SetupRefused, match=why):
        encode_setup(GeminiSettings(model=model), SessionSettings(thinking=thinking))


def tool(**given: Any) -> FunctionDeclaration:
    return FunctionDeclaration(**({"name": "do", "description": "Do it."} | given))


@pytest.mark.parametrize(
    ("model", "blocking", "behavior"),
    [
        ("gemini-3.8-live", None, "NON_BLOCKING"),
        ("gemini-3.8-live", True, "BLOCKING"),
        ("gemini-3.8-live", False, "NON_BLOCKING"),
        ("gemini-3.8-live-extended-thinking", None, None),
        ("gemini-3.8-live-extended-thinking", False, None),
        ("gemini-3.1-flash-live-preview", None, None),
        ("gemini-3.1-flash-live-preview", True, None),
        ("gemini-2.5-flash-native-audio-latest", None, "NON_BLOCKING"),
        ("gemini-2.5-flash-native-audio-latest", False, "NON_BLOCKING"),
        ("gemini-4-live", None, "NON_BLOCKING"),
    ],
)
def test_behavior(model: str, blocking: bool | None, behavior: str | None) -> None:
    session = SessionSettings(thinking=MODELS.get(model), tools=(tool(blocking=blocking),))
    message = json.loads(encode_setup(GeminiSettings(model=model), session))
    (declaration,) = message["setup"]["tools"][0]["functionDeclarations"]
    assert declaration.get("behavior") == behavior, "said only where there is a choice"


@pytest.mark.parametrize(
    ("model", "given", "why"),
    [
        (
            "gemini-3.8-live-extended-thinking",
            {"blocking": True},
            "tool do: model .* takes no BLOCKING functions",
        ),
        ("gemini-3.1-flash-live-preview", {"blocking": False}, "takes no NON_BLOCKING functions"),
        ("gemini-3.8-live", {"name": "1st"}, "tool '1st': a name is a letter"),
        (
            "gemini-3.8-live",
            {"parameters": {"properties": {"a": {"$ref": "#"}}}},
            r"tool do\.a: \$ref cannot",
        ),
    ],
)
def test_tools_that_cannot_be(model: str, given: dict[str, Any], why: str) -> None:
    session = SessionSettings(thinking=MODELS[model], tools=(tool(**given),))
    with pytest.raises(SetupRefused, match=why):
        encode_setup(GeminiSettings(model=model), session)


def test_a_handle_is_sent_even_when_no_further_one_is_wanted() -> None:
    message = json.loads(encode_setup(GeminiSettings(), SessionSettings(resumption=False), "h-1"))
    assert message["setup"]["sessionResumption"] == {"handle": "h-1"}


@pytest.mark.parametrize(
    ("given", "config"),
    [
        ({}, {"slidingWindow": {}}),
        ({"trigger_tokens": 9}, {"triggerTokens": "9", "slidingWindow": {}}),
        ({"target_tokens": 9}, {"slidingWindow": {"targetTokens": "9"}}),
    ],
)
def test_compression(given: dict[str, int], config: dict[str, Any]) -> None:
    session = SessionSettings(context_compression=ContextCompression(**given))
    message = json.loads(encode_setup(GeminiSettings(), session))
    assert message["setup"]["contextWindowCompression"] == config


def test_compression_that_cannot_be() -> None:
    session = SessionSettings(context_compression=ContextCompression(trigger_tokens=8, target_tokens=8))
    with pytest.raises(SetupRefused, match="target_tokens 8 must be below trigger_tokens 8"):
        encode_setup(GeminiSettings(), session)


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.none(), strategy)


SESSIONS = st.builds(
    SessionSettings,
    voice=optional(st.text(max_size=5)),
    language=optional(st.text(max_size=5)),
    temperature=optional(st.floats(0, 2)),
    instructions=st.text(st.characters(), max_size=20),
    activity_detection=st.builds(
        ActivityDetection,
        start_sensitivity=optional(st.sampled_from(["low", "high"])),
        end_sensitivity=optional(st.sampled_from(["low", "high"])),
        prefix_padding_ms=optional(st.integers(0, 10_000)),
        silence_duration_ms=optional(st.integers(0, 60_000)),
        interruptions=st.booleans(),
        turn_coverage=optional(
            st.sampled_from(["only_activity", "all_input", "audio_activity_and_all_video"])
        ),
    ),
    transcribe_caller=st.booleans(),
    transcribe_model=st.booleans(),
    resumption=st.booleans(),
    context_compression=optional(
        st.builds(
            ContextCompression,
            trigger_tokens=optional(st.integers(1001, 2**40)),
            target_tokens=optional(st.integers(1, 1000)),
        )
    ),
)


@hypothesis_settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(session=SESSIONS, handle=optional(st.text(max_size=40)), model=st.sampled_from(sorted(MODELS)))
def test_any_session_makes_a_valid_setup(
    session: SessionSettings, handle: str | None, model: str, validated: Validated
) -> None:
    fitting = session.model_copy(update={"thinking": MODELS[model]})
    message = validated(encode_setup(GeminiSettings(model=model), fitting, handle), model)
    assert ("sessionResumption" in message["setup"]) is (session.resumption or bool(handle))
