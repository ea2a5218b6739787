"""How long may a caller be silent, and a call last? Prompts, a goodbye and the end. Pure.

Three clocks:

* *no input* runs while it is the caller's turn: neither of both is heard, the model owes nothing, no tool
  works, nobody else is on the line. Each time it is over the model is told the next of the prompts, and after
  the last one to say goodbye.
* *duration* always runs. The model is told some time before, and at the limit to say goodbye.
* *silence* runs while neither is heard, whatever the model owes: it ends a call that is dead.

A goodbye ends the call as soon as it has been heard, or when the time for it is over. A caller who comes back
meanwhile is kept, unless the call has lasted too long.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ari_gemini.call.model_watch import Instruction
from ari_gemini.errors import Cause

GOODBYE_TAIL = 1.0
"""Seconds without the model after its goodbye: what was written still waits in Asterisk and in the phone, up
to a quarter of a second, and the model may only draw breath."""
MAX_PROMPTS = 8
"""More would be a machine that talks to nobody."""


ARE_YOU_THERE = (
    "The caller has been silent. Ask briefly, in the language of the conversation, whether he is still "
    "there, or repeat your last question in other words."
)
LAST_CHANCE = (
    "The caller is still silent. Ask him once more, in one short sentence, to say something, and say that "
    "otherwise the call will be ended."
)


def _off_or_a_second(seconds: float) -> float:
    if 0 < seconds < 1:
        raise ValueError("0, or at least a second")
    return seconds


Limit = Annotated[float, AfterValidator(_off_or_a_second)]


class CallerLimits(BaseModel):
    """``[agents.NAME.limits]``: silence and length of a call. All times in seconds; 0 turns a limit off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    no_input_after: Limit = Field(default=15.0, ge=0, le=3600)
    """Silence of the caller, it being his turn, until the model is told. Of the answers recorded in
    jferreiros/vortex pull request 208, nine of ten came within 10 s; half as long again is judgement."""
    no_input_prompts: tuple[Instruction, ...] = Field(
        default=(ARE_YOU_THERE, LAST_CHANCE), max_length=MAX_PROMPTS
    )
    """What the model is told, one after the other; with his next word the first one's turn comes again."""
    no_input_goodbye: Instruction = (
        "The caller does not answer. Say goodbye in one short sentence: the call is ended after it. If he "
        "speaks after all, go on with the conversation."
    )
    max_duration: Limit = Field(default=3600.0, ge=0, le=86_400)
    warn_before: float = Field(default=60.0, ge=0, le=3600)
    """How long before ``max_duration`` the model is told."""
    duration_warning: Instruction = (
        "The longest time for this call is nearly over. Bring the conversation to its end soon, and tell the "
        "caller why if he has more to say."
    )
    duration_goodbye: Instruction = (
        "The longest time for a call is over. Say goodbye in one short sentence: the call is ended after it."
    )
    goodbye_timeout: float = Field(default=20.0, ge=1, le=120)
    """The call ends so long after the model was told to say goodbye, whatever it says."""
    max_silence: Limit = Field(default=120.0, ge=0, le=3600)
    """Neither of both heard for so long: the call is dead, and ends at once."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.max_duration and self.warn_before >= self.max_duration:
            raise ValueError("warn_before: must be shorter than max_duration")
        if self.no_input_after and 0 < self.max_silence <= self.no_input_after:
            raise ValueError("max_silence: must be longer than no_input_after, or no prompt is ever given")
        return self


@dataclass(frozen=True, slots=True)
class TellModel:
    """Give the model this text."""

    text: str


@dataclass(frozen=True, slots=True)
class EndCall:
    """End the call now."""

    cause: Cause
    detail: str


Action = TellModel | EndCall


class Busy(Enum):
    """Why it is not the caller's turn although both are silent."""

    ANSWER = "answer"
    """The model owes him one."""
    TOOLS = "tools"
    """They work, and he hears that they do."""
    AWAY = "away"
    """He is on hold, or another party hears the model."""


@dataclass(slots=True)
class _Goodbye:
    cause: Cause
    detail: str
    ends_at: float
    """At the latest."""
    said_at: float | None = None
    """It has been heard up to its end, which was here."""

    @property
    def due(self) -> float:
        return self.ends_at if self.said_at is None else min(self.ends_at, self.said_at + GOODBYE_TAIL)


class CallerWatch:
    """The caller of one call. Times are seconds of one clock that only grows; before ``begin`` none runs."""

    def __init__(self, limits: CallerLimits) -> None:
        self.limits = limits
        self._began: float | None = None
        self._caller_speaks = False
        self._model_heard = False
        self._busy: set[Busy] = set()
        self._idle_since = 0.0
        """It has been the caller's turn since, if it is."""
        self._silent_since = 0.0
        """Neither was heard since, if neither is."""
        self._prompts = 0
        self._warned = not (limits.max_duration and limits.warn_before)
        self._goodbye: _Goodbye | None = None
        self._over = False

    @property
    def ending(self) -> Cause | None:
        """Why the model says goodbye at this time; None: it does not."""
        return None if self._goodbye is None else self._goodbye.cause

    def due_at(self) -> float | None:
        """When ``act`` is to be called, if nothing else happens before."""
        times = (self._no_input_at(), self._warning_at(), self._goodbye_at(), self._end_at(), self._dead_at())
        return min((time for time in times if time is not None), default=None)

    def act(self, now: float) -> list[Action]:
        """What is to be done now, in this order. After EndCall nothing more ever is."""
        actions: list[Action] = []
        for due_at, do in (
            (self._end_at, self._end),
            (self._dead_at, self._dead),
            (self._goodbye_at, self._last_goodbye),
            (self._no_input_at, self._no_input),
            (self._warning_at, self._warn),
        ):
            at = due_at()
            if at is not None and now >= at:
                actions.append(do(now))
        return actions

    # What happens.

    def begin(self, now: float, age: float = 0.0) -> None:
        """Caller and model are on the line; the call began ``age`` s ago."""
        if self._began is None:
            self._began = now - age
            self._idle_since = self._silent_since = now

    def caller_started(self, now: float) -> None:
        """He speaks."""
        self._caller_speaks = True
        self._alive(now)

    def caller_stopped(self, now: float) -> None:
        """He has ended. Without a ``caller_started`` before it, this means nothing."""
        if self._caller_speaks:
            self._caller_speaks = False
            self._alive(now)

    def caller_active(self, now: float) -> None:
        """He pressed a key."""
        self._alive(now)

    def model_started(self, now: float) -> None:
        """Something audible of the model is being played."""
        self._model_heard = True
        if self._goodbye is not None:
            self._goodbye.said_at = None

    def model_stopped(self, now: float) -> None:
        """Nothing of it is left to be played."""
        if self._model_heard:
            self._model_heard = False
            self._idle_since = self._silent_since = now
            if self._goodbye is not None:
                self._goodbye.said_at = now

    def interrupted(self, now: float) -> None:
        """The provider heard him speak, and what the model had to say is thrown away."""
        self.model_stopped(now)
        self._alive(now)

    def busy(self, now: float, why: Busy, is_busy: bool) -> None:
        """It is, or is no longer, somebody else's turn."""
        if is_busy:
            self._busy.add(why)
            if why is Busy.AWAY:
                self._stay()
        elif why in self._busy:
            self._busy.remove(why)
            self._idle_since = now
            if why is not Busy.ANSWER:
                self._silent_since = now

    # When what is due.

    def _running(self) -> bool:
        return self._began is not None and not self._over

    def _quiet(self) -> bool:
        return not (self._caller_speaks or self._model_heard)

    def _no_input_at(self) -> float | None:
        if not (self._running() and self._quiet() and self.limits.no_input_after):
            return None
        if self._busy or self._goodbye is not None:
            return None
        return self._idle_since + self.limits.no_input_after

    def _dead_at(self) -> float | None:
        if not (self._running() and self._quiet() and self.limits.max_silence):
            return None
        return None if self._busy - {Busy.ANSWER} else self._silent_since + self.limits.max_silence

    def _limit(self) -> float | None:
        if not (self._running() and self.limits.max_duration) or self._began is None:
            return None
        return self._began + self.limits.max_duration

    def _warning_at(self) -> float | None:
        limit = self._limit()
        if limit is None or self._warned or self._goodbye is not None or Busy.AWAY in self._busy:
            return None
        return limit - self.limits.warn_before

    def _goodbye_at(self) -> float | None:
        """Not while the model says something else, or is about to, nor in anybody else's ear."""
        if self.ending is Cause.MAX_DURATION or self._model_heard or self._busy - {Busy.TOOLS}:
            return None
        return self._limit()

    def _end_at(self) -> float | None:
        limit, goodbye = self._limit(), self._goodbye
        last = None if limit is None else limit + self.limits.goodbye_timeout
        if goodbye is None or self._over:
            return last
        return goodbye.due if last is None else min(goodbye.due, last)

    # What is done then.

    def _alive(self, now: float) -> None:
        self._idle_since = self._silent_since = now
        self._prompts = 0
        self._stay()

    def _stay(self) -> None:
        if self.ending is Cause.NO_INPUT:
            self._goodbye = None

    def _no_input(self, now: float) -> Action:
        limits = self.limits
        if self._prompts == len(limits.no_input_prompts):
            return self._say_goodbye(now, Cause.NO_INPUT, limits.no_input_goodbye, "no word from the caller")
        prompt = limits.no_input_prompts[self._prompts]
        self._prompts += 1
        self._idle_since = now
        return TellModel(prompt)

    def _warn(self, _now: float) -> Action:
        self._warned = True
        return TellModel(self.limits.duration_warning)

    def _last_goodbye(self, now: float) -> Action:
        return self._say_goodbye(now, Cause.MAX_DURATION, self.limits.duration_goodbye, self._too_long())

    def _say_goodbye(self, now: float, cause: Cause, text: str, detail: str) -> Action:
        self._goodbye = _Goodbye(cause, detail, now + self.limits.goodbye_timeout)
        return TellModel(text)

    def _end(self, _now: float) -> Action:
        self._over = True
        if self._goodbye is not None:
            return EndCall(self._goodbye.cause, self._goodbye.detail)
        return EndCall(Cause.MAX_DURATION, self._too_long())

    def _dead(self, _now: float) -> Action:
        self._over = True
        return EndCall(Cause.MAX_SILENCE, f"neither side was heard for {self.limits.max_silence:g} s")

    def _too_long(self) -> str:
        return f"{self.limits.max_duration:g} s are over"
