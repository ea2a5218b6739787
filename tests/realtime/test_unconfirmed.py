"""What was sent and may not have arrived: nothing is forgotten before it is confirmed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ari_gemini.realtime.unconfirmed import Unconfirmed


def test_what_has_arrived_is_forgotten_and_the_newest_of_it_named() -> None:
    items: Unconfirmed[str] = Unconfirmed(8)
    for mark, item in enumerate("abcd", 1):
        items.sent(mark, item)
    assert items.settle(0) is None
    assert items.settle(2) == "b"
    assert items.settle(2) is None
    assert items.take() == ["c", "d"]
    assert (items.take(), len(items)) == ([], 0)


def test_items_of_one_message_arrive_together() -> None:
    items: Unconfirmed[str] = Unconfirmed(8)
    items.sent(3, "a")
    items.sent(3, "b")
    items.sent(4, "c")
    assert items.settle(3) == "b"
    assert items.take() == ["c"]


def test_the_oldest_goes_when_nothing_is_ever_confirmed_and_it_stays_so() -> None:
    items: Unconfirmed[int] = Unconfirmed(3)
    for number in range(5):
        items.sent(number, number)
    items.discard(lambda item: item == 3)
    assert len(items) == 2
    for number in (5, 6):
        items.sent(number, number)
    assert items.take() == [4, 5, 6]
    for number in range(5):
        items.sent(number, number)
    assert items.take() == [2, 3, 4]


STEPS = st.lists(
    st.tuples(st.sampled_from(["send", "note", "confirm", "discard", "take"]), st.integers(0, 30)),
    max_size=60,
)


@given(STEPS)
def test_whatever_is_neither_confirmed_nor_unwanted_is_taken_once_in_order(
    steps: list[tuple[str, int]],
) -> None:
    items: Unconfirmed[int] = Unconfirmed(len(steps) + 1)
    kept: list[tuple[int, int]] = []
    sent = confirmed = number = 0
    for step, by in steps:
        if step in ("send", "note"):
            sent += step == "send"
            number += 1
            items.sent(sent, number)
            kept.append((sent, number))
        elif step == "confirm":
            confirmed = min(sent, confirmed + by)
            arrived = [item for mark, item in kept if mark <= confirmed]
            assert items.settle(confirmed) == (arrived[-1] if arrived else None)
            kept = [(mark, item) for mark, item in kept if mark > confirmed]
        elif step == "discard":
            items.discard(lambda item, by=by: item % 7 == by % 7)
            kept = [(mark, item) for mark, item in kept if item % 7 != by % 7]
        else:
            assert items.take() == [item for _, item in kept]
            kept = []
        assert len(items) == len(kept)
