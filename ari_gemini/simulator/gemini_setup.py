"""Accepting or refusing a session's ``setup`` as the chosen model's family does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ari_gemini.simulator.gemini_families import Family, family_of
from ari_gemini.simulator.gemini_schema import RefusalError, invalid_argument
from ari_gemini.simulator.gemini_voice import VoiceSettings

Json = Mapping[str, Any]

_FUNCTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
"""FunctionDeclaration.name, Gemini API reference: letter or underscore first, at most 128 characters."""

_NOT_IN_LIVE = frozenset(
    {
        "responseLogprobs",
        "responseMimeType",
        "logprobs",
        "responseSchema",
        "responseJsonSchema",
        "stopSequences",
    }
)
"""Fields of GenerationConfig that the Live API reference excludes."""

THINKING_NOT_SUPPORTED = "Thinking level is not supported for this model"
THINKING_REQUIRED = "Thinking level must be specified for this model"
VOICE_WITHOUT_AUDIO = "Cannot extract voices from a non-audio request"


@dataclass(frozen=True, slots=True)
class AcceptedSetup:
    """What a session goes by once its setup is accepted."""

    model: str
    family: Family
    voice: VoiceSettings
    manual_activity: bool
    """The client marks activityStart and activityEnd itself."""
    interruptions: bool
    tools: Mapping[str, str]
    """Declared functions by name, with their behavior (BLOCKING or NON_BLOCKING)."""
    transcribe_caller: bool
    transcribe_model: bool
    include_thoughts: bool
    seeded_history: bool
    """clientContent up to the first turnComplete is history and starts no reply."""
    resumption_asked: bool
    handle: str | None


def accept_setup(setup: Json, version: str) -> AcceptedSetup:
    """The session that this setup (as ``read_message`` returned it) opens.

    ``version`` is the API version of the path. Raises RefusalError with the service's code and words.
    """
    model = setup.get("model", "")
    if not model:
        raise invalid_argument()
    family = family_of(model, version)
    generation: Json = setup.get("generationConfig", {})
    _check_generation(generation, family)
    _check_extras(setup, family)
    realtime: Json = setup.get("realtimeInputConfig", {})
    detection: Json = realtime.get("automaticActivityDetection", {})
    resumption = setup.get("sessionResumption")
    return AcceptedSetup(
        model=model,
        family=family,
        voice=_voice_settings(detection),
        manual_activity=detection.get("disabled", False),
        interruptions=realtime.get("activityHandling") != "NO_INTERRUPTION",
        tools=_tools(setup.get("tools", ()), family),
        transcribe_caller="inputAudioTranscription" in setup,
        transcribe_model="outputAudioTranscription" in setup,
        include_thoughts=generation.get("thinkingConfig", {}).get("includeThoughts", False),
        seeded_history=setup.get("historyConfig", {}).get("initialHistoryInClientContent", False),
        resumption_asked=resumption is not None,
        handle=(resumption or {}).get("handle") or None,
    )


def _check_generation(generation: Json, family: Family) -> None:
    modalities = generation.get("responseModalities", ["AUDIO"])
    speech: Json = generation.get("speechConfig", {})
    if modalities == ["TEXT"] and "voiceConfig" in speech:
        raise RefusalError(1007, VOICE_WITHOUT_AUDIO)
    if modalities != ["AUDIO"]:
        raise invalid_argument()
    if _NOT_IN_LIVE & generation.keys() or "multiSpeakerVoiceConfig" in speech:
        raise invalid_argument()
    if not 0.0 <= generation.get("temperature", 1.0) <= 2.0:
        raise invalid_argument()
    if generation.get("enableAffectiveDialog") and not family.affective_dialog:
        raise invalid_argument()
    _check_thinking(generation.get("thinkingConfig"), family)


def _check_thinking(thinking: Json | None, family: Family) -> None:
    if family.thinking == "forbidden":
        if thinking is not None:
            raise RefusalError(1007, THINKING_NOT_SUPPORTED)
        return
    level = (thinking or {}).get("thinkingLevel")
    if level is None and family.thinking == "level required":
        raise RefusalError(1007, THINKING_REQUIRED)
    if level is not None and level not in family.thinking_levels:
        raise RefusalError(1007, THINKING_NOT_SUPPORTED)
    if "thinkingBudget" in (thinking or {}) and family.thinking != "budget":
        raise invalid_argument()


def _check_extras(setup: Json, family: Family) -> None:
    instruction: Json = setup.get("systemInstruction", {})
    if any(part.keys() - {"text"} for part in instruction.get("parts", ())):
        raise invalid_argument()
    proactivity = setup.get("proactivity")
    if proactivity is not None:
        wanted = proactivity.get("proactiveAudio", False)
        if family.proactivity == "refused" or (family.proactivity == "always" and not wanted):
            raise invalid_argument()
    compression: Json = setup.get("contextWindowCompression", {})
    trigger = compression.get("triggerTokens")
    target = compression.get("slidingWindow", {}).get("targetTokens")
    if any(tokens is not None and tokens <= 0 for tokens in (trigger, target)):
        raise invalid_argument()
    if trigger is not None and target is not None and target >= trigger:
        raise invalid_argument()


def _voice_settings(detection: Json) -> VoiceSettings:
    prefix = detection.get("prefixPaddingMs")
    silence = detection.get("silenceDurationMs")
    if any(ms is not None and ms < 0 for ms in (prefix, silence)):
        raise invalid_argument()
    return VoiceSettings.of(
        start_low=detection.get("startOfSpeechSensitivity") == "START_SENSITIVITY_LOW",
        end_low=detection.get("endOfSpeechSensitivity") == "END_SENSITIVITY_LOW",
        prefix_ms=prefix,
        silence_ms=silence,
    )


def _tools(tools: Any, family: Family) -> dict[str, str]:
    declared: dict[str, str] = {}
    for tool in tools:
        if tool.keys() - {"functionDeclarations", "googleSearch"}:
            raise invalid_argument()
        for declaration in tool.get("functionDeclarations", ()):
            name, behavior = _declaration(declaration, family)
            if name in declared:
                raise RefusalError(1007, f"Duplicate function declaration found: {name}")
            declared[name] = behavior
    return declared


def _declaration(declaration: Json, family: Family) -> tuple[str, str]:
    name = declaration.get("name", "")
    if not _FUNCTION_NAME.fullmatch(name):
        raise invalid_argument()
    if "parameters" in declaration and "parametersJsonSchema" in declaration:
        raise invalid_argument()
    parameters: Json = declaration.get("parameters", {})
    if parameters and parameters.get("type") != "OBJECT":
        raise invalid_argument()
    behavior = declaration.get("behavior", "UNSPECIFIED")
    if behavior == "UNSPECIFIED":
        return name, family.default_behavior
    if behavior not in family.behaviors:
        raise invalid_argument()
    return name, behavior
