"""``transfer_call``: the model sends the caller on, to a name out of its agent's own table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ari_gemini.errors import ToolError
from ari_gemini.realtime.functions import FunctionDeclaration, Scheduling
from ari_gemini.tools.base import FAREWELL_LIMIT, Tool, ToolContext
from ari_gemini.tools.destination import Destination

_MARGIN = 15.0
"""Seconds for the requests before and after the ringing."""
MAX_SUMMARY = 500
"""Characters of the summary: one sentence."""


class TransferCall(Tool):
    """Transfers the caller, blind or attended as the table says. ``destinations`` maps names to places."""

    undoable = False
    scheduling: Scheduling = "interrupt"
    """The party is on the line: what the model was about to tell the caller is not for its ears."""

    def __init__(self, destinations: Mapping[str, Destination]) -> None:
        self._destinations = dict(destinations)
        self.declaration = _declaration(self._destinations)
        self.goes_to = "; ".join(f"{name} = {place}" for name, place in self._destinations.items())
        ringing = max((d.ring_seconds for d in self._destinations.values() if d.attended), default=0.0)
        self.time_limit = FAREWELL_LIMIT + ringing + _MARGIN

    async def run(self, args: Mapping[str, Any], context: ToolContext) -> str:
        """Blind: the call ends here. Attended: the other party hears the model when this returns."""
        name = args["destination"]
        destination = self._destinations[name]
        if not destination.attended:
            await context.call.transfer(destination)
            return "The caller has been sent on."
        summary = str(args.get("summary", "")).strip()
        if not summary:
            raise ToolError(f"{name} is told first who is calling: say it in the argument summary")
        await context.call.consult(destination)
        return (
            f"{name} has answered. From now on {name} hears you, and the caller does not. Tell {name} now, "
            f"in one sentence and nothing more, what follows; then they are connected without your doing. "
            f"{summary}"
        )


def _declaration(destinations: Mapping[str, Destination]) -> FunctionDeclaration:
    attended = [name for name, destination in destinations.items() if destination.attended]
    properties: dict[str, Any] = {
        "destination": {
            "type": "string",
            "description": "Whom the caller is connected with.",
            "enum": list(destinations),
        }
    }
    description = (
        "Connects the caller with somebody else. Tell the caller first: he hears everything you have said "
        "before he is connected."
    )
    if attended:
        properties["summary"] = {
            "type": "string",
            "description": "One sentence for the person who answers: who is calling, and why. "
            f"Needed for {', '.join(attended)}.",
            "maxLength": MAX_SUMMARY,
        }
    return FunctionDeclaration(
        "transfer_call",
        description,
        {
            "type": "object",
            "properties": properties,
            "required": ["destination"],
            "additionalProperties": False,
        },
    )
