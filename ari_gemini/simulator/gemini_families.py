"""What differs between the Live model families, as data.

Sources: the model pages and the Live API guides (capabilities, thinking, tools) of the Gemini API's
documentation, and published recordings of the service for the shape of the output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ari_gemini.simulator.gemini_schema import RefusalError


@dataclass(frozen=True, slots=True)
class Family:
    """One row of the table. The defaults are gemini-3.8-live's."""

    name: str
    models: tuple[str, ...]

    thinking: Literal["forbidden", "budget", "level", "level required"] = "forbidden"
    thinking_levels: frozenset[str] = frozenset()
    behaviors: frozenset[str] = frozenset({"BLOCKING", "NON_BLOCKING"})
    default_behavior: str = "NON_BLOCKING"
    scheduling: Literal["honoured", "ignored", "refused"] = "honoured"
    client_content: Literal["always", "seed only"] = "always"
    roles_required: bool = True
    proactivity: Literal["refused", "opt-in", "always"] = "always"
    affective_dialog: bool = False

    audio_during_tool: Literal["keep", "refuse"] = "keep"
    """refuse: input while a blocking call is pending closes the connection."""
    unsolicited_handle: bool = True
    """A resumption handle comes even when the setup did not ask."""
    handle_after: frozenset[Literal["turn", "tool"]] = frozenset()
    """When a fresh handle follows the first one."""
    call_id: tuple[str, int] = ("call_", 6)
    """Prefix of a function call's id, and how many digits follow."""

    voice_activity: bool = True
    """voiceActivity messages are sent."""
    caller_text: Literal["sentence", "words"] = "sentence"
    """inputTranscription comes whole, or word by word."""
    merged_transcript: bool = True
    """outputTranscription shares its message with the audio."""
    model_role: bool = True
    """modelTurn names its role."""
    thoughts: Literal["always", "asked", "never"] = "never"
    empty_while_thinking: bool = True
    """``{}`` and ``{"serverContent":{}}`` come before the first audio."""
    empty_before_tool_call: bool = False
    interaction_status: bool = False
    frame_ms: tuple[int, int] = (160, 320)
    """Shortest and longest audio chunk, ms."""


FAMILIES: tuple[Family, ...] = (
    Family("3.8", ("gemini-3.8-live",)),
    Family(
        "3.8 extended thinking",
        ("gemini-3.8-live-extended-thinking",),
        thinking="level required",
        thinking_levels=frozenset({"LOW", "MEDIUM", "HIGH"}),
        behaviors=frozenset({"NON_BLOCKING"}),
        scheduling="refused",
        thoughts="asked",
        interaction_status=True,
    ),
    Family(
        "3.1",
        ("gemini-3.1-flash-live-preview",),
        thinking="level",
        thinking_levels=frozenset({"MINIMAL", "LOW", "MEDIUM", "HIGH"}),
        behaviors=frozenset({"BLOCKING"}),
        default_behavior="BLOCKING",
        scheduling="ignored",
        client_content="seed only",
        proactivity="refused",
        handle_after=frozenset({"tool"}),
        call_id=("fc_", 19),
        voice_activity=False,
        model_role=False,
        empty_while_thinking=False,
        empty_before_tool_call=True,
        frame_ms=(160, 200),
    ),
    Family(
        "2.5",
        (
            "gemini-2.5-flash-native-audio-preview-12-2025",
            "gemini-2.5-flash-native-audio-preview-09-2025",
            "gemini-2.5-flash-native-audio-latest",
        ),
        thinking="budget",
        default_behavior="BLOCKING",
        roles_required=False,
        proactivity="opt-in",
        affective_dialog=True,
        audio_during_tool="refuse",
        unsolicited_handle=False,
        handle_after=frozenset({"turn"}),
        call_id=("function-call-", 20),
        voice_activity=False,
        caller_text="words",
        merged_transcript=False,
        model_role=False,
        thoughts="always",
        empty_while_thinking=False,
        frame_ms=(40, 60),
    ),
)

_BY_MODEL = {f"models/{model}": family for family in FAMILIES for model in family.models}


def family_of(model: str, version: str) -> Family:
    """The family of ``models/NAME``. Raises RefusalError 1008 for a model the service does not know."""
    family = _BY_MODEL.get(model)
    if family is None:
        raise RefusalError(
            1008,
            f"{model} is not found for API version {version}, or is not supported for bidiGenerateContent. "
            "Call ModelService.ListModels to see the list of available models and their supported methods.",
        )
    return family
