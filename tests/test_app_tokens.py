"""Whole calls of a service without a key: each is opened with a token of the broker's and goes on with it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

sys.path.insert(0, str(Path(__file__).parent))

from support.ports import free_port
from support.world import LONG, World, quick

from ari_gemini.errors import Cause
from ari_gemini.gemini.broker import Broker
from ari_gemini.gemini.settings import BrokerSettings, GeminiSettings
from ari_gemini.gemini.tokens import Minter
from ari_gemini.simulator.gemini_live import GeminiSimulator

KEY = "AIza-the-long-key"
SECRET = "broker-secret-0123456789"


@asynccontextmanager
async def world_of_tokens(**changes: Any) -> AsyncIterator[World]:
    """A service that has no key and asks a broker, which has the only one that Gemini takes."""
    port = free_port()
    google = GeminiSettings(base_url=f"ws://127.0.0.1:{port}", api_key=KEY, broker_secret=SECRET)
    minter = Minter(google)
    broker = Broker(google, BrokerSettings(listen="127.0.0.1:0"), minter)
    _, listening = await broker.start()
    worker = {
        "auth": "ephemeral",
        "api_key": None,
        "broker_url": f"http://127.0.0.1:{listening}",
        "broker_secret": SecretStr(SECRET),
    }
    world = World(quick(**changes), gemini=worker, hurry=False)
    world.gemini = GeminiSimulator(world.gemini.scenario, port=port, valid_keys={KEY}, tap=world._frame)
    try:
        async with world:
            yield world
    finally:
        await broker.close()
        await minter.close()


async def test_a_whole_call_without_a_key() -> None:
    async with world_of_tokens() as world:
        call = await world.talks()
        call.hang_up()
        assert (await world.over()).cause is Cause.CALLER_HANGUP
        [token] = world.gemini.tokens.minted
        assert (token.used, token.resumed) == (1, 0)
        session = await world.gemini.wait_session()
        assert session.headers["authorization"] == f"Token {token.name}"
        assert "x-goog-api-key" not in session.headers
        await world.another_works()
        assert [token.used for token in world.gemini.tokens.minted] == [1, 1]
        for line in world.logs:
            assert SECRET not in str(line)
            assert token.name not in str(line)


async def test_a_call_that_is_resumed_costs_no_second_token() -> None:
    async with world_of_tokens(resume_hold=0.0) as world:
        call = await world.talks()
        (await world.gemini.wait_session()).cut()
        resumed = await world.gemini.wait_session(2, timeout=LONG)
        await resumed.wait_for("setup_complete", timeout=LONG)
        async with asyncio.timeout(LONG):
            await world.hears_it_all(call, resumed)
        call.hang_up()
        assert (await world.over()).cause is Cause.CALLER_HANGUP
        [token] = world.gemini.tokens.minted
        assert (token.used, token.resumed) == (1, 1)
