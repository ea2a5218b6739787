"""A simulated Asterisk, a client of it, and a media peer to be dialled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import pytest
import structlog

from ari_gemini.ari.client import AriClient
from ari_gemini.ari.events import Event
from ari_gemini.ari.settings import AriSettings
from ari_gemini.simulator.asterisk import SimulatedAsterisk

PATIENCE = 20.0
"""Seconds until a test that waits in vain gives up."""

T = TypeVar("T")


class Ear:
    """Collects a client's events and lets a test wait for one."""

    def __init__(self, client: AriClient) -> None:
        self.client = client
        self.events: list[Event] = []
        self.ups = 0
        self.downs: list[str] = []
        self._changed = asyncio.Event()
        client.on_event(self._take)
        client.on_up(self._up)
        client.on_down(self._down)

    def _take(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    def _up(self) -> None:
        self.ups += 1
        self._changed.set()

    def _down(self, reason: str) -> None:
        self.downs.append(reason)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; it is looked at after every event, up and down."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def event(self, kind: type[T], about: str | None = None) -> T:
        """Wait for the first event of that kind, about that channel."""

        def found() -> list[Any]:
            return [
                event
                for event in self.events
                if isinstance(event, kind)
                and about in (None, getattr(getattr(event, "channel", None), "id", None))
            ]

        await self.until(lambda: bool(found()))
        first: T = found()[0]
        return first


@pytest.fixture
async def asterisk() -> AsyncIterator[SimulatedAsterisk]:
    async with SimulatedAsterisk() as simulated:
        yield simulated


@pytest.fixture
def settings_for() -> Callable[..., AriSettings]:
    """``settings_for(asterisk, **changes)``: the right credentials, and no long pauses."""

    def make(asterisk: SimulatedAsterisk, **changes: Any) -> AriSettings:
        given = {
            "url": asterisk.url,
            "username": asterisk.username,
            "password": asterisk.password,
            "request_timeout": PATIENCE,
            "reconnect_min": 0.01,
            "reconnect_max": 0.02,
        }
        return AriSettings.model_validate(given | changes)

    return make


Running = Callable[[AriSettings], AbstractAsyncContextManager[Ear]]


@pytest.fixture
def running() -> Running:
    """``async with running(settings) as ear:`` runs a client, connected or not."""

    @asynccontextmanager
    async def run(settings: AriSettings) -> AsyncIterator[Ear]:
        ear = Ear(AriClient(settings))
        task = asyncio.create_task(ear.client.run())
        try:
            yield ear
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), task.exception()

    return run


@pytest.fixture
async def ear(
    asterisk: SimulatedAsterisk, settings_for: Callable[..., AriSettings], running: Running
) -> AsyncIterator[Ear]:
    """The events of a client that is connected to ``asterisk``."""
    async with running(settings_for(asterisk)) as listening:
        async with asyncio.timeout(PATIENCE):
            await listening.client.wait_connected()
        yield listening


@pytest.fixture
async def media_peer() -> AsyncIterator[str]:
    """HOST:PORT of something that accepts AudioSocket connections and only reads."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while await reader.read(4096):
            pass

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
        await server.wait_closed()


@pytest.fixture
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """Every log line of the test, whatever the level."""
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as lines:
        yield lines
