"""Caller → model: frames come in from AudioSocket, go through the resampler and out to the session."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ari_gemini.audio.pcm import SAMPLE_BYTES, AudioFormat, level_dbfs
from ari_gemini.audio.resample import Resampler
from ari_gemini.audio.vad import SpeechEdges
from ari_gemini.realtime.session import RealtimeSession
from ari_gemini.telemetry.timeline import Timeline

BACKLOG_MS = 2000
"""Two seconds wait for a session that cannot take them: enough for its set-up after an immediate answer and
for a network hiccup. What is older is no longer worth an answer, so the oldest goes first."""

BATCH_FRAMES = 10
"""A backlog leaves in messages of at most so many frames, 200 ms: what one send costs stays small."""

CLEAR_MS = 300.0
"""So much voice in one stretch of speech counts as the caller's making himself heard: a word. A bump or a
cough is shorter."""
CLEAR_DBFS = -40.0
"""Only frames as loud as this count: the softest speech to be found. The model's echo off a phone, and a
television next door, are softer."""

TELEPHONE = AudioFormat(8000)


class Uplink:
    """One call's caller audio. ``audio`` is called by the media connection and never waits.

    ``on_speech`` is called once in each stretch of the caller's speech, by our own detector, when it is sure.
    """

    def __init__(
        self, timeline: Timeline, clock: Callable[[], float], on_speech: Callable[[], None] | None = None
    ) -> None:
        self.dropped = 0
        """Frames thrown away because the session did not take them."""
        self.frames = 0
        self._timeline = timeline
        self._clock = clock
        self._on_speech = on_speech or (lambda: None)
        self._held = False
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._clear_ms = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._begin(TELEPHONE)

    def audio(self, pcm: bytes, rate: int) -> None:
        """Take one message's audio at ``rate`` Hz."""
        if self._format.rate != rate:
            self._begin(AudioFormat(rate))
        self.frames += 1
        queue = self._queue
        queue.append(pcm)
        self._queued += len(pcm)
        while self._queued > self._limit:
            self._queued -= len(queue.popleft())
            self.dropped += 1
        self._wake()
        self._watch_speech(pcm)

    def hold(self, held: bool) -> None:
        """While held, nothing is sent: a tool works, and the model would give up the session over audio.

        The backlog waits, within its bound.
        """
        self._held = held
        self._wake()

    def forget(self) -> None:
        """Throw away what waits: whoever is heard from now on is somebody else."""
        self.dropped += len(self._queue)
        self._queue.clear()
        self._queued = 0

    async def run(self, session: RealtimeSession) -> None:
        """Send until cancelled, beginning with what has gathered. Cancelling loses what is queued.

        Raises SessionError when the session ends.
        """
        target = session.capabilities.input_format
        resampler = Resampler(self._format, target)
        loop = asyncio.get_running_loop()
        queue = self._queue
        while True:
            while self._held or not queue:
                self._waiter = loop.create_future()
                await self._waiter
            if resampler.source != self._format:
                resampler = Resampler(self._format, target)
            pcm = resampler.process(self._take())
            if pcm:
                await session.send_audio(pcm)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _take(self) -> bytes:
        queue = self._queue
        if len(queue) == 1:
            pcm = queue.popleft()
        else:
            pcm = b"".join([queue.popleft() for _ in range(min(len(queue), BATCH_FRAMES))])
        self._queued -= len(pcm)
        return pcm

    def _begin(self, fmt: AudioFormat) -> None:
        self.forget()  # what is queued has another rate and would be sped up or slowed down
        self._limit = fmt.rate * SAMPLE_BYTES * BACKLOG_MS // 1000
        self._format = fmt
        self._edges = SpeechEdges(fmt)
        self._clear_ms = 0.0

    def _watch_speech(self, pcm: bytes) -> None:
        edges = self._edges
        edge = edges.feed(pcm, self._clock())
        if edge is not None:
            self._clear_ms = 0.0
            if edge.speaking:
                self._timeline.caller_started()
            else:
                self._timeline.caller_stopped(edge.at)
        if edges.speaking and self._clear_ms < CLEAR_MS and level_dbfs(pcm) >= CLEAR_DBFS:
            self._clear_ms += self._format.duration_ms(len(pcm))
            if self._clear_ms >= CLEAR_MS:
                self._on_speech()
