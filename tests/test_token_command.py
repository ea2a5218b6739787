"""``ari-gemini token``: which token it mints, at the simulated Gemini."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ari_gemini.errors import ConfigError, KeyRefused
from ari_gemini.simulator.gemini_live import GeminiSimulator
from ari_gemini.token_command import Wish, mint

KEY = "AIza-the-key"
ENVIRON = {"GEMINI_API_KEY": KEY, "ARI_PASSWORD": "p"}
AGENTS = """
[ari]
username = "gemini"
[agents.default]
[agents.sales]
instructions = "Sell to {caller_number}."
tools = ["hangup_call"]
[agents.shop]
tools = ["stock.count"]
[tools.mcp.stock]
command = ["true"]
"""


@pytest.fixture
async def sim() -> AsyncIterator[GeminiSimulator]:
    async with GeminiSimulator(valid_keys={KEY}) as running:
        yield running


@pytest.fixture
def config(tmp_path: Path, sim: GeminiSimulator) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(f'[gemini]\nbase_url = "{sim.url}"\n{AGENTS}')
    return path


async def test_for_any_session(sim: GeminiSimulator, config: Path) -> None:
    name = await mint(config, {"GEMINI_API_KEY": KEY}, Wish(uses=0, lifetime=600, start_within=300))
    [token] = sim.tokens.minted
    assert (token.name, token.uses, token.setup, token.mask) == (name, 0, None, None)
    assert 299 < (token.expires - token.start_before).total_seconds() < 301


async def test_for_one_agents_sessions(sim: GeminiSimulator, config: Path) -> None:
    await mint(config, ENVIRON, Wish("sales"))
    [token] = sim.tokens.minted
    assert token.uses == 1
    assert token.setup is not None
    assert token.setup["systemInstruction"] == {"parts": [{"text": "Sell to {caller_number}."}]}
    [tool] = token.setup["tools"]
    assert [declared["name"] for declared in tool["functionDeclarations"]] == ["hangup_call"]
    assert "tools" in (token.mask or ())


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (Wish("nobody"), "--agent: there is no agent 'nobody'; there are: default, sales, shop"),
        (Wish("shop"), "--agent: shop's tools of MCP servers are not known here: stock.count"),
        (Wish(uses=-1), "token_uses: Input should be greater than or equal to 0"),
        (Wish(lifetime=30), "token_start_within must not be longer than token_lifetime"),
    ],
)
async def test_what_cannot_be_had(sim: GeminiSimulator, config: Path, wish: Wish, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await mint(config, ENVIRON, wish)
    assert str(caught.value) == words
    assert sim.tokens.minted == []


async def test_a_wrong_key(config: Path) -> None:
    with pytest.raises(KeyRefused, match="refuses the API key"):
        await mint(config, {"GEMINI_API_KEY": "AIza-another"}, Wish())
