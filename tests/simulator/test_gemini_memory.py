from __future__ import annotations

import random
import uuid

import pytest

from ari_gemini.simulator import gemini_memory as subject
from ari_gemini.simulator.gemini_schema import RefusalError
from ari_gemini.simulator.scenario import Scenario

MODEL = "models/gemini-3.8-live"
SCENARIO = Scenario(resume_hold=1.0, handle_lifetime=100.0)


@pytest.fixture
def book() -> subject.HandleBook:
    return subject.HandleBook(random.Random(1))


def dropped(book: subject.HandleBook, at: float = 10.0, spoke: bool = False) -> tuple[subject.Memory, str]:
    memory = book.open(MODEL, SCENARIO)
    handle = book.issue(memory)
    book.detach(memory, at, None, spoke)
    return memory, handle


def refusal(book: subject.HandleBook, handle: str, now: float, model: str = MODEL) -> tuple[int, str]:
    with pytest.raises(RefusalError) as caught:
        book.resume(handle, model, SCENARIO, now)
    return caught.value.code, caught.value.reason


def test_a_handle_is_a_uuid_of_36_characters(book: subject.HandleBook) -> None:
    _, handle = dropped(book)
    assert len(handle) == 36
    assert uuid.UUID(handle).version == 4


def test_a_session_comes_back_by_any_of_its_handles(book: subject.HandleBook) -> None:
    memory = book.open(MODEL, SCENARIO)
    first, second = book.issue(memory), book.issue(memory)
    for handle in (first, second):
        book.detach(memory, 10.0, None, spoke=False)
        assert book.resume(handle, MODEL, SCENARIO, 12.0) is memory
        assert memory.attached


def test_an_idle_session_is_held_for_a_second(book: subject.HandleBook) -> None:
    memory, handle = dropped(book, at=10.0)
    assert refusal(book, handle, 10.9) == (1011, "Internal error encountered.")
    assert not memory.attached
    assert book.resume(handle, MODEL, SCENARIO, 11.0) is memory


def test_a_session_that_spoke_comes_back_at_once(book: subject.HandleBook) -> None:
    memory, handle = dropped(book, at=10.0, spoke=True)
    assert book.resume(handle, MODEL, SCENARIO, 10.0) is memory


def test_a_living_connection_keeps_its_session(book: subject.HandleBook) -> None:
    memory = book.open(MODEL, SCENARIO)
    handle = book.issue(memory)
    assert refusal(book, handle, 1000.0) == (1011, "Internal error encountered.")


def test_bogus_and_stale_handles(book: subject.HandleBook) -> None:
    _, handle = dropped(book, at=10.0)
    assert refusal(book, "bogus", 12.0) == (1008, "BidiGenerateContent session not found")
    assert refusal(book, handle, 110.1) == (1008, "BidiGenerateContent session expired")
    assert book.resume(handle, MODEL, SCENARIO, 110.0)


def test_the_model_may_not_change(book: subject.HandleBook) -> None:
    _, handle = dropped(book)
    assert refusal(book, handle, 12.0, "models/gemini-3.1-flash-live-preview") == (
        1007,
        "Request contains an invalid argument.",
    )


def test_memory_is_bounded(book: subject.HandleBook) -> None:
    _, first = dropped(book)
    memory = book.open(MODEL, SCENARIO)
    oldest = book.issue(memory)
    for _ in range(subject.MAX_HANDLES):
        book.issue(memory)
    assert refusal(book, oldest, 99.0)[1] == "BidiGenerateContent session not found"
    assert book.resume(first, MODEL, SCENARIO, 99.0)
    for _ in range(subject.MAX_SESSIONS):
        book.open(MODEL, SCENARIO)
    assert refusal(book, first, 99.0)[1] == "BidiGenerateContent session not found"


def test_a_scenario_may_refuse_resumption_for_a_while_or_for_ever(book: subject.HandleBook) -> None:
    for refused, away in ((5.0, 4.9), (float("inf"), 90.0)):
        memory = book.open(MODEL, SCENARIO)
        handle = book.issue(memory)
        book.detach(memory, 10.0, None, spoke=True)
        scenario = SCENARIO.model_copy(update={"resume_refused": refused})
        with pytest.raises(RefusalError) as caught:
            book.resume(handle, MODEL, scenario, 10.0 + away)
        assert (caught.value.code, caught.value.reason) == (1011, "Internal error encountered.")
        assert not memory.attached
        if refused < 10:
            assert book.resume(handle, MODEL, scenario, 10.0 + refused) is memory


def test_a_test_may_refuse_one_session(book: subject.HandleBook) -> None:
    memory, handle = dropped(book, at=10.0)
    _, other = dropped(book, at=10.0)
    memory.refused_until, memory.refusal = 20.0, RefusalError(1008, "The operation was aborted.")
    assert refusal(book, handle, 19.9) == (1008, "The operation was aborted.")
    assert book.resume(other, MODEL, SCENARIO, 19.9)
    assert book.resume(handle, MODEL, SCENARIO, 20.0) is memory


def test_a_forgotten_session_has_no_handles(book: subject.HandleBook) -> None:
    memory, handle = dropped(book)
    book.forget(memory)
    assert refusal(book, handle, 20.0) == (1008, "BidiGenerateContent session not found")
    assert book.resume(book.issue(memory), MODEL, SCENARIO, 20.0) is memory


def test_only_the_newest_sentences_are_kept(book: subject.HandleBook) -> None:
    cut = subject.Say("done", "That is done.", bytes(480))
    memories = [book.open(MODEL, SCENARIO) for _ in range(subject.MAX_CUT + 1)]
    for memory in memories:
        book.detach(memory, 10.0, cut, spoke=True)
    assert [memory.cut for memory in memories] == [None] + [cut] * subject.MAX_CUT
