"""What a tool gave back, as far as the model's context has room for it. Pure."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any


def bounded(response: Mapping[str, Any], limit: int) -> Mapping[str, Any]:
    """``response``, of one key, if it fits ``limit`` bytes of JSON; else as much of it, as text, as fits.

    A note beside it says then that it was cut, and both together fit. ``limit`` is at least 256. What JSON
    cannot hold becomes an error.
    """
    try:
        size = _size(response)
    except (TypeError, ValueError, RecursionError) as error:
        return {"error": f"the result is not JSON ({type(error).__name__})"}
    if size <= limit:
        return response
    ((kind, value),) = response.items()
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    def cut(count: int) -> Mapping[str, Any]:
        return {kind: said[:count], "note": f"cut: the first {count} of {len(said)} characters"}

    # a character takes at least a byte, and up to six where JSON must escape it
    counts = range(min(len(said), limit) + 1)
    return cut(bisect_right(counts, limit, key=lambda count: _size(cut(count))) - 1)


def _size(response: Mapping[str, Any]) -> int:
    """Bytes of JSON."""
    text = json.dumps(response, ensure_ascii=False, allow_nan=False)
    return len(text.encode("utf-8", "replace"))
