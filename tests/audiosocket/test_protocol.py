"""The AudioSocket wire: golden bytes, any chunking, everything a peer can get wrong."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ari_gemini.audiosocket.protocol import (
    DIGITS,
    HANGUP,
    RATES,
    Kind,
    Message,
    Parser,
    digit_of,
    encode,
    encode_audio,
    error_of,
)
from ari_gemini.errors import AudioSocketError

GOLDEN = Path(__file__).parent / "golden"
UUID_PAYLOAD = bytes.fromhex("00112233445566778899aabbccddeeff")
UUID = b"\x01\x00\x10" + UUID_PAYLOAD

# file -> kinds and payload lengths that come out, kinds skipped, messages skipped, what the fault says
GOOD: dict[str, tuple[list[tuple[int, int]], int, int]] = {
    "call_8k": ([(1, 16), (16, 320), (16, 320), (3, 1), (16, 320), (0, 0)], 0, 0),
    "all_rates": (
        [
            *[(1, 16), (16, 320), (17, 480), (18, 640), (19, 960)],
            *[(20, 1280), (21, 1764), (22, 1920), (23, 3840), (24, 7680)],
        ],
        0,
        0,
    ),
    "unknown_kinds": ([(1, 16), (16, 320), (3, 1)], 5, 0),
    "oversize": ([(1, 16), (16, 65534), (16, 2)], 0, 0),
    "oversize_unknown": ([(1, 16), (16, 320)], 1, 0),
    "error": ([(1, 16), (16, 320), (255, 1)], 0, 0),
    "malformed": ([(1, 16), (3, 1), (3, 1), (16, 320)], 0, 4),
}
BAD: dict[str, tuple[list[tuple[int, int]], str]] = {
    "no_uuid": ([], "first message is of kind 0x10"),
    "http": ([], "first message is of kind 0x47"),
    "tls": ([], "first message is of kind 0x16"),
    "random": ([], "first message is of kind"),
    "uuid_short": ([], "a UUID of 15 bytes"),
    "uuid_long": ([], "a UUID of 36 bytes"),
    "uuid_twice": ([(1, 16), (16, 320)], "a second UUID"),
    "odd_audio": ([(1, 16), (16, 320)], "audio of 319 bytes"),
}


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.bin").read_bytes()


def shape(messages: list[Message]) -> list[tuple[int, int]]:
    return [(message.kind, len(message.payload)) for message in messages]


def feed_in(data: bytes, sizes: list[int]) -> tuple[list[Message], Parser]:
    """Feed ``data`` in pieces of these sizes, then the rest; stop at a fault."""
    parser, messages, at = Parser(), [], 0
    for size in [*sizes, len(data)]:
        if parser.fault is None:
            messages += parser.feed(data[at : at + size])
        at += size
    return messages, parser


def decode(data: bytes) -> list[tuple[int, bytes]]:
    """Read whole messages the simplest way: an independent witness."""
    found, at = [], 0
    while at + 3 <= len(data):
        kind, length = struct.unpack_from(">BH", data, at)
        if at + 3 + length > len(data):
            break
        found.append((kind, data[at + 3 : at + 3 + length]))
        at += 3 + length
    return found


def test_every_golden_file_is_tested() -> None:
    assert {path.stem for path in GOLDEN.glob("*.bin")} == {*GOOD, *BAD, "random_after_uuid"}


@pytest.mark.parametrize("name", GOOD)
def test_golden_good(name: str) -> None:
    expected, unknown, malformed = GOOD[name]
    messages, parser = feed_in(golden(name), [])
    assert shape(messages) == expected
    assert (parser.unknown, parser.malformed, parser.fault) == (unknown, malformed, None)
    assert parser.headers == len(expected) + unknown + malformed
    assert messages[0] == (Kind.UUID, UUID_PAYLOAD)


def test_golden_payloads_are_unchanged() -> None:
    messages, _ = feed_in(golden("call_8k"), [])
    assert [(m.kind, m.payload) for m in messages] == decode(golden("call_8k"))
    assert struct.unpack_from("<3h", messages[1].payload) == (-2000, -1963, -1926)
    assert all(type(m.payload) is bytes for m in messages)


@pytest.mark.parametrize("name", ["call_8k", "unknown_kinds", "error", "malformed"])
def test_golden_truncated_at_every_offset(name: str) -> None:
    data = golden(name)
    whole, _ = feed_in(data, [])
    complete = 0
    for cut in range(len(data) + 1):
        parser = Parser()
        before = parser.feed(data[:cut])
        assert parser.fault is None
        assert before == whole[: len(before)]
        assert len(before) >= complete
        complete = len(before)
        assert before + parser.feed(data[cut:]) == whole


@pytest.mark.parametrize("name", ["call_8k", "unknown_kinds", "malformed"])
def test_golden_byte_by_byte(name: str) -> None:
    whole, at_once = feed_in(golden(name), [])
    pieces, parser = feed_in(golden(name), [1] * len(golden(name)))
    assert pieces == whole
    assert (parser.unknown, parser.malformed, parser.headers) == (
        at_once.unknown,
        at_once.malformed,
        at_once.headers,
    )


@pytest.mark.parametrize("name", BAD)
def test_golden_bad(name: str) -> None:
    expected, says = BAD[name]
    for sizes in ([], [1] * len(golden(name)), [7] * 60):
        messages, parser = feed_in(golden(name), sizes)
        assert shape(messages) == expected
        assert isinstance(parser.fault, AudioSocketError)
        assert says in str(parser.fault)
        with pytest.raises(AudioSocketError, match=says):
            parser.feed(UUID)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x10", "first message is of kind 0x10"),
        (b"\x00", "first message is of kind 0x00"),
        (b"\x01\x00\x0f", "a UUID of 15 bytes"),
        (UUID + b"\x01", "a second UUID"),
        (UUID + b"\x12\x00\x01", "audio of 1 bytes"),
    ],
)
def test_fault_is_seen_at_the_first_byte_that_shows_it(data: bytes, says: str) -> None:
    parser = Parser()
    parser.feed(data[:-1])
    assert parser.fault is None
    parser.feed(data[-1:])
    assert says in str(parser.fault)


def test_nothing_is_said_about_no_bytes() -> None:
    parser = Parser()
    assert parser.feed(b"") == []
    assert parser.feed(UUID) == [(Kind.UUID, UUID_PAYLOAD)]
    assert parser.feed(b"") == []


def test_whole_message_after_a_half_one_is_not_taken_for_its_own() -> None:
    whole = encode_audio(b"\x01\x02" * 160, 8000)
    parser = Parser()
    parser.feed(UUID)
    assert parser.feed(whole[:2]) == []
    assert parser.feed(whole[2:] + whole) == [(16, whole[3:]), (16, whole[3:])]
    # the payload of an unknown kind looks like a whole message
    assert parser.feed(b"\x44" + len(whole).to_bytes(2, "big")) == []
    assert parser.feed(whole) == []
    assert parser.feed(whole) == [(16, whole[3:])]


def test_unknown_payload_is_not_kept() -> None:
    parser = Parser()
    parser.feed(UUID)
    half = bytes(30_000)
    tracemalloc.start()
    try:
        for _ in range(50):
            parser.feed(b"\x42\xff\xff")
            parser.feed(half)
            parser.feed(half)
            parser.feed(bytes(65535 - 2 * len(half)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert parser.unknown == 50
    assert peak < 4 * len(half)


messages_st = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(sorted(RATES)),
            st.integers(1, 400).map(lambda n: bytes(i & 0xFF for i in range(2 * n))),
        ),
        st.tuples(st.just(3), st.sampled_from(DIGITS).map(str.encode)),
        st.tuples(st.sampled_from([2, 4, 15, 25, 128, 254]), st.binary(max_size=40)),
        st.tuples(st.just(255), st.binary(max_size=2)),
        st.tuples(st.just(0), st.just(b"")),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(messages_st, st.lists(st.integers(0, 900), max_size=40))
def test_any_chunking_gives_the_same_messages(sent: list[tuple[int, bytes]], sizes: list[int]) -> None:
    data = UUID + b"".join(struct.pack(">BH", kind, len(body)) + body for kind, body in sent)
    messages, parser = feed_in(data, sizes)
    known = {*RATES, 0, 3, 255}
    assert messages == [(1, UUID_PAYLOAD)] + [message for message in sent if message[0] in known]
    assert parser.unknown == sum(kind not in known for kind, _ in sent)
    assert parser.fault is None
    assert parser.headers == 1 + len(sent)


@settings(max_examples=200, deadline=None)
@given(st.booleans(), st.binary(max_size=600), st.lists(st.integers(1, 50), max_size=30))
def test_any_garbage_gives_the_same_whatever_the_chunking(
    identified: bool, noise: bytes, sizes: list[int]
) -> None:
    data = UUID + noise if identified else noise
    (at_once, one), (pieces, other) = feed_in(data, []), feed_in(data, sizes)
    assert pieces == at_once
    assert str(other.fault) == str(one.fault)
    assert (other.unknown, other.malformed, other.headers) == (one.unknown, one.malformed, one.headers)
    assert len(at_once) + one.unknown + one.malformed == one.headers


def test_golden_random_after_uuid() -> None:
    data = golden("random_after_uuid")
    messages, parser = feed_in(data, [11] * 100)
    read = decode(data)[: parser.headers]
    assert parser.headers >= 1
    assert messages == [
        (kind, body)
        for kind, body in read
        if kind in {0, 1, 255} or (kind in RATES and body) or (kind == 3 and digit_of(body))
    ]


# Towards Asterisk.


def test_hangup_is_three_zero_bytes() -> None:
    assert encode(Kind.HANGUP) == HANGUP == b"\x00\x00\x00"
    with pytest.raises(ValueError, match="no payload"):
        encode(Kind.HANGUP, b"\x01")


@pytest.mark.parametrize(
    ("rate", "kind"),
    [
        (8000, 0x10),
        (12000, 0x11),
        (16000, 0x12),
        (24000, 0x13),
        (32000, 0x14),
        (44100, 0x15),
        (48000, 0x16),
        (96000, 0x17),
        (192000, 0x18),
    ],
)
def test_audio_kinds(rate: int, kind: int) -> None:
    pcm = bytes(range(100))
    assert encode_audio(pcm, rate) == bytes([kind, 0, 100]) + pcm == encode(kind, pcm)
    assert RATES[kind] == rate


def test_only_hangup_and_audio_can_be_sent() -> None:
    for kind in set(range(256)) - {0} - set(RATES):
        with pytest.raises(ValueError, match="would end the call"):
            encode(kind, b"55")


@pytest.mark.parametrize("length", [0, 1, 319, 65535, 65536])
def test_audio_that_asterisk_cannot_take(length: int) -> None:
    with pytest.raises(ValueError, match=f"cannot hold {length} bytes"):
        encode_audio(bytes(length), 8000)


def test_audio_of_the_greatest_length() -> None:
    message = encode_audio(bytes(65534), 8000)
    assert message[:3] == b"\x10\xff\xfe"
    assert len(message) == 65537


def test_audio_of_a_rate_that_audiosocket_does_not_have() -> None:
    with pytest.raises(ValueError, match="11025"):
        encode_audio(b"\x00\x00", 11025)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(sorted(RATES.values())), st.integers(1, 2000).map(lambda n: bytes(2 * n)))
def test_what_is_encoded_can_be_parsed(rate: int, pcm: bytes) -> None:
    parser = Parser()
    parser.feed(UUID)
    [message] = parser.feed(encode_audio(pcm, rate))
    assert (RATES[message.kind], message.payload) == (rate, pcm)


# Payloads.


def test_digits() -> None:
    for digit in "0123456789*#ABCD":
        assert digit_of(digit.encode()) == digit
        assert digit_of(digit.lower().encode()) == digit
    for wrong in (b"", b"12", b"E", b" ", b"\x00", b"\xdf", b"\xff"):
        assert digit_of(wrong) is None


@pytest.mark.parametrize(
    ("payload", "code", "says"),
    [
        (b"\x01", 1, "hung up"),
        (b"\x02", 2, "forward"),
        (b"\x04", 4, "memory"),
        (b"\x09", 9, "unknown code 0x09"),
        (b"\x02\x00", 2, "forward"),
        (b"", None, "without a code"),
    ],
)
def test_error_codes(payload: bytes, code: int | None, says: str) -> None:
    found, text = error_of(payload)
    assert found == code
    assert says in text
