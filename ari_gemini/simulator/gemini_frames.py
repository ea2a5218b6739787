"""The messages the simulated service sends, as the Live API reference and published recordings show them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from ari_gemini.simulator.phrases import MODEL_RATE

Json = dict[str, Any]

OUTPUT_MIME = f"audio/pcm;rate={MODEL_RATE}"
EMPTY: tuple[Json, ...] = ({}, {"serverContent": {}})
"""Messages that say nothing; the service sends both."""

TOKENS_PER_SECOND = 25
"""Of audio, in either direction (Gemini API: tokens guide)."""


def duration(seconds: float) -> str:
    """A protobuf Duration in JSON: whole seconds without decimals, else three."""
    ms = round(seconds * 1000)
    return f"{ms // 1000}s" if ms % 1000 == 0 else f"{ms / 1000:.3f}s"


def setup_complete() -> Json:
    """The session stands."""
    return {"setupComplete": {}}


def resumption_update(handle: str) -> Json:
    """A handle to come back with."""
    return {"sessionResumptionUpdate": {"newHandle": handle, "resumable": True}}


def go_away(seconds: float) -> Json:
    """The connection ends in ``seconds``."""
    return {"goAway": {"timeLeft": duration(seconds)}}


def activity(kind: str, offset_ms: float) -> Json:
    """``kind`` is ``start`` or ``end``; the offset counts the sound received since the session began."""
    return {"voiceActivity": {"type": f"ACTIVITY_{kind.upper()}", "audioOffset": duration(offset_ms / 1000)}}


def caller_text(text: str) -> Json:
    """An increment of the caller's transcript."""
    return {"serverContent": {"inputTranscription": {"text": text}}}


def model_text(text: str) -> Json:
    """An increment of the model's transcript, in a message of its own."""
    return {"serverContent": {"outputTranscription": {"text": text}}}


def audio(pcm: bytes, *, role: bool, text: str = "", url_safe: bool = False) -> Json:
    """A chunk of model speech, 24 kHz PCM; ``text`` joins the transcript to it, ``role`` names the model."""
    encode = base64.urlsafe_b64encode if url_safe else base64.b64encode
    return audio_data(encode(pcm).decode(), role=role, text=text)


def audio_data(data: str, *, role: bool, text: str = "") -> Json:
    """The same with the base64 already there, or what is meant to pass for it."""
    turn: Json = {"parts": [{"inlineData": {"mimeType": OUTPUT_MIME, "data": data}}]}
    if role:
        turn["role"] = "model"
    content: Json = {"modelTurn": turn}
    if text:
        content["outputTranscription"] = {"text": text}
    return {"serverContent": content}


def thought(text: str) -> Json:
    """What the model thinks: never to be spoken."""
    return {"serverContent": {"modelTurn": {"parts": [{"text": text, "thought": True}]}}}


def generation_complete() -> Json:
    """All of this turn has been sent."""
    return {"serverContent": {"generationComplete": True}}


def interrupted() -> Json:
    """Whatever is unplayed must go."""
    return {"serverContent": {"interrupted": True}}


def waiting_for_input() -> Json:
    """The model keeps silent on purpose."""
    return {"serverContent": {"waitingForInput": True}}


def turn_complete(usage: Json, status: str | None = None, reason: str | None = None) -> Json:
    """The turn is over; ``status`` is the interactionStatus of the models that have one, ``reason`` why it
    ended other than well."""
    content: Json = {"turnComplete": True}
    if reason is not None:
        content["turnCompleteReason"] = reason
    if status is not None:
        content["interactionStatus"] = status
    return {"serverContent": content, "usageMetadata": usage}


def usage(prompt: int, response: int) -> Json:
    """Token counts of a turn, all of them audio."""
    return {
        "promptTokenCount": prompt,
        "responseTokenCount": response,
        "totalTokenCount": prompt + response,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": prompt}],
        "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": response}],
    }


def tool_call(calls: Sequence[tuple[str, str, Mapping[str, Any]]]) -> Json:
    """Calls as (id, name, args), to be made side by side."""
    return {
        "toolCall": {
            "functionCalls": [{"id": id_, "name": name, "args": dict(args)} for id_, name, args in calls]
        }
    }


def tool_cancelled(ids: Sequence[str]) -> Json:
    """These calls' results are no longer wanted."""
    return {"toolCallCancellation": {"ids": list(ids)}}
