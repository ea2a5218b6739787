from __future__ import annotations

from typing import Any

import pytest
from google.genai import types
from hypothesis import given, settings
from hypothesis import strategies as st

from ari_gemini.errors import Retry, SetupRefused
from ari_gemini.gemini.functions import NAME, to_gemini_schema


def test_an_object_as_pydantic_writes_it() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "title": "Transfer",
        "additionalProperties": False,
        "required": ["to"],
        "properties": {
            "to": {"type": "string", "description": "Extension", "pattern": "^[0-9]+$", "minLength": 1},
            "kind": {"type": "string", "enum": ["blind", "warm"], "default": "blind"},
            "fixed": {"const": "yes"},
            "level": {"type": "integer", "enum": [1, 2], "minimum": 1, "exclusiveMaximum": 3},
            "note": {
                "anyOf": [{"type": "string", "maxLength": 5, "description": "Words"}, {"type": "null"}],
                "description": "Why",
            },
            "maybe": {"type": ["string", "null"]},
            "either": {"oneOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
            "many": {"type": "array", "items": {"type": "number", "format": "double"}, "maxItems": 3},
            "site": {"type": "string", "format": "uri"},
            "free": {"type": "object", "properties": {}},
        },
    }
    assert to_gemini_schema(schema, "tool transfer") == {
        "type": "OBJECT",
        "title": "Transfer",
        "required": ["to"],
        "properties": {
            "to": {"type": "STRING", "description": "Extension", "pattern": "^[0-9]+$", "minLength": 1},
            "kind": {"type": "STRING", "enum": ["blind", "warm"], "default": "blind"},
            "fixed": {"enum": ["yes"]},
            "level": {"type": "INTEGER", "minimum": 1},
            "note": {"type": "STRING", "maxLength": 5, "nullable": True, "description": "Why"},
            "maybe": {"type": "STRING", "nullable": True},
            "either": {"anyOf": [{"type": "STRING"}, {"type": "INTEGER"}], "nullable": True},
            "many": {"type": "ARRAY", "items": {"type": "NUMBER", "format": "double"}, "maxItems": 3},
            "site": {"type": "STRING"},
            "free": {"type": "OBJECT"},
        },
    }


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"$ref": "#/$defs/x"}, r"tool t: \$ref cannot be said"),
        ({"properties": {"a": {"allOf": []}}}, r"tool t\.a: allOf cannot be said"),
        ({"properties": {"a": {"items": {"not": {}}}}}, r"tool t\.a\[\]: not cannot be said"),
        ({"anyOf": [{"if": {}}, {"type": "string"}]}, "tool t: if cannot be said"),
        ({"type": ["string", "integer"]}, "tool t: a Gemini function parameter has exactly one type"),
        ({"type": []}, "exactly one type"),
        ({"anyOf": [{"type": "null"}]}, "must have a type besides null"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(SetupRefused, match=why) as caught:
        to_gemini_schema(schema, "tool t")
    assert caught.value.retry is Retry.NO


def test_a_loop_is_refused() -> None:
    schema: dict[str, Any] = {"type": "array"}
    schema["items"] = schema
    with pytest.raises(SetupRefused, match="nested deeper than 32"):
        to_gemini_schema(schema, "tool t")


@pytest.mark.parametrize("name", ["a", "_", "Send.DTMF:now-2", "x" * 128])
def test_names(name: str) -> None:
    assert NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "1a", "a b", "é", "x" * 129, "a\n"])
def test_bad_names(name: str) -> None:
    assert not NAME.fullmatch(name)


LEAF = st.fixed_dictionaries(
    {"type": st.sampled_from(["string", "integer", "number", "boolean", ["string", "null"]])},
    optional={
        "description": st.text(max_size=5),
        "enum": st.lists(st.one_of(st.text(max_size=3), st.integers()), max_size=3),
        "const": st.one_of(st.text(max_size=3), st.integers(), st.none()),
        "format": st.sampled_from(["date-time", "uri", "int32"]),
        "minLength": st.integers(0, 5),
        "examples": st.just(["x"]),
        "x-extension": st.integers(),
    },
)
SCHEMAS = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(st.text(max_size=3), inner, max_size=3)}
        ),
        st.builds(
            lambda variants, null: {"anyOf": [*variants, *null]},
            st.lists(inner, min_size=1, max_size=3),
            st.sampled_from([[], [{"type": "null"}]]),
        ),
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=100)
@given(SCHEMAS)
def test_whatever_comes_out_is_a_schema_to_the_official_client(schema: dict[str, Any]) -> None:
    types.Schema.model_validate(to_gemini_schema(schema, "tool t"))
