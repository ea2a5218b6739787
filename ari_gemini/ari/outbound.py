"""Listens for Asterisk's outbound WebSockets: one for each call, made when a caller enters ``Stasis()``.

Asterisk (22.10.1, measured): ``GET /ari``, subprotocol ``ari``, HTTP Basic credentials. Answered anything
but 101, or by nobody, it asks again every ``reconnect_interval``, ``reconnect_attempts`` times, while the
caller waits; then ``Stasis()`` returns with STASISSTATUS=FAILED. A peer that takes the connection and then
says nothing holds the caller for ever: this listener answers everybody at once or cuts him off.

A connection that breaks, or that is closed from here, is made anew at once to whatever listens then, as long
as the caller is in the application. Asterisk closes it itself (code 1000) 3.5 s after he has left.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import structlog
from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from ari_gemini.ari.link import AriLink, decode
from ari_gemini.ari.settings import AriSettings
from ari_gemini.ari.transport import CLOSE_WAIT, HEARTBEAT, MAX_BODY
from ari_gemini.errors import ConfigError

log = structlog.get_logger(__name__)

PATH: Final = "/ari"
"""Where ``websocket_client.conf``'s ``uri`` must lead."""
SUBPROTOCOL: Final = Subprotocol("ari")
OPEN_SECONDS: Final = 3.0
"""From connecting to the end of the handshake: Asterisk sends its whole request at once."""
REGISTER_SECONDS: Final = 3.0
"""From the handshake to ApplicationRegistered, which Asterisk sends in the same millisecond."""
PONG_SECONDS: Final = 5.0
"""How long a ping may be unanswered; with HEARTBEAT a vanished Asterisk is noticed within 15 s."""
STRANGERS_PER_ADDRESS: Final = 256
"""Connections from one address that have not said for which call they are: all that a worker had when it was
killed come at once, each stays a stranger for milliseconds."""
BACKLOG: Final = 1024
"""Connections the kernel holds until they are accepted: every call of a killed worker, at the same moment."""
LOG_SECONDS: Final = 10.0
"""At most one line in this time about peers that were turned away."""

_quiet = logging.Logger("ari_gemini.ari.outbound", logging.CRITICAL)  # what it would say is said here


class OutboundListener:
    """Accepts Asterisk's connections and calls ``on_link`` for each as soon as it has named its application.

    ``on_link`` runs on the event loop before anything more is read: it sets the link's handlers and returns.
    Several processes may listen on one port (``SO_REUSEPORT``); the kernel spreads the calls over them.
    """

    def __init__(self, settings: AriSettings, on_link: Callable[[AriLink], None]) -> None:
        """Raises ConfigError when there is no password."""
        if settings.password is None or not settings.password.get_secret_value():
            raise ConfigError("ari.password is missing: set it in the configuration or as ARI_PASSWORD")
        secret = f"{settings.username}:{settings.password.get_secret_value()}".encode()
        self.accepting = True
        """False: new connections are answered 503, and Asterisk asks elsewhere, or again."""
        self.refused: Counter[str] = Counter()
        """Who was turned away, by reason."""
        self._settings = settings
        self._on_link = on_link
        self._authorization = base64.b64encode(secret)
        self._server: Server | None = None
        self._connections: set[ServerConnection] = set()
        self._strangers: dict[ServerConnection, str] = {}
        """Those of them that have not named an application, each with its address."""
        self._links: set[AriLink] = set()
        self._silent_until = 0.0

    async def start(self) -> None:
        """Listen. Raises ConfigError when the address cannot be had."""
        host, port = self._settings.listen_address
        listener = self

        class Bounded(ServerConnection):
            """Counted from the moment the kernel has it."""

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                listener._arrived(self, transport)

            def connection_lost(self, exc: Exception | None) -> None:
                listener._left(self)
                super().connection_lost(exc)

        try:
            self._server = await serve_websocket(
                self._serve,
                host,
                port,
                process_request=self._examine,
                subprotocols=[SUBPROTOCOL],
                compression=None,
                open_timeout=OPEN_SECONDS,
                ping_interval=HEARTBEAT,
                ping_timeout=PONG_SECONDS,
                close_timeout=CLOSE_WAIT,
                max_size=MAX_BODY,
                logger=_quiet,
                create_connection=Bounded,
                reuse_port=True,
                backlog=BACKLOG,
            )
        except OSError as error:
            raise ConfigError(f"ari.listen: cannot listen on {self._settings.listen}: {error}") from None
        log.info("= ari listening", address=self._settings.listen, app=self._settings.app)

    @property
    def port(self) -> int:
        """The port it listens on; needs ``start`` and no ``stop_accepting`` since."""
        if self._server is None or not self._server.sockets:
            raise RuntimeError("not listening")
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        """TCP connections, those being refused or closed included."""
        return len(self._connections)

    @property
    def links(self) -> list[AriLink]:
        """Those that are open."""
        return list(self._links)

    def stop_accepting(self) -> None:
        """Take no new connections and give up the port; links that are there stay. Idempotent.

        With the port given up, the kernel sends callers to the other processes on it. Who is in between is
        answered 503.
        """
        self.accepting = False
        if self._server is not None:
            self._server.close(close_connections=False)

    async def close(self) -> None:
        """Close everything. Idempotent. Callers who are there still are Asterisk's to bring elsewhere."""
        self.stop_accepting()
        await asyncio.gather(*(link.close() for link in list(self._links)))
        for connection in list(self._connections):
            connection.transport.abort()
        server, self._server = self._server, None
        if server is not None:
            await server.wait_closed()

    # -- the door ------------------------------------------------------------------------------------------

    def _arrived(self, connection: ServerConnection, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if isinstance(peer, tuple) else ""
        self._connections.add(connection)
        self._strangers[connection] = address
        crowd = sum(other == address for other in self._strangers.values())
        if len(self._connections) > self._settings.max_connections or crowd > STRANGERS_PER_ADDRESS:
            self._turned_away("too many connections", address)
            connection.transport.abort()

    def _left(self, connection: ServerConnection) -> None:
        self._connections.discard(connection)
        self._strangers.pop(connection, None)

    def _examine(self, connection: ServerConnection, request: Request) -> Response | None:
        """None: let it in; else the answer it gets."""
        address = self._strangers.get(connection, "")
        if request.path.partition("?")[0] != PATH:
            return self._refusal(connection, address, HTTPStatus.NOT_FOUND, "wrong path")
        if not self._admits(request.headers.get_all("Authorization")):
            answer = self._refusal(connection, address, HTTPStatus.UNAUTHORIZED, "wrong credentials")
            answer.headers["WWW-Authenticate"] = 'Basic realm="ari-gemini"'  # RFC 7617, section 2
            return answer
        offered = ",".join(request.headers.get_all("Sec-WebSocket-Protocol"))
        if SUBPROTOCOL not in {name.strip() for name in offered.split(",")}:
            return self._refusal(connection, address, HTTPStatus.BAD_REQUEST, "subprotocol is not ari")
        if not self.accepting:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "draining\n")
        return None

    def _admits(self, authorization: list[str]) -> bool:
        if len(authorization) != 1:
            return False
        scheme, _, given = authorization[0].partition(" ")
        try:
            encoded = given.strip().encode("ascii")
        except UnicodeEncodeError:
            return False
        # compared as it is written, in a time that does not tell how much of it is right
        return hmac.compare_digest(encoded, self._authorization) and scheme.lower() == "basic"

    def _refusal(
        self, connection: ServerConnection, address: str, status: HTTPStatus, reason: str
    ) -> Response:
        self._turned_away(reason, address)
        return connection.respond(status, f"{reason}\n")

    def _turned_away(self, reason: str, address: str) -> None:
        self.refused[reason] += 1
        now = asyncio.get_running_loop().time()
        if now >= self._silent_until:
            self._silent_until = now + LOG_SECONDS
            count = self.refused.total()
            log.warning("! ari connection refused", reason=reason, address=address, so_far=count)

    # -- inside --------------------------------------------------------------------------------------------

    async def _serve(self, connection: ServerConnection) -> None:
        """One connection, from the handshake to its end."""
        address = self._strangers.get(connection, "")
        try:
            async with asyncio.timeout(REGISTER_SECONDS):
                first = await connection.recv()
        except (ConnectionClosed, TimeoutError):
            first = ""
        app = self._application(first)
        if app is None:
            self._turned_away("no ApplicationRegistered of a call", address)
            await connection.close(1008, "expected ApplicationRegistered of a per_call_config connection")
            return
        self._strangers.pop(connection, None)
        link = AriLink(connection, app, self._settings.request_timeout)
        self._links.add(link)
        try:
            log.debug("< ari link", application=app)
            self._on_link(link)
            await link.run(first)
        finally:
            self._links.discard(link)

    def _application(self, message: str | bytes) -> str | None:
        """The application that a link's first message names; None when it is not one of ours for one call.

        That message is ApplicationRegistered, or an event that came to pass while Asterisk had no connection:
        those it keeps, and sends them first.
        """
        raw = decode(message)
        application = raw.get("application") if isinstance(raw, dict) else None
        # Without a channel's name it is a connection for all calls (connection_type = persistent).
        base, _, channel = application.partition(":") if isinstance(application, str) else ("", "", "")
        return application if base == self._settings.app and channel else None
