"""Model → caller: speech is resampled as it comes, queued, and written one frame every 20 ms.

The clock starts with the connection and never rests: silence goes out when there is nothing to say, because
Asterisk's reader may spin while its AudioSocket peer is idle (asterisk issue 2089).

At each deadline one thing goes out, never a mixture::

    1  tones of keys, while speech is held
    2  the model's speech
    3  the filler, after long enough a silence
    4  silence
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.playout import PlayoutBuffer, PlayoutFrame
from ari_gemini.audio.resample import Resampler
from ari_gemini.audiosocket.connection import Connection
from ari_gemini.call.filler import Filler, whole_frames
from ari_gemini.errors import ToolError

TIMER_SLACK = 0.0006
"""libuv's timers count whole milliseconds (uv_timer_start): one may fire up to half of one early. Within
that, a frame counts as due; otherwise each early timer would cost a second one."""


class _Tones:
    """A sequence of tones under way."""

    __slots__ = ("at", "pcm", "played")

    def __init__(self, pcm: bytes) -> None:
        self.pcm = pcm
        self.at = 0
        self.played: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """True: to the end. False: the downlink was stopped."""


class Downlink:
    """One call's model audio.

    ``on_first_frame(at)`` and ``on_turn_played(at, heard_ms)`` tell what was written of the model's speech,
    and of nothing else; ``on_played_out()`` that nothing of it is left, be it played or thrown away, though
    more may come in the same turn. Times are seconds of the event loop's clock; ``loop`` is the running one
    unless given.
    """

    def __init__(
        self,
        *,
        on_first_frame: Callable[[float], None],
        on_turn_played: Callable[[float, float], None],
        prebuffer_ms: int,
        on_played_out: Callable[[], None] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._on_first_frame = on_first_frame
        self._on_turn_played = on_turn_played
        self._on_played_out = on_played_out or (lambda: None)
        self._playing = False  # something of the model's speech was left at the last deadline
        self._prebuffer_ms = prebuffer_ms
        self._loop = loop or asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._resampler: Resampler | None = None
        self._settled = False  # the rate is what it will be
        self._holds = 0
        self._tones: deque[_Tones] = deque()
        self._filler: Filler | None = None
        self._drained: set[asyncio.Future[bool]] = set()
        self._busy = False  # there are tones, a filler or somebody who waits: a frame needs more than writing
        self.buffer: PlayoutBuffer | None = None
        """What waits to be played, from ``start`` on."""

    @property
    def rate(self) -> int:
        """What goes out, in Hz. Once asked for, or once anything is played, it stays as it is.

        Raises RuntimeError before ``start``.
        """
        if self.buffer is None:
            raise RuntimeError("the downlink has not started yet")
        return self._settle(self.buffer).format.rate

    @property
    def speech_left(self) -> bool:
        """Something of the model's speech waits to be played."""
        return self.buffer is not None and not self.buffer.empty

    # Speech.

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
        """The caller interrupts: throw away everything unplayed. Returns the ms of the turn he heard.

        Tones, holds and the filler are untouched.
        """
        if self.buffer is None:
            return 0.0
        if self._resampler is not None:
            self._resampler.reset()
        began = self._playing or not self.buffer.empty  # or would have, at the next deadline
        played_ms = self.buffer.clear().played_ms
        self._wake(heard=False)
        if began:
            self._playing = False
            self._on_played_out()
        return played_ms

    async def drained(self) -> bool:
        """Wait until the model's speech has been written to its last frame; at once when none is queued.

        True: it was played to the end. False: what was left will never be heard, because of ``clear`` or
        ``stop``. The turn may still be open: more can come. Cancelling changes nothing.
        """
        if self._connection is None or self.buffer is None or self.buffer.empty:
            return True
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._drained.add(waiter)
        self._busy = True
        try:
            return await waiter
        finally:
            self._drained.discard(waiter)

    def stop(self) -> None:
        """Write nothing more; whoever waits is woken. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._connection = None
        self._filler = None
        for tones in list(self._tones):
            self._end_tones(tones, played=False)
        self._wake(heard=False)

    # Tones.

    def hold(self) -> None:
        """Keep the model's speech back until ``release``, and the filler silent. Holds nest."""
        self._holds += 1
        if self.buffer is not None:
            self.buffer.hold()

    def release(self) -> None:
        """End one ``hold``; after the last, speech goes on where it was. Raises RuntimeError without one."""
        if not self._holds:
            raise RuntimeError("nothing is held")
        self._holds -= 1
        if not self._holds and self.buffer is not None:
            self.buffer.release()

    async def play_tones(self, pcm: bytes) -> None:
        """Write ``pcm`` (at ``rate`` Hz) in place of the model's speech, which waits meanwhile.

        Returns when the last frame of it has been written; a part of a frame is filled up with silence. One
        sequence follows the other in the order of the calls, without speech in between. Cancelling ends it at
        once. Raises ToolError before ``start`` and after ``stop``, even one that comes meanwhile: the caller
        has not heard all of it. Raises ValueError when ``pcm`` ends within a sample.
        """
        if self._connection is None:
            raise ToolError("the line to the caller is not open")
        if not pcm:
            return
        tones = _Tones(whole_frames(pcm, AudioFormat(self.rate)))
        self._tones.append(tones)
        self.hold()
        self._busy = True
        try:
            if not await tones.played:
                raise ToolError("the line to the caller has been closed")
        finally:
            self._end_tones(tones, played=False)

    # The filler.

    def fill(self, after_s: float, prompt: bytes, loop: bytes) -> None:
        """From now on, whenever the caller has heard nothing for ``after_s`` seconds, let him hear something:

        ``prompt``, once, and then ``loop`` over and over, both at ``rate`` Hz, until the model speaks.
        Silence is counted anew after speech, tones and holds. Replaces what ``fill`` began before; does
        nothing before ``start`` and after ``stop``. Raises ValueError as ``Filler`` does.
        """
        if self._connection is not None:
            self._filler = Filler(AudioFormat(self.rate), after_s, prompt, loop)
            self._busy = True

    def fill_at_once(self, after_s: float, loop: bytes) -> None:
        """The caller has waited for long enough: as ``fill``, but from the next frame on. ``after_s`` counts
        when something has interrupted it.

        What fills the silence already, lingering perhaps, goes on instead.
        """
        if self._filler is None:
            self.fill(after_s, b"", loop)
        if self._filler is not None:
            self._filler.stay()

    def stop_filling(self, linger_s: float = 0.0) -> None:
        """End what ``fill`` began: at the next frame, or ``linger_s`` later if no speech comes before."""
        if self._filler is not None:
            self._filler.linger(linger_s)

    def quiet(self) -> None:
        """The caller speaks: end what fills the silence, and count it anew."""
        if self._filler is not None:
            self._filler.quiet()

    # Inside.

    def _settle(self, buffer: PlayoutBuffer) -> PlayoutBuffer:
        """Fit the buffer to what Asterisk takes, which is certain once it has spoken."""
        connection = self._connection
        if not self._settled and connection is not None:
            self._settled = True
            if connection.rate != buffer.format.rate:
                # nothing but silence was in it; its deadlines, and so the timer, stay
                buffer = self.buffer = self._buffer_for(connection, buffer.next_at())
        return buffer

    def _fit(self, rate: int, buffer: PlayoutBuffer) -> tuple[Resampler, PlayoutBuffer]:
        """Fit the chain to what the model sends and to what Asterisk takes."""
        if self._resampler is not None:
            buffer.push(self._resampler.flush())  # what the old filter still holds comes before what follows
        buffer = self._settle(buffer)
        self._resampler = Resampler(AudioFormat(rate), buffer.format)
        return self._resampler, buffer

    def _buffer_for(self, connection: Connection, at: float) -> PlayoutBuffer:
        buffer = PlayoutBuffer(AudioFormat(connection.rate), prebuffer_ms=self._prebuffer_ms)
        buffer.start(at)
        if self._holds:
            buffer.hold()
        return buffer

    def _tick(self) -> None:
        buffer, connection = self.buffer, self._connection
        if buffer is None or connection is None:
            return
        now = self._loop.time()
        rate = buffer.format.rate
        while (frame := buffer.due(now + TIMER_SLACK)) is not None:
            connection.write_audio(self._instead(frame, buffer) if self._busy else frame.pcm, rate)
            if frame.starts_turn:
                self._on_first_frame(now)
            if frame.ends_turn:
                self._on_turn_played(now, buffer.heard_ms)
            if buffer.empty is self._playing:
                self._playing = not self._playing
                if not self._playing:
                    self._on_played_out()
        self._timer = self._loop.call_at(buffer.next_at(), self._tick)

    def _instead(self, frame: PlayoutFrame, buffer: PlayoutBuffer) -> bytes:
        """What goes out at this deadline while there is more to it than the model's speech."""
        pcm, filler = frame.pcm, self._filler
        held = buffer.held
        if self._tones:
            pcm = self._next_tones()
        if filler is not None:
            if frame.audible:
                filler.speech()
            elif held:
                filler.other()
            elif not filler.over:
                pcm = filler.silence() or pcm
            if filler.over:
                self._filler = None
        if self._drained and buffer.empty:
            self._wake(heard=True)
        self._busy = bool(self._tones or self._filler or self._drained)
        return pcm

    def _next_tones(self) -> bytes:
        tones, size = self._tones[0], AudioFormat(self.rate).frame_bytes
        frame = tones.pcm[tones.at : tones.at + size]
        tones.at += size
        if tones.at == len(tones.pcm):
            self._end_tones(tones, played=True)
        return frame

    def _end_tones(self, tones: _Tones, *, played: bool) -> None:
        """Take them off the queue and let speech go on. Does nothing when that has been done."""
        if tones in self._tones:
            self._tones.remove(tones)
            self.release()
        if not tones.played.done():
            tones.played.set_result(played)

    def _wake(self, *, heard: bool) -> None:
        for waiter in self._drained:
            if not waiter.done():
                waiter.set_result(heard)
        self._drained.clear()
