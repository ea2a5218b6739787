"""Listens for Asterisk's outbound WebSockets: one for each call, made when a caller enters ``Stasis()``.

Asterisk (22.10.1, measured): ``GET /ari``, subprotocol ``ari``, HTTP Basic credentials. Answered anything
but 101, or by nobody, it asks again every ``reconnect_interval``, ``reconnect_attempts`` times, while the
caller waits; then ``Stasis()`` returns with STASISSTATUS=FAILED. A peer that takes the connection and then
says nothing holds the caller for ever: this listener answers everybody at once or cuts him off.

A connection that breaks, or that is closed from here, is made anew at once to whatever listens then, as long
as the caller is in the application. Asterisk closes it itself (code 1000) 3.5 s after he has left.

A new connection is a *stranger* until its request has been read and shows the credentials. To be one costs
nothing, and Asterisk, too, begins as one: so a stranger too many is taken in, and another one cut off for it
(``Strangers``). The links have a limit of their own, which no stranger counts for.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from http import HTTPStatus
from typing import Final, Generic, TypeVar

import structlog
from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import Event
from websockets.typing import Subprotocol

from ari_gemini.ari.link import AriLink, decode
from ari_gemini.ari.settings import AriSettings
from ari_gemini.ari.transport import CLOSE_WAIT, HEARTBEAT, MAX_BODY
from ari_gemini.errors import ConfigError
from ari_gemini.origin import network
from ari_gemini.transport import Abortable

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
STRANGERS: Final = 512
"""Connections at once that have not shown credentials. All calls that a worker had when it was killed
(``max_calls``: 200) come at the same moment, and each is a stranger for milliseconds; and few enough that
strangers take neither the file descriptors nor the memory that calls need."""
KNOWN_PLACES: Final = 8
"""Places remembered whose peers have shown credentials, the latest: an Asterisk each. The more there are, the
smaller is the part of STRANGERS kept for each (``Strangers.evict``): 256 for one, 32 each for eight."""
BACKLOG: Final = 1024
"""Connections the kernel holds until they are accepted: every call of a killed worker, at the same moment."""
LOG_SECONDS: Final = 10.0
"""At most one line in this time about peers that were turned away."""

_quiet = logging.Logger("ari_gemini.ari.outbound", logging.CRITICAL)  # what it would say is said here

_T = TypeVar("_T", bound=Hashable)


class Strangers(Generic[_T]):
    """Who has not shown credentials, by the place he comes from (``origin.network``); and who is to go."""

    def __init__(self) -> None:
        self._place_of: dict[_T, str] = {}
        self._crowds: dict[str, OrderedDict[_T, None]] = {}
        """By place, the oldest first, of places and of who is there. None is empty."""
        self._known: OrderedDict[str, None] = OrderedDict()
        """Places whose peers have shown credentials, the latest last; at most KNOWN_PLACES."""

    def __len__(self) -> int:
        return len(self._place_of)

    def __contains__(self, one: _T) -> bool:
        return one in self._place_of

    def add(self, one: _T, address: str) -> None:
        """He has come from there."""
        place = self._place_of[one] = network(address)
        self._crowds.setdefault(place, OrderedDict())[one] = None

    def discard(self, one: _T) -> None:
        """He has gone. Idempotent."""
        place = self._place_of.pop(one, None)
        if place is not None:
            del self._crowds[place][one]
            if not self._crowds[place]:
                del self._crowds[place]

    def trust(self, one: _T) -> None:
        """He has shown credentials: he is no stranger any more, and others from there have preference."""
        place = self._place_of[one]
        self.discard(one)
        self._known[place] = None
        self._known.move_to_end(place)
        if len(self._known) > KNOWN_PLACES:
            self._known.popitem(last=False)

    def evict(self) -> _T:
        """Remove who must go for the others' sake, and return him: the oldest of the greatest crowd.

        Whoever has been silent for long is likelier to stay so, and one flooder has few places. One with many
        (an IPv6 network of /48 has 65 536) is held off by this: half of all are kept for known places, in
        equal parts, and a known place loses none as long as it has no more than its part. Never is it the
        newest, when there are two.
        """
        part = (len(self) - 1) // 2 // max(1, len(self._known))

        def size(place: str) -> int:
            count = len(self._crowds[place])
            return 0 if place in self._known and count <= part else count

        one = next(iter(self._crowds[max(self._crowds, key=size)]))
        self.discard(one)
        return one


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
        self.max_connections = settings.max_connections
        """Connections that have shown credentials, at once."""
        self.max_strangers = STRANGERS
        """Connections that have not."""
        self._settings = settings
        self._on_link = on_link
        self._authorization = base64.b64encode(secret)
        self._server: Server | None = None
        self._connections: dict[ServerConnection, str] = {}
        """All whose socket is open, each with its address."""
        self._strangers: Strangers[ServerConnection] = Strangers()
        self._guests: set[ServerConnection] = set()
        """Those that have shown credentials. Who is neither was cut off, or refused for lack of room."""
        self._links: set[AriLink] = set()
        self._silent_until = 0.0

    async def start(self) -> None:
        """Listen. Raises ConfigError when the address cannot be had."""
        host, port = self._settings.listen_address
        listener = self

        class Bounded(Abortable, ServerConnection):
            """Counted from the moment the kernel has it."""

            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                listener._arrived(self, transport)

            def process_event(self, event: Event) -> None:
                super().process_event(event)
                if isinstance(event, Request):  # at once: under a flood the handshake's task runs much later
                    listener._asked(self, event)

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
        self._connections[connection] = address
        self._strangers.add(connection, address)
        if len(self._strangers) > self.max_strangers:
            self._cut_off(self._strangers.evict(), "too many strangers")

    def _asked(self, connection: ServerConnection, request: Request) -> None:
        """Let it out of the strangers when it shows credentials; the answer it gets is ``_examine``'s."""
        if connection not in self._strangers or not self._admits(request.headers.get_all("Authorization")):
            return
        self._strangers.trust(connection)
        if len(self._guests) < self.max_connections:
            self._guests.add(connection)
        else:
            self._cut_off(connection, "too many connections")

    def _cut_off(self, connection: ServerConnection, reason: str) -> None:
        self._turned_away(reason, self._connections[connection])
        connection.transport.abort()

    def _left(self, connection: ServerConnection) -> None:
        self._connections.pop(connection, None)
        self._strangers.discard(connection)
        self._guests.discard(connection)

    def _examine(self, connection: ServerConnection, request: Request) -> Response | None:
        """None: let it in; else the answer it gets."""
        address = self._connections.get(connection, "")
        admitted = connection in self._guests
        if not admitted and connection not in self._strangers:  # it has gone or was cut off since it asked
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "")
        if request.path.partition("?")[0] != PATH:
            return self._refusal(connection, address, HTTPStatus.NOT_FOUND, "wrong path")
        if not admitted:
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
        address = self._connections.get(connection, "")
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
