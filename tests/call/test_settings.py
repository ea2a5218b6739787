"""What may be set about calls."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ari_gemini.call.line import ReconnectSettings
from ari_gemini.call.settings import CallSettings


def test_what_holds_unless_it_is_set() -> None:
    settings = CallSettings()
    assert (settings.max_calls, settings.answer, settings.setup_timeout) == (200, "when_ready", 5.0)
    assert settings.reconnect == ReconnectSettings()


def test_reconnecting_has_a_table_of_its_own() -> None:
    settings = CallSettings.model_validate({"reconnect": {"resume_delays": [0, 2.5], "give_up_after": 60}})
    assert settings.reconnect.resume_delays == (0.0, 2.5)
    assert settings.reconnect.give_up_after == 60
    assert settings.reconnect.attempt_timeout == ReconnectSettings().attempt_timeout


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_calls": 0},
        {"max_calls": 10_001},
        {"answer": "later"},
        {"setup_timeout": 0},
        {"setup_timeout": 61},
        {"prebuffer_ms": -1},
        {"unknown": 1},
        {"reconnect": {"unknown": 1}},
        {"reconnect": {"attempt_timeout": 0}},
        {"reconnect": {"give_up_after": 301}},
        {"reconnect": {"comfort_after": 0}},
        {"reconnect": {"resume_delays": [0.0] * 17}},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as refused:
        CallSettings.model_validate(wrong)
    assert refused.value.error_count() == 1


def test_nothing_changes_while_calls_are_up() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        CallSettings().max_calls = 3
