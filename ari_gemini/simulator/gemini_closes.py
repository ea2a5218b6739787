"""The service's ways to close a session that stands: code and reason, from published issues and recordings.

Reasons are given whole; a close frame carries 123 bytes of them. What is refused during the setup (keys,
models, unknown fields) is not here: those closes follow from what the client sends.
"""

from __future__ import annotations

from typing import NamedTuple

from ari_gemini.simulator.gemini_dialogue import NOT_IMPLEMENTED
from ari_gemini.simulator.gemini_memory import INTERNAL_ERROR, SESSION_EXPIRED, SESSION_NOT_FOUND
from ari_gemini.simulator.gemini_schema import INVALID_ARGUMENT
from ari_gemini.simulator.gemini_session import DEADLINE, GO_AWAY_IGNORED


class Close(NamedTuple):
    """``session.disconnect(*CLOSES["aborted"])``."""

    code: int
    reason: str


CLOSES: dict[str, Close] = {
    "normal": Close(1000, ""),
    "shutdown": Close(1001, ""),
    "context exhausted": Close(1007, INVALID_ARGUMENT),
    "session lost": Close(1008, SESSION_NOT_FOUND),
    "session expired": Close(1008, SESSION_EXPIRED),
    "not implemented": Close(1008, NOT_IMPLEMENTED),
    "aborted": Close(1008, "The operation was aborted."),
    "goAway ignored": Close(1008, GO_AWAY_IGNORED),
    "internal error": Close(1011, INTERNAL_ERROR),
    "deadline": Close(1011, DEADLINE),
    "unavailable": Close(1011, "The service is currently unavailable."),
    "quota": Close(1011, "You exceeded your current quota, please check your plan and billing details."),
    "exhausted": Close(1011, "RESOURCE_EXHAUSTED"),
}
"""By a short name. 1006 is no close frame at all: ``session.cut()``."""
