"""URLs in one spelling, so that a prefix says what may be asked. Pure.

Normalised as RFC 3986, section 6.2 says. Browsers (url.spec.whatwg.org), resolvers (``inet_aton``) and
servers read more into a URL than that: what any of them would understand differently is a ValueError, whose
words are for whoever wrote the URL, often a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import quote, urljoin

import idna

from ari_gemini.tools.address import Address, read_address

MAX_URL = 2048
"""Characters; longer ones are cut or refused on the way, and hold data rather than an address."""
MAX_HOST = 253
"""Characters of a host name (RFC 1035, section 2.3.4, without the root's dot)."""

_PORTS = {"http": 80, "https": 443}
_UNRESERVED = "A-Za-z0-9._~-"
_PARTS = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]*\]|[^:\[\]]*)(?::([0-9]{0,5}))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
"""RFC 1123, section 2.1, and the underscore, which containers have in their names."""
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A host whose last label is one is an IPv4 address to browsers and to ``inet_aton``, never a name."""
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
_HIDING = re.compile(r"%(25)*(2[EF]|5C|[01][0-9A-F]|7F)", re.IGNORECASE)
"""A slash, backslash, control character, or the dot left by escaping twice: no path needs them escaped, and
servers that decode before they look read another path."""
_OVERLONG = re.compile(r"%(25)*(C[01]|E0%(25)*[89][0-9A-F]|F0%(25)*8[0-9A-F])", re.IGNORECASE)
"""How no character begins in UTF-8 (RFC 3629, sections 3 and 4): lenient servers read a dot or slash."""
_PARAMETERS = re.compile(r";|%(?:25)*3B", re.IGNORECASE)
"""Where the parameters of a segment begin (RFC 3986, section 3.3). Java's servlet containers take them off
before they look for dot segments, so that ``..;`` is ``..`` to them."""
_PATH_SAFE = "/!$&'()*+,;=:@%"
"""What may stand unescaped in a path: pchar and slash (RFC 3986, section 3.3). Percent signs are checked."""
_QUERY_SAFE = _PATH_SAFE + "?"


@dataclass(frozen=True, slots=True)
class Url:
    """A normalised http or https URL. ``host`` is ASCII in lower case, an IPv6 address in brackets.

    ``path`` begins with a slash; ``query`` is empty or begins with a question mark.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str = ""

    @property
    def origin(self) -> str:
        """``scheme://host``, with the port if it is not the scheme's own (RFC 6454, section 6.2)."""
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}"

    @property
    def address(self) -> Address | None:
        """The host, if it is an address."""
        return read_address(self.host.strip("[]"))

    def __str__(self) -> str:
        return f"{self.origin}{self.path}{self.query}"


def normalise(text: str) -> Url:
    """Read a URL into its one spelling; the fragment, which no server sees, is dropped.

    Raises ValueError with words that can be shown.
    """
    if len(text) > MAX_URL:
        raise ValueError(f"the URL is longer than {MAX_URL} characters")
    if any(c.isspace() or c < " " or c == "\x7f" for c in text):
        raise ValueError("the URL holds a blank or a control character; escape it as in %20")
    if "\\" in text:
        raise ValueError("the URL holds a backslash")
    parts = _PARTS.fullmatch(text)
    if parts is None:
        raise ValueError("the URL must begin with https:// or http:// and a host")
    scheme = parts[1].lower()
    host, port = _authority(parts[2], _PORTS[scheme])
    url = Url(scheme, host, port, _path(parts[3]), _query(parts[4] or ""))
    if len(str(url)) > MAX_URL:
        raise ValueError(f"the URL, once escaped, is longer than {MAX_URL} characters")
    return url


def join(base: Url, reference: str) -> Url:
    """Where ``reference``, as in ``Location``, leads from ``base`` (RFC 3986, section 5.2).

    Raises ValueError as :func:`normalise`.
    """
    if len(reference) > MAX_URL or "\\" in reference or not reference.isprintable() or " " in reference:
        raise ValueError("the reference is too long, or holds a blank, control character or backslash")
    return normalise(urljoin(str(base), reference))


def _authority(text: str, default_port: int) -> tuple[str, int]:
    if "@" in text:
        raise ValueError("the URL holds a user name or password")
    match = _AUTHORITY.fullmatch(text)
    if match is None or "%" in match[1]:
        raise ValueError("the host or port of the URL is malformed")
    port = int(match[2]) if match[2] else default_port
    if not 1 <= port <= 65535:
        raise ValueError("the port of the URL is not one of 1 to 65535")
    return _host(match[1]), port


def _host(text: str) -> str:
    if not text:
        raise ValueError("the URL names no host")
    if text.startswith("["):
        address = read_address(text[1:-1])
        if not isinstance(address, IPv6Address):
            raise ValueError("the IPv6 address of the URL is malformed")
        return f"[{address.compressed}]"
    host = text.lower() if text.isascii() else _to_ascii(text)
    labels = host.split(".")
    if len(host) > MAX_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("the host of the URL is not a host name")
    if _NUMBER.fullmatch(labels[-1]) and read_address(text) is None:
        raise ValueError("the host of the URL is a number; an address is written as 192.0.2.1")
    return host


def _to_ascii(text: str) -> str:
    """The host as DNS has it (IDNA 2008 after the mapping of UTS 46, as browsers do)."""
    try:
        return idna.encode(text[: MAX_HOST + 1], uts46=True, std3_rules=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        raise ValueError("the host of the URL is not an international domain name") from None


def _path(text: str) -> str:
    escaped = _escape(text, _PATH_SAFE)
    if _HIDING.search(escaped):
        raise ValueError("the path of the URL holds an escaped slash, backslash, dot or control character")
    if _OVERLONG.search(escaped):
        raise ValueError("the path of the URL holds an escaped byte that is not UTF-8")
    for raw, segment in zip(text.split("/"), escaped.split("/"), strict=True):
        if segment in {".", ".."} and raw != segment:
            raise ValueError("the path of the URL holds an escaped dot segment")
        if segment not in {".", ".."} and _PARAMETERS.split(segment, maxsplit=1)[0] in {".", ".."}:
            raise ValueError("the path of the URL holds a dot segment with a semicolon")
    return _without_dots(escaped)


def _query(text: str) -> str:
    return "?" + _escape(text[1:], _QUERY_SAFE) if text else ""


def _escape(text: str, safe: str) -> str:
    """Unreserved characters plain, ``safe`` ones as they come, all others escaped in upper case."""
    try:
        escaped = quote(text, safe=safe)
    except UnicodeEncodeError:
        raise ValueError("the URL holds half a character (a lone surrogate)") from None
    return _ESCAPE.sub(_one_escape, escaped)


def _one_escape(match: re.Match[str]) -> str:
    if match[1] is None:
        raise ValueError("the URL holds a percent sign that escapes nothing; write it as %25")
    character = chr(int(match[1], 16))
    return character if re.fullmatch(f"[{_UNRESERVED}]", character) else f"%{match[1].upper()}"


def _without_dots(path: str) -> str:
    """RFC 3986, section 5.2.4. An empty path becomes ``/`` (section 6.2.3)."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments and segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)


@dataclass(frozen=True, slots=True)
class Prefix:
    """All URLs of one origin whose path begins with ``path``.

    ``whole``: only whole segments count, so ``/orders`` takes in ``/orders`` and ``/orders/1``, but neither
    ``/orders-secret`` nor ``/orders;x``. What ends in a slash takes in all that is below.
    """

    origin: str
    path: str
    whole: bool = True

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """Read a prefix as an operator writes it. Raises ValueError."""
        if "?" in text or "#" in text:
            raise ValueError("must have no query and no fragment")
        url = normalise(text)
        return cls(url.origin, url.path)

    def covers(self, url: Url) -> bool:
        """Whether ``url`` lies in it, whatever its query."""
        if url.origin != self.origin or not url.path.startswith(self.path):
            return False
        rest = url.path[len(self.path) :]
        return not rest or not self.whole or self.path.endswith("/") or rest.startswith("/")

    def __str__(self) -> str:
        return f"{self.origin}{self.path}"


def covering(prefixes: Iterable[Prefix], url: Url) -> Prefix | None:
    """The first of ``prefixes`` that ``url`` lies in."""
    return next((prefix for prefix in prefixes if prefix.covers(url)), None)
