"""What becomes of the bytes of an answer: how many are taken, what text they are, what the model gets. Pure.

The server is not trusted: nothing it sends may grow, take long to read, or break the message to the model.
"""

from __future__ import annotations

import codecs
import json
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

MAX_DEPTH = 32
"""Nested lists and objects that are handed on as such; models' services refuse messages nested deeper than
about 100. What is deeper stays text."""
EXACT_DIGITS = 15
"""Digits that survive in a double (RFC 8259, section 6): longer integers go on as text, unharmed."""
SHORTEST_PREFIX = 6
"""Characters of a secret that are found at the end of a cut answer; fewer stand there by chance."""
CODING_OVERHEAD = 1024
"""Bytes that a coded answer may be longer than ``max_response``, for the header of gzip."""

_CHARSETS = {
    **dict.fromkeys(("utf-8", "utf8", "us-ascii", "ascii"), "utf-8-sig"),
    # A browser reads Latin-1 as Windows-1252 (encoding.spec.whatwg.org).
    **dict.fromkeys(("iso-8859-1", "latin1", "windows-1252", "cp1252"), "cp1252"),
    **{f"iso-8859-{n}": f"iso8859-{n}" for n in (2, 5, 7, 9, 15)},
    **{f"windows-125{n}": f"cp125{n}" for n in (0, 1, 3, 4)},
    **{name: name for name in ("utf-16", "utf-16le", "utf-16be", "koi8-r", "gb18030", "gbk", "big5")},
    **{name: name for name in ("shift_jis", "euc-jp", "euc-kr")},
}
"""Charsets that are decoded; others are taken for UTF-8. Not all that Python has: some of its codecs take
quadratic time (``idna``, ``punycode``) or run escapes (``unicode_escape``)."""
_TEXT = re.compile(
    r"text/.*|application/(.*\+)?(json|xml)|application/(x-www-form-urlencoded|javascript|x-ndjson|ya?ml)"
)
_JSON = re.compile(r"(application|text)/(.*\+)?json")
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]{1,64}/[\w!#$&^.+-]{1,64}", re.ASCII)
_CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([\w.:-]{1,40})""", re.ASCII | re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
_TOKEN: Final = re.compile(r"(?:[^~]|~[01])*")


class UnreadableAnswer(ValueError):
    """The server sent what its own headers do not allow."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished answer. ``body`` is JSON as parsed, else text; None when there is none to hand on.

    ``note`` says what the model must know of the body: that it was cut, or is no text. ``parsed`` tells JSON
    from text that happens to be a string.
    """

    status: int
    content_type: str = ""
    body: Any = None
    note: str = ""
    parsed: bool = False

    def for_model(self, pointer: Sequence[str] | None = None) -> dict[str, Any]:
        """``status`` with ``body`` or ``note`` or both. With ``pointer`` no other part of the body leaves."""
        result: dict[str, Any] = {"status": self.status}
        body, note = self.body, self.note
        if pointer is not None:
            body, note = self._part(pointer)
        if body is not None:
            result["body"] = body
        if note:
            result["note"] = note
        return result

    def _part(self, pointer: Sequence[str]) -> tuple[Any, str]:
        if not self.parsed:
            return None, self.note or "the answer is not JSON"
        try:
            return follow(self.body, pointer), ""
        except LookupError:
            return None, "the answer lacks the part that was asked for"


class BoundedBody:
    """Collects a body, undoing ``gzip`` or ``deflate``, and takes no more than ``limit`` bytes of result.

    What a compressed bomb would become is never made: zlib is asked for the bytes that still fit.
    """

    def __init__(self, limit: int, coding: str = "") -> None:
        """``coding``: the value of Content-Encoding. Raises UnreadableAnswer when it is unknown."""
        coding = coding.strip().lower()
        if coding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise UnreadableAnswer("the answer is compressed in an unknown way")
        self._limit = limit
        self._inflate = zlib.decompressobj(wbits=47) if coding not in {"", "identity"} else None
        self._received = 0
        self.data = bytearray()
        self.cut = False
        """More came than was taken; whoever reads can stop."""

    def feed(self, chunk: bytes) -> None:
        """Take what fits. Raises UnreadableAnswer when it is not compressed as it says."""
        self._received += len(chunk)
        room = self._limit - len(self.data)
        if self._inflate is None:
            self.data += chunk[:room]
            self.cut = len(chunk) > room
            return
        try:
            made = self._inflate.decompress(chunk, room + 1)  # 0 would mean: no limit
        except zlib.error:
            raise UnreadableAnswer("the answer is not compressed as it says") from None
        self.data += made[:room]
        self.cut = len(made) > room or bool(self._inflate.unused_data)
        self.cut = self.cut or self._received > self._limit + CODING_OVERHEAD

    def finish(self) -> None:
        """The connection has no more. Raises UnreadableAnswer when what was compressed has no end."""
        if self._inflate is not None and self._received and not self._inflate.eof and not self.cut:
            raise UnreadableAnswer("the compressed answer ends too early")


def media_type(content_type: str) -> str:
    """Type and subtype in lower case; empty when there is none."""
    found = _MEDIA_TYPE.match(content_type.strip())
    return found[0].lower() if found else ""


def is_text(content_type: str) -> bool | None:
    """Whether a body of this Content-Type can be read aloud in principle; None: only the body can tell."""
    kind = media_type(content_type)
    return bool(_TEXT.fullmatch(kind)) if kind else None


def read_answer(status: int, content_type: str, body: BoundedBody, secrets: Iterable[str] = ()) -> Answer:
    """Decode a body. ``secrets`` are replaced wherever the server repeats them, also where one is cut."""
    kind, hidden = media_type(content_type), tuple(secrets)
    if not body.data:
        return Answer(status, kind)
    decoder = codecs.getincrementaldecoder(_codec(content_type, body.data))("replace")
    text = decoder.decode(bytes(body.data), final=not body.cut)
    if not kind and (_CONTROL.search(text) or "\ufffd" in text):
        return Answer(status, kind, note=not_text(kind, None if body.cut else len(body.data)))
    if body.cut:
        note = f"cut: only the first {len(body.data)} bytes were read"
        return Answer(status, kind, _hide_cut(hide(text, hidden), hidden), note)
    if not kind or _JSON.fullmatch(kind):
        try:
            return Answer(status, kind, hide(read_json(text), hidden), parsed=True)
        except (ValueError, RecursionError):
            pass  # what is not JSON, or no JSON for everybody, is still text
    return Answer(status, kind, hide(text, hidden))


def _codec(content_type: str, data: bytearray) -> str:
    """Python's name for the charset of a Content-Type."""
    found = _CHARSET.search(content_type)
    codec = _CHARSETS.get(found[1].lower() if found else "", "utf-8-sig")
    if codec == "utf-16" and not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16-le"  # as browsers do; Python's decoder would raise
    return codec


def not_text(kind: str, size: int | None) -> str:
    """What a model is told instead of bytes. ``size`` None: unknown."""
    length = "of unknown length" if size is None else f"of {size} bytes"
    return f"the body is {kind or 'data of an unknown type'} {length}, which is not text"


def read_json(text: str) -> Any:
    """JSON that every other implementation understands too (RFC 7493).

    Raises ValueError for NaN, infinities and lone surrogates, and RecursionError for what is nested deeper
    than MAX_DEPTH.
    """
    value = json.loads(text, parse_constant=_refuse, parse_int=_exact)
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    _check_depth(value, MAX_DEPTH)
    return value


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _exact(digits: str) -> int | str:
    return int(digits) if len(digits.lstrip("-")) <= EXACT_DIGITS else digits


def _check_depth(value: Any, left: int) -> None:
    if isinstance(value, dict | list):
        if not left:
            raise RecursionError
        for member in value.values() if isinstance(value, dict) else value:
            _check_depth(member, left - 1)


def hide(value: Any, secrets: Sequence[str]) -> Any:
    """``value``, text or JSON, with ``[secret]`` in place of each of ``secrets``, in keys as well."""
    if not secrets:
        return value
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, "[secret]")
        return value
    if isinstance(value, list):
        return [hide(member, secrets) for member in value]
    if isinstance(value, dict):
        return {hide(key, secrets): hide(member, secrets) for key, member in value.items()}
    return value


def _hide_cut(text: str, secrets: Sequence[str]) -> str:
    """``text`` with ``[secret]`` in place of the longest beginning of a secret that it ends with."""
    longest = max(
        (
            count
            for secret in secrets
            for count in range(SHORTEST_PREFIX, len(secret))
            if text.endswith(secret[:count])
        ),
        default=0,
    )
    return text[:-longest] + "[secret]" if longest else text


def read_pointer(text: str) -> tuple[str, ...]:
    """The reference tokens of a JSON pointer (RFC 6901, section 3). Raises ValueError."""
    if text and not text.startswith("/"):
        raise ValueError('a JSON pointer is empty or begins with "/"')
    tokens = text.split("/")[1:]
    if not all(_TOKEN.fullmatch(token) for token in tokens):
        raise ValueError("in a JSON pointer ~ is written ~0, and / is written ~1")
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in tokens)


def follow(value: Any, pointer: Sequence[str]) -> Any:
    """The part of ``value`` that ``pointer`` names (RFC 6901, section 4). Raises LookupError."""
    for token in pointer:
        if isinstance(value, dict):
            value = value[token]
        elif isinstance(value, list) and re.fullmatch(r"0|[1-9][0-9]{0,9}", token):
            value = value[int(token)]
        else:
            raise LookupError(token)
    return value
