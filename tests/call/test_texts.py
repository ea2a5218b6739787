"""Texts for the model: in order, within their bound, not while a tool works, none lost with a session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from ari_gemini.call.texts import MAX_TEXTS, Texts
from ari_gemini.errors import SessionDropped


async def rounds() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def run() -> AsyncIterator[Callable]:
    tasks: list[asyncio.Task] = []

    def start(texts: Texts, session) -> asyncio.Task:
        tasks.append(asyncio.create_task(texts.run(session)))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_came_before_the_session_goes_first_and_all_in_order(run, make_session) -> None:
    texts, session = Texts(), make_session()
    texts.tell("a")
    texts.tell("b")
    run(texts, session)
    texts.tell("c")
    await rounds()
    texts.tell("d")
    await rounds()
    assert session.texts == ["a", "b", "c", "d"]
    assert texts.dropped == 0


async def test_the_oldest_goes_when_too_many_wait(run, make_session) -> None:
    texts, session = Texts(), make_session()
    for n in range(MAX_TEXTS + 3):
        texts.tell(str(n))
    assert texts.dropped == 3
    run(texts, session)
    await rounds()
    for _ in range(MAX_TEXTS):
        await rounds()
    assert session.texts == [str(n) for n in range(3, MAX_TEXTS + 3)]


async def test_the_one_that_is_being_sent_is_not_the_oldest_that_waits(run, make_session) -> None:
    """Neither counted as dropped nor another one lost in its stead."""
    texts, session = Texts(), make_session()
    session.taking.clear()
    run(texts, session)
    texts.tell("sent")
    await rounds()
    for n in range(MAX_TEXTS + 1):
        texts.tell(str(n))
    assert texts.dropped == 1
    session.taking.set()
    for _ in range(MAX_TEXTS + 1):
        await rounds()
    assert session.texts == ["sent", *(str(n) for n in range(1, MAX_TEXTS + 1))]


async def test_nothing_goes_out_while_held(run, make_session) -> None:
    texts, session = Texts(), make_session()
    run(texts, session)
    texts.hold(True)
    texts.tell("a")
    texts.tell("b")
    await rounds()
    assert session.texts == []
    texts.hold(False)
    await rounds()
    assert session.texts == ["a", "b"]


async def test_a_hold_that_comes_right_after_a_text_holds_it(run, make_session) -> None:
    texts, session = Texts(), make_session()
    run(texts, session)
    await rounds()
    texts.tell("a")
    texts.hold(True)
    await rounds()
    assert session.texts == []
    texts.hold(False)
    await rounds()
    assert session.texts == ["a"]


async def test_a_hold_in_mid_send_holds_the_next_one(run, make_session) -> None:
    texts, session = Texts(), make_session()
    session.taking.clear()
    run(texts, session)
    texts.tell("a")
    texts.tell("b")
    await rounds()
    texts.hold(True)
    session.taking.set()
    await rounds()
    assert session.texts == ["a"]
    texts.hold(False)
    await rounds()
    assert session.texts == ["a", "b"]


async def test_holding_and_going_on_with_nothing_to_say(run, make_session) -> None:
    texts, session = Texts(), make_session()
    task = run(texts, session)
    for held in (True, True, False, False):
        texts.hold(held)
        await rounds()
    assert not task.done()
    assert session.texts == []


async def test_a_session_that_ends_in_mid_send_keeps_the_text_for_the_next_one(run, make_session) -> None:
    texts, session = Texts(), make_session()
    session.text_error = SessionDropped("gone")
    session.taking.clear()
    task = run(texts, session)
    texts.tell("a")
    await rounds()
    texts.tell("b")
    session.taking.set()
    with pytest.raises(SessionDropped):
        await task
    texts.tell("c")
    another = make_session()
    run(texts, another)
    await rounds()
    assert session.texts == []
    assert another.texts == ["a", "b", "c"]


async def test_a_full_house_when_the_session_ends_stays_within_its_bound(run, make_session) -> None:
    texts, session = Texts(), make_session()
    session.text_error = SessionDropped("gone")
    session.taking.clear()
    task = run(texts, session)
    texts.tell("first")
    await rounds()
    for n in range(MAX_TEXTS):
        texts.tell(str(n))
    session.taking.set()
    with pytest.raises(SessionDropped):
        await task
    for _ in range(3):
        texts.tell("more")
    assert len(texts._waiting) == MAX_TEXTS + 1
    assert texts.dropped == 3


async def test_cancelling_in_mid_send_keeps_the_text(run, make_session) -> None:
    texts, session = Texts(), make_session()
    session.taking.clear()
    task = run(texts, session)
    texts.tell("a")
    await rounds()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    another = make_session()
    run(texts, another)
    await rounds()
    assert another.texts == ["a"]


async def sent(run, texts: Texts, session) -> None:
    """Send what there is, until the session is over."""
    task = run(texts, session)
    for _ in range(MAX_TEXTS + 1):
        await rounds()
    task.cancel()
    await asyncio.wait([task])


async def test_what_did_not_arrive_is_sent_again_before_what_came_since(run, make_session) -> None:
    texts, session = Texts(), make_session()
    texts.tell("arrived")
    await sent(run, texts, session)
    session.dead = True
    for text in "ab":
        texts.tell(text)
    await sent(run, texts, session)
    assert session.texts == ["arrived", "a", "b"]
    texts.hold(True)
    texts.tell("c")
    texts.recover(session.confirmed)
    texts.hold(False)
    another = make_session()
    await sent(run, texts, another)
    assert another.texts == ["a", "b", "c"]
    texts.recover(another.confirmed)
    third = make_session()
    await sent(run, texts, third)
    assert (third.texts, texts.dropped) == ([], 0)


async def test_without_a_loss_nothing_is_sent_twice(run, make_session) -> None:
    texts, session = Texts(), make_session()
    for text in "abc":
        texts.tell(text)
    await sent(run, texts, session)
    texts.recover(session.confirmed)
    another = make_session()
    await sent(run, texts, another)
    assert another.texts == []


async def test_what_is_sent_again_stays_within_the_bound_and_the_oldest_goes(run, make_session) -> None:
    texts, session = Texts(), make_session()
    session.dead = True
    for text in "abcd":
        texts.tell(text)
    await sent(run, texts, session)
    texts.hold(True)
    for number in range(MAX_TEXTS - 2):
        texts.tell(str(number))
    texts.recover(session.confirmed)
    assert texts.dropped == 2
    texts.hold(False)
    another = make_session()
    await sent(run, texts, another)
    assert another.texts == ["c", "d", *(str(number) for number in range(MAX_TEXTS - 2))]


async def test_recovering_while_held_sends_nothing(run, make_session) -> None:
    texts, session = Texts(), make_session()
    session.dead = True
    texts.tell("a")
    await sent(run, texts, session)
    texts.hold(True)
    texts.recover(session.confirmed)
    another = make_session()
    await sent(run, texts, another)
    assert another.texts == []


async def test_what_is_to_be_kept_is_told_later_unless_it_waits_for_that_session(run, make_session) -> None:
    texts, session = Texts(), make_session()
    notes: list[Callable[[], str]] = []
    texts.note = notes.append
    texts.tell("not kept")
    texts.tell("a", "[a]")
    texts.tell("a", "[the other a]")

    def kept() -> list[str]:
        return [note() for note in notes]

    assert kept() == ["", ""], "the next session gets them"
    texts.hold(True)
    texts.hold(False)
    await sent(run, texts, session)
    assert kept() == ["[a]", "[the other a]"]
    session.dead = True
    texts.tell("b", "[b]")
    await sent(run, texts, session)
    texts.recover(session.confirmed)
    assert kept() == ["[a]", "[the other a]", ""], "so does it get what did not arrive"
