"""Ephemeral tokens of the simulated service: minted, used, locked and run out as the service does it.

The rules are those of the Live API's ephemeral tokens guide and of the AuthToken resource as the official
client documents it; close codes and their words are from published measurements of 2026-08 and 2026-09. Not
known, and here the stricter guess: whether a setup that is refused costs a use (it does), and how a start
after newSessionExpireTime is refused (as one after expireTime).
"""

from __future__ import annotations

import json
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from ari_gemini.simulator.gemini_access import BAD_TOKEN, Admission
from ari_gemini.simulator.gemini_fields import MESSAGES
from ari_gemini.simulator.gemini_schema import RefusalError, read_message, snake, unknown_name

Json = dict[str, Any]

SETUP = "BidiGenerateContentSetup"
ROOT = "auth_token"
"""Where the body of a request stands in the paths of error texts."""

LIFETIME = timedelta(minutes=30)
START_WITHIN = timedelta(seconds=60)
LONGEST = timedelta(hours=20)
"""Defaults of expireTime and newSessionExpireTime, and what neither may reach (AuthToken)."""

USED_UP = "Token has been used too many times"
EXPIRED = "Token has expired"
NO_PROJECT = "token-based requests cannot use project-scoped features such as tuned models"
"""What a model without ``models/``, or none at all, is answered."""

MAX_TOKENS = 4_096
"""Tokens remembered; the oldest is forgotten first, and then is as good as bogus."""

_FIELDS = ("uses", "expireTime", "newSessionExpireTime", "bidiGenerateContentSetup", "fieldMask")
_NAMES = {spelling: name for name in _FIELDS for spelling in (name, snake(name))}


@dataclass(slots=True, eq=False)
class MintedToken:
    """One token, and what became of it."""

    name: str
    expires: datetime
    start_before: datetime
    uses: int = 1
    """0: any number."""
    setup: Json | None = None
    """camelCase, as ``read_message`` returns it."""
    mask: tuple[str, ...] | None = None
    request: Json = field(default_factory=dict)
    """The body that asked for it, in the client's spelling."""
    used: int = 0
    resumed: int = 0


class TokenBook:
    """All tokens that were minted. ``now`` tells the (simulated) wall-clock time."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._tokens: OrderedDict[str, MintedToken] = OrderedDict()

    @property
    def minted(self) -> list[MintedToken]:
        """Oldest first."""
        return list(self._tokens.values())

    def mint(self, body: bytes, version: str) -> Json:
        """Answer a request to mint: ``name`` and what holds. Raises RefusalError with the service's words."""
        try:
            request = json.loads(body) if body.strip() else {}
        except (ValueError, RecursionError):
            raise RefusalError(1007, "Invalid JSON payload received. Unexpected token.") from None
        token = self._read(request, version)
        self._tokens[token.name] = token
        if len(self._tokens) > MAX_TOKENS:
            self._tokens.popitem(last=False)
        return {
            "name": token.name,
            "expireTime": _stamp(token.expires),
            "newSessionExpireTime": _stamp(token.start_before),
            "uses": token.uses,
        }

    def admit(self, token: str) -> Admission:
        """What this token admits to. Raises RefusalError 1007 for one that was never minted."""
        known = self._tokens.get(token)
        if known is None:
            raise RefusalError(1007, BAD_TOKEN)
        return Admission(partial(self._start, known), partial(self._left, known))

    def _left(self, token: MintedToken) -> float:
        return (token.expires - self._now()).total_seconds()

    def _start(self, token: MintedToken, sent: Json) -> Json:
        """The setup that counts. A start costs a use, a resumption none and has until the token's end."""
        now = self._now()
        setup = lock(sent, token.setup, token.mask)
        if now >= token.expires:
            raise RefusalError(1011, EXPIRED)
        if setup.get("sessionResumption", {}).get("handle"):
            token.resumed += 1
        elif now >= token.start_before:
            raise RefusalError(1011, EXPIRED)
        elif token.uses and token.used >= token.uses:
            raise RefusalError(1011, USED_UP)
        else:
            token.used += 1
        if not setup.get("model", "").startswith("models/"):
            raise RefusalError(1007, NO_PROJECT)
        return setup

    def _read(self, request: object, version: str) -> MintedToken:
        if not isinstance(request, dict):
            raise _invalid("", "type.googleapis.com/google.ai.generativelanguage.v1beta.AuthToken", request)
        given: Json = {}
        for spelling, value in request.items():
            if spelling not in _NAMES:
                raise unknown_name(spelling, ROOT)
            if value is not None:
                given[_NAMES[spelling]] = value
        setup = given.get("bidiGenerateContentSetup")
        path = f"{ROOT}.bidi_generate_content_setup"
        now = self._now()
        return MintedToken(
            name=f"auth_tokens/{secrets.token_hex(32)}",
            expires=_time(given, "expireTime", now, LIFETIME),
            start_before=_time(given, "newSessionExpireTime", now, START_WITHIN),
            uses=_uses(given.get("uses", 1)),
            setup=None if setup is None else read_message(setup, SETUP, path, version),
            mask=_mask(given.get("fieldMask")),
            request=request,
        )


def lock(sent: Json, setup: Json | None, mask: tuple[str, ...] | None) -> Json:
    """The setup that counts: the client's, the token's, or the client's with the masked fields of the token.

    A masked field that the token does not set is not set, whatever the client says.
    """
    if mask is None:
        return sent if setup is None else deepcopy(setup)
    result = deepcopy(sent)
    for path in mask:
        _override(result, setup or {}, path.split("."))
    return result


def _override(target: Json, source: Mapping[str, Any], path: list[str]) -> None:
    name, *rest = path
    if rest:
        inner = target.setdefault(name, {})
        _override(inner, source.get(name, {}), rest)
        if not inner and name not in source:
            del target[name]
    elif name in source:
        target[name] = deepcopy(source[name])
    else:
        target.pop(name, None)


def _invalid(name: str, kind: str, value: object) -> RefusalError:
    path = f"{ROOT}.{snake(name)}" if name else ROOT
    return RefusalError(1007, f"Invalid value at '{path}' ({kind}), \"{value}\"")


def _uses(value: object) -> int:
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _invalid("uses", "TYPE_INT32", value)
    return value


def _time(given: Json, name: str, now: datetime, default: timedelta) -> datetime:
    value = given.get(name)
    if value is None:
        return now + default
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _invalid(name, "type.googleapis.com/google.protobuf.Timestamp", value)
    if moment - now >= LONGEST:
        raise RefusalError(1007, f"{snake(name)} is too far in the future. Maximum lifetime is 20h")
    return moment


def _mask(value: object) -> tuple[str, ...] | None:
    """The paths of a FieldMask in proto3 JSON: lowerCamelCase, with commas between them. Empty: no mask."""
    if value is None or value == "":
        return None
    paths = value.split(",") if isinstance(value, str) else [""]
    if not all(_is_field(path.split(".")) for path in paths):
        raise _invalid("fieldMask", "type.googleapis.com/google.protobuf.FieldMask", value)
    return tuple(paths)


def _is_field(path: list[str]) -> bool:
    message: str = SETUP
    for name in path:
        kind = MESSAGES.get(message, {}).get(name)
        if kind is None:
            return False
        message = kind
    return True


def _stamp(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
