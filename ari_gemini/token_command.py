"""``ari-gemini token``: mints one ephemeral token for whoever has the key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ari_gemini.config import Config, load_config, load_token_config
from ari_gemini.errors import ConfigError
from ari_gemini.gemini.settings import GeminiSettings
from ari_gemini.gemini.setup_message import encode_setup
from ari_gemini.gemini.tokens import Minter


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line says; None: as configured. ``agent`` None: a token for any session."""

    agent: str | None = None
    uses: int | None = None
    lifetime: float | None = None
    start_within: float | None = None


async def mint(path: Path | None, environ: Mapping[str, str], wish: Wish) -> str:
    """The name of a new token. Raises ConfigError before anything is opened, SessionError from minting."""
    if wish.agent is None:
        settings, setup = load_token_config(path, environ).gemini, {}
    else:
        config = load_config(path, environ)
        settings, setup = config.gemini, _setup(config, wish.agent)
    if settings.api_key is None:
        raise ConfigError("gemini.api_key: missing; set GEMINI_API_KEY or gemini.api_key_file")
    minter = Minter(_wanted(settings, wish))
    try:
        return (await minter.mint(setup)).name.get_secret_value()
    finally:
        await minter.close()


def _setup(config: Config, name: str) -> dict[str, Any]:
    """The setup of the agent's sessions. What is filled in for a caller stays as it is written."""
    agent = config.agents.get(name)
    if agent is None:
        raise ConfigError(f"--agent: there is no agent {name!r}; there are: {', '.join(config.agents)}")
    foreign = [tool for tool in agent.tools if "." in tool]
    if foreign:
        raise ConfigError(f"--agent: {name}'s tools of MCP servers are not known here: {', '.join(foreign)}")
    tools = config.catalogue({}).fixed(agent.tools, agent.transfer)
    session = agent.session_settings({}, [tool.declaration for tool in tools])
    setup: dict[str, Any] = json.loads(encode_setup(config.gemini, session))["setup"]
    return setup


def _wanted(settings: GeminiSettings, wish: Wish) -> GeminiSettings:
    wanted = {
        "token_uses": wish.uses,
        "token_lifetime": wish.lifetime,
        "token_start_within": wish.start_within,
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    try:
        return GeminiSettings(**settings.model_dump() | given | {"token_lock": wish.agent is not None})
    except ValidationError as error:
        words = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise ConfigError("; ".join(words).replace("Value error, ", "").removeprefix(": ")) from None
