"""The tree of errors is the one its docstring draws, down to who may retry what."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from ari_gemini import errors
from ari_gemini.errors import AriError, AriGeminiError, CallEnded, Cause, Retry, SessionError


def drawn() -> dict[str, tuple[str, str | None]]:
    """Each class in the docstring with its parent and the retry named beside it."""
    tree: dict[str, tuple[str, str | None]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"^ {4}((?:[│ ] {3})*)(?:[├└]── )?(\w+)\s*(.*)$", line):
            branch = "──" in line
            depth = len(found[1]) // 4 + 1 if branch else 0
            path[depth:] = [found[2]]
            retry = re.search(r"retry ([A-Z]+)$", found[3])
            tree[found[2]] = (path[depth - 1] if depth else "Exception", retry[1] if retry else None)
    return tree


def classes() -> dict[str, type[AriGeminiError]]:
    return {
        name: kind
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, AriGeminiError) and kind.__module__ == errors.__name__
    }


def test_the_tree_is_the_one_in_the_docstring() -> None:
    assert {name: kind.__base__.__name__ for name, kind in classes().items()} == {
        name: parent for name, (parent, _) in drawn().items()
    }


def test_retries_are_those_in_the_docstring() -> None:
    named = {name: retry for name, (_, retry) in drawn().items() if retry}
    assert len(named) >= 10
    assert {name: classes()[name].retry.name for name in named} == named


def test_what_the_tree_does_not_name_is_not_retried_or_as_its_parent() -> None:
    for name, kind in classes().items():
        if "retry" not in vars(kind) and kind is not AriGeminiError:
            assert kind.retry is kind.__base__.retry, name
    assert AriGeminiError.retry is Retry.NO


def test_causes_are_words_for_a_channel_variable() -> None:
    assert all(re.fullmatch(r"[a-z_]+", cause.value) for cause in Cause)
    assert len({cause.value for cause in Cause}) == len(Cause)


@pytest.mark.parametrize(("detail", "text"), [("", "caller_hangup"), ("why", "caller_hangup: why")])
def test_the_end_of_a_call_says_why(detail: str, text: str) -> None:
    ended = CallEnded(Cause.CALLER_HANGUP, detail)
    assert (ended.cause, ended.detail, str(ended)) == (Cause.CALLER_HANGUP, detail, text)


def test_errors_keep_what_the_peer_answered() -> None:
    assert (str(AriError("no", 500)), AriError("no", 500).status, AriError("no").status) == ("no", 500, None)
    assert (str(SessionError("no", 1008)), SessionError("no", 1008).code, SessionError("no").code) == (
        "no",
        1008,
        None,
    )


@pytest.mark.parametrize("cause", Cause)
def test_causes_survive_being_sent_elsewhere(cause: Cause) -> None:
    assert pickle.loads(pickle.dumps(cause)) is cause  # noqa: S301  # our own bytes
