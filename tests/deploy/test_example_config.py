"""The example configuration loads, shows true defaults, and what it comments out loads as well."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ari_gemini.call.agent import Agent
from ari_gemini.config import Config, load_config
from ari_gemini.errors import ConfigError

EXAMPLE = Path(__file__).resolve().parents[2] / "deploy" / "ari-gemini.example.toml"
SECRETS = {"GEMINI_API_KEY": "key", "ARI_PASSWORD": "password"}

NOT_DEFAULTS = {"ari": {"username"}, "audiosocket": {"allow_from"}, "agents": {"default"}}


def test_it_loads() -> None:
    config = load_config(EXAMPLE, SECRETS)
    assert config.ari is not None
    assert config.ari.username == "gemini"
    assert config.agents["default"].voice == "Aoede"


def test_it_holds_no_secret() -> None:
    with pytest.raises(ConfigError, match="GEMINI_API_KEY"):
        load_config(EXAMPLE, {})


def test_what_it_shows_as_default_is_the_default(tmp_path: Path) -> None:
    least = tmp_path / "least.toml"
    least.write_text('[ari]\nusername = "gemini"\n')
    shown, default = load_config(EXAMPLE, SECRETS), load_config(least, SECRETS)
    for section in Config.model_fields:
        for key, value in dict(getattr(default, section)).items():
            if key not in NOT_DEFAULTS.get(section, set()) and section != "agents":
                assert getattr(getattr(shown, section), key) == value, f"{section}.{key}"


def test_so_it_is_with_its_agent() -> None:
    shown, default = load_config(EXAMPLE, SECRETS).agents["default"], Agent()
    for key in ("limits", "stall", "apology", "transcribe_caller", "transcribe_model"):
        assert getattr(shown, key) == getattr(default, key), key


def test_what_is_commented_out_loads_as_well(tmp_path: Path) -> None:
    everything = tmp_path / "everything.toml"
    everything.write_text(re.sub(r"^# (?=\[|\w+ = )", "", EXAMPLE.read_text(), flags=re.MULTILINE))
    config = load_config(everything, SECRETS)
    assert config.agents["default"].activity_detection.silence_duration_ms == 500
    assert config.state.directory == Path("/var/lib/ari-gemini")
    assert config.agents["orders"].variables == ("ORDER_NUMBER",)
