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


async def answer_to(sim: GeminiSimulator, *pieces: bytes, ends: bool = True) -> bytes:
    """What a client gets who sends these, and then no more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    if ends:
        writer.write_eof()
    try:
        async with asyncio.timeout(5):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_what_is_no_websocket_is_answered_as_http() -> None:
    async with GeminiSimulator() as sim:
        request = (b"P", b"OS", b"T /v1/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await answer_to(sim, *request, ends=False)).startswith(b"HTTP/1.1 404 ")
        assert (await answer_to(sim, b"nonsense\r\n\r\n", ends=False)).startswith(b"HTTP/1.0 400 ")
        assert sim.connections == 0
    assert sim._links == set()


async def test_what_might_become_a_websocket_is_waited_for_until_it_ends() -> None:
    async with GeminiSimulator() as sim:
        assert await answer_to(sim, b"G") == b""
        assert await answer_to(sim) == b""
        assert sim._links == set()


async def test_who_says_nothing_is_let_go_at_the_end() -> None:
    async with GeminiSimulator() as sim:
        waiting = asyncio.create_task(answer_to(sim, ends=False))
        async with asyncio.timeout(5):
            while not sim._links:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    assert await waiting == b""
