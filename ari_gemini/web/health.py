"""Whether the service lives and whether it takes calls, over HTTP, for those who restart or route.

``GET /live``: 200 as long as the event loop runs. ``GET /ready``: 200 when the next caller would be taken,
else 503; a short JSON object says why not, and what there is. Nothing here is secret and nothing can be
changed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, field_validator

from ari_gemini.audiosocket.server import Address, parse_address
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
        self._runner: web.AppRunner | None = None

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
        app = web.Application()
        app.router.add_get("/live", self._live)
        app.router.add_get("/ready", self._ready)
        runner = web.AppRunner(app, access_log=None, max_line_size=HEAD_BYTES, max_field_size=HEAD_BYTES)
        await runner.setup()
        self._runner = runner
        host, port = parse_address(self._settings.listen)
        try:
            self._server = await asyncio.get_running_loop().create_server(self._connection, host, port)
        except OSError as error:
            await self.close()
            reason = error.strerror or str(error)
            raise ConfigError(f"health.listen: cannot listen on {self._settings.listen}: {reason}") from error
        log.info("= health listens", listen=str(self.address))

    async def close(self) -> None:
        """Stop answering and cut what is open. Idempotent."""
        server, self._server = self._server, None
        runner, self._runner = self._runner, None
        if server is not None:
            server.close()
        if runner is not None:
            await runner.cleanup()

    def _connection(self) -> asyncio.BaseProtocol:
        server = self._runner.server if self._runner is not None else None
        if server is None or len(server.connections) >= MAX_CONNECTIONS:
            return _TurnedAway()
        handler = server()
        asyncio.get_running_loop().call_later(CONNECTION_SECONDS, handler.force_close)
        return handler

    async def _live(self, _: web.Request) -> web.Response:
        return _answer(200, {"live": True})

    async def _ready(self, _: web.Request) -> web.Response:
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


class _TurnedAway(asyncio.Protocol):
    """One prober too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            transport.abort()


def _answer(status: int, body: object) -> web.Response:
    response = web.Response(
        status=status,
        text=json.dumps(body) + "\n",
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
    response.force_close()
    return response
