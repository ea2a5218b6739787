"""Opens the WebSocket to Gemini Live, and says in plain words why it could not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import sys

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    InvalidHandshake,
    InvalidMessage,
    InvalidProxyStatus,
    InvalidStatus,
    ProxyError,
)

from ari_gemini import __version__
from ari_gemini.errors import SessionError, SessionRefused, SessionUnavailable
from ari_gemini.gemini.closes import one_line, status_error
from ari_gemini.gemini.settings import GeminiSettings
from ari_gemini.gemini.tls import client_tls
from ari_gemini.gemini.tokens import Token
from ari_gemini.transport import AbortableClient

CLOSE_TIMEOUT = 1.0
"""Seconds that the closing handshake may take before the socket is simply closed."""
_MAX_SIZE = 8 * 2**20
"""Bytes of one message; the largest seen are some 20 kB, of tool calls perhaps more."""
_MAX_QUEUE = (256, 64)
"""Messages read ahead of ``receive``. Above it the socket is not read, and then pongs and the close frame are
not seen either, so it must hold a whole burst: 256 messages of 40 ms or more are over 10 s of speech."""
_WRITE_LIMIT = (8 * 2**10, 2 * 2**10)
"""Bytes that may wait behind a full socket before senders wait: nine audio messages, 180 ms. Late audio is
worse than none, and who sends it can only drop the oldest if it learns early that it cannot keep up."""
_NOTSENT_LIMIT = 16 * 2**10
"""Bytes the kernel may hold beyond what is on its way: else a stalled path hides seconds of audio there."""
_TCP_NOTSENT_LOWAT = {"linux": 25, "darwin": 0x201}
"""Number of that option in netinet/tcp.h of each system; Python's socket names it from 3.12 on."""

_log = logging.getLogger("ari_gemini.gemini.websocket")
_log.setLevel(logging.INFO)  # at DEBUG websockets writes every header, the API key among them


class _Connect(connect):
    """Follows no redirect: websockets would send the API key along to wherever it points."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def dial(settings: GeminiSettings, token: Token | None = None) -> ClientConnection:
    """Connect within ``settings.connect_timeout``. No compression: base64 of sound does not shrink.

    ``token`` goes in place of the key, and to a method of its own. Raises SessionError. Cancelling closes
    what was opened.
    """
    url, headers = _credentials(settings, token)
    try:
        async with asyncio.timeout(settings.connect_timeout):
            websocket = await _Connect(
                url,
                additional_headers=headers,
                user_agent_header=f"ari-gemini/{__version__}",
                compression=None,
                proxy=None if settings.proxy is None else settings.proxy.get_secret_value(),
                open_timeout=None,
                ping_interval=None,  # a pong 20 s late would end a session that works
                close_timeout=CLOSE_TIMEOUT,
                max_size=_MAX_SIZE,
                max_queue=_MAX_QUEUE,
                write_limit=_WRITE_LIMIT,
                logger=_log,
                create_connection=AbortableClient,
                ssl=await client_tls(settings.ca_file) if url.startswith("wss:") else None,
            )
    except (OSError, InvalidHandshake) as exc:  # a timeout is an OSError
        error = _connect_error(exc, settings)
        raise type(error)(settings.redact(str(error)), error.code) from exc
    _tune(websocket)
    return websocket


def _credentials(settings: GeminiSettings, token: Token | None) -> tuple[str, dict[str, str]]:
    """Address and headers: a token goes once, without the key (ai.google.dev/api/live)."""
    if token is not None:
        return f"{settings.url}Constrained", {"Authorization": f"Token {token.name.get_secret_value()}"}
    key = settings.api_key
    return settings.url, {} if key is None else {"x-goog-api-key": key.get_secret_value()}


def _tune(websocket: ClientConnection) -> None:
    sock = websocket.transport.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    option = _TCP_NOTSENT_LOWAT.get(sys.platform)
    if option is not None:
        with contextlib.suppress(OSError):  # an older kernel does without
            sock.setsockopt(socket.IPPROTO_TCP, option, _NOTSENT_LIMIT)


_FAILURES: tuple[tuple[type[Exception], type[SessionError], str], ...] = (
    (TimeoutError, SessionUnavailable, "{host} did not answer within {limit:g} s"),
    (socket.gaierror, SessionUnavailable, "the name of {host} cannot be resolved: {detail}"),
    (ssl.SSLCertVerificationError, SessionRefused, "the certificate of {host} is not trusted: {detail}"),
    (ssl.SSLError, SessionUnavailable, "no TLS with {host}: {detail}"),
    (ConnectionRefusedError, SessionUnavailable, "{host} refuses the connection"),
    (OSError, SessionUnavailable, "no connection to {host}: {detail}"),
    (InvalidProxyStatus, SessionUnavailable, "the proxy does not connect to {host}: {detail}"),
    (ProxyError, SessionUnavailable, "no way through the proxy to {host}: {detail}"),
    (InvalidMessage, SessionUnavailable, "no HTTP answer from {host}: {detail}"),
    (InvalidHandshake, SessionRefused, "{host} does not speak WebSocket: {detail}"),
)
"""What an exception of the opening means; the first row that fits wins."""


def _connect_error(exc: OSError | InvalidHandshake, settings: GeminiSettings) -> SessionError:
    host = settings.host
    if isinstance(exc, InvalidStatus):
        body = bytes(exc.response.body or b"")[:1000].decode("utf-8", "replace")
        return status_error(exc.response.status_code, host, body)
    error, words = next((error, words) for kind, error, words in _FAILURES if isinstance(exc, kind))
    said = (getattr(exc, name, None) for name in ("verify_message", "reason", "strerror"))
    detail = one_line(str(next(filter(None, said), exc)))
    return error(words.format(host=host, limit=settings.connect_timeout, detail=detail))
