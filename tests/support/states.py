"""States of calls, as the tests of their stores need them."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from ari_gemini.realtime.events import FunctionCall, Speaker
from ari_gemini.realtime.functions import FunctionResult
from ari_gemini.realtime.session import HistoryTurn, Resume
from ari_gemini.state.record import CallState

HANDLE = "the-handle"
TOKEN = "the-token"


def state(call_id: str = "1700000000.1", **fields: Any) -> CallState:
    """A call that was well under way; ``fields`` are what is different."""
    return CallState(
        **{
            "call_id": call_id,
            "agent": "default",
            "caller_number": "4711",
            "caller_name": "Zoë",
            "called_number": "100",
            "values": {"ORDER": "17"},
            "started_at": 1000.5,
            "saved_at": 1010.25,
            "resume": Resume(HANDLE, SecretStr(TOKEN)),
            "fingerprint": "0123456789abcdef",
            "transcript": (HistoryTurn(Speaker.CALLER, "Grüezi"), HistoryTurn(Speaker.MODEL, "Hello 👋")),
            "open_calls": (FunctionCall("1", "look_up", {"who": ["a", {"b": None}], "n": 1.5}),),
            "unconfirmed": (FunctionResult("0", "look_up", {"result": True}, "when_idle"),),
            "budgets": {"api_call": 3},
            "greeted": True,
            "unanswered": True,
            **fields,
        }
    )
