"""Who has the floor: the table says it, and is the table that the docstring draws."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_gemini.call import turn
from ari_gemini.call.turn import LATE_AUDIO_LIMIT_MS, TABLE, Action, Floor, Happening, State


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


@given(st.lists(st.one_of(st.sampled_from(Happening), st.floats(0.1, 500.0))))
def test_no_order_of_events_silences_the_model_for_longer_than_the_limit(story: list) -> None:
    floor = Floor()
    silenced = 0.0
    for event in story:
        if isinstance(event, float):
            action = floor.audio(event)
            assert action in (Action.PLAY, Action.DISCARD)
            silenced = silenced + event if action is Action.DISCARD else 0.0
            assert silenced <= LATE_AUDIO_LIMIT_MS + 1e-6
        elif event is not Happening.MODEL_AUDIO and floor.happened(event) is Action.CLEAR:
            silenced = 0.0
            assert floor.state is State.YIELDED
