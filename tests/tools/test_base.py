"""What every tool is: the promises of ``Tool``, kept by those that ship."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ari_gemini.gemini.functions import NAME
from ari_gemini.realtime.functions import FunctionDeclaration
from ari_gemini.tools.base import Tool, ToolContext
from ari_gemini.tools.destination import Destination
from ari_gemini.tools.hangup_call import HangupCall
from ari_gemini.tools.schema import declarable, inlined
from ari_gemini.tools.send_dtmf import SendDtmf
from ari_gemini.tools.transfer_call import TransferCall

PLACES = {
    "sales": Destination(context="sales", extension="1"),
    "boss": Destination(context="office", extension="1", attended=True),
}
SHIPPED: list[Tool] = [HangupCall(), SendDtmf(), TransferCall(PLACES)]


@pytest.mark.parametrize("tool", SHIPPED, ids=lambda tool: tool.name)
def test_a_shipped_tool_can_be_declared_and_says_where_it_leads(tool: Tool) -> None:
    assert tool.name == tool.declaration.name
    assert NAME.fullmatch(tool.name)
    assert tool.declaration.description.endswith(".")
    assert tool.declaration.blocking is None, "every model family takes it"
    assert tool.goes_to
    parameters = tool.declaration.parameters
    if parameters is not None:
        Draft202012Validator.check_schema(parameters)
        assert declarable(inlined(parameters)) == parameters


def test_the_least_a_tool_must_be() -> None:
    class Least(Tool):
        declaration = FunctionDeclaration("least", "Does nothing.")
        goes_to = "nowhere"

        async def run(self, args: Mapping[str, Any], context: ToolContext) -> None:
            pass

    tool = Least()
    assert (tool.name, tool.time_limit, tool.undoable, tool.scheduling) == ("least", None, True, None)
    assert Tool.__abstractmethods__ == {"run"}
