"""What the simulated model says and calls, one reply at a time, and how it is interrupted.

The order of messages is that of published recordings: audio in bursts, generationComplete, and turnComplete with
its usageMetadata once a listener in real time would have heard everything; in an interrupted turn
toolCallCancellation (when calls are pending), interrupted, turnComplete, and no generationComplete.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ari_gemini.audio.pcm import SAMPLE_BYTES
from ari_gemini.simulator import gemini_frames as frames
from ari_gemini.simulator.agenda import Agenda
from ari_gemini.simulator.gemini_memory import CallGroup, HandleBook, Memory, Say
from ari_gemini.simulator.gemini_messages import ToolResult
from ari_gemini.simulator.gemini_record import Said, SessionRecord
from ari_gemini.simulator.gemini_setup import AcceptedSetup
from ari_gemini.simulator.gemini_voice import SpeechFrame, cut_speech
from ari_gemini.simulator.phrases import MODEL_RATE, join
from ari_gemini.simulator.scenario import FaultPoint, Scenario, ScriptedCall, ScriptTurn

MAX_QUEUED = 8
"""Replies waiting for the floor. Each answers a turn of the caller or a tool; a ninth replaces the oldest."""

_REPLY = "reply"
_BYTES_PER_SECOND = MODEL_RATE * SAMPLE_BYTES


class Wire(Protocol):
    """The way to the client. Nothing here waits."""

    def send(self, message: frames.Json) -> None:
        """Send one message as a binary frame."""

    def send_raw(self, frame: str | bytes) -> None:
        """Send a frame as it is: text for str, binary for bytes."""

    def close(self, code: int, reason: str) -> None:
        """Close after what was sent so far."""

    def abort(self) -> None:
        """Reset the TCP connection."""

    def slow_pongs(self, seconds: float) -> None:
        """Answer pings this late from now on."""


@dataclass(slots=True)
class Call:
    """Functions to be called, and what is said afterwards."""

    calls: tuple[ScriptedCall, ...]
    after: tuple[Say, ...] = ()


@dataclass(slots=True, eq=False)
class Reply:
    """One turn of the model."""

    origin: str
    steps: deque[Say | Call]
    turn: ScriptTurn | None = None
    begun: bool = False
    play_start: float = 0.0
    play_end: float = 0.0
    """When a listener in real time has heard what was sent."""
    sent_bytes: int = 0
    generated: bool = False
    pieces: Iterator[SpeechFrame] = field(default_factory=lambda: iter(()))
    saying: Say | None = None
    said: Said | None = None
    piece_base: float = 0.0
    group: CallGroup | None = None
    """Blocking calls that the reply waits for."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What a conversation's parts share."""

    scenario: Scenario
    wire: Wire
    record: SessionRecord
    agenda: Agenda
    rng: random.Random
    book: HandleBook
    reach: Callable[[FaultPoint, float, float], None]
    """Tells the scenario's faults: point reached, time, amount (seconds of speech)."""


def says(names: Sequence[str]) -> tuple[Say, ...]:
    """The step that says these phrases one after another; none for no phrases."""
    if not names:
        return ()
    text, pcm = join(names)
    return (Say("+".join(names), text, pcm),)


class Replies:
    """The model's side of one connection. All times are the simulator's, s."""

    def __init__(self, desk: Desk, setup: AcceptedSetup, memory: Memory) -> None:
        self._desk = desk
        self._setup = setup
        self._memory = memory
        self._current: Reply | None = None
        self._queue: deque[Reply] = deque(maxlen=MAX_QUEUED)
        self._caller_speaks = False
        self._counted_ms = memory.received_ms

    @property
    def busy(self) -> bool:
        """A reply is being thought about, spoken, played out, or waits for a blocking call."""
        return self._current is not None

    @property
    def blocked(self) -> bool:
        """A blocking call is pending."""
        return any(group.blocking for group in self._memory.groups)

    # --- what starts and stops a reply -------------------------------------------------------------------------

    def answer(self, turn: ScriptTurn, origin: str, now: float) -> None:
        """Give the script's turn as a reply, once the floor is free."""
        steps: deque[Say | Call] = deque(says(turn.first))
        if turn.calls:
            steps.append(Call(turn.calls, says(turn.say)))
        else:
            steps.extend(says(turn.say))
        think = self._desk.scenario.think_time if turn.think is None else turn.think
        self.begin(Reply(origin, steps, turn), now, think)

    def begin(self, reply: Reply, now: float, delay: float) -> None:
        """Start this reply ``delay`` seconds from now, or queue it behind the one that has the floor."""
        if self._current is not None:
            self._queue.append(reply)
            return
        self._current = reply
        if self._setup.family.empty_while_thinking:
            self._desk.agenda.at(now + delay * 0.65, self._send_empties, _REPLY)
        self._desk.agenda.at(now + delay, self._step, _REPLY)

    def caller_began(self, now: float) -> None:
        """The caller speaks: interrupt, if this session allows it, and hold what is queued."""
        self._caller_speaks = True
        if self._setup.interruptions:
            self.interrupt(now)

    def caller_ended(self) -> None:
        """The caller has stopped."""
        self._caller_speaks = False

    def interrupt(self, now: float, *, by_tool: bool = False) -> None:
        """Stop whatever the model is doing; nothing happens when it does nothing."""
        reply = self._current
        if not by_tool:
            self.cancel_calls(now, only_blocking=self._desk.scenario.cancel_on_interrupt == "blocking")
        if reply is None:
            return
        self._desk.agenda.drop(_REPLY)
        self._current = None
        if reply.turn is not None and not reply.begun:
            self._memory.script.put_back(reply.turn)
        if reply.said is not None:
            reply.said.interrupted = True
        self._desk.wire.send(frames.interrupted())
        self._desk.record.note("interrupted", now, sent_seconds=reply.sent_bytes / _BYTES_PER_SECOND)
        for _ in range(self._desk.scenario.late_frames):
            piece = next(reply.pieces, None)
            if piece is not None:
                self._send_piece(reply, piece, now, transcript=False)
        self._complete(reply, now)

    def pump(self, now: float) -> None:
        """Start the next queued reply if the floor is free."""
        if self._current is None and self._queue and not self._caller_speaks:
            self.begin(self._queue.popleft(), now, self._desk.scenario.tool_time)

    def drop(self, now: float) -> tuple[Say | None, bool]:
        """The connection is gone: what was left unheard of the current sentence, and whether one was spoken."""
        reply, self._current = self._current, None
        self._desk.agenda.drop(_REPLY)
        if reply is None or not reply.begun or reply.said is None or now >= reply.play_end:
            return None, False
        if reply.saying is None:
            return None, True
        # The service takes up the sentence again where a listener would have been.
        whole = reply.saying
        heard = min(len(reply.said.pcm), int((now - reply.play_start) * MODEL_RATE) * SAMPLE_BYTES)
        rest = whole.pcm[max(0, heard) :]
        words = whole.text.split()
        left = words[len(words) * heard // max(1, len(whole.pcm)) :]
        return Say(whole.name, " ".join(left), rest), True

    # --- tools -------------------------------------------------------------------------------------------------

    def results(self, results: Sequence[ToolResult], now: float) -> None:
        """The client's answers to calls. Those to unknown or cancelled calls are noted and ignored."""
        for result in results:
            group = self._memory.group_of(result.id)
            self._desk.record.note(
                "tool_response" if group else "stray_tool_response",
                now,
                id=result.id,
                name=result.name,
                response=result.response,
                scheduling=result.scheduling,
                will_continue=result.will_continue,
            )
            if group is None:
                continue
            group.scheduling = result.scheduling or group.scheduling
            if not result.will_continue:
                group.waiting.discard(result.id)
            if not group.waiting:
                self._memory.groups.remove(group)
                self._resolved(group, now)
        if "tool" in self._setup.family.handle_after:
            self.send_handle(now)

    def cancel_calls(self, now: float, *, only_blocking: bool = False) -> None:
        """Take back pending calls."""
        cancelled = [group for group in self._memory.groups if group.blocking or not only_blocking]
        if not cancelled:
            return
        ids = sorted(id_ for group in cancelled for id_ in group.waiting)
        self._memory.groups = [group for group in self._memory.groups if group not in cancelled]
        self._desk.wire.send(frames.tool_cancelled(ids))
        self._desk.record.note("tool_cancelled", now, ids=ids)

    def send_handle(self, now: float) -> None:
        """Send a fresh resumption handle."""
        handle = self._desk.book.issue(self._memory)
        self._desk.wire.send(frames.resumption_update(handle))
        self._desk.record.note("resumption_update", now, handle=handle)

    def _resolved(self, group: CallGroup, now: float) -> None:
        reply = self._current
        if reply is not None and reply.group is group:
            reply.group = None
            reply.steps.extend(group.after)
            self._desk.agenda.at(now + self._desk.scenario.tool_time, self._step, _REPLY)
            return
        silent = group.scheduling == "SILENT" and not group.blocking
        if silent or not group.after:
            if self._setup.family.interaction_status:
                self._desk.wire.send(frames.turn_complete(self._usage(0), "IDLE"))
                self._desk.record.note("turn_complete", now)
            return
        answer = Reply("tool", deque(group.after))
        if group.scheduling == "INTERRUPT" and not group.blocking:
            self.interrupt(now, by_tool=True)
            self._queue.appendleft(answer)
        else:
            self._queue.append(answer)
        self.pump(now)

    def _call(self, reply: Reply, step: Call, now: float) -> bool:
        """Send the calls that the setup declares. True when the reply must wait for their results."""
        declared = self._setup.tools
        calls = [call for call in step.calls if call.name in declared]
        for call in step.calls:
            if call.name not in declared:
                self._desk.record.note("call_skipped", now, name=call.name)
        if not calls:
            reply.steps.extend(step.after)
            return False
        ids = [self._setup.family.call_id.format(self._desk.rng.randrange(10**6)) for _ in calls]
        blocking = any(declared[call.name] == "BLOCKING" for call in calls)
        names = {id_: call.name for id_, call in zip(ids, calls, strict=True)}
        group = CallGroup(names, set(ids), blocking, step.after)
        self._memory.groups.append(group)
        if self._setup.family.empty_before_tool_call:
            self._desk.wire.send({"serverContent": {}})
        message = [(id_, call.name, call.args) for id_, call in zip(ids, calls, strict=True)]
        self._desk.wire.send(frames.tool_call(message))
        self._desk.record.note("tool_call", now, ids=ids, names=[call.name for call in calls], blocking=blocking)
        self._desk.reach("tool", now, 1)
        if blocking:
            reply.group = group
        return True

    # --- one reply, step by step -------------------------------------------------------------------------------

    def _step(self, now: float) -> None:
        reply = self._current
        if reply is None:
            return
        if not reply.begun:
            self._begin_output(reply, now)
        while reply.steps and self._current is reply:
            step = reply.steps.popleft()
            if isinstance(step, Say):
                self._say(reply, step, now)
                return
            if self._call(reply, step, now):
                if reply.group is None:
                    # A call that does not block ends the turn at once; the answer is a turn of its own.
                    self._end(reply, now, status="IN_PROGRESS")
                return
        if self._current is reply:
            self._generated(reply, now)

    def _begin_output(self, reply: Reply, now: float) -> None:
        reply.begun = True
        reply.play_end = now
        self._desk.record.note("turn_start", now, origin=reply.origin)
        self._desk.reach("turn", now, 1)
        thoughts = self._setup.family.thoughts
        if thoughts == "always" or (thoughts == "asked" and self._setup.include_thoughts):
            self._desk.wire.send(frames.thought("**Answering the caller**\n\nI will answer briefly."))

    def _say(self, reply: Reply, step: Say, now: float) -> None:
        scenario = self._desk.scenario
        low, high = self._setup.family.frame_ms
        sizes = scenario.chunk_bytes or (low * _BYTES_PER_SECOND // 1000, high * _BYTES_PER_SECOND // 1000)
        pace = self._desk.rng.uniform(*scenario.pace)
        reply.pieces = cut_speech(step.text, step.pcm, sizes, pace, self._desk.rng)
        reply.saying = step
        reply.said = self._desk.record.begin_saying(step.name, step.text, now)
        reply.piece_base = now
        reply.play_end = max(reply.play_end, now)
        reply.play_start = reply.play_end
        self._next_piece(reply, now)

    def _next_piece(self, reply: Reply, now: float) -> None:
        piece = next(reply.pieces, None)
        if piece is None:
            if reply.said is not None:
                reply.said.complete = True
            self._step(now)
            return

        def send(at: float) -> None:
            self._send_piece(reply, piece, at)
            if self._current is reply:
                self._next_piece(reply, at)

        self._desk.agenda.at(reply.piece_base + piece.due, send, _REPLY)

    def _send_piece(self, reply: Reply, piece: SpeechFrame, now: float, transcript: bool = True) -> None:
        desk, family = self._desk, self._setup.family
        if desk.rng.random() < desk.scenario.empties:
            self._desk.wire.send(desk.rng.choice(frames.EMPTY))
            self._desk.record.note("empty", now)
        text = piece.text if transcript and self._setup.transcribe_model else ""
        if text and not family.merged_transcript:
            desk.wire.send(frames.model_text(text))
        merged = text if family.merged_transcript else ""
        desk.wire.send(
            frames.audio(piece.pcm, role=family.model_role, text=merged, url_safe=desk.scenario.url_safe_base64)
        )
        desk.record.note("audio", now, bytes=len(piece.pcm))
        seconds = len(piece.pcm) / _BYTES_PER_SECOND
        reply.sent_bytes += len(piece.pcm)
        reply.play_end = max(reply.play_end, now) + seconds
        if reply.said is not None:
            reply.said.pcm += piece.pcm
            reply.said.sent_text += piece.text if transcript else ""
        desk.reach("speech", now, seconds)

    def _generated(self, reply: Reply, now: float) -> None:
        if reply.sent_bytes:
            reply.generated = True
            self._desk.wire.send(frames.generation_complete())
            self._desk.record.note("generation_complete", now)
        self._desk.agenda.at(max(now, reply.play_end), lambda at: self._end(reply, at, "IDLE"), _REPLY)

    def _end(self, reply: Reply, now: float, status: str) -> None:
        self._current = None
        self._desk.agenda.drop(_REPLY)
        self._complete(reply, now, status)
        if "turn" in self._setup.family.handle_after and self._setup.resumption_asked:
            self.send_handle(now)
        self.pump(now)

    def _complete(self, reply: Reply, now: float, status: str = "IDLE") -> None:
        shown = status if self._setup.family.interaction_status else None
        self._desk.wire.send(frames.turn_complete(self._usage(reply.sent_bytes), shown))
        self._desk.record.note("turn_complete", now, origin=reply.origin)

    def _usage(self, sent_bytes: int) -> frames.Json:
        heard_ms = self._memory.received_ms - self._counted_ms
        self._counted_ms = self._memory.received_ms
        self._memory.context_tokens += math.ceil(heard_ms / 1000 * frames.TOKENS_PER_SECOND)
        response = math.ceil(sent_bytes / _BYTES_PER_SECOND * frames.TOKENS_PER_SECOND)
        usage = frames.usage(self._memory.context_tokens, response)
        self._memory.context_tokens += response
        return usage

    def _send_empties(self, now: float) -> None:
        for message in frames.EMPTY:
            self._desk.wire.send(message)
            self._desk.record.note("empty", now)
