from __future__ import annotations

import base64
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ari_gemini.gemini.models import family_of
from ari_gemini.gemini.protocol import (
    AUDIO_STREAM_END,
    audio_prefix,
    dump,
    encode_audio,
    encode_client_content,
    encode_history,
    encode_text,
    encode_tool_results,
)
from ari_gemini.realtime.events import Speaker
from ari_gemini.realtime.functions import FunctionResult
from ari_gemini.realtime.session import HistoryTurn

Validated = Callable[..., dict[str, Any]]

CONTENT = '{"clientContent":{"turns":[{"role":"user","parts":[{"text":"Greet him."}]}],"turnComplete":true}}'
LIVE = "gemini-3.8-live"
LIVE_31 = "gemini-3.1-flash-live-preview"


def test_audio_as_it_goes_out() -> None:
    message = encode_audio(audio_prefix(16_000), b"\x01\x00\xff\xff\xfb\xef")
    assert message == b'{"realtimeInput":{"audio":{"mimeType":"audio/pcm;rate=16000","data":"AQD///vv"}}}'


@settings(deadline=None, max_examples=50)
@given(pcm=st.binary(max_size=1000), rate=st.sampled_from([8000, 16000]))
def test_audio_is_json_with_standard_base64(pcm: bytes, rate: int) -> None:
    blob = {"mimeType": f"audio/pcm;rate={rate}", "data": base64.b64encode(pcm).decode()}
    assert json.loads(encode_audio(audio_prefix(rate), pcm)) == {"realtimeInput": {"audio": blob}}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (AUDIO_STREAM_END, '{"realtimeInput":{"audioStreamEnd":true}}'),
        (encode_text('Grüß "den" Anrufer'), '{"realtimeInput":{"text":"Grüß \\"den\\" Anrufer"}}'),
        (encode_text("half \ud83d"), '{"realtimeInput":{"text":"half ?"}}'),
        (
            encode_client_content("Greet him."),
            CONTENT,
        ),
    ],
)
def test_messages_as_they_go_out(message: bytes, expected: str, validated: Validated) -> None:
    assert message.decode() == expected
    validated(message)


def test_audio_is_valid(validated: Validated) -> None:
    validated(encode_audio(audio_prefix(16_000), bytes(640)))
    validated(encode_audio(audio_prefix(8_000), b""))


HISTORY = [
    HistoryTurn(Speaker.MODEL, "Hello."),
    HistoryTurn(Speaker.CALLER, "My number"),
    HistoryTurn(Speaker.CALLER, 'is "12".'),
    HistoryTurn(Speaker.MODEL, "Thanks."),
]


@pytest.mark.parametrize(
    ("model", "complete"),
    [(LIVE, "false"), ("gemini-3.8-live-extended-thinking", "false"), (LIVE_31, "true")],
)
def test_history_as_it_goes_out(model: str, complete: str, validated: Validated) -> None:
    message = encode_history(family_of(model), HISTORY)
    assert message.decode() == (
        '{"clientContent":{"turns":['
        '{"role":"model","parts":[{"text":"Hello."}]},'
        '{"role":"user","parts":[{"text":"My number"},{"text":"is \\"12\\"."}]},'
        '{"role":"model","parts":[{"text":"Thanks."}]}],'
        f'"turnComplete":{complete}}}}}'
    )
    validated(message, model)


@given(st.lists(st.builds(HistoryTurn, st.sampled_from(Speaker), st.text(max_size=5))))
def test_no_role_of_a_history_follows_itself_and_no_word_is_lost(history: list[HistoryTurn]) -> None:
    turns = json.loads(encode_history(family_of(LIVE), history))["clientContent"]["turns"]
    roles = [turn["role"] for turn in turns]
    assert all(one != other for one, other in pairwise(roles))
    said = [(turn["role"], part["text"]) for turn in turns for part in turn["parts"]]
    names = {Speaker.MODEL: "model", Speaker.CALLER: "user"}
    assert said == [(names[turn.speaker], turn.text) for turn in history]


def test_tool_results_as_they_go_out(validated: Validated) -> None:
    results = [
        FunctionResult("call_1", "transfer_call", {"output": {"ok": True}}, "when_idle"),
        FunctionResult("call_2", "api_call", {"temperature": -3.5, "city": None}),
        FunctionResult("", "look_around", {"error": "nobody"}, "silent"),
    ]
    message = encode_tool_results(family_of(LIVE), results)
    assert message.decode() == (
        '{"toolResponse":{"functionResponses":['
        '{"id":"call_1","name":"transfer_call","response":{"output":{"ok":true},"scheduling":"WHEN_IDLE"},'
        '"scheduling":"WHEN_IDLE"},'
        '{"id":"call_2","name":"api_call","response":{"temperature":-3.5,"city":null}},'
        '{"name":"look_around","response":{"error":"nobody","scheduling":"SILENT"},"scheduling":"SILENT"}]}}'
    )
    validated(message)


@pytest.mark.parametrize("model", [LIVE_31, "gemini-3.8-live-extended-thinking", "gemini-4-live"])
def test_scheduling_is_left_out_where_it_would_close_the_session(model: str) -> None:
    message = encode_tool_results(family_of(model), [FunctionResult("c", "do", {"output": 1}, "interrupt")])
    assert b"scheduling" not in message


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), object(), {1, 2}, b"bytes"])
def test_a_result_that_is_not_json_becomes_an_error(bad: object, validated: Validated) -> None:
    results = [FunctionResult("c", "do", {"output": [bad]}), FunctionResult("d", "well", {"output": 1})]
    message = validated(encode_tool_results(family_of(LIVE), results))
    first, second = message["toolResponse"]["functionResponses"]
    assert first["id"] == "c"
    assert first["response"]["error"].startswith("the result of do is not JSON (")
    assert second["response"] == {"output": 1}


def test_a_result_without_end_becomes_an_error() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    message = json.loads(encode_tool_results(family_of(LIVE), [FunctionResult("c", "do", endless)]))
    assert "error" in message["toolResponse"]["functionResponses"][0]["response"]


def test_the_given_result_is_left_as_it_was() -> None:
    response = {"output": 1}
    encode_tool_results(family_of(LIVE), [FunctionResult("c", "do", response, "silent")])
    assert response == {"output": 1}


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(st.characters(), max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.text(st.characters(), max_size=5), JSON, max_size=3))
def test_any_result_goes_out_as_valid_json(response: dict[str, Any]) -> None:
    message = encode_tool_results(family_of(LIVE), [FunctionResult("c", "do", response)])

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(message.decode(), parse_constant=refuse)


def test_dump_refuses_what_json_cannot_hold() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump({"x": float("nan")})
