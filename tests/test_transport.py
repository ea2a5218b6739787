"""A WebSocket that was closed while it still had something to write, and is aborted after that."""

from __future__ import annotations

import asyncio
import socket

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve

from ari_gemini.transport import AbortableClient


async def closed_behind_a_full_socket() -> ClientConnection:
    """A connection that has ended by ``close`` once its buffer had been written."""
    gate = asyncio.Event()

    async def reads_late(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await gate.wait()
        connection.transport.resume_reading()
        await connection.wait_closed()

    async with serve(reads_late, "127.0.0.1", 0, max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        connection = await connect(
            f"ws://127.0.0.1:{port}", create_connection=AbortableClient, ping_interval=None
        )
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        while not connection.transport.get_write_buffer_size():
            connection.transport.write(bytes(2**20))
        connection.transport.close()
        gate.set()
        await connection.wait_closed()
    return connection


async def test_what_has_ended_may_be_aborted() -> None:
    connection = await closed_behind_a_full_socket()
    connection.transport.abort()
    assert connection.transport.is_closing()
