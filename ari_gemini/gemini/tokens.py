"""Ephemeral tokens: short-lived credentials for one call, in place of the key.

Either this process has the key and mints them itself (``Minter``), or it asks a broker that has it
(``BrokerClient``, the other end of ``broker.py``). Endpoint, fields and limits:
ai.google.dev/gemini-api/docs/live-api/ephemeral-tokens. Times are absolute, so the clock of whoever mints
must be right to a few seconds.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
import structlog
from pydantic import SecretStr

from ari_gemini import __version__
from ari_gemini.errors import (
    KeyRefused,
    MalformedMessage,
    ModelRefused,
    QuotaExceeded,
    SessionError,
    SessionRefused,
    SessionUnavailable,
    SetupRefused,
)
from ari_gemini.gemini.closes import StatusRule, one_line
from ari_gemini.gemini.settings import GeminiSettings
from ari_gemini.gemini.tls import client_tls
from ari_gemini.gemini.token_lock import lockable, mint_request

MAX_ANSWER = 64 * 2**10
"""Bytes of an answer; a token is some 100, an error of Google's with all its details some 2000."""
MAX_CONNECTIONS = 32
"""To one service at a time: a burst of calls waits a little here and not at the other side's limits."""
MARGIN = 30.0
"""Seconds that a token must still be good for to be shown again: more than opening a session takes."""
BROKER_PATH = "/v1/tokens"
"""Under ``broker_url``."""

_NAME = re.compile(r"auth_tokens/[A-Za-z0-9._~+/=-]{1,1024}")

log = structlog.get_logger(__name__)

T = TypeVar("T")
Now = Callable[[], float]
"""The time, s since 1970."""


@dataclass(frozen=True, slots=True)
class Token:
    """A minted token. ``expires``: when it ends, s since 1970, by the clock of this machine."""

    name: SecretStr
    expires: float

    @property
    def credential(self) -> SecretStr:
        """Both in one, for ``Resume``."""
        return SecretStr(f"{self.expires:.0f} {self.name.get_secret_value()}")

    @classmethod
    def of(cls, credential: SecretStr) -> Self:
        """The token that ``credential`` came from; of anything else, one that has long ended."""
        expires, _, name = credential.get_secret_value().partition(" ")
        return cls(SecretStr(name), float(expires) if expires.isdecimal() else 0.0)

    def good_for(self, seconds: float, now: float) -> bool:
        """Whether it is still good in ``seconds``."""
        return now + seconds < self.expires


class TokenSource(Protocol):
    """Where tokens come from. One per process, closed by whoever made it."""

    async def mint(self, setup: Mapping[str, Any]) -> Token:
        """A new token for a session with this setup (the inner object of the setup message).

        Takes at most ``connect_timeout``. Raises SessionError; cancelling closes the connection, and a token
        that was minted meanwhile runs out unused.
        """

    async def close(self) -> None:
        """Close the connections. Idempotent; a later ``mint`` opens new ones."""


def token_source(settings: GeminiSettings, *, now: Now = time.time) -> TokenSource | None:
    """What ``settings`` ask for; None where the key itself is used. Opens nothing."""
    if settings.auth == "api_key":
        return None
    return Minter(settings, now=now) if settings.broker_url is None else BrokerClient(settings, now=now)


async def open_with_token(
    tokens: TokenSource,
    setup: bytes,
    credential: SecretStr | None,
    attempt: Callable[[Token], Awaitable[T]],
    *,
    now: Now = time.time,
) -> T:
    """``attempt`` with the token of ``credential`` while that is good; else, or if refused, with a new one.

    To resume with a token costs none of its uses. ``setup`` is the whole setup message. Raises what minting
    and ``attempt`` raise.
    """
    if credential is not None:
        token = Token.of(credential)
        if token.good_for(MARGIN, now()):
            try:
                return await attempt(token)
            except KeyRefused as refused:
                log.info("= token refused, minting another", reason=str(refused))
    return await attempt(await tokens.mint(json.loads(setup)["setup"]))


class Minter(TokenSource):
    """Mints with the key of ``settings``."""

    def __init__(self, settings: GeminiSettings, *, now: Now = time.time) -> None:
        self._settings = settings
        self._now = now
        proxy = None if settings.proxy is None else settings.proxy.get_secret_value()
        self._http = _Http(settings, settings.minting_url, settings.ca_file, proxy)

    async def mint(self, setup: Mapping[str, Any]) -> Token:
        """See TokenSource."""
        settings, now = self._settings, self._now()
        key = {} if settings.api_key is None else {"x-goog-api-key": settings.api_key.get_secret_value()}
        status, answer = await self._http.post(key, mint_request(settings, setup, now))
        if status != 200:
            raise self._refusal(status, answer)
        name = _name(_json(answer, settings.host), settings.host)
        log.debug("= token minted", lifetime=settings.token_lifetime)
        return Token(name, now + settings.token_lifetime)

    async def close(self) -> None:
        """See TokenSource."""
        await self._http.close()

    def _refusal(self, status: int, answer: bytes) -> SessionError:
        said = one_line(self._settings.redact(answer[:2000].decode("utf-8", "replace")))
        if status == 400 and re.search("API key", said, re.IGNORECASE):
            return KeyRefused(f"{self._settings.host} refuses the API key (HTTP 400: {said})", 400)
        rule = next(rule for rule in MINTING if rule.first <= status <= rule.last)
        return rule.error(f"{self._settings.host} {rule.words} (HTTP {status}: {said})", status)


class BrokerClient(TokenSource):
    """Asks the broker at ``settings.broker_url``, showing ``settings.broker_secret``."""

    def __init__(self, settings: GeminiSettings, *, now: Now = time.time) -> None:
        self._settings = settings
        self._now = now
        url = f"{settings.broker_url}{BROKER_PATH}"
        self._host = urlsplit(url).netloc
        self._http = _Http(settings, url, settings.broker_ca_file, None)

    async def mint(self, setup: Mapping[str, Any]) -> Token:
        """See TokenSource."""
        secret = self._settings.broker_secret
        shown = {} if secret is None else {"Authorization": f"Bearer {secret.get_secret_value()}"}
        now = self._now()
        status, answer = await self._http.post(shown, {"setup": lockable(setup)})
        if status != 200:
            raise self._refusal(status, answer)
        told = _json(answer, self._host)
        lasts = told.get("expires_in")
        if not isinstance(lasts, int | float) or not 0 < lasts < 1e6:
            raise MalformedMessage(f"{self._host} does not say how long its token lasts")
        return Token(_name(told, self._host), now + lasts)

    async def close(self) -> None:
        """See TokenSource."""
        await self._http.close()

    def _refusal(self, status: int, answer: bytes) -> SessionError:
        """What the broker said of its own and of Google's refusals; its statuses, where it says nothing."""
        try:
            error = _json(answer, self._host).get("error")
        except MalformedMessage:
            error = None
        told = error if isinstance(error, dict) else {}
        said = one_line(self._settings.redact(str(told.get("message", ""))))
        kind = KINDS.get(str(told.get("kind", "")))
        rule = next(rule for rule in BROKER if rule.first <= status <= rule.last)
        words = f"the broker {self._host} {said or rule.words} (HTTP {status})"
        return (kind or rule.error)(words, status)


KINDS: dict[str, type[SessionError]] = {
    kind.__name__: kind for kind in (KeyRefused, ModelRefused, SetupRefused, SessionRefused, QuotaExceeded)
} | {"SessionUnavailable": SessionUnavailable}
"""What a broker may call the reason of a refusal (``error.kind``)."""

MINTING: tuple[StatusRule, ...] = (
    StatusRule(300, 399, SessionRefused, "redirects; not followed, for the key would go along"),
    StatusRule(400, 400, SetupRefused, "refuses what the token is asked to be good for"),
    StatusRule(401, 401, KeyRefused, "refuses the API key"),
    StatusRule(403, 403, KeyRefused, "refuses the API key"),
    StatusRule(404, 404, SessionRefused, "mints no tokens at this address (base_url, api_version)"),
    StatusRule(408, 408, SessionUnavailable, "is not to be had now"),
    StatusRule(429, 429, QuotaExceeded, "has no quota left for this account"),
    StatusRule(500, 599, SessionUnavailable, "is not to be had now"),
    StatusRule(0, 999, SessionRefused, "mints no token"),
)
"""What Google's statuses mean here (RFC 9110, section 15; 429: RFC 6585, section 4). First fit wins."""

BROKER: tuple[StatusRule, ...] = (
    StatusRule(300, 399, SessionRefused, "redirects; not followed, for the secret would go along"),
    StatusRule(401, 401, KeyRefused, "refuses broker_secret"),
    StatusRule(404, 404, SessionRefused, "is no broker (broker_url)"),
    StatusRule(408, 408, SessionUnavailable, "is not to be had now"),
    StatusRule(429, 429, SessionUnavailable, "is asked too often"),
    StatusRule(500, 599, SessionUnavailable, "is not to be had now"),
    StatusRule(0, 999, SessionRefused, "gives no token"),
)
"""What a broker's statuses mean; its own limit of requests is over in seconds, unlike a quota."""


class _Http:
    """POSTs JSON to one address. Follows no redirect, keeps no cookie, reads no environment."""

    def __init__(self, settings: GeminiSettings, url: str, ca_file: Path | None, proxy: str | None) -> None:
        self._settings = settings
        self._url = url
        self._host = urlsplit(url).netloc
        self._ca_file = ca_file
        self._proxy = proxy
        self._session: aiohttp.ClientSession | None = None

    async def post(self, headers: Mapping[str, str], body: Mapping[str, Any]) -> tuple[int, bytes]:
        """Status and body, within ``connect_timeout``. Raises SessionError when there is no answer."""
        limit = self._settings.connect_timeout
        try:
            async with asyncio.timeout(limit):
                tls = await client_tls(self._ca_file) if self._url.startswith("https:") else True
                return await self._exchange(headers, json.dumps(body).encode(), tls)
        except TimeoutError as exc:
            raise SessionUnavailable(f"{self._host} minted no token within {limit:g} s") from exc
        except aiohttp.ClientError as exc:
            raise self._failure(exc) from exc

    async def _exchange(
        self, headers: Mapping[str, str], body: bytes, tls: ssl.SSLContext | bool
    ) -> tuple[int, bytes]:
        sent = {"Content-Type": "application/json", "Accept-Encoding": "identity", **headers}
        request = self._open().post(
            self._url, data=body, headers=sent, ssl=tls, proxy=self._proxy, allow_redirects=False
        )
        async with request as response:
            answer = b""
            while more := await response.content.readany():
                answer += more
                if len(answer) > MAX_ANSWER:
                    response.close()
                    raise MalformedMessage(f"{self._host} answers with more than {MAX_ANSWER} bytes")
            return response.status, answer

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # post limits the whole
                trust_env=False,
                auto_decompress=False,
                headers={"User-Agent": f"ari-gemini/{__version__}"},
            )
        return self._session

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _failure(self, exc: aiohttp.ClientError) -> SessionError:
        error, words = next((error, words) for kind, error, words in _FAILURES if isinstance(exc, kind))
        said = (getattr(exc, name, None) for name in ("certificate_error", "strerror", "status"))
        detail = one_line(self._settings.redact(str(next(filter(None, said), exc))))
        return error(words.format(host=self._host, detail=detail))


_FAILURES: tuple[tuple[type[Exception], type[SessionError], str], ...] = (
    (
        aiohttp.ClientConnectorCertificateError,
        SessionRefused,
        "the certificate of {host} is not trusted: {detail}",
    ),
    (aiohttp.ClientSSLError, SessionUnavailable, "no TLS with {host}: {detail}"),
    (aiohttp.ClientHttpProxyError, SessionUnavailable, "the proxy does not connect to {host}: HTTP {detail}"),
    (aiohttp.ClientProxyConnectionError, SessionUnavailable, "no way through the proxy to {host}: {detail}"),
    (
        aiohttp.ClientConnectorDNSError,
        SessionUnavailable,
        "the name of {host} cannot be resolved: {detail}",
    ),
    (aiohttp.ClientOSError, SessionUnavailable, "no connection to {host}: {detail}"),
    (aiohttp.ClientError, SessionUnavailable, "no HTTP answer from {host}: {detail}"),
)
"""What an exception of aiohttp means; the first row that fits wins."""


def _json(answer: bytes, host: str) -> dict[str, Any]:
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise MalformedMessage(f"{host} answers with no JSON object")
    return told


def _name(told: Mapping[str, Any], host: str) -> SecretStr:
    name = told.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise MalformedMessage(f"{host} answers with no token")
    return SecretStr(name)
