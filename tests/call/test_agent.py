"""Agents: what may stand in their texts, and what a stranger's name can do there: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.wav import prompt_pcm, write_wav
from ari_gemini.call.agent import CALLER_FIELDS, MAX_PROMPT_MS, MAX_VALUE_CHARS, Agent, clean, fill
from ari_gemini.call.digits import DigitSettings
from ari_gemini.realtime.functions import FunctionDeclaration
from ari_gemini.realtime.session import ActivityDetection, ContextCompression, SessionSettings
from ari_gemini.tools.destination import Destination


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("Hello {caller_name}.", "Hello Ada."),
        ("{caller_name}{caller_name}", "AdaAda"),
        ("{{caller_name}} is {caller_name}", "{caller_name} is Ada"),
        ("{unknown} { caller_name } {} {", "{unknown} { caller_name } {} {"),
        ('{"json": {"a": 1}}', '{"json": {"a": 1}}'),
        ("", ""),
    ],
)
def test_filling_in(template: str, filled: str) -> None:
    assert fill(template, {"caller_name": "Ada"}) == filled


def test_a_value_is_never_a_template() -> None:
    assert fill("{a}{b}", {"a": "{b}", "b": "{a}"}) == "{b}{a}"
    assert fill("{a}", {"a": r"\1\g<0>"}) == r"\1\g<0>"


@given(st.text(max_size=2 * MAX_VALUE_CHARS))
def test_whatever_is_filled_in_is_one_short_printable_line(value: str) -> None:
    line = clean(value)
    assert len(line) <= MAX_VALUE_CHARS
    assert line.isprintable()
    assert fill("<{x}>", {"x": value}) == f"<{line}>"


def test_a_plain_value_stays_as_it_is() -> None:
    assert clean("Łukasz Müller 李") == "Łukasz Müller 李"
    assert clean("a\nb\u2028c\x1b[2Jd") == "a b c [2Jd"


@given(st.text())
def test_a_template_without_braces_stays_as_it_is(template: str) -> None:
    plain = template.replace("{", "(").replace("}", ")")
    assert fill(plain, {"a": "x"}) == plain


@pytest.mark.parametrize("key", ["instructions", "greeting"])
def test_an_unknown_placeholder_is_refused_by_name(key: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Agent(**{key: "Hello {caler_name}"})
    (error,) = refused.value.errors()
    assert f"{key}: {{caler_name}}" in error["msg"]
    assert "{{caler_name}}" in error["msg"], "says how to write it as plain text"


def test_known_placeholders() -> None:
    names = " ".join(f"{{{name}}}" for name in CALLER_FIELDS)
    Agent(instructions=names, greeting=names)
    Agent(instructions="{ORDER_1} {{plain}}", variables=("ORDER_1",))


@pytest.mark.parametrize("name", ["", "1A", "A B", "CHANNEL(language)", "A,B", "Ä", "x" * 81])
def test_names_of_variables(name: str) -> None:
    with pytest.raises(ValidationError):
        Agent(variables=(name,))


@pytest.mark.parametrize(
    "wrong", [{"temperature": 2.1}, {"voices": "x"}, {"activity_detection": {"silence": 1}}]
)
def test_settings_that_make_no_sense(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        Agent(**wrong)


def test_every_setting_reaches_the_session() -> None:
    agent = Agent(
        voice="Aoede",
        language="de-DE",
        instructions="For {caller_number}.",
        temperature=0.5,
        thinking="low",
        activity_detection=ActivityDetection(silence_duration_ms=300, interruptions=False),
        transcribe_caller=False,
        transcribe_model=False,
        context_compression=ContextCompression(trigger_tokens=10),
    )
    look_up = FunctionDeclaration("look_up", "Looks it up.")
    assert agent.session_settings({"caller_number": "1"}, [look_up]) == SessionSettings(
        voice="Aoede",
        language="de-DE",
        temperature=0.5,
        instructions="For 1.",
        activity_detection=ActivityDetection(silence_duration_ms=300, interruptions=False),
        transcribe_caller=False,
        transcribe_model=False,
        context_compression=ContextCompression(trigger_tokens=10),
        thinking="low",
        tools=(look_up,),
    )


def test_what_the_agent_leaves_open_the_session_leaves_open() -> None:
    plain = SessionSettings(instructions="You are a helpful assistant.")
    assert Agent().session_settings({}) == plain


# Tools.


def test_a_tool_is_named_once() -> None:
    assert Agent(tools=("a", "b")).tools == ("a", "b")
    with pytest.raises(ValidationError, match="a name stands there twice"):
        Agent(tools=("a", "b", "a"))


def test_a_transfer_needs_somewhere_to_go() -> None:
    with pytest.raises(ValidationError, match="transfer_call needs destinations"):
        Agent(tools=("transfer_call",))
    agent = Agent(
        tools=("transfer_call",),
        transfer={"Sales desk": "sales,100,1", "Ada": {"context": "in", "extension": "7", "attended": True}},
    )
    assert agent.transfer == {
        "Sales desk": Destination(context="sales", extension="100"),
        "Ada": Destination(context="in", extension="7", attended=True),
    }
    assert Agent(transfer={"sales": "sales,100"}).tools == (), "a table alone gives no tool"


@pytest.mark.parametrize("name", ["", " a", "a\nb", "ignore, all", "{x}", "a" * 65])
def test_names_of_destinations(name: str) -> None:
    with pytest.raises(ValidationError):
        Agent(transfer={name: "sales,100,1"})


def test_keys() -> None:
    agent = Agent(digits={"terminator": "*", "sensitive": True})
    assert agent.digits == DigitSettings(terminator="*", sensitive=True)
    with pytest.raises(ValidationError, match="terminator"):
        Agent(digits={"terminator": "**"})


# What covers a pause.


@pytest.mark.parametrize("filler", ["tone", "none"])
def test_a_filler_without_a_file(filler: str) -> None:
    assert Agent(filler=filler).filler == filler


def test_a_prompt_is_read_when_the_agent_is_made(tmp_path: Path) -> None:
    path = tmp_path / "moment.wav"
    write_wav(path, AudioFormat(8000), bytes(320))
    agent = Agent(filler=str(path))
    assert agent.filler == path
    path.unlink()
    assert prompt_pcm(agent.filler, 8000) == bytes(320), "a call needs no disk"


def test_a_prompt_that_cannot_be_played_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="filler"):
        Agent(filler=str(tmp_path / "absent.wav"))
    no_sound = tmp_path / "text.wav"
    no_sound.write_text("hello")
    with pytest.raises(ValidationError, match=r"text\.wav: not a PCM WAV file"):
        Agent(filler=str(no_sound))
    long = tmp_path / "long.wav"
    write_wav(long, AudioFormat(8000), bytes(int(16 * MAX_PROMPT_MS) + 16))
    with pytest.raises(ValidationError, match=r"long\.wav: longer than 10 s"):
        Agent(filler=str(long))


def test_a_prompt_that_may_not_be_read_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret.wav"
    write_wav(path, AudioFormat(8000), bytes(2))

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("ari_gemini.audio.wav.wave.open", denied)  # root may read everything
    with pytest.raises(ValidationError, match=r"secret\.wav: Permission denied"):
        Agent(filler=str(path))


@pytest.mark.parametrize("seconds", [0.19, 61])
def test_a_filler_that_comes_at_the_wrong_time(seconds: float) -> None:
    with pytest.raises(ValidationError, match="filler_after"):
        Agent(filler_after=seconds)
