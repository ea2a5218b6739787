"""Where a caller may be sent: as it is written, and what must not get into the dialplan or a dial string."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ari_gemini.tools.destination import Destination

made = Destination.model_validate

INJECTED = [
    *(
        "a,b",
        "a&b",
        "a@b",
        "a|b",
        "a b",
        "a\nb",
        "a\n",
        "\na",
        "a\r",
        "a\0",
        "a;b",
        "a/n",
        "a(b)",
        "a=b",
        "a!b",
    ),
    *("${EXTEN}", "$[1]", "a\\b", 'a"b', "a'b", "ä", "１", "a:b", "a<b", "a?b", "", "x" * 81),
]
"""What would end the word, begin another, or be evaluated, wherever it got to."""


def test_text_and_table_say_the_same() -> None:
    table = made({"context": "sales", "extension": "1001", "priority": 1})
    assert made("sales,1001,1") == made("sales,1001") == made(" sales , 1001,1 ") == table
    assert (table.attended, table.endpoint, table.ring_seconds) == (False, None, 25.0)


def test_a_blind_destination() -> None:
    destination = made("ivr-main,*98#,7")
    assert destination.place == str(destination) == "ivr-main,*98#,7"


def test_an_attended_destination_rings_its_place_in_the_dialplan() -> None:
    destination = made({"context": "sales", "extension": "1001", "attended": True, "ring_seconds": 40})
    assert destination.dial == "Local/1001@sales/n"
    assert str(destination) == "Local/1001@sales/n, attended"


def test_an_attended_destination_rings_its_endpoint() -> None:
    table = {"context": "sales", "extension": "1001", "attended": True, "endpoint": "PJSIP/1001@trunk"}
    assert made(table).dial == "PJSIP/1001@trunk"
    assert made(table).place == "sales,1001,1"


def test_it_is_written_in_toml() -> None:
    table = tomllib.loads(
        """
        [transfer]
        sales = "sales,1001,1"
        boss = {context = "office", extension = "1", attended = true}
        """
    )["transfer"]
    assert [str(made(value)) for value in table.values()] == ["sales,1001,1", "Local/1@office/n, attended"]


@pytest.mark.parametrize(
    "wrong",
    [
        *("", "sales", "a,b,1,2", "a,b,x", "a,b,0", "a,b,-1", "a,b,1.5", "a,b,10001", ",b,1", "a,,1", "a,b,"),
        *(None, 7, [], ["a", "b", 1], {}, {"context": "a"}, {"extension": "1"}),
        {"context": "a", "extension": 1001},
        {"context": "a", "extension": "1", "attend": True},
        {"context": "a", "extension": "1", "attended": True, "priority": 2},
        {"context": "a", "extension": "1", "endpoint": "PJSIP/1"},
        {"context": "a", "extension": "1", "attended": True, "ring_seconds": 0},
        {"context": "a", "extension": "1", "attended": True, "ring_seconds": float("inf")},
        {"context": "a", "extension": "1", "attended": True, "ring_seconds": float("nan")},
    ],
    ids=repr,
)
def test_what_makes_no_destination(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        made(wrong)


@pytest.mark.parametrize("text", INJECTED)
@pytest.mark.parametrize("field", ["context", "extension"])
def test_nothing_is_smuggled_into_the_dialplan(field: str, text: str) -> None:
    with pytest.raises(ValidationError):
        made({"context": "a", "extension": "1", field: text})


@pytest.mark.parametrize("text", ["a&b", "a@b", "a|b", "a b", "a\nb", "${X}", "a\0"])
def test_nothing_is_smuggled_in_as_text(text: str) -> None:
    for wrong in (f"{text},1,1", f"a,{text},1", f"a,1,{text}"):
        with pytest.raises(ValidationError):
            made(wrong)


@pytest.mark.parametrize(
    "endpoint",
    [
        *("1001", "/1001", "PJSIP/", "PJSIP", "PJ SIP/1", "PJSIP&SIP/1", "PJSIP/1&PJSIP/2", "PJSIP/1,30", ""),
        *("PJSIP/1|x", "PJSIP/1 ", "PJSIP/1\n", "\nPJSIP/1", "PJSIP/1\nx", "PJSIP/1\0", "PJSIP/1\x7f"),
        "PJSIP/" + "1" * 251,
    ],
)
def test_nothing_is_smuggled_into_a_dial_string(endpoint: str) -> None:
    with pytest.raises(ValidationError):
        made({"context": "a", "extension": "1", "attended": True, "endpoint": endpoint})


@pytest.mark.parametrize(
    "endpoint",
    ["PJSIP/1002", "PJSIP/1002@trunk", "PJSIP/trunk/sip:1002@192.0.2.1:5060", "Local/1@a/n", "IAX2/x/1"],
)
def test_dial_strings_that_are_taken(endpoint: str) -> None:
    assert made({"context": "a", "extension": "1", "attended": True, "endpoint": endpoint}).dial == endpoint


word = st.text(st.sampled_from("aZ0_+*#.-,&@|/ \n\t;ä"), max_size=12)


@given(st.builds("{},{},{}".format, word, word, word | st.integers().map(str)) | st.text())
def test_whatever_is_taken_is_one_place(text: str) -> None:
    try:
        destination = made(text)
    except ValidationError:
        return
    assert re.fullmatch(r"[\w+*#.-]{1,80},[\w+*#.-]{1,80},[1-9]\d{0,4}", destination.place, re.ASCII)
    assert made(destination.place) == destination


@given(word, word, st.none() | word.map("PJSIP/{}".format))
def test_whatever_is_rung_is_one_thing(context: str, extension: str, endpoint: str | None) -> None:
    table = {"context": context, "extension": extension, "attended": True, "endpoint": endpoint}
    try:
        dial = made(table).dial
    except ValidationError:
        return
    assert re.fullmatch(r"Local/[\w+*#.-]+@[\w+*#.-]+/n" if endpoint is None else r"PJSIP/[^\s,|&]+", dial)
    assert dial.isprintable()
