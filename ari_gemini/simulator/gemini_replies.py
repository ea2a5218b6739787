"""What the simulated model says and calls, one reply at a time, and how it is interrupted.

The order of messages is that of published recordings: audio in bursts, generationComplete, and turnComplete
with its usageMetadata once a listener in real time would have heard everything; in an interrupted turn
toolCallCancellation (when calls are pending), interrupted, turnComplete, and no generationComplete.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from ari_gemini.simulator import gemini_frames as frames
from ari_gemini.simulator.gemini_calls import Calls
from ari_gemini.simulator.gemini_desk import Call, Desk, Open, Reply, says
from ari_gemini.simulator.gemini_memory import CallGroup, Say
from ari_gemini.simulator.gemini_messages import ToolResult
from ari_gemini.simulator.gemini_mouth import BYTES_PER_SECOND, Mouth
from ari_gemini.simulator.scenario import ScriptTurn

MAX_QUEUED = 8
"""Replies waiting for the floor. Each answers a turn of the caller or a tool; a ninth replaces the oldest."""

_GROUP = "reply"
_THOUGHT = "**Considering the caller's words**\n\nA short answer will do."


class Replies:
    """The model's side of one connection. All times are the simulator's, s."""

    def __init__(self, desk: Desk, session: Open) -> None:
        self._desk = desk
        self._setup = session.setup
        self._family = session.setup.family
        self._memory = session.memory
        self._mouth = Mouth(desk, session.setup)
        self._calls = Calls(desk, session)
        self._current: Reply | None = None
        self._queue: deque[Reply] = deque(maxlen=MAX_QUEUED)
        self._caller_speaks = False
        self._counted_ms = session.memory.received_ms

    @property
    def busy(self) -> bool:
        """A reply is being thought about, spoken, heard, or waits for a blocking call."""
        return self._current is not None

    @property
    def blocked(self) -> bool:
        """A blocking call is open."""
        return self._calls.blocked

    def give_owed(self, now: float) -> bool:
        """Say what a drop kept the model from saying. False when that is nothing."""
        owed, self._memory.owed = self._memory.owed, ()
        if owed:
            self.begin(Reply("owed", deque(owed)), now, self._desk.scenario.think_time)
        return bool(owed)

    def answer(self, turn: ScriptTurn, origin: str, now: float) -> None:
        """Give the script's turn as a reply, once the floor is free."""
        if turn.stall:
            self._desk.record.note("stalled", now, origin=origin)
            return
        steps: deque[Say | Call] = deque(says(turn.first, silent=turn.silent))
        rest = says(turn.say, silent=turn.silent)
        if turn.calls:
            steps.append(Call(turn.calls, rest))
        else:
            steps.extend(rest)
        think = self._desk.scenario.think_time if turn.think is None else turn.think
        self.begin(Reply(origin, steps, turn), now, think)

    def begin(self, reply: Reply, now: float, delay: float) -> None:
        """Start this reply ``delay`` seconds from now, or queue it behind the one that has the floor."""
        if self._current is not None:
            self._queue.append(reply)
            return
        self._current = reply
        if self._family.empty_while_thinking:
            self._desk.agenda.at(now + delay * 0.65, self._send_empties, _GROUP)
        self._desk.agenda.at(now + delay, self._step, _GROUP)

    def caller_began(self, now: float) -> None:
        """The caller speaks: interrupt, if this session allows it, and hold what is queued."""
        self._caller_speaks = True
        if self._setup.interruptions:
            self.interrupt(now)

    def caller_ended(self) -> None:
        """The caller has stopped."""
        self._caller_speaks = False

    def interrupt(self, now: float) -> None:
        """The caller takes the floor: take back calls and stop. Silent when there is nothing to stop."""
        self._calls.cancel(now, only_blocking=self._desk.scenario.cancel_on_interrupt == "blocking")
        self._stop(now)

    def cancel_calls(self, now: float) -> None:
        """Take back every open call, without an interruption."""
        cancelled = self._calls.cancel(now, only_blocking=False)
        reply = self._current
        if reply is not None and reply.group in cancelled:
            self._end(reply, now)

    def results(self, results: Sequence[ToolResult], now: float) -> None:
        """The client's answers to calls."""
        for group in self._calls.answered(results, now):
            self._resolved(group, now)
        if "tool" in self._family.handle_after:
            self.send_handle(now)

    def pump(self, now: float) -> None:
        """Start the next queued reply if the floor is free."""
        if self._current is None and self._queue and not self._caller_speaks:
            self.begin(self._queue.popleft(), now, self._desk.scenario.tool_time)

    def drop(self, now: float) -> tuple[Say | None, bool]:
        """The connection is gone: what was not heard of the current sentence, and whether one was spoken."""
        reply, self._current = self._current, None
        self._desk.agenda.drop(_GROUP)
        if reply is not None and reply.turn is not None and not reply.begun:
            self._memory.script.put_back(reply.turn)
        unsaid = (*((reply,) if reply is not None and not reply.begun else ()), *self._queue)
        self._memory.owed += tuple(
            step for one in unsaid if one.origin == "tool" for step in one.steps if isinstance(step, Say)
        )
        rest = self._mouth.rest(now) if reply is not None and reply.begun else (None, False)
        self._mouth.stop(now)
        return rest

    def send_handle(self, now: float) -> None:
        """Send a fresh resumption handle."""
        handle = self._desk.book.issue(self._memory)
        self._desk.wire.send(frames.resumption_update(handle))
        self._desk.record.note("resumption_update", now, handle=handle)

    def close_empty_turn(self, now: float) -> None:
        """End a turn in which nothing was said or heard, with the empty usage the service sends then."""
        self._desk.wire.send(frames.turn_complete({}))
        self._desk.record.note("turn_complete", now, origin="empty")

    def _stop(self, now: float) -> None:
        reply = self._current
        if reply is None:
            return
        self._current = None
        self._desk.agenda.drop(_GROUP)
        if reply.turn is not None and not reply.begun:
            self._memory.script.put_back(reply.turn)
        self._desk.wire.send(frames.interrupted())
        sent = self._mouth.sent_bytes / BYTES_PER_SECOND if reply.begun else 0.0
        self._desk.record.note("interrupted", now, sent_seconds=sent)
        self._mouth.stop(now, self._desk.scenario.late_frames)
        self._complete(reply, now)

    def _resolved(self, group: CallGroup, now: float) -> None:
        reply = self._current
        if reply is not None and reply.group is group:
            reply.group = None
            reply.steps.extend(group.after)
            self._desk.agenda.at(now + self._desk.scenario.tool_time, self._step, _GROUP)
            return
        wish = "" if group.blocking else group.scheduling
        if wish == "SILENT" or not group.after:
            if self._family.interaction_status and reply is None:
                self._desk.wire.send(frames.turn_complete(self._usage(0), "IDLE"))
                self._desk.record.note("turn_complete", now, origin="tool")
            return
        answer = Reply("tool", deque(group.after))
        if wish == "INTERRUPT":
            self._stop(now)
            self._queue.appendleft(answer)
        else:
            self._queue.append(answer)
        self.pump(now)

    def _step(self, now: float) -> None:
        reply = self._current
        if reply is None:
            return
        if not reply.begun:
            self._begin_output(reply, now)
        while reply.steps and self._current is reply:
            step = reply.steps.popleft()
            if isinstance(step, Say):
                self._mouth.say(step, now, self._step)
                return
            if self._call(reply, step, now):
                return
        if self._current is reply:
            self._generated(reply, now)

    def _begin_output(self, reply: Reply, now: float) -> None:
        reply.begun = True
        self._mouth.begin_turn(now)
        self._desk.record.note("turn_start", now, origin=reply.origin)
        wanted = self._family.thoughts
        if wanted == "always" or (wanted == "asked" and self._setup.include_thoughts):
            self._desk.wire.send(frames.thought(_THOUGHT))
        self._desk.reach("turn", now, 1)

    def _call(self, reply: Reply, step: Call, now: float) -> bool:
        """Send a step's calls. False when there was nothing to call and the reply goes on at once."""
        group = self._calls.send(step, now)
        if group is None:
            reply.steps.extend(step.after)
            return False
        if group.blocking:
            reply.group = group
        self._desk.reach("tool", now, 1)
        if self._current is reply and not group.blocking:
            # A call that does not block ends the turn at once; its answer is a turn of its own.
            self._end(reply, now, "IN_PROGRESS")
        return True

    def _generated(self, reply: Reply, now: float) -> None:
        if self._mouth.sent_bytes:
            self._desk.wire.send(frames.generation_complete())
            self._desk.record.note("generation_complete", now)
        self._desk.agenda.at(max(now, self._mouth.play_end), lambda at: self._end(reply, at), _GROUP)

    def _end(self, reply: Reply, now: float, status: str = "IDLE") -> None:
        self._current = None
        self._desk.agenda.drop(_GROUP)
        self._complete(reply, now, status)
        if "turn" in self._family.handle_after and self._setup.resumption_asked:
            self.send_handle(now)
        self.pump(now)

    def _complete(self, reply: Reply, now: float, status: str = "IDLE") -> None:
        shown = status if self._family.interaction_status else None
        reason = reply.turn.reason if reply.turn is not None else None
        usage = self._usage(self._mouth.sent_bytes if reply.begun else 0)
        self._desk.wire.send(frames.turn_complete(usage, shown, reason))
        self._desk.record.note("turn_complete", now, origin=reply.origin)

    def _usage(self, sent_bytes: int) -> frames.Json:
        heard_ms = self._memory.received_ms - self._counted_ms
        self._counted_ms = self._memory.received_ms
        self._memory.context_tokens += math.ceil(heard_ms / 1000 * frames.TOKENS_PER_SECOND)
        response = math.ceil(sent_bytes / BYTES_PER_SECOND * frames.TOKENS_PER_SECOND)
        usage = frames.usage(self._memory.context_tokens, response)
        self._memory.context_tokens += response
        return usage

    def _send_empties(self, now: float) -> None:
        for message in frames.EMPTY:
            self._desk.wire.send(message)
            self._desk.record.note("empty", now)
