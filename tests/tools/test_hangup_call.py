"""``hangup_call``: only after the farewell."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
import structlog

from ari_gemini.errors import ToolError
from ari_gemini.tools.base import FAREWELL_LIMIT, ToolContext
from ari_gemini.tools.hangup_call import HangupCall

sys.path.insert(0, str(Path(__file__).parent))

from toolbox_support import FakeCall


def context(call: FakeCall) -> ToolContext:
    return ToolContext(call, structlog.get_logger())


async def test_the_call_ends_when_the_farewell_was_heard() -> None:
    call = FakeCall()
    assert await HangupCall().run({}, context(call)) == "The call has ended."
    assert call.done == ["farewell", "hang_up"]


async def test_the_call_goes_on_when_the_caller_speaks() -> None:
    call = FakeCall(farewell="he speaks")
    with pytest.raises(ToolError, match="he speaks"):
        await HangupCall().run({}, context(call))
    assert call.done == []


async def test_taken_back_while_the_farewell_is_heard_the_call_goes_on() -> None:
    waits = asyncio.Event()

    class Talkative(FakeCall):
        async def farewell(self) -> None:
            waits.set()
            await asyncio.Event().wait()

    call = Talkative()
    hanging_up = asyncio.create_task(HangupCall().run({}, context(call)))
    await waits.wait()
    hanging_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging_up
    assert call.done == []


def test_what_the_model_knows_of_it() -> None:
    tool = HangupCall()
    assert tool.name == "hangup_call"
    assert tool.declaration.parameters is None
    assert "Say goodbye first" in tool.declaration.description
    assert tool.undoable
    assert tool.time_limit > FAREWELL_LIMIT, "the farewell's own limit comes first"
