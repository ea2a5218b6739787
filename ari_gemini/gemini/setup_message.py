"""The first message of a session, ``setup`` (ai.google.dev/api/live, BidiGenerateContentSetup).

Everything that depends on the model is read from its row in the family table.
"""

from __future__ import annotations

import re
from typing import Any

from ari_gemini.errors import SetupRefused
from ari_gemini.gemini.functions import NAME, to_gemini_schema
from ari_gemini.gemini.models import Behavior, ModelFamily, bare_name
from ari_gemini.gemini.protocol import dump
from ari_gemini.gemini.settings import GeminiSettings
from ari_gemini.realtime.functions import FunctionDeclaration
from ari_gemini.realtime.session import ActivityDetection, ContextCompression, SessionSettings

_TURN_COVERAGE = {
    "only_activity": "TURN_INCLUDES_ONLY_ACTIVITY",
    "all_input": "TURN_INCLUDES_ALL_INPUT",
    "audio_activity_and_all_video": "TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO",
}
_BUDGETS = range(-1, 32_769)
"""thinkingBudget in tokens: -1 lets the model choose, 0 is off (ai.google.dev/gemini-api/docs/thinking)."""


def encode_setup(
    settings: GeminiSettings,
    session: SessionSettings,
    handle: str | None = None,
    *,
    seeded: bool = False,
) -> bytes:
    """The ``setup`` message as UTF-8 JSON for a TEXT frame.

    ``handle`` resumes a session; the whole configuration goes out again with it. ``seeded``: the history of
    the conversation follows, which some families must be told. What ``session`` leaves
    open is not sent, so the service's own default holds. Raises SetupRefused, in one line, for what the
    model's family is known to refuse.
    """
    setup: dict[str, Any] = {"model": settings.model if "/" in settings.model else f"models/{settings.model}"}
    setup["generationConfig"] = _generation(settings, session)
    if session.instructions:
        setup["systemInstruction"] = {"parts": [{"text": session.instructions}]}
    if session.tools:
        declarations = [_declaration(tool, settings) for tool in session.tools]
        setup["tools"] = [{"functionDeclarations": declarations}]
    realtime_input = _realtime_input(session.activity_detection)
    if realtime_input:
        setup["realtimeInputConfig"] = realtime_input
    if session.transcribe_caller:
        setup["inputAudioTranscription"] = {}
    if session.transcribe_model:
        setup["outputAudioTranscription"] = {}
    if session.resumption or handle:
        setup["sessionResumption"] = {"handle": handle} if handle else {}
    if seeded and not settings.family.client_content:
        setup["historyConfig"] = {"initialHistoryInClientContent": True}
    if session.context_compression is not None:
        setup["contextWindowCompression"] = _compression(session.context_compression)
    return dump({"setup": setup})


def _generation(settings: GeminiSettings, session: SessionSettings) -> dict[str, Any]:
    config: dict[str, Any] = {"responseModalities": ["AUDIO"]}
    speech: dict[str, Any] = {}
    if session.voice:
        speech["voiceConfig"] = {"prebuiltVoiceConfig": {"voiceName": session.voice}}
    if session.language:
        speech["languageCode"] = session.language
    if speech:
        config["speechConfig"] = speech
    if session.temperature is not None:
        config["temperature"] = session.temperature
    thinking = _thinking(settings.family, bare_name(settings.model), session.thinking)
    if thinking:
        config["thinkingConfig"] = thinking
    return config


def _thinking(family: ModelFamily, model: str, wanted: str | None) -> dict[str, Any]:
    """``thinkingConfig``, empty when none may or need be sent."""
    if wanted is None:
        if family.thinking_required:
            raise SetupRefused(f"model {model} needs thinking = {_choices(family)}")
        return {}
    level = wanted.strip().upper()
    if level in family.thinking_levels:
        return {"thinkingLevel": level}
    budget = int(level) if re.fullmatch(r"-?[0-9]{1,5}", level) else None
    if family.thinking_budget and budget in _BUDGETS:
        return {"thinkingBudget": budget}
    if not family.thinking_levels and not family.thinking_budget:
        raise SetupRefused(f"model {model} takes no thinking setting: remove thinking = {wanted!r}")
    raise SetupRefused(f"model {model} takes thinking = {_choices(family)}, not {wanted!r}")


def _choices(family: ModelFamily) -> str:
    choices = [level.lower() for level in family.thinking_levels]
    if family.thinking_budget:
        choices.append(f"a number of tokens ({_BUDGETS.start} to {_BUDGETS.stop - 1})")
    return " or ".join(choices)


def _declaration(tool: FunctionDeclaration, settings: GeminiSettings) -> dict[str, Any]:
    if not NAME.fullmatch(tool.name):
        raise SetupRefused(
            f"tool {tool.name!r}: a name is a letter or _, then at most 127 of A-Z a-z 0-9 _ . : -"
        )
    declaration: dict[str, Any] = {"name": tool.name, "description": tool.description}
    if tool.parameters is not None and tool.parameters.get("properties"):
        declaration["parameters"] = to_gemini_schema(tool.parameters, f"tool {tool.name}")
    behavior = _behavior(tool, settings)
    return declaration if behavior is None else declaration | {"behavior": behavior}


def _behavior(tool: FunctionDeclaration, settings: GeminiSettings) -> Behavior | None:
    """What a declaration says; None where the model leaves no choice, so that nothing need be said."""
    behaviors = settings.family.behaviors
    wanted: Behavior = "BLOCKING" if tool.blocking else "NON_BLOCKING"
    if tool.blocking is not None and wanted not in behaviors:
        raise SetupRefused(f"tool {tool.name}: model {bare_name(settings.model)} takes no {wanted} functions")
    return wanted if len(behaviors) > 1 else None


def _realtime_input(detection: ActivityDetection) -> dict[str, Any]:
    automatic = {
        "startOfSpeechSensitivity": _sensitivity("START", detection.start_sensitivity),
        "endOfSpeechSensitivity": _sensitivity("END", detection.end_sensitivity),
        "prefixPaddingMs": detection.prefix_padding_ms,
        "silenceDurationMs": detection.silence_duration_ms,
    }
    automatic = {key: value for key, value in automatic.items() if value is not None}
    config: dict[str, Any] = {"automaticActivityDetection": automatic} if automatic else {}
    if not detection.interruptions:
        config["activityHandling"] = "NO_INTERRUPTION"
    if detection.turn_coverage is not None:
        config["turnCoverage"] = _TURN_COVERAGE[detection.turn_coverage]
    return config


def _sensitivity(edge: str, value: str | None) -> str | None:
    return None if value is None else f"{edge}_SENSITIVITY_{value.upper()}"


def _compression(compression: ContextCompression) -> dict[str, Any]:
    """int64 goes as a string (protobuf JSON mapping); slidingWindow, even empty, turns compression on."""
    trigger, target = compression.trigger_tokens, compression.target_tokens
    if trigger is not None and target is not None and target >= trigger:
        raise SetupRefused(
            f"context_compression: target_tokens {target} must be below trigger_tokens {trigger}"
        )
    config: dict[str, Any] = {"slidingWindow": {} if target is None else {"targetTokens": str(target)}}
    return config if trigger is None else {"triggerTokens": str(trigger)} | config
