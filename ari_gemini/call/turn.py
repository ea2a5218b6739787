"""Who has the floor, as a table.

Gemini's order at an interruption is ``interrupted``, perhaps one late audio frame, ``turnComplete``; what
arrives in between belongs to the dead turn and is never played. ``Floor`` is pure: it says what to do, others
do it.

=========  ====================  =========  ===========
state      what happened         next       to do
=========  ====================  =========  ===========
QUIET      MODEL_AUDIO           SPEAKING   PLAY
QUIET      INTERRUPTED           YIELDED    CLEAR
SPEAKING   MODEL_AUDIO           SPEAKING   PLAY
SPEAKING   GENERATION_COMPLETE   FINISHING  END_TURN
SPEAKING   TURN_COMPLETE         QUIET      END_TURN
SPEAKING   INTERRUPTED           YIELDED    CLEAR
FINISHING  MODEL_AUDIO           SPEAKING   PLAY
FINISHING  TURN_COMPLETE         QUIET      NOTHING
FINISHING  INTERRUPTED           YIELDED    CLEAR
YIELDED    MODEL_AUDIO           YIELDED    DISCARD
YIELDED    INTERRUPTED           YIELDED    CLEAR
YIELDED    TURN_COMPLETE         QUIET      NOTHING
YIELDED    CALLER_STOPPED        QUIET      NOTHING
YIELDED    CUT_OFF               YIELDED    CLEAR
QUIET      CUT_OFF               QUIET      CLEAR
SPEAKING   CUT_OFF               SILENCED   CLEAR
FINISHING  CUT_OFF               QUIET      CLEAR
SILENCED   CUT_OFF               SILENCED   CLEAR
SILENCED   MODEL_AUDIO           SILENCED   DISCARD
SILENCED   GENERATION_COMPLETE   QUIET      NOTHING
SILENCED   TURN_COMPLETE         QUIET      NOTHING
SILENCED   TOOLS_ANSWERED        QUIET      NOTHING
SILENCED   INTERRUPTED           YIELDED    CLEAR
SPEAKING   SESSION_LOST          QUIET      END_TURN
FINISHING  SESSION_LOST          QUIET      NOTHING
YIELDED    SESSION_LOST          QUIET      NOTHING
SILENCED   SESSION_LOST          QUIET      NOTHING
=========  ====================  =========  ===========

Every other pair changes nothing. QUIET says nothing about the playout: the last sentence may still be playing
out there, which is why INTERRUPTED clears in every state. CUT_OFF is the call's own doing, at a key that the
caller presses: the model has not been told yet and goes on with its turn for a while. TOOLS_ANSWERED happens
with models that wait for their tools in mid-turn: what follows is about the answer, and heard. After
SESSION_LOST what has come is played to its end, and whatever the next session says is a turn of its own.
"""

from __future__ import annotations

from enum import Enum

LATE_AUDIO_LIMIT_MS = 1000.0
"""More audio than this after an interruption is a new turn whose ``turnComplete`` got lost.

The largest frame recorded from the service holds 320 ms and one late frame was seen; three times that still
costs a caller no more than a second of one answer if a server ever forgets to end a turn.
"""

SILENCED_LIMIT_MS = 30_000.0
"""The same for a model that was cut off without its knowing. It may generate far ahead until the caller's
entry is complete and sent; an answer as long as this would be heard from its middle, rather than never."""


class State(Enum):
    QUIET = "quiet"
    SPEAKING = "speaking"
    FINISHING = "finishing"
    YIELDED = "yielded"
    SILENCED = "silenced"


class Happening(Enum):
    MODEL_AUDIO = "model_audio"
    GENERATION_COMPLETE = "generation_complete"
    TURN_COMPLETE = "turn_complete"
    INTERRUPTED = "interrupted"
    CALLER_STOPPED = "caller_stopped"
    CUT_OFF = "cut_off"
    TOOLS_ANSWERED = "tools_answered"
    SESSION_LOST = "session_lost"


class Action(Enum):
    NOTHING = "nothing"
    PLAY = "play"
    DISCARD = "discard"
    END_TURN = "end_turn"
    CLEAR = "clear"


TABLE: dict[tuple[State, Happening], tuple[State, Action]] = {
    (State.QUIET, Happening.MODEL_AUDIO): (State.SPEAKING, Action.PLAY),
    (State.QUIET, Happening.INTERRUPTED): (State.YIELDED, Action.CLEAR),
    (State.SPEAKING, Happening.MODEL_AUDIO): (State.SPEAKING, Action.PLAY),
    (State.SPEAKING, Happening.GENERATION_COMPLETE): (State.FINISHING, Action.END_TURN),
    (State.SPEAKING, Happening.TURN_COMPLETE): (State.QUIET, Action.END_TURN),
    (State.SPEAKING, Happening.INTERRUPTED): (State.YIELDED, Action.CLEAR),
    (State.FINISHING, Happening.MODEL_AUDIO): (State.SPEAKING, Action.PLAY),
    (State.FINISHING, Happening.TURN_COMPLETE): (State.QUIET, Action.NOTHING),
    (State.FINISHING, Happening.INTERRUPTED): (State.YIELDED, Action.CLEAR),
    (State.YIELDED, Happening.MODEL_AUDIO): (State.YIELDED, Action.DISCARD),
    (State.YIELDED, Happening.INTERRUPTED): (State.YIELDED, Action.CLEAR),
    (State.YIELDED, Happening.TURN_COMPLETE): (State.QUIET, Action.NOTHING),
    (State.YIELDED, Happening.CALLER_STOPPED): (State.QUIET, Action.NOTHING),
    (State.YIELDED, Happening.CUT_OFF): (State.YIELDED, Action.CLEAR),
    (State.QUIET, Happening.CUT_OFF): (State.QUIET, Action.CLEAR),
    (State.SPEAKING, Happening.CUT_OFF): (State.SILENCED, Action.CLEAR),
    (State.FINISHING, Happening.CUT_OFF): (State.QUIET, Action.CLEAR),
    (State.SILENCED, Happening.CUT_OFF): (State.SILENCED, Action.CLEAR),
    (State.SILENCED, Happening.MODEL_AUDIO): (State.SILENCED, Action.DISCARD),
    (State.SILENCED, Happening.GENERATION_COMPLETE): (State.QUIET, Action.NOTHING),
    (State.SILENCED, Happening.TURN_COMPLETE): (State.QUIET, Action.NOTHING),
    (State.SILENCED, Happening.TOOLS_ANSWERED): (State.QUIET, Action.NOTHING),
    (State.SILENCED, Happening.INTERRUPTED): (State.YIELDED, Action.CLEAR),
    (State.SPEAKING, Happening.SESSION_LOST): (State.QUIET, Action.END_TURN),
    (State.FINISHING, Happening.SESSION_LOST): (State.QUIET, Action.NOTHING),
    (State.YIELDED, Happening.SESSION_LOST): (State.QUIET, Action.NOTHING),
    (State.SILENCED, Happening.SESSION_LOST): (State.QUIET, Action.NOTHING),
}


class Floor:
    """The floor of one call: feed it happenings, do what it answers."""

    __slots__ = ("discarded_ms", "late_ms", "state")

    def __init__(self) -> None:
        self.state = State.QUIET
        self.discarded_ms = 0.0
        """Late audio thrown away in the whole call, ms."""
        self.late_ms = 0.0
        """Late audio thrown away since the floor was last taken from the model, ms."""

    def audio(self, duration_ms: float) -> Action:
        """Model audio of that length arrived: PLAY or DISCARD."""
        action = self.happened(Happening.MODEL_AUDIO)
        if action is not Action.DISCARD:
            return action
        limit = SILENCED_LIMIT_MS if self.state is State.SILENCED else LATE_AUDIO_LIMIT_MS
        if self.late_ms + duration_ms > limit:
            self.state = State.QUIET
            return self.happened(Happening.MODEL_AUDIO)
        self.late_ms += duration_ms
        self.discarded_ms += duration_ms
        return action

    def happened(self, happening: Happening) -> Action:
        """Move by the table and say what is to be done."""
        self.state, action = TABLE.get((self.state, happening), (self.state, Action.NOTHING))
        if action is Action.CLEAR:
            self.late_ms = 0.0
        return action
