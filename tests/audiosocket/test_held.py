"""What waits for a sink: bounded, the oldest goes first, the order stays."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ari_gemini.audiosocket.held import HELD_AUDIO_MESSAGES, HELD_DIGITS, Held

FRAME = 320  # 20 ms at 8 kHz


def frame(number: int) -> bytes:
    return number.to_bytes(2, "little") * (FRAME // 2)


def test_order_of_arrival_across_audio_and_digits() -> None:
    held = Held()
    for item in (frame(1), "5", frame(2), "#", "*", frame(3)):
        assert (held.digit(item) if isinstance(item, str) else held.audio(item, 8000)) == 0
    assert held.take() == [frame(1), "5", frame(2), "#", "*", frame(3)]
    assert held.take() == []


def test_one_second_is_kept_and_the_oldest_goes() -> None:
    held = Held()
    assert [held.audio(frame(i), 8000) for i in range(50)] == [0] * 50
    assert [held.audio(frame(i), 8000) for i in range(50, 53)] == [1, 1, 1]
    assert held.take() == [frame(i) for i in range(3, 53)]


def test_one_second_at_another_rate() -> None:
    held = Held()
    assert sum(held.audio(bytes(640), 16000) for _ in range(51)) == 1
    assert len(held.take()) == 50


def test_a_message_longer_than_the_bound_stays_alone() -> None:
    held = Held()
    held.audio(frame(1), 8000)
    assert held.audio(bytes(65534), 8000) == 1
    assert held.audio(frame(2), 8000) == 1
    assert held.take() == [frame(2)]


def test_crumbs_are_bounded_by_count() -> None:
    held = Held()
    assert sum(held.audio(b"\x00\x00", 192_000) for _ in range(HELD_AUDIO_MESSAGES + 7)) == 7


def test_digits_are_bounded_by_count_and_never_displaced_by_audio() -> None:
    held = Held()
    dropped = [held.digit("0123456789"[i % 10]) for i in range(HELD_DIGITS + 3)]
    assert sum(dropped) == 3
    for i in range(200):
        held.audio(frame(i), 8000)
    digits = [item for item in held.take() if isinstance(item, str)]
    assert "".join(digits) == ("0123456789" * 4)[3 : HELD_DIGITS + 3]


def test_taking_starts_afresh() -> None:
    held = Held()
    for i in range(50):
        held.audio(frame(i), 8000)
    held.take()
    assert sum(held.audio(frame(i), 8000) for i in range(50)) == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.integers(1, 2000), st.sampled_from("01#")), max_size=80))
def test_nothing_is_lost_uncounted(items: list[int | str]) -> None:
    held, dropped = Held(), 0
    arrived: list[bytes | str] = []
    for item in items:
        arrived.append(item if isinstance(item, str) else bytes(2 * item))
        dropped += held.digit(item) if isinstance(item, str) else held.audio(bytes(2 * item), 8000)
    kept = held.take()
    assert len(kept) + dropped == len(arrived)
    rest = iter(arrived)
    assert all(any(item == other for other in rest) for item in kept)  # kept is a subsequence
    audio = [item for item in kept if isinstance(item, bytes)]
    assert sum(map(len, audio)) <= 16000 or len(audio) == 1
    if arrived:
        assert kept[-1] == arrived[-1]
