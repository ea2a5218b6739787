"""A tool that will not be cancelled holds up neither its answer nor the end of the call."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from ari_gemini.realtime.events import FunctionCall
from ari_gemini.realtime.functions import FunctionDeclaration, FunctionResult
from ari_gemini.tools import toolbox as module
from ari_gemini.tools.base import Tool, ToolContext
from ari_gemini.tools.settings import ToolLimits
from ari_gemini.tools.toolbox import Outcome, Toolbox, ToolUse

PATIENCE = 20.0


class Stubborn(Tool):
    """Tries again, whatever happens, until it is let go."""

    declaration = FunctionDeclaration("stubborn", "Tries for ever.")
    goes_to = "nowhere"

    def __init__(self, time_limit: float) -> None:
        self.time_limit = time_limit
        self.begun, self.let_go, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self, args: Mapping[str, Any], context: ToolContext) -> None:
        self.begun.set()
        while not self.let_go.is_set():
            try:
                await self.let_go.wait()
            except asyncio.CancelledError:
                continue
        self.ended.set()


class Inbox:
    sent = confirmed = 0

    def __init__(self) -> None:
        self.results: asyncio.Queue[FunctionResult] = asyncio.Queue()

    async def send_tool_results(self, results: list[FunctionResult]) -> None:
        for result in results:
            self.results.put_nowait(result)


class Call:
    id = "c"


async def live(tool: Stubborn, inbox: Inbox, uses: list[ToolUse], over: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as tasks:
        box = Toolbox([tool], Call(), ToolLimits(), tasks=tasks, on_use=uses.append)  # type: ignore[arg-type]
        box.attach(inbox)
        box.call([FunctionCall("1", "stubborn")])
        await over.wait()
        raise RuntimeError("the call ends")


@pytest.mark.parametrize("time_limit", [0.01, 60.0], ids=["its time is over", "the call ends"])
async def test_it_is_left_behind(time_limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.01)
    tool, inbox, over = Stubborn(time_limit), Inbox(), asyncio.Event()
    uses: list[ToolUse] = []
    with capture_logs() as logs:
        async with asyncio.timeout(PATIENCE):
            call = asyncio.create_task(live(tool, inbox, uses, over))
            await tool.begun.wait()
            if time_limit < 1:
                assert "took longer" in (await inbox.results.get()).response["error"]
            over.set()
            await asyncio.wait([call])
            assert isinstance(call.exception(), ExceptionGroup)
    assert not tool.ended.is_set()
    assert [use.outcome for use in uses] == [Outcome.TIMEOUT if time_limit < 1 else Outcome.CANCELLED]
    assert [line["tool"] for line in logs if line["event"] == "tool.does_not_stop"] == ["stubborn"]
    tool.let_go.set()
    async with asyncio.timeout(PATIENCE):
        await tool.ended.wait()
        while module._STOPPING:  # noqa: ASYNC110 - its done callback comes with the next round of the loop
            await asyncio.sleep(0)
