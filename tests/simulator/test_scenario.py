from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from ari_gemini.errors import ConfigError
from ari_gemini.simulator import scenario as subject
from ari_gemini.simulator.scenario import Scenario, Script, ScriptTurn

WANTED = {
    "greeting",
    "two_turns",
    "barge_in",
    "tool_call",
    "go_away",
    "slow_model",
    "odd_frames",
    "silent_model",
    "refuse_key",
    "refuse_model",
    "refuse_field",
    "close_before_setup",
    "malformed_json",
    "unknown_message",
    "bad_base64",
    "quota",
    "hang",
    "lifetime_10_minutes",
    "lifetime_58_minutes",
    "slow_pongs",
}


def test_every_shipped_scenario_loads_and_has_a_summary() -> None:
    listed = subject.list_scenarios()
    assert set(listed) >= WANTED
    for name, summary in listed.items():
        assert subject.load_scenario(name).name == name
        assert summary.endswith((".", "!"))
    assert subject.DEFAULT_SCENARIO in listed


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("think_tim = 1", "think_tim: Extra inputs are not permitted"),
        ("[[turns]]\nsay = ['sneeze']", "turns.0: Value error, no recorded phrase 'sneeze'"),
        ("[[turns]]\nsay = ['ask_hours']", "turns.0: Value error, phrase 'ask_hours' is the caller's"),
        ("generic = ['sneeze']", "generic: Value error, no recorded phrase 'sneeze'"),
        ("chunk_bytes = [3, 5]", "chunk_bytes: Value error, chunk sizes are two or more even numbers"),
        ("chunk_bytes = [8, 2]", "chunk_bytes: Value error, the shortest chunk is longer than the longest"),
        ("pace = [0, 1]", "pace: Value error, pace is"),
        ("pace = ", "Invalid value"),
        ("[[faults]]\nat = 'lunch'\ndo = 'close'", "faults.0.at: Input should be"),
    ],
)
def test_a_wrong_file_is_one_line_of_complaint(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        subject.load_scenario(str(path))
    assert str(caught.value).startswith(f"{path}: {complaint}")
    assert "\n" not in str(caught.value)


def test_own_files_load_by_path(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text("think_time = 0.1\n[[turns]]\nsay = ['done']\n")
    own = subject.load_scenario(str(path))
    assert (own.name, own.think_time, own.turns[0].say) == ("own", 0.1, ("done",))


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no scenario 'nap'; there are: bad_base64, barge_in"):
        subject.load_scenario("nap")


def test_a_transcript_comes_from_the_phrase_or_is_given() -> None:
    assert ScriptTurn(expect="ask_hours").transcript == "When are you open?"
    assert ScriptTurn(expect="ask_hours", caller_text="Hm.").transcript == "Hm."
    assert ScriptTurn().transcript is None
    with pytest.raises(ValidationError):
        ScriptTurn(expect="nothing")


def names(script: Script, *triggers: subject.Trigger) -> list[str]:
    return [script.take(trigger).say[0] for trigger in triggers]


GREETED = Scenario(
    turns=(
        ScriptTurn(on="text", say=("greeting",)),
        ScriptTurn(say=("opening_hours",)),
        ScriptTurn(say=("order_status",)),
    )
)


def test_text_gets_the_greeting_and_speech_the_turns_after_it() -> None:
    script = Script(GREETED)
    assert names(script, "text", "speech", "speech") == ["greeting", "opening_hours", "order_status"]
    assert names(script, "speech", "text") == ["anything_else", "anything_else"]


def test_speech_passes_over_a_greeting_nobody_asked_for() -> None:
    script = Script(GREETED)
    assert names(script, "speech") == ["opening_hours"]
    assert names(script, "text", "speech") == ["anything_else", "order_status"]


def test_the_last_turn_can_be_repeated() -> None:
    script = Script(GREETED.model_copy(update={"after_script": "repeat"}))
    assert names(script, *["speech"] * 4) == ["opening_hours", "order_status", "order_status", "order_status"]


def test_looking_ahead_takes_nothing_and_a_cut_turn_comes_again() -> None:
    script = Script(GREETED)
    assert script.expected("speech").say == ("opening_hours",)
    turn = script.take("speech")
    assert turn.say == ("opening_hours",)
    script.put_back(turn)
    assert script.take("speech") is turn
    generic = ScriptTurn(say=("done",))
    script.put_back(generic)
    assert names(script, "speech") == ["order_status"]


@pytest.mark.parametrize("trigger", ["speech", "text"])
def test_a_scenario_without_turns_still_answers(trigger: subject.Trigger) -> None:
    assert names(Script(Scenario()), trigger) == ["anything_else"]


def test_a_turn_comes_as_often_as_it_says_and_stalls_pass() -> None:
    first, second = ScriptTurn(times=2), ScriptTurn(say=("done",))
    script = Script(Scenario(turns=(first, second)))
    script.stall(1)
    assert script.expected("speech").stall
    assert [script.take("speech") for _ in range(4)][1:] == [first, first, second]
    script.stall(2)
    assert [script.take("speech").stall for _ in range(3)] == [True, True, False]
