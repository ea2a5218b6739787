from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ari_gemini.tools.url import MAX_URL, Prefix, Url, covering, join, normalise


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("https://h", "https://h/"),
        ("HTTPS://API.Example.COM:443/A", "https://api.example.com/A"),
        ("http://h:80", "http://h/"),
        ("http://h:443/", "http://h:443/"),
        ("https://h:0443/", "https://h/"),
        ("https://h:/", "https://h/"),
        ("https://h?x", "https://h/?x"),
        ("https://h/?", "https://h/?"),
        ("https://h/a/./b/../c", "https://h/a/c"),
        ("https://h/a/..", "https://h/"),
        ("https://h/../../a", "https://h/a"),
        ("https://h/a/.", "https://h/a/"),
        ("https://h/a//b", "https://h/a//b"),
        ("https://h/%7Euser/%41%2d%5f", "https://h/~user/A-_"),
        ("https://h/%c3%bc", "https://h/%C3%BC"),
        ("https://h/ü?ä", "https://h/%C3%BC?%C3%A4"),
        ("https://h/a%20b?q=%2F..%5c", "https://h/a%20b?q=%2F..%5C"),
        ("https://h/{a}|?f[0]=^", "https://h/%7Ba%7D%7C?f%5B0%5D=%5E"),
        ("https://h/a;b=1,2:@!$&'()*+=", "https://h/a;b=1,2:@!$&'()*+="),
        ("https://h/a;../..b;x/...;/;..%3b", "https://h/a;../..b;x/...;/;..%3B"),
        ("https://h/a;x/../b?..;/%C0", "https://h/b?..;/%C0"),
        ("https://h/ÀÁ/%e0%a0%80/%F0%90%80%80", "https://h/%C3%80%C3%81/%E0%A0%80/%F0%90%80%80"),
        ("https://h/x#f#g", "https://h/x"),
        ("https://my_api-1/", "https://my_api-1/"),
        ("https://straße.example/", "https://xn--strae-oqa.example/"),
        ("https://ＡＰＩ.example/", "https://api.example/"),
        ("https://bücher。example/", "https://xn--bcher-kva.example/"),
        ("https://1.2.3.4.example/", "https://1.2.3.4.example/"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/"),
        ("http://[::1]:8080/", "http://[::1]:8080/"),
        ("http://[2001:0DB8:0:0::0001]/", "http://[2001:db8::1]/"),
    ],
)
def test_one_spelling(text: str, spelling: str) -> None:
    assert str(normalise(text)) == spelling
    assert str(normalise(spelling)) == spelling


REFUSED = {
    "must begin with https:// or http://": [
        *("", "h", "//h/", "ftp://h/", "file:///etc/passwd", "gopher://h", "javascript:alert(1)", "https:/h"),
        *("https:h", "data:text/plain,x", "https//h", "xhttps://h/"),
    ],
    "names no host": ["https://", "https:///x", "https://:80/", "https://?x"],
    "user name or password": ["https://u@h/", "https://u:p@h/", "https://@h/", "https://good.example@evil/"],
    "backslash": ["https://h\\@evil/", "https://h/\\..\\x", "https:\\\\h\\"],
    "blank or a control character": [
        *(
            "https://h/a b",
            " https://h/",
            "https://h/\r\nX-Evil: 1",
            "https://h/\t",
            "https://h/\0",
            "https://h\n",
        ),
        *("https://h/\x7f", "https://h/\u00a0", "https://h/\u2028", "https://h/?q=a b", "https://h /"),
    ],
    "is a number": [
        *("https://2130706433/", "https://017700000001/", "https://0x7f000001/", "https://0x7f.1/"),
        *("https://0177.0.0.1/", "https://127.1/", "https://127.0.1/", "https://0/", "https://1.2.3.4.5/"),
        *(
            "https://256.1.1.1/",
            "https://127.0.0.0x1/",
            "https://0x/",
            "https://127.0.0.01/",
            "https://08.8.8.8/",
        ),
        *("https://１２７.0.0.1/", "https://127。0。0。1/", "https://①②⑦.0.0.1/", "https://0X7F.1/"),
    ],
    "is not a host name": [
        *(
            "https://h./",
            "https://h../",
            "https://.h/",
            "https://a..b/",
            "https://127.0.0.1./",
            "https://-h/",
        ),
        *(
            "https://h-/",
            "https://h*/",
            "https://h,evil/",
            "https://h;x/",
            "https://h!/",
            f"https://{'a' * 64}/",
        ),
        *("https://" + "a." * 127 + "a/", "https://h'/", 'https://"h"/', "https://<h>/"),
    ],
    "host or port of the URL is malformed": [
        *("https://h:x/", "https://h:1:2/", "https://h:-1/", "https://h:٣/", "https://[::1/", "https://::1/"),
        *("https://[fe80::1%25eth0]/", "https://[fe80::1%eth0]/", "https://[v1.x]/", "https://h%2ecom/"),
        *("https://%31%32%37.0.0.1/", "https://[::1]x/", "https://h:000443/", "https://[[::1]]/"),
    ],
    "IPv6 address of the URL is malformed": ["https://[]/", "https://[127.0.0.1]/", "https://[1:2]/"],
    "port of the URL is not one": ["https://h:0/", "https://h:65536/", "https://h:99999/"],
    "international domain name": ["https://☃️\u200d.example/", "https://ä..b/", "https://\u0301x.example/"],
    "escapes nothing": ["https://h/%", "https://h/%4", "https://h/%zz", "https://h/?%", "https://h/%%41"],
    "escaped slash, backslash, dot or control": [
        *("https://h/a%2Fb", "https://h/a%2f..%2fb", "https://h/a%5Cb", "https://h/a%00", "https://h/%0d%0a"),
        *(
            "https://h/%252e%252e/x",
            "https://h/%25252e/",
            "https://h/a%252Fb",
            "https://h/%255c",
            "https://h/%7f",
        ),
        *("https://h/%25%32%65/", "https://h/%25%32%46"),
    ],
    "escaped dot segment": ["https://h/%2e%2e/x", "https://h/%2E/", "https://h/a/.%2e", "https://h/%2e."],
    "dot segment with a semicolon": [
        *(
            "https://h/stock/..;/admin",
            "https://h/stock/%2e%2e;/admin",
            "https://h/..%3B",
            "https://h/..%3bx/a",
        ),
        *(
            "https://h/a/.;",
            "https://h/a/%2E;x=1/b",
            "https://h/a/..;/..",
            "https://h/..;a;b",
            "https://h/.%253b",
        ),
    ],
    "escaped byte that is not UTF-8": [
        *("https://h/%C0%AE%C0%AE/x", "https://h/%c0%af", "https://h/a%C1%9C", "https://h/a%25c0%25ae"),
        *("https://h/%E0%80%AF", "https://h/%f0%80%80%af", "https://h/%c1"),
    ],
    "half a character": ["https://h/\ud800", "https://h/?\udfff"],
    "longer than": ["https://h/" + "a" * MAX_URL, "https://h/" + "ü" * 500],
}


@pytest.mark.parametrize(("why", "text"), [(why, text) for why, texts in REFUSED.items() for text in texts])
def test_refused_in_words(why: str, text: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        normalise(text)
    assert type(caught.value) is ValueError
    assert len(str(caught.value)) < 120, "no URL is repeated"


def test_the_longest_url() -> None:
    assert len(str(normalise("https://h/" + "a" * (MAX_URL - 10)))) == MAX_URL


@pytest.mark.parametrize(
    ("prefix", "inside", "outside"),
    [
        (
            "https://h/orders",
            ["/orders", "/orders/", "/orders/1", "/orders?x", "/x/../orders", "/orders/../orders/1"],
            [
                "/orders-secret",
                "/orders;x",
                "/orders.json",
                "/Orders",
                "/",
                "/order",
                "/orders/../x",
                "//orders",
            ],
        ),
        ("https://h/orders/", ["/orders/", "/orders/1", "/orders//x"], ["/orders", "/orders?x", "/x"]),
        ("https://h", ["", "/", "/any/thing", "?x", ":443/"], [":444/", ".evil/", "x/"]),
        ("https://h:8443/a", [":8443/a"], ["/a", ":443/a"]),
    ],
)
def test_prefixes(prefix: str, inside: list[str], outside: list[str]) -> None:
    parsed = Prefix.parse(prefix)
    for rest in inside:
        assert parsed.covers(normalise(f"https://h{rest}")), rest
    for rest in outside:
        assert not parsed.covers(normalise(f"https://h{rest}")), rest
    for other in ("http://h", "https://g", "https://h.h", "https://xh"):
        assert not parsed.covers(normalise(other + parsed.path))


def test_the_first_prefix_that_covers() -> None:
    prefixes = [Prefix.parse("https://h/a"), Prefix.parse("https://h"), Prefix.parse("http://h")]
    assert covering(prefixes, normalise("https://h/a/b")) is prefixes[0]
    assert covering(prefixes, normalise("https://h/b")) is prefixes[1]
    assert covering(prefixes, normalise("https://g/b")) is None
    assert str(prefixes[1]) == "https://h/"


@pytest.mark.parametrize("text", ["https://h/?x", "https://h/#x", "h", "https://u@h", "https://127.1/"])
def test_what_is_no_prefix(text: str) -> None:
    with pytest.raises(ValueError, match=r"must have no query|must begin|user name|is a number"):
        Prefix.parse(text)


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("/x?y#z", "https://h:8/x?y"),
        ("x", "https://h:8/a/x"),
        ("../../x", "https://h:8/x"),
        ("?q", "https://h:8/a/b?q"),
        ("", "https://h:8/a/b?p"),
        ("//g/x", "https://g/x"),
        ("http://h:8/x", "http://h:8/x"),
        ("HTTPS://H:8/ü", "https://h:8/%C3%BC"),
    ],
)
def test_references(reference: str, target: str) -> None:
    assert str(join(normalise("https://h:8/a/b?p"), reference)) == target


@pytest.mark.parametrize(
    "reference",
    [
        *(
            "/\\evil/",
            "\\\\evil\\x",
            "/a b",
            "/a\r\nb",
            "\thttps://g/",
            "/\x00",
            "javascript:x",
            "https://u@h/",
        ),
        *("https://[::1/", "/%2e%2e/", "http://127.1/", "/\udc80", "x" * 3000, "//h:99999/"),
    ],
)
def test_refused_references(reference: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        join(normalise("https://h/a"), reference)


URLISH = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *(
                    "/",
                    ".",
                    "..",
                    "//",
                    "?",
                    "#",
                    "%2e",
                    "%2F",
                    "%25",
                    "%41",
                    "%",
                    ":",
                    "@",
                    "[",
                    "]",
                    "\\",
                    "ü",
                ),
                *(
                    "%252e",
                    "%3b",
                    "%C0",
                    ";",
                    "&",
                    "=",
                    " ",
                    "h",
                    "example.com",
                    "127.0.0.1",
                    "0x7f",
                    "::1",
                    "443",
                    "\u3002",
                ),
            ]
        ),
        st.characters(),
    ),
    max_size=12,
).map("".join)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(["https://", "http://", "HTTPS://", "https://h/", "https://h/a/"]), URLISH)
@example("https://h/", "a/%2e")
def test_normalise_is_idempotent_and_clean(scheme: str, rest: str) -> None:
    try:
        url = normalise(scheme + rest)
    except ValueError:
        return
    text = str(url)
    assert normalise(text) == url
    assert text.isascii()
    assert text.isprintable()
    assert not set(' "<>\\^`{|}#') & set(text)
    assert not {".", ".."} & {re.split(";|%3B", segment)[0] for segment in url.path.split("/")}
    assert not {"%C0", "%C1"} & set(re.findall("%..", url.path))
    assert url.origin + url.path + url.query == text
    assert Prefix(url.origin, url.path).covers(url)


@settings(deadline=None, max_examples=300)
@given(URLISH)
def test_a_covered_url_never_has_another_origin_or_a_way_up(rest: str) -> None:
    prefix = Prefix.parse("https://h/a")
    for join_or_read in (
        lambda: normalise("https://h/a" + rest),
        lambda: join(Url("https", "h", 443, "/a"), rest),
    ):
        with contextlib.suppress(ValueError):
            url = join_or_read()
            if prefix.covers(url):
                assert str(url).startswith("https://h/a")
                assert str(url)[len("https://h/a") :][:1] in {"", "/", "?"}
                assert ".." not in url.path.split("/")
