"""What an ephemeral token is good for: the body of a request to mint one.

A token carries a setup and a mask of its fields, which override the holder's
(ai.google.dev/gemini-api/docs/live-api/ephemeral-tokens). A setup without a mask would replace the holder's
altogether, ``sessionResumption.handle`` included, and such a token could resume nothing. So everything that
the operator decides is masked, set or not, and what changes from connection to connection is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from ari_gemini.gemini.settings import GeminiSettings

PER_CONNECTION = ("sessionResumption", "historyConfig")
"""Fields of the setup that a later connection of the same call sends differently."""
LOCKED = (
    "model",
    "generationConfig",
    "systemInstruction",
    "tools",
    "realtimeInputConfig",
    "inputAudioTranscription",
    "outputAudioTranscription",
    "contextWindowCompression",
)
"""Fields of the setup that the operator decides: all that ``encode_setup`` can set."""
_GENERATION = (
    *("responseModalities", "speechConfig", "temperature", "thinkingConfig"),
    *("topP", "topK", "maxOutputTokens", "mediaResolution", "seed"),
)
"""Fields of generationConfig that are locked even when they are not set."""


def mint_request(settings: GeminiSettings, setup: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The JSON of ``POST /v1beta/auth_tokens``; ``now`` is the time, s since 1970.

    ``setup``: the inner object of the setup message. With ``settings.token_lock`` off it is left out, and
    the token opens any session.
    """
    request: dict[str, Any] = {
        "uses": settings.token_uses,
        "expireTime": _stamp(now + settings.token_lifetime),
        "newSessionExpireTime": _stamp(now + settings.token_start_within),
    }
    if settings.token_lock:
        request["bidiGenerateContentSetup"] = lockable(setup)
        request["fieldMask"] = ",".join(field_mask(setup))
    return request


def lockable(setup: Mapping[str, Any]) -> dict[str, Any]:
    """The setup without what changes from connection to connection."""
    return {name: value for name, value in setup.items() if name not in PER_CONNECTION}


def field_mask(setup: Mapping[str, Any]) -> Iterator[str]:
    """The paths of the mask, camelCase: two levels deep where a field has any, as the official client's."""
    for name in (*LOCKED, *(name for name in lockable(setup) if name not in LOCKED)):
        value = setup.get(name)
        inner = tuple(value) if isinstance(value, Mapping) else ()
        if name == "generationConfig":
            inner = tuple(dict.fromkeys((*inner, *_GENERATION)))
        if inner:
            yield from (f"{name}.{field}" for field in inner)
        else:
            yield name


def _stamp(moment: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
