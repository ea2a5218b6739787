"""Agents: what may stand in their texts, and what a stranger's name can do there: nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ari_gemini.call.agent import CALLER_FIELDS, MAX_VALUE_CHARS, Agent, clean, fill
from ari_gemini.realtime.session import ActivityDetection, ContextCompression, SessionSettings


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
    assert agent.session_settings({"caller_number": "1"}) == SessionSettings(
        voice="Aoede",
        language="de-DE",
        temperature=0.5,
        instructions="For 1.",
        activity_detection=ActivityDetection(silence_duration_ms=300, interruptions=False),
        transcribe_caller=False,
        transcribe_model=False,
        context_compression=ContextCompression(trigger_tokens=10),
        thinking="low",
    )


def test_what_the_agent_leaves_open_the_session_leaves_open() -> None:
    plain = SessionSettings(instructions="You are a helpful assistant.")
    assert Agent().session_settings({}) == plain
