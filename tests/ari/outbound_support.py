"""Asterisk's side of an outbound WebSocket, played by a test."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from ari_gemini.ari.link import AriLink
from ari_gemini.ari.outbound import OutboundListener
from ari_gemini.ari.settings import AriSettings

PATIENCE = 20.0
LOGIN = "gemini:geheim"
APP = "ari-gemini:PJSIP/1001-00000001"


class Door:
    """A listener and the links that came."""

    def __init__(self, **changes: Any) -> None:
        given = {"mode": "outbound", "listen": "127.0.0.1:0", "username": "gemini", "password": "geheim"}
        self.settings = AriSettings.model_validate({**given, "request_timeout": PATIENCE, **changes})
        self.listener = OutboundListener(self.settings, self._linked)
        self.links: list[AriLink] = []
        self.events: list[Any] = []
        self.closed: list[AriLink] = []
        self._news = asyncio.Event()

    def _linked(self, link: AriLink) -> None:
        self.links.append(link)
        link.on_event = self._event
        link.on_closed = lambda: self._over(link)
        self._news.set()

    def _event(self, event: Any) -> None:
        self.events.append(event)
        self._news.set()

    def _over(self, link: AriLink) -> None:
        self.closed.append(link)
        self._news.set()

    async def until(self, condition: Any) -> None:
        """Wait until it holds; looked at after every link, event and end."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def gone(self) -> None:
        """Wait until no connection is left."""
        async with asyncio.timeout(PATIENCE):
            while self.listener.connections:  # noqa: ASYNC110 - has no event
                await asyncio.sleep(0.005)

    def dial(
        self, path: str = "/ari", login: str | None = "gemini:geheim", protocol: str | None = "ari"
    ) -> Any:
        """Connect as Asterisk does; ``async with`` gives the connection."""
        headers = {}
        if login is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        return connect(
            f"ws://127.0.0.1:{self.listener.port}{path}",
            additional_headers=headers,
            subprotocols=[protocol] if protocol else None,  # type: ignore[list-item]
            compression=None,
            max_size=None,
            proxy=None,
        )

    @asynccontextmanager
    async def linked(self, app: str = APP) -> AsyncIterator[tuple[Peer, AriLink]]:
        """Asterisk's side, registered, and the link it became."""
        count = len(self.links)
        async with self.dial() as connection:
            peer = Peer(connection, app)
            await peer.event("ApplicationRegistered")
            await self.until(lambda: len(self.links) > count)
            yield peer, self.links[-1]


class Peer:
    """One connection of Asterisk's."""

    def __init__(self, connection: ClientConnection, app: str) -> None:
        self.connection = connection
        self._app = app

    async def event(self, kind: str, **fields: object) -> None:
        """Send an event."""
        await self.connection.send(json.dumps({"type": kind, **fields, "application": self._app}))

    async def asked(self) -> dict[str, Any]:
        """The next request."""
        async with asyncio.timeout(PATIENCE):
            message = json.loads(await self.connection.recv())
        assert message["type"] == "RESTRequest"
        return dict(message)

    async def answer(self, request: dict[str, Any], status: int, body: object = None) -> None:
        """Answer it."""
        reply = {"type": "RESTResponse", "request_id": request["request_id"], "status_code": status}
        if body is not None:
            reply["message_body"] = body if isinstance(body, str) else json.dumps(body)
        await self.connection.send(json.dumps(reply))


@asynccontextmanager
async def door(**changes: Any) -> AsyncIterator[Door]:
    """A listener that listens."""
    made = Door(**changes)
    await made.listener.start()
    try:
        yield made
    finally:
        await made.listener.close()
        assert made.listener.connections == 0
