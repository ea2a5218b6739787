"""What the simulated service remembers of a session between its connections, and its resumption handles.

The rules are those measured on gemini-3.8-live and published; the Gemini API's session management guide says
what is promised.
"""

from __future__ import annotations

import random
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from ari_gemini.simulator.gemini_schema import RefusalError, invalid_argument
from ari_gemini.simulator.scenario import Scenario, Script

SESSION_NOT_FOUND = "BidiGenerateContent session not found"
SESSION_EXPIRED = "BidiGenerateContent session expired"
INTERNAL_ERROR = "Internal error encountered."

MAX_SESSIONS = 512
"""Remembered sessions; the oldest is forgotten first, as an expired one would be."""
MAX_CUT = 64
"""Sentences kept for those who come back; the oldest is forgotten first."""
MAX_HANDLES = 16
"""Handles of one session that still lead to it: one for each connection, in some families for each turn."""


@dataclass(frozen=True, slots=True)
class Say:
    """Something to be said: 24 kHz PCM and its words."""

    name: str
    text: str
    pcm: bytes | memoryview


@dataclass(slots=True, eq=False)
class CallGroup:
    """Function calls of one message, and what the model says when all of them are answered."""

    waiting: set[str]
    """Ids that lack their answer."""
    blocking: bool
    after: tuple[Say, ...] = ()
    scheduling: str = ""
    """The last answer's wish."""


@dataclass(slots=True, eq=False)
class Memory:
    """One conversation, which outlives its connections."""

    number: int
    model: str
    script: Script
    received_ms: float = 0.0
    """Caller sound received since the session began, ms; voiceActivity counts in it."""
    context_tokens: int = 0
    groups: list[CallGroup] = field(default_factory=list)
    """Open calls, oldest first."""
    seeding: bool = False
    """The first history is still being sent."""
    owed: tuple[Say, ...] = ()
    """What the model was about to say of a function when a drop came. It takes a word to make it say that."""
    cut: Say | None = None
    """The rest of a sentence that a drop cut off."""
    spoke: bool = False
    """The model was speaking when the connection ended."""
    attached: bool = True
    detached_at: float = 0.0
    refused_until: float = 0.0
    """Until then a resumption is answered with ``refusal``."""
    refusal: RefusalError | None = None
    handles: list[str] = field(default_factory=list)


class HandleBook:
    """All sessions of a simulator, found by their handles."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._sessions: OrderedDict[int, Memory] = OrderedDict()
        self._by_handle: dict[str, Memory] = {}
        self._cut: deque[Memory] = deque()
        self._count = 0

    def open(self, model: str, scenario: Scenario) -> Memory:
        """A new session."""
        self._count += 1
        memory = Memory(self._count, model, Script(scenario))
        self._sessions[memory.number] = memory
        if len(self._sessions) > MAX_SESSIONS:
            self.forget(self._sessions.popitem(last=False)[1])
        return memory

    def forget(self, memory: Memory) -> None:
        """Kill this session's handles: from now on nobody knows them (1008)."""
        for handle in memory.handles:
            self._by_handle.pop(handle, None)
        memory.handles.clear()

    def issue(self, memory: Memory) -> str:
        """A new 36-character handle to this session; its former handles lead to its latest state, too."""
        handle = str(uuid.UUID(int=self._rng.getrandbits(128), version=4))
        self._by_handle[handle] = memory
        memory.handles.append(handle)
        if len(memory.handles) > MAX_HANDLES:
            self._by_handle.pop(memory.handles.pop(0), None)
        return handle

    def resume(self, handle: str, model: str, scenario: Scenario, now: float) -> Memory:
        """The session of that handle, attached again.

        Raises RefusalError: 1008 for a handle unknown or expired, 1011 while the former connection lives and
        for ``resume_hold`` seconds after an idle session was dropped (``resume_refused`` after any), 1007 for
        another model, and whatever a test has put into ``refusal``.
        """
        memory = self._by_handle.get(handle)
        if memory is None:
            raise RefusalError(1008, SESSION_NOT_FOUND)
        if memory.refusal is not None and now < memory.refused_until:
            raise RefusalError(memory.refusal.code, memory.refusal.reason)
        if memory.attached:
            raise RefusalError(1011, INTERNAL_ERROR)
        away = now - memory.detached_at
        if away > scenario.handle_lifetime:
            raise RefusalError(1008, SESSION_EXPIRED)
        if model != memory.model:
            raise invalid_argument()
        held = 0.0 if memory.spoke else scenario.resume_hold
        if away < max(held, scenario.resume_refused):
            raise RefusalError(1011, INTERNAL_ERROR)
        memory.attached = True
        return memory

    def detach(self, memory: Memory, now: float, cut: Say | None, spoke: bool) -> None:
        """The connection is gone. ``spoke``: the model was speaking; ``cut``: what it could not say."""
        memory.attached = False
        memory.detached_at = now
        memory.cut = cut
        if cut is not None:
            self._cut.append(memory)
            if len(self._cut) > MAX_CUT:
                self._cut.popleft().cut = None
        memory.spoke = spoke
