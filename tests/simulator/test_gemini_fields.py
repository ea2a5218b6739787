"""The tables against the official client library's own types."""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import pytest

from ari_gemini.simulator.gemini_fields import ENUMS, MESSAGES, ONLY_V1ALPHA

SCALARS = {"str", "bytes", "bool", "int", "float", "duration", "struct", "any"}

SDK_NAMES = {
    "BidiGenerateContentSetup": "LiveClientSetup",
    "BidiGenerateContentRealtimeInput": "LiveClientRealtimeInput",
    "BidiGenerateContentClientContent": "LiveClientContent",
    "BidiGenerateContentToolResponse": "LiveClientToolResponse",
    "Empty": "ActivityStart",
}

NOT_DEVELOPER_API: dict[str, set[str]] = {
    "BidiGenerateContentSetup": {"safetySettings", "labels", "explicitVadSignal"},
    "SessionResumptionConfig": {"transparent"},
    "GenerationConfig": {
        "audioTimestamp",
        "routingConfig",
        "modelSelectionConfig",
        "enableEnhancedCivicAnswers",
        "responseFormat",
        "audioTranscriptionConfig",
    },
    "VoiceConfig": {"replicatedVoiceConfig", "voice"},
    "Schema": {"additionalProperties", "defs", "ref"},
    "Blob": {"displayName"},
    "ProactivityConfig": {"proactiveVideo"},
    "AudioTranscriptionConfig": {"languageAuto", "languageHints", "adaptationPhrases", "sourceText"},
    "RealtimeInputConfig": {"interimTranscriptTimestampEnabled"},
}
"""What the library can send elsewhere, and this service does not take."""

PARTLY = {"Tool", "Part", "FunctionResponsePart", "VideoMetadata", "BidiGenerateContentClientMessage"}
"""Messages of which the tables hold only what a voice session can use."""


@pytest.fixture(scope="module")
def types() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from google.genai import types as sdk_types
    return sdk_types


def element(kind: str) -> str:
    return kind.strip("[]{}")


def test_every_type_named_in_the_tables_is_there() -> None:
    named = {element(kind) for fields in MESSAGES.values() for kind in fields.values()}
    assert named - SCALARS - ENUMS.keys() - MESSAGES.keys() == set()
    assert all(name in MESSAGES[message] for message, name in ONLY_V1ALPHA)


def sdk_fields(types: ModuleType, message: str) -> set[str] | None:
    model: Any = getattr(types, SDK_NAMES.get(message, message), None)
    if model is None or message in PARTLY:
        return None
    return {field.alias or name for name, field in model.model_fields.items()}


@pytest.mark.parametrize("message", sorted(MESSAGES))
def test_fields_are_those_of_the_client_library(types: ModuleType, message: str) -> None:
    known = sdk_fields(types, message)
    if known is None:
        assert message in PARTLY
        return
    ours = set(MESSAGES[message])
    # The library's setup lacks what it puts there by another way.
    beyond = {"realtimeInputConfig"} if message == "BidiGenerateContentSetup" else set()
    assert ours - known == beyond
    assert known - ours == NOT_DEVELOPER_API.get(message, set())


@pytest.mark.parametrize("enum", sorted(ENUMS))
def test_enum_names_are_known_to_the_client_library(types: ModuleType, enum: str) -> None:
    name = {
        "GenerationConfig.Modality": "Modality",
        "FunctionResponse.Scheduling": "FunctionResponseScheduling",
    }
    sdk: Any = getattr(types, name.get(enum, enum.rpartition(".")[2]), None)
    if sdk is None:
        assert enum == "AudioTranscriptionConfig.Mode"
        return
    assert ENUMS[enum] <= {member.name for member in sdk}
