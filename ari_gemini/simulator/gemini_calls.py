"""The simulated model's function calls: sent, answered, taken back."""

from __future__ import annotations

from collections.abc import Sequence

from ari_gemini.simulator import gemini_frames as frames
from ari_gemini.simulator.gemini_desk import Call, Desk, Open
from ari_gemini.simulator.gemini_memory import CallGroup
from ari_gemini.simulator.gemini_messages import ToolResult
from ari_gemini.simulator.scenario import ScriptedCall

MAX_GROUPS = 64
"""Open toolCall messages of one session; a client that answers none of 64 has lost them. The oldest goes."""


class Calls:
    """One session's open calls. They live in its memory, so they outlast a connection."""

    def __init__(self, desk: Desk, session: Open) -> None:
        self._desk = desk
        self._setup = session.setup
        self._memory = session.memory

    @property
    def blocked(self) -> bool:
        """A blocking call is open."""
        return any(group.blocking for group in self._memory.groups)

    def send(self, step: Call, now: float) -> CallGroup | None:
        """Send the step's calls in one message; those that the setup does not declare are left out.

        None when nothing is left to be called.
        """
        declared = self._setup.tools
        for call in step.calls:
            if call.name not in declared:
                self._desk.record.note("call_skipped", now, name=call.name)
        calls = [call for call in step.calls if call.name in declared]
        if not calls:
            return None
        named = {self._new_id(): call for call in calls}
        blocking = any(declared[call.name] == "BLOCKING" for call in calls)
        group = CallGroup(set(named), blocking, step.after)
        self._memory.groups.append(group)
        del self._memory.groups[:-MAX_GROUPS]
        self._send(named, now, blocking)
        return group

    def answered(self, results: Sequence[ToolResult], now: float) -> list[CallGroup]:
        """Take in answers; the groups complete with them. Answers nobody waits for are only noted."""
        complete = []
        for result in results:
            group = next((one for one in self._memory.groups if result.id in one.waiting), None)
            kind = "stray_tool_response" if group is None else "tool_response"
            self._desk.record.note(
                kind,
                now,
                id=result.id,
                name=result.name,
                response=dict(result.response),
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
                complete.append(group)
        return complete

    def cancel(self, now: float, *, only_blocking: bool) -> list[CallGroup]:
        """Take back what is open; the groups taken back."""
        cancelled = [group for group in self._memory.groups if group.blocking or not only_blocking]
        if cancelled:
            ids = sorted(id_ for group in cancelled for id_ in group.waiting)
            self._memory.groups = [group for group in self._memory.groups if group not in cancelled]
            self._desk.wire.send(frames.tool_cancelled(ids))
            self._desk.record.note("tool_cancelled", now, ids=ids)
        return cancelled

    def _send(self, named: dict[str, ScriptedCall], now: float, blocking: bool) -> None:
        if self._setup.family.empty_before_tool_call:
            self._desk.wire.send({"serverContent": {}})
            self._desk.record.note("empty", now)
        self._desk.wire.send(frames.tool_call([(id_, call.name, call.args) for id_, call in named.items()]))
        self._desk.record.note(
            "tool_call",
            now,
            ids=list(named),
            names=[call.name for call in named.values()],
            blocking=blocking,
        )

    def _new_id(self) -> str:
        prefix, digits = self._setup.family.call_id
        taken = {id_ for group in self._memory.groups for id_ in group.waiting}
        while True:
            id_ = f"{prefix}{self._desk.rng.randrange(10 ** (digits - 1), 10**digits)}"
            if id_ not in taken:
                return id_
