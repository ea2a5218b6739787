"""The line to the model: one session after another, so that a call outlives each of them.

::

    goAway ──▶ wait for a pause ──▶ connect the next ──▶ close this one ──▶ resume there      nobody hears it
    drop ────▶ resume: at once, after 1 s, after 3 s ──▶ a new session, told what was said ──▶ give up
                                        the caller hears a soft tone meanwhile                 (apology)

Resuming is possible only when the former connection is closed: Gemini was measured to refuse it as long as
that one lives, and often within the first second after it; hence the pauses. What was on its way on the old
connection, sound, texts and answers of tools, is sent again on the next (``Uplink``, ``Texts``, ``Toolbox``).
From the third loss in a row on without a word of the model in between, it is a new session at once, after
longer and longer pauses, until ``give_up_after``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import chain, repeat
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from structlog.typing import FilteringBoundLogger

from ari_gemini.audio.comfort import comfort_tone
from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.call.conversation import Conversation
from ari_gemini.call.texts import Texts
from ari_gemini.call.transcript import Transcript
from ari_gemini.call.uplink import Uplink
from ari_gemini.errors import Retry, SessionDropped, SessionError, SessionUnavailable
from ari_gemini.realtime.session import HistoryTurn, OpenSession, RealtimeSession, Resume, SessionSettings
from ari_gemini.tools.toolbox import Toolbox

ANSWER_SECONDS = 5.0
"""How long the model may take to speak about something before the caller hears silence again."""
SETUP_RETRY_DELAYS = (0.25, 0.5, 1.0)
"""Pauses between attempts to reach the model while the caller hears ringing, s; the last one repeats. Short,
since ``setup_timeout`` is all the patience there is."""
FIRST_RESUME_SECONDS = 2.5
"""How long it is tried to go on with the session of another worker, s: half of the usual ``setup_timeout``,
so that a new session can still be had."""
FRESH_DELAYS = (0.0, 1.0, 2.0, 4.0)
"""Pauses before attempts at a session from nothing in mid-call, s; the last one repeats."""
GO_AWAY_MARGIN = 5.0
"""So long before the announced end the session is left, pause or not, s: the close and one attempt."""
SETTLED_SECONDS = 3.0
"""After a planned change the next one waits at least so long, s: a service that says goAway to everybody who
comes must not be called on without pause."""
LOOK_SECONDS = 0.05
"""How often a pause of the conversation is looked for, s; only between a goAway and the change."""
NO_ANSWER_MS = 10_000.0
"""What the model has not answered for so long was no question to it, but a noise."""
IDLE_COMFORT_SECONDS = 3.0
"""While nobody waits for an answer, a lost session is worth a sound only after so long, s."""
CONTINUE_SECONDS = 2.5
"""A model cut off in mid-sentence was measured to go on by itself within 0.6 s of being resumed; when it does
not, it is asked to, s."""
LASTED_SECONDS = 60.0
"""A session that lived so long was a good one though the model had nothing to say, s."""
MAX_IN_A_ROW = 5
"""Losses without a word of the model in between: the next session would only be lost as well."""
FRESH_IN_A_ROW = 3
"""The third such loss is not worth a resumption: something in that session may be what ends connections."""
STOP_SECONDS = 0.5
"""So long the caller must speak over what is left of a lost session, s: who agrees in passing is shorter."""

GO_ON = (
    "[The connection was interrupted for a moment and what you said last was cut off. Go on from there, "
    "without apologising at length.]"
)
ANSWER = "[Nothing was heard of you. Give your answer to what you were told last now.]"


class ReconnectSettings(BaseModel):
    """``[calls.reconnect]``: what happens when the model's session is lost in mid-call. Times are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    resume_delays: tuple[float, ...] = Field(default=(0.0, 1.0, 3.0), max_length=16)
    """When the lost session is resumed, counted from its loss."""
    attempt_timeout: float = Field(default=4.0, gt=0, le=60)
    """How long one attempt may take: it has been seen to hang."""
    give_up_after: float = Field(default=20.0, gt=0, le=300)
    """When nothing has helped for so long, the caller hears the apology and goes on in the dialplan."""
    comfort_after: float = Field(default=0.6, ge=0.1, le=60)
    """Silence until the caller, who waits for an answer, hears a soft tone."""


class Line:
    """One call's sessions. ``open`` makes the first, ``run`` lives on with it and those that follow."""

    def __init__(
        self,
        open_session: OpenSession,
        settings: ReconnectSettings,
        *,
        conversation: Conversation,
        uplink: Uplink,
        texts: Texts,
        transcript: Transcript,
        log: FilteringBoundLogger,
    ) -> None:
        self.session: RealtimeSession | None = None
        """The newest; it may be lost."""
        self.toolbox: Toolbox | None = None
        self.resumed = 0
        self.renewed = 0
        """Sessions begun from nothing in mid-call."""
        self.planned = 0
        """Changes at a goAway."""
        self.last_failure = ""
        self._open_session = open_session
        self._settings = settings
        self._wanted = SessionSettings()
        self._greeting = ""
        self._conversation = conversation
        self._uplink = uplink
        self._texts = texts
        self._transcript = transcript
        self._log = log
        self.on_change: Callable[[], None] = lambda: None
        """Another session has taken over: whoever may go on with the call must know. Must not block."""
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._leave_by: asyncio.Future[float] = loop.create_future()  # when the session must be left
        self._doomed: asyncio.Future[str] = loop.create_future()  # why the session is no good any more
        self._parting = False
        self._left: RealtimeSession | None = None
        self._cut = False  # the session was left in the middle of a sentence
        self._unsaid = False  # the session was left owing an answer
        self._in_a_row = 0
        self._row_began = 0.0
        self._plugged_at = 0.0
        self._turns_before = -1
        self._reminder: asyncio.TimerHandle | None = None
        self._stop: asyncio.TimerHandle | None = None
        conversation.on_go_away = self._go_away

    @property
    def resume(self) -> Resume | None:
        """What another session would go on from."""
        return None if self.session is None else self.session.resume

    @property
    def has_spoken(self) -> bool:
        """Something of the model was heard in this call, as far as this line goes back."""
        return self._conversation.turns_begun > 0

    async def open(
        self,
        settings: SessionSettings,
        *,
        resume: Resume | None = None,
        history: Sequence[HistoryTurn] = (),
    ) -> RealtimeSession:
        """Open the first session, again and again while that can help. Raises SessionError; cancelling
        leaves nothing open.

        A session that cannot be resumed within FIRST_RESUME_SECONDS is begun anew with ``history``.
        """
        self._wanted = settings
        delays = chain(SETUP_RETRY_DELAYS, repeat(SETUP_RETRY_DELAYS[-1]))
        resume_by = self._clock() + FIRST_RESUME_SECONDS
        while True:
            try:
                async with asyncio.timeout_at(None if resume is None else resume_by):
                    self.session = await self._open_session(settings, resume=resume, history=history)
            except TimeoutError:
                self.last_failure, resume = ": it could not be resumed", None
            except SessionError as error:
                self.last_failure = f": {error}"
                if resume is not None and error.retry in (Retry.NO, Retry.FRESH):
                    resume = None
                    continue
                if error.retry not in (Retry.BACKOFF, Retry.RESUME):
                    raise
                await asyncio.sleep(next(delays))
            else:
                return self.session

    async def run(self, greeting: str = "") -> None:
        """Let caller and model talk until cancelled, the model first when there is a ``greeting``: an
        instruction how. Raises SessionError when no session can be had any more: the caller has waited for as
        long as he is to."""
        session = self.session
        if session is None:
            raise RuntimeError("run comes after open")
        self._greeting = greeting
        self._conversation.downlink.stop_filling(ANSWER_SECONDS)
        try:
            while True:
                self._plug(session)
                try:
                    if greeting:
                        await session.greet(greeting)
                        greeting = ""
                    changed = await self._serve(session)
                except SessionError as error:
                    greeting = ""
                    changed = await self._recover(session, error)
                self.session = session = changed
                self._after(session)
                self.on_change()
        finally:
            self._forget_reminder()
            if self._stop is not None:
                self._stop.cancel()

    def caller_spoke(self) -> None:
        """The caller speaks, and may. Whether he interrupts, the provider says; but of what is left to be
        played of a session that was lost it knows nothing any more."""
        if self._conversation.left_over and (self._stop is None or self._stop.when() <= self._clock()):
            self._stop = asyncio.get_running_loop().call_later(STOP_SECONDS, self._stop_left_over)

    def _stop_left_over(self) -> None:
        if self._conversation.left_over and self._uplink.speaking:
            self._conversation.drop_unplayed()

    def give_up(self, why: str) -> None:
        """The present session is no good: resume it on another connection."""
        if not self._doomed.done():
            self._doomed.set_result(why)

    # One session.

    def _plug(self, session: RealtimeSession) -> None:
        loop = asyncio.get_running_loop()
        self._leave_by, self._doomed = loop.create_future(), loop.create_future()
        self._conversation.session_changed()
        self._parting = False
        self._plugged_at = self._clock()
        if self.toolbox is not None:
            self.toolbox.attach(session, resumed=session.resumed)

    async def _serve(self, session: RealtimeSession) -> RealtimeSession:
        """Use the session; returns the next one after a planned change. Raises SessionError when it is
        lost."""
        senders = [
            asyncio.create_task(self._uplink.run(session), name="uplink"),
            asyncio.create_task(self._texts.run(session), name="texts"),
        ]
        listener = asyncio.create_task(self._conversation.listen(session), name="listen")
        change = asyncio.create_task(self._change(session, senders, self._leave_by), name="change")
        doomed = self._doomed
        tasks: list[asyncio.Task[None]] = [*senders, listener]
        try:
            happenings: set[asyncio.Future[Any]] = {*tasks, change, doomed}
            await asyncio.wait(happenings, return_when=asyncio.FIRST_COMPLETED)
            if not (self._parting or change.done()):
                for task in tasks:
                    if task.done():
                        task.result()
                raise SessionDropped(doomed.result())
            # The change has closed this session, so that its tasks end, or has gone through.
            return await change
        finally:
            for one in (*tasks, change):
                one.cancel()
            await asyncio.wait((*tasks, change))
            for one in tasks:
                if not one.cancelled():
                    one.exception()  # the first one's is told; the others say the same

    def _go_away(self, time_left: float) -> None:
        self._log.info("session.go_away", time_left=time_left)
        if not self._leave_by.done():
            self._leave_by.set_result(self._clock() + max(0.0, time_left - GO_AWAY_MARGIN))

    async def _change(
        self,
        session: RealtimeSession,
        senders: list[asyncio.Task[None]],
        announced: asyncio.Future[float],
    ) -> RealtimeSession:
        """Wait for a goAway, then for a pause, and go over to the next session without anybody's noticing.

        ``announced`` gets the time by which this one must be left.
        """
        settled = self._clock() + (SETTLED_SECONDS if self.planned else 0.0)
        leave_by = await announced
        await asyncio.sleep(max(0.0, settled - self._clock()))
        while True:
            await self._pause(leave_by)
            try:
                changed = await self._attempt(
                    session.resume, before_setup=partial(self._part, session, senders)
                )
            except SessionError as error:
                if self._parting or self._clock() >= leave_by:
                    raise
                self._log.warning("session.not_changed", error=str(error))
                await asyncio.sleep(1.0)
            else:
                self.session = changed  # at once: whoever ends the call now closes this one
                self.planned += 1
                return changed

    async def _pause(self, leave_by: float) -> None:
        """Wait for a moment at which nobody speaks and nobody is waited for; after half the time it may be
        before the model has declared its turn complete; at last, any moment."""
        half = (self._clock() + leave_by) / 2
        conversation, uplink = self._conversation, self._uplink
        while (now := self._clock()) < leave_by:
            owed = uplink.unanswered or conversation.owes_answer
            waits = owed and uplink.quiet_ms < NO_ANSWER_MS
            works = self.toolbox is not None and self.toolbox.busy
            speaks = uplink.speaking or conversation.speaking
            if not (waits or works or speaks) and (now >= half or not conversation.in_turn):
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _part(self, session: RealtimeSession, senders: list[asyncio.Task[None]]) -> Resume | None:
        """Send nothing more on this session, take what it still says, and close it, once: a refused token has
        the next connection made twice. Returns what it leaves to the next one."""
        if self._left is session:
            return session.resume
        self._parting = True
        for task in senders:
            task.cancel()
        await asyncio.wait(senders)
        if self.toolbox is not None:
            self.toolbox.detach()
        await session.close()
        self._leave(session)
        return session.resume

    def _leave(self, session: RealtimeSession) -> None:
        """What did not arrive on this session waits for the next one."""
        self._left = session
        self._cut = self._conversation.speaking
        self._unsaid = self._conversation.owes_answer
        self._uplink.recover(session.confirmed)
        self._texts.recover(session.confirmed)
        if self.toolbox is not None:
            self.toolbox.recover(session.confirmed)
        self._conversation.session_lost()

    # After a loss.

    async def _recover(self, lost: RealtimeSession, error: SessionError) -> RealtimeSession:
        began = self._clock()
        self._count_loss(error)
        changing, self._parting = self._parting, False
        if self._left is not lost:  # a change may have run out of time before that
            await lost.close()  # resuming works only then
            self._leave(lost)
        owed = self._cut or self._unsaid or self._uplink.unanswered or self._greeting_is_owed
        self._comfort(self._settings.comfort_after if owed else IDLE_COMFORT_SECONDS)
        session = await self._next(lost, error, began, skip=changing)
        self._log.info(
            "session.recovered",
            seconds=round(self._clock() - began, 2),
            resumed=session.resumed,
            repeated_frames=self._uplink.repeated,
        )
        if self.toolbox is None or not self.toolbox.busy:
            self._conversation.downlink.stop_filling(ANSWER_SECONDS if owed else 0.0)
        return session

    def _count_loss(self, error: SessionError) -> None:
        """Raises ``error`` when it is one too many."""
        self._forget_reminder()
        turns = self._conversation.turns_begun
        now = self._clock()
        in_vain = turns == self._turns_before and now - self._plugged_at < LASTED_SECONDS
        self._in_a_row = self._in_a_row + 1 if in_vain else 1
        if not in_vain:
            self._row_began = now
        self._turns_before = turns
        if self._in_a_row > MAX_IN_A_ROW and now - self._row_began >= self._settings.give_up_after:
            raise error

    @property
    def _greeting_is_owed(self) -> bool:
        return bool(self._greeting) and not self._conversation.turns_begun

    async def _next(
        self, lost: RealtimeSession, error: SessionError, began: float, *, skip: bool
    ) -> RealtimeSession:
        """The ladder. ``skip``: the attempt at once has been made."""
        resume = None if error.retry in (Retry.FRESH, Retry.NO) else lost.resume
        if self._in_a_row >= FRESH_IN_A_ROW:
            resume = None
            await asyncio.sleep(FRESH_DELAYS[min(self._in_a_row - FRESH_IN_A_ROW + 1, len(FRESH_DELAYS) - 1)])
        if resume is not None:
            for delay in self._settings.resume_delays[1 if skip else 0 :]:
                await asyncio.sleep(max(0.0, began + delay - self._clock()))
                try:
                    session = await self._attempt(resume)
                except SessionError as refused:
                    if refused.retry in (Retry.FRESH, Retry.NO):
                        break
                else:
                    self.resumed += 1
                    return session
        session = await self._begin_anew(began)
        self.renewed += 1
        return session

    async def _begin_anew(self, began: float) -> RealtimeSession:
        delays = chain(FRESH_DELAYS, repeat(FRESH_DELAYS[-1]))
        while True:
            await asyncio.sleep(next(delays))
            try:
                return await self._attempt(None)
            except SessionError as error:
                hopeless = error.retry in (Retry.NO, Retry.LATER)
                if hopeless or self._clock() - began >= self._settings.give_up_after:
                    raise

    async def _attempt(
        self, resume: Resume | None, before_setup: Callable[[], Awaitable[Resume | None]] | None = None
    ) -> RealtimeSession:
        """One attempt at a session. Raises SessionError."""
        history: Sequence[HistoryTurn] = ()
        if resume is None:
            history = self._transcript.turns(without_caller=self._uplink.unanswered)
        limit = self._settings.attempt_timeout
        try:
            async with asyncio.timeout(limit):
                return await self._open_session(
                    self._wanted, resume=resume, history=history, before_setup=before_setup
                )
        except TimeoutError:
            raise SessionUnavailable(f"no session within {limit:g} s") from None

    def comfort(self) -> None:
        """Let a caller who waits for the first session hear a soft tone, until the model speaks."""
        self._comfort(self._settings.comfort_after)

    def _comfort(self, after: float) -> None:
        downlink = self._conversation.downlink
        downlink.fill(after, b"", comfort_tone(AudioFormat(downlink.rate)))

    def _after(self, session: RealtimeSession) -> None:
        """Have the model say what the caller waits for, if his own words, sent again, do not bring it
        about."""
        self._forget_reminder()
        if self._uplink.unanswered:
            if self._greeting_is_owed or self._cut or self._unsaid or self._doomed.done():
                self._remind_later(despite=True)
        elif self._greeting_is_owed:
            self._texts.tell(self._greeting)
        elif self._cut and not session.resumed:
            self._texts.tell(GO_ON)
        elif self._doomed.done() or (self._unsaid and not session.resumed):
            self._texts.tell(ANSWER)
        elif self._cut or self._unsaid:
            self._remind_later(despite=False)

    def _remind_later(self, *, despite: bool) -> None:
        """Unless the model speaks before. ``despite`` all that the caller said and has no answer to: it may
        have been a cough; else the answer to it is what he waits for."""
        text = self._greeting if self._greeting_is_owed else GO_ON if self._cut else ANSWER
        self._arm(text, self._conversation.turns_begun, despite)

    def _arm(self, text: str, turns: int, despite: bool) -> None:
        loop = asyncio.get_running_loop()
        self._reminder = loop.call_later(CONTINUE_SECONDS, self._remind, text, turns, despite)

    def _remind(self, text: str, turns: int, despite: bool) -> None:
        uplink = self._uplink
        if self._conversation.turns_begun != turns or (self.toolbox is not None and self.toolbox.busy):
            return
        if despite and (uplink.speaking or uplink.quiet_ms < CONTINUE_SECONDS * 1000):
            self._arm(text, turns, despite)
        elif despite or not uplink.unanswered:
            self._texts.tell(text)

    def _forget_reminder(self) -> None:
        if self._reminder is not None:
            self._reminder.cancel()
