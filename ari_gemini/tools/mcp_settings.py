"""What the operator may set about one MCP server: ``[tools.mcp.NAME]``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

INHERITED = ("PATH", "HOME", "LANG")
"""All that a server sees of this service's environment, unless it is listed: the rest may hold secrets."""

Seconds = Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]


class McpSettings(BaseModel):
    """A server started here (``command``) or reached over streamable HTTP (``url``). All times are seconds.

    A validation error never shows what was given, since it could be a secret.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    command: Annotated[tuple[Word, ...], Field(min_length=1, max_length=64)] | None = None
    """Program and arguments; no shell. It is shown by ``check``: secrets belong into ``env``."""
    env: dict[Variable, SecretStr] = Field(default_factory=dict, max_length=64)
    """Variables for the program, besides PATH, HOME and LANG."""
    pass_env: tuple[Variable, ...] = Field(default=(), max_length=64)
    """Names of this service's own variables that the program gets, too."""
    cwd: Path | None = None
    """Where the program runs; None: where this service does."""

    url: str | None = None
    """``https://``, or ``http://`` on this machine."""
    header: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")] | None = None
    """Sent with every request, such as ``Authorization``. Its value is one of the next three."""
    value: SecretStr | None = None
    value_env: str | None = None
    """The variable that holds the value."""
    value_file: str | None = None
    """The file that holds the value."""

    connect_timeout: Seconds = 30.0
    """From the start of the program, or of the connection, until its tools are known. A server of an older
    protocol may take 10 of them to be recognised."""
    time_limit: Seconds | None = None
    """For one use of a tool; None: the limit of all tools."""
    refresh: Seconds = 60.0
    """Time between two looks at the list of tools, which also show whether the server is alive. One that
    announces changes is looked at then, too."""
    reconnect_min: Seconds = 1.0
    """Pause before the first attempt to connect again."""
    reconnect_max: Seconds = 60.0
    """The pause doubles up to this."""

    @field_validator("url")
    @classmethod
    def _is_safe_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError as error:
            raise ValueError("not a valid URL: bad host or port") from error
        if parts.scheme not in {"http", "https"}:
            raise ValueError("must begin with https:// or http://")
        if not parts.hostname or not url.isascii() or re.search(r"[\s\x00-\x1f\x7f]", url):
            raise ValueError("names no host, or is not plain ASCII without blanks")
        if "@" in parts.netloc or parts.fragment:
            raise ValueError("must hold no credentials and no fragment")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise ValueError("must begin with https:// unless the host is this machine")
        return url

    @field_validator("value")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        text = value.get_secret_value().strip() if value else ""
        if not re.fullmatch(r"[ -~]*", text):
            raise ValueError("must be printable ASCII")
        return SecretStr(text) if text else None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("give either command or url")
        if self.command is None and (self.env or self.pass_env or self.cwd):
            raise ValueError("env, pass_env and cwd are for a server with command")
        has_value = any((self.value, self.value_env, self.value_file))
        if self.url is None and (self.header or has_value):
            raise ValueError("header and its value are for a server with url")
        if (self.header is not None) != has_value:
            raise ValueError("header needs one of value, value_env, value_file, and they need header")
        if self.reconnect_max < self.reconnect_min:
            raise ValueError("reconnect_max is less than reconnect_min")
        return self

    @property
    def place(self) -> str:
        """The command line, or the URL without its query, which may hold a key."""
        if self.command is not None:
            return shlex.join(self.command)[:200]
        return (self.url or "").partition("?")[0][:200]

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """What the program gets of ``environ``, this service's environment, and of ``env``."""
        passed = {name: environ[name] for name in (*INHERITED, *self.pass_env) if name in environ}
        return passed | {name: value.get_secret_value() for name, value in self.env.items()}


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761, section 6.3
