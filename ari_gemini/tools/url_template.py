"""URLs with places for arguments: ``https://host/orders/{order_id}?lang={lang}``. Pure.

Whatever the arguments, the result begins with what stands before the first place, and has the segments that
the template has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from ari_gemini.tools.url import Prefix, Url, normalise

_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_-]*)\}")
_ORIGIN = re.compile(r"[A-Za-z]+://[^/?#]*")


@dataclass(frozen=True, slots=True)
class UrlTemplate:
    """A template that :meth:`parse` has found good."""

    text: str
    names: frozenset[str]
    """The arguments it has places for."""
    prefix: Prefix
    """Where it and redirects of its server may lead: its path up to the first place."""
    static: str
    """What every filled URL begins with, normalised."""

    @classmethod
    def parse(cls, text: str) -> UrlTemplate:
        """Raises ValueError: no URL, or a place outside of path and query."""
        if "#" in text:
            raise ValueError("must have no fragment")
        origin = _ORIGIN.match(text)
        if origin is not None and set("{}") & set(origin[0]):
            raise ValueError("{…} belongs in the path or the query, never in scheme, host or port")
        if set("{}") & set(_PLACE.sub("", text)):
            raise ValueError("a brace that is no {name}; write it as %7B or %7D")
        head = text[: place.start()] if (place := _PLACE.search(text)) else text
        begin = normalise(head)
        if _depth(head) > begin.path.count("/") or _depth(text) > normalise(_PLACE.sub("x", text)).path.count(
            "/"
        ):
            raise ValueError("the path must have no dot segments")
        whole = place is None or "?" in head
        prefix = Prefix(begin.origin, begin.path, whole=whole)
        return cls(text, frozenset(_PLACE.findall(text)), prefix, str(begin))

    def fill(self, values: Mapping[str, str], query: Iterable[tuple[str, str]] = ()) -> Url:
        """Put ``values`` in their places, escaped, and add ``query`` at the end.

        Raises ValueError, with words that can be shown, for a value of the path that is empty, a dot segment,
        or holds a slash, backslash or control character: servers that decode before they look would read
        another path (WSGI and ASGI hand on ``%2F`` as a slash).
        """
        path, mark, rest = self.text.partition("?")
        try:
            path = "/".join(_fill_segment(segment, values) for segment in path.split("/"))
            pairs = [_PLACE.sub(lambda place: quote(values[place[1]], safe=""), rest)] if mark else []
            pairs += [f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query]
        except UnicodeEncodeError:
            raise ValueError("an argument holds half a character (a lone surrogate)") from None
        url = normalise(path + (f"?{'&'.join(filter(None, pairs))}" if mark or pairs else ""))
        if not self.prefix.covers(url) or not str(url).startswith(self.static):
            raise ValueError("the arguments lead to another address")
        return url


def _depth(text: str) -> int:
    """How many slashes the path of a URL has, at least its first."""
    return max(1, text.partition("?")[0].count("/") - 2)


def _fill_segment(segment: str, values: Mapping[str, str]) -> str:
    names = _PLACE.findall(segment)
    for name in names:
        value = values[name]
        if not value:
            raise ValueError(f"{name} must not be empty")
        if any(c in "/\\\x7f" or c < " " for c in value):
            raise ValueError(f"{name} must hold no slash, backslash or control character")
    if names and _PLACE.sub(lambda place: values[place[1]], segment) in {".", ".."}:
        raise ValueError(f"{' and '.join(names)} must not be a dot or two")
    return _PLACE.sub(lambda place: quote(values[place[1]], safe=""), segment)
