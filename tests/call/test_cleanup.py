"""Repeating what undoes, as long as that can help."""

from __future__ import annotations

import pytest

from ari_gemini.call import cleanup
from ari_gemini.call.cleanup import failure_of, persist, unanswered
from ari_gemini.errors import AriDenied, AriNotFound, AriRejected, AriTimeout, AriUnavailable

SLOW, AWAY, NO = AriTimeout("slow"), AriUnavailable("gone"), AriRejected("no", 500)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "CLEANUP_DELAYS", (0.0, 0.0))


class Verb:
    def __init__(self, *outcomes: Exception | None) -> None:
        self.outcomes = list(outcomes)
        self.times = 0

    async def __call__(self) -> None:
        self.times += 1
        outcome = self.outcomes[min(self.times, len(self.outcomes)) - 1]
        if outcome is not None:
            raise outcome


@pytest.mark.parametrize("insist", [False, True])
@pytest.mark.parametrize(
    ("outcomes", "times", "failure"),
    [
        ([None], 1, None),
        ([SLOW, None], 2, None),
        ([SLOW, AWAY, None], 3, None),
        ([SLOW], 3, SLOW),
        ([NO], 1, NO),
        ([SLOW, NO], 2, NO),
    ],
)
async def test_repeated_while_it_can_help(insist: bool, outcomes: list, times: int, failure) -> None:
    verb = Verb(*outcomes)
    assert await persist(verb, insist=insist) is failure
    assert verb.times == (3 if insist and failure is None else times)


async def test_only_asterisks_failures_are_taken() -> None:
    assert await failure_of(Verb(SLOW)) is SLOW
    with pytest.raises(ZeroDivisionError):
        await persist(Verb(ZeroDivisionError()))


@pytest.mark.parametrize(
    ("results", "open_"),
    [
        ([], False),
        ([None, NO, AriNotFound("x"), AriDenied("x")], False),
        ([None, SLOW], True),
        ([AWAY], True),
    ],
)
def test_what_has_no_answer_may_come_yet(results: list, open_: bool) -> None:
    assert unanswered(results) is open_
