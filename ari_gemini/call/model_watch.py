"""Does the model answer? What it owes the caller, how long it has owed it, and what is to be done. Pure.

Models fall silent without a word: nothing comes any more while the connection stands (google-gemini/cookbook
issues 1225 and 1228), a turn ends without sound (googleapis/python-genai issue 2117), the service refuses to
give its answer, or sound comes in full length with nothing in it (google-gemini/gemini-live-api-examples
issue 40). Each is a fault; against the faults of one owed answer there is first a nudge, then a new
connection, then giving up.

===================================  ==========================================
what happens                         an answer is owed
===================================  ==========================================
the caller ends speaking             yes, unless the model is heard, uninterrupted
a text or a tool's answer is given   yes
the model is interrupted             yes
its sound runs dry in mid-turn       yes: the rest of the turn, until it ends
audible sound                        no more
waiting for input, on purpose        no more
===================================  ==========================================

The time for it rests while the caller speaks, while the model is heard, while tools work, without a session,
and while the caller does not hear the model.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

AUDIBLE_DBFS = -50.0
"""Louder is an answer. The silent turns reported (gemini-live-api-examples issue 40) had a mean amplitude of
at most 18 of 32768, -65 dBFS; the loudest part of healthy ones 2061 and more, -24 dBFS."""
AUDIBLE_MS = 20.0
"""So much of it, one frame: a click is none."""
SECOND_THOUGHT = 0.5
"""Seconds until something is done about a turn that ended in nothing: the word that it was on purpose, the
caller's next words or the true answer may come right behind. Judgement."""
LONGEST_PAUSE = 2.0
"""Seconds. A shorter silence of the caller may be a pause in what he says, and is no waiting; longer ones add
up, or somebody who says hello every few seconds would keep a dead model from being noticed. Judgement: an
answer was recorded to come 1.6 s after the service took the caller's turn for ended."""

REST_SECONDS = 1.0
"""Silence in the middle of what the model says is worth a sign of life after so long: sound comes faster than
it is played, so it ran dry because something is wrong. Judgement."""

NO_REJECTION = frozenset({"TURN_COMPLETE_REASON_UNSPECIFIED", "NEED_MORE_INPUT"})
"""Reasons of ``turnComplete`` that are no refusal. All the others are (google-genai, TurnCompleteReason:
RESPONSE_REJECTED, PROHIBITED_INPUT_CONTENT, MALFORMED_FUNCTION_CALL, BLOCKLIST ...), those to come too."""
NEED_MORE_INPUT = "NEED_MORE_INPUT"

RESPITE_SECONDS = 600.0
"""A model that has answered for so long since the last remedy has all of its budgets again. Judgement."""

MAX_TEXT_CHARS = 2000
Instruction = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT_CHARS)
]
"""What the model is told in the middle of a call: a few sentences."""

NUDGE = (
    "The caller has heard nothing from you for a while and may be waiting. Answer now what was said last; if "
    "you did not understand it, say so and ask again. Do not mention this message."
)


class StallSettings(BaseModel):
    """``[agents.NAME.stall]``: what is done when the model does not answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stall_after: float = Field(default=8.0, ge=0, le=300)
    """Seconds that an answer may take. 0: the model is not watched. Five times what a model that does not
    think was recorded to need; one that thinks at length wants more. Judgement."""
    comfort_after: float = Field(default=2.5, ge=0, le=300)
    """Seconds that the caller waits for an answer in silence before he hears a soft tone, at most
    ``stall_after``. 0: never. Beyond what a model that does not think needs (1.6 s), and below what makes
    people ask whether anybody is there. Judgement."""
    nudge: Instruction = NUDGE
    max_nudges: int = Field(default=3, ge=0, le=100)
    """Within RESPITE_SECONDS; when they are spent, the next fault is answered by a new connection."""
    max_reconnects: int = Field(default=2, ge=0, le=100)
    """Within RESPITE_SECONDS; when they are spent too, the call ends."""

    @model_validator(mode="after")
    def _leaves_time(self) -> Self:
        if 0 < self.stall_after < LONGEST_PAUSE:
            raise ValueError(
                f"stall_after: 0, or at least {LONGEST_PAUSE:g} s, for an answer takes that long"
            )
        return self


class Fault(Enum):
    STALL = "stall"
    """Nothing audible in time."""
    EMPTY_TURN = "empty_turn"
    """A turn ended without a sound, an answer being owed."""
    REJECTED = "rejected"
    """The service says that it gives no answer, and why."""
    SILENT_AUDIO = "silent_audio"
    """A turn of sound that nobody can hear."""


class Remedy(Enum):
    NUDGE = "nudge"
    RECONNECT = "reconnect"
    GIVE_UP = "give_up"


class _Debt(Enum):
    """Why an answer is owed: the later, the surer."""

    REST = 1
    SPEECH = 2
    """By our own ears: it may have been no speech, or none that was meant for the model."""
    ASKED = 3


class _Rest(Enum):
    CALLER_SPEAKS = "caller_speaks"
    MODEL_HEARD = "model_heard"
    TOOLS = "tools"
    NO_SESSION = "no_session"
    AWAY = "away"


@dataclass(slots=True)
class _Turn:
    """What has come of the model's turn."""

    audible_ms: float = 0.0
    silent: bool = False
    """Sound came that cannot be heard."""
    open: bool = False
    """Audible sound came, and no word yet that it was all."""
    interrupted: bool = False
    called_tool: bool = False
    judged: bool = False

    @property
    def audible(self) -> bool:
        return self.audible_ms >= AUDIBLE_MS


class ModelWatch:
    """The model of one call. Times are seconds of one clock that only grows."""

    def __init__(self, settings: StallSettings) -> None:
        self.settings = settings
        self.faults: Counter[Fault] = Counter()
        self.remedies: Counter[Remedy] = Counter()
        self.last_fault: Fault | None = None
        """What the last remedy was taken against."""
        self._off = settings.stall_after == 0
        self._debt: _Debt | None = None
        self._since = 0.0
        self._waited = 0.0
        """Seconds waited for the answer before ``_since``."""
        self._silent_since = 0.0
        """Since when the caller waits: neither a remedy nor a new connection is an answer."""
        self._forgiven: Counter[Remedy] = Counter()  # of the remedies, before the last respite
        self._remedied_at: float | None = None  # the last one; of a former worker's it is not known
        self._tried: Remedy | None = None  # the strongest remedy for what is owed
        self._pending: tuple[Fault, float] | None = None  # and when it is acted upon
        self._resting: set[_Rest] = set()
        self._turn = _Turn()

    @property
    def owes(self) -> bool:
        """The caller is waiting for the model, not the model for him."""
        return self._debt is not None

    @property
    def awaited(self) -> bool:
        """An answer is owed, and nothing is known to be on its way: neither sound nor tools nor a session."""
        return self._debt is not None and not self._resting

    @property
    def heard(self) -> bool:
        """Something audible of the model is being played."""
        return _Rest.MODEL_HEARD in self._resting

    @property
    def listening(self) -> bool:
        """Whether ``model_audio`` can change anything. False: its sound need be neither measured nor told."""
        return self.owes or not (self._turn.audible and self._turn.open and self.heard)

    def due_at(self) -> float | None:
        """When ``act`` is to be called, if nothing else happens before."""
        if not self.awaited:
            return None
        if self._pending is not None:
            return self._pending[1]
        return self._since + max(LONGEST_PAUSE, self.settings.stall_after - self._waited)

    def comfort_at(self) -> float | None:
        """When a caller who is still waiting then is to hear that the line lives."""
        after = min(self.settings.comfort_after, self.settings.stall_after)
        if not after or not self.awaited:
            return None
        return self._silent_since + (min(after, REST_SECONDS) if self._debt is _Debt.REST else after)

    def act(self, now: float) -> Remedy | None:
        """What is to be done now. After GIVE_UP nothing more ever is."""
        due = self.due_at()
        if due is None or now < due:
            return None
        fault = Fault.STALL
        if self._pending is None:
            self.faults[fault] += 1
        else:
            fault = self._pending[0]
        if self._remedied_at is None:
            self._remedied_at = now
        elif now - self._remedied_at >= RESPITE_SECONDS:
            self._forgiven = self.remedies.copy()
        remedy = self._remedy()
        if remedy is Remedy.GIVE_UP and self._doubtful(fault):
            self._settle()
            return None
        self._took(now, remedy, fault)
        return remedy

    # The caller.

    def caller_started(self, now: float) -> None:
        """He speaks, so clearly that an answer may be expected."""
        if self._debt is not None and not self._resting:
            waited = now - self._since
            self._waited += waited if waited >= LONGEST_PAUSE else 0.0
        self._resting.add(_Rest.CALLER_SPEAKS)
        self._pending = None

    def caller_stopped(self, now: float) -> None:
        """He has ended. Without a ``caller_started`` before it, this means nothing."""
        if _Rest.CALLER_SPEAKS not in self._resting:
            return
        waited = self._waited
        self._rest(now, _Rest.CALLER_SPEAKS, resting=False)
        self._waited = waited
        if not self.heard:  # else he agrees in passing, or it is the model's echo
            self._owe(now, _Debt.SPEECH)

    def away(self, now: float, is_away: bool) -> None:
        """The caller does not hear the model: he is on hold, or another party hears it."""
        self._rest(now, _Rest.AWAY, resting=is_away)

    # What the model is given.

    def asked(self, now: float) -> None:
        """It was given a text, or the answer of a tool that it shall speak about."""
        self._owe(now, _Debt.ASKED)
        self._begin_anew(now)

    def tools_busy(self, now: float, busy: bool) -> None:
        """The first tool begins, or the last one is answered."""
        if busy:
            self.tool_called(now)
        self._rest(now, _Rest.TOOLS, resting=busy)

    def session_lost(self, now: float) -> None:
        """There is no connection to a model."""
        self._leave_turn(now)
        self._rest(now, _Rest.NO_SESSION, resting=True)

    def session_changed(self, now: float) -> None:
        """There is a new one."""
        self._leave_turn(now)
        silent_since = self._silent_since
        self._rest(now, _Rest.NO_SESSION, resting=False)
        self._begin_anew(now)
        self._silent_since = silent_since

    # What it does.

    def model_audio(self, now: float, level_dbfs: float, duration_ms: float) -> None:
        """Sound came that is to be played; late sound of a dead turn is not for here."""
        if self._turn.interrupted:
            self._turn = _Turn()
        turn = self._turn
        if level_dbfs < AUDIBLE_DBFS:
            turn.silent = True
            return
        turn.audible_ms += duration_ms
        if turn.audible:
            turn.open = True
            self._settle()
            self._rest(now, _Rest.MODEL_HEARD, resting=True)

    def played_out(self, now: float) -> None:
        """Nothing of it is left to be played, be it heard or thrown away."""
        if not self.heard:
            return
        self._rest(now, _Rest.MODEL_HEARD, resting=False)
        if self._turn.open:
            self._owe(now, _Debt.REST)

    def generation_complete(self, now: float) -> None:
        """All of the turn has come."""
        turn = self._turn
        self._close_turn()
        if turn.silent and not (turn.audible or turn.called_tool or turn.interrupted or turn.judged):
            turn.judged = True
            self._failed(now, Fault.SILENT_AUDIO)

    def turn_complete(self, now: float, reason: str | None) -> None:
        """The turn is over, for ``reason`` if the provider names one."""
        turn = self._turn
        self._close_turn()
        self._turn = _Turn()
        if reason == NEED_MORE_INPUT:
            self._settle()
        elif turn.interrupted or turn.judged:
            return
        elif reason is not None and reason not in NO_REJECTION:
            self._failed(now, Fault.REJECTED)
        elif turn.audible or turn.called_tool:
            return
        elif turn.silent:
            self._failed(now, Fault.SILENT_AUDIO)
        elif self._debt is not None and not self._resting:
            self._failed(now, Fault.EMPTY_TURN)

    def cut_off(self) -> None:
        """We stopped it: the rest of its turn is not wanted."""
        self._close_turn()

    def interrupted(self, now: float) -> None:
        """The provider stopped it, for the caller speaks or a tool's answer is urgent."""
        self._close_turn()
        self._turn = _Turn(interrupted=True)
        self._rest(now, _Rest.MODEL_HEARD, resting=False)
        self._owe(now, _Debt.SPEECH)

    def waiting_for_input(self, now: float) -> None:
        """It keeps silent on purpose."""
        self._settle()

    def tool_called(self, now: float) -> None:
        """It called a tool: the end of this turn may come at once, and without a sound."""
        self._turn.called_tool = True
        self._pending = None

    # Inside.

    def _owe(self, now: float, debt: _Debt) -> None:
        if self._off:
            return
        if self._debt is None:
            self._begin_anew(now)
            self._debt = debt
        elif debt.value > self._debt.value:
            self._debt = debt

    def _settle(self) -> None:
        self._debt = self._tried = self._pending = None
        self._waited = 0.0

    def _begin_anew(self, now: float) -> None:
        self._silent_since = now
        self._restart(now)

    def _restart(self, now: float) -> None:
        """Count anew what is left until the next remedy."""
        self._since, self._waited, self._pending = now, 0.0, None

    def _rest(self, now: float, why: _Rest, *, resting: bool) -> None:
        if resting:
            self._resting.add(why)
            self._pending = None
        elif why in self._resting:
            self._resting.remove(why)
            self._begin_anew(now)

    def _close_turn(self) -> None:
        self._turn.open = False
        if self._debt is _Debt.REST:
            self._settle()

    def _leave_turn(self, now: float) -> None:
        """The connection that the turn came over is gone, and the rest of it is owed by the next."""
        if self._turn.open:
            self._owe(now, _Debt.REST)
        self._turn = _Turn()

    def _failed(self, now: float, fault: Fault) -> None:
        self.faults[fault] += 1
        if self._debt is not None and not self._resting and self._pending is None:
            self._pending = (fault, now + SECOND_THOUGHT)

    def _remedy(self) -> Remedy:
        used, settings = self.remedies - self._forgiven, self.settings
        if self._tried is None and used[Remedy.NUDGE] < settings.max_nudges:
            return Remedy.NUDGE
        if self._tried in (None, Remedy.NUDGE) and used[Remedy.RECONNECT] < settings.max_reconnects:
            return Remedy.RECONNECT
        return Remedy.GIVE_UP

    def _took(self, now: float, remedy: Remedy, fault: Fault) -> None:
        self.remedies[remedy] += 1
        self._remedied_at = now
        self.last_fault = fault
        if remedy is Remedy.GIVE_UP:
            self._settle()
            self._off = True
            return
        self._tried = remedy
        self._debt = _Debt.ASKED
        self._restart(now)

    def _doubtful(self, fault: Fault) -> bool:
        """Nothing but our own ears says that an answer is owed, and nothing has been tried to get it."""
        return fault is Fault.STALL and self._tried is None and self._debt is not _Debt.ASKED
