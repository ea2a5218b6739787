"""The simulated model's speech: bursts of audio, and how far a listener in real time has heard them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ari_gemini.audio.pcm import SAMPLE_BYTES
from ari_gemini.simulator import gemini_frames as frames
from ari_gemini.simulator.gemini_desk import Desk
from ari_gemini.simulator.gemini_memory import Say
from ari_gemini.simulator.gemini_record import Said
from ari_gemini.simulator.gemini_setup import AcceptedSetup
from ari_gemini.simulator.gemini_voice import SpeechFrame, cut_speech
from ari_gemini.simulator.phrases import MODEL_RATE

BYTES_PER_SECOND = MODEL_RATE * SAMPLE_BYTES

_GROUP = "mouth"


class Mouth:
    """Says one thing at a time. All times are the simulator's, s."""

    def __init__(self, desk: Desk, setup: AcceptedSetup) -> None:
        self._desk = desk
        self._setup = setup
        self._pieces: Iterator[SpeechFrame] = iter(())
        self._saying: Say | None = None
        self._said: Said | None = None
        self._base = 0.0
        self._play_start = 0.0
        self._done: Callable[[float], None] | None = None
        self.play_end = 0.0
        """When a listener has heard everything sent so far."""
        self.sent_bytes = 0
        """Audio sent in this turn."""

    def begin_turn(self, now: float) -> None:
        """A new turn: nothing sent, nothing to hear."""
        self.sent_bytes = 0
        self.play_end = now
        self._saying = self._said = None

    def say(self, what: Say, now: float, done: Callable[[float], None]) -> None:
        """Begin to send this; call ``done(time)`` when all of it has been sent."""
        scenario = self._desk.scenario
        low, high = (ms * MODEL_RATE // 1000 * SAMPLE_BYTES for ms in self._setup.family.frame_ms)
        pace = self._desk.rng.uniform(*scenario.pace)
        sizes = scenario.chunk_bytes or (low, high)
        self._pieces = cut_speech(what.text, what.pcm, sizes, pace, self._desk.rng)
        self._saying = what
        self._said = self._desk.record.begin_saying(what.name, what.text, now)
        self._base = now
        self.play_end = max(self.play_end, now)
        self._play_start = self.play_end
        self._done = done
        self._next(now)

    def stop(self, now: float, late_frames: int = 0) -> None:
        """Say no more, but for ``late_frames`` audio messages that are already on their way."""
        self._desk.agenda.drop(_GROUP)
        self._done = None
        said = self._said
        if said is not None and (not said.complete or now < self.play_end):
            said.interrupted = True
            if not said.complete:
                self._note_said(said, now)
        for _ in range(late_frames):
            piece = next(self._pieces, None)
            if piece is not None:
                self._audio(piece, now, "")
        self._pieces = iter(())

    def rest(self, now: float) -> tuple[Say | None, bool]:
        """What a listener has not heard of the current sentence, and whether one is being heard at all."""
        saying, said = self._saying, self._said
        if saying is None or said is None or now >= self.play_end:
            return None, False
        samples = max(0, int((now - self._play_start) * MODEL_RATE))
        heard = min(said.sent_bytes, samples * SAMPLE_BYTES)
        words = saying.text.split()
        left = words[len(words) * heard // max(1, len(saying.pcm)) :]
        unheard = memoryview(saying.pcm)[heard:]  # no copy: many of these are kept
        return Say(saying.name, " ".join(left), unheard), True

    def _next(self, now: float) -> None:
        piece = next(self._pieces, None)
        if piece is not None:
            self._desk.agenda.at(self._base + piece.due, lambda at: self._piece(piece, at), _GROUP)
            return
        if self._said is not None:
            self._said.complete = True
            self._note_said(self._said, now)
        done, self._done = self._done, None
        if done is not None:
            done(now)

    def _piece(self, piece: SpeechFrame, now: float) -> None:
        desk = self._desk
        if desk.rng.random() < desk.scenario.empties:
            desk.wire.send(desk.rng.choice(frames.EMPTY))
            desk.record.note("empty", now)
        text = piece.text if self._setup.transcribe_model else ""
        if text and not self._setup.family.merged_transcript:
            desk.wire.send(frames.model_text(text))
            text = ""
        if self._said is not None:
            self._said.sent_text += piece.text
        waiting = self._done
        self._audio(piece, now, text)
        # Reaching a point of the speech can stop it (a fault): then nothing more is entered.
        if self._done is waiting:
            self._next(now)

    def _note_said(self, said: Said, now: float) -> None:
        self._desk.record.note("said", now, text=said.sent_text, interrupted=said.interrupted)

    def _audio(self, piece: SpeechFrame, now: float, text: str) -> None:
        desk = self._desk
        role = self._setup.family.model_role
        url_safe = desk.scenario.url_safe_base64
        desk.wire.send(frames.audio(piece.pcm, role=role, text=text, url_safe=url_safe))
        desk.record.note("audio", now, bytes=len(piece.pcm))
        seconds = len(piece.pcm) / BYTES_PER_SECOND
        self.sent_bytes += len(piece.pcm)
        self.play_end = max(self.play_end, now) + seconds
        if self._said is not None:
            desk.record.add_said(self._said, piece.pcm)
        desk.reach("speech", now, seconds)
