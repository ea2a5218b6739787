"""Does the model answer? Every fault, every remedy, and everything that is none of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ari_gemini.call.model_watch import (
    AUDIBLE_DBFS,
    AUDIBLE_MS,
    LONGEST_PAUSE,
    MAX_TEXT_CHARS,
    RESPITE_SECONDS,
    SECOND_THOUGHT,
    Fault,
    ModelWatch,
    Remedy,
    StallSettings,
)

NUDGE, RECONNECT, GIVE_UP = Remedy.NUDGE, Remedy.RECONNECT, Remedy.GIVE_UP
LOUD, SILENT = -20.0, -65.0


def watch(**settings: object) -> ModelWatch:
    return ModelWatch(StallSettings(**settings))


def spoken(at: float = 0.0, **settings: object) -> ModelWatch:
    """The caller has just ended his sentence."""
    model = watch(**settings)
    model.caller_started(at - 1)
    model.caller_stopped(at)
    return model


def acts(model: ModelWatch, until: float) -> list[tuple[float, Remedy | None]]:
    """What ``act`` says whenever it is due, up to then."""
    done = []
    while (due := model.due_at()) is not None and due <= until:
        assert model.act(due - 1e-6) is None, "not before"
        done.append((due, model.act(due)))
    return done


# The clock.


def test_a_model_that_never_answers() -> None:
    model = spoken(10.0)
    assert model.owes
    assert acts(model, 1000) == [(18.0, NUDGE), (26.0, RECONNECT), (34.0, GIVE_UP)]
    assert model.faults == {Fault.STALL: 3}
    assert model.remedies == {NUDGE: 1, RECONNECT: 1, GIVE_UP: 1}
    model.asked(40.0)
    assert not model.owes
    assert model.due_at() is None, "given up is given up"


def test_an_answer_in_time() -> None:
    model = spoken()
    model.model_audio(7.9, LOUD, 40)
    assert not model.owes
    model.generation_complete(8.0)
    model.played_out(9.0)
    model.turn_complete(9.1, None)
    assert acts(model, 1000) == []
    assert model.faults == {}


def test_after_an_answer_it_begins_with_a_nudge_again() -> None:
    model = spoken()
    assert acts(model, 17) == [(8.0, NUDGE), (16.0, RECONNECT)]
    model.model_audio(18.0, LOUD, 40)
    model.generation_complete(18.5)
    model.played_out(19.0)
    model.asked(20.0)
    assert acts(model, 28) == [(28.0, NUDGE)]


def test_when_a_waiting_caller_is_to_hear_that_the_line_lives() -> None:
    assert watch().comfort_at() is None
    assert spoken(10.0).comfort_at() == 12.5
    assert spoken(10.0, comfort_after=0).comfort_at() is None
    assert spoken(10.0, stall_after=0).comfort_at() is None
    model = spoken(10.0)
    model.model_audio(11.0, LOUD, 40)
    assert model.comfort_at() is None
    model.played_out(13.0)
    assert model.comfort_at() == 14.0, "silence in mid-turn is never meant"
    model.session_lost(13.5)
    assert model.comfort_at() is None, "whoever looks for a new one sees to that"


def test_nobody_owes_anything_at_the_beginning() -> None:
    assert watch().due_at() is None
    assert watch().act(1e9) is None


def test_a_greeting_is_owed() -> None:
    model = watch()
    model.asked(3.0)
    assert model.due_at() == 11.0


def test_switched_off() -> None:
    model = spoken(stall_after=0)
    model.asked(1.0)
    model.interrupted(1.0)
    assert not model.owes
    assert model.due_at() is None
    model.model_audio(2.0, LOUD, 40)
    assert model.heard, "that is known all the same"


def test_budgets_come_back_to_a_model_that_has_answered_for_long() -> None:
    model, at = watch(max_nudges=1, max_reconnects=0), 0.0
    for _ in range(3):
        at += RESPITE_SECONDS
        model.asked(at)
        assert acts(model, at + 8) == [(at + 8, NUDGE)]
        model.model_audio(at + 9, LOUD, 40)
        model.generation_complete(at + 9.1)
        model.played_out(at + 10)
    at += RESPITE_SECONDS / 2
    model.asked(at)
    assert acts(model, at + 8) == [(at + 8, GIVE_UP)]
    assert model.remedies == {NUDGE: 3, GIVE_UP: 1}, "all of them are told"


def test_budgets_of_a_former_worker_come_back_too() -> None:
    model = watch(max_nudges=1, max_reconnects=1)
    model.remedies[NUDGE] = 1
    model.asked(0.0)
    assert acts(model, 8) == [(8.0, RECONNECT)]
    model.model_audio(9.0, LOUD, 40)
    model.generation_complete(9.1)
    model.played_out(10.0)
    model.asked(8.0 + RESPITE_SECONDS)
    assert acts(model, 16 + RESPITE_SECONDS) == [(16 + RESPITE_SECONDS, NUDGE)]


def test_budgets_are_for_so_long() -> None:
    model = watch(max_nudges=1, max_reconnects=1)
    model.asked(0.0)
    assert acts(model, 8) == [(8.0, NUDGE)]
    model.model_audio(9.0, LOUD, 40)
    model.generation_complete(9.1)
    model.played_out(10.0)
    model.asked(20.0)
    assert acts(model, 28) == [(28.0, RECONNECT)], "no nudge is left"
    model.model_audio(29.0, LOUD, 40)
    model.generation_complete(29.1)
    model.played_out(30.0)
    model.asked(40.0)
    assert acts(model, 48) == [(48.0, GIVE_UP)], "nor anything else"


def test_what_only_our_own_ears_heard_never_ends_a_call_by_itself() -> None:
    model = spoken(max_nudges=0, max_reconnects=0)
    assert acts(model, 100) == [(8.0, None)]
    assert not model.owes
    assert model.faults == {Fault.STALL: 1}
    model.asked(100.0)
    assert acts(model, 200) == [(108.0, GIVE_UP)], "a text wants an answer"


# What the clock rests for.


def test_it_rests_while_the_caller_speaks() -> None:
    model = spoken()
    model.caller_started(1.0)
    assert model.owes
    assert model.due_at() is None
    model.caller_stopped(60.0)
    assert model.due_at() == 68.0


@pytest.mark.parametrize(("pause", "due"), [(LONGEST_PAUSE - 0.1, 8.0), (LONGEST_PAUSE, 6.0), (5.0, 3.0)])
def test_pauses_are_no_waiting_but_longer_silences_add_up(pause: float, due: float) -> None:
    model = spoken()
    model.caller_started(pause)
    model.caller_stopped(pause + 1)
    assert model.due_at() == pause + 1 + due


def test_whoever_says_hello_again_and_again_is_not_left_alone() -> None:
    model, at = spoken(), 0.0
    while model.due_at() > at + 3:
        model.caller_started(at + 3)
        model.caller_stopped(at + 4)
        at += 4
    assert at == 8.0, "two greetings later"
    assert acts(model, 20) == [(at + LONGEST_PAUSE, NUDGE), (at + LONGEST_PAUSE + 8, RECONNECT)]


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (lambda m, at: m.tools_busy(at, True), lambda m, at: m.tools_busy(at, False)),
        (lambda m, at: m.session_lost(at), lambda m, at: m.session_changed(at)),
        (lambda m, at: m.away(at, True), lambda m, at: m.away(at, False)),
    ],
    ids=["tools", "session", "away"],
)
def test_it_rests_and_begins_anew(begin, end) -> None:
    model = spoken()
    begin(model, 5.0)
    assert model.due_at() is None
    end(model, 100.0)
    assert model.due_at() == 108.0
    quiet = watch()
    begin(quiet, 5.0)
    end(quiet, 100.0)
    assert quiet.due_at() is None, "nothing was owed before"


def test_two_rests_end_with_the_later() -> None:
    model = spoken()
    model.tools_busy(1.0, True)
    model.session_lost(2.0)
    model.tools_busy(3.0, False)
    assert model.due_at() is None
    model.session_changed(4.0)
    assert model.due_at() == 12.0


def test_a_new_connection_without_word_of_the_loss() -> None:
    model = spoken()
    model.session_changed(7.0)
    assert model.due_at() == 15.0


def test_an_end_of_speech_that_had_no_beginning_owes_nothing() -> None:
    model = watch()
    model.caller_stopped(1.0)
    assert not model.owes


def test_a_murmur_while_the_model_is_heard_owes_nothing() -> None:
    model = spoken()
    model.model_audio(1.0, LOUD, 400)
    model.caller_started(2.0)
    model.caller_stopped(2.5)
    model.generation_complete(3.0)
    model.played_out(10.0)
    assert not model.owes


def test_a_barge_in_owes_an_answer() -> None:
    model = spoken()
    model.model_audio(1.0, LOUD, 400)
    model.caller_started(2.0)
    model.interrupted(2.2)
    assert model.due_at() is None
    model.caller_stopped(4.0)
    model.turn_complete(4.1, None)
    assert model.due_at() == 12.0
    assert model.faults == {}, "an interrupted turn is not empty"


def test_an_interruption_that_our_ears_missed() -> None:
    model = spoken()
    model.model_audio(1.0, LOUD, 400)
    model.interrupted(2.0)
    model.turn_complete(2.1, None)
    assert model.due_at() == 10.0


def test_the_model_keeps_silent_on_purpose() -> None:
    model = spoken()
    model.waiting_for_input(1.0)
    model.turn_complete(1.1, None)
    assert not model.owes
    assert model.faults == {}


def test_it_freezes_in_the_middle_of_a_sentence() -> None:
    model = spoken()
    model.model_audio(1.0, LOUD, 400)
    model.played_out(1.4)
    assert acts(model, 10) == [(9.4, NUDGE)]
    model.model_audio(10.0, LOUD, 400)
    model.generation_complete(10.1)
    model.played_out(10.5)
    assert not model.owes


def test_the_end_of_a_turn_ends_the_debt_for_its_rest_and_no_other() -> None:
    model = spoken()
    model.model_audio(1.0, LOUD, 400)
    model.played_out(1.4)
    assert model.owes
    model.turn_complete(2.0, None)
    assert not model.owes
    model.model_audio(3.0, LOUD, 400)
    model.played_out(3.4)
    model.asked(4.0)
    model.turn_complete(4.1, None)
    assert model.owes, "the text has not been answered"


def test_a_connection_that_drops_in_mid_turn_owes_the_rest() -> None:
    model = spoken()
    model.model_audio(1.0, LOUD, 400)
    model.session_lost(1.1)
    model.played_out(1.4)
    model.session_changed(3.0)
    assert model.due_at() == 11.0


# Turns that end in nothing.


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        (None, Fault.EMPTY_TURN),
        ("TURN_COMPLETE_REASON_UNSPECIFIED", Fault.EMPTY_TURN),
        ("RESPONSE_REJECTED", Fault.REJECTED),
        ("PROHIBITED_INPUT_CONTENT", Fault.REJECTED),
        ("MALFORMED_FUNCTION_CALL", Fault.REJECTED),
        ("SOMETHING_TO_COME", Fault.REJECTED),
    ],
)
def test_a_turn_without_a_sound(reason: str | None, fault: Fault) -> None:
    model = spoken()
    model.turn_complete(1.0, reason)
    assert model.faults == {fault: 1}
    assert acts(model, 2) == [(1.0 + SECOND_THOUGHT, NUDGE)]
    assert model.last_fault is fault
    model.turn_complete(3.0, reason)
    model.turn_complete(3.1, reason)
    assert acts(model, 4) == [(3.0 + SECOND_THOUGHT, RECONNECT)], "two in a row are one occasion"
    assert model.faults == {fault: 3}


def test_the_model_wants_to_hear_more() -> None:
    model = spoken()
    model.turn_complete(1.0, "NEED_MORE_INPUT")
    assert not model.owes
    assert model.faults == {}


def test_an_empty_turn_that_nobody_waited_for() -> None:
    model = watch()
    model.turn_complete(1.0, None)
    assert model.faults == {}
    model.turn_complete(2.0, "RESPONSE_REJECTED")
    assert model.faults == {Fault.REJECTED: 1}, "the service says itself that it is a fault"
    assert model.due_at() is None


@pytest.mark.parametrize(
    "second_thought",
    [
        lambda m: m.waiting_for_input(1.2),
        lambda m: m.model_audio(1.2, LOUD, 40),
        lambda m: m.caller_started(1.2),
        lambda m: m.tools_busy(1.2, True),
        lambda m: m.session_lost(1.2),
    ],
    ids=["on purpose", "answer", "caller", "tools", "lost"],
)
def test_what_takes_an_empty_turn_back(second_thought) -> None:
    model = spoken()
    model.turn_complete(1.0, None)
    second_thought(model)
    assert model.due_at() is None
    assert model.act(2.0) is None


def test_a_tool_that_is_called_in_a_silent_turn() -> None:
    model = spoken()
    model.tools_busy(1.0, True)
    model.tools_busy(1.001, False)  # quicker than the word of the turn's end
    model.asked(1.001)
    model.turn_complete(1.002, None)
    assert model.faults == {}
    assert model.due_at() == pytest.approx(9.001), "but now the model must speak"
    model.turn_complete(2.0, None)
    assert model.faults == {Fault.EMPTY_TURN: 1}


def test_a_second_tool_while_the_first_works() -> None:
    model = spoken()
    model.tools_busy(1.0, True)
    model.turn_complete(1.1, None)
    model.tool_called(2.0)
    model.tools_busy(2.0, False)
    model.turn_complete(2.1, None)
    assert model.faults == {}


def test_the_end_of_an_audible_turn_comes_late() -> None:
    model = spoken()
    model.model_audio(1.0, LOUD, 400)
    model.generation_complete(1.1)
    model.played_out(1.5)
    model.caller_started(1.6)
    model.caller_stopped(2.0)
    model.turn_complete(2.1, None)
    assert model.faults == {}
    assert model.due_at() == 10.0


# Sound that nobody can hear.


@pytest.mark.parametrize(
    "end", [lambda m: m.generation_complete(2.0), lambda m: m.turn_complete(2.0, None)], ids=["all", "turn"]
)
def test_a_turn_of_silence(end) -> None:
    model = spoken()
    for _ in range(100):
        model.model_audio(1.0, SILENT, 320)
    assert model.owes
    assert not model.heard
    end(model)
    assert model.faults == {Fault.SILENT_AUDIO: 1}
    assert acts(model, 3) == [(2.0 + SECOND_THOUGHT, NUDGE)]
    model.turn_complete(3.0, None)
    faults = dict(model.faults)
    assert faults[Fault.SILENT_AUDIO] == 1, "counted once"


def test_its_end_is_judged_once() -> None:
    model = spoken()
    model.model_audio(1.0, SILENT, 320)
    model.generation_complete(2.0)
    model.turn_complete(2.1, None)
    assert model.faults == {Fault.SILENT_AUDIO: 1}


def test_silence_does_not_stop_the_clock() -> None:
    model = spoken()
    for at in range(8):
        model.model_audio(float(at), SILENT, 1000)
    assert acts(model, 8) == [(8.0, NUDGE)]


@pytest.mark.parametrize(
    ("level", "ms", "audible"),
    [
        (AUDIBLE_DBFS, AUDIBLE_MS, True),
        (AUDIBLE_DBFS - 0.1, 10_000, False),
        (0.0, AUDIBLE_MS - 0.1, False),
        (-24.0, 40, True),
    ],
)
def test_what_is_audible(level: float, ms: float, audible: bool) -> None:
    model = spoken()
    model.model_audio(1.0, level, ms)
    assert model.heard is audible
    assert model.owes is not audible


def test_silence_around_speech_is_no_fault() -> None:
    model = spoken()
    model.model_audio(1.0, SILENT, 100)
    model.model_audio(1.1, LOUD, 100)
    model.model_audio(1.2, SILENT, 100)
    model.generation_complete(1.3)
    model.turn_complete(1.4, None)
    assert model.faults == {}


def test_sound_need_be_measured_only_until_it_is_known_to_be_audible() -> None:
    model = spoken()
    assert model.listening
    model.model_audio(1.0, LOUD, 10)
    assert model.listening
    model.model_audio(1.1, LOUD, 10)
    assert not model.listening
    model.played_out(1.2)
    assert model.listening, "a gap: whether it goes on matters"
    model.model_audio(1.3, LOUD, 10)
    assert not model.listening
    model.generation_complete(1.4)
    model.turn_complete(1.5, None)
    assert model.heard
    assert model.listening, "the next turn comes while this one is still played"
    model.model_audio(1.6, SILENT, 100)
    model.turn_complete(1.7, None)
    assert model.faults == {Fault.SILENT_AUDIO: 1}


def test_a_new_turn_after_an_interruption_whose_end_was_lost() -> None:
    model = spoken()
    model.model_audio(1.0, LOUD, 40)
    model.interrupted(1.1)
    model.model_audio(2.0, SILENT, 40)
    model.turn_complete(2.1, None)
    assert model.faults == {Fault.SILENT_AUDIO: 1}


# Settings.


@pytest.mark.parametrize(
    "wrong",
    [
        {"stall_after": LONGEST_PAUSE - 0.1},
        {"stall_after": -1},
        {"stall_after": 301},
        {"stall_after": float("nan")},
        {"nudge": "  "},
        {"nudge": "x" * (MAX_TEXT_CHARS + 1)},
        {"max_nudges": -1},
        {"max_reconnects": 101},
        {"nudges": 1},
    ],
)
def test_settings_that_make_no_sense(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        StallSettings(**wrong)


def test_settings_at_their_ends() -> None:
    assert StallSettings(stall_after=LONGEST_PAUSE, nudge=" Answer. ").nudge == "Answer."
    assert StallSettings(stall_after=0, max_nudges=0, max_reconnects=0).stall_after == 0


# Whatever happens.

EVENTS = {
    "caller_started": [()],
    "caller_stopped": [()],
    "asked": [()],
    "model_audio": [(LOUD, 40.0), (SILENT, 40.0), (LOUD, 5.0)],
    "generation_complete": [()],
    "turn_complete": [(None,), ("RESPONSE_REJECTED",), ("NEED_MORE_INPUT",)],
    "interrupted": [()],
    "waiting_for_input": [()],
    "tools_busy": [(True,), (False,)],
    "tool_called": [()],
    "session_lost": [()],
    "session_changed": [()],
    "away": [(True,), (False,)],
    "played_out": [()],
}
EVENT = st.sampled_from([(name, args) for name, all_args in EVENTS.items() for args in all_args])
STORY = st.lists(st.tuples(st.floats(0, 20), EVENT), max_size=60)


@given(
    STORY,
    st.builds(
        StallSettings,
        stall_after=st.sampled_from([0.0, 2.0, 8.0]),
        max_nudges=st.integers(0, 3),
        max_reconnects=st.integers(0, 2),
    ),
)
def test_no_story_costs_more_than_the_budgets(story: list, settings: StallSettings) -> None:
    model, now = ModelWatch(settings), 0.0
    given_up = 0
    for pause, (name, args) in story:
        now += pause
        before = model.due_at()
        remedy = model.act(now)
        assert remedy is None or (before is not None and before <= now)
        after = model.due_at()
        assert after is None or after > now, "never due again at once"
        given_up += remedy is GIVE_UP
        getattr(model, name)(now, *args)
        assert model.due_at() is None or model.owes
        assert not (given_up and model.owes)
    assert given_up <= 1
    times = 1 + now // RESPITE_SECONDS
    assert model.remedies[NUDGE] <= settings.max_nudges * times
    assert model.remedies[RECONNECT] <= settings.max_reconnects * times
    assert sum(model.remedies.values()) <= sum(model.faults.values())
    if not settings.stall_after:
        assert not model.remedies


@given(STORY)
def test_what_is_settled_never_fires(story: list) -> None:
    model, now = watch(), 0.0
    for pause, (name, args) in story:
        now += pause
        getattr(model, name)(now, *args)
        model.act(now)
    model.model_audio(now, LOUD, AUDIBLE_MS)
    model.generation_complete(now)
    model.played_out(now)
    for rest in ("tools_busy", "away"):
        getattr(model, rest)(now, False)
    assert model.due_at() is None
    assert model.act(now + 1e6) is None


@given(STORY)
def test_a_dead_model_is_always_found_out(story: list) -> None:
    """Whatever was before: rested, asked and silent it is given up within three periods."""
    model, now = watch(), 0.0
    for pause, (name, args) in story:
        now += pause
        getattr(model, name)(now, *args)
    model.session_changed(now)
    model.tools_busy(now, False)
    model.away(now, False)
    model.caller_stopped(now)
    model.played_out(now)
    model.asked(now)
    if not model.remedies[GIVE_UP]:
        assert acts(model, now + 24.1)[-1][1] is GIVE_UP
