"""Listens for Asterisk, lets in who may come, and hands over each connection once it has said its UUID."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from ari_gemini.audiosocket.connection import LINGER_SECONDS, Connection, EndReason
from ari_gemini.errors import ConfigError
from ari_gemini.origin import network

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

LOOPBACK: Final[tuple[Network, ...]] = (
    ipaddress.IPv4Network("127.0.0.0/8"),
    ipaddress.IPv6Network("::1/128"),
)
BACKLOG: Final = 1024
"""Connections the kernel holds until they are accepted: every call that may begin while the loop is busy."""
LOG_SECONDS: Final = 1.0
"""At most one line in this time about peers turned away; a port scan must not fill the disk."""

_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
"""One part of a host name (RFC 1123, section 2.1), with the underscore that container networks use."""

log = structlog.get_logger(__name__)


class Address(NamedTuple):
    """Where to listen or to dial: an IP address or a host name (no brackets), and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_wildcard(self) -> bool:
        """Whether it means all of this machine's addresses and therefore nobody can dial it."""
        return self.host in {"0.0.0.0", "::", "0"}  # noqa: S104  # recognised, not bound


def parse_address(text: str) -> Address:
    """Read ``host:port``, with an IPv6 address in brackets. Raises ValueError with one clear line."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or not host:
        raise ValueError(f"{text!r} is not host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"{text!r}: {host!r} is not an IPv6 address") from None
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets, as in [::1]:9092")
    else:
        _check_host(text, host)
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{text!r}: {port!r} is not a port (0 to 65535)")
    return Address(host, int(port))


def _check_host(text: str, host: str) -> None:
    if host.rpartition(".")[2].isdigit():
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError(f"{text!r}: {host!r} is not an IPv4 address") from None
    elif len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.removesuffix(".").split(".")):
        raise ValueError(f"{text!r}: {host!r} is not a host name")


class AudioSocketSettings(BaseModel):
    """The ``[audiosocket]`` section."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: str = "127.0.0.1:9092"
    """``host:port`` to listen on; port 0 takes any free one."""
    advertise: str = Field(default="", validate_default=True)
    """``host:port`` that Asterisk dials; as ``listen`` unless given."""
    verify: Literal["ari", "none"] = "ari"
    """How a connection's UUID is checked: ARI must know its channel, or any UUID is taken."""
    allow_from: tuple[Network, ...] | None = Field(default=None, validate_default=True)
    """Networks that may connect. None: anybody with ``verify = "ari"``, only this machine with ``"none"``."""
    uuid_timeout: float = Field(default=2.0, gt=0, le=60)
    """Seconds from connecting to the UUID."""
    max_unidentified: int = Field(default=512, ge=1)
    """Connections that may be open without being known to be a call's: more than any burst of calls, and few
    enough that strangers cannot use up the file descriptors."""
    max_unidentified_per_address: int = Field(default=200, ge=1)
    """The same from one address (of IPv6: one /64 network): as many as ``max_calls`` can begin at once, all
    from one Asterisk, and so few that one address leaves others room. Connections of calls are not counted
    by address: one Asterisk rightly has all of them, and ``max_calls`` bounds them."""
    max_connections: int | None = Field(default=None, ge=1)
    """Connections in all. None: room for twice ``max_calls``, since one that ends may linger while the next
    begins, and for ``max_unidentified``."""

    @property
    def listen_address(self) -> Address:
        """``listen``, read."""
        return parse_address(self.listen)

    @property
    def advertise_address(self) -> Address:
        """``advertise``, read."""
        return parse_address(self.advertise)

    @field_validator("listen")
    @classmethod
    def _listen_can_be_read(cls, text: str) -> str:
        return str(parse_address(text))

    @field_validator("advertise")
    @classmethod
    def _advertise_can_be_dialled(cls, text: str, info: ValidationInfo) -> str:
        listen: str | None = info.data.get("listen")
        if not (text or listen):
            return ""  # listen is wrong and says so itself
        address = parse_address(text or listen or "")
        if address.is_wildcard:
            given = f"{text!r} is every address" if text else f"must be given, because listen is {listen!r}"
            raise ValueError(f"{given}: it takes one address that Asterisk can dial")
        if text and address.port == 0:
            raise ValueError(f"{text!r}: port 0 cannot be dialled")
        return str(address)

    @field_validator("allow_from", mode="before")
    @classmethod
    def _networks(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None:
            return LOOPBACK if info.data.get("verify") == "none" else None
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ValueError(  # noqa: TRY004  # pydantic reports ValueError
                'takes a list of networks, as in ["127.0.0.1/32"]'
            )
        if not value:
            raise ValueError("is empty: nobody could connect")
        return tuple(_network(item) for item in value)


def _network(item: Any) -> Network:
    if isinstance(item, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return item
    if not isinstance(item, str):
        raise ValueError(f"{item!r} is not a network, as in '10.0.0.0/8'")  # noqa: TRY004  # as above
    return ipaddress.ip_network(item)  # its own messages are one clear line


@dataclass(slots=True)
class ServerStats:
    """What came to the door."""

    accepted: int = 0
    identified: int = 0
    refused: int = 0
    """Turned away: not allowed, too many, or a UUID that no call expects."""
    crowded: int = 0
    """Of those refused: there were too many."""
    unidentified: int = 0
    """Let in, but gone without a proper UUID."""


class AudioSocketServer:
    """Accepts AudioSocket connections and calls ``on_connection`` for each as soon as its UUID is known.

    ``on_connection`` runs on the event loop inside the arrival of the UUID. It must not block; it attaches a
    sink, refuses or closes, then or later: until a sink is attached, the connection keeps the first sound.
    Whoever knows that a connection is a call's says so (``recognise``): until then it is one of few.

    ``max_connections`` bounds all of them, when the settings do not say.
    """

    def __init__(
        self,
        settings: AudioSocketSettings,
        on_connection: Callable[[Connection], None],
        max_connections: int = 1024,
    ) -> None:
        self.max_connections = settings.max_connections or max_connections
        self._settings = settings
        self._on_connection = on_connection
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._let_in: set[Connection] = set()
        """Those of them that were not turned away at the door."""
        self._strangers: dict[Connection, str] = {}
        """Those of them that are not known to be a call's, each with where it comes from."""
        self._crowds: Counter[str] = Counter()
        """How many of these come from where."""
        self._closing = False
        self._throttle = Throttle(LOG_SECONDS)
        self.stats = ServerStats()

    async def start(self) -> None:
        """Begin to listen. Raises ConfigError when the address cannot be had."""
        loop = asyncio.get_running_loop()
        host, port = self._settings.listen_address
        try:
            self._server = await loop.create_server(self._connection, host, port, backlog=BACKLOG)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(
                f"audiosocket.listen: cannot listen on {self._settings.listen}: {reason}"
            ) from error
        self._closing = False
        log.info("= audiosocket listens", listen=str(self.address), advertise=str(self.advertised))

    @property
    def address(self) -> Address:
        """Where it really listens (first of several). Raises RuntimeError when it does not."""
        if self._server is None or not self._server.sockets:
            raise RuntimeError("the server does not listen")
        host, port = self._server.sockets[0].getsockname()[:2]
        return Address(host, port)

    @property
    def port(self) -> int:
        """The TCP port it really listens on. Raises RuntimeError when it does not."""
        return self.address.port

    @property
    def advertised(self) -> Address:
        """What Asterisk is to dial; with ``listen`` on port 0 it has the real port."""
        advertise = self._settings.advertise_address
        return advertise if advertise.port else advertise._replace(port=self.port)

    @property
    def connections(self) -> int:
        """Connections whose socket is open."""
        return len(self._connections)

    async def close(self) -> None:
        """Stop listening, hang up on every connection and wait until all are gone.

        Takes LINGER_SECONDS at most. Idempotent. Cancelling cuts the connections at once.
        """
        self._closing = True
        server, self._server = self._server, None
        if server is not None:
            server.close()
        connections = tuple(self._connections)
        for connection in connections:
            connection.hangup()
        try:
            async with asyncio.timeout(2 * LINGER_SECONDS):
                for connection in connections:
                    await connection.wait_closed()
        except TimeoutError:
            log.warning("! audiosocket connections cut", count=len(self._connections))
        finally:
            for connection in tuple(self._connections):
                connection.abort()
        if server is not None:
            await server.wait_closed()

    @property
    def unrecognised(self) -> int:
        """Of these, those let in and not known to be a call's."""
        return len(self._strangers)

    def recognise(self, connection: Connection) -> None:
        """It is a call's: its place among strangers is free for the next. Idempotent."""
        origin = self._strangers.pop(connection, None)
        if origin is not None:
            self._crowds[origin] -= 1
            if not self._crowds[origin]:
                del self._crowds[origin]

    # What connections tell their owner.

    def connected(self, connection: Connection) -> str | None:
        """Say why this peer must go, or None."""
        self._connections.add(connection)
        if self._closing:
            return "the service is being stopped"
        origin = origin_of(connection.peer_host)
        if not self._may_come(origin):
            return "not in allow_from"
        crowd = self._crowd(origin)
        if crowd is not None:
            self.stats.crowded += 1
            return crowd
        self.stats.accepted += 1
        self._let_in.add(connection)
        self._strangers[connection] = place = network(str(origin))
        self._crowds[place] += 1
        return None

    def identified(self, connection: Connection) -> None:
        """Hand the connection over."""
        self.stats.identified += 1
        log.debug("< audiosocket", uuid=str(connection.uuid), peer=connection.peer)
        self._on_connection(connection)

    def closed(self, connection: Connection) -> None:
        """Forget the connection; say so when it never became a call's."""
        self._connections.discard(connection)
        nameless = connection in self._let_in and not connection.identified
        self._let_in.discard(connection)
        self.recognise(connection)
        end = connection.end
        if end is None or self._closing:
            return
        refused = end.reason is EndReason.REFUSED
        self.stats.refused += refused
        self.stats.unidentified += nameless
        if not (refused or nameless):
            return
        hidden = self._throttle.ask(asyncio.get_running_loop().time())
        if hidden is not None:
            uuid = str(connection.uuid) if connection.identified else None
            log.warning(
                "! audiosocket turned away",
                peer=connection.peer,
                reason=end.reason.value,
                detail=end.detail,
                uuid=uuid,
                more=hidden,
            )

    def _connection(self) -> Connection:
        return Connection(self, self._settings.uuid_timeout)

    def _may_come(self, origin: IPAddress | None) -> bool:
        allowed = self._settings.allow_from
        return allowed is None or (origin is not None and any(origin in item for item in allowed))

    def _crowd(self, origin: IPAddress | None) -> str | None:
        """Say what there is too much of, or None."""
        settings, strangers = self._settings, len(self._strangers)
        if len(self._let_in) >= self.max_connections:
            return f"{len(self._let_in)} connections are open"
        if strangers >= settings.max_unidentified:
            return f"{strangers} connections are no call's yet"
        here = self._crowds[network(str(origin))]
        if here >= settings.max_unidentified_per_address:
            return f"{here} connections from there are no call's yet"
        return None


def origin_of(host: str) -> IPAddress | None:
    """The address of a peer, IPv4 in IPv6 unwrapped. None when it had gone before it could be asked for."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class Throttle:
    """Lets one event through per ``interval`` seconds and counts the others."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next = float("-inf")
        self._hidden = 0

    def ask(self, now: float) -> int | None:
        """Return how many were held back since the last one went through, or None to hold this one back."""
        if now < self._next:
            self._hidden += 1
            return None
        hidden, self._hidden = self._hidden, 0
        self._next = now + self._interval
        return hidden
