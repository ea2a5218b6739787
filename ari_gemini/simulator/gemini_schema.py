"""The proto3 JSON reader that holds a client's messages to the tables of ``gemini_fields``.

The rules are the proto3 JSON mapping's: lowerCamelCase and the original snake_case name are both accepted,
int64 comes as number or string, enums by name, bytes in either base64 alphabet with or without padding,
durations as ``"1.5s"``, null as "not set". Error texts are the service's.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any

from ari_gemini.errors import AriGeminiError
from ari_gemini.simulator.gemini_fields import ENUMS, MESSAGES, ONLY_V1ALPHA

REASON_BYTES = 123
"""A close frame's payload is at most 125 bytes, two of which are the code (RFC 6455, section 5.5)."""

INVALID_ARGUMENT = "Request contains an invalid argument."

_PACKAGE = "type.googleapis.com/google.ai.generativelanguage.v1beta"


class RefusalError(AriGeminiError):
    """The simulated service closes with ``code`` and ``reason``, cut to what a close frame holds.

    ``text`` is all of it, for an answer that has the room.
    """

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.text = reason
        self.reason = cut_reason(reason)
        super().__init__(f"{code} {self.reason}")


def cut_reason(reason: str) -> str:
    """The reason as far as a close frame can carry it, never ending within a character."""
    return reason.encode()[:REASON_BYTES].decode(errors="ignore")


def invalid_argument() -> RefusalError:
    """The service's answer to whatever is well formed and still wrong."""
    return RefusalError(1007, INVALID_ARGUMENT)


_DURATION = re.compile(r"-?\d+(\.\d{1,9})?s")
_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")
_URL_SAFE = str.maketrans("-_", "+/")


def snake(name: str) -> str:
    """``generationConfig`` -> ``generation_config``."""
    return _WORD_START.sub("_", name).lower()


_FIELD_NAMES: Mapping[str, Mapping[str, str]] = {
    message: {spelling: camel for camel in fields for spelling in (camel, snake(camel))}
    for message, fields in MESSAGES.items()
}


def unknown_name(name: str, path: str) -> RefusalError:
    """The refusal of a field that the message at ``path`` (snake_case, "" for the top) does not have."""
    where = f" at '{path}'" if path else ""
    return RefusalError(
        1007, f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.'
    )


def read_message(value: object, message: str, path: str, version: str) -> dict[str, Any]:
    """``value`` as that message of the tables: camelCase names, numbers, upper-case enums, decoded bytes.

    ``path`` is where the value stands (snake_case, "" for the top), ``version`` ``v1beta`` or ``v1alpha``.
    Raises RefusalError with the service's own words.
    """
    if not isinstance(value, dict):
        raise _invalid(path, f"{_PACKAGE}.{message}", value)
    names = _FIELD_NAMES[message]
    fields = MESSAGES[message]
    result: dict[str, Any] = {}
    for spelling, item in value.items():
        name = names.get(spelling)
        if name is None or (version != "v1alpha" and (message, name) in ONLY_V1ALPHA):
            raise unknown_name(spelling, path)
        if item is not None:
            inner = f"{path}.{snake(name)}" if path else snake(name)
            result[name] = _read(item, fields[name], inner, version)
    return result


def _read(value: object, kind: str, path: str, version: str) -> Any:
    if kind[0] == "[":
        items = value if isinstance(value, list) else [value]
        return [_read(item, kind[1:-1], f"{path}[{i}]", version) for i, item in enumerate(items)]
    if isinstance(value, list) and kind != "any":
        name = path.rpartition(".")[2]
        raise RefusalError(
            1007,
            f"Invalid JSON payload received. Unknown name \"{name}\" at '{path}': "
            "Proto field is not repeating, cannot start list.",
        )
    if kind[0] == "{":
        mapping = _struct(value, path)
        inner = kind[1:-1]
        return {
            key: _read(item, inner, f"{path}[{i}].value", version)
            for i, (key, item) in enumerate(mapping.items())
        }
    if kind in MESSAGES:
        return read_message(value, kind, path, version)
    if kind in ENUMS:
        return _enum(value, kind, path)
    return _SCALARS[kind](value, path)


def _invalid(path: str, kind: str, value: object) -> RefusalError:
    return RefusalError(1007, f"Invalid value at '{path}' ({kind}), \"{value}\"")


def _enum(value: object, kind: str, path: str) -> str:
    if not isinstance(value, str) or value.upper() not in ENUMS[kind]:
        raise _invalid(path, f"{_PACKAGE}.{kind}", value)
    return value.upper()


def _string(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise _invalid(path, "TYPE_STRING", value)
    return value


def _bool(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise _invalid(path, "TYPE_BOOL", value)
    return value


def _int(value: object, path: str) -> int:
    if not isinstance(value, bool):
        if isinstance(value, int):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value):
            return int(value)
    raise _invalid(path, "TYPE_INT64", value)


def _float(value: object, path: str) -> float:
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise _invalid(path, "TYPE_FLOAT", value)


def _duration(value: object, path: str) -> float:
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise _invalid(path, "type.googleapis.com/google.protobuf.Duration", value)
    return float(value[:-1])


def _struct(value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _invalid(path, "type.googleapis.com/google.protobuf.Struct", value)
    return value


def _any(value: object, path: str) -> object:
    return value


def _bytes(value: object, path: str) -> bytes:
    if not isinstance(value, str):
        raise _invalid(path, "TYPE_BYTES", value)
    text = value.rstrip("=")
    if "-" in text or "_" in text:
        text = text.translate(_URL_SAFE)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise RefusalError(
            1007, f"Invalid value at '{path}' (TYPE_BYTES), Base64 decoding failed for \"{value}\""
        ) from None


_SCALARS: Mapping[str, Callable[[object, str], Any]] = {
    "str": _string,
    "bytes": _bytes,
    "bool": _bool,
    "int": _int,
    "float": _float,
    "duration": _duration,
    "struct": _struct,
    "any": _any,
}
