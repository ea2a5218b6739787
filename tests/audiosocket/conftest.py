"""Peers that speak raw bytes to the door, and sinks that note what comes out of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

import pytest
import uvloop

from ari_gemini.audiosocket.connection import Connection, MediaEnd

CALL = UUID("00112233-4455-6677-8899-aabbccddeeff")
LONG = 30.0
"""Seconds: only a hanging test gets there."""


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every asynchronous test of this room on both event loops."""
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


def message(kind: int, payload: bytes = b"") -> bytes:
    return struct.pack(">BH", kind, len(payload)) + payload


def frame(number: int, samples: int = 160) -> bytes:
    """PCM that says which frame it is."""
    return struct.pack("<h", number) * samples


class Peer:
    """Asterisk's side of one connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def send_all(self, data: bytes) -> None:
        """Send, however long it takes; whoever is cut off in the middle has sent enough."""
        with contextlib.suppress(OSError):
            self.writer.write(data)
            await self.writer.drain()

    def identify(self, uuid: UUID = CALL) -> None:
        self.send(message(0x01, uuid.bytes))

    async def receive(self, count: int) -> bytes:
        async with asyncio.timeout(LONG):
            return await self.reader.readexactly(count)

    async def receive_to_the_end(self) -> bytes:
        """Everything until the connection is closed or reset."""
        received = b""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(LONG):
                while data := await self.reader.read(65536):
                    received += data
        return received

    def half_close(self) -> None:
        self.writer.write_eof()

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class Sink:
    """Notes everything, and lets a test wait for it."""

    def __init__(self) -> None:
        self.got: list[tuple[str, object]] = []
        self.ends: list[MediaEnd] = []
        self.rates: set[int] = set()
        self._changed = asyncio.Event()

    def audio(self, pcm: bytes, rate: int) -> None:
        self.rates.add(rate)
        self._note("audio", pcm)

    def digit(self, digit: str) -> None:
        self._note("digit", digit)

    def ended(self, end: MediaEnd) -> None:
        self.ends.append(end)
        self._note("ended", end)

    async def until(self, count: int) -> list[tuple[str, object]]:
        """Wait until at least ``count`` things have come."""
        await self._until(lambda: len(self.got) >= count)
        return self.got

    async def until_ended(self) -> MediaEnd:
        await self._until(lambda: bool(self.ends))
        return self.ends[0]

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LONG):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def _note(self, what: str, value: object) -> None:
        assert not self.ends or what == "ended", "something came after the end"
        self.got.append((what, value))
        self._changed.set()


class Owner:
    """Takes connections and does with them what the test says."""

    def __init__(self) -> None:
        self.made: asyncio.Queue[Connection] = asyncio.Queue()
        self.ready: asyncio.Queue[Connection] = asyncio.Queue()
        self.gone: list[Connection] = []
        self.refusal: str | None = None
        self.on_identified: Callable[[Connection], None] = lambda connection: None

    def connected(self, connection: Connection) -> str | None:
        self.made.put_nowait(connection)
        return self.refusal

    def identified(self, connection: Connection) -> None:
        self.on_identified(connection)
        self.ready.put_nowait(connection)

    def closed(self, connection: Connection) -> None:
        self.gone.append(connection)


class Door:
    """A listening socket whose connections belong to ``owner``."""

    def __init__(self, owner: Owner, port: int) -> None:
        self.owner = owner
        self.port = port
        self.uuid_timeout = LONG
        self.peers: list[Peer] = []
        self.connections: list[Connection] = []

    def make(self) -> Connection:
        connection = Connection(self.owner, self.uuid_timeout)
        self.connections.append(connection)
        return connection

    async def dial(self) -> tuple[Peer, Connection]:
        """Connect a peer that has said nothing yet."""
        peer = await dial(self.port)
        self.peers.append(peer)
        async with asyncio.timeout(LONG):
            return peer, await self.owner.made.get()

    async def identified(self) -> tuple[Peer, Connection]:
        """Connect and say the UUID; nobody is attached."""
        peer, _ = await self.dial()
        peer.identify()
        async with asyncio.timeout(LONG):
            return peer, await self.owner.ready.get()

    async def call(self) -> tuple[Peer, Connection, Sink]:
        """Connect, say the UUID, attach a sink."""
        peer, connection = await self.identified()
        sink = Sink()
        connection.attach(sink)
        return peer, connection, sink

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LONG):
            while not condition():  # noqa: ASYNC110  # counters raise no event
                await asyncio.sleep(0.001)

    def sink(self) -> Sink:
        return Sink()


async def dial(port: int, host: str = "127.0.0.1", source: str = "") -> Peer:
    local = (source, 0) if source else None
    return Peer(*await asyncio.open_connection(host, port, local_addr=local))


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    loop = asyncio.get_running_loop()
    door = Door(Owner(), 0)
    server = await loop.create_server(door.make, "127.0.0.1", 0)
    door.port = server.sockets[0].getsockname()[1]
    yield door
    server.close()
    for peer in door.peers:
        await peer.close()
    for connection in door.connections:
        connection.abort()
        await connection.wait_closed()
    await server.wait_closed()


Dial = Callable[..., Awaitable[Peer]]


@pytest.fixture
async def dialler() -> AsyncIterator[Dial]:
    """Connects peers to any port and closes them at the end."""
    peers: list[Peer] = []

    async def connect(port: int, host: str = "127.0.0.1", source: str = "") -> Peer:
        peer = await dial(port, host, source)
        peers.append(peer)
        return peer

    yield connect
    for peer in peers:
        await peer.close()
