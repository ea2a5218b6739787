"""One phone call: ``Call.run`` holds it from the first word of it to the last thing cleaned up."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import structlog

from ari_gemini.audio.comfort import comfort_tone
from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.resample import RATES
from ari_gemini.audio.wav import prompt_pcm
from ari_gemini.audiosocket.connection import Connection, MediaEnd
from ari_gemini.call.agent import CALLER_FIELDS, Agent, fill
from ari_gemini.call.control import Control
from ari_gemini.call.conversation import Conversation
from ari_gemini.call.digits import Source
from ari_gemini.call.keys import Keys
from ari_gemini.call.leg import Identity, Leg
from ari_gemini.call.line import ANSWER_SECONDS, Line
from ari_gemini.call.records import ASKED, BACK, Record, Records, settle_tools
from ari_gemini.call.registry import Registry
from ari_gemini.call.remedies import Remedies
from ari_gemini.call.settings import CallSettings
from ari_gemini.call.texts import Texts
from ari_gemini.call.transcript import Transcript
from ari_gemini.call.uplink import Uplink
from ari_gemini.call.watch import Watch
from ari_gemini.errors import (
    AriConflict,
    AriError,
    AriNotFound,
    CallEnded,
    Cause,
    SessionError,
    SessionRefused,
    ToolError,
    leaves,
)
from ari_gemini.realtime import events
from ari_gemini.realtime.functions import FunctionResult
from ari_gemini.realtime.session import OpenSession, RealtimeSession
from ari_gemini.telemetry.timeline import Timeline, Turn
from ari_gemini.tools.base import Tool
from ari_gemini.tools.destination import Destination
from ari_gemini.tools.settings import ToolLimits
from ari_gemini.tools.toolbox import Toolbox, ToolUse

log = structlog.get_logger(__name__)


class CallObserver(Protocol):
    """Whoever wants to watch calls. Called from the event loop; must not block or raise."""

    def started(self, call: Call) -> None: ...
    def transcript(self, call: Call, speaker: events.Speaker, text: str) -> None: ...
    def turn(self, call: Call, turn: Turn) -> None: ...
    def tool(self, call: Call, use: ToolUse) -> None: ...
    def ended(self, call: Call, outcome: CallEnded) -> None: ...


class ToolKit(Protocol):
    """Where a call's tools come from."""

    @property
    def limits(self) -> ToolLimits: ...

    def pick(self, names: Sequence[str], destinations: Mapping[str, Destination]) -> Sequence[Tool]:
        """The tools with these names, of those that can be had now."""


class Call:
    """One call between a caller on ``leg`` and a model."""

    def __init__(
        self,
        leg: Leg,
        *,
        settings: CallSettings,
        agents: Mapping[str, Agent],
        open_session: OpenSession,
        registry: Registry,
        tools: ToolKit,
        observer: CallObserver | None = None,
        records: Records | None = None,
    ) -> None:
        self.leg = leg
        self.id = leg.id
        self.identity: Identity | None = None
        self.timeline = Timeline()
        self._settings = settings
        self._agents = agents
        self._registry = registry
        self._tool_kit = tools
        self._observer = observer
        self._agent = Agent()
        self._tools: Sequence[Tool] = ()
        self._greeting = ""
        self._asked_model = False
        self._connection: Connection | None = None
        self._ended: asyncio.Future[CallEnded] = asyncio.get_running_loop().create_future()
        self._clock = asyncio.get_running_loop().time
        self._log = log.bind(call=self.id)
        self.conversation = Conversation(self.timeline, self, self._log, prebuffer_ms=settings.prebuffer_ms)
        self.downlink = self.conversation.downlink
        self.uplink = Uplink(self.timeline, self._clock, self._caller_spoke)
        self.conversation.on_answer = self.uplink.answered
        self._texts = Texts()
        self._transcript = Transcript()
        self._texts.note = self._transcript.told
        self.line = Line(
            open_session,
            settings.reconnect,
            conversation=self.conversation,
            uplink=self.uplink,
            texts=self._texts,
            transcript=self._transcript,
            log=self._log,
        )
        self._record = Record(
            records, self.id, line=self.line, transcript=self._transcript, uplink=self.uplink
        )
        self.line.on_change = self.conversation.on_change = self._record.changed
        remedies = Remedies(self.conversation, self._texts, self.line, give_up=self._give_up, end=self.end)
        self._watchdogs = Watch(remedies, self._log)
        self.conversation.watch = self._watchdogs
        self._record.budgets = self._watchdogs.spent
        self._texts.on_sent = self._watchdogs.asked
        self.uplink.on_silence = self._watchdogs.caller_stopped
        self._tasks: asyncio.TaskGroup | None = None
        self._keys = Keys(self.conversation, self._texts.tell, self._log, self._transcript)
        self._control: Control | None = None

    @property
    def session(self) -> RealtimeSession | None:
        """The model's session, the newest one there was."""
        return self.line.session

    # The life of a call.

    def end(self, cause: Cause, detail: str = "") -> None:
        """End the call from outside, at any time, any number of times. The first cause stands."""
        self._end(CallEnded(cause, detail))

    def key_pressed(self, digit: str) -> None:
        """Asterisk says that the caller pressed a key."""
        self._key(digit, Source.SIGNALLING)

    async def run(self) -> CallEnded:
        """Live through the call; returns its outcome when everything it had made is gone.

        Cancelling ends the call as SHUTDOWN. It still cleans up before the cancellation goes on, even when
        cancelled again: leg and session both bound the time that takes.
        """
        # A task of its own: who cancels this one meets neither the TaskGroup inside, which would forget it
        # when one of its tasks fails at the same time (CPython 3.11), nor the clean-up half done.
        life = asyncio.create_task(self._live_and_release(), name=f"{self.id} life")
        cancelled: asyncio.CancelledError | None = None
        while not life.done():
            try:
                await asyncio.wait((life,))
            except asyncio.CancelledError as error:
                cancelled = error
                self.end(Cause.SHUTDOWN, "cancelled")
        outcome = life.result()
        if cancelled is not None:
            raise cancelled
        return outcome

    async def _live_and_release(self) -> CallEnded:
        structlog.contextvars.bind_contextvars(call=self.id)  # whatever the call's tasks log names it
        started = self._clock()
        outcome = CallEnded(Cause.SHUTDOWN, "cut off")  # unless the event loop itself is being closed
        try:
            with self._registry.admit(self, adopted=self.leg.adopted):
                outcome = await self._live()
        except CallEnded as refused:
            outcome = refused
        finally:
            await self._release(outcome)
            self._report(outcome, self._clock() - started)
        return outcome.with_traceback(None)  # which would keep all of the call in memory

    async def _live(self) -> CallEnded:
        if self._ended.done():
            return self._ended.result()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch(), name=f"{self.id} watch")
                session = await self._set_up(tasks)
                self._equip(session, tasks)
                self._begin_watch(tasks)
                self._record.start(tasks)
                tasks.create_task(self.uplink.mind_gaps(), name=f"{self.id} gaps")
                tasks.create_task(self._talk(), name=f"{self.id} talk")
        except ExceptionGroup as group:
            return self._outcome(group)
        raise AssertionError("a call's tasks end only by raising")

    async def _talk(self) -> None:
        try:
            await self.line.run(self._greeting)
        except SessionError:
            await self._apologise()
            raise

    async def _apologise(self) -> None:
        """Tell the caller, who has waited long enough, that he goes on without the model."""
        downlink, apology = self.downlink, self._agent.apology_prompt
        if apology is None or (self._control is not None and self._control.consulting):
            return  # in the second case somebody else would hear it
        downlink.stop_filling()
        with suppress(ToolError):  # the line to the caller is being closed
            await downlink.drained()
            await downlink.play_tones(prompt_pcm(apology, downlink.rate))

    def _begin_watch(self, tasks: asyncio.TaskGroup) -> None:
        """From now on somebody looks whether caller and model still talk to each other."""
        self._tasks = tasks
        found = self._record.found
        self._watchdogs.begin(
            self._agent.stall,
            self._agent.limits,
            age=self._record.age,
            spent=None if found is None else found.budgets,
        )
        if self._greeting:
            self._watchdogs.asked()

    def _give_up(self, cause: Cause, detail: str) -> None:
        if self._tasks is not None:
            self._tasks.create_task(self._end_politely(cause, detail), name=f"{self.id} apology")

    async def _end_politely(self, cause: Cause, detail: str) -> None:
        await self._apologise()
        self.end(cause, detail)

    def _answered_tools(self, results: Sequence[FunctionResult]) -> None:
        self._record.changed()
        if any(result.scheduling != "silent" for result in results):
            self._watchdogs.asked()

    def _caller_spoke(self) -> None:
        self.conversation.caller_began()
        if self._agent is not None and self._agent.activity_detection.interruptions:
            self.line.caller_spoke()
        self._watchdogs.caller_started()

    async def _watch(self) -> None:
        raise await asyncio.shield(self._ended)

    async def _set_up(self, tasks: asyncio.TaskGroup) -> RealtimeSession:
        """Model and media side by side; then the caller is let in."""
        # A timer that ends the call, not asyncio.timeout: one way to end, and the first cause stands.
        late = asyncio.get_running_loop().call_later(self._settings.setup_timeout, self._late)
        try:
            opening = tasks.create_task(self._bring_session(), name=f"{self.id} session")
            media = tasks.create_task(self._bring_media(), name=f"{self.id} media")
            await asyncio.wait((opening, media))
        finally:
            late.cancel()
        await self.leg.join()
        if self._observer is not None:
            self._observer.started(self)
        self._log.info("call.up", agent=self.identity.agent if self.identity else None)
        return opening.result()

    def _late(self) -> None:
        asked = self._asked_model and self.session is None
        cause, what = (Cause.MODEL_UNAVAILABLE, "model") if asked else (Cause.ARI_FAILED, "media")
        if self.identity is None:
            what = "word of who calls"
        self.end(cause, f"no {what} within {self._settings.setup_timeout:g} s{self.line.last_failure}")

    async def _bring_session(self) -> RealtimeSession:
        """Find out who calls whom, then open the model session, again and again while that can help."""
        self.identity = identity = await self.leg.identify()
        state = await self._record.find() if self.leg.adopted else None
        if state is not None and state.agent in self._agents:
            identity = self.identity = Identity(
                state.agent, state.caller_number, state.caller_name, state.called_number
            )
        agent = self._agents.get(identity.agent)
        if agent is None:
            raise CallEnded(Cause.NO_AGENT, f"no agent {identity.agent!r} is configured")
        self._agent = agent
        self._keys.configure(agent.digits, interrupts=agent.activity_detection.interruptions)
        values = dict(state.values) if state is not None else await self._values(agent, identity)
        self._record.identity, self._record.values = identity, values
        self._record.greeted = state is not None and state.greeted
        self._greeting = "" if self._record.greeted else fill(agent.greeting, values)
        self._tools = self._tool_kit.pick(agent.tools, agent.transfer)
        settings = agent.session_settings(values, [tool.declaration for tool in self._tools])
        self._asked_model = True
        return await self.line.open(settings, resume=self._record.resume, history=self._transcript.turns())

    def _equip(self, session: RealtimeSession, tasks: asyncio.TaskGroup) -> None:
        """Give the model its tools, for as long as ``tasks`` live."""
        hold = not session.capabilities.audio_during_tools
        self._control = control = Control(
            self.leg,
            self.identity or Identity(""),
            self.conversation,
            tasks,
            end=self.end,
            tell=self._texts.tell,
            forget_caller=self.uplink.forget,
            away=self._watchdogs.away,
            waits_for_tools=hold,
            log=self._log,
        )
        toolbox = Toolbox(
            self._tools,
            control,
            self._tool_kit.limits,
            tasks=tasks,
            on_use=self._tool_used,
            on_busy=partial(self._tools_busy, hold),
            tell=self._texts.tell,
            note=self._transcript.done,
            on_sent=self._answered_tools,
        )
        self.conversation.toolbox = self.line.toolbox = toolbox
        if self._record.found is not None:
            settle_tools(toolbox, self._record.found)
            if self._record.greeted:
                self._texts.tell(BACK + ASKED if self._record.found.unanswered else BACK)

    def _tools_busy(self, hold: bool, busy: bool) -> None:
        """The first tool begins, or the last is answered. ``hold``: the model takes no input meanwhile."""
        self._watchdogs.tools_busy(busy)
        if hold:
            self.uplink.hold(busy)
            self._texts.hold(busy)
            if not busy:
                self.conversation.tools_answered()
        agent, downlink = self._agent, self.downlink
        if not busy:
            downlink.stop_filling(ANSWER_SECONDS)
        elif agent.filler != "none":
            fmt = AudioFormat(downlink.rate)
            prompt = b"" if agent.filler == "tone" else prompt_pcm(agent.filler, fmt.rate)
            downlink.fill(agent.filler_after, prompt, comfort_tone(fmt))

    def _tool_used(self, use: ToolUse) -> None:
        if self._observer is not None:
            self._observer.tool(self, use)

    async def _values(self, agent: Agent, identity: Identity) -> dict[str, str]:
        values = dict.fromkeys(agent.variables, "")
        if agent.variables:
            values |= await self.leg.variables(agent.variables)
        for name in CALLER_FIELDS:
            values[name] = getattr(identity, name)
        return values

    async def _bring_media(self) -> None:
        """Silence flows towards Asterisk from the moment the connection stands."""
        connection = await self.leg.open_media()
        self._connection = connection
        self.downlink.start(connection)
        connection.attach(self)
        if self.leg.adopted:
            self.line.comfort()  # he is on the line already, and hears nothing since his worker died
        await self.leg.settle_media()

    def _outcome(self, group: ExceptionGroup[Exception]) -> CallEnded:
        """What ended the call, if several tasks failed at once: the outside's word, ours, then a defect."""
        if self._ended.done():
            return self._ended.result()
        errors = list(leaves(group))
        for kind in (CallEnded, SessionError, AriError):
            for error in errors:
                if isinstance(error, kind):
                    return self._classify(error)
        self._log.error("call.defect", exc_info=errors[0])
        return CallEnded(Cause.INTERNAL_ERROR, repr(errors[0]))

    def _classify(self, error: CallEnded | SessionError | AriError) -> CallEnded:
        if isinstance(error, CallEnded):
            return error
        if isinstance(error, AriNotFound | AriConflict):
            # every step names a channel that was ours a moment ago: it left while we were busy with it
            return CallEnded(Cause.CALLER_HANGUP, str(error))
        if isinstance(error, AriError):
            return CallEnded(Cause.ARI_FAILED, str(error))
        if self.session is not None:
            return CallEnded(Cause.MODEL_LOST, str(error))
        refused = isinstance(error, SessionRefused)
        return CallEnded(Cause.MODEL_REFUSED if refused else Cause.MODEL_UNAVAILABLE, str(error))

    def _end(self, ended: CallEnded) -> None:
        if not self._ended.done():
            self._watchdogs.stop()
            self._ended.set_result(ended)

    async def _release(self, outcome: CallEnded) -> None:
        """Give back everything. The caller's way comes first: he is the one who waits.

        Unless another worker goes on with him: that one must find the record as soon as it has him.
        """
        self._watchdogs.stop()
        self.downlink.stop()
        goes_on = outcome.cause is Cause.HANDED_OVER
        if goes_on:
            await self._record.flush()
        self._keys.stop()
        steps: list[Coroutine[Any, Any, None]] = [self.leg.release(outcome)]
        if self.session is not None:
            steps.append(self.session.close())
        if not goes_on:
            steps.append(self._record.forget())
        for failure in await asyncio.gather(*steps, return_exceptions=True):
            if failure is not None:  # a defect; it must not keep the rest from closing
                self._log.error("call.defect", exc_info=failure)
        if self._connection is not None:
            self._connection.close()
            await self._connection.wait_closed()

    def _report(self, outcome: CallEnded, duration: float) -> None:
        self._log.info(
            "call.ended",
            cause=outcome.cause.value,
            detail=outcome.detail or None,
            seconds=round(duration, 2),
            turns=self.timeline.count,
            uplink_dropped=self.uplink.dropped,
            late_audio_ms=round(self.conversation.discarded_ms),
            **self._troubles(),
        )
        if self._observer is not None:
            self._observer.ended(self, outcome)

    def _troubles(self) -> dict[str, int]:
        """What else was counted on the way of the sound and should have been nothing."""
        counted = {
            "texts_dropped": self._texts.dropped,
            "sessions_resumed": self.line.resumed,
            "sessions_renewed": self.line.renewed,
            "sessions_changed": self.line.planned,
            "uplink_repeated": self.uplink.repeated,
            "uplink_filled": self.uplink.filled,
            **self._watchdogs.counted(),
        }
        if self._connection is not None:
            stats = self._connection.stats
            counted |= {
                "media_unknown": stats.unknown_in,
                "media_malformed": stats.malformed_in,
                "media_dropped_in": stats.dropped_in,
                "media_dropped_out": stats.dropped_out,
            }
        if self.downlink.buffer is not None:
            counters = self.downlink.buffer.counters
            counted |= {
                "underruns": counters.underruns,
                "skipped_deadlines": counters.skipped_deadlines,
                "refused_bytes": counters.refused_bytes,
            }
        return {name: count for name, count in counted.items() if count}

    # The media sink: what the AudioSocket connection tells.

    def audio(self, pcm: bytes, rate: int) -> None:
        """Caller audio from the media connection."""
        if rate in RATES:
            self.uplink.audio(pcm, rate)
        else:
            self.end(Cause.MEDIA_ERROR, f"audio at {rate} Hz cannot be resampled")

    def digit(self, digit: str) -> None:
        """A DTMF digit from the media connection."""
        self._key(digit, Source.MEDIA)

    def ended(self, end: MediaEnd) -> None:
        """The media connection is over."""
        self._end(self.leg.media_ended(end))

    def _key(self, digit: str, source: Source) -> None:
        self._watchdogs.caller_active()
        if self._control is None or not self._control.consulting:
            self._keys.pressed(digit, source)

    # What the conversation tells.

    def transcript(self, speaker: events.Speaker, text: str) -> None:
        """Words of the caller or the model."""
        self._transcript.add(speaker, text)
        if self._observer is not None:
            self._observer.transcript(self, speaker, text)

    def turn(self, turn: Turn) -> None:
        """A turn of the model is over."""
        if self._observer is not None:
            self._observer.turn(self, turn)
