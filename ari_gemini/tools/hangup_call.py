"""``hangup_call``: the model ends the call once its farewell has been heard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ari_gemini.realtime.functions import FunctionDeclaration
from ari_gemini.tools.base import FAREWELL_LIMIT, Tool, ToolContext


class HangupCall(Tool):
    """Hangs up when everything said has been heard; called off when the caller begins to speak again."""

    declaration = FunctionDeclaration(
        "hangup_call",
        "Ends the phone call. Say goodbye first: the caller hears everything you have said before the call "
        "ends. If he speaks again before that, the call goes on and you are told.",
    )
    goes_to = "Asterisk: hangs up on the caller"
    time_limit = FAREWELL_LIMIT + 5.0

    async def run(self, args: Mapping[str, Any], context: ToolContext) -> str:
        """Raises ToolError when the caller speaks before it is done."""
        await context.call.farewell()
        context.call.hang_up()
        return "The call has ended."
