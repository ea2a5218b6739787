"""What the operator may set about HTTP: where the model may reach, as whom, and how much of it.

``[tools.http]``, ``[tools.credentials.NAME]``, ``[tools.api_call]`` and ``[tools.named.NAME]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FilePath,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from ari_gemini.errors import ConfigError, ToolError
from ari_gemini.tools.address import is_listed
from ari_gemini.tools.http_answer import read_pointer
from ari_gemini.tools.schema import ArgumentCheck, declarable, inlined
from ari_gemini.tools.url import Prefix, Url, normalise
from ari_gemini.tools.url_template import UrlTemplate

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
BODILESS = frozenset({"GET", "HEAD"})
"""Methods whose body means nothing (RFC 9110, sections 9.3.1 and 9.3.2). They also change nothing (9.2.1)."""
IN_QUERY = BODILESS | {"DELETE"}
"""Methods of named tools whose arguments go into the query: many servers ignore or refuse a DELETE's body."""

Seconds = Annotated[float, Field(gt=0, le=300, allow_inf_nan=False)]
ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")]
"""What every model family takes for the name of a function."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
"""RFC 9110, section 5.6.2."""
_NOT_CREDENTIALS = frozenset(
    [
        *("host", "connection", "content-length", "content-type", "content-encoding", "transfer-encoding"),
        *("te", "trailer", "upgrade", "expect", "keep-alive", "proxy-connection", "accept-encoding"),
    ]
)
"""Header fields that frame or route a message."""
_SCALARS = frozenset(["string", "integer", "number", "boolean"])


def _network(value: Any) -> Any:
    """One complaint instead of one for each version."""
    return ip_network(str(value))


class HttpSettings(BaseModel):
    """``[tools.http]``: holds for ``api_call`` and named tools alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timeout: Seconds = 10.0
    """For a whole use: name, connection, request, answer and redirects. A caller waits meanwhile."""
    max_response: int = Field(default=65_536, ge=1024, le=1_048_576)
    """Bytes read of an answer, counted before and after decompression; the rest is cut. A megabyte of JSON
    takes some ten milliseconds to parse, in which no sound moves."""
    max_request: int = Field(default=65_536, ge=0, le=1_048_576)
    """Bytes sent as a body; more is refused."""
    max_redirects: int = Field(default=3, ge=0, le=10)
    networks: tuple[Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)], ...] = ()
    """Addresses that are not public and that allowed names may lead to nevertheless."""
    ca_file: FilePath | None = None
    """PEM file with the only certificate authorities to trust; None: those of the system."""


class Credential(BaseModel):
    """``[tools.credentials.NAME]``: one header, sent to one origin and never shown to a model.

    ``config.py`` puts the secret itself into ``value`` before the validation, from the environment variable
    that the key ``value_env`` names or the file that ``value_file`` names, and drops those keys.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    origin: str
    """``scheme://host[:port]``, normalised. Over plain http a credential goes only to loopback addresses that
    the origin itself names, and to those in ``networks``."""
    header: str = "Authorization"
    value: SecretStr
    """The whole field value, such as ``Bearer …``."""

    @field_validator("origin")
    @classmethod
    def _is_origin(cls, text: str) -> str:
        url = normalise(text)
        if text.count("/") > 2 or url.query or "#" in text:
            raise ValueError("must be scheme://host[:port] and nothing more")
        return url.origin

    @field_validator("header")
    @classmethod
    def _is_field_name(cls, name: str) -> str:
        if not _TOKEN.fullmatch(name):
            raise ValueError("is no name of an HTTP header field")
        if name.lower() in _NOT_CREDENTIALS:
            raise ValueError("this header field belongs to the message itself")
        return name

    @field_validator("value")
    @classmethod
    def _is_field_value(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value().strip()
        if not re.fullmatch(r"[ -~]{1,4096}", text):
            raise ValueError("must be printable ASCII, not empty, at most 4096 characters")
        return SecretStr(text)


class ApiCallSettings(BaseModel):
    """``[tools.api_call]``: the tool whose address the model writes itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow: tuple[str, ...] = Field(default=(), max_length=64)
    """Prefixes of URLs; the model reads them. None: the tool can be given to no agent."""
    methods: tuple[Method, ...] = Field(default=("GET", "POST"), min_length=1)
    credentials: tuple[str, ...] = ()
    """Names out of ``[tools.credentials]``; one that is not named here is never used for ``api_call``."""

    @field_validator("allow")
    @classmethod
    def _are_prefixes(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(str(Prefix.parse(text)) for text in allow))

    @field_validator("methods")
    @classmethod
    def _once_each(cls, methods: tuple[Method, ...]) -> tuple[Method, ...]:
        return tuple(dict.fromkeys(methods))

    @property
    def prefixes(self) -> tuple[Prefix, ...]:
        """``allow``, read."""
        return tuple(Prefix.parse(text) for text in self.allow)


class NamedToolSettings(BaseModel):
    """``[tools.named.NAME]``: a function for the model, of whose HTTP request it sees nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = Field(min_length=1, max_length=1024)
    method: Method = "GET"
    url: str
    """With ``{name}`` in path and query, for required or defaulted parameters. The other parameters go into
    the query of GET, HEAD and DELETE, and into a JSON body for the other methods."""
    credentials: str | None = None
    """A name out of ``[tools.credentials]``."""
    answer: str | None = None
    """JSON pointer (RFC 6901) to the part of an answer that the model gets; None: all of it."""
    timeout: Seconds | None = None
    """None: that of ``[tools.http]``."""
    parameters: dict[str, Any] = Field(default_factory=dict, validate_default=True)
    """JSON Schema of an object; or only its ``properties``, all of which are then required unless they have a
    ``default``. It is a whole schema if it says ``type = "object"``. Only what is declared is ever sent."""

    @field_validator("url")
    @classmethod
    def _is_template(cls, text: str) -> str:
        UrlTemplate.parse(text)
        return text

    @field_validator("answer")
    @classmethod
    def _is_pointer(cls, text: str | None) -> str | None:
        if text is not None:
            read_pointer(text)
        return text

    @field_validator("parameters")
    @classmethod
    def _is_schema(cls, given: dict[str, Any]) -> dict[str, Any]:
        schema = given if given.get("type") == "object" else _from_properties(given)
        try:
            schema = inlined(schema)
            declarable(schema)
            defaults = {
                name: member["default"]
                for name, member in schema.get("properties", {}).items()
                if "default" in member
            }
            ArgumentCheck({**schema, "required": []})(defaults)
        except (ConfigError, ToolError) as error:
            raise ValueError(str(error)) from None
        return {"additionalProperties": False, "properties": {}, **schema}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        properties, required = self.parameters["properties"], self.parameters.get("required", ())
        for name in sorted(self.template.names):
            schema = properties.get(name)
            if schema is None:
                raise ValueError(f"url: {{{name}}} is no parameter")
            if not _is_scalar(schema, ()) or not (name in required or "default" in schema):
                raise ValueError(
                    f"url: {{{name}}} must be a required string, number or boolean, or have a default"
                )
        if self.method in IN_QUERY:
            for name in properties.keys() - self.template.names:
                if not _is_scalar(properties[name], ("null",)):
                    raise ValueError(
                        f"parameters.{name}: must be a string, number or boolean to go into a query"
                    )
        return self

    @property
    def template(self) -> UrlTemplate:
        """``url``, read."""
        return UrlTemplate.parse(self.url)

    @property
    def rest(self) -> tuple[str, ...]:
        """The parameters that have no place in ``url``."""
        return tuple(name for name in self.parameters["properties"] if name not in self.template.names)


def _from_properties(properties: Mapping[str, Any]) -> dict[str, Any]:
    required = [
        name
        for name, schema in properties.items()
        if not (isinstance(schema, Mapping) and "default" in schema)
    ]
    return {"type": "object", "properties": dict(properties), "required": required}


def _is_scalar(schema: Any, besides: Iterable[str]) -> bool:
    kinds = schema.get("type", ())
    named = {kinds} if isinstance(kinds, str) else set(kinds)
    return bool(named & _SCALARS) and named <= _SCALARS.union(besides)


class HttpToolsSettings(BaseModel):
    """All of it, to be part of ``[tools]``."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    http: HttpSettings = HttpSettings()
    credentials: dict[str, Credential] = Field(default_factory=dict)
    api_call: ApiCallSettings = ApiCallSettings()
    named: dict[ToolName, NamedToolSettings] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _credentials_fit(self) -> Self:
        for name, credential in self.credentials.items():
            self._check_plain(name, normalise(credential.origin))
        origins = {prefix.origin for prefix in self.api_call.prefixes}
        self._check_use("api_call", self.api_call.credentials, origins)
        fields = [
            (credential.origin, credential.header.lower())
            for credential in map(self.credentials.__getitem__, self.api_call.credentials)
        ]
        if len(fields) != len(set(fields)):
            raise ValueError("api_call.credentials: two of them are the same header for the same origin")
        for name, tool in self.named.items():
            used = () if tool.credentials is None else (tool.credentials,)
            self._check_use(f"named.{name}", used, {tool.template.prefix.origin})
        return self

    def _check_plain(self, name: str, origin: Url) -> None:
        """Whether plain http to ``origin`` can ever be safe enough for a credential."""
        address = origin.address
        inside = bool(self.http.networks) if address is None else is_listed(address, self.http.networks)
        if origin.scheme == "http" and not inside and not (address is not None and address.is_loopback):
            raise ValueError(
                f"credentials.{name}.origin: must be https, or lead to a loopback address or to http.networks"
            )

    def _check_use(self, where: str, used: Iterable[str], origins: set[str]) -> None:
        for name in used:
            if name not in self.credentials:
                raise ValueError(f"{where}.credentials: there is no credentials.{name}")
            if self.credentials[name].origin not in origins:
                raise ValueError(f"{where}.credentials: {name} is for another origin")
