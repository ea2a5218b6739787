from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ari_gemini.errors import MalformedMessage, Retry
from ari_gemini.gemini.values import audio_rate, decode_base64, parse_duration, parse_object


@settings(deadline=None, max_examples=200)
@given(
    data=st.binary(max_size=400),
    encode=st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]),
    padded=st.booleans(),
)
def test_either_alphabet_with_or_without_padding(data: bytes, encode: Any, padded: bool) -> None:
    text = encode(data).decode()
    assert decode_base64(text if padded else text.rstrip("=")) == data


def test_both_alphabets_in_one() -> None:
    assert decode_base64("_-/+") == decode_base64("/+/+") == b"\xff\xef\xfe"


@pytest.mark.parametrize(
    "text", ["A", "AAAAA", "AA=A", "A===", "AA*A", "AA A", "AAAA\n", "é", "\ud800", "=AAA"]
)
def test_what_is_no_base64(text: str) -> None:
    assert decode_base64(text) is None


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(), max_size=20))
def test_base64_never_raises(text: str) -> None:
    decoded = decode_base64(text)
    assert decoded is None or len(decoded) <= len(text)


@pytest.mark.parametrize(
    ("mime", "rate"),
    [
        ("audio/pcm;rate=24000", 24000),
        ("audio/pcm", 24000),
        ("audio/pcm;", 24000),
        ("Audio/PCM; Rate=16000", 16000),
        ("audio/pcm;channels=1;rate=8000", 8000),
        ('audio/pcm;rate="48000"', 48000),
        ("audio/pcm;rate = 24000", 24000),
        ("audio/pcm;rate=0", None),
        ("audio/pcm;rate=", None),
        ("audio/pcm;rate=-1", None),
        ("audio/pcm;rate=24k", None),
        ("audio/pcm;rate=1000000", None),
        ("audio/pcm;rate=٢٤٠٠٠", None),
        ("audio/opus", None),
        ("image/jpeg", None),
        ("", None),
    ],
)
def test_rates(mime: str, rate: int | None) -> None:
    assert audio_rate(mime) == rate


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("50s", 50.0),
        ("0s", 0.0),
        ("1.5s", 1.5),
        ("1.880s", 1.88),
        ("0.000000001s", 1e-9),
        ("-1s", None),
        ("5", None),
        ("s", None),
        (".5s", None),
        ("1e3s", None),
        ("50s\n", None),
        ("9999999999s", None),
        ("", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


def test_objects_of_either_kind() -> None:
    assert parse_object('{"a":"é"}') == parse_object('{"a":"é"}'.encode()) == {"a": "é"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'{"a":"\ud83d\ude00"}', "😀"),
        (r'{"a":"\ud83d"}', "?"),
        (r'{"a":"\uDE00\uD83D"}', "??"),
        (r'{"a":"\\ud83d"}', r"\ud83d"),
        (r'{"a":["\ud83d",{"b\ude00":NaN}]}', None),
    ],
)
def test_half_surrogates_do_not_get_in(text: str, value: str | None) -> None:
    parsed = parse_object(text)
    str(parsed).encode()
    if value is not None:
        assert parsed["a"] == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe{}",
        b'{"a":"\xff"}',
        b"[]",
        b"1",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' + b"9" * 10_000 + b"}",
    ],
    ids=lambda data: f"{len(data)} bytes {data[:8]!r}",
)
def test_what_is_no_object(data: bytes) -> None:
    with pytest.raises(MalformedMessage) as caught:
        parse_object(data)
    assert caught.value.retry is Retry.RESUME
    assert len(str(caught.value)) < 100, "the frame is not repeated"
