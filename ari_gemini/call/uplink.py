"""Caller → model: frames come in from AudioSocket, go through the resampler and out to the session.

What has been sent is kept until it is known to have arrived, and a caller's words until the model answers
them, so that a session that takes over from a lost one hears them::

    kept ──────────────────────────────────────────────────────────────▶ newest
    │ warm-up │ the caller's unanswered words │ sent, unconfirmed │ unsent │
              └─ where a next session begins: the earlier of the two
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import islice

from ari_gemini.audio.pcm import SAMPLE_BYTES, AudioFormat, level_dbfs
from ari_gemini.audio.playout import FRAME_S
from ari_gemini.audio.resample import Resampler
from ari_gemini.audio.vad import HANGOVER_MS, SpeechEdges
from ari_gemini.realtime.session import RealtimeSession
from ari_gemini.realtime.unconfirmed import Unconfirmed
from ari_gemini.telemetry.timeline import Timeline, Turn

KEPT_MS = 30_000
"""So much caller audio is kept, 480 kB at 8 kHz: more than a reconnect may take, and as long as anybody
speaks in one go. What is older is no longer worth an answer, so the oldest goes first."""

MAX_MESSAGES = KEPT_MS // 20
"""Messages of which it is noted whether they arrived: as many as there are frames of 20 ms. Of older ones
nothing is kept."""

BATCH_FRAMES = 10
"""A backlog leaves in messages of at most so many frames, 200 ms: what one send costs stays small."""

WARM_UP = 2
"""Frames by which a resampler is begun earlier than what is wanted of it, 40 ms: all that its filter
remembers, so that the sound goes on at the sample where the former one stopped."""

LEAD_FRAMES = 15
"""Our own detector is sure of speech only when that lasts: it began up to 300 ms before."""

HANGOVER_FRAMES = 15
"""So many frames after its end our detector is sure of it (``vad.HANGOVER_MS``)."""

RECENT_FRAMES = 50
"""Words that began so short a time before an answer, 1 s, are not what it is about: the model waits for the
end of words before it thinks."""

GAP_SECONDS = 1.0
"""Nothing from the caller for so long is taken for silence: longer than any hiccup of a path that works."""

CLEAR_MS = 300.0
"""So much voice in one stretch of speech counts as the caller's making himself heard: a word. A bump or a
cough is shorter."""
CLEAR_DBFS = -40.0
"""Only frames as loud as this count: the softest speech to be found. The model's echo off a phone, and a
television next door, are softer."""

TELEPHONE = AudioFormat(8000)


class Uplink:
    """One call's caller audio. ``audio`` is called by the media connection and never waits.

    ``on_speech`` is called once in each stretch of the caller's speech, by our own detector, when it is sure,
    and ``on_silence`` at the end of each.
    """

    def __init__(
        self,
        timeline: Timeline,
        clock: Callable[[], float],
        on_speech: Callable[[], None] | None = None,
    ) -> None:
        self.dropped = 0
        """Frames thrown away that no session has taken."""
        self.repeated = 0
        """Frames sent once more to a session that took over."""
        self.frames = 0
        self.filled = 0
        """Of these: silence of our own, because nothing came."""
        self._received = 0
        self._timeline = timeline
        self._clock = clock
        self._on_speech = on_speech or (lambda: None)
        self.on_silence: Callable[[], None] = lambda: None
        self._held = False
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        # Positions: frames since the call began.
        self._first = 0  # the oldest kept
        self._next = 0  # the first that is to be sent
        self._taken = 0  # the first that the session has not been handed
        self._arrived = 0  # the first that may not have arrived
        self._spoken: int | None = None  # where words began that the model has not answered
        self._on_its_way: Unconfirmed[int] = Unconfirmed(MAX_MESSAGES)
        self._began_at = 0  # our detector was sure of the speech that lasts
        self._answered_at = 0
        self._answer: tuple[Turn, int] | None = None  # under way, and what came before is answered by it
        self._answers = 0  # turns of the model that have been looked at
        self._clear_ms = 0.0
        self._quiet_ms = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._begin(TELEPHONE)

    @property
    def speaking(self) -> bool:
        """The caller speaks, by our own detector."""
        return self._edges.speaking

    @property
    def unanswered(self) -> bool:
        """The caller has said something that the model has not answered."""
        return self._spoken is not None

    @property
    def quiet_ms(self) -> float:
        """How long the caller has been silent, ms; 0 while he speaks."""
        return 0.0 if self.speaking else self._quiet_ms

    def audio(self, pcm: bytes, rate: int) -> None:
        """Take one message's audio at ``rate`` Hz."""
        self._received += 1
        if self._format.rate != rate:
            self._begin(AudioFormat(rate))
        self._add(pcm)

    async def mind_gaps(self) -> None:
        """Put silence where nothing comes from the caller, until cancelled: a muted phone sends nothing, and
        neither the model nor our own detector ends a turn without hearing silence (Gemini Live guide)."""
        while True:
            seen = self._received
            await asyncio.sleep(GAP_SECONDS)
            if self._received == seen:
                for _ in range(round(GAP_SECONDS / FRAME_S)):
                    self.filled += 1
                    self._add(self._format.silence())

    def _add(self, pcm: bytes) -> None:
        self.frames += 1
        self._kept.append(pcm)
        self._kept_bytes += len(pcm)
        self._settle_answer()
        self._trim()
        self._wake()
        self._watch_speech(pcm)

    def hold(self, held: bool) -> None:
        """While held, nothing is sent: a tool works, and the model would give up the session over audio.

        What comes in waits, within its bound.
        """
        self._held = held
        self._wake()

    def forget(self) -> None:
        """Throw away what is kept: whoever is heard from now on is somebody else."""
        self.dropped += self.frames - max(self._next, self._taken)
        self._kept.clear()
        self._kept_bytes = 0
        self._first = self._next = self._taken = self._arrived = self.frames
        self._spoken = None
        self._on_its_way.take()

    def answered(self) -> None:
        """The model deals with what the caller has said. While he goes on speaking, all of it remains
        unanswered: what the model says now was about a part of it, and he is interrupting that.

        Unless he is not: a noisy line sounds like speech without end. Once the model's turn has been heard to
        its end, what came before it began is answered.
        """
        self._settle_answer()
        seen, self._answers = self._answers, self._timeline.count
        if not self._edges.speaking:
            self._spoken = None
            return
        self._answered_at = self.frames  # he may have ended: our detector is sure only later
        if self._answers > seen:  # else it calls a tool, in the middle of a turn perhaps
            self._answer = self._timeline.turns[-1], self._heard_by_model()

    def recover(self, confirmed: int) -> None:
        """A session is over of which the first ``confirmed`` messages arrived: let the next one begin where
        that one got to, or where the caller's unanswered words begin."""
        self._settle(confirmed)
        self._settle_answer()
        self._answer = None  # what is left of it is played, and yet it was cut off
        begin = self._arrived if self._spoken is None else min(self._arrived, self._spoken)
        begin = max(begin, self._first)
        self.repeated += max(0, self._next - begin)
        self._next = self._taken = self._arrived = begin
        self._on_its_way.take()
        self._wake()

    async def run(self, session: RealtimeSession) -> None:
        """Send until cancelled, beginning with what has gathered. Cancelling loses nothing.

        Raises SessionError when the session ends; what it did not take stays the next to be sent.
        """
        target = session.capabilities.input_format
        resampler = self._resampler(target)
        loop = asyncio.get_running_loop()
        while True:
            while self._held or self._next >= self.frames:
                self._waiter = loop.create_future()
                await self._waiter
            if resampler.source != self._format:
                resampler = self._resampler(target)
            batch = self._slice(self._next, min(self.frames, self._next + BATCH_FRAMES))
            self._taken = end = self._next + len(batch)
            pcm = resampler.process(batch[0] if len(batch) == 1 else b"".join(batch))
            if pcm:
                await session.send_audio(pcm)
            self._settle(session.confirmed)
            self._on_its_way.sent(session.sent, end)
            self._next = max(end, self._first)

    # What is answered.

    def _heard_by_model(self) -> int:
        """The first frame of which a turn that begins now may know nothing."""
        place = min(self.frames, self._next) - LEAD_FRAMES  # what he says now is kept from its beginning
        if self.frames - self._began_at < RECENT_FRAMES:
            place = min(place, self._began_at - LEAD_FRAMES)
        return place

    def _settle_answer(self) -> None:
        """Look whether the model's turn is over, and whether it was heard to its end."""
        if self._answer is None:
            return
        turn, place = self._answer
        if turn.ended is None:
            return
        self._answer = None
        if turn.interrupted is None and self._spoken is not None:
            self._spoken = max(self._spoken, place)  # he may have begun to speak after that

    # What is kept.

    def _slice(self, begin: int, end: int) -> list[bytes]:
        """Frames by their positions; what is not kept any more is left out."""
        first = self._first
        return list(islice(self._kept, max(0, begin - first), max(0, end - first)))

    def _resampler(self, target: AudioFormat) -> Resampler:
        """One that goes on where a former one stopped before the next frame."""
        resampler = Resampler(self._format, target)
        for frame in self._slice(self._next - WARM_UP, self._next):
            resampler.process(frame)
        return resampler

    def _settle(self, confirmed: int) -> None:
        arrived = self._on_its_way.settle(confirmed)
        if arrived is not None:
            self._arrived = arrived

    def _trim(self) -> None:
        """Drop what nobody will ask for again, and what is more than may be kept."""
        wanted = min(self._next, self._arrived)
        if self._spoken is not None:
            wanted = min(wanted, self._spoken)
        wanted = min(wanted, self.frames - LEAD_FRAMES) - WARM_UP
        while self._first < wanted or self._kept_bytes > self._limit:
            self._kept_bytes -= len(self._kept.popleft())
            self._first += 1
        if self._next < self._first:
            self.dropped += max(0, self._first - max(self._next, self._taken))
            self._next = self._first
        if self._spoken is not None and self._spoken < self._first:
            self._spoken = self._first if self._edges.speaking else None  # so long ago: it was no question

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _begin(self, fmt: AudioFormat) -> None:
        self._edges = SpeechEdges(fmt)
        self.forget()  # what is kept has another rate and would be sped up or slowed down
        self._limit = fmt.rate * SAMPLE_BYTES * KEPT_MS // 1000
        self._format = fmt
        self._clear_ms = 0.0

    def _watch_speech(self, pcm: bytes) -> None:
        edges = self._edges
        edge = edges.feed(pcm, self._clock())
        self._quiet_ms += self._format.duration_ms(len(pcm))
        if edge is not None:
            self._clear_ms = 0.0
            if edge.speaking:
                self._timeline.caller_started()
                self._answered_at = 0
                self._began_at = self.frames
                if self._spoken is None:
                    self._spoken = max(self._first, self.frames - LEAD_FRAMES)
            else:
                self._quiet_ms = HANGOVER_MS
                if self._answered_at >= self.frames - HANGOVER_FRAMES:
                    self._spoken = None
                self._timeline.caller_stopped(edge.at)
                self.on_silence()
        if edges.speaking and self._clear_ms < CLEAR_MS and level_dbfs(pcm) >= CLEAR_DBFS:
            self._clear_ms += self._format.duration_ms(len(pcm))
            if self._clear_ms >= CLEAR_MS:
                self._on_speech()
