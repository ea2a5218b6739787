"""References resolved or refused; arguments held against their schema, in words a model can act on."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from ari_gemini.errors import ConfigError, ToolError
from ari_gemini.gemini.functions import to_gemini_schema
from ari_gemini.tools import schema as schema_module
from ari_gemini.tools.schema import MAX_WORDS, ArgumentCheck, declarable, inlined


def complaint(parameters: dict[str, Any] | None, args: dict[str, Any]) -> str:
    with pytest.raises(ToolError) as caught:
        ArgumentCheck(parameters)(args)
    return str(caught.value)


def refusal(schema: Any, **options: bool) -> str:
    with pytest.raises(ConfigError) as caught:
        inlined(schema, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Line(BaseModel):
    article: str
    count: Annotated[int, Field(ge=1, le=9)] = 1


class Order(BaseModel):
    lines: list[Line]
    first: Annotated[Line | None, Field(description="what is urgent")] = None
    speed: Literal["slow", "fast"] = "slow"


# -- inlined ---------------------------------------------------------------------------------------------


def test_what_pydantic_writes_becomes_what_gemini_can_say() -> None:
    schema = Order.model_json_schema()
    assert "$ref" in json.dumps(schema)
    result = inlined(schema)
    assert "$ref" not in json.dumps(result)
    assert "$defs" not in result
    assert result["properties"]["lines"]["items"]["properties"]["count"]["maximum"] == 9
    said = to_gemini_schema(result, "order")
    assert said["properties"]["first"]["nullable"] is True
    assert said["properties"]["first"]["description"] == "what is urgent"


def test_the_schema_given_is_left_alone() -> None:
    schema = Order.model_json_schema()
    before = json.dumps(schema)
    inlined(schema)
    assert json.dumps(schema) == before


def test_all_of_one_member_is_merged_and_words_beside_it_win() -> None:
    schema = {
        "$defs": {"A": {"type": "string", "description": "an A", "maxLength": 3}},
        "type": "object",
        "properties": {"a": {"allOf": [{"$ref": "#/$defs/A"}], "description": "this one", "default": "x"}},
    }
    assert inlined(schema)["properties"]["a"] == {
        "type": "string",
        "description": "this one",
        "maxLength": 3,
        "default": "x",
    }


def test_a_rule_said_twice_is_refused_rather_than_lost() -> None:
    schema = {
        "definitions": {"A": {"maxLength": 3}},
        "properties": {"a": {"$ref": "#/definitions/A", "maxLength": 5}},
    }
    assert refusal(schema) == "a: maxLength is said twice, by what is referred to and beside it"


def test_names_are_not_taken_for_keywords_nor_data_for_schemas() -> None:
    schema = {
        "type": "object",
        "properties": {
            "$ref": {"type": "string"},
            "pattern": {"type": "string"},
            "$defs": {"type": "integer"},
        },
        "default": {"$ref": "#/nowhere"},
        "examples": [{"allOf": [{}]}],
    }
    assert inlined(schema, patterns=False) == schema


def test_a_pointer_may_be_escaped() -> None:
    schema = {"$defs": {"a/b~c d": {"type": "null"}}, "items": {"$ref": "#/$defs/a~1b~0c%20d"}}
    assert inlined(schema) == {"items": {"type": "null"}}


def test_patterns_of_strangers_become_words() -> None:
    schema = {"properties": {"id": {"type": "string", "pattern": "^[A-Z]+$", "description": "number"}}}
    assert inlined(schema, patterns=False) == {
        "properties": {"id": {"type": "string", "description": "number (matches ^[A-Z]+$)"}}
    }
    assert inlined(schema) == schema


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (
            {"$defs": {"T": {"properties": {"next": {"$ref": "#/$defs/T"}}}}, "$ref": "#/$defs/T"},
            "contains itself",
        ),
        ({"$ref": "#"}, "must begin with #/"),
        ({"$ref": "https://example.org/s.json"}, "stay in its schema"),
        ({"$ref": "other.json#/x"}, "stay in its schema"),
        ({"$ref": 5}, "stay in its schema"),
        ({"$ref": "#/$defs/X"}, "names nothing"),
        ({"items": {"$dynamicRef": "#x"}}, "items: $dynamicRef is not understood"),
        ({"items": 5}, "items: neither an object"),
        ({"anyOf": {}}, "anyOf: not a list"),
        ({"anyOf": "ab"}, "anyOf: not a list"),
        ({"properties": []}, "properties: not an object"),
        ({"type": "text"}, "no JSON Schema at type"),
        ({"properties": {"a": {"maximum": "5"}}}, "no JSON Schema at properties.a.maximum"),
        ({"pattern": "("}, "no JSON Schema at pattern"),
        ({"default": float("nan")}, "not JSON"),
        ({"default": object()}, "not JSON"),
        ({"description": "x" * 70_000}, "more than 65536"),
        (True, "no object"),
    ],
)
def test_what_is_refused_and_why(schema: Any, words: str) -> None:
    assert words in refusal(schema)


def test_depth_is_bounded() -> None:
    schema: dict[str, Any] = {}
    for _ in range(10_000):
        schema = {"items": schema}
    assert "nested deeper than 32" in refusal(schema)


def test_a_few_references_that_name_billions_are_stopped() -> None:
    defs = {f"D{i}": {"anyOf": [{"$ref": f"#/$defs/D{i + 1}"}] * 10} for i in range(12)}
    assert "more than 2000 schemas" in refusal({"$defs": {**defs, "D12": {}}, "$ref": "#/$defs/D0"})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["#/$defs/a", "object"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "$ref",
                    "$defs",
                    "a",
                    "allOf",
                    "anyOf",
                    "items",
                    "properties",
                    "type",
                    "pattern",
                    "required",
                    "not",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["$defs", "properties", "allOf", "type", "$ref", "items"]), JSON, max_size=4
    )
)
def test_whatever_comes_is_inlined_or_refused(schema: dict[str, Any]) -> None:
    try:
        result = inlined(schema, patterns=False)
        parameters = declarable(result)
    except ConfigError:
        return
    if parameters is not None:
        to_gemini_schema(parameters, "f")
        ArgumentCheck(parameters)


KINDS = st.sampled_from(["object", "string", "integer", "null"])
RANDOM_SCHEMAS = st.recursive(
    st.just({}) | st.builds(lambda kind: {"type": kind}, KINDS | st.lists(KINDS, max_size=3)),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": KINDS | st.lists(KINDS, min_size=1, max_size=3, unique=True),
            "properties": st.dictionaries(st.sampled_from(["a", "b"]), inner | st.booleans(), max_size=2),
            "required": st.lists(st.sampled_from(["a", "b"]), max_size=2),
            "items": inner | st.booleans(),
            "anyOf": st.lists(inner, max_size=3),
            "oneOf": st.lists(inner, max_size=3),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "nullable": st.booleans() | st.sampled_from([None, 0, "yes"]),
            "propertyOrdering": st.lists(st.sampled_from(["a", "b", 1]), max_size=2) | st.just("ab"),
        },
    ),
    max_leaves=6,
)


def own_keywords_are_right(said: Any) -> bool:
    """Whether every ``nullable`` and ``propertyOrdering`` in it has the type that the service wants."""
    order = said.get("propertyOrdering", [])
    children = [*said.get("properties", {}).values(), *said.get("anyOf", [])]
    children += [said["items"]] if "items" in said else []
    return (
        isinstance(said.get("nullable", False), bool)
        and isinstance(order, list)
        and all(isinstance(name, str) for name in order)
        and all(own_keywords_are_right(child) for child in children)
    )


@settings(deadline=None, max_examples=300)
@given(RANDOM_SCHEMAS)
def test_what_is_declarable_is_never_refused_later(one: dict[str, Any]) -> None:
    """A session whose setup is refused ends the call; a tool that is refused is only missing."""
    try:
        parameters = declarable(inlined({"type": "object", "properties": {"a": one}}))
    except ConfigError:
        return
    assert parameters is not None
    assert own_keywords_are_right(to_gemini_schema(parameters, "f"))


# -- declarable ------------------------------------------------------------------------------------------


def of_a(one: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": one}}


@pytest.mark.parametrize(
    "one",
    [
        {},
        {"type": ["string", "null"]},
        {"type": ["integer"]},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {"oneOf": [{"type": "null"}, {"type": "string"}, {"type": "integer"}]},
        {"type": "string", "nullable": True},
        {"type": "object", "properties": {"b": {}, "c": {}}, "propertyOrdering": ["c", "b"]},
    ],
)
def test_null_beside_one_type_and_the_declarations_own_keywords_pass(one: dict[str, Any]) -> None:
    assert declarable(of_a(one)) == of_a(one)
    to_gemini_schema(of_a(one), "f")


@pytest.mark.parametrize("schema", [{"type": "object"}, {"type": "object", "properties": {}}])
def test_no_properties_mean_no_parameters(schema: dict[str, Any]) -> None:
    assert declarable(schema) is None


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string"}, 'type must be "object"'),
        ({"type": "object", "not": {}}, "not cannot be said"),
        ({"type": "object", "properties": {"a": {"type": "array", "prefixItems": []}}}, "a: prefixItems"),
        ({"type": "object", "properties": {"a": {"type": ["string", "integer"]}}}, "a: more than one type"),
        ({"type": "object", "properties": {"a": True}}, "a: true and false"),
        ({"type": "object", "properties": {"a": {"items": False}}}, "a.items: true and false"),
        ({"type": "object", "properties": {"a": {"anyOf": [{"not": {}}]}}}, "a.anyOf: not"),
        ({"type": "object", "properties": {"a": {}}, "required": ["b"]}, "b is required"),
        ({"type": "null"}, "the top: no type besides null"),
        (of_a({"type": "null"}), "a: no type besides null"),
        (of_a({"type": ["null"]}), "a: no type besides null"),
        (of_a({"type": []}), "a: no type besides null"),
        (of_a({"items": {"type": "null"}}), "a.items: no type besides null"),
        (of_a({"type": ["string", "null", "integer"]}), "a: more than one type besides null"),
        (of_a({"anyOf": [{"type": "null"}]}), "a.anyOf: no type besides null"),
        (of_a({"oneOf": [{"type": "null"}, {"type": "null"}]}), "a.oneOf: no type besides null"),
        (of_a({"anyOf": [{"type": "string"}, {"type": ["null"]}]}), "a.anyOf: no type besides null"),
        (of_a({"type": "string", "nullable": "yes"}), "a: nullable must be true or false"),
        (of_a({"type": "string", "nullable": None}), "a: nullable must be true or false"),
        (of_a({"propertyOrdering": "ab"}), "a: propertyOrdering must be a list of names"),
        (of_a({"propertyOrdering": ["a", 1]}), "a: propertyOrdering must be a list of names"),
    ],
)
def test_what_no_declaration_can_say_is_refused(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        declarable(schema)


# -- ArgumentCheck -----------------------------------------------------------------------------------------

CHECKED = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 2, "maxLength": 20},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
        "unit": {"enum": ["C", "F"]},
        "code": {"type": "string", "pattern": "^[A-Z]{2}$"},
        "on": {"type": "string", "format": "date"},
        "who": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        "lines": {
            "type": "array",
            "maxItems": 2,
            "items": {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]},
        },
    },
    "required": ["city"],
}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({}, "city is missing"),
        ({"city": 5}, "city must be of type string"),
        ({"city": "x"}, "city must have at least 2 characters"),
        ({"city": "Ulm", "days": 8}, "days must be at most 7"),
        ({"city": "Ulm", "days": 1.5}, "days must be of type integer"),
        ({"city": "Ulm", "unit": "K"}, 'unit must be one of: "C", "F"'),
        ({"city": "Ulm", "code": "de"}, "code must match the pattern ^[A-Z]{2}$"),
        ({"city": "Ulm", "on": "tomorrow"}, "on must be a date"),
        ({"city": "Ulm", "who": []}, "who fits none of what is allowed there (of type integer or string)"),
        ({"city": "Ulm", "lines": [{"n": 1}, {}]}, "lines[1].n is missing"),
        ({"city": "Ulm", "lines": [{"n": 1}] * 3}, "lines must have at most 2 items"),
        ({"city": "Ulm", "town": 1}, "town is unknown (there are: city, days, unit, code, on, who, lines)"),
    ],
)
def test_each_mistake_is_named(args: dict[str, Any], words: str) -> None:
    assert complaint(CHECKED, args) == f"wrong arguments: {words}"


def test_what_fits_passes() -> None:
    ArgumentCheck(CHECKED)(
        {"city": "Ulm", "days": 5.0, "unit": "C", "on": "2026-01-31", "lines": [{"n": 1, "x": 2}]}
    )


def test_several_mistakes_are_told_at_once_but_not_all() -> None:
    text = complaint(CHECKED, {"days": 0, "unit": "", "code": "", "lines": 1})
    assert text.count(";") == 2


@pytest.mark.parametrize("parameters", [None, {"type": "object"}, {"type": "object", "properties": {}}])
def test_a_tool_without_parameters_takes_none(parameters: dict[str, Any] | None) -> None:
    ArgumentCheck(parameters)({})
    assert complaint(parameters, {"x": 1}) == "wrong arguments: x is unknown (there are: none)"


def test_unknown_arguments_pass_where_the_schema_says_so() -> None:
    ArgumentCheck({"type": "object", "additionalProperties": True})({"x": 1})
    extra = {"type": "object", "additionalProperties": {"type": "integer"}}
    ArgumentCheck(extra)({"x": 1})
    assert complaint(extra, {"x": "1"}) == "wrong arguments: x must be of type integer"


def test_long_values_and_names_are_not_repeated() -> None:
    secret = "4242" * 5000
    for args in (
        {"city": secret},
        {"city": "Ulm", "unit": secret},
        {"city": "Ulm", secret: 1},
        {"city": [secret]},
    ):
        text = complaint(CHECKED, args)
        assert len(text) <= MAX_WORDS
        assert "4242" * 20 not in text
    long = {"type": "object", "properties": {"a" * 300: {"enum": ["b" * 300] * 100}}}
    assert len(complaint(long, {"a" * 300: 1})) <= MAX_WORDS


def test_nothing_is_fetched() -> None:
    check = ArgumentCheck({"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/s.json"}}})
    with pytest.raises(ToolError, match="refers to nothing"):
        check({"a": 1})


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=5) | st.sampled_from(list(CHECKED["properties"])), JSON, max_size=5))  # type: ignore[call-overload]
def test_the_words_come_exactly_when_the_schema_is_broken(args: dict[str, Any]) -> None:
    witness = schema_module.Draft202012Validator({**CHECKED, "additionalProperties": False})
    fits = "on" not in args and witness.is_valid(args)
    if fits:
        ArgumentCheck(CHECKED)(args)
    elif "on" not in args:
        assert complaint(CHECKED, args).startswith("wrong arguments: ")
