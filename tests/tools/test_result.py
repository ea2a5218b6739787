"""How much of a tool's result goes to the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_gemini.tools.result import MAX_DEPTH, bounded


def test_a_result_within_itself_is_an_error() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert bounded({"result": loop}, 256) == {"error": "the result is not JSON (ValueError)"}


def nested(levels: int, kind: str = "list") -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = {"list": [value], "tuple": (value,), "dict": {"a": value}}[kind]
    return value


@pytest.mark.parametrize("kind", ["list", "tuple", "dict"])
def test_what_is_nested_too_deeply_goes_on_as_text(kind: str) -> None:
    """The response is a level of its own."""
    just = {"result": nested(MAX_DEPTH - 1, kind)}
    assert bounded(just, 1024) is just
    for value in (nested(MAX_DEPTH, kind), [1, {}, nested(MAX_DEPTH, kind), "y"]):
        assert bounded({"result": value}, 1024) == {"result": json.dumps(value)}


def test_deep_text_is_bounded() -> None:
    value = nested(40, "dict")  # escaped as text it grows past what it fits as structure
    whole = {"result": value}
    assert size(whole) < 300 < size({"result": json.dumps(value)})
    response = bounded(whole, 300)
    assert json.dumps(value).startswith(response["result"])
    assert response["note"].startswith("cut: the first ")
    assert 290 <= size(response) <= 300


@pytest.mark.parametrize("levels", [100, 500, 100_000])
def test_no_depth_is_too_much(levels: int) -> None:
    value = nested(levels)
    assert bounded({"result": value}, 1 << 20) in (
        {"result": "[" * levels + '"x"' + "]" * levels},
        {"error": "the result is nested too deeply"},
    )


def size(response: Mapping[str, Any]) -> int:
    return len(json.dumps(response, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"))


def test_what_just_fits_is_left_alone() -> None:
    for value in ("x" * (256 - size({"result": ""})), {"a": "y" * (256 - size({"result": {"a": ""}}))}):
        response = {"result": value}
        assert size(response) == 256
        assert bounded(response, 256) is response
        assert size(bounded({"result": [value, 1]}, 256)) <= 256


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text(), inner, max_size=30),
)
long_text = st.text(st.sampled_from('a"\\\n\0ä€😀\ud800'), min_size=30, max_size=600)


@given(
    json_values | long_text | st.lists(long_text),
    st.sampled_from(["result", "error"]),
    st.integers(256, 1024),
)
def test_every_result_fits_and_is_the_beginning_of_itself(value: Any, kind: str, limit: int) -> None:
    whole = {kind: value}
    response = bounded(whole, limit)
    assert size(response) <= limit
    if size(whole) <= limit:
        assert response is whole
        return
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    kept = response[kind]
    assert said.startswith(kept)
    assert set(response) == {kind, "note"}
    if len(kept) < len(said):
        one_more = {kind: said[: len(kept) + 1], "note": response["note"]}
        assert size(one_more) > limit or size(response) > limit - 8, "no more is cut than must be"
