"""Sound of the simulated Asterisk: the caller's phone, and the AudioSocket connection it is bridged with.

Independent of the package's own AudioSocket code on purpose: two readings of the protocol check each other.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable
from typing import Protocol, cast
from uuid import UUID

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.resample import RATES, Resampler

PHONE_RATE = 8000
"""Hz. The simulated caller has a narrow-band phone (G.711)."""
FRAME_BYTES = 320
"""One frame of the phone: 20 ms at 8 kHz, 16 bits."""
FRAME_SECONDS = 0.020
SILENCE = bytes(FRAME_BYTES)
RINGING_TONE = b"".join(
    round(3000 * math.sin(2 * math.pi * 450 * n / PHONE_RATE)).to_bytes(2, "little", signed=True)
    for n in range(FRAME_BYTES // 2)
)
"""One frame of what a caller hears while it rings: 450 Hz, whole periods, so that frames follow without a
click."""
RINGING_ON, RINGING_PERIOD = 50, 250
"""Frames: 1 s of tone every 5 s, as in much of Europe."""
DIAL_TIMEOUT = 2.0
"""Seconds Asterisk tries to connect (``res/res_audiosocket.c``)."""
CATCH_UP = 1.0
"""Seconds the phone may be late before it skips what it did not say: the machine stood still, nobody else."""

HANGUP, IDENT, DTMF = 0x00, 0x01, 0x03
_KIND_RATES = (8000, 12000, 16000, 24000, 32000, 44100, 48000, 96000, 192000)
"""Hz, of the kinds from 0x10 on."""
AUDIO_RATES = {0x10 + i: rate for i, rate in enumerate(_KIND_RATES) if rate in RATES}
"""AudioSocket message kinds that are sound, and their rates in Hz, as far as they can be converted."""
FORMAT_KINDS = {
    "slin" if rate == PHONE_RATE else f"slin{rate // 1000}": kind for kind, rate in AUDIO_RATES.items()
}
"""Message kind by Asterisk's name of the format: ``slin``, ``slin16`` …"""


class Voice(Protocol):
    """Who holds the simulated phone. Both methods are called from the event loop and must not wait."""

    def next_frame(self) -> bytes:
        """What the caller says in the next 20 ms: 320 bytes of 8 kHz, 16 bit little-endian mono.

        Called every 20 ms from answering on, whether anybody listens or not.
        """

    def hear(self, frame: bytes, at: float) -> None:
        """Sound from the service, 8 kHz, as it arrived at loop time ``at`` (s); usually 320 bytes.

        Called once per message, unpaced and unbuffered, as Asterisk passes it on.
        """


class SilentVoice:
    """A caller who says nothing and counts what is heard."""

    def __init__(self) -> None:
        self.frames_heard = 0
        self.bytes_heard = 0

    def next_frame(self) -> bytes:
        """Silence."""
        return SILENCE

    def hear(self, frame: bytes, at: float) -> None:
        """Count it."""
        self.frames_heard += 1
        self.bytes_heard += len(frame)


def converter(from_rate: int, to_rate: int) -> Callable[[bytes], bytes]:
    """One direction of Asterisk's rate conversion, streaming."""
    return Resampler(AudioFormat(from_rate), AudioFormat(to_rate)).process


class Leg(asyncio.Protocol):
    """Asterisk's end of one AudioSocket connection."""

    def __init__(self, call_id: UUID, kind: int = 0x10) -> None:
        self.call_id = call_id
        self.on_audio: Callable[[bytes], None] = lambda _frame: None
        """Takes 8 kHz sound from the service."""
        self.on_end: Callable[[bool], None] = lambda _orderly: None
        """Called once when the service ends it: orderly with a hangup message or end of file, or not."""
        self.frames_sent = 0
        self.frames_received = 0
        self.digits_received = 0
        """Digits the service sent, which ends the call: Asterisk takes none."""
        self._kind = kind
        self._up = converter(PHONE_RATE, AUDIO_RATES[kind])
        self._down: dict[int, Callable[[bytes], bytes]] = {}
        self._frame_bytes = AUDIO_RATES[kind] // 50 * 2
        self._pending = bytearray()
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._ended = False
        self._closed = asyncio.get_running_loop().create_future()

    async def dial(self, host: str, port: int) -> None:
        """Connect and say who calls. Raises OSError or TimeoutError when nobody answers within 2 s."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DIAL_TIMEOUT):
            await loop.create_connection(lambda: self, host, port)

    @property
    def open(self) -> bool:
        """True while sound can be sent."""
        return self._transport is not None and not self._ended

    def send_audio(self, frame: bytes) -> None:
        """Send 8 kHz sound of the caller, at the connection's own rate."""
        if not self.open:
            return
        self._pending += self._up(frame)
        while len(self._pending) >= self._frame_bytes:
            self._send(self._kind, bytes(self._pending[: self._frame_bytes]))
            del self._pending[: self._frame_bytes]
            self.frames_sent += 1

    def send_digit(self, digit: str) -> None:
        """Tell the service that the caller pressed a key."""
        if self.open:
            self._send(DTMF, digit.encode())

    def close(self) -> None:
        """End it from Asterisk's side: the connection closes without a hangup message, as measured."""
        self._ended = True
        if self._transport is not None:
            self._transport.close()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone; at once when there never was one."""
        if self._transport is not None:
            await asyncio.shield(self._closed)

    def _send(self, kind: int, payload: bytes) -> None:
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size():
            # Asterisk writes without blocking and gives the call up when the socket takes no more.
            self._end(orderly=False)
        else:
            self._transport.write(bytes((kind,)) + len(payload).to_bytes(2, "big") + payload)

    # -- asyncio.Protocol ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if (sock := transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._send(IDENT, self.call_id.bytes)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while not self._ended and len(self._buffer) >= 3:
            size = 3 + int.from_bytes(self._buffer[1:3], "big")
            if len(self._buffer) < size:
                return
            kind, payload = self._buffer[0], bytes(self._buffer[3:size])
            del self._buffer[:size]
            self._take(kind, payload)

    def _take(self, kind: int, payload: bytes) -> None:
        """One message. What Asterisk does not expect ends the call (``res/res_audiosocket.c``)."""
        if kind == HANGUP:
            self._end(orderly=True)
        elif kind in AUDIO_RATES and payload:
            self.frames_received += 1
            if kind not in self._down:
                self._down[kind] = converter(AUDIO_RATES[kind], PHONE_RATE)
            if sound := self._down[kind](payload):
                self.on_audio(sound)
        else:
            self.digits_received += kind == DTMF
            self._end(orderly=False)

    def eof_received(self) -> None:
        self._end(orderly=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(orderly=exc is None)
        if not self._closed.done():
            self._closed.set_result(None)

    def _end(self, *, orderly: bool) -> None:
        if self._ended:
            return
        self.close()
        self.on_end(orderly)


class Phone:
    """The caller's end: says a frame every 20 ms from answering on, on absolute deadlines, and hears."""

    def __init__(self, voice: Voice) -> None:
        self.voice = voice
        self.frames_dropped = 0
        """Frames said while nobody was bridged: Asterisk throws them away."""
        self._task: asyncio.Task[None] | None = None

    def start(self, say: Callable[[bytes], bool]) -> None:
        """Begin to speak: ``say`` takes each frame and tells whether anybody heard it. Once."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._speak(say))

    def hear(self, frame: bytes) -> None:
        """Pass sound on to the voice."""
        self.voice.hear(frame, asyncio.get_running_loop().time())

    def stop(self) -> None:
        """Fall silent for good."""
        if self._task is not None:
            self._task.cancel()

    async def _speak(self, say: Callable[[bytes], bool]) -> None:
        now = asyncio.get_running_loop().time
        due = now()
        while True:
            self.frames_dropped += not say(self.voice.next_frame())
            due += FRAME_SECONDS
            if now() - due > CATCH_UP:
                due = now()
            await asyncio.sleep(due - now())
