"""The provider seam: its settings, and every provider's session held to the same contract."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from ari_gemini.gemini.session import open_session
from ari_gemini.gemini.settings import GeminiSettings
from ari_gemini.realtime.session import ActivityDetection, RealtimeSession, SessionSettings
from ari_gemini.simulator.gemini_live import GeminiSimulator

sys.path.insert(0, str(Path(__file__).parent))

from contract import SessionContract


class TestGemini(SessionContract):
    """Gemini Live keeps the contract."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[RealtimeSession]:
        async with GeminiSimulator("two_turns", speed=20.0) as simulator:
            settings = GeminiSettings(base_url=simulator.url, api_key=SecretStr("a-key"))
            yield await open_session(settings, SessionSettings())


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 2.5},
        {"temperature": -0.1},
        {"language_code": "en-US"},
        {"activity_detection": {"silence_duration_ms": -1}},
        {"activity_detection": {"start_sensitivity": "medium"}},
        {"activity_detection": {"turn_coverage": "everything"}},
        {"context_compression": {"trigger_tokens": 0}},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SessionSettings.model_validate(wrong)


def test_settings_are_values() -> None:
    assert SessionSettings() == SessionSettings()
    with pytest.raises(ValidationError):
        SessionSettings().voice = "Kore"  # type: ignore[misc]
    assert ActivityDetection().interruptions
