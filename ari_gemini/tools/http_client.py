"""HTTP requests for tools: only to allowed URLs at allowed addresses, limited in time and size.

Every hop has a connection of its own: the name is resolved once, every address found must be allowed, and
only those addresses are connected to, so that a name whose answers change (DNS rebinding) gains nothing. A
connection kept for later would spare some 100 ms and have to be checked anew.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

import aiohttp
from structlog.typing import FilteringBoundLogger
from yarl import URL

from ari_gemini import __version__
from ari_gemini.errors import ConfigError, ToolError
from ari_gemini.tools.address import Address, is_listed, may_contact, read_address
from ari_gemini.tools.http_answer import (
    Answer,
    BoundedBody,
    UnreadableAnswer,
    is_text,
    media_type,
    not_text,
    read_answer,
)
from ari_gemini.tools.http_settings import BODILESS, Credential, HttpSettings
from ari_gemini.tools.http_wire import OpenSocket, PinnedConnector, open_socket
from ari_gemini.tools.resolver import Resolve, SystemResolver
from ari_gemini.tools.url import Prefix, Url, covering, join

MAX_HEADERS = 64
"""Header fields of an answer; common servers send less than thirty."""
MAX_FIELD = 8190
"""Bytes of one header field or status line, as of ``LimitRequestLine`` in Apache's httpd."""
MAX_ADDRESSES = 16
"""Addresses of one name that are tried. All of them are checked."""
SHORTEST_SECRET = 6
"""Characters; what is shorter is found in answers by chance."""
TIME_TO_CLOSE = 1.0
"""Seconds a tool may take beyond its request, so that it is the request that runs out of time."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Request:
    """One request, and where it may lead.

    ``within``: prefixes that ``url`` and each redirect must lie in. ``credentials``: those that may be used,
    each for its own origin only. ``timeout``: seconds, None for that of the settings. ``label``: what stands
    in the log instead of ``url``, whose path may hold what a caller said.
    """

    method: str
    url: Url
    within: Sequence[Prefix]
    label: str
    body: bytes | None = None
    content_type: str = ""
    credentials: Sequence[Credential] = ()
    timeout: float | None = None


class HttpClient:
    """Sends the requests of all tools of all calls. Made once; needs neither a running loop nor closing.

    Cookies are neither kept nor sent; the environment's proxies and ``.netrc`` are not read.
    """

    def __init__(
        self, settings: HttpSettings, *, resolve: Resolve | None = None, open_socket: OpenSocket = open_socket
    ) -> None:
        """Raises ConfigError when ``ca_file`` holds no certificates."""
        self.settings = settings
        self._resolve = resolve or SystemResolver()
        self._open_socket = open_socket
        try:
            self._tls = ssl.create_default_context(cafile=settings.ca_file)
        except OSError:  # ssl.SSLError is one
            raise ConfigError("tools.http.ca_file: holds no certificates in PEM") from None

    def time_limit(self, timeout: float | None = None) -> float:
        """Seconds for one use of a tool whose request has ``timeout``."""
        return self._limit(timeout) + TIME_TO_CLOSE

    def _limit(self, timeout: float | None) -> float:
        return self.settings.timeout if timeout is None else timeout

    async def fetch(self, request: Request, log: FilteringBoundLogger) -> Answer:
        """Send ``request``, follow redirects inside ``within``, and read the answer, whatever its status.

        Raises ToolError with words for the model: not allowed, not reachable, not in time, not HTTP. They
        name no address. Cancelling closes the connection; the server may or may not have acted.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        limit = self._limit(request.timeout)
        if request.body is not None and len(request.body) > self.settings.max_request:
            raise ToolError(f"the body is longer than {self.settings.max_request} bytes")
        log.debug("> http", method=request.method, url=request.label)
        try:
            async with asyncio.timeout(limit):
                answer, size = await self._follow(request)
        except TimeoutError:
            log.debug("! http", method=request.method, url=request.label, kind="TimeoutError")
            raise ToolError(f"the server did not answer within {limit:g} seconds") from None
        except ToolError as error:
            kind = type(error.__cause__ or error).__name__
            log.debug("! http", method=request.method, url=request.label, why=str(error), kind=kind)
            raise
        ms = round((loop.time() - began) * 1000)
        log.debug("< http", method=request.method, url=request.label, status=answer.status, bytes=size, ms=ms)
        return answer

    async def _follow(self, request: Request) -> tuple[Answer, int]:
        """The last answer and how many bytes its body had."""
        hop = request
        for _ in range(self.settings.max_redirects + 1):
            if covering(request.within, hop.url) is None:
                raise ToolError("this address is not allowed")
            async with self._send(hop) as response:
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or location is None:
                    body = await self._read(hop, response)
                    return _understood(hop, response, body), len(body.data) if body else 0
                hop = _redirected(hop, response.status, location)
        raise ToolError("the server redirects too often")

    @asynccontextmanager
    async def _send(self, hop: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        addresses = await self._addresses(hop.url)
        headers = _headers(hop, self._credentials(hop, addresses))
        session = aiohttp.ClientSession(
            connector=PinnedConnector(hop.url.host, addresses, self._tls, self._open_socket),
            cookie_jar=aiohttp.DummyCookieJar(),  # not even parsed
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # fetch limits the whole
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=("Content-Type",),  # what has no body has no type
            max_line_size=MAX_FIELD,
            max_field_size=MAX_FIELD,
            max_headers=MAX_HEADERS,
        )
        url = URL(str(hop.url), encoded=True)
        with _failures():
            async with (
                session,
                session.request(
                    hop.method, url, headers=headers, data=hop.body, allow_redirects=False
                ) as response,
            ):
                try:
                    yield response
                finally:
                    response.close()  # whatever is left of the body is not wanted

    async def _addresses(self, url: Url) -> tuple[Address, ...]:
        """The checked addresses of a host; if it is an address itself, that one: ``within`` lists it."""
        if url.address is not None:
            return (url.address,)
        try:
            found = await self._resolve(url.host, url.port)
        except (OSError, UnicodeError):
            raise ToolError("the server's name cannot be found") from None
        addresses = tuple(dict.fromkeys(map(read_address, found)))
        if not addresses:
            raise ToolError("the server's name cannot be found")
        allowed = [
            address
            for address in addresses
            if address is not None and may_contact(address, self.settings.networks)
        ]
        if len(allowed) != len(addresses):
            raise ToolError("the server's name leads to an address that may not be contacted")
        return tuple(allowed[:MAX_ADDRESSES])

    def _credentials(self, hop: Request, addresses: Iterable[Address]) -> dict[str, str]:
        used = [credential for credential in hop.credentials if credential.origin == hop.url.origin]
        if used and hop.url.scheme == "http" and not self._may_be_plain(hop.url, addresses):
            raise ToolError("this address needs credentials, which may not go there unencrypted")
        return {credential.header: credential.value.get_secret_value() for credential in used}

    def _may_be_plain(self, url: Url, addresses: Iterable[Address]) -> bool:
        if url.address is not None and url.address.is_loopback:
            return True
        return all(is_listed(address, self.settings.networks) for address in addresses)

    async def _read(self, hop: Request, response: aiohttp.ClientResponse) -> BoundedBody | None:
        """As much of the body as is wanted; None when it is no text."""
        if hop.method == "HEAD" or response.status in {204, 304}:
            return BoundedBody(0)
        if is_text(response.headers.get("Content-Type", "")) is False:
            return None
        body = BoundedBody(self.settings.max_response, response.headers.get("Content-Encoding", ""))
        async for chunk in response.content.iter_any():
            body.feed(chunk)
            if body.cut:
                return body
        body.finish()
        return body


def _headers(hop: Request, credentials: dict[str, str]) -> dict[str, str]:
    """Nothing here comes from the model. Compression is declined: small answers gain no time by it."""
    headers = {
        "User-Agent": f"ari-gemini/{__version__}",
        "Accept": "application/json, text/plain;q=0.9, */*;q=0.5",
        "Accept-Encoding": "identity",
    }
    if hop.body is not None:
        headers["Content-Type"] = hop.content_type
    return headers | credentials


def _redirected(hop: Request, status: int, location: str) -> Request:
    """What a redirect asks for (RFC 9110, section 15.4). Raises ToolError when it is not allowed."""
    try:
        url = join(hop.url, location)
    except ValueError as error:
        raise ToolError("the server redirects to something that is no proper URL") from error
    if hop.url.scheme == "https" and url.scheme != "https":
        raise ToolError("the server redirects to an unencrypted address, which is not allowed")
    if covering(hop.within, url) is None:
        raise ToolError("the server redirects to an address that is not allowed")
    if (status == 303 and hop.method not in BODILESS) or (status in {301, 302} and hop.method == "POST"):
        return replace(hop, method="GET", url=url, body=None, content_type="")
    return replace(hop, url=url)


def _understood(hop: Request, response: aiohttp.ClientResponse, body: BoundedBody | None) -> Answer:
    content_type = response.headers.get("Content-Type", "")
    if body is None:
        kind = media_type(content_type)
        return Answer(response.status, kind, note=not_text(kind, response.content_length))
    return read_answer(response.status, content_type, body, _secrets(hop.credentials))


def _secrets(credentials: Iterable[Credential]) -> list[str]:
    """What must not come back in an answer: whole values, and what follows a scheme like ``Bearer``."""
    values = [credential.value.get_secret_value() for credential in credentials]
    values += [value.partition(" ")[2] for value in values]
    return [value for value in values if len(value) >= SHORTEST_SECRET]


@contextmanager
def _failures() -> Iterator[None]:
    """What aiohttp raises, in words for the model; the first error stays as the cause."""
    try:
        yield
    except aiohttp.ClientSSLError as error:
        raise ToolError("the server's certificate or encryption cannot be trusted") from error
    except aiohttp.ClientConnectorError as error:
        raise ToolError("the server cannot be reached") from error
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, OSError) as error:
        raise ToolError("the server broke off its answer") from error
    except (aiohttp.ClientError, UnreadableAnswer) as error:
        raise ToolError("the server's answer cannot be read") from error
