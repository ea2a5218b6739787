"""What was said, typed and done, turn by turn, within its bounds."""

from __future__ import annotations

from itertools import pairwise

import pytest
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


# What was not spoken.

KEYS = HistoryTurn(CALLER, "[keys]", note=True)
TOOL = HistoryTurn(CALLER, "[tool]", note=True)


def typed(transcript: Transcript) -> None:
    transcript.told(lambda: KEYS.text)


def booked(transcript: Transcript) -> None:
    transcript.done(lambda _: TOOL.text)


def test_notes_stand_in_their_place() -> None:
    transcript = heard((MODEL, "Your number?"), (CALLER, "It is"))
    typed(transcript)
    transcript.add(CALLER, " this.")
    booked(transcript)
    transcript.add(MODEL, "Done.")
    said = [HistoryTurn(MODEL, "Your number?"), HistoryTurn(CALLER, "It is"), KEYS]
    said += [HistoryTurn(CALLER, "this."), TOOL, HistoryTurn(MODEL, "Done.")]
    assert list(transcript.turns()) == said


def test_a_note_says_what_there_is_to_be_told_by_now() -> None:
    transcript, words = heard((CALLER, "Book it.")), [""]
    transcript.told(lambda: words[0])
    assert transcript.turns() == (HistoryTurn(CALLER, "Book it."),)
    for words[0] in ("[begun]", "[over]"):
        assert transcript.turns()[1:] == (HistoryTurn(CALLER, words[0], note=True),)


def test_what_the_caller_typed_is_not_heard_again_and_stays() -> None:
    transcript = heard((MODEL, "Your number?"), (CALLER, "One moment."))
    typed(transcript)
    assert transcript.turns(without_caller=True) == (HistoryTurn(MODEL, "Your number?"), KEYS)
    transcript.add(CALLER, "That is it.")
    assert transcript.turns(without_caller=True) == (HistoryTurn(MODEL, "Your number?"), KEYS)
    assert len(transcript.turns()) == 4, "asking takes nothing away"


def test_words_about_which_the_model_did_something_are_not_his_last() -> None:
    transcript = heard((CALLER, "A table for two."))
    booked(transcript)
    assert transcript.turns(without_caller=True) == (HistoryTurn(CALLER, "A table for two."), TOOL)
    transcript.add(CALLER, "Thanks, and")
    assert transcript.turns(without_caller=True) == (HistoryTurn(CALLER, "A table for two."), TOOL)


def test_notes_of_another_conversation_are_notes_here() -> None:
    before = heard((CALLER, "A table."))
    booked(before)
    typed(before)
    transcript = Transcript()
    transcript.begin_with(before.turns())
    transcript.add(CALLER, "For two.")
    said = (HistoryTurn(CALLER, "A table."), TOOL, KEYS, HistoryTurn(CALLER, "For two."))
    assert transcript.turns() == said
    assert transcript.turns(without_caller=True) == said[:-1]


def test_notes_keep_to_the_bounds_too() -> None:
    transcript = heard((CALLER, "Hello."))
    for number in range(MAX_TURNS + 3):
        transcript.told(lambda number=number: str(number))
    assert [turn.text for turn in transcript.turns()] == [str(n) for n in range(3, MAX_TURNS + 3)]
    for _ in range(17):
        transcript.told(lambda: "x" * 1000)
    turns = transcript.turns()
    assert sum(len(turn.text) for turn in turns) <= MAX_CHARS
    assert [turn.text for turn in turns] == ["x" * 1000] * (MAX_CHARS // 1000)


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("pin 4711.", "pin ***."),
        ("4 7 1-1 and 47/11", "*** and ***"),
        ('["4", "7", "1", "1"]', '["***"]'),
        ("14711 47112 471", "14711 47112 471"),
    ],
)
def test_secret_keys_are_shown_by_no_note(told: str, shown: str) -> None:
    transcript = heard((MODEL, "4711?"))
    transcript.told(lambda: told)
    transcript.hide("4711")
    transcript.hide("12*#")
    assert [turn.text for turn in transcript.turns()] == ["4711?", shown]


def test_no_secret_takes_long_to_look_for() -> None:
    transcript = Transcript()
    transcript.told(lambda: "*" * 1000 + "1")
    transcript.hide("*" * 128)
    assert transcript.turns()[0].text.startswith("***")


@pytest.mark.parametrize("discreet", [False, True])
def test_whoever_notes_a_call_learns_whether_to_be_discreet(discreet: bool) -> None:
    transcript = Transcript()
    transcript.done(lambda discreetly: f"[{discreetly}]")
    transcript.discreet = discreet
    assert transcript.turns()[0].text == f"[{discreet}]"


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
    kept = "".join("".join(turn.texts) for turn in transcript._turns)
    assert everything.endswith(kept)
    assert len(kept) <= MAX_CHARS
    assert transcript._chars == len(kept)
    if len(everything) <= MAX_CHARS:
        assert kept == everything
    speakers = [turn.speaker for turn in transcript._turns]
    assert all(one is not other for one, other in pairwise(speakers))
