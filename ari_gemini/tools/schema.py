"""JSON Schema (draft 2020-12) as tools use it: references resolved, arguments checked. Pure.

Function declarations know no ``$ref`` and only part of the other keywords; the arguments that a model sends
are held against the whole schema all the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from ari_gemini.errors import ConfigError, ToolError

TOOL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,127}")
"""What a model's function may be called: the rule of ai.google.dev/api/caching#FunctionDeclaration."""
MAX_DESCRIPTION = 4096
"""Characters of what a tool says of itself; the model pays for them with every turn."""
MAX_DEPTH = 32
"""Nested schemas; deeper is a mistake, not a function that a model could call."""
MAX_SCHEMAS = 2000
"""Schemas in one, references counted as what they name: a few short ones can name billions."""
MAX_BYTES = 65_536
"""Of JSON. Every declaration is paid for again with every turn of the model."""
MAX_MISTAKES = 3
"""That a model is told of at once."""
MAX_WORDS = 1000
"""Characters of one answer about wrong arguments."""
_MAX_SHOWN = 60
"""Characters of one value: enough to know it again, too few to repeat a page."""

_ONE = frozenset(
    [
        *("items", "contains", "additionalProperties", "unevaluatedItems", "unevaluatedProperties"),
        *("propertyNames", "not", "if", "then", "else"),
    ]
)
"""Keywords that hold a schema (json-schema.org/draft/2020-12/json-schema-core, section 10)."""
_LIST = frozenset(["anyOf", "oneOf", "allOf", "prefixItems"])
"""Keywords that hold a list of schemas."""
_MAP = frozenset(["properties", "patternProperties", "dependentSchemas"])
"""Keywords that hold schemas under names that are not keywords."""
_DROPPED = frozenset(["$defs", "definitions", "$schema", "$id", "$anchor", "$comment"])
"""What has no meaning left once the references are gone."""
_REMOTE = frozenset(["$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$vocabulary"])
_ANNOTATIONS = frozenset(
    ["title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"]
)
"""Keywords that check nothing: beside a reference they stand for those of what it names."""
_UNDECLARABLE = frozenset(
    [
        *("allOf", "not", "if", "then", "else", "patternProperties", "prefixItems"),
        *("dependentSchemas", "unevaluatedProperties", "unevaluatedItems"),
    ]
)
"""Keywords that no function declaration can say, and whose loss would declare another function."""

_Path = tuple[str, ...]


def inlined(schema: Mapping[str, Any], *, patterns: bool = True) -> dict[str, Any]:
    """A copy of ``schema`` that needs nothing but itself: local references replaced by what they name.

    An ``allOf`` of one member is merged with what stands beside it. ``patterns=False`` turns ``pattern`` into
    words of the description: whoever does not trust the schema must not run its regular expressions, which
    can take for ever on a short text. Raises ConfigError, saying where, for a reference that leads elsewhere,
    nowhere or back to itself, for what is no JSON Schema, and beyond the limits above.
    """
    result = _Inliner(schema, patterns).walk(schema, (), ())
    if not isinstance(result, dict):
        raise ConfigError("the schema is no object")
    try:
        size = len(json.dumps(result, allow_nan=False).encode())
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the schema is not JSON: {error}") from None
    if size > MAX_BYTES:
        raise ConfigError(f"the schema has {size} bytes, more than {MAX_BYTES}")
    try:
        Draft202012Validator.check_schema(result)
    except SchemaError as error:
        where = ".".join(str(part) for part in error.absolute_path) or "the top"
        raise ConfigError(f"no JSON Schema at {where}: {error.message[:200]}") from None
    return result


class _Inliner:
    """One use of :func:`inlined`."""

    def __init__(self, root: Mapping[str, Any], patterns: bool) -> None:
        self._root = root
        self._patterns = patterns
        self._count = 0

    def walk(self, schema: object, path: _Path, open_refs: tuple[str, ...]) -> Any:
        """``schema`` without references. ``open_refs``: those that led here."""
        self._count += 1
        if len(path) > MAX_DEPTH:
            raise _wrong(path, f"nested deeper than {MAX_DEPTH}")
        if self._count > MAX_SCHEMAS:
            raise _wrong(path, f"more than {MAX_SCHEMAS} schemas")
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, Mapping):
            raise _wrong(path, "neither an object nor true or false")
        if found := _REMOTE.intersection(schema):
            raise _wrong(path, f"{min(found)} is not understood")
        result = {
            key: self._value(key, value, path, open_refs) for key, value in schema.items() if _kept(key)
        }
        if not self._patterns and isinstance(pattern := result.pop("pattern", None), str):
            words = str(result.get("description", ""))
            result["description"] = f"{words} (matches {_short(pattern)})".strip()
        if "$ref" in result:
            result = self._follow(result.pop("$ref"), result, path, open_refs)
        members = result.get("allOf")
        if isinstance(members, list) and len(members) == 1 and isinstance(members[0], dict):
            del result["allOf"]
            result = _merged(members[0], result, path)
        return result

    def _value(self, key: str, value: Any, path: _Path, open_refs: tuple[str, ...]) -> Any:
        here = (*path, key)
        if key in _ONE:
            return self.walk(value, here, open_refs)
        if key in _LIST:
            if not isinstance(value, Sequence) or isinstance(value, str):
                raise _wrong(here, "not a list")
            return [self.walk(member, here, open_refs) for member in value]
        if key in _MAP:
            if not isinstance(value, Mapping):
                raise _wrong(here, "not an object")
            return {
                str(name): self.walk(member, (*path, str(name)), open_refs) for name, member in value.items()
            }
        return value

    def _follow(
        self, ref: object, beside: dict[str, Any], path: _Path, open_refs: tuple[str, ...]
    ) -> dict[str, Any]:
        if not isinstance(ref, str) or not ref.startswith("#/"):
            raise _wrong(path, "a $ref must begin with #/ and stay in its schema")
        if ref in open_refs:
            raise _wrong(path, f"{_short(ref)} contains itself, which a function declaration cannot")
        target = self.walk(self._target(ref, path), path, (*open_refs, ref))
        return _merged(target if isinstance(target, dict) else {}, beside, path)

    def _target(self, ref: str, path: _Path) -> object:
        """What a JSON pointer names (RFC 6901)."""
        found: Any = self._root
        for part in unquote(ref).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or key not in found:
                raise _wrong(path, f"{_short(ref)} names nothing")
            found = found[key]
        return found


def _kept(key: object) -> bool:
    """Whether a keyword still means something in a schema without references."""
    return key not in _DROPPED


def _merged(below: dict[str, Any], above: dict[str, Any], path: _Path) -> dict[str, Any]:
    """Two schemas that hold both. What cannot be said in one is refused rather than lost."""
    for key in below.keys() & above.keys():
        if key not in _ANNOTATIONS and below[key] != above[key]:
            raise _wrong(path, f"{key} is said twice, by what is referred to and beside it")
    return below | above


def _wrong(path: _Path, what: str) -> ConfigError:
    return ConfigError(f"{'.'.join(path)[-200:] or 'the top'}: {what}")


def declarable(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """An inlined ``schema`` of an object as FunctionDeclaration.parameters; None when it has no parameters.

    Raises ConfigError for what a function declaration cannot say.
    """
    _check_declarable(schema, ())
    if schema.get("type") != "object":
        raise ConfigError('the top: type must be "object"')
    return dict(schema) if schema.get("properties") else None


def _check_declarable(schema: Mapping[str, Any], path: _Path) -> None:
    if found := _UNDECLARABLE.intersection(schema):
        raise _wrong(path, f"{min(found)} cannot be said in a function declaration")
    _check_kinds(schema, path)
    _check_foreign(schema, path)
    properties = schema.get("properties", {})
    if missing := set(schema.get("required", ())).difference(properties):
        raise _wrong(path, f"{_short(min(missing))} is required and not among the properties")
    children = [*properties.items(), *(("items", schema[key]) for key in ("items",) if key in schema)]
    children += [(key, member) for key in ("anyOf", "oneOf") for member in _variants(schema, key, path)]
    for name, child in children:
        if not isinstance(child, Mapping):
            raise _wrong((*path, name), "true and false cannot be said in a function declaration")
        _check_declarable(child, (*path, name))


def _check_kinds(schema: Mapping[str, Any], path: _Path) -> None:
    kinds = schema.get("type")
    if kinds is None:
        return
    named = [kind for kind in ([kinds] if isinstance(kinds, str) else kinds) if kind != "null"]
    if len(named) != 1:
        raise _wrong(path, "more than one type besides null" if named else "no type besides null")


def _check_foreign(schema: Mapping[str, Any], path: _Path) -> None:
    """Keywords of the declaration's own (ai.google.dev/api/caching#Schema): JSON Schema checks none."""
    if not isinstance(schema.get("nullable", False), bool):
        raise _wrong(path, "nullable must be true or false")
    order = schema.get("propertyOrdering", [])
    if not isinstance(order, list) or not all(isinstance(name, str) for name in order):
        raise _wrong(path, "propertyOrdering must be a list of names")


def _variants(schema: Mapping[str, Any], key: str, path: _Path) -> list[Any]:
    """Those of ``anyOf`` or ``oneOf``, without a plain ``null``: it is said as ``nullable``."""
    variants = schema.get(key, ())
    real = [one for one in variants if not (isinstance(one, Mapping) and one.get("type") == "null")]
    if variants and not real:
        raise _wrong((*path, key), "no type besides null")
    return real


class ArgumentCheck:
    """Holds arguments against a tool's ``parameters``, compiled once. Nothing is ever fetched.

    None means: no arguments. An argument that ``properties`` does not name is refused, unless
    ``additionalProperties`` allows it in so many words: what a model made up would otherwise be ignored
    in silence. Further down JSON Schema's own rules hold.
    """

    def __init__(self, parameters: Mapping[str, Any] | None) -> None:
        schema: dict[str, Any] = {"type": "object", **(parameters or {})}
        schema.setdefault("properties", {})
        if not {"additionalProperties", "unevaluatedProperties", "$ref", "allOf", "patternProperties"} & set(
            schema
        ):
            schema["additionalProperties"] = False
        registry: Registry[Any] = Registry()
        self._validator = Draft202012Validator(
            schema, registry=registry, format_checker=Draft202012Validator.FORMAT_CHECKER
        )

    def __call__(self, args: Mapping[str, Any]) -> None:
        """Return when ``args`` fit. Raises ToolError, naming those that do not and what is expected."""
        mistakes: list[str] = []
        try:
            for error in self._validator.iter_errors(args):
                mistakes += [words for words in _words(error) if words not in mistakes]
                if len(mistakes) >= MAX_MISTAKES:
                    break
        except Unresolvable:
            raise ToolError("the arguments cannot be checked: the declaration refers to nothing") from None
        if mistakes:
            text = "wrong arguments: " + "; ".join(mistakes[:MAX_MISTAKES])
            raise ToolError(text if len(text) <= MAX_WORDS else text[: MAX_WORDS - 1] + "…")


_COMPARED = {
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "multipleOf": "must be a multiple of {}",
    "minLength": "must have at least {} characters",
    "maxLength": "must have at most {} characters",
    "minItems": "must have at least {} items",
    "maxItems": "must have at most {} items",
    "pattern": "must match the pattern {}",
    "format": "must be a {}",
    "const": "must be {}",
}


def _words(error: ValidationError) -> Iterator[str]:
    """What is wrong and what is expected, one text for each argument. The value itself is not repeated."""
    where = _place(error.absolute_path)
    expected: Any = error.validator_value
    match error.validator:
        case "required":
            missing = [name for name in expected if name not in error.instance]
            yield from (f"{_place([*error.absolute_path, name])} is missing" for name in missing)
        case "additionalProperties" if expected is False:
            known = list(error.schema.get("properties", ()))
            for name in [name for name in error.instance if name not in known]:
                there = ", ".join(_short(name) for name in known[:20]) or "none"
                yield f"{_place([*error.absolute_path, name])} is unknown (there are: {there})"
        case "type":
            kinds = [expected] if isinstance(expected, str) else expected
            yield f"{where} must be of type {' or '.join(kinds)}"
        case "enum":
            choices = ", ".join(_shown(choice) for choice in expected[:20])
            yield f"{where} must be one of: {choices}{', …' if len(expected) > 20 else ''}"
        case "anyOf" | "oneOf":
            kinds = sorted(
                {str(member.get("type", "?")) for member in expected if isinstance(member, Mapping)}
            )
            yield f"{where} fits none of what is allowed there (of type {' or '.join(kinds)})"
        case str(keyword) if keyword in _COMPARED:
            shown = _short(expected) if isinstance(expected, str) else _shown(expected)
            yield f"{where} {_COMPARED[keyword].format(shown)}"
        case keyword:
            yield f"{where} breaks the rule {keyword!s}: {_shown(expected)}"


def _place(path: Sequence[str | int] | Any) -> str:
    """``order.lines[2].count``"""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{_short(part)}"
    return text.lstrip(".") or "the whole"


def _shown(value: object) -> str:
    return _short(json.dumps(value, ensure_ascii=False))


def _short(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"
