"""How a function is declared in Gemini's dialect: its name, and its parameters as the reference's Schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ari_gemini.errors import SetupRefused

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
"""FunctionDeclaration.name (ai.google.dev/api/caching#FunctionDeclaration)."""

_COPIED = frozenset(
    [
        *("title", "description", "nullable", "minItems", "maxItems", "minProperties", "maxProperties"),
        *("minLength", "maxLength", "minimum", "maximum", "pattern", "default", "required"),
        "propertyOrdering",
    ]
)
"""Keywords that mean the same in JSON Schema and in Gemini's Schema (ai.google.dev/api/caching#Schema)."""
_STRUCTURAL = frozenset(
    [
        *("$ref", "$dynamicRef", "allOf", "not", "if", "then", "else"),
        *("patternProperties", "prefixItems", "dependentSchemas"),
    ]
)
"""Keywords without a counterpart, whose loss would make it another function than the one meant."""
_FORMATS = frozenset(["enum", "date-time", "int32", "int64", "float", "double"])
"""Values of ``format`` that the service takes; any other is refused."""
_MAX_DEPTH = 32
"""Deeper schemas are a mistake (a loop), not a function a model could call."""


def to_gemini_schema(schema: Mapping[str, Any], where: str, depth: int = 0) -> dict[str, Any]:
    """Translate JSON Schema into the OpenAPI subset that Gemini calls Schema.

    Constraints that Gemini does not know are left out: whoever runs the function checks its arguments
    anyway. Raises SetupRefused, naming ``where``, when the structure itself cannot be said.
    """
    refused = sorted(_STRUCTURAL.intersection(schema))
    if refused:
        raise SetupRefused(f"{where}: {refused[0]} cannot be said in a Gemini function declaration")
    if depth > _MAX_DEPTH:
        raise SetupRefused(f"{where}: nested deeper than {_MAX_DEPTH}")
    result = _type(schema, where) | _children(schema, where, depth)
    result.update({key: schema[key] for key in _COPIED.intersection(schema)})
    choices = [schema["const"]] if "const" in schema else schema.get("enum")
    if isinstance(choices, (list, tuple)) and choices and all(isinstance(choice, str) for choice in choices):
        result["enum"] = list(choices)
    if schema.get("format") in _FORMATS:
        result["format"] = schema["format"]
    return result


def _type(schema: Mapping[str, Any], where: str) -> dict[str, Any]:
    kinds = schema.get("type")
    if kinds is None:
        return {}
    if isinstance(kinds, str):
        kinds = [kinds]
    named = [kind for kind in kinds if kind != "null"]
    if len(named) != 1:
        raise SetupRefused(f"{where}: a Gemini function parameter has exactly one type, not {kinds}")
    return {"type": str(named[0]).upper()} | ({"nullable": True} if len(kinds) > 1 else {})


def _children(schema: Mapping[str, Any], where: str, depth: int) -> dict[str, Any]:
    children: dict[str, Any] = {}
    properties = schema.get("properties")
    if properties:  # an empty map is refused by the service
        children["properties"] = {
            name: to_gemini_schema(sub, f"{where}.{name}", depth + 1) for name, sub in properties.items()
        }
    if isinstance(schema.get("items"), Mapping):
        children["items"] = to_gemini_schema(schema["items"], f"{where}[]", depth + 1)
    variants = schema.get("anyOf") or schema.get("oneOf")
    if variants:
        children.update(_variants(variants, where, depth))
    return children


def _variants(variants: list[Mapping[str, Any]], where: str, depth: int) -> dict[str, Any]:
    """``anyOf`` without its null branch, which Gemini writes as ``nullable``."""
    real = [variant for variant in variants if variant.get("type") != "null"]
    if not real:
        raise SetupRefused(f"{where}: a Gemini function parameter must have a type besides null")
    nullable = {"nullable": True} if len(real) < len(variants) else {}
    if len(real) == 1:
        return to_gemini_schema(real[0], where, depth + 1) | nullable
    return {"anyOf": [to_gemini_schema(variant, where, depth + 1) for variant in real]} | nullable
