"""Where call states are kept: ``[state]``, and the store that it describes."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, FilePath, SecretStr, field_validator, model_validator

from ari_gemini.errors import ConfigError
from ari_gemini.state.directory import DirectoryStore
from ari_gemini.state.memory import MemoryStore
from ari_gemini.state.store import LIFETIME, TIMEOUT, StateStore


class StateSettings(BaseModel):
    """``[state]``. All times are seconds.

    A validation error never shows what was given, since it could hold the password.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    store: Literal["directory", "memory", "redis"] = "directory"
    """A directory serves the workers of one machine, Redis those of several; memory outlives no restart."""
    directory: Path | None = None
    """Absolute; records are kept in its subdirectory ``calls``. None: see ``default_directory``."""
    url: SecretStr | None = None
    """``redis://`` or ``rediss://``, user and password, host, port, and the number of the database."""
    ca_file: FilePath | None = None
    """PEM file with the only authorities to trust for ``rediss://``; None: those of the system."""
    lifetime: Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)] = LIFETIME
    """A record that was not written for so long is not used, and removed."""
    timeout: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = TIMEOUT
    """For one operation."""

    @field_validator("directory")
    @classmethod
    def _is_absolute(cls, directory: Path | None) -> Path | None:
        if directory is not None and (not directory.is_absolute() or "\0" in str(directory)):
            raise ValueError("must be an absolute path")
        return directory

    @field_validator("url")
    @classmethod
    def _is_redis(cls, url: SecretStr | None) -> SecretStr | None:
        text = url.get_secret_value().strip() if url else ""
        if not text:
            return None
        try:
            parts = urlsplit(text)
            _ = parts.port
        except ValueError:
            # the reason may quote the password, when it holds a sign that should be encoded
            raise ValueError("not a valid URL: bad host or port") from None
        if parts.scheme not in {"redis", "rediss"}:
            raise ValueError("must begin with redis:// or rediss://")
        if not parts.hostname or not re.fullmatch(r"[!-~]+", text):
            raise ValueError("names no host, or is not plain ASCII without blanks")
        if parts.query or parts.fragment or not re.fullmatch(r"/?[0-9]{0,9}", parts.path):
            raise ValueError("must end after the host, or after the number of a database")
        return SecretStr(text)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.store == "redis" and self.url is None:
            raise ValueError('store = "redis" needs an address: set ARI_GEMINI_STATE_URL or state.url_file')
        return self


def default_directory(environ: Mapping[str, str]) -> Path:
    """Where a service without ``state.directory`` finds its records again after a restart.

    The first of: what systemd made for it (``StateDirectory=``, systemd.exec(5)), the user's own directory
    for state (XDG Base Directory Specification 0.8), and for a user without a home a temporary one.
    """
    if given := environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(given)
    for name, below in (("XDG_STATE_HOME", "ari-gemini"), ("HOME", ".local/state/ari-gemini")):
        home = Path(environ.get(name, ""))
        if home.is_absolute() and (name != "HOME" or os.access(home, os.W_OK)):
            return home / below
    return Path(environ.get("TMPDIR") or tempfile.gettempdir()) / f"ari-gemini-{os.geteuid()}"


def open_store(settings: StateSettings, environ: Mapping[str, str]) -> StateStore:
    """The store as the operator wants it. Raises ConfigError for Redis without its library.

    Nothing is opened or written yet: a store that fails ends no call and keeps no service from starting.
    """
    if settings.store == "memory":
        return MemoryStore(lifetime=settings.lifetime)
    if settings.store == "redis" and settings.url is not None:
        if find_spec("redis") is None:
            raise ConfigError("state.store: redis needs another package: pip install 'ari-gemini[redis]'")
        # only who has a Redis needs the package
        from ari_gemini.state.redis import RedisStore  # noqa: PLC0415

        return RedisStore(
            settings.url, lifetime=settings.lifetime, timeout=settings.timeout, ca_file=settings.ca_file
        )
    directory = settings.directory or default_directory(environ)
    return DirectoryStore(directory / "calls", lifetime=settings.lifetime, timeout=settings.timeout)
