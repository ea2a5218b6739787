"""Who has the floor: the table says it, and is the table that the docstring draws."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_gemini.call import turn
from ari_gemini.call.turn import (
    LATE_AUDIO_LIMIT_MS,
    SILENCED_LIMIT_MS,
    TABLE,
    Action,
    Floor,
    Happening,
    State,
)


def test_the_table_is_the_one_in_the_docstring() -> None:
    rows = re.findall(r"^([A-Z]+) +([A-Z_]+) +([A-Z]+) +([A-Z_]+)$", turn.__doc__ or "", re.MULTILINE)
    drawn = {
        (State[state], Happening[happening]): (State[after], Action[action])
        for state, happening, after, action in rows
    }
    assert len(drawn) == len(rows)
    assert drawn == TABLE


@pytest.mark.parametrize(("state", "happening"), list(product(State, Happening)))
def test_every_pair_does_what_the_table_says(state: State, happening: Happening) -> None:
    floor = Floor()
    floor.state = state
    after, action = TABLE.get((state, happening), (state, Action.NOTHING))
    assert floor.happened(happening) is action
    assert floor.state is after


@pytest.mark.parametrize("state", State)
def test_an_interruption_clears_in_every_state(state: State) -> None:
    assert TABLE[state, Happening.INTERRUPTED] == (State.YIELDED, Action.CLEAR)


def yielded() -> Floor:
    floor = Floor()
    floor.audio(20.0)
    assert floor.happened(Happening.INTERRUPTED) is Action.CLEAR
    return floor


@pytest.mark.parametrize("end", [Happening.TURN_COMPLETE, Happening.CALLER_STOPPED])
def test_late_audio_is_discarded_until_the_dead_turn_is_over(end: Happening) -> None:
    floor = yielded()
    assert floor.audio(320.0) is Action.DISCARD
    assert floor.happened(Happening.GENERATION_COMPLETE) is Action.NOTHING
    assert floor.audio(40.0) is Action.DISCARD
    assert floor.discarded_ms == 360.0
    assert floor.happened(end) is Action.NOTHING
    assert floor.audio(20.0) is Action.PLAY
    assert floor.discarded_ms == 360.0


def test_up_to_the_limit_audio_is_late_and_beyond_it_a_new_turn() -> None:
    floor = yielded()
    assert floor.audio(LATE_AUDIO_LIMIT_MS) is Action.DISCARD
    assert floor.audio(0.1) is Action.PLAY
    assert floor.state is State.SPEAKING
    assert floor.discarded_ms == LATE_AUDIO_LIMIT_MS


def test_one_piece_longer_than_the_limit_is_played_whole() -> None:
    floor = yielded()
    assert floor.audio(LATE_AUDIO_LIMIT_MS + 1) is Action.PLAY
    assert floor.discarded_ms == 0.0


def test_the_limit_counts_anew_after_each_interruption() -> None:
    floor = yielded()
    floor.audio(900.0)
    assert floor.happened(Happening.INTERRUPTED) is Action.CLEAR
    assert floor.late_ms == 0.0
    assert floor.audio(900.0) is Action.DISCARD
    assert floor.discarded_ms == 1800.0


@pytest.mark.parametrize("state", State)
def test_cutting_off_clears_in_every_state_and_waits_for_the_end_of_what_is_being_said(state: State) -> None:
    after, action = TABLE[state, Happening.CUT_OFF]
    assert action is Action.CLEAR
    unfinished = state in (State.SPEAKING, State.SILENCED)
    yields = State.YIELDED if state is State.YIELDED else State.QUIET
    assert after is (State.SILENCED if unfinished else yields)


@pytest.mark.parametrize("end", [Happening.GENERATION_COMPLETE, Happening.TURN_COMPLETE])
def test_the_rest_of_a_turn_that_was_cut_off_is_discarded_and_the_next_one_heard(end: Happening) -> None:
    floor = Floor()
    floor.audio(20.0)
    assert floor.happened(Happening.CUT_OFF) is Action.CLEAR
    for _ in range(20):
        assert floor.audio(LATE_AUDIO_LIMIT_MS) is Action.DISCARD
        assert floor.happened(Happening.CALLER_STOPPED) is Action.NOTHING
    assert floor.happened(end) is Action.NOTHING
    assert floor.audio(20.0) is Action.PLAY
    assert floor.discarded_ms == 20 * LATE_AUDIO_LIMIT_MS


def test_what_is_said_when_nobody_spoke_is_not_cut_off() -> None:
    floor = Floor()
    floor.happened(Happening.CUT_OFF)
    assert floor.audio(20.0) is Action.PLAY


def test_a_model_that_learns_of_its_being_cut_off_has_yielded() -> None:
    floor = Floor()
    floor.audio(20.0)
    floor.happened(Happening.CUT_OFF)
    floor.audio(5000.0)
    assert floor.happened(Happening.INTERRUPTED) is Action.CLEAR
    assert floor.state is State.YIELDED
    assert floor.audio(LATE_AUDIO_LIMIT_MS) is Action.DISCARD
    assert floor.happened(Happening.TURN_COMPLETE) is Action.NOTHING
    assert floor.audio(20.0) is Action.PLAY


def test_a_turn_that_was_cut_off_and_never_ends_is_heard_in_the_end() -> None:
    floor = Floor()
    floor.audio(20.0)
    floor.happened(Happening.CUT_OFF)
    assert floor.audio(SILENCED_LIMIT_MS) is Action.DISCARD
    assert floor.audio(0.1) is Action.PLAY
    assert floor.state is State.SPEAKING


@pytest.mark.parametrize("state", State)
def test_after_a_loss_what_has_come_is_played_and_the_next_session_is_heard(state: State) -> None:
    floor = Floor()
    floor.state = state
    said_on = state is State.SPEAKING
    assert floor.happened(Happening.SESSION_LOST) is (Action.END_TURN if said_on else Action.NOTHING)
    assert floor.happened(Happening.SESSION_LOST) is Action.NOTHING
    assert floor.audio(20.0) is Action.PLAY
    assert floor.state is State.SPEAKING


@given(st.lists(st.one_of(st.sampled_from(Happening), st.floats(0.1, 500.0))))
def test_no_order_of_events_silences_the_model_for_longer_than_the_limit(story: list) -> None:
    floor = Floor()
    lost = 0.0
    for event in story:
        limit = SILENCED_LIMIT_MS if floor.state is State.SILENCED else LATE_AUDIO_LIMIT_MS
        if isinstance(event, float):
            action = floor.audio(event)
            assert action in (Action.PLAY, Action.DISCARD)
            lost = lost + event if action is Action.DISCARD else 0.0
            assert lost <= limit + 1e-6
        elif event is not Happening.MODEL_AUDIO and floor.happened(event) is Action.CLEAR:
            lost = 0.0
            assert floor.state in (State.YIELDED, State.SILENCED, State.QUIET)
