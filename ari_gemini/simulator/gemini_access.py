"""Who may speak to the simulated service: its paths, API keys and ephemeral tokens.

The service answers the upgrade with 101 whatever the credentials and closes the WebSocket afterwards; minting
a token, a plain HTTP request, is refused with a status.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

from ari_gemini.simulator.gemini_schema import RefusalError

NO_IDENTITY = (
    "Method doesn't allow unregistered callers (callers without established identity). "
    "Please use API Key or other form of API consumer identity to call this API."
)
BAD_KEY = "API key not valid. Please pass a valid API key."
BAD_TOKEN = "Missing or malformed auth token."  # noqa: S105 - a message, not a secret

_PATH = re.compile(
    r"/?/ws/google\.ai\.generativelanguage\.(v1beta|v1alpha)\.GenerativeService"
    r"\.BidiGenerateContent(Constrained)?"
)
_MINT = re.compile(r"/?/(v1beta|v1alpha)/auth_tokens")

Admit = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns a client's setup into the one that counts, or raises RefusalError."""


def as_sent(setup: dict[str, Any]) -> dict[str, Any]:
    """The client's own setup counts: what an API key admits to."""
    return setup


@dataclass(frozen=True, slots=True)
class Admission:
    """What credentials admit to: by default, to whatever the client asks for, for as long as it likes."""

    setup: Admit = as_sent
    seconds_left: Callable[[], float] = lambda: math.inf
    """How long messages are still taken (of the simulator's time)."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a path asks for."""

    version: str
    constrained: bool
    """BidiGenerateContentConstrained: for ephemeral tokens."""
    query: Mapping[str, list[str]]


def endpoint_of(target: str) -> Endpoint | None:
    """The endpoint of a request target; None where the service has none (404)."""
    path, _, query = target.partition("?")
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    return Endpoint(match[1], match[2] is not None, parse_qs(query, keep_blank_values=True))


def minting_version(target: str) -> str | None:
    """The API version of a request target that mints tokens; None for any other (404; ``v1`` has none)."""
    match = _MINT.fullmatch(target.partition("?")[0])
    return match[1] if match else None


class TokenGate(Protocol):
    """Knows the ephemeral tokens that were minted."""

    def admit(self, token: str) -> Admission:
        """What a connection with this token is admitted to. Raises RefusalError for a bad token."""


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of admission: ``valid_keys`` None takes any key that is not empty."""

    valid_keys: Collection[str] | None
    tokens: TokenGate

    def admit(self, endpoint: Endpoint, headers: Mapping[str, str]) -> Admission:
        """What these credentials are admitted to. Raises RefusalError with the service's code and words."""
        if endpoint.constrained:
            return self.tokens.admit(_token(endpoint, headers))
        self.check_key(headers.get("x-goog-api-key") or (endpoint.query.get("key") or [""])[0])
        return Admission()

    def check_key(self, key: str) -> None:
        """Raise RefusalError, 1008 or 1007, unless ``key`` is an API key; a token is none."""
        if not key:
            raise RefusalError(1008, NO_IDENTITY)
        if key.startswith("auth_tokens/") or (self.valid_keys is not None and key not in self.valid_keys):
            raise RefusalError(1007, BAD_KEY)


def _token(endpoint: Endpoint, headers: Mapping[str, str]) -> str:
    """The one token: in the Authorization header or in the query, never in both, never twice."""
    tokens = list(endpoint.query.get("access_token", ()))
    scheme, _, credential = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "token":
        tokens.append(credential.strip())
    if len(tokens) != 1 or not tokens[0].startswith("auth_tokens/"):
        raise RefusalError(1007, BAD_TOKEN)
    return tokens[0]
