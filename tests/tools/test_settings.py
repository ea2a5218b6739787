"""``[tools]`` as a whole."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ari_gemini.tools.settings import ToolLimits, ToolsSettings


def test_nothing_is_allowed_unless_it_is_said() -> None:
    settings = ToolsSettings()
    assert settings.limits == ToolLimits(time_limit=20.0, result_limit=8192, max_open=32)
    assert settings.api_call.allow == ()
    assert settings.http.networks == ()
    assert settings.named == {}
    assert settings.mcp == {}
    assert settings.credentials == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"limits": {"time_limit": 0}},
        {"limits": {"result_limit": 10}},
        {"limits": {"max_open": 0}},
        {"mcp": {"a.b": {"command": ["server"]}}},
        {"mcp": {"1st": {"command": ["server"]}}},
        {"mcp": {"shop": {}}},
        {"named": {"a.b": {"description": "x", "url": "https://api.example.com/"}}},
        {"unknown": {}},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ToolsSettings(**wrong)
