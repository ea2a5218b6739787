"""How long may a caller be silent, and a call last: prompts, goodbyes, ends, and what keeps them away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ari_gemini.call.caller_watch import (
    GOODBYE_TAIL,
    MAX_PROMPTS,
    Action,
    Busy,
    CallerLimits,
    CallerWatch,
    EndCall,
    TellModel,
)
from ari_gemini.errors import Cause

TEXTS = {
    "no_input_prompts": ("one", "two"),
    "no_input_goodbye": "bye",
    "duration_warning": "soon",
    "duration_goodbye": "late",
}
ONE, TWO, BYE, SOON, LATE = (TellModel(text) for text in ("one", "two", "bye", "soon", "late"))
NO_INPUT = EndCall(Cause.NO_INPUT, "no word from the caller")
TOO_LONG = EndCall(Cause.MAX_DURATION, "600 s are over")
DEAD = EndCall(Cause.MAX_SILENCE, "neither side was heard for 120 s")


def limits(**settings: object) -> CallerLimits:
    return CallerLimits(**{"max_duration": 0, "max_silence": 0, **TEXTS, **settings})


def watch(at: float = 0.0, **settings: object) -> CallerWatch:
    caller = CallerWatch(limits(**settings))
    caller.begin(at)
    return caller


def acts(caller: CallerWatch, until: float) -> list[tuple[float, Action]]:
    """What ``act`` says whenever it is due, up to then."""
    done = []
    while (due := caller.due_at()) is not None and due <= until:
        assert caller.act(due - 1e-6) == [], "not before"
        actions = caller.act(due)
        assert actions, "due for something"
        done += [(due, action) for action in actions]
    return done


def says(caller: CallerWatch, begin: float, end: float) -> None:
    caller.model_started(begin)
    caller.model_stopped(end)


# No input.


def test_a_silent_caller_is_asked_twice_and_then_let_go() -> None:
    caller = watch(10.0)
    assert acts(caller, 1000) == [(25.0, ONE), (40.0, TWO), (55.0, BYE), (75.0, NO_INPUT)]
    caller.caller_started(80.0)
    caller.caller_stopped(81.0)
    assert caller.due_at() is None, "over is over"


def test_each_prompt_is_heard_out_before_the_next_period_begins() -> None:
    caller = watch()
    assert acts(caller, 15) == [(15.0, ONE)]
    says(caller, 17.0, 20.0)
    assert acts(caller, 35) == [(35.0, TWO)]
    says(caller, 37.0, 40.0)
    assert acts(caller, 55) == [(55.0, BYE)]
    assert caller.ending is Cause.NO_INPUT
    says(caller, 57.0, 58.0)
    assert acts(caller, 100) == [(58.0 + GOODBYE_TAIL, NO_INPUT)]


def test_a_goodbye_may_draw_breath() -> None:
    caller = watch(no_input_prompts=())
    assert acts(caller, 15) == [(15.0, BYE)]
    says(caller, 16.0, 17.0)
    assert caller.due_at() == 17.0 + GOODBYE_TAIL
    caller.model_started(17.5)
    assert caller.due_at() == 35.0, "at the latest"
    caller.model_stopped(20.0)
    assert acts(caller, 100) == [(20.0 + GOODBYE_TAIL, NO_INPUT)]


def test_a_goodbye_without_end() -> None:
    caller = watch(no_input_prompts=(), goodbye_timeout=5)
    acts(caller, 15)
    caller.model_started(16.0)
    assert acts(caller, 100) == [(20.0, NO_INPUT)]


@pytest.mark.parametrize(
    "back",
    [
        lambda c, at: c.caller_started(at),
        lambda c, at: c.caller_active(at),
        lambda c, at: c.interrupted(at),
        lambda c, at: c.busy(at, Busy.AWAY, True),
    ],
    ids=["speaks", "key", "interrupts", "transferred"],
)
def test_a_caller_who_comes_back_is_kept(back) -> None:
    caller = watch(no_input_prompts=())
    acts(caller, 15)
    caller.model_started(16.0)
    back(caller, 16.5)
    assert caller.ending is None
    caller.model_stopped(17.0)
    caller.caller_stopped(18.0)
    caller.busy(18.0, Busy.AWAY, False)
    assert acts(caller, 31.4) == []


def test_with_his_next_word_the_first_prompt_s_turn_comes_again() -> None:
    caller = watch()
    assert acts(caller, 30) == [(15.0, ONE), (30.0, TWO)]
    caller.caller_started(31.0)
    assert caller.due_at() is None
    caller.caller_stopped(33.0)
    assert acts(caller, 48) == [(48.0, ONE)]


def test_an_end_of_speech_that_had_no_beginning_means_nothing() -> None:
    caller = watch()
    caller.caller_stopped(14.0)
    assert caller.due_at() == 15.0


def test_while_the_model_is_heard_it_is_not_his_turn() -> None:
    caller = watch()
    caller.model_started(1.0)
    assert caller.due_at() is None
    caller.model_stopped(100.0)
    assert caller.due_at() == 115.0
    caller.model_stopped(110.0)
    assert caller.due_at() == 115.0, "it had ended before"


def test_an_interruption_gives_him_the_turn() -> None:
    caller = watch()
    caller.model_started(1.0)
    caller.interrupted(10.0)
    assert caller.due_at() == 25.0


@pytest.mark.parametrize("why", Busy)
def test_whatever_else_goes_on(why: Busy) -> None:
    caller = watch()
    caller.busy(1.0, why, True)
    assert caller.due_at() is None
    caller.busy(100.0, why, False)
    assert caller.due_at() == 115.0
    caller.busy(110.0, why, False)
    assert caller.due_at() == 115.0


def test_two_reasons_end_with_the_later() -> None:
    caller = watch()
    caller.busy(1.0, Busy.TOOLS, True)
    caller.busy(2.0, Busy.ANSWER, True)
    caller.busy(3.0, Busy.TOOLS, False)
    assert caller.due_at() is None
    caller.busy(4.0, Busy.ANSWER, False)
    assert caller.due_at() == 19.0


def test_nothing_runs_before_the_beginning() -> None:
    caller = CallerWatch(limits(max_duration=600, max_silence=120))
    caller.caller_started(1.0)
    caller.caller_stopped(2.0)
    assert caller.due_at() is None
    assert caller.act(1e6) == []
    caller.begin(1e6)
    caller.begin(2e6)
    assert caller.due_at() == 1e6 + 15


def test_switched_off() -> None:
    caller = watch(no_input_after=0)
    assert caller.due_at() is None
    assert caller.act(1e6) == []


# Duration.


def long(**settings: object) -> CallerWatch:
    return watch(**{"max_duration": 600, "no_input_after": 0, **settings})


def test_a_call_that_lasts_too_long() -> None:
    assert acts(long(), 1000) == [(540.0, SOON), (600.0, LATE), (620.0, TOO_LONG)]


def test_without_a_warning() -> None:
    assert acts(long(warn_before=0), 1000) == [(600.0, LATE), (620.0, TOO_LONG)]


def test_it_ends_with_the_goodbye_though_the_caller_speaks() -> None:
    caller = long(warn_before=0)
    acts(caller, 600)
    assert caller.ending is Cause.MAX_DURATION
    caller.caller_started(601.0)
    caller.interrupted(602.0)
    says(caller, 603.0, 604.0)
    assert acts(caller, 1000) == [(604.0 + GOODBYE_TAIL, TOO_LONG)]


def test_the_model_is_not_interrupted_for_the_goodbye() -> None:
    caller = long(warn_before=0)
    caller.model_started(595.0)
    assert caller.due_at() == 620.0
    caller.model_stopped(610.0)
    assert acts(caller, 610) == [(600.0, LATE)], "at once"
    says(caller, 611.0, 612.0)
    assert acts(caller, 1000) == [(612.0 + GOODBYE_TAIL, TOO_LONG)]


def test_nor_taken_at_another_word() -> None:
    caller = long(warn_before=0)
    caller.busy(599.0, Busy.ANSWER, True)
    assert caller.due_at() == 620.0
    caller.model_started(601.0)
    caller.busy(601.0, Busy.ANSWER, False)
    assert caller.act(601.0) == []
    caller.model_stopped(605.0)
    assert caller.act(605.0) == [LATE]


def test_the_limit_is_hard() -> None:
    caller = long(warn_before=0)
    caller.model_started(1.0)
    caller.caller_started(1.0)
    caller.busy(1.0, Busy.AWAY, True)
    assert acts(caller, 1000) == [(620.0, TOO_LONG)]


def test_a_goodbye_that_came_late_is_cut_off_at_the_limit() -> None:
    caller = long(warn_before=0)
    caller.model_started(1.0)
    caller.model_stopped(615.0)
    assert caller.act(615.0) == [LATE]
    assert acts(caller, 1000) == [(620.0, TOO_LONG)]


def test_no_other_party_hears_of_it() -> None:
    caller = long()
    caller.busy(500.0, Busy.AWAY, True)
    assert caller.act(560.0) == []
    caller.busy(570.0, Busy.AWAY, False)
    assert caller.act(570.0) == [SOON]


def test_silence_at_the_limit() -> None:
    caller = long(no_input_after=595, no_input_prompts=())
    assert acts(caller, 595) == [(540.0, SOON), (595.0, BYE)]
    assert acts(caller, 1000) == [(600.0, LATE), (620.0, TOO_LONG)]


def test_two_things_at_once() -> None:
    caller = long(no_input_after=15)
    assert caller.act(541.0) == [ONE, SOON]


# Silence.


def test_a_dead_call_ends() -> None:
    assert acts(watch(no_input_after=0, max_silence=120), 1000) == [(120.0, DEAD)]


def test_though_the_model_owes_an_answer() -> None:
    caller = watch(no_input_after=0, max_silence=120)
    caller.caller_started(10.0)
    caller.caller_stopped(11.0)
    caller.busy(11.0, Busy.ANSWER, True)
    caller.busy(50.0, Busy.ANSWER, False)
    assert acts(caller, 1000) == [(131.0, DEAD)]


@pytest.mark.parametrize("why", [Busy.TOOLS, Busy.AWAY])
def test_but_not_while_he_hears_something_else(why: Busy) -> None:
    caller = watch(no_input_after=0, max_silence=120)
    caller.busy(10.0, why, True)
    assert caller.due_at() is None
    caller.busy(500.0, why, False)
    assert caller.due_at() == 620.0


def test_whoever_is_heard_keeps_the_call_alive() -> None:
    caller = watch(no_input_after=0, max_silence=120)
    caller.caller_started(100.0)
    assert caller.due_at() is None
    caller.caller_stopped(300.0)
    caller.model_started(400.0)
    assert caller.due_at() is None
    caller.model_stopped(500.0)
    caller.caller_active(600.0)
    assert caller.due_at() == 720.0


def test_a_model_that_says_none_of_the_prompts() -> None:
    caller = watch(max_silence=120, no_input_after=50)
    assert acts(caller, 1000) == [(50.0, ONE), (100.0, TWO), (120.0, DEAD)]


# Settings.


@pytest.mark.parametrize(
    "wrong",
    [
        {"no_input_after": 0.5},
        {"no_input_after": -1},
        {"max_duration": 86_401},
        {"max_duration": 60},
        {"max_duration": 600, "warn_before": 600},
        {"max_silence": 15},
        {"max_silence": float("nan")},
        {"goodbye_timeout": 0},
        {"no_input_prompts": ("",)},
        {"no_input_prompts": ("x",) * (MAX_PROMPTS + 1)},
        {"no_input_goodbye": " "},
        {"duration_warning": "x" * 2001},
        {"silence": 1},
    ],
)
def test_settings_that_make_no_sense(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        CallerLimits(**wrong)


def test_settings_at_their_ends() -> None:
    CallerLimits(max_duration=0, no_input_after=0, max_silence=1)
    CallerLimits(max_duration=1, warn_before=0, no_input_prompts=["a"] * MAX_PROMPTS)
    CallerLimits(max_silence=0)


# Whatever happens.

EVENTS = [
    ("caller_started", ()),
    ("caller_stopped", ()),
    ("caller_active", ()),
    ("model_started", ()),
    ("model_stopped", ()),
    ("interrupted", ()),
    *(("busy", (why, is_busy)) for why in Busy for is_busy in (True, False)),
]
STORY = st.lists(st.tuples(st.floats(0, 60), st.sampled_from(EVENTS)), max_size=60)


@given(
    STORY,
    st.builds(
        CallerLimits,
        no_input_after=st.sampled_from([0.0, 1.0, 15.0]),
        no_input_prompts=st.sampled_from([(), ("one",), ("one", "two")]),
        max_duration=st.sampled_from([0.0, 61.0, 600.0]),
        max_silence=st.sampled_from([0.0, 16.0, 120.0]),
    ),
)
def test_every_story_ends_once_and_never_too_late(story: list, settings: CallerLimits) -> None:
    caller, now = CallerWatch(settings), 0.0
    caller.begin(now)
    done: list[Action] = []
    for pause, (name, args) in story:
        target = now + pause
        while (due := caller.due_at()) is not None and due <= target:
            now = max(now, due)  # what was put off is due at once when nothing is in its way any more
            actions = caller.act(now)
            assert actions
            after = caller.due_at()
            assert after is None or after > now, "never due again at once"
            done += actions
        now = target
        getattr(caller, name)(now, *args)
    ends = [action for action in done if isinstance(action, EndCall)]
    assert len(ends) <= 1
    if ends:
        assert done[-1] is ends[0]
        assert caller.due_at() is None
    last = settings.max_duration + settings.goodbye_timeout
    assert bool(ends) or not settings.max_duration or now <= last
    told = [action.text for action in done if isinstance(action, TellModel)]
    assert told.count(settings.duration_warning) <= bool(settings.max_duration)
    assert told.count(settings.duration_goodbye) <= bool(settings.max_duration)


@given(STORY)
def test_a_caller_who_says_nothing_more_is_let_go_whatever_was_before(story: list) -> None:
    caller, now = watch(), 0.0
    for pause, (name, args) in story:
        now += pause
        getattr(caller, name)(now, *args)
        if NO_INPUT in caller.act(now):
            return
    caller.caller_stopped(now)
    caller.model_stopped(now)
    for why in Busy:
        caller.busy(now, why, False)
    done = acts(caller, now + 80)
    assert done[-1][1] == NO_INPUT
