"""Whether the service lives and whether it takes calls, over HTTP, for those who restart or route.

``GET /live``: 200 as long as the event loop runs. ``GET /ready``: 200 when the next caller would be taken,
else 503; a short JSON object says why not, and what there is. Nothing here is secret and nothing can be
changed. What a stranger sends is neither logged nor answered, and cannot fill the log.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, field_validator

from ari_gemini.audiosocket.server import Address, parse_address
from ari_gemini.discreet import DiscreetHandler
from ari_gemini.errors import ConfigError

MAX_CONNECTIONS: Final = 32
"""Open at once: every prober of a cluster, and few enough to leave the calls their descriptors."""
CONNECTION_SECONDS: Final = 10.0
"""How long one may stay open, whatever it does. A prober asks one question and waits a second or two."""
HEAD_BYTES: Final = 4096
"""Longest request line and longest header; a prober's has some hundred bytes."""

log = structlog.get_logger(__name__)


class HealthSettings(BaseModel):
    """``[health]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: str = ""
    """``host:port`` to answer at; empty: nowhere. Off by default, so that a second service on one machine
    does not fail on a port that the first has."""

    @field_validator("listen")
    @classmethod
    def _listen_can_be_read(cls, text: str) -> str:
        return str(parse_address(text)) if text else ""


@dataclass(frozen=True, slots=True)
class Readiness:
    """What decides whether the next caller is taken."""

    listening: bool
    """Media connections are taken."""
    ari_connected: bool | None
    """Asterisk's events flow. None: there is no connection of ours to Asterisk to wait for."""
    draining: bool
    calls: int
    """In progress."""
    max_calls: int

    @property
    def why_not(self) -> list[str]:
        """What keeps the next caller out; empty when ready."""
        reasons = {
            "not listening": not self.listening,
            "not connected to Asterisk": self.ari_connected is False,
            "draining": self.draining,
            "max_calls are up": self.calls >= self.max_calls,
        }
        return [reason for reason, holds in reasons.items() if holds]

    @property
    def ready(self) -> bool:
        """Whether the next caller would be taken."""
        return not self.why_not


class HealthServer:
    """Answers at ``settings.listen``; with nothing there it does nothing."""

    def __init__(self, settings: HealthSettings, readiness: Callable[[], Readiness]) -> None:
        self._settings = settings
        self._readiness = readiness
        self._server: asyncio.Server | None = None
        self._http: web.Server | None = None

    @property
    def address(self) -> Address | None:
        """Where it really listens (first of several); None when it does not."""
        if self._server is None or not self._server.sockets:
            return None
        host, port = self._server.sockets[0].getsockname()[:2]
        return Address(host, port)

    async def start(self) -> None:
        """Begin to answer. Raises ConfigError when the address cannot be had."""
        if not self._settings.listen:
            return
        self._http = http = web.Server(self._handle)
        host, port = parse_address(self._settings.listen)
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: _Conversation(http, self._has_room), host, port
            )
        except OSError as error:
            await self.close()
            reason = error.strerror or str(error)
            raise ConfigError(f"health.listen: cannot listen on {self._settings.listen}: {reason}") from error
        log.info("= health listens", listen=str(self.address))

    async def close(self) -> None:
        """Stop answering and cut what is open. Idempotent."""
        server, self._server = self._server, None
        http, self._http = self._http, None
        if server is not None:
            server.close()
        if http is not None:
            http.pre_shutdown()
            await http.shutdown(CONNECTION_SECONDS)

    def _has_room(self) -> bool:
        return self._http is not None and len(self._http.connections) < MAX_CONNECTIONS

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = {"/live": _live, "/ready": self._ready}.get(request.path)
        if answer is None:
            return _answer(404, {"error": "has nothing at this address"})
        if request.method not in ("GET", "HEAD"):
            return _answer(405, {"error": "is only to be read"}, Allow="GET, HEAD")
        return answer()

    def _ready(self) -> web.Response:
        state = self._readiness()
        body = {
            "ready": state.ready,
            "why_not": state.why_not,
            "calls": state.calls,
            "max_calls": state.max_calls,
            "draining": state.draining,
            "ari_connected": state.ari_connected,
        }
        return _answer(200 if state.ready else 503, body)


def _live() -> web.Response:
    return _answer(200, {"live": True})


class _Conversation(DiscreetHandler):
    """One connection, unless it is one too many."""

    def __init__(self, http: web.Server, has_room: Callable[[], bool]) -> None:
        super().__init__(http, log, max_line_size=HEAD_BYTES, max_field_size=HEAD_BYTES)
        self._has_room = has_room

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self._has_room():
            cast(asyncio.Transport, transport).abort()
            return
        super().connection_made(transport)
        asyncio.get_running_loop().call_later(CONNECTION_SECONDS, self.force_close)

    def unreadable(self, client: str) -> web.Response:
        return _answer(400, {"error": "cannot read the request"})

    def failed(self) -> web.Response:
        return _answer(500, {"error": "fails at this request"})


def _answer(status: int, body: object, **headers: str) -> web.Response:
    response = web.Response(
        status=status,
        text=json.dumps(body) + "\n",
        content_type="application/json",
        headers={"Cache-Control": "no-store", **headers},
    )
    response.force_close()
    return response
