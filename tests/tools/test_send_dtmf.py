"""``send_dtmf``: nothing but keys leaves it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from ari_gemini.errors import ToolError
from ari_gemini.tools.base import ToolContext
from ari_gemini.tools.schema import ArgumentCheck
from ari_gemini.tools.send_dtmf import MAX_DIGITS, SendDtmf

sys.path.insert(0, str(Path(__file__).parent))

from toolbox_support import FakeCall, Inbox, rigged

PAUSE = 0.5
"""Seconds of a ``w``, the longest of all keys."""


async def sent(digits: str) -> tuple[list[object], object]:
    """What the call was told to send, and the answer."""
    call = FakeCall()
    ArgumentCheck(SendDtmf.declaration.parameters)({"digits": digits})
    answer = await SendDtmf().run({"digits": digits}, ToolContext(call, structlog.get_logger()))
    return call.done, answer


@pytest.mark.parametrize(
    ("digits", "keys"),
    [("0123456789*#", "0123456789*#"), ("abcd", "ABCD"), ("ABCD", "ABCD"), ("1wW2", "1ww2"), ("1\n", "1")],
)
async def test_keys_are_sent_as_the_telephone_knows_them(digits: str, keys: str) -> None:
    done, answer = await sent(digits)
    assert done == [("send_digits", keys)]
    assert answer == f"Successfully sent DTMF digits: {digits.strip()}"


@pytest.mark.parametrize(
    "digits",
    [
        "",
        " ",
        "\n",
        "1 2",
        "1,2",
        "1&2",
        "e",
        "+49",
        "1\n2",
        "1\n\n",
        "١",
        "１",
        "ｗ",
        "1" * (MAX_DIGITS + 1),
    ],
)
async def test_anything_else_is_refused(digits: str) -> None:
    with pytest.raises(ToolError, match="wrong arguments: digits"):
        await sent(digits)


@pytest.mark.parametrize("args", [{}, {"digits": 1}, {"digits": None}, {"digits": "1", "gap": 2}])
async def test_wrong_arguments_are_refused(args: dict[str, object]) -> None:
    inbox = Inbox()
    async with rigged(SendDtmf(), answers=inbox) as rig:
        rig.call("send_dtmf", **args)
        await rig.idle()
    assert str(inbox.answers["1"]["error"]).startswith("wrong arguments: ")
    assert rig.control.done == []


@given(st.text(st.sampled_from("01*#Aaw \n\t,&|")) | st.text())
async def test_whatever_gets_through_is_keys(digits: str) -> None:
    try:
        done, _ = await sent(digits)
    except ToolError:
        return
    ((_, keys),) = done
    assert re.fullmatch(r"[0-9*#A-Dw]{1,64}", keys)


async def test_a_refusal_of_the_call_goes_to_the_model() -> None:
    with pytest.raises(ToolError, match="gone"):
        await SendDtmf().run(
            {"digits": "1"}, ToolContext(FakeCall(send_digits="gone"), structlog.get_logger())
        )


def test_what_is_known_of_it() -> None:
    tool = SendDtmf()
    assert tool.name == "send_dtmf"
    assert not tool.undoable
    assert tool.time_limit > MAX_DIGITS * PAUSE, "there is time for as many pauses"
