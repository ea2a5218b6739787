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
    ping_interval: Seconds | None = 5.0
    """Time between our own WebSocket pings; None sends none and never declares a session lost."""
    lost_after: Seconds = 40.0
    """A session from which neither a message nor a pong came for so long is lost.

    Pongs 30 s late have been reported of sessions that worked, so the default is generous. On a path that is
    known to answer in milliseconds 2 s is enough (with ``ping_interval`` 0.5).
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

    @property
    def family(self) -> ModelFamily:
        """The model's row in the family table."""
        return family_of(self.model)

    @property
    def url(self) -> str:
        """The WebSocket address, without any credential (ai.google.dev/api/live)."""
        return f"{self.base_url}/ws/{_METHOD.format(version=self.api_version)}"

    @property
    def host(self) -> str:
        """Host and port as the operator wrote them, for messages."""
        return urlsplit(self.base_url).netloc

    def redact(self, text: str) -> str:
        """``text`` without the secrets of these settings, should a peer have put them into it."""
        for secret in (self.api_key, self.proxy):
            if secret is not None:
                text = text.replace(secret.get_secret_value(), "[secret]")
        return text
