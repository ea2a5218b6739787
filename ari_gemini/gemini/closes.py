"""Why the service hangs up: close codes and HTTP statuses as tables, answered with typed errors.

The service puts its reason into the close frame, cut at 123 bytes (RFC 6455, section 5.5), so every
pattern fits the beginning of a sentence. In both tables the first row that fits wins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ari_gemini.errors import (
    HandleRefused,
    KeyRefused,
    ModelRefused,
    QuotaExceeded,
    SessionDropped,
    SessionError,
    SessionRefused,
    SessionUnavailable,
    SetupRefused,
)

_MAX_SAID = 200
"""Characters of a foreign text that a message of ours repeats."""


@dataclass(frozen=True, slots=True)
class CloseRule:
    """``code`` (None: any) and a pattern found in the reason, whatever its case, say which error it is."""

    code: int | None
    reason: str
    error: type[SessionError]
    words: str
    at_setup: type[SessionError] | None = None
    """The error instead, when it came in answer to the setup of a session without handle."""


CLOSES: tuple[CloseRule, ...] = (
    CloseRule(None, "quota|RESOURCE_EXHAUSTED|billing", QuotaExceeded, "the account's quota is used up"),
    # 1007: what was sent is wrong
    CloseRule(1007, "API key", KeyRefused, "the API key is refused"),
    CloseRule(1007, "token-based requests|auth token", KeyRefused, "the token is refused"),
    CloseRule(1007, "Unknown name", SetupRefused, "a field is not known to the service"),
    CloseRule(1007, "thinking", SetupRefused, "the thinking setting is refused"),
    CloseRule(1007, "scheduling is not supported", SetupRefused, "the model schedules no results"),
    CloseRule(1007, "media_chunks is deprecated", SetupRefused, "the audio message is out of date"),
    CloseRule(1007, "Cannot extract voices", SetupRefused, "a voice needs audio output"),
    CloseRule(1007, "Precondition check failed", SessionRefused, "a message came where it must not"),
    # "Request contains an invalid argument." answers a bad setup; in mid-session it is also how an
    # exhausted context ends, which only a session without the handle cures.
    CloseRule(1007, "", HandleRefused, "the service refuses what it was sent", at_setup=SetupRefused),
    # 1008: policy
    CloseRule(1008, "unregistered callers|API key", KeyRefused, "the API key is missing or refused"),
    CloseRule(1008, "session not found|session expired", HandleRefused, "the session handle is dead"),
    CloseRule(1008, "not found|not supported for bidi", ModelRefused, "there is no such realtime model"),
    CloseRule(1008, "not implemented, or supported", SessionDropped, "the service gave the session up"),
    CloseRule(1008, "operation was aborted", SessionDropped, "the service aborted the session"),
    CloseRule(1008, "GoAway", SessionDropped, "the connection outlived its time"),
    CloseRule(1008, "", SessionDropped, "the service ended the session", at_setup=SessionRefused),
    # 1011 and its relatives: their side
    CloseRule(1011, "auth token has expired", SessionDropped, "the token ran out", at_setup=KeyRefused),
    CloseRule(1011, "token has expired|token has been used", KeyRefused, "the token is used up or expired"),
    CloseRule(1011, "Deadline expired", SessionDropped, "the connection outlived its time"),
    CloseRule(1011, "", SessionUnavailable, "the service failed"),
    CloseRule(1013, "", SessionUnavailable, "the service is overloaded"),
    # the rest
    CloseRule(1000, "", SessionError, "the service ended the session"),
    CloseRule(1006, "", SessionDropped, "the connection broke"),
    CloseRule(None, "", SessionDropped, "the service closed the connection"),
)
"""Codes: RFC 6455, section 7.4.1, where 1006 stands for no close frame at all; 1013: IANA's registry."""


@dataclass(frozen=True, slots=True)
class StatusRule:
    """HTTP statuses ``first`` to ``last`` in answer to the upgrade, the error, and what it means."""

    first: int
    last: int
    error: type[SessionError]
    words: str


STATUSES: tuple[StatusRule, ...] = (
    StatusRule(300, 399, SessionRefused, "redirects; not followed, for the key would go along"),
    StatusRule(401, 401, KeyRefused, "refuses the API key"),
    StatusRule(403, 403, KeyRefused, "refuses the API key"),
    StatusRule(404, 404, SessionRefused, "has no Live API at this address (base_url, api_version)"),
    StatusRule(408, 408, SessionUnavailable, "is not to be had now"),
    StatusRule(429, 429, QuotaExceeded, "has no quota left for this account"),
    StatusRule(500, 599, SessionUnavailable, "is not to be had now"),
    StatusRule(0, 999, SessionRefused, "refuses the connection"),
)
"""Statuses: RFC 9110, section 15; 429: RFC 6585, section 4."""


def close_error(code: int, reason: str, *, established: bool, resumed: bool = False) -> SessionError:
    """The error for a connection closed with ``code`` (1006: no close frame) and ``reason``.

    ``established``: the setup had been confirmed. ``resumed``: a handle was used. Until a session stands
    there is nothing that could be dropped, so SessionDropped becomes SessionUnavailable.
    """
    rule = next(
        rule for rule in CLOSES if rule.code in (None, code) and re.search(rule.reason, reason, re.IGNORECASE)
    )
    error = rule.error
    if not established:
        if rule.at_setup is not None and not resumed:
            error = rule.at_setup
        elif error in (SessionDropped, SessionError):
            error = SessionUnavailable
    return error(f"{rule.words} (close {code}{_said(reason)})", code)


def status_error(status: int, host: str, body: str = "") -> SessionError:
    """The error for a WebSocket upgrade that ``host`` answered with HTTP ``status`` and ``body``."""
    rule = next(rule for rule in STATUSES if rule.first <= status <= rule.last)
    return rule.error(f"{host} {rule.words} (HTTP {status}{_said(body)})", status)


def _said(text: str) -> str:
    line = one_line(text)
    return f": {line}" if line else ""


def one_line(text: str) -> str:
    """Foreign text made fit for a log line: printable, without line breaks, at most 200 characters."""
    printable = "".join(char if char.isprintable() else " " for char in text[: 4 * _MAX_SAID])
    line = " ".join(printable.split())
    return line if len(line) <= _MAX_SAID else f"{line[: _MAX_SAID - 1]}…"
