"""A simulated caller who dials an AudioSocket service as Asterisk would, speaks its lines and listens.

Its few lines of AudioSocket are its own, on purpose: a second reading of the protocol checks the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import cast
from uuid import UUID

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.simulator.caller_voice import (
    FRAME_SECONDS,
    CallerEvent,
    CallerReport,
    CallerTurn,
    Cue,
    Line,
    ScriptedVoice,
)

__all__ = ["Caller", "CallerEvent", "CallerReport", "CallerTurn", "Cue", "Line"]

CONNECT_SECONDS = 2.0
"""How long Asterisk tries to connect (``res/res_audiosocket.c``, MAX_CONNECT_TIMEOUT_MSEC)."""
CLOSE_SECONDS = 1.0
"""How long a hangup may take to go out."""
CATCH_UP_SECONDS = 1.0
"""How late the caller may be and still say everything: beyond that this machine stood still, not the
caller."""

_HANGUP = b"\x00\x00\x00"
_KINDS = {
    8000: 0x10,
    12000: 0x11,
    16000: 0x12,
    24000: 0x13,
    32000: 0x14,
    44100: 0x15,
    48000: 0x16,
    96000: 0x17,
    192000: 0x18,
}


class Caller:
    """One simulated call.

    :meth:`run` lives through it: the script's lines on their cues, then hang up. For a conversation that a
    test leads itself, give no script and ``hang_up=False``, run it as a task, and use :meth:`say`,
    :meth:`hears_speech`, :meth:`hears_silence` and :meth:`hang_up`.
    """

    def __init__(
        self,
        host: str,
        port: int,
        uuid: UUID,
        script: Sequence[Line] = (),
        *,
        rate: int = 8000,
        hang_up: bool = True,
        patience: float = 20.0,
    ) -> None:
        """``rate`` in Hz is that of the lines and of the wire; ``patience`` in s, how long to wait for a cue.

        Raises ValueError for a rate that AudioSocket does not have. To be made inside a running event loop.
        """
        if rate not in _KINDS:
            raise ValueError(f"AudioSocket has no kind for {rate} Hz")
        self._address = host, port
        self._uuid = uuid
        self._hang_up = hang_up
        self._loop = asyncio.get_running_loop()
        self._voice = ScriptedVoice(script, self._loop.time, fmt=AudioFormat(rate), patience=patience)
        self._leg = _Leg(_KINDS[rate], self._voice)
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    async def run(self) -> CallerReport:
        """Live through the call and tell about it.

        Raises OSError or TimeoutError when nobody answers. Cancelling cuts the connection.
        """
        async with asyncio.timeout(CONNECT_SECONDS):
            await self._loop.create_connection(lambda: self._leg, *self._address)
        try:
            self._leg.send(0x01, self._uuid.bytes)
            self._voice.note("connected")
            await self._speak()
            await self._leg.wait_closed(CLOSE_SECONDS)
        finally:
            self._leg.abort()
            self._wake(over=True)
        report = self._voice.report()
        report.ended_by, report.detail = self._leg.ended_by, self._leg.detail
        return report

    def hang_up(self) -> None:
        """Send a hangup message and close. Idempotent."""
        self._leg.hang_up()

    def send_digit(self, digit: str) -> None:
        """Press a key, as Asterisk reports it: one of 0-9, *, #, A-D."""
        self._leg.send(0x03, digit.encode("ascii"))

    async def say(self, line: Line) -> None:
        """Say a line on its cue, after those of the script; return when it has been said.

        Raises ConnectionError when the call ends before. Cancelling does not take the line back.
        """
        self._voice.say(line)
        spoken = self._voice.lines_said + self._voice.lines_left
        await self._until(lambda: self._voice.lines_said >= spoken)

    async def hears_speech(self) -> None:
        """Wait until the other speaks. Raises ConnectionError when the call is over. Cancelling is
        harmless."""
        await self._until(lambda: self._voice.hears_speech)

    async def hears_silence(self, ms: float) -> None:
        """Wait until the other has been silent for ``ms`` milliseconds, or has not said anything yet.

        Raises ConnectionError when the call is over. Cancelling is harmless.
        """
        await self._until(lambda: self._voice.silent_ms() >= ms)

    async def _speak(self) -> None:
        """Say a frame every 20 ms on absolute deadlines until the call is over."""
        due = self._loop.time()
        while not self._leg.ended_by:
            self._leg.send_audio(self._voice.next_frame())
            self._wake()
            if self._voice.done and self._hang_up:
                self._leg.hang_up()
                return
            due += FRAME_SECONDS
            if self._loop.time() - due > CATCH_UP_SECONDS:
                due = self._loop.time()
            await self._leg.ended(due - self._loop.time())

    async def _until(self, condition: Callable[[], bool]) -> None:
        if self._leg.ended_by:
            raise ConnectionError("the call is over")
        future = self._loop.create_future()
        self._waiting.append((condition, future))
        await future

    def _wake(self, *, over: bool = False) -> None:
        """Let go who has waited long enough; when the call is over, everybody."""
        still = []
        for condition, future in self._waiting:
            if future.done():
                continue
            if over:
                future.set_exception(ConnectionError("the call is over"))
            elif condition():
                future.set_result(None)
            else:
                still.append((condition, future))
        self._waiting = still


class _Leg(asyncio.Protocol):
    """The wire, as Asterisk treats it (``res/res_audiosocket.c``): one end of one AudioSocket connection."""

    def __init__(self, kind: int, voice: ScriptedVoice) -> None:
        self.ended_by = ""
        self.detail = ""
        self._kind = kind
        self._voice = voice
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._over = asyncio.Event()
        self._closed = asyncio.Event()

    def send(self, kind: int, payload: bytes) -> None:
        """Send one message, or give the call up as Asterisk does when the service does not read."""
        if self._transport is None or self.ended_by:
            return
        if self._transport.get_write_buffer_size():
            self._end("lost", "the service does not read")
            self._transport.abort()
            return
        self._transport.write(bytes((kind,)) + len(payload).to_bytes(2, "big") + payload)

    def send_audio(self, pcm: bytes) -> None:
        """Send one frame."""
        self.send(self._kind, pcm)

    def hang_up(self) -> None:
        """Say so and close."""
        if self._transport is None or self.ended_by:
            return
        self._transport.write(_HANGUP)
        self._end("caller")
        self._transport.close()

    def abort(self) -> None:
        """Cut the connection."""
        self._end("lost", "given up")
        if self._transport is not None:
            self._transport.abort()

    async def ended(self, seconds: float) -> None:
        """Wait for the end of the call, but not longer than ``seconds``."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()

    async def wait_closed(self, seconds: float) -> None:
        """Wait until the socket is gone; after ``seconds`` cut it."""
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            self.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 3 and not self.ended_by:
            size = 3 + int.from_bytes(self._buffer[1:3], "big")
            if len(self._buffer) < size:
                return
            kind, payload = self._buffer[0], bytes(self._buffer[3:size])
            del self._buffer[:size]
            self._take(kind, payload)

    def eof_received(self) -> None:
        self._end("service", "closed")

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._end("lost", str(exc))
        else:
            self._end("service", "closed")
        self._closed.set()

    def _take(self, kind: int, payload: bytes) -> None:
        if kind == self._kind and payload:
            self._voice.hear(payload, self._loop.time())
            return
        if kind == 0x00:
            self._end("service", "hangup")
        else:
            self._end("lost", f"the service sent kind 0x{kind:02x} with {len(payload)} bytes")
        if self._transport is not None:
            self._transport.close()

    def _end(self, by: str, detail: str = "") -> None:
        if self.ended_by:
            return
        self.ended_by, self.detail = by, detail
        names = {"caller": "hung_up", "service": "ended_by_service"}
        self._voice.note(names.get(by, by), detail)
        self._over.set()
