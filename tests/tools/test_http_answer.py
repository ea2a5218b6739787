from __future__ import annotations

import gzip
import json
import math
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from http_support import bomb

from ari_gemini.tools.http_answer import (
    _CHARSETS,
    CODING_OVERHEAD,
    EXACT_DIGITS,
    MAX_DEPTH,
    Answer,
    BoundedBody,
    UnreadableAnswer,
    follow,
    hide,
    is_text,
    media_type,
    read_answer,
    read_json,
    read_pointer,
)

JSON = "application/json"


def body(data: bytes, limit: int = 65_536) -> BoundedBody:
    made = BoundedBody(limit)
    made.feed(data)
    made.finish()
    return made


def said(
    data: bytes, content_type: str = JSON, limit: int = 65_536, secrets: list[str] | None = None
) -> Answer:
    return read_answer(200, content_type, body(data, limit), secrets or [])


# -- bytes --------


@pytest.mark.parametrize(("size", "cut"), [(0, False), (9, False), (10, False), (11, True), (99, True)])
@pytest.mark.parametrize("coding", ["", "identity", "gzip", "X-GZIP", " deflate "])
def test_a_limit_in_bytes_of_result(size: int, cut: bool, coding: str) -> None:
    data = b"x" * size
    packed = (
        zlib.compress(data)
        if "deflate" in coding
        else gzip.compress(data)
        if "zip" in coding.lower()
        else data
    )
    for step in (1, len(packed) or 1):
        taken = BoundedBody(10, coding)
        for at in range(0, len(packed), step):
            taken.feed(packed[at : at + step])
            if taken.cut:
                break
        taken.finish()
        assert bytes(taken.data) == data[:10]
        assert taken.cut is cut


def test_a_bomb_is_never_unpacked() -> None:
    """A gigabyte of zeros in a megabyte."""
    megabyte = bomb()
    assert len(megabyte) < 1_100_000
    taken = BoundedBody(65_536, "gzip")
    real, asked, made = taken._inflate, [], []

    class Counted:
        unused_data = b""

        def decompress(self, data: bytes, limit: int) -> bytes:
            result: bytes = real.decompress(data, limit)  # type: ignore[union-attr]
            asked.append(limit)
            made.append(len(result))
            return result

    taken._inflate = Counted()  # type: ignore[assignment]
    taken.feed(megabyte)
    assert taken.cut
    assert len(taken.data) == 65_536
    assert (asked, made) == ([65_537], [65_537])


def test_what_grows_to_nothing_is_cut_as_well() -> None:
    """Empty blocks: endless input without output."""
    packer = zlib.compressobj(wbits=31)
    taken = BoundedBody(1000, "gzip")
    taken.feed(packer.compress(b"") + packer.flush(zlib.Z_SYNC_FLUSH))
    fed = 0
    while not taken.cut and fed < 10_000:
        taken.feed(b"\x00\x00\x00\xff\xff" * 10)
        fed += 50
    assert taken.cut
    assert fed <= 1000 + CODING_OVERHEAD + 50
    assert taken.data == b""


def test_a_second_member_is_cut_off() -> None:
    taken = BoundedBody(1000, "gzip")
    taken.feed(gzip.compress(b"one") + gzip.compress(b"two"))
    assert (bytes(taken.data), taken.cut) == (b"one", True)


@pytest.mark.parametrize(
    "coding", ["br", "zstd", "gzip, gzip", "gzip,identity", "compress", "\x00", "aes128gcm"]
)
def test_unknown_codings(coding: str) -> None:
    with pytest.raises(UnreadableAnswer, match="unknown way"):
        BoundedBody(10, coding)


def test_broken_codings() -> None:
    taken = BoundedBody(100, "gzip")
    with pytest.raises(UnreadableAnswer, match="not compressed"):
        taken.feed(b"plain text")
    taken = BoundedBody(100, "gzip")
    taken.feed(gzip.compress(b"hello")[:-4])
    with pytest.raises(UnreadableAnswer, match="too early"):
        taken.finish()


# -- types and text --------


@pytest.mark.parametrize(
    ("content_type", "kind", "text"),
    [
        ("Application/JSON; charset=utf-8", "application/json", True),
        ("application/problem+json", "application/problem+json", True),
        ("application/atom+xml", "application/atom+xml", True),
        (" text/html;x", "text/html", True),
        ("application/x-www-form-urlencoded", "application/x-www-form-urlencoded", True),
        ("image/png", "image/png", False),
        ("application/octet-stream", "application/octet-stream", False),
        ("application/jsonp", "application/jsonp", False),
        ("", "", None),
        ("nonsense", "", None),
        ("\r\n/x", "", None),
        ("\udcff/\udcfe", "", None),
    ],
)
def test_media_types(content_type: str, kind: str, text: bool | None) -> None:
    assert media_type(content_type) == kind
    assert is_text(content_type) is text


@pytest.mark.parametrize(
    ("data", "content_type", "text"),
    [
        ("grüß".encode(), "text/plain", "grüß"),
        ("grüß".encode(), "text/plain; charset=UTF-8", "grüß"),
        (b"\xef\xbb\xbfx", "text/plain", "x"),
        ("grüß".encode("latin-1"), "text/plain;charset=ISO-8859-1", "grüß"),
        ("„5 €“".encode("cp1252"), 'text/html; a=b; Charset="windows-1252"', "„5 €“"),
        ("5 €".encode("iso8859-15"), "text/plain;charset='iso-8859-15'", "5 €"),
        ("grüß".encode("utf-16"), "text/plain; charset=utf-16", "grüß"),
        ("grüß".encode("utf-16-be"), "text/plain; charset=utf-16BE", "grüß"),
        ("grüß".encode("utf-16-le"), "text/plain; charset=utf-16", "grüß"),
        (b"\xfe\xff" + "grüß".encode("utf-16-be"), "text/plain; charset=utf-16", "grüß"),
        ("日本".encode("shift_jis"), "text/plain; charset=Shift_JIS", "日本"),
        (b"gr\xfc\xdf", "text/plain", "gr\ufffd\ufffd"),
        # codecs of Python that no charset may name
        (rb"\x41", "text/plain; charset=unicode_escape", r"\x41"),
        (b"xn--x", "text/plain; charset=idna", "xn--x"),
        (b"+ADw-", "text/plain; charset=utf-7", "+ADw-"),
        (b"414243", "text/plain; charset=hex", "414243"),
        (b"x", "text/plain; charset=" + "y" * 5000, "x"),
        (b"x", "text/plain; charset=\x00../../x", "x"),
        (b"x", "text/plain; charset=", "x"),
        (b"plain", "", "plain"),
        (b"plain", "nonsense", "plain"),
    ],
)
def test_text(data: bytes, content_type: str, text: str) -> None:
    assert said(data, content_type) == Answer(200, media_type(content_type), text)


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n", b"\x00\x01", b"\xff\xfe"])
def test_bytes_without_a_type(data: bytes) -> None:
    assert said(data, "").for_model() == {
        "status": 200,
        "note": f"the body is data of an unknown type of {len(data)} bytes, which is not text",
    }


def test_a_cut_is_told_and_falls_between_characters() -> None:
    data = b'{"a": "' + "ü".encode() * 10 + b'"}'
    assert said(data, limit=10).for_model() == {
        "status": 200,
        "body": '{"a": "ü',
        "note": "cut: only the first 10 bytes were read",
    }


def test_no_body() -> None:
    assert said(b"").for_model() == {"status": 200}


# -- JSON --------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 2.5, null, true, "x"]}', {"a": [1, 2.5, None, True, "x"]}),
        ('"text"', "text"),
        ("3", 3),
        ("false", False),
        ('{"id": 12345678901234567890}', {"id": "12345678901234567890"}),
        ("[-123456789012345, -1234567890123456]", [-123456789012345, "-1234567890123456"]),
        ("9" * 6000, "9" * 6000),
        ('{"a": 1, "a": 2}', {"a": 2}),
        ('"\\ud83d\\ude00"', "\U0001f600"),
    ],
)
def test_json_is_handed_on_as_json(text: str, value: Any) -> None:
    answer = said(text.encode())
    assert (answer.body, answer.parsed, answer.note) == (value, True, "")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "{",
            "{'a': 1}",
            "NaN",
            "[Infinity]",
            "[-Infinity]",
            "[1e999]",
            '"\\ud800"',
            '{"\\udc00": 1}',
            "1 2",
        ),
        *("[" * 100_000, "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), '{"a":' * 40 + "1" + "}" * 40),
    ],
)
def test_what_is_no_json_to_everybody_stays_text(text: str) -> None:
    answer = said(text.encode(), limit=1 << 20)
    assert (answer.body, answer.parsed) == (text, False)
    json.dumps(answer.for_model(), allow_nan=False).encode()


def test_depth_as_deep_as_it_may_be() -> None:
    assert said(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH).parsed


def test_text_is_not_taken_for_json() -> None:
    assert said(b"123", "text/plain").body == "123"
    assert said(b"123", "application/vnd.x+json").body == 123
    assert said(b'{"a": 1}', "").body == {"a": 1}


@settings(deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from([JSON, "", *(f"text/x; charset={name}" for name in _CHARSETS)]),
)
def test_whatever_comes_can_be_sent_on(data: bytes, content_type: str) -> None:
    made = said(data, content_type, limit=100).for_model()
    json.dumps(made, ensure_ascii=False, allow_nan=False).encode()


@settings(deadline=None)
@given(
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.floats(allow_nan=False, allow_infinity=False),
            st.integers(1 - 10**EXACT_DIGITS, 10**EXACT_DIGITS - 1),
            st.text(),
        ),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
        max_leaves=10,
    ),
    st.booleans(),
)
def test_json_keeps_its_meaning(value: Any, ascii_only: bool) -> None:
    assert read_json(json.dumps(value, ensure_ascii=ascii_only)) == value


# -- secrets --------


def test_a_secret_that_comes_back_is_hidden() -> None:
    echo = {"headers": {"Authorization": "Bearer s3cr3t/x"}, "s3cr3t/x": ["a s3cr3t/x b", 1, None]}
    for data in (
        json.dumps(echo),
        json.dumps(echo).replace("/", "\\/"),
        json.dumps(echo).replace("s", "\\u0073"),
    ):
        answer = said(data.encode(), secrets=["Bearer s3cr3t/x", "s3cr3t/x"])
        assert answer.body == {
            "headers": {"Authorization": "[secret]"},
            "[secret]": ["a [secret] b", 1, None],
        }
    assert said(b"you sent s3cr3t/x", "text/plain", secrets=["s3cr3t/x"]).body == "you sent [secret]"
    assert said(b"you sent s3cr3t/x, twice", limit=18, secrets=["s3cr3t/x"]).body == "you sent [secret],"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("you sent Bearer s3cr3t/xyz", "you sent [secret]"),
        ("you sent Bearer s3cr3t/xy", "you sent [secret]"),
        ("you sent Bearer s", "you sent [secret]"),
        ("you sent s3cr3t/xy", "you sent [secret]"),
        ("you sent s3cr3t", "you sent [secret]"),
        ("you sent s3cr3", "you sent s3cr3"),
        ("s3cr3t", "[secret]"),
        ("s3cr3t/x, it was", "s3cr3t/x, it was"),
        ("s3cr3t/xyz s3cr3t/x", "[secret] [secret]"),
        ("abcabcabcabc", "[secret]"),
        ("abcabcabcab", "[secret]"),
    ],
)
def test_a_secret_that_is_cut_is_hidden(text: str, shown: str) -> None:
    secrets = ["Bearer s3cr3t/xyz", "s3cr3t/xyz", "abcabcabcabc"]
    for data in (f"{text}!", f"{text}, and so on"):
        answer = said(data.encode(), "text/plain", limit=len(text), secrets=secrets)
        assert answer.body == shown
        assert answer.note == f"cut: only the first {len(text)} bytes were read"


def test_the_end_of_a_whole_answer_is_left_alone() -> None:
    assert said(b"you sent s3cr3t", "text/plain", secrets=["s3cr3t/x"]).body == "you sent s3cr3t"


def test_nothing_to_hide() -> None:
    value = {"a": [1.5, True]}
    assert hide(value, []) is value
    assert math.isnan(hide(math.nan, ["x"]))


# -- JSON pointers --------

DOCUMENT = {
    # RFC 6901, section 5
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", DOCUMENT),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
    ],
)
def test_pointers_that_hit(pointer: str, value: Any) -> None:
    assert follow(DOCUMENT, read_pointer(pointer)) == value


@pytest.mark.parametrize(
    "pointer",
    [
        "/x",
        "/foo/2",
        "/foo/-",
        "/foo/00",
        "/foo/-1",
        "/foo/1e0",
        "/foo/0/x",
        "/foo/٣",
        "//",
        "/foo/" + "9" * 30,
    ],
)
def test_pointers_that_miss(pointer: str) -> None:
    with pytest.raises(LookupError):
        follow(DOCUMENT, read_pointer(pointer))


@pytest.mark.parametrize("pointer", ["foo", "#/foo", "/~", "/~2", "/a/~"])
def test_what_is_no_pointer(pointer: str) -> None:
    with pytest.raises(ValueError, match="JSON pointer"):
        read_pointer(pointer)


def test_only_the_part_that_was_asked_for_leaves() -> None:
    answer = said(b'{"status": {"text": "sent"}, "card": "4111"}')
    assert answer.for_model(read_pointer("/status/text")) == {"status": 200, "body": "sent"}
    assert answer.for_model(read_pointer("/state")) == {
        "status": 200,
        "note": "the answer lacks the part that was asked for",
    }
    assert said(b"card 4111", "text/html").for_model(("x",)) == {
        "status": 200,
        "note": "the answer is not JSON",
    }
    assert said(b'{"card": "4111"}', limit=12).for_model(("card",)) == {
        "status": 200,
        "note": "cut: only the first 12 bytes were read",
    }
