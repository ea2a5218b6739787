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
from ari_gemini.simulator.scenario import Scenario, ScriptedCall, ScriptTurn

sys.path.insert(0, str(Path(__file__).parent))

from contract import ARGS, LOOK_UP, SessionContract

LOOKING_UP = ScriptTurn(
    on="text", calls=(ScriptedCall(name=LOOK_UP.name, args=ARGS),) * 2, say=("order_status",)
)
SCENARIO = Scenario(turns=(ScriptTurn(on="text", say=("greeting",)), LOOKING_UP))


@pytest.mark.parametrize(
    "model",
    [
        "gemini-3.8-live",
        "gemini-3.8-live-extended-thinking",
        "gemini-3.1-flash-live-preview",
        "gemini-2.5-flash-native-audio-latest",
    ],
)
class TestGemini(SessionContract):
    """Gemini Live keeps the contract, each family of its models."""

    @pytest.fixture(autouse=True)
    def _model(self, model: str) -> None:
        self.model = model

    @asynccontextmanager
    async def open(self) -> AsyncIterator[RealtimeSession]:
        async with GeminiSimulator(SCENARIO, speed=20.0) as simulator:
            settings = GeminiSettings(base_url=simulator.url, api_key=SecretStr("a-key"), model=self.model)
            thinking = "low" if settings.family.thinking_required else None
            yield await open_session(settings, SessionSettings(tools=(LOOK_UP,), thinking=thinking))
            (session,) = simulator.sessions
            assert session.record.count("stray_tool_response") == 0


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
