"""What the operator may set about Asterisk control."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator


class AriSettings(BaseModel):
    """The ``[ari]`` section. All times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["classic", "outbound"] = "classic"
    """Who connects: this service to Asterisk at ``url``, once; or Asterisk to ``listen``, once per call."""
    listen: str = "127.0.0.1:8787"
    """Outbound: ``host:port`` for Asterisk's connections; port 0 takes any free one. Several processes may
    share it."""
    max_connections: int = Field(default=1024, ge=1)
    """Outbound: connections at once that have shown credentials. One per caller, and for 3.5 s after he has
    left."""
    link_timeout: float = Field(default=15.0, gt=0, le=300)
    """Outbound: how long a call goes on without its connection, until Asterisk has made it anew: longer than
    ``reconnect_attempts`` times ``reconnect_interval`` of ``websocket_client.conf``."""
    url: str = "http://127.0.0.1:8088"
    """Asterisk's HTTP server, with ``http.conf``'s ``prefix`` if it has one, without ``/ari``."""
    username: str = Field(min_length=1, pattern=r"^[^:\x00-\x1f]+$")
    """Classic: a user of ``ari.conf``. Outbound: as in ``websocket_client.conf``. No colon: HTTP Basic ends
    the name there (RFC 7617, section 2)."""
    password: SecretStr | None = None
    """That user's."""
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

    @property
    def listen_address(self) -> tuple[str, int]:
        """``listen``, read: an IP address or a host name (no brackets), and a TCP port."""
        parts = urlsplit(f"//{self.listen}")
        return parts.hostname or "", parts.port or 0

    @field_validator("listen")
    @classmethod
    def _can_be_listened_on(cls, listen: str) -> str:
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname, parts.port  # a ValueError of its own when it is no port
        strange = parts.path or parts.query or parts.fragment or parts.username is not None
        if not host or port is None or strange or any(c.isspace() for c in listen):
            raise ValueError(f"{listen!r} is not host:port")
        return listen

    @model_validator(mode="after")
    def _pauses_are_ordered(self) -> AriSettings:
        if self.reconnect_max < self.reconnect_min:
            raise ValueError("reconnect_max is less than reconnect_min")
        return self
