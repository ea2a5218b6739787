"""What a token is locked to, held against the simulator's independent merging of masked fields."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ari_gemini.gemini.models import FAMILIES
from ari_gemini.gemini.settings import GeminiSettings
from ari_gemini.gemini.setup_message import encode_setup
from ari_gemini.gemini.token_lock import LOCKED, PER_CONNECTION, field_mask, lockable, mint_request
from ari_gemini.realtime.functions import FunctionDeclaration
from ari_gemini.realtime.session import ActivityDetection, ContextCompression, SessionSettings
from ari_gemini.simulator.gemini_fields import MESSAGES
from ari_gemini.simulator.gemini_tokens import lock

NOON = 1_795_348_800.0
FULL = SessionSettings(
    voice="Kore",
    language="en-US",
    temperature=0.5,
    instructions="Be kind.",
    activity_detection=ActivityDetection(silence_duration_ms=500, interruptions=False),
    context_compression=ContextCompression(trigger_tokens=20_000, target_tokens=8_000),
    tools=(FunctionDeclaration(name="hangup_call", description="Ends it."),),
)


def setup_of(session: SessionSettings, handle: str | None = None, **settings: Any) -> dict[str, Any]:
    message = encode_setup(GeminiSettings(**settings), session, handle, seeded=handle is None)
    setup: dict[str, Any] = json.loads(message)["setup"]
    return setup


def test_the_request() -> None:
    setup = setup_of(SessionSettings(instructions="Be kind."))
    assert mint_request(GeminiSettings(), setup, NOON) == {
        "uses": 1,
        "expireTime": "2026-11-22T14:00:00.000Z",
        "newSessionExpireTime": "2026-11-22T12:01:00.000Z",
        "bidiGenerateContentSetup": {k: v for k, v in setup.items() if k != "sessionResumption"},
        "fieldMask": (
            "model,generationConfig.responseModalities,generationConfig.speechConfig,"
            "generationConfig.temperature,generationConfig.thinkingConfig,generationConfig.topP,"
            "generationConfig.topK,generationConfig.maxOutputTokens,generationConfig.mediaResolution,"
            "generationConfig.seed,systemInstruction.parts,tools,realtimeInputConfig,"
            "inputAudioTranscription,outputAudioTranscription,contextWindowCompression.slidingWindow"
        ),
    }


def test_unlocked() -> None:
    settings = GeminiSettings(token_lock=False, token_uses=0, token_lifetime=90, token_start_within=30.5)
    assert mint_request(settings, {"model": "models/x"}, NOON) == {
        "uses": 0,
        "expireTime": "2026-11-22T12:01:30.000Z",
        "newSessionExpireTime": "2026-11-22T12:00:30.500Z",
    }


def test_every_field_of_a_setup_is_locked_or_changes_by_connection() -> None:
    models = [family.prefixes[0] for family in FAMILIES if family.prefixes]
    assert len(models) > 2
    for model in models:
        thinking = {"thinking": "low"} if "extended-thinking" in model else {}
        setup = setup_of(FULL.model_copy(update=thinking), model=model)
        assert setup.keys() <= {*LOCKED, *PER_CONNECTION}


@pytest.mark.parametrize("session", [SessionSettings(), FULL])
def test_the_mask_holds_whatever_the_holder_sends_and_lets_him_resume(session: SessionSettings) -> None:
    setup = setup_of(session)
    mask = tuple(field_mask(setup))
    assert len(set(mask)) == len(mask)
    mine = setup_of(session, "my-handle")
    assert lock(mine, lockable(setup), mask) == mine
    stolen = {
        "model": "models/dearer",
        "generationConfig": {"temperature": 2.0, "maxOutputTokens": 9, "topP": 0.1},
        "systemInstruction": {"parts": [{"text": "Swear."}]},
        "tools": [{"googleSearch": {}}],
        "realtimeInputConfig": {"turnCoverage": "TURN_INCLUDES_ALL_INPUT"},
        "sessionResumption": {"handle": "my-handle"},
    }
    counts = lock(stolen, lockable(setup), mask)
    for name in ("model", "generationConfig", "systemInstruction", "tools"):
        assert counts.get(name) == mine.get(name)
    assert counts["sessionResumption"] == {"handle": "my-handle"}


def test_every_path_is_a_field_of_the_wire() -> None:
    for path in field_mask(setup_of(FULL)):
        message = "BidiGenerateContentSetup"
        for name in path.split("."):
            message = MESSAGES[message][name]
