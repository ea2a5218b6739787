"""The record of one call: all that a worker who has never heard of it needs to go on with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_serializer,
)

from ari_gemini.errors import StateError
from ari_gemini.realtime.events import FunctionCall
from ari_gemini.realtime.functions import FunctionResult
from ari_gemini.realtime.session import HistoryTurn, Resume

VERSION = 1
"""Raised when a record no longer means to an older reader what it meant; further fields alone do not."""

MAX_BYTES = 2**20
"""Of an encoded record: the longest transcript takes a tenth of it, the rest is for answers of tools."""
MAX_CHARS = 16_000
"""Of the transcript: a quarter of an hour of speech (150 words a minute). A model that starts from nothing
needs the thread, not every word, and the record is written up to twice a second."""
MAX_TURNS = 200
"""Of the transcript: one-word turns must not cost more than their words do."""
MAX_TEXT = 1024
"""Characters of a caller's name, number or value: no network carries a longer one."""


def _text(value: Any) -> Any:
    """What strangers write, such that it can be kept."""
    return _whole(value)[:MAX_TEXT] if isinstance(value, str) else value


def _whole(text: str) -> str:
    """Without lone surrogates, which JSON may bring and UTF-8 cannot hold."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def newest(turns: Sequence[HistoryTurn]) -> tuple[HistoryTurn, ...]:
    """The end of the transcript that keeps to the bounds; of one turn too long, its end."""
    kept: list[HistoryTurn] = []
    room = MAX_CHARS
    for turn in reversed(turns[-MAX_TURNS:]):
        if len(turn.text) > room:
            if not kept:
                kept.append(replace(turn, text=_whole(turn.text[-room:])))
            break
        kept.append(replace(turn, text=_whole(turn.text)))
        room -= len(turn.text)
    return tuple(reversed(kept))


def _known(version: int) -> int:
    if version > VERSION:
        raise ValueError(f"{version} was written by a newer release; this one knows up to {VERSION}")
    return version


Text = Annotated[str, BeforeValidator(_text)]
Moment = Annotated[float, Field(allow_inf_nan=False)]


class CallState(BaseModel):
    """One call at one moment. Times are UTC, in seconds since 1970.

    Fields that a later release adds are passed over. ``repr`` tells which call it is, and nothing private.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    version: Annotated[int, Field(ge=1), AfterValidator(_known)] = VERSION
    call_id: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
    """The channel's id, for it is what Asterisk names when it comes back."""
    agent: Text
    caller_number: Text = ""
    caller_name: Text = ""
    called_number: Text = ""
    values: dict[str, Text] = Field(default_factory=dict)
    """What the agent's templates were filled with: the same words must result."""
    started_at: Moment
    saved_at: Moment
    resume: Resume | None = None
    """The newest. Whoever has it may listen to the conversation."""
    fingerprint: str = ""
    """Of what ``resume`` was made with; it is of no use with anything else."""
    transcript: Annotated[tuple[HistoryTurn, ...], AfterValidator(newest)] = ()
    """The end of what was said, the oldest first; what exceeds the bounds is dropped from the beginning."""
    open_calls: tuple[FunctionCall, ...] = ()
    """What the model asked for and has no answer to."""
    unconfirmed: tuple[FunctionResult, ...] = ()
    """Answers that may not have reached the model."""
    budgets: dict[str, int] = Field(default_factory=dict)
    """How much is used up of what a call may do, by name."""
    greeted: bool = False
    unanswered: bool = False
    """The caller has said something to which no answer began."""

    @field_serializer("resume", when_used="json")
    def _in_clear(self, resume: Resume | None) -> dict[str, Any] | None:
        if resume is None:
            return None
        found = {field.name: getattr(resume, field.name) for field in fields(resume)}
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in found.items()
        }

    @field_serializer("open_calls", "unconfirmed", when_used="json")
    def _as_json(self, items: tuple[FunctionCall | FunctionResult, ...]) -> Any:
        # what tools and models write may hold anything
        text = json.dumps([asdict(item) for item in items], ensure_ascii=False, allow_nan=False)
        return json.loads(text.encode(errors="replace"))

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        yield from (("call_id", self.call_id), ("agent", self.agent), ("saved_at", self.saved_at))


def fingerprint(*parts: str) -> str:
    """16 hexadecimal digits that differ when any part does."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def encode(state: CallState) -> bytes:
    """UTF-8 JSON of at most ``MAX_BYTES``, secrets in clear. StateError: it is longer, or not JSON."""
    try:
        data = state.model_dump_json().encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise StateError(f"the state is no JSON: {type(error).__name__}") from None
    if len(data) > MAX_BYTES:
        raise StateError(f"the state has {len(data)} bytes, more than {MAX_BYTES}")
    return data


def decode(data: bytes) -> CallState:
    """The inverse of ``encode``. Raises StateError, which quotes nothing of ``data``, and nothing else."""
    if len(data) > MAX_BYTES:
        raise StateError(f"the record is longer than {MAX_BYTES} bytes")
    try:
        return CallState.model_validate_json(data)
    except ValidationError as error:
        raise StateError(f"the record cannot be read: {next(_mistakes(error))}") from None


def _mistakes(error: ValidationError) -> Iterator[str]:
    """The first is that of the version, if it has one: a newer record may differ in everything."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    for mistake in sorted(found, key=lambda each: each["loc"][:1] != ("version",)):
        field = str(mistake["loc"][0]) if mistake["loc"] else "JSON"
        yield f"{field}: {mistake['msg'].removeprefix('Value error, ')}"
