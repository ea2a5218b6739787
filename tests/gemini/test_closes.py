from __future__ import annotations

import pytest

from ari_gemini.errors import (
    HandleRefused,
    KeyRefused,
    ModelRefused,
    QuotaExceeded,
    Retry,
    SessionDropped,
    SessionError,
    SessionRefused,
    SessionUnavailable,
    SetupRefused,
)
from ari_gemini.gemini.closes import CLOSES, close_error, one_line, status_error

GO_AWAY = (
    "Connection aborted because the client failed to close the connection after receiving a GoAway signal "
    "once the session durat"
)
UNREGISTERED = (
    "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or "
    "other form of API c"
)
NO_MODEL = (
    "models/gemini-9 is not found for API version v1beta, or is not supported for bidiGenerateContent. "
    "Call ModelService"
)
NO_TUNED = "token-based requests cannot use project-scoped features such as tuned models"
MEDIA_CHUNKS = "realtime_input.media_chunks is deprecated. Use audio, video, or text instead."

# code, reason, error in answer to a first setup, error in mid-session
TABLE: list[tuple[int, str, type[SessionError], type[SessionError]]] = [
    (1000, "", SessionUnavailable, SessionError),
    (1001, "", SessionUnavailable, SessionDropped),
    (1005, "", SessionUnavailable, SessionDropped),
    (1006, "", SessionUnavailable, SessionDropped),
    (1007, "API key not valid. Please pass a valid API key.", KeyRefused, KeyRefused),
    (1007, "API key expired. Please renew the API key.", KeyRefused, KeyRefused),
    (
        1007,
        "Invalid JSON payload received. Unknown name \"x\" at 'setup': Cannot find field.",
        SetupRefused,
        SetupRefused,
    ),
    (1007, "Request contains an invalid argument.", SetupRefused, HandleRefused),
    (1007, "Precondition check failed.", SessionRefused, SessionRefused),
    (1007, "Thinking level is not supported for this model", SetupRefused, SetupRefused),
    (1007, "Thinking level must be specified for this model", SetupRefused, SetupRefused),
    (1007, "Function response scheduling is not supported for this model", SetupRefused, SetupRefused),
    (1007, MEDIA_CHUNKS, SetupRefused, SetupRefused),
    (1007, "Cannot extract voices from a non-audio request", SetupRefused, SetupRefused),
    (1007, NO_TUNED, KeyRefused, KeyRefused),
    (1007, "Missing or malformed auth token", KeyRefused, KeyRefused),
    (1007, "something new", SetupRefused, HandleRefused),
    (1008, UNREGISTERED, KeyRefused, KeyRefused),
    (1008, NO_MODEL, ModelRefused, ModelRefused),
    (1008, "Publisher model projects/p/models/m was not found", ModelRefused, ModelRefused),
    (1008, "BidiGenerateContent session not found", HandleRefused, HandleRefused),
    (1008, "BidiGenerateContent session expired", HandleRefused, HandleRefused),
    (
        1008,
        "Operation is not implemented, or supported, or enabled.",
        SessionUnavailable,
        SessionDropped,
    ),
    (1008, "The operation was aborted.", SessionUnavailable, SessionDropped),
    (1008, GO_AWAY, SessionUnavailable, SessionDropped),
    (1008, "something new", SessionRefused, SessionDropped),
    (1011, "Internal error encountered.", SessionUnavailable, SessionUnavailable),
    (1011, "auth token has expired", KeyRefused, SessionDropped),
    (1011, "Token has expired", KeyRefused, KeyRefused),
    (1011, "Token has been used too many times", KeyRefused, KeyRefused),
    (1011, "Deadline expired before operation could complete.", SessionUnavailable, SessionDropped),
    (1011, "The service is currently unavailable.", SessionUnavailable, SessionUnavailable),
    (
        1011,
        "You exceeded your current quota, please check your plan and billing",
        QuotaExceeded,
        QuotaExceeded,
    ),
    (1011, "RESOURCE_EXHAUSTED", QuotaExceeded, QuotaExceeded),
    (1013, "", SessionUnavailable, SessionUnavailable),
    (4000, "something new", SessionUnavailable, SessionDropped),
]


@pytest.mark.parametrize(("code", "reason", "at_setup", "later"), TABLE, ids=lambda value: str(value)[:40])
def test_the_table(code: int, reason: str, at_setup: type, later: type) -> None:
    assert len(reason.encode()) <= 123
    for established, expected in ((False, at_setup), (True, later)):
        error = close_error(code, reason, established=established)
        assert type(error) is expected
        assert error.code == code
        assert str(code) in str(error)
        assert reason in str(error)


def test_every_row_is_reached() -> None:
    reached = {
        next(rule.words for rule in CLOSES if rule.words in str(close_error(code, reason, established=True)))
        for code, reason, _, _ in TABLE
    }
    assert reached == {rule.words for rule in CLOSES}


@pytest.mark.parametrize(
    ("code", "reason", "error", "retry"),
    [
        (1007, "Request contains an invalid argument.", HandleRefused, Retry.FRESH),
        (1008, "BidiGenerateContent session not found", HandleRefused, Retry.FRESH),
        (1011, "Internal error encountered.", SessionUnavailable, Retry.BACKOFF),
        (1006, "", SessionUnavailable, Retry.BACKOFF),
        (1000, "", SessionUnavailable, Retry.BACKOFF),
    ],
)
def test_a_refused_resumption_may_be_the_handles_fault(
    code: int, reason: str, error: type, retry: Retry
) -> None:
    refused = close_error(code, reason, established=False, resumed=True)
    assert type(refused) is error
    assert refused.retry is retry


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (200, SessionRefused, "refuses the connection"),
        (302, SessionRefused, "redirects; not followed"),
        (400, SessionRefused, "refuses the connection"),
        (401, KeyRefused, "refuses the API key"),
        (403, KeyRefused, "refuses the API key"),
        (404, SessionRefused, "has no Live API at this address"),
        (408, SessionUnavailable, "is not to be had now"),
        (418, SessionRefused, "refuses the connection"),
        (429, QuotaExceeded, "has no quota left"),
        (500, SessionUnavailable, "is not to be had now"),
        (503, SessionUnavailable, "is not to be had now"),
        (599, SessionUnavailable, "is not to be had now"),
        (777, SessionRefused, "refuses the connection"),
    ],
)
def test_upgrade_statuses(status: int, error: type, words: str) -> None:
    refused = status_error(status, "example.test", "\n<b>enable\tthe API</b>\n")
    assert type(refused) is error
    assert refused.code == status
    assert str(refused).startswith(f"example.test {words}")
    assert str(refused).endswith(f"(HTTP {status}: <b>enable the API</b>)")


def test_foreign_text_fits_a_line() -> None:
    assert one_line("a\r\nb\x1b[31m\x00c\u202e  d") == "a b [31m c d"
    assert one_line("") == ""
    assert len(one_line("x" * 10_000)) == 200
    assert one_line("x" * 200) == "x" * 200
    assert one_line("y" * 201).endswith("y…")
