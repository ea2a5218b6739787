"""Records of calls: what goes in comes out, whatever else is in the bytes is one kind of error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from support.states import HANDLE, TOKEN, state

from ari_gemini.errors import StateError
from ari_gemini.realtime.events import FunctionCall, Speaker
from ari_gemini.realtime.functions import FunctionResult
from ari_gemini.realtime.session import HistoryTurn, Resume
from ari_gemini.state.record import (
    MAX_BYTES,
    MAX_CHARS,
    MAX_TEXT,
    MAX_TURNS,
    VERSION,
    CallState,
    decode,
    encode,
    fingerprint,
)

words = st.text(max_size=40)
numbers = st.integers(-(2**53), 2**53)
moments = st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | moments | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(words, values, max_size=3)
states = st.builds(
    CallState,
    call_id=st.text(min_size=1, max_size=60),
    agent=words,
    caller_number=words,
    caller_name=words,
    called_number=words,
    values=st.dictionaries(words, words, max_size=4),
    started_at=moments,
    saved_at=moments,
    resume=st.none() | st.builds(Resume, words, st.none() | st.builds(SecretStr, words)),
    fingerprint=words,
    transcript=st.lists(
        st.builds(HistoryTurn, st.sampled_from(Speaker), words, st.booleans()), max_size=5
    ).map(tuple),
    open_calls=st.lists(st.builds(FunctionCall, words, words, objects), max_size=3).map(tuple),
    unconfirmed=st.lists(
        st.builds(FunctionResult, words, words, objects, st.none() | st.just("silent")), max_size=3
    ).map(tuple),
    budgets=st.dictionaries(words, numbers, max_size=3),
    greeted=st.booleans(),
    unanswered=st.booleans(),
)


@given(states)
def test_what_goes_in_comes_out(given_state: CallState) -> None:
    assert decode(encode(given_state)) == given_state


def test_types_come_out_as_the_session_takes_them() -> None:
    found = decode(encode(state()))
    assert found.resume == Resume(HANDLE, SecretStr(TOKEN))
    assert found.transcript[0] == HistoryTurn(Speaker.CALLER, "Grüezi")
    assert found.open_calls == (FunctionCall("1", "look_up", {"who": ["a", {"b": None}], "n": 1.5}),)
    assert found.unconfirmed == (FunctionResult("0", "look_up", {"result": True}, "when_idle"),)


def outcome(data: bytes) -> CallState | None:
    try:
        return decode(data)
    except StateError:
        return None


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    assert outcome(data) is None


@given(values)
def test_no_json_raises_anything_else(value: Any) -> None:
    assert outcome(json.dumps(value).encode()) is None


@given(st.sampled_from(sorted(CallState.model_fields)), values)
def test_no_value_of_a_field_raises_anything_else(field: str, value: Any) -> None:
    raw = json.loads(encode(state()))
    found = outcome(json.dumps(raw | {field: value}).encode())
    assert found is None or decode(encode(found)) == found


@given(states, st.data())
def test_no_damage_raises_anything_else(given_state: CallState, data: st.DataObject) -> None:
    whole = encode(given_state)
    assert outcome(whole[: data.draw(st.integers(0, len(whole) - 1))]) is None
    at = data.draw(st.integers(0, len(whole) - 1))
    found = outcome(whole[:at] + data.draw(st.binary(min_size=1, max_size=3)) + whole[at + 1 :])
    assert found is None or isinstance(found, CallState)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the record cannot be read: JSON: Invalid JSON: EOF while parsing a value at line 1 column 0"),
        (b"[]", "the record cannot be read: JSON: Input should be an object"),
        (b"{}", "the record cannot be read: call_id: Field required"),
        (b"[" * 100_000, "the record cannot be read: JSON: Invalid JSON: recursion limit exceeded"),
        (b" " * (MAX_BYTES + 1), f"the record is longer than {MAX_BYTES} bytes"),
    ],
    ids=["empty", "list", "object", "deep", "long"],
)
def test_what_is_wrong_is_said(data: bytes, said: str) -> None:
    with pytest.raises(StateError, match=f"^{said}"):
        decode(data)


def test_a_newer_record_is_refused_in_words_whatever_else_is_in_it() -> None:
    with pytest.raises(StateError) as refused:
        decode(json.dumps({"version": VERSION + 1, "agent": 7}).encode())
    assert str(refused.value) == (
        f"the record cannot be read: version: {VERSION + 1} was written by a newer release; "
        f"this one knows up to {VERSION}"
    )


def test_fields_of_a_later_release_are_passed_over() -> None:
    raw = json.loads(encode(state()))
    raw["resume"]["mood"] = raw["mood"] = "good"
    assert decode(json.dumps(raw).encode()) == state()


def test_nothing_private_is_shown() -> None:
    shown = repr(state()) + str(state()) + f"{state()}"
    assert "1700000000.1" in shown
    for private in (HANDLE, TOKEN, "4711", "Zoë", "Grüezi", "look_up", "17'"):
        assert private not in shown


def test_an_error_quotes_nothing() -> None:
    raw = json.loads(encode(state())) | {"resume": {"handle": [HANDLE]}, "values": {HANDLE: [TOKEN]}}
    with pytest.raises(StateError) as wrong:
        decode(json.dumps(raw).encode())
    assert HANDLE not in str(wrong.value)
    assert TOKEN not in str(wrong.value)
    assert wrong.value.__suppress_context__


def test_a_record_without_notes_is_of_spoken_words() -> None:
    raw = json.loads(encode(state()))
    for turn in raw["transcript"]:
        del turn["note"]
    assert [turn.note for turn in decode(json.dumps(raw).encode()).transcript] == [False, False]


def test_notes_stay_notes_when_they_are_cut() -> None:
    said = (HistoryTurn(Speaker.CALLER, "a" * (MAX_CHARS + 1), note=True),)
    assert [(len(turn.text), turn.note) for turn in state(transcript=said).transcript] == [(MAX_CHARS, True)]


def turns(count: int, text: str = "x") -> tuple[HistoryTurn, ...]:
    return tuple(HistoryTurn(Speaker.MODEL, f"{number}{text}") for number in range(count))


def test_the_oldest_turns_are_dropped() -> None:
    assert state(transcript=turns(MAX_TURNS + 3)).transcript == turns(MAX_TURNS + 3)[3:]


def test_the_oldest_characters_are_dropped_by_whole_turns() -> None:
    said = turns(3, "y" * (MAX_CHARS // 2 - 1))
    assert state(transcript=said).transcript == said[1:]
    assert sum(len(turn.text) for turn in said[1:]) == MAX_CHARS


def test_of_one_turn_too_long_the_end_is_kept() -> None:
    said = (*turns(1), HistoryTurn(Speaker.CALLER, "a" * MAX_CHARS + "z"))
    assert state(transcript=said).transcript == (HistoryTurn(Speaker.CALLER, "a" * (MAX_CHARS - 1) + "z"),)


def test_the_bounds_hold_for_what_is_read() -> None:
    raw = json.loads(encode(state()))
    raw["transcript"] = [{"speaker": "caller", "text": "x"}] * (MAX_TURNS + 1)
    assert len(decode(json.dumps(raw).encode()).transcript) == MAX_TURNS


def test_the_longest_transcript_takes_a_tenth_of_a_record() -> None:
    text = "\0" * (MAX_CHARS // MAX_TURNS)  # six bytes of JSON each
    assert len(encode(state(transcript=(HistoryTurn(Speaker.CALLER, text),) * MAX_TURNS))) < MAX_BYTES / 9


def test_what_strangers_write_is_cut_and_made_whole() -> None:
    lone = "\ud800"
    given_state = state(
        caller_name=lone + "n" * MAX_TEXT,
        values={"ORDER": lone},
        transcript=(HistoryTurn(Speaker.CALLER, lone),),
        open_calls=(FunctionCall(lone, "f", {lone: [lone]}),),
    )
    found = decode(encode(given_state))
    assert found.caller_name == "?" + "n" * (MAX_TEXT - 1)
    assert (found.values, found.transcript[0].text) == ({"ORDER": "?"}, "?")
    assert found.open_calls == (FunctionCall("?", "f", {"?": ["?"]}),)


@pytest.mark.parametrize(
    "response",
    [{"result": "x" * MAX_BYTES}, {"result": object()}, {"result": float("nan")}, {1: {2: {object(): 1}}}],
    ids=["long", "an object", "not a number", "a key"],
)
def test_what_cannot_be_kept_is_a_state_error(response: dict[str, Any]) -> None:
    with pytest.raises(StateError, match="the state"):
        encode(state(unconfirmed=(FunctionResult("1", "f", response),)))


def test_what_is_nested_without_end_is_a_state_error() -> None:
    deep: dict[str, Any] = {}
    deep["deep"] = deep
    with pytest.raises(StateError, match="no JSON"):
        encode(state(open_calls=(FunctionCall("1", "f", deep),)))


@pytest.mark.parametrize("moment", [float("nan"), float("inf"), "soon", None])
def test_a_moment_is_a_number(moment: object) -> None:
    with pytest.raises(ValidationError):
        state(saved_at=moment)


def test_a_fingerprint_differs_with_every_part() -> None:
    found = {fingerprint(*parts) for parts in [("a", "b"), ("ab",), ("a", "c"), ("b", "a"), ("a", "b", "")]}
    assert len(found) == 5
    assert fingerprint("a", "b") == fingerprint("a", "b")
    assert {len(each) for each in found} == {16}
