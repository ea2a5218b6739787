"""What a tool gave back, as far as the model's context has room for it. Pure."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 32
"""Nested objects and lists, the response itself included, that go on as such. protobuf refuses messages
nested deeper than 100 by default (``CodedInputStream``), and an object of its ``Struct`` takes three:
itself, the entry of its map, and the value."""


def bounded(response: Mapping[str, Any], limit: int) -> Mapping[str, Any]:
    """``response``, of one key, if it fits ``limit`` bytes of JSON; else as much of it, as text, as fits.

    A note beside it says then that it was cut, and both together fit. ``limit`` is at least 256. What is
    nested deeper than MAX_DEPTH goes on as JSON text; what JSON cannot hold, or Python's encoder is too
    shallow for, becomes an error.
    """
    try:
        size = _size(response)
    except (TypeError, ValueError) as error:
        return {"error": f"the result is not JSON ({type(error).__name__})"}
    except RecursionError:
        return {"error": "the result is nested too deeply"}
    if size <= limit and not _is_deep(response):
        return response
    ((kind, value),) = response.items()
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if _size({kind: said}) <= limit:
        return {kind: said}

    def cut(count: int) -> Mapping[str, Any]:
        return {kind: said[:count], "note": f"cut: the first {count} of {len(said)} characters"}

    # a character takes at least a byte, and up to six where JSON must escape it
    counts = range(min(len(said), limit) + 1)
    return cut(bisect_right(counts, limit, key=lambda count: _size(cut(count))) - 1)


def _is_deep(response: Mapping[str, Any]) -> bool:
    """Whether it is nested deeper than MAX_DEPTH. ``response`` is JSON, of a bounded size."""
    level: list[Any] = [response]
    for _ in range(MAX_DEPTH):
        members = (m for outer in level for m in (outer.values() if isinstance(outer, dict) else outer))
        level = [member for member in members if isinstance(member, dict | list | tuple)]
    return bool(level)


def _size(response: Mapping[str, Any]) -> int:
    """Bytes of JSON."""
    text = json.dumps(response, ensure_ascii=False, allow_nan=False)
    return len(text.encode("utf-8", "replace"))
