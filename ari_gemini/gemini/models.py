"""What differs between the Live model families, as a table one can read down.

Source of every column: the Live API reference (ai.google.dev/api/live), the model pages under
ai.google.dev/gemini-api/docs/models and the tool guide (.../docs/live-api/tools), state of November 2026.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ari_gemini.realtime.session import TurnCoverage

Behavior = Literal["BLOCKING", "NON_BLOCKING"]
"""Whether the model waits for a function's result before it goes on."""
Greeting = Literal["text", "client_content"]
"""How the model is asked to speak first: ``realtimeInput.text``, or a user turn in ``clientContent``."""

LEVELS = ("MINIMAL", "LOW", "MEDIUM", "HIGH")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFamily:
    """One row: what a family of models takes, refuses and does unasked."""

    name: str
    prefixes: tuple[str, ...]
    """A model belongs to the row with the longest prefix that its name (without ``models/``) starts with."""
    thinking_budget: bool = False
    """``thinkingConfig.thinkingBudget`` is taken."""
    thinking_levels: tuple[str, ...] = ()
    """Values of ``thinkingConfig.thinkingLevel`` that are taken; empty: none."""
    thinking_required: bool = False
    """Without a thinking level the service closes with 1007."""
    behaviors: tuple[Behavior, ...]
    """Values of a function declaration's ``behavior`` that are taken; the first is what silence means."""
    scheduling: bool
    """A function response may carry ``scheduling``; where it may not, the service closes with 1007."""
    client_content: bool = True
    """``clientContent`` is taken in mid-session, not only as seed history."""
    turn_coverage: TurnCoverage = "audio_activity_and_all_video"
    """What a turn covers when the setup does not say."""
    audio_during_tools: bool = True
    """Audio may go on while a function call is open; where it may not, the service closes with 1008."""
    greeting: Greeting = "text"
    """The greeting that works best: ``text`` is the one way that every family takes."""


FAMILIES: tuple[ModelFamily, ...] = (
    ModelFamily(
        name="3.8 live",
        prefixes=("gemini-3.8-live",),
        behaviors=("NON_BLOCKING", "BLOCKING"),
        scheduling=True,
    ),
    ModelFamily(
        name="3.8 live extended thinking",
        prefixes=("gemini-3.8-live-extended-thinking",),
        thinking_levels=("LOW", "MEDIUM", "HIGH"),
        thinking_required=True,
        behaviors=("NON_BLOCKING",),
        scheduling=False,
    ),
    ModelFamily(
        name="3.1 flash live",
        prefixes=("gemini-3.1-flash-live",),
        thinking_levels=LEVELS,
        behaviors=("BLOCKING",),
        scheduling=False,
        client_content=False,
        audio_during_tools=False,
    ),
    ModelFamily(
        name="2.5 native audio",
        prefixes=("gemini-2.5-flash-native-audio", "gemini-live-2.5-flash"),
        thinking_budget=True,
        behaviors=("BLOCKING", "NON_BLOCKING"),
        scheduling=True,
        turn_coverage="only_activity",
        audio_during_tools=False,
    ),
)

UNKNOWN = ModelFamily(
    name="unknown",
    prefixes=(),
    thinking_budget=True,
    thinking_levels=LEVELS,
    behaviors=("NON_BLOCKING", "BLOCKING"),
    scheduling=False,
    client_content=False,
)
"""A model this table has not met: taken for the newest, and sent nothing unasked that some family refuses."""


def bare_name(model: str) -> str:
    """The model's name without the ``models/`` that the wire wants in front of it."""
    return model.removeprefix("models/")


def family_of(model: str) -> ModelFamily:
    """The row for ``model`` (with or without ``models/``); UNKNOWN when no prefix fits."""
    name = bare_name(model)
    fitting = [(len(prefix), row) for row in FAMILIES for prefix in row.prefixes if name.startswith(prefix)]
    return max(fitting, key=lambda found: found[0])[1] if fitting else UNKNOWN
