"""An open simulated session: what the client may send in it, and what the caller's speech sets off.

Like the conversation it belongs to it has no loop and no clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ari_gemini.audio.pcm import SAMPLE_BYTES
from ari_gemini.simulator import gemini_frames as frames
from ari_gemini.simulator.gemini_desk import Desk, Open
from ari_gemini.simulator.gemini_messages import (
    Audio,
    Kind,
    check_content,
    check_realtime,
    read_audio,
    read_tool_results,
)
from ari_gemini.simulator.gemini_replies import Replies
from ari_gemini.simulator.gemini_schema import RefusalError, invalid_argument
from ari_gemini.simulator.gemini_voice import Edge, VoiceDetector
from ari_gemini.simulator.scenario import Trigger

Body = Mapping[str, Any]

NOT_IMPLEMENTED = "Operation is not implemented, or supported, or enabled."
PRECONDITION = "Precondition check failed."


class Dialogue:
    """The session from setupComplete to the end of its connection. All times are the simulator's, s."""

    def __init__(self, desk: Desk, session: Open) -> None:
        self.replies = Replies(desk, session)
        self._desk = desk
        self._setup = session.setup
        self._family = session.setup.family
        self._memory = session.memory
        self._detector = VoiceDetector(session.setup.voice, session.memory.received_ms)
        self._in_activity = False
        self._activity_ms = 0.0

    def receive(self, kind: Kind, body: Body, now: float) -> None:
        """Take in one checked message. Raises RefusalError for what this session may not send."""
        if kind == "realtimeInput":
            self._on_realtime(body, now)
        elif kind == "clientContent":
            self._on_content(body, now)
        elif kind == "toolResponse":
            results = read_tool_results(body, self._family)
            self._desk.record.receive("toolResponse", now, body)
            self.replies.results(results, now)
        else:
            raise invalid_argument()

    def _on_realtime(self, body: Body, now: float) -> None:
        check_realtime(body, self._setup.manual_activity)
        if self._family.audio_during_tool == "refuse" and self.replies.blocked:
            raise RefusalError(1008, NOT_IMPLEMENTED)
        if "activityStart" in body and not self._in_activity:
            self._in_activity, self._activity_ms = True, 0.0
            self._caller_began(self._memory.received_ms, now)
        if "audio" in body:
            self._on_audio(read_audio(body["audio"]), now)
        if "video" in body:
            self._desk.record.note("video", now, bytes=len(body["video"].get("data", b"")))
        if "activityEnd" in body and self._in_activity:
            self._activity_ended(now)
        if body.get("audioStreamEnd"):
            self._desk.record.note("audio_stream_end", now)
            edge = self._detector.flush()
            self._edges([] if edge is None else [edge], now)
        if "text" in body:
            self._on_text(body["text"], now)

    def _on_audio(self, audio: Audio, now: float) -> None:
        record = self._desk.record
        if not audio.labelled and not record.heard.messages:
            record.note("unlabelled_audio", now)
        record.hear(audio.pcm, audio.rate, now)
        ms = len(audio.pcm) / SAMPLE_BYTES * 1000 / audio.rate
        self._memory.received_ms += ms
        if not self._setup.manual_activity:
            self._edges(self._detector.feed(audio.pcm, audio.rate), now)
        elif self._in_activity:
            self._activity_ms += ms
        self._desk.reach("heard", now, 1)

    def _on_text(self, text: str, now: float) -> None:
        self._desk.record.receive("text", now, {"text": text})
        self._desk.record.note("client_text", now, text=text)
        if self._setup.interruptions:
            self.replies.interrupt(now)
        self._answer("text", now)

    def _on_content(self, body: Body, now: float) -> None:
        check_content(body, self._family, self._memory.seeding)
        complete = body.get("turnComplete", False)
        self._desk.record.receive("clientContent", now, body)
        self._desk.record.note("client_content", now, turn_complete=complete)
        if self._memory.seeding:
            self._memory.seeding = not complete
            return
        self.replies.interrupt(now)
        if complete:
            self._answer("text", now)

    def _edges(self, edges: Sequence[Edge], now: float) -> None:
        for edge in edges:
            if edge.kind == "start":
                self._caller_began(edge.offset_ms, now)
            else:
                self._caller_ended(edge.offset_ms, edge.spoken_ms, now)

    def _caller_began(self, offset_ms: float, now: float) -> None:
        self._desk.record.note("activity_start", now, offset_ms=offset_ms)
        if self._family.voice_activity:
            self._desk.wire.send(frames.activity("start", offset_ms))
        self.replies.caller_began(now)
        self._desk.reach("caller", now, 1)

    def _caller_ended(self, offset_ms: float, spoken_ms: float, now: float) -> None:
        self.replies.caller_ended()
        known = self._memory.script.expected("speech").transcript
        self._transcribe(known or f"({spoken_ms / 1000:.1f} s of speech)", now)
        self._desk.record.note("activity_end", now, offset_ms=offset_ms, spoken_ms=spoken_ms)
        if self._family.voice_activity:
            # Recorded on 3.8: the end of activity shares its message with an empty serverContent.
            self._desk.wire.send({**frames.activity("end", offset_ms), "serverContent": {}})
        self._answer("speech", now)

    def _transcribe(self, text: str, now: float) -> None:
        if not self._setup.transcribe_caller:
            return
        words = [text]
        if self._family.caller_text == "words":
            words = [word if i == 0 else f" {word}" for i, word in enumerate(text.split())]
        for word in words:
            self._desk.wire.send(frames.caller_text(word))
        self._desk.record.note("input_transcription", now, text=text)

    def _activity_ended(self, now: float) -> None:
        self._in_activity = False
        if self._activity_ms:
            self._caller_ended(self._memory.received_ms, self._activity_ms, now)
            return
        # Measured: an activity without sound is answered by an empty turn and then refused.
        self.replies.close_empty_turn(now)
        raise RefusalError(1007, PRECONDITION)

    def _answer(self, trigger: Trigger, now: float) -> None:
        answers = self._desk.scenario.answers
        if answers == "speech" and not (trigger == "text" and self.replies.give_owed(now)):
            self.replies.answer(self._memory.script.take(trigger), trigger, now)
        elif answers == "waiting":
            self._desk.wire.send(frames.waiting_for_input())
            self._desk.record.note("waiting_for_input", now)
        self.replies.pump(now)
