"""What the server says: one Gemini Live message in, realtime events out.

Source of all shapes: ai.google.dev/api/live (BidiGenerateContentServerMessage). Tolerant where the
service is known to vary or may grow: empty frames, unknown keys at every level, any chunk size, both
base64 alphabets. What cannot be used is counted and skipped; only a frame that is no JSON object at all
is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ari_gemini.gemini.values import DEFAULT_RATE, audio_rate, decode_base64, parse_duration, parse_object
from ari_gemini.realtime.events import (
    AudioDelta,
    Event,
    FunctionCall,
    GenerationComplete,
    GoAway,
    HandleUpdate,
    Interrupted,
    Speaker,
    SpeechStarted,
    SpeechStopped,
    ToolCall,
    ToolCallCancelled,
    Transcript,
    TurnComplete,
    Usage,
    WaitingForInput,
)

_MAX_NAMES = 32
"""Names of unknown keys that are remembered, so that a babbling server cannot fill the memory."""

Json = dict[str, Any]


# Keys known at each level, used or not.
_CONTENT_KEYS = frozenset(
    [
        *("modelTurn", "generationComplete", "interrupted", "waitingForInput", "interactionStatus"),
        *("turnComplete", "turnCompleteReason", "inputTranscription", "outputTranscription"),
        *("interimInputTranscription", "groundingMetadata", "urlContextMetadata"),
    ]
)
_TURN_KEYS = frozenset(["role", "parts"])
_PART_KEYS = frozenset(["inlineData", "text", "thought", "thoughtSignature"])
_BLOB_KEYS = frozenset(["mimeType", "data"])
_TRANSCRIPT_KEYS = frozenset(["text", "finished", "languageCode"])
_SETUP_KEYS = frozenset(["sessionId"])
_ACTIVITY_KEYS = frozenset(["type", "audioOffset"])
_VAD_KEYS = frozenset(["vadSignalType"])
_TOOL_CALL_KEYS = frozenset(["functionCalls"])
_CALL_KEYS = frozenset(["id", "name", "args"])
_CANCELLATION_KEYS = frozenset(["ids"])
_RESUMPTION_KEYS = frozenset(["newHandle", "resumable", "lastConsumedClientMessageIndex"])
_GO_AWAY_KEYS = frozenset(["timeLeft"])
_USAGE_KEYS = frozenset(
    [
        *("promptTokenCount", "responseTokenCount", "totalTokenCount", "thoughtsTokenCount"),
        *("toolUsePromptTokenCount", "cachedContentTokenCount", "promptTokensDetails"),
        *("responseTokensDetails", "cacheTokensDetails", "toolUsePromptTokensDetails"),
    ]
)


@dataclass(slots=True)
class Counts:
    """What came in, and what of it was of no use."""

    frames: int = 0
    empty: int = 0
    """``{}`` and ``{"serverContent":{}}``: harmless, the service sends them between others."""
    unknown: int = 0
    """Keys and values this decoder has not met."""
    malformed: int = 0
    """Known fields of a wrong type, base64 that does not decode, half samples."""


class Decoder:
    """Decodes the messages of one session. Keeps counts and what the session must remember, no audio."""

    def __init__(self, handle: str | None = None) -> None:
        self.counts = Counts()
        self.setup_complete = False
        self.handle = handle
        """The newest handle to resume with. Word that there is none just now does not void the last one."""
        self._unknown_names: dict[str, bool] = {}  # path -> taken
        self._handlers: dict[str, Callable[[Json, list[Event]], None]] = {
            # In the order in which siblings of one frame are acted on.
            "setupComplete": self._setup_complete,
            "voiceActivity": self._voice_activity,
            "voiceActivityDetectionSignal": self._vad_signal,
            "serverContent": self._content,
            "toolCallCancellation": self._tool_call_cancellation,
            "toolCall": self._tool_call,
            "sessionResumptionUpdate": self._resumption,
            "usageMetadata": self._usage,
            "goAway": self._go_away,
        }
        self._known = frozenset(self._handlers)

    def decode(self, data: bytes | str) -> list[Event]:
        """The events of one frame, binary or text, in the order in which they must be acted on.

        An interruption comes first, and audio in the same frame, being of the dead turn, is dropped.
        Thoughts are neither speech nor transcript. Raises MalformedMessage when ``data`` is not a JSON
        object in UTF-8.
        """
        message = parse_object(data)
        self.counts.frames += 1
        events: list[Event] = []
        if not message:
            self.counts.empty += 1
        elif len(message) == 1:
            ((name, value),) = message.items()
            self._dispatch(name, value, events)
        else:
            for name in self._handlers:
                if name in message:
                    self._dispatch(name, message[name], events)
            self._count_unknown(message, self._known, "")
        return events

    def take_unknown(self) -> list[str]:
        """Paths of unknown keys met since the last time, each told once, 32 in all."""
        fresh = [path for path, taken in self._unknown_names.items() if not taken]
        self._unknown_names.update(dict.fromkeys(fresh, True))
        return fresh

    def _dispatch(self, name: str, value: Any, events: list[Event]) -> None:
        handler = self._handlers.get(name)
        if handler is None:
            self._unknown(name)
        elif isinstance(value, dict):
            handler(value, events)
        elif value is not None:  # null is absence (protobuf JSON mapping)
            self.counts.malformed += 1

    # serverContent

    def _content(self, content: Json, events: list[Event]) -> None:
        if not content:
            self.counts.empty += 1
            return
        self._count_unknown(content, _CONTENT_KEYS, "serverContent")
        interrupted = self._flag(content, "interrupted")
        if interrupted:
            events.append(Interrupted())
        self._transcript(content, "inputTranscription", Speaker.CALLER, events)
        self._transcript(content, "interimInputTranscription", Speaker.CALLER, events, replaces=True)
        if "modelTurn" in content and not interrupted:
            self._model_turn(content["modelTurn"], events)
        self._transcript(content, "outputTranscription", Speaker.MODEL, events)
        if self._flag(content, "generationComplete"):
            events.append(GenerationComplete())
        if self._flag(content, "waitingForInput"):
            events.append(WaitingForInput())
        # Models that think at length complete several turns of one interaction; the last ends it at IDLE.
        if self._flag(content, "turnComplete") and content.get("interactionStatus") in (None, "IDLE"):
            events.append(TurnComplete(self._text(content, "turnCompleteReason") or None))

    def _model_turn(self, turn: Any, events: list[Event]) -> None:
        if not isinstance(turn, dict):
            self.counts.malformed += turn is not None
            return
        self._count_unknown(turn, _TURN_KEYS, "modelTurn")
        for part in self._list(turn, "parts"):
            if not isinstance(part, dict):
                self.counts.malformed += 1
                continue
            self._count_unknown(part, _PART_KEYS, "part")
            blob = part.get("inlineData")
            if blob is None or part.get("thought"):
                continue
            if isinstance(blob, dict):
                self._audio(blob, events)
            else:
                self.counts.malformed += 1

    def _audio(self, blob: Json, events: list[Event]) -> None:
        self._count_unknown(blob, _BLOB_KEYS, "inlineData")
        mime, data = blob.get("mimeType"), blob.get("data")
        rate = DEFAULT_RATE if mime is None else audio_rate(mime) if isinstance(mime, str) else None
        pcm = decode_base64(data) if isinstance(data, str) else None
        if rate is None or pcm is None:
            self.counts.malformed += 1
            return
        if len(pcm) % 2:
            # A blob stands for itself: carried over, the odd byte would turn all that follows into noise.
            self.counts.malformed += 1
            pcm = pcm[:-1]
        if pcm:
            events.append(AudioDelta(pcm, rate))

    def _transcript(
        self, content: Json, name: str, speaker: Speaker, events: list[Event], *, replaces: bool = False
    ) -> None:
        transcript = content.get(name)
        if isinstance(transcript, dict):
            self._count_unknown(transcript, _TRANSCRIPT_KEYS, name)
            text = self._text(transcript, "text")
            if text:
                events.append(Transcript(speaker, text, replaces))
        elif transcript is not None:
            self.counts.malformed += 1

    # The other messages

    def _setup_complete(self, value: Json, events: list[Event]) -> None:
        self._count_unknown(value, _SETUP_KEYS, "setupComplete")
        self.setup_complete = True

    def _voice_activity(self, value: Json, events: list[Event]) -> None:
        self._count_unknown(value, _ACTIVITY_KEYS, "voiceActivity")
        offset = self._seconds(value, "audioOffset")
        offset_ms = None if offset is None else offset * 1000
        match self._text(value, "type"):
            case "ACTIVITY_START":
                events.append(SpeechStarted(offset_ms))
            case "ACTIVITY_END":
                events.append(SpeechStopped(offset_ms))
            case _:
                self._unknown("voiceActivity.type")

    def _vad_signal(self, value: Json, events: list[Event]) -> None:
        self._count_unknown(value, _VAD_KEYS, "voiceActivityDetectionSignal")
        match self._text(value, "vadSignalType"):
            case "VAD_SIGNAL_TYPE_SOS":
                events.append(SpeechStarted())
            case "VAD_SIGNAL_TYPE_EOS":
                events.append(SpeechStopped())
            case _:
                self._unknown("voiceActivityDetectionSignal.vadSignalType")

    def _tool_call(self, value: Json, events: list[Event]) -> None:
        self._count_unknown(value, _TOOL_CALL_KEYS, "toolCall")
        calls = []
        for call in self._list(value, "functionCalls"):
            name = self._text(call, "name") if isinstance(call, dict) else ""
            if not name:
                self.counts.malformed += 1
                continue
            self._count_unknown(call, _CALL_KEYS, "functionCall")
            args = call.get("args")
            if not isinstance(args, dict):
                self.counts.malformed += args is not None
                args = {}
            calls.append(FunctionCall(self._text(call, "id"), name, args))
        if calls:
            events.append(ToolCall(tuple(calls)))

    def _tool_call_cancellation(self, value: Json, events: list[Event]) -> None:
        self._count_unknown(value, _CANCELLATION_KEYS, "toolCallCancellation")
        listed = self._list(value, "ids")
        ids = tuple(one for one in listed if isinstance(one, str) and one)
        self.counts.malformed += len(listed) - len(ids)
        if ids:
            events.append(ToolCallCancelled(ids))

    def _resumption(self, value: Json, events: list[Event]) -> None:
        self._count_unknown(value, _RESUMPTION_KEYS, "sessionResumptionUpdate")
        handle = self._text(value, "newHandle") or None
        resumable = self._flag(value, "resumable") and handle is not None
        if resumable:
            self.handle = handle
        events.append(HandleUpdate(handle, resumable))

    def _usage(self, value: Json, events: list[Event]) -> None:
        self._count_unknown(value, _USAGE_KEYS, "usageMetadata")
        prompt = self._count(value, "promptTokenCount")
        response = self._count(value, "responseTokenCount")
        total = self._count(value, "totalTokenCount")
        if prompt or response or total:
            events.append(Usage(prompt, response, total))

    def _go_away(self, value: Json, events: list[Event]) -> None:
        """Without a time that can be read the connection may go at any moment, so it counts as zero."""
        self._count_unknown(value, _GO_AWAY_KEYS, "goAway")
        events.append(GoAway(self._seconds(value, "timeLeft") or 0.0))

    # Fields. A wrong type is counted and read as absence.

    def _flag(self, value: Json, name: str) -> bool:
        flag = value.get(name)
        if flag is None or isinstance(flag, bool):
            return bool(flag)
        self.counts.malformed += 1
        return False

    def _text(self, value: Json, name: str) -> str:
        text = value.get(name)
        if isinstance(text, str):
            return text
        self.counts.malformed += text is not None
        return ""

    def _list(self, value: Json, name: str) -> list[Any]:
        items = value.get(name)
        if isinstance(items, list):
            return items
        self.counts.malformed += items is not None
        return []

    def _count(self, value: Json, name: str) -> int:
        count = value.get(name)
        if isinstance(count, int) and not isinstance(count, bool) and count >= 0:
            return count
        self.counts.malformed += count is not None
        return 0

    def _seconds(self, value: Json, name: str) -> float | None:
        duration = value.get(name)
        seconds = parse_duration(duration) if isinstance(duration, str) else None
        self.counts.malformed += seconds is None and duration is not None
        return seconds

    def _count_unknown(self, value: Json, known: frozenset[str], where: str) -> None:
        if known.issuperset(value):
            return
        for name in value:
            if name not in known:
                self._unknown(f"{where}.{name}" if where else name)

    def _unknown(self, path: str) -> None:
        self.counts.unknown += 1
        if len(self._unknown_names) < _MAX_NAMES:
            self._unknown_names.setdefault(path[:80], False)
