from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from ari_gemini.simulator.gemini_live import GeminiSimulator


async def test_pongs_come_at_once_unless_told_otherwise(dial: Any) -> None:
    async with GeminiSimulator() as sim, dial(sim) as client:
        async with asyncio.timeout(5):
            await (await client.socket.ping())
        session = await sim.wait_session()
        session.slow_pongs(3600)
        late = await client.socket.ping()
        # The pong would have been on the wire before this answer.
        await client.setup()
        assert not late.done()
        late.cancel()


async def test_a_late_pong_comes_after_its_delay(dial: Any) -> None:
    async with GeminiSimulator() as sim, dial(sim) as client:
        session = await sim.wait_session()
        session.slow_pongs(0.05)
        before = asyncio.get_running_loop().time()
        async with asyncio.timeout(5):
            await (await client.socket.ping())
        assert asyncio.get_running_loop().time() - before >= 0.045


async def test_pongs_that_outlive_their_connection_are_forgotten(dial: Any) -> None:
    async with GeminiSimulator() as sim:
        async with dial(sim) as client:
            session = await sim.wait_session()
            session.slow_pongs(3600)
            waiting = await client.socket.ping()
            await client.setup()
        await session.wait_closed()
        assert session._link._late == set()
        assert sim._links == set()
        with pytest.raises(ConnectionClosed):
            await waiting


async def test_the_scenario_can_ask_for_slow_pongs(dial: Any) -> None:
    async with GeminiSimulator("slow_pongs", speed=20) as sim, dial(sim) as client:
        await client.setup()
        assert (await sim.wait_session())._link.pong_delay == 12
