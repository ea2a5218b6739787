"""The exception tree is the one its module's docstring draws."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from ari_gemini import errors
from ari_gemini.errors import AriGeminiError, CallEnded, Cause, Retry


def drawn() -> Iterator[tuple[str, str | None, str | None]]:
    """Each class of the drawing, with the class above it and its retry, where one is given."""
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r" {4}((?:[│├└─ ]{4})*)(\w+)(?:.*\bretry ([A-Z]+))?", line):
            depth = len(found[1]) // 4
            del above[depth:]
            yield found[2], above[-1] if above else None, found[3]
            above.append(found[2])


def declared() -> dict[str, type[AriGeminiError]]:
    """Every exception class of the module."""
    classes = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    return {name: value for name, value in classes.items() if issubclass(value, AriGeminiError)}


def test_every_class_is_drawn_once() -> None:
    names = [name for name, _, _ in drawn()]
    assert sorted(names) == sorted(declared())


@pytest.mark.parametrize(("name", "above", "retry"), list(drawn()))
def test_it_hangs_where_it_is_drawn(name: str, above: str | None, retry: str | None) -> None:
    declaration = declared()[name]
    assert declaration.__base__ is (Exception if above is None else declared()[above])
    if retry is not None:
        assert declaration.retry is Retry[retry]


def test_what_may_be_retried_is_drawn() -> None:
    inherited = {name: retry for name, _, retry in drawn() if retry}
    unsaid = {
        name for name, value in declared().items() if value.retry is not Retry.NO and name not in inherited
    }
    assert unsaid == set()


@pytest.mark.parametrize(("detail", "text"), [("", "caller_hangup"), ("BYE", "caller_hangup: BYE")])
def test_an_ending_carries_its_cause(detail: str, text: str) -> None:
    ended = CallEnded(Cause.CALLER_HANGUP, detail)
    assert (ended.cause, ended.detail, str(ended)) == (Cause.CALLER_HANGUP, detail, text)
