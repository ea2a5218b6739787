"""The token broker: holds the key, and mints one ephemeral token for each call that a worker tells it of.

``POST /v1/tokens`` with ``Authorization: Bearer <broker_secret>`` and ``{"setup": {...}}``, the setup of the
session that is to be opened; the answer is ``{"name": "auth_tokens/...", "expires_in": seconds}``.

What may a worker ask for? Its setup holds what the broker cannot know: instructions filled in for this
caller, and functions that MCP servers offered the worker a minute ago. So the worker sends the setup and the
broker locks the token to exactly that: whoever steals the token from the wire or from a log gets this call's
model and instructions, once, within a minute. What costs money the broker decides from its own configuration
alone: which models there are tokens for, how many sessions one starts, how long it lasts; and of tools it
lets through function declarations only, none that the service itself runs and bills. Whoever steals
``broker_secret`` can therefore have conversations at the rate that the broker allows, until the secret is
changed; the key itself, which opens everything else of the account, he never sees.

Answers hold a kind and words of the broker's own, never what Google said: that is for the broker's log. What
a client sent is neither logged nor answered, not even where it cannot be read: the secret may be in it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import math
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, cast

import structlog
from aiohttp import web

from ari_gemini.discreet import DiscreetHandler
from ari_gemini.errors import (
    ConfigError,
    KeyRefused,
    ModelRefused,
    QuotaExceeded,
    SessionError,
    SessionUnavailable,
    SetupRefused,
)
from ari_gemini.gemini.models import bare_name
from ari_gemini.gemini.rate import Bucket, Clients
from ari_gemini.gemini.settings import BrokerSettings, GeminiSettings
from ari_gemini.gemini.token_lock import LOCKED
from ari_gemini.gemini.tokens import BROKER_PATH, Minter, Now, TokenSource

MAX_BODY = 512 * 2**10
"""Bytes of a request: long instructions and hundreds of function declarations are some 200 kB."""
READ_SECONDS = 5.0
"""For a request to come in, TLS, headers and body each: a worker sends it in one go."""
MAX_CONNECTIONS = 256
"""At once, from accept on; each may hold a body. More than any burst of calls, less than the descriptors."""
LOG_SECONDS = 1.0
"""At most one line in this time about requests turned away; a scan must not fill the disk."""
STOP_SECONDS = 5.0
"""For requests that are being answered when it stops."""

log = structlog.get_logger(__name__)


class _Refusal(Exception):
    """Answer with ``status``; ``kind`` and ``message`` are for the worker."""

    def __init__(self, status: int, kind: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def checked_setup(body: bytes, models: tuple[str, ...]) -> dict[str, Any]:
    """The setup in a request. Raises SetupRefused or ModelRefused when no token may be locked to it."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        request = None
    setup = request.get("setup") if isinstance(request, dict) else None
    if not isinstance(setup, dict):
        raise SetupRefused('wants {"setup": {...}}')
    strange = sorted(setup.keys() - set(LOCKED))
    if strange:
        raise SetupRefused(f"locks no token to these fields of the setup: {', '.join(strange)[:200]}")
    model = setup.get("model")
    if not isinstance(model, str) or bare_name(model) not in models:
        raise ModelRefused(f"mints no tokens for this model, only for: {', '.join(models)}")
    tools = setup.get("tools", [])
    if not isinstance(tools, list) or not all(_declares_functions(tool) for tool in tools):
        raise SetupRefused("allows no tools but function declarations")
    return setup


def _declares_functions(tool: object) -> bool:
    return isinstance(tool, dict) and tool.keys() == {"functionDeclarations"}


class Broker:
    """The HTTP server. ``start`` it, and ``close`` it; ``minter`` belongs to whoever made it."""

    def __init__(
        self,
        settings: GeminiSettings,
        broker: BrokerSettings,
        minter: TokenSource,
        *,
        monotonic: Now = time.monotonic,
        now: Now = time.time,
    ) -> None:
        """Raises ConfigError when the settings let no token be minted, or would let one open anything."""
        if settings.broker_secret is None:
            raise ConfigError(
                "gemini.broker_secret: missing; set ARI_GEMINI_BROKER_SECRET or gemini.broker_secret_file"
            )
        if not settings.token_lock:
            raise ConfigError("gemini.token_lock: a broker's tokens are always locked; remove the line")
        self._settings = settings
        self._broker = broker
        self._minter = minter
        self._monotonic = monotonic
        self._now = now
        self._bearer = f"Bearer {settings.broker_secret.get_secret_value()}".encode()
        self._models = broker.models or (bare_name(settings.model),)
        self._clients = Clients(broker.client_rate, broker.client_burst)
        self._all = Bucket(broker.total_rate, broker.total_burst)
        self._door: _Door | None = None
        self._listening: asyncio.Server | None = None
        self._turned_away = 0
        self._quiet_until = 0.0

    async def start(self) -> tuple[str, int]:
        """Listen; where. Raises ConfigError when the address or the certificate cannot be had."""
        host, port = self._broker.address
        tls = self._tls()
        self._door = _Door(web.Server(self._handle), tls, self._cannot_read)
        loop = asyncio.get_running_loop()
        try:
            self._listening = await loop.create_server(self._door.knock, host, port)
        except OSError as error:
            why = error.strerror or error
            raise ConfigError(f"broker.listen: cannot listen on {self._broker.listen}: {why}") from error
        name = self._listening.sockets[0].getsockname()
        log.info(
            "broker listens", host=name[0], port=name[1], tls=tls is not None, models=", ".join(self._models)
        )
        return str(name[0]), int(name[1])

    async def close(self) -> None:
        """Take no more requests, and answer those that are there within STOP_SECONDS. Idempotent."""
        listening, self._listening = self._listening, None
        door, self._door = self._door, None
        if listening is not None:
            listening.close()
        if door is not None:
            await door.close()

    def _tls(self) -> ssl.SSLContext | None:
        if self._broker.tls_cert is None or self._broker.tls_key is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self._broker.tls_cert, self._broker.tls_key)
        except OSError as error:  # ssl.SSLError is one, too
            raise ConfigError(f"broker.tls_cert, broker.tls_key: {error}") from error
        return context

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        client = request.remote or "?"
        if request.path == "/health" and request.method == "GET":
            return _answer(200, {"status": "ok"})
        try:
            return _answer(200, await self._mint(request, client))
        except _Refusal as refusal:
            return self._refuse(client, refusal)

    def _cannot_read(self, client: str) -> web.Response:
        """The answer to what is no HTTP; it counts as a request."""
        try:
            _admit(self._clients.take(client, self._monotonic()))
        except _Refusal as refusal:
            return self._refuse(client, refusal)
        return self._refuse(client, _unreadable())

    async def _mint(self, request: web.BaseRequest, client: str) -> dict[str, Any]:
        _admit(self._clients.take(client, self._monotonic()))
        if request.path != BROKER_PATH or request.method != "POST":
            raise _Refusal(404, "SessionRefused", "has nothing at this address")
        shown = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(shown, self._bearer):
            raise _Refusal(401, "KeyRefused", "refuses broker_secret", WWW_Authenticate="Bearer")
        _admit(self._all.take(self._monotonic()))
        began = self._monotonic()
        body = await _read(request)
        try:
            setup = checked_setup(body, self._models)
        except SessionError as error:
            raise _Refusal(422, type(error).__name__, str(error)) from error
        try:
            token = await self._minter.mint(setup)
        except SessionError as error:
            log.warning("token not minted", client=client, reason=str(error), code=error.code)
            raise _upstream(error) from error
        took = round((self._monotonic() - began) * 1000)
        log.info("token minted", client=client, model=bare_name(setup["model"]), ms=took)
        return {"name": token.name.get_secret_value(), "expires_in": round(token.expires - self._now(), 3)}

    def _refuse(self, client: str, refusal: _Refusal) -> web.Response:
        self._tell(client, refusal)
        error = {"kind": refusal.kind, "message": refusal.message}
        return _answer(refusal.status, {"error": error}, refusal.headers)

    def _tell(self, client: str, refusal: _Refusal) -> None:
        self._turned_away += 1
        now = self._monotonic()
        if now >= self._quiet_until:
            log.warning(
                "request refused",
                client=client,
                status=refusal.status,
                reason=refusal.message,
                count=self._turned_away,
            )
            self._turned_away, self._quiet_until = 0, now + LOG_SECONDS


class _Door:
    """Lets MAX_CONNECTIONS in, those included whose TLS handshake is not done."""

    def __init__(
        self,
        http: web.Server,
        tls: ssl.SSLContext | None,
        cannot_read: Callable[[str], web.Response],
    ) -> None:
        self.greeting: dict[socket.socket, asyncio.Task[None]] = {}
        """Those whose handshake is not done."""
        self._http = http
        self._tls = tls
        self._cannot_read = cannot_read
        self._closed = False

    @property
    def connections(self) -> int:
        """From accept until the client is gone and his request is done with."""
        return len(self.greeting) + len(self._http.connections)

    def knock(self) -> asyncio.Protocol:
        """The protocol of a connection that has been accepted."""
        return _Knock(self)

    @property
    def open(self) -> bool:
        """Whether one more may come in."""
        return not self._closed and self.connections < MAX_CONNECTIONS

    def let_in(self, accepted: socket.socket) -> None:
        """Take this socket over; it must not have been read from."""
        self.greeting[accepted] = asyncio.get_running_loop().create_task(self._greet(accepted))

    async def close(self) -> None:
        """Show out who has asked nothing yet, and wait STOP_SECONDS for the answers to those who have."""
        self._closed = True
        await asyncio.sleep(0)  # a task that has not begun would leave its socket open when cancelled
        greeting = list(self.greeting.values())
        for task in greeting:
            task.cancel()
        await asyncio.gather(*greeting, return_exceptions=True)
        self._http.pre_shutdown()
        await self._http.shutdown(STOP_SECONDS)

    async def _greet(self, accepted: socket.socket) -> None:
        """The handshake. This way its end is heard of whatever it is; ``create_server(ssl=...)`` hides it."""

        def greeted() -> None:
            self.greeting.pop(accepted, None)

        shutdown = None if self._tls is None else READ_SECONDS
        try:
            with suppress(OSError):  # as ssl.SSLError and TimeoutError are
                async with asyncio.timeout(READ_SECONDS):
                    await asyncio.get_running_loop().connect_accepted_socket(
                        lambda: _Conversation(self._http, greeted, self._cannot_read),
                        accepted,
                        ssl=self._tls,
                        ssl_shutdown_timeout=shutdown,
                    )
        finally:
            greeted()


class _Knock(asyncio.Protocol):
    """A connection as ``create_server`` hands it over; nothing has been read from it yet."""

    def __init__(self, door: _Door) -> None:
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        accepted = cast(asyncio.Transport, transport)
        if self._door.open:
            with suppress(OSError):  # out of descriptors
                self._door.let_in(accepted.get_extra_info("socket").dup())
        accepted.abort()  # which ends no connection that has a second descriptor


class _Conversation(DiscreetHandler):
    """One connection that has been let in."""

    def __init__(
        self, http: web.Server, greeted: Callable[[], None], cannot_read: Callable[[str], web.Response]
    ) -> None:
        # who says nothing is let go as one that asks no more would be
        super().__init__(
            http, log, keepalive_timeout=READ_SECONDS, lingering_time=READ_SECONDS, tcp_keepalive=False
        )
        self._greeted = greeted
        self._cannot_read = cannot_read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._greeted()
        super().connection_made(transport)

    def unreadable(self, client: str) -> web.Response:
        return self._cannot_read(client)

    def failed(self) -> web.Response:
        return _answer(500, {"error": {"kind": "SessionUnavailable", "message": "fails at this request"}})


def _admit(wait: float) -> None:
    if wait:
        after = str(math.ceil(wait))
        raise _Refusal(429, "SessionUnavailable", "is asked too often", Retry_After=after)


async def _read(request: web.BaseRequest) -> bytes:
    body = b""
    try:
        async with asyncio.timeout(READ_SECONDS):
            while more := await request.content.readany():
                body += more
                if len(body) > MAX_BODY:
                    raise _Refusal(413, "SetupRefused", f"takes no more than {MAX_BODY} bytes")
    except TimeoutError:
        raise _Refusal(408, "SessionUnavailable", "waited too long for the request") from None
    except (ConnectionError, web.RequestPayloadError):  # left in the middle of it, or is no HTTP
        raise _unreadable() from None
    return body


def _unreadable() -> _Refusal:
    return _Refusal(400, "SessionRefused", "cannot read the request")


_UPSTREAM: tuple[tuple[type[SessionError], int, str, str], ...] = (
    (KeyRefused, 502, "KeyRefused", "has a key that the service refuses"),
    (QuotaExceeded, 503, "QuotaExceeded", "has no quota left at the service"),
    (SetupRefused, 422, "SetupRefused", "was refused a token for this setup"),
    (SessionUnavailable, 503, "SessionUnavailable", "cannot reach the service"),
    (SessionError, 502, "SessionRefused", "was given no token by the service"),
)
"""What a worker is told of the failures of minting; the first row that fits wins."""


def _upstream(error: SessionError) -> _Refusal:
    return next(_Refusal(*row[1:]) for row in _UPSTREAM if isinstance(error, row[0]))


def _answer(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> web.Response:
    response = web.json_response(
        body, status=status, headers={"Cache-Control": "no-store", **(headers or {})}
    )
    response.force_close()  # a call asks once: a connection kept would only be one more to be guarded
    return response


async def serve(settings: GeminiSettings, broker: BrokerSettings, stop: asyncio.Event) -> None:
    """Run a broker until ``stop`` is set. Raises ConfigError; cancelling stops it, too."""
    if settings.api_key is None:
        raise ConfigError("gemini.api_key: missing; set GEMINI_API_KEY or gemini.api_key_file")
    minter = Minter(settings)
    running = Broker(settings, broker, minter)
    try:
        await running.start()
        await stop.wait()
    finally:
        await running.close()
        await minter.close()
        log.info("broker stopped")
