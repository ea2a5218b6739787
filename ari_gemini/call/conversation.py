"""What the model says in one call, and what becomes of it: sound, turns, transcripts, calls of its tools."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from structlog.typing import FilteringBoundLogger

from ari_gemini.audio.pcm import SAMPLE_BYTES
from ari_gemini.audio.resample import RATES
from ari_gemini.call.downlink import Downlink
from ari_gemini.call.signal import Signal
from ari_gemini.call.turn import Action, Floor, Happening, State
from ari_gemini.call.watch import Watch
from ari_gemini.errors import MalformedMessage
from ari_gemini.realtime import events
from ari_gemini.realtime.session import RealtimeSession
from ari_gemini.telemetry.timeline import Timeline, Turn
from ari_gemini.tools.toolbox import Toolbox


class Listener(Protocol):
    """Who wants to know. Called from the event loop; must not block or raise."""

    def transcript(self, speaker: events.Speaker, text: str) -> None: ...
    def turn(self, turn: Turn) -> None: ...


class Conversation:
    """The model's side of one call. ``caller_active`` fires whenever the caller makes himself heard."""

    def __init__(
        self, timeline: Timeline, listener: Listener, log: FilteringBoundLogger, *, prebuffer_ms: int
    ) -> None:
        self.downlink = Downlink(
            on_first_frame=timeline.first_frame,
            on_turn_played=self._turn_played,
            on_played_out=self._played_out,
            prebuffer_ms=prebuffer_ms,
        )
        self.caller_active = Signal()
        """He begins to speak, by the provider's detector or by ours, or presses a key."""
        self.turn_played = Signal()
        """A turn was heard to its end."""
        self.model_audio = Signal()
        """The model goes on speaking: audio that is to be played came in."""
        self.toolbox: Toolbox | None = None
        self.watch: Watch | None = None
        self.on_answer: Callable[[], None] = lambda: None
        """The model has begun to do something about what it was told last, or will do nothing about it."""
        self.on_go_away: Callable[[float], None] = lambda _: None
        """The session will end in so many seconds."""
        self.on_change: Callable[[], None] = lambda: None
        """Something was said or done that whoever goes on with the call must know."""
        self._timeline = timeline
        self._listener = listener
        self._log = log
        self._clock = asyncio.get_running_loop().time
        self._floor = Floor()
        self.left_over = False
        """What is left to be played is of a session that was lost."""
        self._handlers: dict[type, Callable[[Any], None]] = {
            events.AudioDelta: self._on_audio,
            events.Interrupted: self._on_interrupted,
            events.GenerationComplete: self._on_generation_complete,
            events.TurnComplete: self._on_turn_complete,
            events.SpeechStarted: self._on_speech_started,
            events.SpeechStopped: self._on_speech_stopped,
            events.Transcript: self._on_transcript,
            events.ToolCall: self._on_tool_call,
            events.ToolCallCancelled: self._on_tool_call_cancelled,
            events.WaitingForInput: self._on_waiting_for_input,
            events.GoAway: self._on_go_away,
        }

    @property
    def speaking(self) -> bool:
        """The model is in the middle of a turn: more of it may come in."""
        return self._floor.state is State.SPEAKING

    @property
    def in_turn(self) -> bool:
        """A turn is under way which the model has not declared complete."""
        return self._floor.state is not State.QUIET

    @property
    def owes_answer(self) -> bool:
        """The model has been told something about which it has not begun to speak, tools at work aside."""
        return self.watch is not None and self.watch.model.owes

    @property
    def turns_begun(self) -> int:
        """Turns of the model of which anything was heard."""
        return self._timeline.count

    @property
    def discarded_ms(self) -> float:
        """Audio that came too late to be played, ms."""
        return self._floor.discarded_ms

    async def listen(self, session: RealtimeSession) -> None:
        """Act on what the session says until it ends. Raises SessionError; cancelling loses nothing."""
        handlers = self._handlers
        while True:
            for event in await session.receive():
                handler = handlers.get(type(event))
                if handler is not None:
                    handler(event)
                if type(event) is not events.AudioDelta:
                    self.on_change()

    def caller_began(self) -> None:
        """The caller makes himself heard: what fills the silence ends, and whoever waits for him is told."""
        self.downlink.quiet()
        self.caller_active.fire()

    def cut_off(self) -> None:
        """Silence the model, which does not know of it yet: the rest of its turn is thrown away."""
        if self.watch is not None:
            self.watch.cut_off()
        self._act(Happening.CUT_OFF)

    def tools_answered(self) -> None:
        """A model that waited for its tools has got their answers, and goes on in the same turn."""
        self._act(Happening.TOOLS_ANSWERED)

    def session_lost(self) -> None:
        """No more comes of the turn under way: what is here is played to its end."""
        if self.watch is not None:
            self.watch.session_lost()
        self._act(Happening.SESSION_LOST)
        self.left_over = self.downlink.speech_left

    def session_changed(self) -> None:
        """There is a session again."""
        if self.watch is not None:
            self.watch.session_changed()

    def drop_unplayed(self) -> None:
        """Throw away what the caller has not heard yet; what the model says from now on is played."""
        self._clear()

    # What the model says.

    def _on_audio(self, delta: events.AudioDelta) -> None:
        if delta.rate not in RATES:
            raise MalformedMessage(f"audio at {delta.rate} Hz")
        duration_ms = len(delta.pcm) / SAMPLE_BYTES * 1000 / delta.rate
        begins = self._floor.state is not State.SPEAKING
        if self._floor.audio(duration_ms) is Action.PLAY and self.downlink.play(delta.pcm, delta.rate):
            self._timeline.model_audio(self._clock())
            self.left_over = False
            self.model_audio.fire()
            if self.watch is not None:
                self.watch.model_audio(delta.pcm, delta.rate)
            if begins:
                self.on_answer()

    def _on_interrupted(self, _: events.Interrupted) -> None:
        if self.watch is not None:
            self.watch.interrupted()
        self._act(Happening.INTERRUPTED)
        self.caller_began()

    def _on_generation_complete(self, _: events.GenerationComplete) -> None:
        if self.watch is not None:
            self.watch.generation_complete()
        self._act(Happening.GENERATION_COMPLETE)

    def _on_turn_complete(self, turn: events.TurnComplete) -> None:
        if self.watch is not None:
            self.watch.turn_complete(turn.reason)
        if not self.in_turn:
            self.on_answer()  # it has nothing to say
        self._act(Happening.TURN_COMPLETE)

    def _on_speech_started(self, _: events.SpeechStarted) -> None:
        self.caller_began()

    def _on_speech_stopped(self, _: events.SpeechStopped) -> None:
        self._timeline.endpointed(self._clock())
        self._act(Happening.CALLER_STOPPED)

    def _on_transcript(self, transcript: events.Transcript) -> None:
        if not transcript.replaces:
            self._listener.transcript(transcript.speaker, transcript.text)

    def _on_waiting_for_input(self, _: events.WaitingForInput) -> None:
        if self.watch is not None:
            self.watch.waiting_for_input()
        self.on_answer()

    def _on_tool_call(self, called: events.ToolCall) -> None:
        if self.watch is not None:
            self.watch.tool_called()
        self.on_answer()
        if self.toolbox is not None:
            self.toolbox.call(called.calls)

    def _on_tool_call_cancelled(self, cancelled: events.ToolCallCancelled) -> None:
        if self.toolbox is not None:
            self.toolbox.take_back(cancelled.ids)

    def _on_go_away(self, go_away: events.GoAway) -> None:
        self.on_go_away(go_away.time_left)

    # What becomes of its turns.

    def _act(self, happening: Happening) -> None:
        action = self._floor.happened(happening)
        if action is Action.CLEAR:
            self._clear()
        elif action is Action.END_TURN:
            self._timeline.turn_received()
            self.downlink.end_turn()

    def _clear(self) -> None:
        self.left_over = False
        heard_ms = self.downlink.clear()
        for turn in self._timeline.interrupted(self._clock(), heard_ms):
            self._turn_ended(turn)

    def _turn_played(self, at: float, heard_ms: float) -> None:
        turn = self._timeline.turn_played(at, heard_ms)
        if turn is not None:
            self._turn_ended(turn)
        self.turn_played.fire()

    def _played_out(self) -> None:
        self.left_over = False
        if self.watch is not None:
            self.watch.played_out()

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
        self._listener.turn(turn)


def _whole(ms: float | None) -> int | None:
    return None if ms is None else round(ms)
