"""Model → caller: speech is resampled as it comes, queued, and written one frame every 20 ms.

The clock starts with the connection and never rests: silence goes out when there is nothing to say, because
Asterisk's reader may spin while its AudioSocket peer is idle (asterisk issue 2089).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.playout import PlayoutBuffer
from ari_gemini.audio.resample import Resampler
from ari_gemini.audiosocket.connection import Connection

TIMER_SLACK = 0.0006
"""libuv's timers count whole milliseconds (uv_timer_start): one may fire up to half of one early. Within
that, a frame counts as due; otherwise each early timer would cost a second one."""


class Downlink:
    """One call's model audio.

    ``on_first_frame(at)`` and ``on_turn_played(at, heard_ms)`` tell what was written. Times are seconds of
    the event loop's clock; ``loop`` is the running one unless given.
    """

    def __init__(
        self,
        *,
        on_first_frame: Callable[[float], None],
        on_turn_played: Callable[[float, float], None],
        prebuffer_ms: int,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._on_first_frame = on_first_frame
        self._on_turn_played = on_turn_played
        self._prebuffer_ms = prebuffer_ms
        self._loop = loop or asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._resampler: Resampler | None = None
        self.buffer: PlayoutBuffer | None = None
        """What waits to be played, from ``start`` on."""

    def start(self, connection: Connection) -> None:
        """Begin to write frames to ``connection``, the first at once."""
        self._connection = connection
        self.buffer = self._buffer_for(connection, self._loop.time())
        self._tick()

    def play(self, pcm: bytes, rate: int) -> bool:
        """Queue model speech at ``rate`` Hz. False when it is dropped: before ``start``, or beyond the bound.

        Raises ValueError for a rate that cannot be resampled.
        """
        buffer, resampler = self.buffer, self._resampler
        if buffer is None:
            return False
        if resampler is None or resampler.source.rate != rate:
            resampler, buffer = self._fit(rate, buffer)
        return buffer.push(resampler.process(pcm))

    def end_turn(self) -> None:
        """The model has said everything of this turn: play it to its very end."""
        buffer = self.buffer
        if buffer is None:
            return
        if self._resampler is not None:
            buffer.push(self._resampler.flush())
        if buffer.end_turn():
            self._on_turn_played(self._loop.time(), buffer.heard_ms)

    def clear(self) -> float:
        """The caller interrupts: throw away everything unplayed. Returns the ms of the turn he heard."""
        if self.buffer is None:
            return 0.0
        if self._resampler is not None:
            self._resampler.reset()
        return self.buffer.clear().played_ms

    def stop(self) -> None:
        """Write nothing more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._connection = None

    def _fit(self, rate: int, buffer: PlayoutBuffer) -> tuple[Resampler, PlayoutBuffer]:
        """Fit the chain to what the model sends and to what Asterisk, which by now has spoken, takes."""
        connection, old = self._connection, self._resampler
        if old is not None:
            buffer.push(old.flush())  # what the old filter still holds comes before what follows
        elif connection is not None and connection.rate != buffer.format.rate:
            # nothing but silence was in it; its deadlines, and so the timer, stay
            buffer = self.buffer = self._buffer_for(connection, buffer.next_at())
        self._resampler = Resampler(AudioFormat(rate), buffer.format)
        return self._resampler, buffer

    def _buffer_for(self, connection: Connection, at: float) -> PlayoutBuffer:
        buffer = PlayoutBuffer(AudioFormat(connection.rate), prebuffer_ms=self._prebuffer_ms)
        buffer.start(at)
        return buffer

    def _tick(self) -> None:
        buffer, connection = self.buffer, self._connection
        if buffer is None or connection is None:
            return
        now = self._loop.time()
        rate = buffer.format.rate
        while (frame := buffer.due(now + TIMER_SLACK)) is not None:
            connection.write_audio(frame.pcm, rate)
            if frame.starts_turn:
                self._on_first_frame(now)
            if frame.ends_turn:
                self._on_turn_played(now, buffer.heard_ms)
        self._timer = self._loop.call_at(buffer.next_at(), self._tick)
