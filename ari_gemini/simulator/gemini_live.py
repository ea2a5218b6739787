"""A Gemini Live server for demos and tests: the Developer API's WebSocket on this machine, playing scenarios.

It is an independent witness: nothing here shares code with this project's Gemini client. What it demands of a
client and what it sends follow the Live API reference and published recordings of the service.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from collections import deque
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import structlog
from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.http11 import Request, Response
from websockets.protocol import State

from ari_gemini.errors import ConfigError
from ari_gemini.simulator.gemini_access import BAD_KEY, Access, Admission, endpoint_of
from ari_gemini.simulator.gemini_connection import (
    SessionGoneError,
    SimulatedSession,
    SimulatorClock,
    Surroundings,
    Tap,
)
from ari_gemini.simulator.gemini_http import NOT_FOUND, MintingDesk, error_body, failure_text
from ari_gemini.simulator.gemini_link import Link
from ari_gemini.simulator.gemini_memory import HandleBook
from ari_gemini.simulator.gemini_narrator import narrate
from ari_gemini.simulator.gemini_schema import RefusalError
from ari_gemini.simulator.gemini_tokens import TokenBook
from ari_gemini.simulator.scenario import DEFAULT_SCENARIO, Scenario, list_scenarios, load_scenario

__all__ = ["GeminiSimulator", "SessionGoneError", "SimulatedSession", "list_scenarios", "serve"]

_MAX_FRAME = 4 * 2**20

log = structlog.get_logger(__name__)


class GeminiSimulator:
    """The server. ``async with GeminiSimulator("barge_in") as sim:`` listens on a free loopback port.

    ``scenario`` is a Scenario or a name for ``load_scenario``; assigning ``sim.scenario`` changes what the
    next connection gets. ``speed`` makes every modelled delay pass that much faster than real time; what the
    caller says is measured by the length of its sound, whatever the clock. ``valid_keys`` None takes any key
    that is not empty. ``tap`` sees every frame in both directions. ``narrated`` tells the log what goes on.
    ``keep_sound`` false only counts sound instead of recording it; ``keep_sessions`` bounds ``sessions``.
    """

    def __init__(
        self,
        scenario: Scenario | str = DEFAULT_SCENARIO,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl: ssl.SSLContext | None = None,
        speed: float = 1.0,
        valid_keys: Collection[str] | None = None,
        tap: Tap | None = None,
        narrated: bool = False,
        keep_sound: bool = True,
        keep_sessions: int = 256,
    ) -> None:
        self.scenario = load_scenario(scenario) if isinstance(scenario, str) else scenario
        self.host = host
        self.port = port
        self.connections = 0
        """WebSockets accepted so far."""
        self.sessions: deque[SimulatedSession] = deque(maxlen=keep_sessions)
        """One for each connection, oldest first; the newest ``keep_sessions`` of them."""
        self.tokens = TokenBook(self._wall_clock)
        """The ephemeral tokens minted here (``POST /v1beta/auth_tokens``); they age with ``speed``."""
        self._ssl = ssl
        self._access = Access(valid_keys, self.tokens)
        self._desk = MintingDesk(self.tokens, self._access, lambda: self.scenario)
        self._tap = tap
        self._narrated = narrated
        self._keep_sound = keep_sound
        self._clock = SimulatorClock(speed, time.monotonic())
        self._began = datetime.now(UTC).timestamp()
        self._book = HandleBook(random.Random(self.scenario.seed))
        self._links: set[Link] = set()
        self._server: Server | None = None
        self._arrived: asyncio.Condition = asyncio.Condition()

    @property
    def url(self) -> str:
        """What a client's base URL must be: ``ws://host:port`` or ``wss://host:port``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'ws' if self._ssl is None else 'wss'}://{host}:{self.port}"

    async def start(
        self, host: str | None = None, port: int | None = None, ssl: ssl.SSLContext | None = None
    ) -> None:
        """Listen; arguments given here overrule the constructor's. Raises OSError for an address taken."""
        self._ssl = self._ssl if ssl is None else ssl
        self.host = host or self.host
        extra: dict[str, Any] = {} if self._ssl is None else {"ssl_handshake_timeout": 10.0}
        self._server = await serve_websocket(
            self._serve,
            self.host,
            self.port if port is None else port,
            ssl=self._ssl,
            process_request=self._upgrade,
            create_connection=cast(type[ServerConnection], self._link),
            server_header=None,
            open_timeout=60.0,
            ping_interval=None,
            close_timeout=2.0,
            max_size=_MAX_FRAME,
            **extra,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close every connection with 1001 and stop listening. Idempotent.

        Raises whatever defect of the simulator ended a session.
        """
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for link in list(self._links):
            if link.protocol.state is State.CONNECTING:
                link.transport.abort()
        await self._desk.close()
        await server.wait_closed()
        for session in self.sessions:
            if session.failure is not None:
                raise session.failure

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def wait_session(self, number: int = 1, *, timeout: float = 10.0) -> SimulatedSession:
        """The ``number``-th connection's session, now or when it comes. Raises TimeoutError."""
        async with asyncio.timeout(timeout), self._arrived:
            await self._arrived.wait_for(lambda: self.connections >= number)
        return next(session for session in self.sessions if session.number == number)

    def _link(self, *args: Any, **kwargs: Any) -> Link:
        return Link(*args, links=self._links, other=self._desk.connection, **kwargs)

    def _wall_clock(self) -> datetime:
        return datetime.fromtimestamp(self._began + self._clock.now(), UTC)

    async def _upgrade(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer what is no WebSocket of ours; None lets the upgrade go on."""
        if endpoint_of(request.path) is None:
            return connection.respond(404, NOT_FOUND)
        if not self.scenario.upgrade:
            await connection.wait_closed()
        status = self.scenario.http_status
        if status is not None:
            return _error_response(connection, status)
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        link = cast(Link, connection)
        request = link.request
        endpoint = endpoint_of(request.path) if request is not None else None
        if request is None or endpoint is None:
            return  # _upgrade lets none of these through
        try:
            admit: Admission | RefusalError = self._access.admit(endpoint, request.headers)
            if self.scenario.refuse_keys:
                admit = RefusalError(1007, BAD_KEY)
        except RefusalError as refusal:
            admit = refusal
        self.connections += 1
        around = Surroundings(self.scenario, self._book, self._clock, self._tap, self._keep_sound)
        session = SimulatedSession(link, self.connections, around, endpoint.version, admit)
        if self._narrated:
            narrate(session.number, session.record)
        self.sessions.append(session)
        async with self._arrived:
            self._arrived.notify_all()
        await session.run()


def _error_response(connection: ServerConnection, status: int) -> Response:
    response = connection.respond(status, json.dumps(error_body(status, failure_text(status))))
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = "application/json; charset=UTF-8"
    return response


async def serve(
    listen: str, tls_cert: str | Path | None, tls_key: str | Path | None, scenario: str = DEFAULT_SCENARIO
) -> None:
    """Run a simulated Gemini on ``HOST:PORT`` until cancelled, and tell the log what goes on.

    Raises ConfigError for a bad address, certificate or scenario. Cancelling closes the connections (1001).
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"--listen: {listen!r} is not HOST:PORT")
    simulator = GeminiSimulator(scenario, narrated=True, keep_sound=False, keep_sessions=1)
    try:
        await simulator.start(host.strip("[]"), int(port), _tls(tls_cert, tls_key))
    except OSError as error:
        raise ConfigError(f"--listen: cannot listen on {listen}: {error.strerror or error}") from error
    log.info(
        "simulated Gemini listens",
        url=simulator.url,
        scenario=simulator.scenario.name,
        plays=simulator.scenario.summary,
    )
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await simulator.stop()
        log.info("simulated Gemini stopped", sessions=simulator.connections)


def _tls(cert: str | Path | None, key: str | Path | None) -> ssl.SSLContext | None:
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise ConfigError("--tls-cert and --tls-key belong together")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:  # ssl.SSLError is one, too
        raise ConfigError(f"--tls-cert/--tls-key: {error}") from error
    return context
