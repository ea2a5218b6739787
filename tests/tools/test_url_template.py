from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ari_gemini.tools.url import normalise
from ari_gemini.tools.url_template import UrlTemplate


@pytest.mark.parametrize(
    ("text", "values", "query", "url"),
    [
        ("https://H/orders/{id}", {"id": "47-11"}, [], "https://h/orders/47-11"),
        ("https://h/orders/{id}", {"id": "a b?c#d%&=ü"}, [], "https://h/orders/a%20b%3Fc%23d%25%26%3D%C3%BC"),
        ("https://h/a-{x}.json", {"x": "1"}, [], "https://h/a-1.json"),
        ("https://h/{x}/{y}", {"x": "...", "y": "~"}, [], "https://h/.../~"),
        ("https://h/{x}{y}", {"x": "1", "y": "2"}, [("k", "")], "https://h/12?k="),
        ("https://h/s?q={q}", {"q": "a&b=c/..\\\r\n#"}, [], "https://h/s?q=a%26b%3Dc%2F..%5C%0D%0A%23"),
        ("https://h/s?q={q}&l=de", {"q": ""}, [("a", "1"), ("b&", "=")], "https://h/s?q=&l=de&a=1&b%26=%3D"),
        ("https://h?q={q}", {"q": "1"}, [], "https://h/?q=1"),
        ("https://h/x", {}, [("k", "v")], "https://h/x?k=v"),
        ("https://h/x?", {}, [("k", "v")], "https://h/x?k=v"),
        ("https://h/x", {}, [], "https://h/x"),
        ("http://127.0.0.1:8080/{x}", {"x": "{x}"}, [], "http://127.0.0.1:8080/%7Bx%7D"),
    ],
)
def test_filled(text: str, values: dict[str, str], query: list[tuple[str, str]], url: str) -> None:
    template = UrlTemplate.parse(text)
    assert template.names == set(values)
    assert str(template.fill(values, query)) == url


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("https://{h}/", "never in scheme, host or port"),
        ("https://h{x}/", "never in scheme, host or port"),
        ("https://h.{x}", "never in scheme, host or port"),
        ("https://h:{p}/", "never in scheme, host or port"),
        ("https://{u}@h/", "never in scheme, host or port"),
        ("{s}://h/", "must begin with"),
        ("{url}", "must begin with"),
        ("https://h/{x", "a brace that is no"),
        ("https://h/{}", "a brace that is no"),
        ("https://h/{a b}", "a brace that is no"),
        ("https://h/{{x}}", "a brace that is no"),
        ("https://h/{x}#{y}", "no fragment"),
        ("https://h/%{x}", "escapes nothing"),
        ("https://h/%2{x}", "escapes nothing"),
        ("https://h/{x}/../y", "no dot segments"),
        ("https://h/a/../{x}", "no dot segments"),
        ("https://h/a/..{x}", "no dot segments"),
        ("https://h/%2e%2e/{x}", "escaped dot segment"),
        ("https://h/{x}%2F", "escaped slash"),
        ("https://u@h/{x}", "user name"),
        ("https://127.1/{x}", "is a number"),
        ("https://h/{x} y", "blank"),
    ],
)
def test_what_is_no_template(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        UrlTemplate.parse(text)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "x must not be empty"),
        (".", "x must not be a dot"),
        ("..", "x must not be a dot"),
        ("a/b", "x must hold no slash"),
        ("../b", "x must hold no slash"),
        ("a\\b", "x must hold no slash"),
        ("a\r\nHost: evil", "x must hold no slash, backslash or control"),
        ("a\0", "control"),
        ("\x7f", "control"),
        ("%2e%2e", "escaped"),
        ("%2F", "escaped"),
        ("%00", "escaped"),
        ("\ud800", "half a character"),
        ("a" * 3000, "longer than"),
    ],
)
def test_refused_values_of_the_path(value: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        UrlTemplate.parse("https://h/a/{x}/b").fill({"x": value})


def test_dots_made_of_several_values() -> None:
    with pytest.raises(ValueError, match="x and y must not be a dot"):
        UrlTemplate.parse("https://h/a/{x}{y}").fill({"x": ".", "y": "."})
    with pytest.raises(ValueError, match="must not be a dot"):
        UrlTemplate.parse("https://h/a/{x}.").fill({"x": "."})


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("https://h/orders/{id}", ["/orders/2", "/orders/2/x"], ["/orders", "/x", ":8/orders/2"]),
        ("https://h/v-{id}", ["/v-2", "/v-2/x"], ["/v", "/w-2"]),
        ("https://h/search?q={q}", ["/search", "/search?x", "/search/x"], ["/search2", "/"]),
        ("https://h/status", ["/status", "/status/x"], ["/status2", "/"]),
    ],
)
def test_where_redirects_may_lead(text: str, inside: list[str], outside: list[str]) -> None:
    prefix = UrlTemplate.parse(text).prefix
    assert [rest for rest in inside if not prefix.covers(normalise(f"https://h{rest}"))] == []
    assert [rest for rest in outside if prefix.covers(normalise(f"https://h{rest}"))] == []


VALUES = st.one_of(
    st.text(max_size=20),
    st.lists(
        st.sampled_from(
            ["..", ".", "/", "\\", "%", "2e", "2f", "25", "@", ":", "?", "#", "&", "\r\n", "ü", "a"]
        ),
        max_size=6,
    ).map("".join),
)
TEMPLATES = [
    "https://h/orders/{a}",
    "https://h/orders/{a}/lines/{b}?view={c}",
    "https://h/o-{a}{b}.json?{c}",
    "https://h/s?q={a}&r={b}&{c}=1",
    "https://h/{a}/x-{b}/?c={c}",
]


@settings(deadline=None, max_examples=500)
@given(st.sampled_from(TEMPLATES), VALUES, VALUES, VALUES)
def test_a_filled_template_never_leaves_its_shape(text: str, a: str, b: str, c: str) -> None:
    template = UrlTemplate.parse(text)
    given_values = {"a": a, "b": b, "c": c}
    values = {name: given_values[name] for name in template.names}
    try:
        url = template.fill(values, [("extra", c)])
    except ValueError:
        return
    assert str(url).startswith(text[: text.index("{")])
    assert template.prefix.covers(url)
    assert url.origin == "https://h"
    raw_path = urlsplit(text).path
    # as many segments as the template, each with just the value in it, even to a server that decodes first
    expected = [
        re.sub(r"\{(\w+)\}", lambda place: given_values[place[1]], segment) for segment in raw_path.split("/")
    ]
    assert unquote(url.path).split("/") == expected
    assert not {".", ".."} & set(expected)
    assert dict(parse_qsl(url.query[1:], keep_blank_values=True, errors="strict"))["extra"] == c
