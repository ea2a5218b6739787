"""Settings of the Gemini door: where the service is, which model, and how patient to be."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from ari_gemini.gemini.models import Greeting, ModelFamily, bare_name, family_of

_METHOD = "google.ai.generativelanguage.{version}.GenerativeService.BidiGenerateContent"

Seconds = Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)]

LONGEST_TOKEN = 20 * 3600
"""Seconds; a token must end sooner (ai.google.dev/gemini-api/docs/live-api/ephemeral-tokens, AuthToken)."""
TokenSeconds = Annotated[float, Field(gt=0, lt=LONGEST_TOKEN, allow_inf_nan=False)]

SHORTEST_SECRET = 16
"""Characters of ``broker_secret``: 64 bits at the least, if they are hexadecimal digits drawn by lot."""
_TOKEN = re.compile(r"auth_tokens/[!-~]+")


def _address(url: str, schemes: tuple[str, ...]) -> SplitResult:
    """Split ``url``; ValueError names what is wrong with it, never the credentials it may hold."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as exc:
        raise ValueError("not a valid URL: bad host or port") from exc
    if parts.scheme not in schemes:
        raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if not parts.hostname:
        raise ValueError("names no host")
    if not url.isascii() or re.search(r"\s", url):
        raise ValueError("must be plain ASCII without blanks")
    if parts.query or parts.fragment:
        raise ValueError("must have no query and no fragment")
    return parts


class GeminiSettings(BaseModel):
    """How to reach Gemini Live. All times are seconds.

    A validation error never shows what was given, since it could be the key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    base_url: str = "wss://generativelanguage.googleapis.com"
    """``ws://`` or ``wss://``, host, optional port and path prefix."""
    api_version: Annotated[str, StringConstraints(pattern=r"^v[0-9]+((alpha|beta)[0-9]*)?$")] = "v1beta"
    """Pinned: the Live API is documented under v1beta only (ai.google.dev/gemini-api/docs/api-versions)."""
    model: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/@-]*$")] = "gemini-3.8-live"
    """With or without ``models/``."""
    api_key: SecretStr | None = None
    """Sent in the header ``x-goog-api-key``; without one no such header is sent."""
    auth: Literal["api_key", "ephemeral"] = "api_key"
    """With what sessions are opened: the key itself, or a token made for one call."""
    token_uses: Annotated[int, Field(ge=0, le=1000)] = 1
    """Sessions that a token may start, 0 any number. Resuming one costs none."""
    token_lifetime: TokenSeconds = 7200.0
    """After it a session that the token opened ends and is resumed with a new one (``expireTime``).

    Longer than most calls: once ``token_start_within`` is over a used token opens nothing new anyway.
    """
    token_start_within: TokenSeconds = 60.0
    """How soon a session must be started with the token (``newSessionExpireTime``)."""
    token_lock: bool = True
    """A token is good for this call's model, voice, instructions and tools only, not for others."""
    broker_url: str | None = None
    """``http://`` or ``https://``: who mints the tokens, so that no key is needed here. None: made here."""
    broker_secret: SecretStr | None = None
    """What a worker shows the broker, and the broker demands."""
    broker_ca_file: FilePath | None = None
    """PEM file with the only certificate authorities to trust for the broker; None: those of the system."""
    input_rate: Literal[8000, 16000] = 16000
    """Rate of the caller's audio as it is sent, Hz. The service is native to 16000 and resamples the rest."""
    greeting_via: Greeting | None = None
    """None: what suits the model's family."""
    audio_during_tools: bool | None = None
    """Whether audio may be sent while a tool call is open. None: what suits the model's family."""
    connect_timeout: Seconds = 5.0
    """For name, TCP, TLS and the WebSocket upgrade together."""
    setup_timeout: Seconds = 5.0
    """From the setup sent to the setup confirmed."""
    ping_interval: Seconds | None = 1.0
    """Time between our own WebSocket pings; None sends none and never declares a session lost."""
    lost_after: Seconds = 5.0
    """A session from which neither a message nor a pong came for so long is lost, and resumed.

    Pongs have been measured to take milliseconds, and reported to take up to 30 s in sessions that worked:
    each time that a silent session is given up, the next of the call bears twice as long a silence, up to
    40 s. On a path that is known to be quick 2 s is enough (with ``ping_interval`` 0.5).
    """
    ca_file: FilePath | None = None
    """PEM file with the only certificate authorities to trust; None: those of the system."""
    proxy: SecretStr | None = None
    """``http://`` or ``https://``, credentials allowed. The environment's proxy variables are not read."""

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, value: str) -> str:
        parts = _address(value, ("ws", "wss"))
        if "@" in parts.netloc:
            raise ValueError("must hold no credentials")
        return value.rstrip("/")

    @field_validator("api_key")
    @classmethod
    def _check_api_key(cls, value: SecretStr | None) -> SecretStr | None:
        key = value.get_secret_value().strip() if value else ""
        if not re.fullmatch(r"[!-~]*", key):
            raise ValueError("must be printable ASCII without blanks")
        return SecretStr(key) if key else None

    @field_validator("broker_url")
    @classmethod
    def _check_broker_url(cls, value: str | None) -> str | None:
        if not value:
            return None
        if "@" in _address(value, ("http", "https")).netloc:
            raise ValueError("must hold no credentials")
        return value.rstrip("/")

    @field_validator("broker_secret")
    @classmethod
    def _check_broker_secret(cls, value: SecretStr | None) -> SecretStr | None:
        secret = value.get_secret_value().strip() if value else ""
        if not re.fullmatch(r"[!-~]*", secret):
            raise ValueError("must be printable ASCII without blanks")
        if 0 < len(secret) < SHORTEST_SECRET:
            raise ValueError(f"must have at least {SHORTEST_SECRET} characters")
        return SecretStr(secret) if secret else None

    @field_validator("proxy")
    @classmethod
    def _check_proxy(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parts = _address(value.get_secret_value(), ("http", "https"))
            if parts.path not in ("", "/"):
                raise ValueError("must have no path")
            if (parts.username is None) != (parts.password is None):
                raise ValueError("must have a user name and a password, or neither")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.greeting_via == "client_content" and not self.family.client_content:
            model = bare_name(self.model)
            raise ValueError(f'{model} takes no clientContent in mid-session: set greeting_via = "text"')
        if self.ping_interval is not None and self.lost_after < self.ping_interval:
            raise ValueError("lost_after must not be shorter than ping_interval")
        return self

    @model_validator(mode="after")
    def _check_tokens(self) -> Self:
        if self.token_start_within > self.token_lifetime:
            raise ValueError("token_start_within must not be longer than token_lifetime")
        if self.auth == "api_key":
            if self.broker_url is not None:
                raise ValueError('broker_url has no use with auth = "api_key": say auth = "ephemeral"')
            return self
        if "alpha" not in self.api_version and "beta" not in self.api_version:
            raise ValueError(f'auth = "ephemeral" is not to be had with api_version {self.api_version}')
        if self.broker_url is not None and self.broker_secret is None:
            raise ValueError(
                "broker_url needs broker_secret; set ARI_GEMINI_BROKER_SECRET or gemini.broker_secret_file"
            )
        return self

    @property
    def needs_key(self) -> bool:
        """Whether sessions cannot be had without ``api_key``."""
        return self.auth == "api_key" or self.broker_url is None

    @property
    def family(self) -> ModelFamily:
        """The model's row in the family table."""
        return family_of(self.model)

    @property
    def url(self) -> str:
        """The WebSocket address, without any credential (ai.google.dev/api/live)."""
        return f"{self.base_url}/ws/{_METHOD.format(version=self.api_version)}"

    @property
    def minting_url(self) -> str:
        """Where tokens are minted: the same host by plain HTTP, encrypted if the WebSocket is."""
        return f"http{self.base_url.removeprefix('ws')}/{self.api_version}/auth_tokens"

    @property
    def host(self) -> str:
        """Host and port as the operator wrote them, for messages."""
        return urlsplit(self.base_url).netloc

    def redact(self, text: str) -> str:
        """``text`` without the secrets of these settings, should a peer have put them into it."""
        for secret in (self.api_key, self.proxy, self.broker_secret):
            if secret is not None:
                text = text.replace(secret.get_secret_value(), "[secret]")
        return _TOKEN.sub("[token]", text)


class BrokerSettings(BaseModel):
    """The ``[broker]`` section: ``ari-gemini token serve``. Rates are requests per second."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: str = "127.0.0.1:8091"
    """``host:port``, an IPv6 address in brackets; port 0 takes any free one."""
    models: tuple[str, ...] = ()
    """Models that tokens are minted for; none: the one of ``[gemini]``."""
    client_rate: Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)] = 5.0
    """Requests of one client address, right or wrong."""
    client_burst: Annotated[int, Field(ge=1, le=100_000)] = 200
    """As many at once: all calls of one worker that begin together."""
    total_rate: Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)] = 20.0
    """Requests of all clients that know the secret."""
    total_burst: Annotated[int, Field(ge=1, le=100_000)] = 400
    tls_cert: FilePath | None = None
    """PEM file: serve https."""
    tls_key: FilePath | None = None

    @property
    def address(self) -> tuple[str, int]:
        """``listen``, read."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}", value):
            raise ValueError("is not host:port (an IPv6 address stands in brackets)")
        if int(value.rpartition(":")[2]) > 65535:
            raise ValueError("has no such port (0 to 65535)")
        return value

    @field_validator("models")
    @classmethod
    def _check_models(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(bare_name(model) for model in value)

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together")
        return self
