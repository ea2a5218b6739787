from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ari_gemini.errors import MalformedMessage
from ari_gemini.gemini.decoder import Decoder
from ari_gemini.realtime.events import (
    AudioDelta,
    Event,
    GenerationComplete,
    Interrupted,
    Speaker,
    Transcript,
    TurnComplete,
    Usage,
)

LADDERS = [
    "gemini-3.8-live.ladder",
    "gemini-3.8-extended-thinking.ladder",
    "gemini-3.1-flash-live.ladder",
    "gemini-2.5-native-audio.ladder",
    "interruption.ladder",
    "farewell.ladder",
    "tolerated.ladder",
]


def show(event: Event) -> str:
    def plain(value: object) -> object:
        assert isinstance(value, bytes | Enum)
        return value.hex() if isinstance(value, bytes) else value.value

    fields = json.dumps(dataclasses.asdict(event), default=plain, ensure_ascii=False)
    return f"{type(event).__name__} {fields}".removesuffix(" {}")


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "text"])
@pytest.mark.parametrize("name", LADDERS)
def test_ladder(name: str, binary: bool, ladder: Callable[[str], list[Any]]) -> None:
    decoder = Decoder()
    rungs = ladder(name)
    for rung in rungs:
        before = dataclasses.asdict(decoder.counts)
        events = decoder.decode(rung.message.encode() if binary else rung.message)
        assert [show(event) for event in events] == rung.events, f"{name}:{rung.line}"
        added = {key: count - before[key] for key, count in dataclasses.asdict(decoder.counts).items()}
        assert {key: count for key, count in added.items() if count} == {"frames": 1} | rung.counts, rung.line
    assert decoder.counts.frames == len(rungs) > 5
    assert decoder.setup_complete is (name != "tolerated.ladder")


def test_malformed_ladder(ladder: Callable[[str], list[Any]]) -> None:
    decoder = Decoder()
    rungs = ladder("malformed.ladder")
    for rung in rungs:
        with pytest.raises(MalformedMessage):
            decoder.decode(rung.message.encode())
    assert len(rungs) > 10
    assert decoder.decode(b"{}") == [], "the decoder itself is none the worse"


@pytest.mark.parametrize("name", LADDERS)
def test_truncated_at_every_offset(name: str, ladder: Callable[[str], list[Any]]) -> None:
    for rung in ladder(name):
        data = rung.message.encode()
        for end in range(len(data)):
            with pytest.raises(MalformedMessage):
                Decoder().decode(data[:end])


def content(**fields: Any) -> str:
    return json.dumps({"serverContent": fields})


def turn(*chunks: bytes) -> dict[str, Any]:
    return {"parts": [{"inlineData": {"data": base64.b64encode(chunk).decode()}} for chunk in chunks]}


def test_everything_in_one_frame_comes_in_the_order_to_act_on() -> None:
    """Whatever the order of the keys, which in JSON means nothing."""
    fields: dict[str, Any] = {
        "turnComplete": True,
        "generationComplete": True,
        "outputTranscription": {"text": "out"},
        "modelTurn": turn(b"\1\0", b"\2\0"),
        "inputTranscription": {"text": "in"},
    }
    for names in (list(fields), list(reversed(fields))):
        message = {
            "usageMetadata": {"totalTokenCount": 1},
            "serverContent": {name: fields[name] for name in names},
        }
        assert Decoder().decode(json.dumps(message)) == [
            Transcript(Speaker.CALLER, "in"),
            AudioDelta(b"\1\0", 24000),
            AudioDelta(b"\2\0", 24000),
            Transcript(Speaker.MODEL, "out"),
            GenerationComplete(),
            TurnComplete(),
            Usage(total=1),
        ]


def test_an_interruption_comes_first_and_its_frame_has_no_sound() -> None:
    events = Decoder().decode(content(modelTurn=turn(b"\1\0"), turnComplete=True, interrupted=True))
    assert events == [Interrupted(), TurnComplete()]
    events = Decoder().decode(content(modelTurn=turn(b"\1\0"), interrupted=False))
    assert events == [AudioDelta(b"\1\0", 24000)]


def test_the_newest_handle_that_resumes_is_kept() -> None:
    decoder = Decoder("given")
    assert decoder.handle == "given"
    for update, handle in [
        ({"newHandle": "one", "resumable": True}, "one"),
        ({"newHandle": "two", "resumable": False}, "one"),
        ({"resumable": False}, "one"),
        ({}, "one"),
        ({"newHandle": "", "resumable": True}, "one"),
        ({"newHandle": "three", "resumable": True}, "three"),
    ]:
        decoder.decode(json.dumps({"sessionResumptionUpdate": update}))
        assert decoder.handle == handle


def test_unknown_keys_are_named_once_and_not_for_ever() -> None:
    decoder = Decoder()
    decoder.decode('{"new":1}')
    decoder.decode('{"serverContent":{"newer":1,"modelTurn":{"parts":[{"newest":1}]}}}')
    assert decoder.take_unknown() == ["new", "serverContent.newer", "part.newest"]
    decoder.decode('{"new":1}')
    assert decoder.take_unknown() == []
    for number in range(1000):
        decoder.decode(json.dumps({f"{number}" * 100: 1}))
    names = decoder.take_unknown()
    assert len(names) == 32 - 3
    assert max(map(len, names)) <= 80
    assert decoder.counts.unknown == 1004


@settings(deadline=None, max_examples=100)
@given(
    chunks=st.lists(st.binary(max_size=64), max_size=6),
    encode=st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]),
    padded=st.booleans(),
)
def test_all_sound_comes_out_but_half_samples(chunks: list[bytes], encode: Any, padded: bool) -> None:
    texts = [encode(chunk).decode() for chunk in chunks]
    parts = [{"inlineData": {"data": text if padded else text.rstrip("=")}} for text in texts]
    decoder = Decoder()
    events = decoder.decode(content(modelTurn={"parts": parts}))
    whole = [chunk[: len(chunk) // 2 * 2] for chunk in chunks]
    assert events == [AudioDelta(chunk, 24000) for chunk in whole if chunk]
    assert decoder.counts.malformed == sum(len(chunk) % 2 for chunk in chunks)


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters(), max_size=5),
        st.sampled_from(["audio/pcm;rate=24000", "AQA=", "5s", "ACTIVITY_START", "IDLE"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(
                st.sampled_from(
                    [
                        *(
                            "setupComplete",
                            "serverContent",
                            "modelTurn",
                            "parts",
                            "inlineData",
                            "data",
                            "text",
                        ),
                        *("mimeType", "thought", "interrupted", "turnComplete", "generationComplete"),
                        *("inputTranscription", "outputTranscription", "interactionStatus", "toolCall"),
                        *("functionCalls", "id", "name", "args", "toolCallCancellation", "ids", "goAway"),
                        *("timeLeft", "sessionResumptionUpdate", "newHandle", "resumable", "voiceActivity"),
                        *("type", "audioOffset", "usageMetadata", "totalTokenCount", "waitingForInput"),
                    ]
                ),
                st.text(max_size=3),
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=20,
)


def decode_or_refuse(data: bytes | str) -> list[Event]:
    try:
        return Decoder().decode(data)
    except MalformedMessage:
        return []


def check(events: list[Event]) -> None:
    """What the rest of the house may rely on."""
    for event in events:
        show(event).encode()
        if isinstance(event, AudioDelta):
            assert event.pcm
            assert len(event.pcm) % 2 == 0
            assert 4_000 <= event.rate <= 192_000


@settings(deadline=None, max_examples=300)
@given(JSON)
def test_any_json_is_decoded_or_refused(message: Any) -> None:
    data = json.dumps(message)
    check(decode_or_refuse(data))
    check(decode_or_refuse(data.encode()))
    if isinstance(message, dict):
        Decoder().decode(data)


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from(["serverContent", "toolCall", "goAway", "voiceActivity"]), JSON))
def test_wrong_types_in_known_messages_are_skipped(message: dict[str, Any]) -> None:
    check(Decoder().decode(json.dumps(message)))


@settings(deadline=None, max_examples=200)
@given(st.one_of(st.binary(max_size=50), st.text(st.characters(), max_size=50)))
def test_any_bytes_are_decoded_or_refused(data: bytes | str) -> None:
    check(decode_or_refuse(data))


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_mutated_messages_are_decoded_or_refused(data: st.DataObject) -> None:
    message = bytearray(content(modelTurn=turn(b"\1\0\2\0"), outputTranscription={"text": "\ud83d"}).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    check(decode_or_refuse(bytes(message)))
