"""Configuration: one TOML file, the environment on top, secrets from files; read once, before all else.

Each room declares its own frozen settings; only this module knows them all. A mistake becomes a ConfigError
with one line per mistake, each naming where it stands (file or environment variable) and which key it is. No
line holds anything that could be a secret.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from ari_gemini.ari.settings import AriSettings
from ari_gemini.audiosocket.server import AudioSocketSettings
from ari_gemini.call.agent import Agent
from ari_gemini.call.drain import DrainSettings
from ari_gemini.call.leg import DEFAULT_AGENT
from ari_gemini.call.settings import CallSettings
from ari_gemini.errors import ConfigError, SessionRefused
from ari_gemini.gemini.settings import BrokerSettings, GeminiSettings
from ari_gemini.gemini.setup_message import encode_setup
from ari_gemini.state.settings import StateSettings
from ari_gemini.telemetry.logs import Format, Level
from ari_gemini.tools.catalogue import Catalogue
from ari_gemini.tools.settings import ToolsSettings
from ari_gemini.web.health import HealthSettings

ENV_PREFIX = "ARI_GEMINI__"
ENV_DELIMITER = "__"

MAX_SECRET_BYTES = 4096
"""A longer secret file is not a secret but a mistake."""


class Secret(NamedTuple):
    """Where one secret may come from, the strongest first: ``env``, the file that ``env``_FILE names, the
    TOML file's ``key``, the file that its ``key``_file names. What is empty counts as not given."""

    section: str
    key: str
    env: str
    optional: bool = False
    """Only who switches its part of the service on has one."""

    @property
    def env_file(self) -> str:
        """The variable that names a file with the secret."""
        return f"{self.env}_FILE"


SECRETS = (
    Secret("gemini", "api_key", "GEMINI_API_KEY"),
    Secret("gemini", "broker_secret", "ARI_GEMINI_BROKER_SECRET", optional=True),
    Secret("ari", "password", "ARI_PASSWORD"),
    Secret("state", "url", "ARI_GEMINI_STATE_URL", optional=True),
)


class LogSettings(BaseModel):
    """``[log]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: Level = "info"
    format: Format = "console"


class Config(BaseSettings):
    """Everything an operator can say. ``load_config`` builds it; by itself it reads no environment."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_DELIMITER,
        hide_input_in_errors=True,
    )

    ari: AriSettings | None = None
    audiosocket: AudioSocketSettings = AudioSocketSettings()
    gemini: GeminiSettings = GeminiSettings()
    broker: BrokerSettings = BrokerSettings()
    calls: CallSettings = CallSettings()
    drain: DrainSettings = DrainSettings()
    health: HealthSettings = HealthSettings()
    tools: ToolsSettings = ToolsSettings()
    agents: dict[str, Agent] = Field(default_factory=lambda: {DEFAULT_AGENT: Agent()})
    state: StateSettings = StateSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # load_config merges the sources itself, so that it can say where a mistake stands
        return (init_settings,)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.ari is None and self.audiosocket.verify == "ari":
            raise ValueError('audiosocket.verify: "ari" needs an [ari] section; without one say "none"')
        if DEFAULT_AGENT not in self.agents:
            raise ValueError(f"agents.{DEFAULT_AGENT}: missing; it answers callers for whom nobody is named")
        if self.gemini.needs_key and self.gemini.api_key is None:
            raise ValueError("gemini.api_key: missing; set GEMINI_API_KEY or gemini.api_key_file")
        if self.ari is not None and self.ari.password is None:
            raise ValueError("ari.password: missing; set ARI_PASSWORD or ari.password_file")
        for name, agent in self.agents.items():
            try:
                tools = Catalogue(self.tools, agent.tools).fixed(agent.tools, agent.transfer)
                declarations = [tool.declaration for tool in tools]
                encode_setup(self.gemini, agent.session_settings({}, declarations))
            except (ConfigError, SessionRefused) as refused:
                raise ValueError(f"agents.{name}: {refused}") from None
        return self

    def catalogue(self, environ: Mapping[str, str]) -> Catalogue:
        """The tools that some agent may use. Opens nothing."""
        names = [name for agent in self.agents.values() for name in agent.tools]
        return Catalogue(self.tools, names, environ)


class TokenConfig(BaseModel):
    """What the token commands need of the same file; nothing is asked of its other sections."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    gemini: GeminiSettings = GeminiSettings()
    broker: BrokerSettings = BrokerSettings()
    log: LogSettings = LogSettings()


Sections = TypeVar("Sections", Config, TokenConfig)


class _Environment(EnvSettingsSource):
    """The ARI_GEMINI__SECTION__KEY variables of a given environment. Case does not matter in their names."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = {name.lower(): value for name, value in environ.items()}
        super().__init__(Config, case_sensitive=False)

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """What should be JSON and is not is left to the validation, which can say where it stands."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._environ


def load_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Read, merge and check everything. ``path`` None: environment and defaults only.

    Raises ConfigError, one line per mistake.
    """
    return _load(Config, path, environ)


def load_token_config(path: Path | None, environ: Mapping[str, str]) -> TokenConfig:
    """The same for the token commands."""
    return _load(TokenConfig, path, environ)


def _load(kind: type[Sections], path: Path | None, environ: Mapping[str, str]) -> Sections:
    where = str(path) if path is not None else "(no file)"
    raw = _read_toml(path) if path is not None else {}
    _check_variables(environ)
    try:
        raw = _merged(raw, _Environment(environ)())
    except SettingsError as error:
        raise ConfigError(f"environment: {error}") from None
    if kind is TokenConfig:  # the secrets of other sections need not be on this machine
        raw = {name: section for name, section in raw.items() if name in kind.model_fields}
    for secret in SECRETS:
        if secret.section in kind.model_fields:
            _take_secret(raw, secret, where, environ)
    _take_tool_secrets(raw, where, environ)
    try:
        return kind(**raw)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_input=False)
        raise ConfigError("\n".join(_line(mistake, where, environ) for mistake in mistakes)) from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None


def _merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` laid over ``below``. Environment variables come in lower case, an agent's name may not."""
    result = dict(below)
    written = {key.lower(): key for key in below}
    for name, value in above.items():
        key = written.get(name, name)
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _check_variables(environ: Mapping[str, str]) -> None:
    for name in environ:
        section = name[len(ENV_PREFIX) :].lower().partition(ENV_DELIMITER)[0]
        if name.upper().startswith(ENV_PREFIX) and section not in Config.model_fields:
            raise ConfigError(f"environment {name}: there is no section [{section}]")


def _take_secret(raw: dict[str, Any], secret: Secret, where: str, environ: Mapping[str, str]) -> None:
    """Put the secret where its settings expect it, and drop the key that named a file."""
    section = raw.get(secret.section)
    if section is None and secret.section == "ari":
        return  # a password alone does not ask for Asterisk control
    if section is None:
        section = raw.setdefault(secret.section, {})
    if not isinstance(section, dict):
        return  # the validation says so
    file_key = f"{secret.key}_file"
    named = section.pop(file_key, None)
    if environ.get(secret.env):
        section[secret.key] = environ[secret.env]
    elif environ.get(secret.env_file):
        section[secret.key] = _secret_file(environ[secret.env_file], f"environment {secret.env_file}")
    elif not section.get(secret.key, ""):
        section.pop(secret.key, None)
        if named:
            section[secret.key] = _secret_file(named, f"{where}: {secret.section}.{file_key}")


def _take_tool_secrets(raw: dict[str, Any], where: str, environ: Mapping[str, str]) -> None:
    """``value_env`` and ``value_file`` of credentials and MCP servers become ``value``."""
    tools = raw.get("tools")
    for kind in ("credentials", "mcp"):
        tables = tools.get(kind) if isinstance(tools, dict) else None
        for name, table in tables.items() if isinstance(tables, dict) else ():
            if isinstance(table, dict):
                _take_value(table, f"{where}: tools.{kind}.{name}", environ)


def _take_value(table: dict[str, Any], where: str, environ: Mapping[str, str]) -> None:
    variable, file = table.pop("value_env", None), table.pop("value_file", None)
    if sum(source is not None for source in (variable, file, table.get("value"))) > 1:
        raise ConfigError(f"{where}: give one of value, value_env and value_file")
    if variable is not None:
        value = environ.get(str(variable), "").strip()
        if not value and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", str(variable)):
            raise ConfigError(f"{where}.value_env: the environment has no {variable}")
        if not value:  # anything else may be the secret itself, which must not be shown
            raise ConfigError(f"{where}.value_env: must be the name of an environment variable")
        table["value"] = value
    elif file is not None:
        table["value"] = _secret_file(file, f"{where}.value_file")


def _secret_file(name: object, where: str) -> str:
    try:
        with Path(str(name)).open(encoding="utf-8") as file:
            text = file.read(MAX_SECRET_BYTES + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", "not text")
        raise ConfigError(f"{where}: the secret cannot be read: {reason}") from None
    if len(text) > MAX_SECRET_BYTES:
        raise ConfigError(f"{where}: a secret of more than {MAX_SECRET_BYTES} bytes")
    if not text.strip():
        raise ConfigError(f"{where}: the file is empty")
    return text.strip()


def _line(details: ErrorDetails, where: str, environ: Mapping[str, str]) -> str:
    loc = [str(part) for part in details["loc"]]
    upper = {name.upper() for name, value in environ.items() if value}
    place = next((f"environment {name}" for name in _variables(loc) if name in upper), where)
    unknown = details["type"] == "extra_forbidden"
    message = "unknown key" if unknown else details["msg"].removeprefix("Value error, ")
    return f"{place}: {'.'.join(loc)}: {message}" if loc else f"{place}: {message}"


def _variables(loc: list[str]) -> Iterator[str]:
    """The environment variables that may have set the key at ``loc``, the strongest first."""
    for secret in SECRETS:
        if loc == [secret.section, secret.key]:
            yield from (secret.env, secret.env_file)
    for length in range(len(loc), 0, -1):
        yield ENV_PREFIX + ENV_DELIMITER.join(loc[:length]).upper()
