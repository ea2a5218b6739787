"""What the operator may set about Asterisk control."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator


class AriSettings(BaseModel):
    """The ``[ari]`` section. All times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = "http://127.0.0.1:8088"
    """Asterisk's HTTP server, with ``http.conf``'s ``prefix`` if it has one, without ``/ari``."""
    username: str = Field(min_length=1, pattern=r"^[^:\x00-\x1f]+$")
    """A user of ``ari.conf``. No colon: HTTP Basic ends the name there (RFC 7617, section 2)."""
    password: SecretStr | None = None
    app: str = Field(default="ari-gemini", pattern=r"^[A-Za-z0-9_.-]+$")
    """The application name in ``Stasis(NAME,...)``; a comma would end it there."""
    request_timeout: float = Field(default=3.0, gt=0, le=60)
    """How long one request may take. Asterisk has stalled for minutes under load; no call can wait."""
    reconnect_min: float = Field(default=0.5, gt=0, le=60)
    """Pause before the first attempt to connect again."""
    reconnect_max: float = Field(default=5.0, gt=0, le=300)
    """The pause doubles up to this."""

    @field_validator("url")
    @classmethod
    def _is_http_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"}:
            raise ValueError("must begin with http:// or https://")
        if not parts.hostname or any(c.isspace() for c in url):
            raise ValueError("names no host")
        _ = parts.port  # a ValueError of its own when it is no port
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("must hold no credentials, no query and no fragment")
        if parts.path.rstrip("/").endswith("/ari"):
            raise ValueError("must not end in /ari; that part is added")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _pauses_are_ordered(self) -> AriSettings:
        if self.reconnect_max < self.reconnect_min:
            raise ValueError("reconnect_max is less than reconnect_min")
        return self
