"""The values inside the service's JSON: objects, base64, MIME types with a rate, durations."""

from __future__ import annotations

import json
import re
from binascii import a2b_base64
from functools import lru_cache
from typing import Any

from ari_gemini.errors import MalformedMessage

DEFAULT_RATE = 24_000
"""Output is 24 kHz when a part does not say (ai.google.dev/gemini-api/docs/live-api/capabilities)."""
_RATES = range(4_000, 192_001)
"""Rates that can be sound; anything else in a MIME type is a mistake."""


def parse_object(data: bytes | str) -> dict[str, Any]:
    """The JSON object in ``data`` (UTF-8). Half surrogate pairs in its strings become ``?``.

    Raises MalformedMessage for anything else, absurd nesting and numbers included.
    """
    try:
        text = data if isinstance(data, str) else data.decode()
        message = json.loads(text)
        if "\\" in text and "\\ud" in text.lower():
            message = json.loads(json.dumps(message, ensure_ascii=False).encode("utf-8", "replace"))
    except (ValueError, RecursionError) as exc:  # bad JSON and bad UTF-8 are ValueErrors
        what = f"{len(data)} bytes that are not JSON ({type(exc).__name__})"
        raise MalformedMessage(f"the model sent {what}") from exc
    if not isinstance(message, dict):
        raise MalformedMessage(f"the model sent JSON that is no object but {type(message).__name__}")
    return message


def decode_base64(data: str) -> bytes | None:
    """Bytes of base64 in either alphabet, padded or not (RFC 4648, sections 4 and 5).

    None when it is no base64. Standard base64 with its padding, the usual case, is the fast one.
    """
    try:
        return a2b_base64(data, strict_mode=True)
    except ValueError:
        bare = data.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return a2b_base64(bare + "=" * (-len(bare) % 4), strict_mode=True)
    except ValueError:
        return None


@lru_cache(maxsize=64)  # a session sees one or two; bounded against a server that invents them
def audio_rate(mime: str) -> int | None:
    """Rate in Hz of a MIME type such as ``audio/pcm;rate=24000``, 24000 when it names none.

    None when it is not PCM or the rate cannot be one.
    """
    kind, *parameters = [piece.strip().lower() for piece in mime.split(";")]
    if kind != "audio/pcm":
        return None
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "rate":
            digits = value.strip().strip('"')
            rate = int(digits) if re.fullmatch(r"[0-9]{1,6}", digits) else 0
            return rate if rate in _RATES else None
    return DEFAULT_RATE


def parse_duration(text: str) -> float | None:
    """Seconds of a protobuf Duration in JSON, such as ``50s`` or ``1.880s``; None when it is none."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s", text)
    return float(found[1]) if found else None
