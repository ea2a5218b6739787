"""One client frame -> one checked message, or the refusal the service would give."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from ari_gemini.simulator.gemini_families import Family
from ari_gemini.simulator.gemini_schema import RefusalError, invalid_argument, read_message

MEDIA_CHUNKS = "realtime_input.media_chunks is deprecated. Use audio, video, or text instead."
SCHEDULING_NOT_SUPPORTED = "Function response scheduling is not supported for this model"

NATIVE_RATE = 16_000
"""Hz taken for ``audio/pcm`` that names no rate (Gemini API: Live API capabilities guide)."""

Kind = Literal["setup", "clientContent", "realtimeInput", "toolResponse"]

_ROOT = "BidiGenerateContentClientMessage"
_PCM = re.compile(r"audio/pcm(?:\s*;\s*rate=(\d{4,6}))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Audio:
    """Caller sound: 16-bit little-endian mono at ``rate`` Hz; ``labelled`` when the MIME type said so."""

    pcm: bytes
    rate: int
    labelled: bool = True


@dataclass(frozen=True, slots=True)
class ToolResult:
    """One function's answer. ``scheduling`` is "" when the client named none."""

    id: str
    name: str
    response: Mapping[str, Any]
    scheduling: str
    will_continue: bool


def read_frame(frame: str | bytes, version: str) -> tuple[Kind, dict[str, Any]]:
    """The one message in a client's frame: its kind and its body, checked against the schema.

    Raises RefusalError 1007 for anything but a JSON object with one known key and nothing unknown in it.
    """
    try:
        message = json.loads(frame, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise RefusalError(1007, "Invalid JSON payload received. Unexpected token.") from None
    checked = read_message(message, _ROOT, "", version)
    if len(checked) > 1:
        second = list(checked)[1]
        raise RefusalError(
            1007,
            f"Invalid value (oneof), oneof field 'message_type' is already set. Cannot set '{second}'",
        )
    for kind in ("setup", "clientContent", "realtimeInput", "toolResponse"):
        if kind in checked:
            return kind, checked[kind]
    raise invalid_argument()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def read_audio(blob: Mapping[str, Any]) -> Audio:
    """The sound of ``realtimeInput.audio``.

    Raises RefusalError 1007 for any encoding but linear PCM (mu-law and A-law must be decoded first), a rate
    out of 8 to 48 kHz, or half a sample.
    """
    match = _PCM.fullmatch(blob.get("mimeType", "").strip())
    pcm: bytes = blob.get("data", b"")
    if match is None or len(pcm) % 2:
        raise invalid_argument()
    rate = int(match[1]) if match[1] else NATIVE_RATE
    if not 8_000 <= rate <= 48_000:
        raise invalid_argument()
    return Audio(pcm, rate, labelled=bool(match[1]))


def check_realtime(body: Mapping[str, Any], manual_activity: bool) -> None:
    """Raise RefusalError 1007 for a realtimeInput that this session may not send.

    activityStart and activityEnd belong to manual activity detection, audioStreamEnd to the automatic one.
    """
    if "mediaChunks" in body:
        raise RefusalError(1007, MEDIA_CHUNKS)
    if not body:
        raise invalid_argument()
    forbidden = {"audioStreamEnd"} if manual_activity else {"activityStart", "activityEnd"}
    if forbidden & body.keys():
        raise invalid_argument()
    video = body.get("video")
    if video is not None and not video.get("mimeType", "").startswith("image/"):
        raise invalid_argument()


def check_content(body: Mapping[str, Any], family: Family, seeding: bool) -> None:
    """Raise RefusalError 1007 for a clientContent that this session may not send.

    ``seeding``: the session's first history is still open. Roles are user or model, and on the 3.x families
    must be there; no function response travels this way.
    """
    if family.client_content == "seed only" and not seeding:
        raise invalid_argument()
    for turn in body.get("turns", ()):
        role = turn.get("role")
        if role not in ("user", "model") and (role is not None or family.roles_required):
            raise invalid_argument()
        if any("functionResponse" in part for part in turn.get("parts", ())):
            raise invalid_argument()


def read_tool_results(body: Mapping[str, Any], family: Family) -> list[ToolResult]:
    """The results of a toolResponse. Raises RefusalError 1007 when one lacks its id or its response object.

    ``scheduling`` may stand beside ``response`` (API reference) or in it (tools guide); beside it wins.
    """
    results = []
    for entry in body.get("functionResponses", ()):
        response = entry.get("response")
        if not entry.get("id") or response is None:
            raise invalid_argument()
        scheduling = entry.get("scheduling") or str(response.get("scheduling", ""))
        if scheduling and family.scheduling == "refused":
            raise RefusalError(1007, SCHEDULING_NOT_SUPPORTED)
        if family.scheduling == "ignored" or scheduling == "SCHEDULING_UNSPECIFIED":
            scheduling = ""
        results.append(
            ToolResult(
                entry["id"], entry.get("name", ""), response, scheduling, entry.get("willContinue", False)
            )
        )
    if not results:
        raise invalid_argument()
    return results
