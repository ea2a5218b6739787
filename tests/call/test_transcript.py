"""What was said, turn by turn, within its bounds."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ari_gemini.call.transcript import MAX_CHARS, MAX_TURNS, Transcript
from ari_gemini.realtime.events import Speaker
from ari_gemini.realtime.session import HistoryTurn

CALLER, MODEL = Speaker.CALLER, Speaker.MODEL


def heard(*said: tuple[Speaker, str]) -> Transcript:
    transcript = Transcript()
    for speaker, text in said:
        transcript.add(speaker, text)
    return transcript


def test_increments_are_put_together_until_the_other_one_speaks() -> None:
    transcript = heard((MODEL, "Good "), (MODEL, "day."), (CALLER, " Hel"), (CALLER, "lo. "), (MODEL, "Yes?"))
    assert transcript.turns() == (
        HistoryTurn(MODEL, "Good day."),
        HistoryTurn(CALLER, "Hello."),
        HistoryTurn(MODEL, "Yes?"),
    )


def test_nothing_said_is_no_turn() -> None:
    transcript = heard((MODEL, "One."), (CALLER, ""), (CALLER, " "), (MODEL, "Two."))
    assert transcript.turns() == (HistoryTurn(MODEL, "One."), HistoryTurn(MODEL, "Two."))
    assert Transcript().turns() == Transcript().turns(without_caller=True) == ()


def test_the_callers_last_words_may_be_left_out_and_only_they() -> None:
    transcript = heard((CALLER, "Hello."), (MODEL, "Yes?"))
    assert transcript.turns(without_caller=True) == transcript.turns()
    transcript.add(CALLER, "Well,")
    transcript.add(CALLER, " I")
    assert transcript.turns(without_caller=True) == (
        HistoryTurn(CALLER, "Hello."),
        HistoryTurn(MODEL, "Yes?"),
    )
    assert transcript.turns()[-1] == HistoryTurn(CALLER, "Well, I"), "asking takes nothing away"


def test_it_goes_on_from_another_conversation() -> None:
    before = heard((MODEL, "Yes?"), (CALLER, "Well,"))
    transcript = Transcript()
    transcript.begin_with(list(before.turns()))
    transcript.add(CALLER, " I")
    assert transcript.turns() == (HistoryTurn(MODEL, "Yes?"), HistoryTurn(CALLER, "Well, I"))


def test_the_oldest_turns_go_when_there_are_too_many_characters() -> None:
    transcript = heard((MODEL, "a" * (MAX_CHARS - 10)), (CALLER, "b" * 10))
    assert len(transcript.turns()) == 2
    transcript.add(CALLER, "c")
    assert transcript.turns() == (HistoryTurn(CALLER, "b" * 10 + "c"),)


def test_the_oldest_turns_go_when_there_are_too_many() -> None:
    transcript = heard(*((MODEL if n % 2 else CALLER, str(n)) for n in range(MAX_TURNS + 3)))
    turns = transcript.turns()
    assert len(turns) == MAX_TURNS
    assert [turn.text for turn in turns] == [str(n) for n in range(3, MAX_TURNS + 3)]


def test_of_one_endless_turn_the_end_is_kept() -> None:
    transcript = heard((CALLER, "Hello."), (MODEL, "x" * MAX_CHARS), (MODEL, "end"))
    assert transcript.turns() == (HistoryTurn(MODEL, "x" * (MAX_CHARS - 3) + "end"),)
    transcript.add(MODEL, "y" * (2 * MAX_CHARS))
    assert transcript.turns() == (HistoryTurn(MODEL, "y" * MAX_CHARS),)


SAID = st.lists(
    st.tuples(
        st.sampled_from([CALLER, MODEL]),
        st.one_of(st.text("ab ", max_size=5), st.integers(0, MAX_CHARS * 2).map(lambda count: "x" * count)),
    ),
    max_size=40,
)


@given(SAID)
def test_what_is_kept_is_the_end_of_what_was_said_within_the_bound(said: list[tuple[Speaker, str]]) -> None:
    transcript = heard(*said)
    everything = "".join(text for _, text in said)
    kept = "".join("".join(texts) for _, texts in transcript._turns)
    assert everything.endswith(kept)
    assert len(kept) <= MAX_CHARS
    assert transcript._chars == len(kept)
    if len(everything) <= MAX_CHARS:
        assert kept == everything
    speakers = [speaker for speaker, _ in transcript._turns]
    assert all(one is not other for one, other in pairwise(speakers))
