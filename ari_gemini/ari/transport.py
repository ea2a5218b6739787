"""HTTP under aioari: credentials in a header, every wait limited, every answer bounded, every failure typed.

aioari 0.10.2 moves its requests through an ``aioswagger11`` HTTP client that can be exchanged; this is
ours. The one it ships puts the credentials where access logs keep them: in the query string of every
request (``ApiKeyAuthenticator``), or, with ``BasicAuthenticator``, in a header for REST but still in the
query string for the event WebSocket. Its error table cannot build the exceptions for 405 and 413; it reads
answers of any size.
"""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from ari_gemini.ari.settings import AriSettings
from ari_gemini.errors import (
    AriConflict,
    AriDenied,
    AriError,
    AriNotFound,
    AriRejected,
    AriTimeout,
    AriUnavailable,
    ConfigError,
)

with warnings.catch_warnings():
    # aioari 0.10.2 holds an invalid escape sequence, which Python reports whenever it compiles the file.
    warnings.simplefilter("ignore")
    from aioari.client import Client as SwaggerAri
    from aioswagger11 import Loader, SwaggerError
    from aioswagger11.http_client import BasicAuthenticator, HttpClient

MAX_BODY = 16 * 1024 * 1024
"""Longest answer read, bytes. A list of 10 000 channels is about half of it; more is no Asterisk we know."""
MAX_EVENT = 1024 * 1024
"""Longest event read, bytes. One event holds at most three channels with their variables."""
KEEPALIVE = 5.0
"""How long an idle connection is kept, s; below the 15 s of ``http.conf``'s ``session_keep_alive``, so that a
request never meets a connection that Asterisk is just closing."""
HEARTBEAT = 10.0
"""Ping period on the event socket, s (RFC 6455, section 5.5.2): a vanished peer is noticed within 15 s."""
CLOSE_WAIT = 1.0
"""How long a closing event socket waits for the peer's close frame, s."""


class Reply:
    """A finished answer: nothing is left on the connection. Offers what aioswagger11 asks of a response."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self._body = body

    async def text(self) -> str:
        """The body as text; never waits."""
        return self._body.decode("utf-8", "replace")

    def json(self) -> object:
        """The decoded body, None when it is empty. Raises AriRejected when it is not JSON."""
        if not self._body.strip():
            return None
        try:
            return json.loads(self._body)
        except (ValueError, RecursionError):
            raise AriRejected("Asterisk answered with something that is not JSON", self.status) from None

    def message(self) -> str:
        """Asterisk's own words about an error: the ``message`` of its JSON, else nothing."""
        try:
            message = json.loads(self._body)["message"]
        except (ValueError, RecursionError, TypeError, KeyError):
            return ""
        return "".join(c for c in str(message)[:200] if c.isprintable())


def status_error(what: str, status: int, message: str = "") -> AriError:
    """The typed error for an HTTP status; ``what`` names the request, ``message`` is Asterisk's own."""
    kinds: dict[int, type[AriError]] = {
        401: AriDenied,
        403: AriDenied,
        404: AriNotFound,
        409: AriConflict,
        412: AriConflict,
        # What res_http answers while Asterisk starts, stops or has no session left (http.conf, sessionlimit).
        503: AriUnavailable,
    }
    return kinds.get(status, AriRejected)(f"{what}: {status} {message}".rstrip(), status)


class Transport(HttpClient):  # type: ignore[misc]  # aioswagger11 has no types
    """One HTTP session with one Asterisk.

    Connections are not limited in number: requests in flight are bounded by the calls in progress, each of
    which asks one thing at a time, and a limit would let one stalled call hold up the others. Asterisk has a
    limit (``http.conf``'s ``sessionlimit``, 100 unless set), which must exceed the calls wanted at once.
    """

    def __init__(self, settings: AriSettings) -> None:
        """Needs a running event loop. Raises ConfigError when there is no password."""
        if settings.password is None or not settings.password.get_secret_value():
            raise ConfigError("ari.password is missing: set it in the configuration or as ARI_PASSWORD")
        self._limit = settings.request_timeout
        self._where = settings.url
        headers: dict[str, str] = {}
        BasicAuthenticator(None, settings.username, settings.password.get_secret_value()).apply(headers, {})
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # asyncio.timeout limits the whole
        )

    async def request(
        self,
        method: str,
        url: str,
        params: Mapping[str, str | int] | None = None,
        data: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one request and read its whole answer within ``request_timeout``.

        Raises AriTimeout, AriUnavailable, or the error of :func:`status_error`. Cancelling drops the
        connection; Asterisk may or may not have acted.
        """
        what = f"{method} {urlsplit(url).path}"
        asked = self._session.request(
            method, url, params=params, data=data, headers=headers, allow_redirects=False
        )
        async with self._guard(what), asked as response:
            reply = Reply(response.status, await _read_bounded(response.content))
        if reply.status >= 300:
            raise status_error(what, reply.status, reply.message())
        return reply

    async def ws_connect(
        self, url: str, params: Mapping[str, str | int] | None = None
    ) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket with the credentials in a header. Raises as :meth:`request` does."""
        what = f"GET {urlsplit(url).path}"
        async with self._guard(what):
            try:
                return await self._session.ws_connect(
                    url,
                    params=params,
                    heartbeat=HEARTBEAT,
                    max_msg_size=MAX_EVENT,
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_WAIT),
                )
            except aiohttp.WSServerHandshakeError as error:
                raise status_error(what, error.status, "no WebSocket") from error

    @asynccontextmanager
    async def _guard(self, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._limit):
                yield
        except TimeoutError:
            raise AriTimeout(f"{what}: no answer within {self._limit:g} s") from None
        except aiohttp.ClientConnectorError as error:
            raise AriUnavailable(f"no connection to {self._where}: {error.os_error}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise AriUnavailable(f"{what}: {self._where}: {error or type(error).__name__}") from error

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        await self._session.close()


async def _read_bounded(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > MAX_BODY:
            raise AriRejected(f"Asterisk's answer is longer than {MAX_BODY} bytes")
    return bytes(body)


class Operation:
    """One operation of the API description: an HTTP method, an address and its parameters."""

    def __init__(self, what: str, operation: Any) -> None:
        self._what = what
        self._operation = operation
        self._takes = frozenset(str(p["name"]) for p in operation.json.get("parameters", []))

    async def __call__(self, params: Mapping[str, str | int]) -> Reply:
        """Run it. Raises AriError; cancelling as :meth:`Transport.request`."""
        self._check(params)
        reply: Reply = await self._operation(**params)
        return reply

    async def open_socket(self, params: Mapping[str, str | int]) -> aiohttp.ClientWebSocketResponse:
        """Run one that is a WebSocket. Raises AriError."""
        self._check(params)
        socket: aiohttp.ClientWebSocketResponse = await self._operation(**params)
        return socket

    def _check(self, params: Mapping[str, str | int]) -> None:
        extra = params.keys() - self._takes
        if extra:
            raise AriRejected(f"this Asterisk's {self._what} does not take {', '.join(sorted(extra))}")


class Api:
    """Asterisk's API description, read by aioari."""

    def __init__(self, client: SwaggerAri) -> None:
        self._client = client

    def operation(self, resource: str, nickname: str) -> Operation:
        """The operation with this nickname. Raises AriRejected when this Asterisk has none."""
        what = f"{resource}.{nickname}"
        found = self._client.swagger.get_resource(resource)
        operation = found.get_operation(nickname) if found is not None else None
        if operation is None:
            raise AriRejected(f"this Asterisk's API has no {what}")
        return Operation(what, operation)


async def load_api(url: str, transport: Transport) -> Api:
    """Download Asterisk's API description and build aioari's client from it.

    The addresses in it are replaced by ``url``: Asterisk makes them from the Host header and always as
    http, which is wrong behind TLS, and the credentials must go nowhere else.

    Raises AriError: as :meth:`Transport.request`, or AriRejected when what answers is not ARI.
    """
    base = f"{url}/ari"
    try:
        listing = await Loader(transport).load_resource_listing(
            f"{base}/api-docs/resources.json", base_url=base
        )
        listing["basePath"] = base
        for resource in listing["apis"]:
            resource["api_declaration"]["basePath"] = base
        client = SwaggerAri(f"{url}/", transport)
        client.swagger.url = listing
        await client.init()
    except (SwaggerError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # aioswagger11 walks the description without checks; these are what it raises on anything else.
        raise AriRejected(f"{url} answered, but not with Asterisk's API description") from error
    return Api(client)
