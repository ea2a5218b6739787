"""One phone call: ``Call.run`` holds it from the first word of it to the last thing cleaned up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from itertools import chain, repeat
from typing import Any, Literal, Protocol

import structlog
from pydantic import BaseModel, ConfigDict, Field

from ari_gemini.audio.pcm import SAMPLE_BYTES
from ari_gemini.audio.resample import RATES
from ari_gemini.audiosocket.connection import Connection, MediaEnd
from ari_gemini.call.agent import CALLER_FIELDS, Agent, fill
from ari_gemini.call.downlink import Downlink
from ari_gemini.call.leg import Identity, Leg
from ari_gemini.call.registry import Registry
from ari_gemini.call.turn import Action, Floor, Happening
from ari_gemini.call.uplink import Uplink
from ari_gemini.errors import (
    AriConflict,
    AriError,
    AriNotFound,
    CallEnded,
    Cause,
    MalformedMessage,
    Retry,
    SessionError,
    SessionRefused,
)
from ari_gemini.realtime import events
from ari_gemini.realtime.session import OpenSession, RealtimeSession
from ari_gemini.telemetry.timeline import Timeline, Turn

log = structlog.get_logger(__name__)

SETUP_RETRY_DELAYS = (0.25, 0.5, 1.0)
"""Pauses between attempts to reach the model while the caller hears ringing, s; the last one repeats. Short,
since ``setup_timeout`` is all the patience there is."""


class CallSettings(BaseModel):
    """``[calls]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_calls: int = Field(default=200, ge=1, le=10_000)
    answer: Literal["when_ready", "immediately"] = "when_ready"
    setup_timeout: float = Field(default=5.0, gt=0, le=60)
    """Seconds from the call's arrival until the model must be there and Asterisk's side must stand."""
    prebuffer_ms: int = Field(default=40, ge=0, le=1000)
    """Model speech gathered before a turn's first frame: covers the gap between the first two messages."""


class CallObserver(Protocol):
    """Whoever wants to watch calls. Called from the event loop; must not block or raise."""

    def started(self, call: Call) -> None: ...
    def transcript(self, call: Call, speaker: events.Speaker, text: str) -> None: ...
    def turn(self, call: Call, turn: Turn) -> None: ...
    def ended(self, call: Call, outcome: CallEnded) -> None: ...


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
        observer: CallObserver | None = None,
    ) -> None:
        self.leg = leg
        self.id = leg.id
        self.identity: Identity | None = None
        self.session: RealtimeSession | None = None
        self.timeline = Timeline()
        self._settings = settings
        self._agents = agents
        self._open_session = open_session
        self._registry = registry
        self._observer = observer
        self._greeting = ""
        self._asked_model = False
        self._last_failure = ""
        self._connection: Connection | None = None
        self._ended: asyncio.Future[CallEnded] = asyncio.get_running_loop().create_future()
        clock = asyncio.get_running_loop().time
        self._clock = clock
        self._floor = Floor()
        self.uplink = Uplink(self.timeline, clock)
        self.downlink = Downlink(
            on_first_frame=self.timeline.first_frame,
            on_turn_played=self._turn_played,
            prebuffer_ms=settings.prebuffer_ms,
        )
        self._handlers = self._event_handlers()
        self._log = log.bind(call=self.id)

    # The life of a call.

    def end(self, cause: Cause, detail: str = "") -> None:
        """End the call from outside, at any time, any number of times. The first cause stands."""
        self._end(CallEnded(cause, detail))

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
            with self._registry.admit(self):
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
                tasks.create_task(self.uplink.run(session), name=f"{self.id} uplink")
                tasks.create_task(self._listen(session), name=f"{self.id} listen")
                if self._greeting:
                    await session.greet(self._greeting)
        except ExceptionGroup as group:
            return self._outcome(group)
        raise AssertionError("a call's tasks end only by raising")

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
        self.end(cause, f"no {what} within {self._settings.setup_timeout:g} s{self._last_failure}")

    async def _bring_session(self) -> RealtimeSession:
        """Find out who calls whom, then open the model session, again and again while that can help."""
        self.identity = identity = await self.leg.identify()
        agent = self._agents.get(identity.agent)
        if agent is None:
            raise CallEnded(Cause.NO_AGENT, f"no agent {identity.agent!r} is configured")
        values = await self._values(agent, identity)
        self._greeting = fill(agent.greeting, values)
        settings = agent.session_settings(values)
        self._asked_model = True
        delays = chain(SETUP_RETRY_DELAYS, repeat(SETUP_RETRY_DELAYS[-1]))
        while True:
            try:
                self.session = await self._open_session(settings)
            except SessionError as error:
                if error.retry not in (Retry.BACKOFF, Retry.RESUME):
                    raise
                self._last_failure = f": {error}"
                await asyncio.sleep(next(delays))
            else:
                return self.session

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
        await self.leg.settle_media()

    def _outcome(self, group: ExceptionGroup[Exception]) -> CallEnded:
        """What ended the call, if several tasks failed at once: the outside's word, ours, then a defect."""
        if self._ended.done():
            return self._ended.result()
        errors = list(_leaves(group))
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
            self._ended.set_result(ended)

    async def _release(self, outcome: CallEnded) -> None:
        """Give back everything. The caller's way comes first: he is the one who waits."""
        self.downlink.stop()
        steps: list[Coroutine[Any, Any, None]] = [self.leg.release(outcome)]
        if self.session is not None:
            steps.append(self.session.close())
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
            late_audio_ms=round(self._floor.discarded_ms),
            **self._troubles(),
        )
        if self._observer is not None:
            self._observer.ended(self, outcome)

    def _troubles(self) -> dict[str, int]:
        """What else was counted on the way of the sound and should have been nothing."""
        counted: dict[str, int] = {}
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
        self._log.debug("call.digit")

    def ended(self, end: MediaEnd) -> None:
        """The media connection is over."""
        self._end(self.leg.media_ended(end))

    # What the model says.

    async def _listen(self, session: RealtimeSession) -> None:
        handlers = self._handlers
        while True:
            for event in await session.receive():
                handler = handlers.get(type(event))
                if handler is not None:
                    handler(event)

    def _event_handlers(self) -> dict[type, Callable[[Any], None]]:
        return {
            events.AudioDelta: self._on_audio,
            events.Interrupted: self._on_interrupted,
            events.GenerationComplete: self._on_generation_complete,
            events.TurnComplete: self._on_turn_complete,
            events.SpeechStopped: self._on_speech_stopped,
            events.Transcript: self._on_transcript,
            events.GoAway: self._on_go_away,
        }

    def _on_audio(self, delta: events.AudioDelta) -> None:
        if delta.rate not in RATES:
            raise MalformedMessage(f"audio at {delta.rate} Hz")
        duration_ms = len(delta.pcm) / SAMPLE_BYTES * 1000 / delta.rate
        if self._floor.audio(duration_ms) is Action.PLAY and self.downlink.play(delta.pcm, delta.rate):
            self.timeline.model_audio(self._clock())

    def _on_interrupted(self, _: events.Interrupted) -> None:
        if self._floor.happened(Happening.INTERRUPTED) is Action.CLEAR:
            heard_ms = self.downlink.clear()
            for turn in self.timeline.interrupted(self._clock(), heard_ms):
                self._turn_ended(turn)

    def _on_generation_complete(self, _: events.GenerationComplete) -> None:
        self._turn_received(Happening.GENERATION_COMPLETE)

    def _on_turn_complete(self, _: events.TurnComplete) -> None:
        self._turn_received(Happening.TURN_COMPLETE)

    def _turn_received(self, happening: Happening) -> None:
        if self._floor.happened(happening) is Action.END_TURN:
            self.timeline.turn_received()
            self.downlink.end_turn()

    def _on_speech_stopped(self, _: events.SpeechStopped) -> None:
        self.timeline.endpointed(self._clock())
        self._floor.happened(Happening.CALLER_STOPPED)

    def _on_transcript(self, transcript: events.Transcript) -> None:
        if self._observer is not None and not transcript.replaces:
            self._observer.transcript(self, transcript.speaker, transcript.text)

    def _on_go_away(self, go_away: events.GoAway) -> None:
        self._log.warning("session.go_away", time_left=go_away.time_left)

    def _turn_played(self, at: float, heard_ms: float) -> None:
        turn = self.timeline.turn_played(at, heard_ms)
        if turn is not None:
            self._turn_ended(turn)

    def _turn_ended(self, turn: Turn) -> None:
        self._log.info(
            "call.turn",
            number=turn.number,
            latency_ms=_whole(turn.latency_ms),
            endpointing_ms=_whole(turn.endpointing_ms),
            thinking_ms=_whole(turn.thinking_ms),
            playout_ms=_whole(turn.playout_ms),
            heard_ms=_whole(turn.heard_ms),
            interrupted=turn.interrupted is not None,
        )
        if self._observer is not None:
            self._observer.turn(self, turn)


def _whole(ms: float | None) -> int | None:
    return None if ms is None else round(ms)


def _leaves(group: ExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
