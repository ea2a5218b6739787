"""Moments become turns: each end of speech, first sound and last frame finds the turn it belongs to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_gemini.telemetry.timeline import MAX_TURNS, Timeline, Turn


def test_a_turn_and_where_its_latency_came_from() -> None:
    timeline = Timeline()
    timeline.caller_started()
    timeline.endpointed(10.5)
    timeline.caller_stopped(10.0)
    assert timeline.model_audio(10.8) is True
    assert timeline.model_audio(10.9) is False
    timeline.first_frame(10.84)
    timeline.first_frame(10.86)
    timeline.turn_received()
    turn = timeline.turn_played(12.0, 1160.0)
    assert turn is timeline.turns[0]
    assert turn == Turn(1, 10.0, 10.5, 10.8, 10.84, 12.0, None, 1160.0)
    assert turn.latency_ms == pytest.approx(840)
    assert turn.endpointing_ms == pytest.approx(500)
    assert turn.thinking_ms == pytest.approx(300)
    assert turn.playout_ms == pytest.approx(40)
    assert turn.endpointing_ms + turn.thinking_ms + turn.playout_ms == pytest.approx(turn.latency_ms)


def test_without_the_providers_word_thinking_begins_with_the_callers_end() -> None:
    timeline = Timeline()
    timeline.caller_stopped(0.0)
    timeline.model_audio(1.0)
    (turn,) = timeline.turns
    assert turn.thinking_ms == 1000.0
    assert turn.endpointing_ms is None


def test_a_clock_may_begin_at_zero() -> None:
    assert Turn(1, caller_stopped=-1.0, endpointed=0.0, first_audio=1.0).thinking_ms == 1000.0


def test_a_greeting_answers_nobody() -> None:
    timeline = Timeline()
    timeline.model_audio(1.0)
    timeline.first_frame(1.04)
    (turn,) = timeline.turns
    assert (turn.latency_ms, turn.endpointing_ms, turn.thinking_ms) == (None, None, None)
    assert turn.playout_ms == pytest.approx(40)


def test_one_end_of_speech_leads_to_one_answer() -> None:
    timeline = Timeline()
    timeline.caller_stopped(1.0)
    timeline.endpointed(1.2)
    for at in (2.0, 3.0):
        timeline.model_audio(at)
        timeline.turn_played(at + 0.5, 100.0)
    first, second = timeline.turns
    assert (first.caller_stopped, first.endpointed) == (1.0, 1.2)
    assert (second.caller_stopped, second.endpointed) == (None, None)


def test_a_caller_who_goes_on_has_not_ended() -> None:
    timeline = Timeline()
    timeline.caller_stopped(1.0)
    timeline.endpointed(1.1)
    timeline.caller_started()
    timeline.model_audio(2.0)
    assert timeline.turns[0].caller_stopped is None
    assert timeline.turns[0].endpointed is None


def test_an_end_of_speech_that_is_certain_only_after_the_answer_began() -> None:
    """The detector waits 300 ms; a quick model does not."""
    timeline = Timeline()
    timeline.caller_started()
    timeline.model_audio(1.2)
    timeline.first_frame(1.24)
    timeline.turn_received()
    timeline.caller_stopped(1.0)
    assert timeline.turns[0].latency_ms == pytest.approx(240)
    timeline.turn_played(2.0, 760.0)
    timeline.model_audio(3.0)
    assert timeline.turns[1].caller_stopped is None, "it is used up"


def test_an_end_of_speech_after_the_answer_began_belongs_to_the_next() -> None:
    timeline = Timeline()
    timeline.model_audio(1.0)
    timeline.caller_started()
    timeline.caller_stopped(1.5)
    timeline.turn_played(2.0, 960.0)
    timeline.model_audio(3.0)
    first, second = timeline.turns
    assert (first.caller_stopped, second.caller_stopped) == (None, 1.5)


def test_the_next_answer_may_arrive_while_the_last_one_plays() -> None:
    timeline = Timeline()
    timeline.model_audio(1.0)
    timeline.first_frame(1.04)
    timeline.turn_received()
    assert timeline.model_audio(1.5) is True
    timeline.turn_received()
    first = timeline.turn_played(3.0, 1960.0)
    timeline.first_frame(3.02)
    second = timeline.turn_played(4.0, 980.0)
    assert first is not None
    assert second is not None
    assert (first.number, first.first_frame, first.heard_ms) == (1, 1.04, 1960.0)
    assert (second.number, second.first_frame, second.heard_ms) == (2, 3.02, 980.0)
    assert timeline.turn_played(5.0, 1.0) is None


def test_an_interruption_ends_everything_unplayed() -> None:
    timeline = Timeline()
    for at in (1.0, 2.0):
        timeline.model_audio(at)
        timeline.turn_received()
    timeline.model_audio(2.5)
    timeline.first_frame(1.04)
    ended = timeline.interrupted(3.0, 400.0)
    assert [(turn.number, turn.heard_ms, turn.ended, turn.interrupted) for turn in ended] == [
        (1, 400.0, 3.0, 3.0),
        (2, 0.0, 3.0, 3.0),
        (3, 0.0, 3.0, 3.0),
    ]
    assert timeline.interrupted(3.1, 0.0) == []
    assert timeline.model_audio(4.0) is True, "what follows is a new turn"


def test_a_turn_that_is_played_before_its_end_is_told() -> None:
    timeline = Timeline()
    timeline.model_audio(1.0)
    assert timeline.turn_played(2.0, 1.0) is timeline.turns[0]
    assert timeline.model_audio(3.0) is True


def test_without_a_turn_nothing_happens() -> None:
    timeline = Timeline()
    timeline.first_frame(1.0)
    timeline.turn_received()
    assert timeline.turn_played(1.0, 0.0) is None
    assert timeline.interrupted(1.0, 0.0) == []
    assert timeline.count == 0


def test_a_long_call_remembers_its_last_turns_and_counts_them_all() -> None:
    timeline = Timeline()
    for n in range(MAX_TURNS + 3):
        timeline.model_audio(float(n))
        timeline.turn_played(n + 0.5, 1.0)
    assert timeline.count == MAX_TURNS + 3
    assert [turn.number for turn in timeline.turns] == list(range(4, MAX_TURNS + 4))


def test_turns_that_nobody_plays_do_not_gather_for_ever() -> None:
    timeline = Timeline()
    for n in range(3 * MAX_TURNS):
        timeline.model_audio(float(n))
        timeline.turn_received()
    assert len(timeline.interrupted(1.0, 0.0)) == MAX_TURNS


@given(
    st.lists(
        st.sampled_from(
            [
                "caller_started",
                "caller_stopped",
                "endpointed",
                "model_audio",
                "turn_received",
                "first_frame",
                "played",
                "interrupted",
            ]
        ),
        max_size=60,
    )
)
def test_every_turn_ends_once_and_in_order_and_no_part_of_it_is_negative(story: list[str]) -> None:
    timeline = Timeline()
    ended: list[Turn] = []
    for now, event in enumerate(story):
        if event in ("played", "interrupted"):
            turn = timeline.turn_played(now, 1.0) if event == "played" else None
            ended += timeline.interrupted(now, 1.0) if event == "interrupted" else filter(None, [turn])
        elif event in ("caller_started", "turn_received"):
            getattr(timeline, event)()
        else:
            getattr(timeline, event)(now - 0.3 if event == "caller_stopped" else now)
    numbers = [turn.number for turn in ended]
    assert numbers == sorted(set(numbers)) == list(range(1, len(numbers) + 1))
    for turn in timeline.turns:
        for part in (turn.latency_ms, turn.thinking_ms, turn.playout_ms):
            assert part is None or part >= 0
