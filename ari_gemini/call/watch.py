"""The watchdogs of one call at work: they are told what happens, and one timer asks what is to be done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import ParamSpec, Protocol

from structlog.typing import FilteringBoundLogger

from ari_gemini.audio.pcm import SAMPLE_BYTES, level_dbfs
from ari_gemini.call.caller_watch import Busy, CallerLimits, CallerWatch, EndCall
from ari_gemini.call.model_watch import Fault, ModelWatch, Remedy, StallSettings
from ari_gemini.errors import Cause

P = ParamSpec("P")


class Helper(Protocol):
    """Who does what is to be done. Called from the event loop; must not block. What it raises is logged."""

    def nudge(self, text: str, fault: Fault) -> None:
        """Give the model this text. After SILENT_AUDIO, throw away first what is unplayed."""

    def comfort(self, on: bool) -> None:
        """Let the caller, who waits for the model, hear that the line lives; or no longer."""

    def reconnect(self, reason: str) -> None:
        """Give up the connection and have a new one."""

    def give_up(self, cause: Cause, detail: str) -> None:
        """The model cannot be had to speak."""

    def tell(self, text: str) -> None:
        """Give the model this text."""

    def end(self, cause: Cause, detail: str) -> None:
        """End the call."""


class Watch:
    """One call's watchdogs. Nothing here waits or raises, and after ``stop`` nothing happens any more.

    What comes before ``begin`` is of no account. ``loop`` is the running one unless given.
    """

    def __init__(
        self,
        helper: Helper,
        log: FilteringBoundLogger,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.model = ModelWatch(StallSettings())
        self.caller = CallerWatch(CallerLimits())
        self._helper = helper
        self._log = log
        self._loop = loop or asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._owed = False
        self._comforting = False
        self._begun = False
        self._stopped = False

    def begin(
        self,
        stall: StallSettings,
        limits: CallerLimits,
        *,
        age: float = 0.0,
        spent: Mapping[str, int] | None = None,
    ) -> None:
        """Caller and model are on the line, the caller for ``age`` s already: his limits run since then.

        ``spent`` of the budgets are gone, by the values of Remedy.
        """
        self.model, self.caller = ModelWatch(stall), CallerWatch(limits)
        for remedy in Remedy:
            self.model.remedies[remedy] = (spent or {}).get(remedy.value, 0)
        self._begun = True
        now = self._loop.time()
        self.caller.begin(now, age)
        self._changed(now)

    def spent(self) -> dict[str, int]:
        """What is gone of the budgets, for ``begin``."""
        return {remedy.value: count for remedy, count in self.model.remedies.items() if count}

    def counted(self) -> dict[str, int]:
        """Faults of the model, and what was done about them, by names for a log."""
        model = self.model
        faults = {f"model_{fault.value}": count for fault, count in model.faults.items()}
        return faults | {f"model_{remedy.value}": count for remedy, count in model.remedies.items()}

    def stop(self) -> None:
        """Watch no longer. Idempotent."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # The caller.

    def caller_started(self) -> None:
        """He speaks, so clearly that an answer may be expected."""
        now = self._loop.time()
        self.model.caller_started(now)
        self.caller.caller_started(now)
        self._changed(now)

    def caller_stopped(self) -> None:
        """He has ended. Without a ``caller_started`` before it, this means nothing."""
        now = self._loop.time()
        self.model.caller_stopped(now)
        self.caller.caller_stopped(now)
        self._changed(now)

    def caller_active(self) -> None:
        """He pressed a key."""
        self.caller.caller_active(now := self._loop.time())
        self._changed(now)

    def away(self, is_away: bool) -> None:
        """He is on hold, or another party hears the model; or he is back."""
        now = self._loop.time()
        self.model.away(now, is_away)
        self.caller.busy(now, Busy.AWAY, is_away)
        self._changed(now)

    # The model.

    def asked(self) -> None:
        """It was given a text, or the answer of a tool that it shall speak about."""
        self.model.asked(now := self._loop.time())
        self._changed(now)

    def tool_called(self) -> None:
        """It called a tool."""
        self.model.tool_called(now := self._loop.time())
        self._changed(now)

    def tools_busy(self, busy: bool) -> None:
        """The first tool begins, or the last one is answered."""
        now = self._loop.time()
        self.model.tools_busy(now, busy)
        self.caller.busy(now, Busy.TOOLS, busy)
        self._changed(now)

    def model_audio(self, pcm: bytes, rate: int) -> None:
        """Sound of it was queued to be played. Costs next to nothing once the turn is known to be audible."""
        model = self.model
        if not model.listening:
            return
        now = self._loop.time()
        was_heard, owed = model.heard, model.owes
        model.model_audio(now, level_dbfs(pcm), len(pcm) / SAMPLE_BYTES * 1000 / rate)
        if model.heard and not was_heard:
            self.caller.model_started(now)
        if (model.heard, model.owes) != (was_heard, owed):
            self._changed(now)

    def played_out(self) -> None:
        """Nothing of it is left to be played, be it heard or thrown away; more may come."""
        now = self._loop.time()
        self.model.played_out(now)
        self.caller.model_stopped(now)
        self._changed(now)

    def cut_off(self) -> None:
        """We stop it: the rest of its turn is not wanted."""
        self.model.cut_off()
        self._changed(self._loop.time())

    def interrupted(self) -> None:
        """The provider stopped it, and what is unplayed is thrown away."""
        now = self._loop.time()
        self.model.interrupted(now)
        self.caller.interrupted(now)
        self._changed(now)

    def generation_complete(self) -> None:
        """All of the turn has come."""
        self.model.generation_complete(now := self._loop.time())
        self._changed(now)

    def turn_complete(self, reason: str | None) -> None:
        """The turn is over, for ``reason`` if the provider names one."""
        self.model.turn_complete(now := self._loop.time(), reason)
        self._changed(now)

    def waiting_for_input(self) -> None:
        """It keeps silent on purpose."""
        self.model.waiting_for_input(now := self._loop.time())
        self._changed(now)

    def session_lost(self) -> None:
        """There is no connection to a model."""
        self.model.session_lost(now := self._loop.time())
        self._changed(now)

    def session_changed(self) -> None:
        """There is a new one."""
        self.model.session_changed(now := self._loop.time())
        self._changed(now)

    # Inside.

    def _changed(self, now: float) -> None:
        owes = self.model.owes
        if owes is not self._owed:
            self._owed = owes
            self.caller.busy(now, Busy.ANSWER, owes)
        if self._comforting and not self.model.awaited:
            self._comfort(False)
        self._arm()

    def _due_at(self) -> float | None:
        due = self.caller.due_at()
        if self.caller.ending is not None:
            return due  # that has a limit of its own
        comfort = None if self._comforting else self.model.comfort_at()
        return min((at for at in (due, self.model.due_at(), comfort) if at is not None), default=None)

    def _arm(self) -> None:
        """A deadline that moves away is noticed when the timer fires, so that most changes cost no timer."""
        due, timer = self._due_at(), self._timer
        if self._stopped or not self._begun or due is None:
            return
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timer = self._loop.call_at(due, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._loop.time()
        for action in self.caller.act(now):
            if isinstance(action, EndCall):
                self._do(self._helper.end, action.cause, action.detail)
                self.stop()
                return
            self.model.asked(now)
            self._do(self._helper.tell, action.text)
        if self.caller.ending is None and not self._stopped:
            comfort = self.model.comfort_at()
            if comfort is not None and comfort <= now and not self._comforting:
                self._comfort(True)
            self._help(self.model.act(now))
        self._changed(self._loop.time())

    def _comfort(self, on: bool) -> None:
        self._comforting = on
        self._do(self._helper.comfort, on)

    def _help(self, remedy: Remedy | None) -> None:
        model, helper = self.model, self._helper
        fault = model.last_fault
        if remedy is None or fault is None:
            return
        self._log.warning("call.model_fault", fault=fault.value, remedy=remedy.value)
        if remedy is Remedy.NUDGE:
            self._do(helper.nudge, model.settings.nudge, fault)
        elif remedy is Remedy.RECONNECT:
            self._do(helper.reconnect, f"the model does not answer: {fault.value}")
        else:
            self._do(helper.give_up, Cause.MODEL_STALLED, f"the model does not answer: {fault.value}")

    def _do(self, what: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        if self._stopped:
            return
        try:
            what(*args, **kwargs)
        except Exception:  # noqa: BLE001  # a defect of who helps; a timer has nobody to raise to
            self._log.error("call.defect", exc_info=True)
