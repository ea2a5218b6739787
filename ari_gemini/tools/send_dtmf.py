"""``send_dtmf``: the model presses keys, for a menu or a door opener at the caller's end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ari_gemini.realtime.functions import FunctionDeclaration
from ari_gemini.tools.base import Tool, ToolContext

MAX_DIGITS = 64
"""More keys than any number, code or menu path has; with the pauses between them about ten seconds."""


class SendDtmf(Tool):
    """Sends digits to the caller's side."""

    declaration = FunctionDeclaration(
        "send_dtmf",
        "Sends DTMF tones (digits) to the caller.",
        {
            "type": "object",
            "properties": {
                "digits": {
                    "type": "string",
                    "description": "The sequence of digits to send (0-9, *, #, A-D; w waits half a second).",
                    "pattern": "^[0-9*#A-Da-dwW]+$",
                    "minLength": 1,
                    "maxLength": MAX_DIGITS,
                }
            },
            "required": ["digits"],
            "additionalProperties": False,
        },
    )
    goes_to = "Asterisk: keys to the caller's phone (RFC 4733), or tones in the audio"
    time_limit = MAX_DIGITS * 0.5 + 5.0
    """All of them pauses, and margin."""
    undoable = False

    async def run(self, args: Mapping[str, Any], context: ToolContext) -> str:
        """Returns when they have been played."""
        digits = str(args["digits"]).strip()  # the pattern's $ lets a final newline pass
        await context.call.send_digits(digits.upper().replace("W", "w"))
        return f"Successfully sent DTMF digits: {digits}"
