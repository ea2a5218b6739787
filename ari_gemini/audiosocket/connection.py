"""One AudioSocket connection: the sound of one call, both ways, over one TCP socket.

Asterisk writes without waiting and drops the call when a write fails (``ast_audiosocket_send_frame``). So
this side always reads, and what nobody can take is dropped here and counted; it never pushes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol, cast
from uuid import UUID

from ari_gemini.audio.pcm import SAMPLE_BYTES
from ari_gemini.audiosocket.held import Held
from ari_gemini.audiosocket.protocol import HANGUP, RATES, Kind, Parser, digit_of, encode_audio, error_of

DEFAULT_RATE: Final = 8_000
"""Hz, until Asterisk has sent audio: what the AudioSocket() application and ``format=slin`` use."""
UNSENT_MESSAGES: Final = 5
"""Messages that may wait for the kernel, 100 ms of 20 ms frames. More is sound that would come too late: a
caller would rather miss a frame than hear everything from then on delayed."""
SEND_BUFFER_BYTES: Final = 16 * 1024
"""SO_SNDBUF (Linux doubles it). The default grows to megabytes, minutes of speech waiting for a stalled
Asterisk."""
DEAD_PEER_MS: Final = 10_000
"""TCP_USER_TIMEOUT (RFC 5482): sound unacknowledged for so long means that the peer's host is gone."""
LINGER_SECONDS: Final = 1.0
"""How long a farewell may take before the connection is cut."""
AHEAD_SECONDS: Final = 10.0
"""How far a new peer may run ahead of real time: no flood."""
STALL_SECONDS: Final = 30.0
"""And one that has been here for long, after a stall of this process: as long as the unit of ``deploy/`` lets
it hang (``WatchdogSec``). On loopback the kernel keeps that much of Asterisk's sound; on a network less."""
REFILL: Final = 1.25
"""Faster than real time, so that a peer's fast clock never adds up to a flood."""
MESSAGE_SECONDS: Final = 0.002
"""The least a message counts, so that empty ones are no free flood. The shortest real frames are Opus's 2.5
ms (RFC 6716, section 2.1.4). Together with AHEAD_SECONDS: at most 5000 messages at once and 625 a second."""
SLICE_BYTES: Final = 16 * 1024
"""Bytes parsed before the flood is measured again; one read of the event loop can be 256 KiB."""


class EndReason(Enum):
    """Why the media of a call ended."""

    HANGUP = "hangup"
    """Asterisk sent a hangup message."""
    EOF = "eof"
    """Asterisk closed the connection, which means the same."""
    ERROR = "error"
    """Asterisk sent an error message; ``MediaEnd.code`` holds its code."""
    PROTOCOL = "protocol"
    """The peer broke the protocol."""
    FLOOD = "flood"
    """The peer sent far more than real time has room for."""
    RESET = "reset"
    """The connection broke."""
    NO_UUID = "no_uuid"
    """The peer did not say in time which call it is."""
    REFUSED = "refused"
    """This side did not want the connection."""
    CLOSED_BY_US = "closed_by_us"
    """This side hung up or closed."""
    DEFECT = "defect"
    """Code of ours raised while it was handed sound; the event loop's exception handler has the traceback."""


@dataclass(frozen=True, slots=True)
class MediaEnd:
    """The one ending of a connection."""

    reason: EndReason
    detail: str = ""
    code: int | None = None

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value


@dataclass(slots=True)
class MediaStats:
    """What one connection carried. Dropped audio is counted in messages."""

    messages_in: int = 0
    audio_bytes_in: int = 0
    digits_in: int = 0
    unknown_in: int = 0
    malformed_in: int = 0
    dropped_in: int = 0
    """Audio and digits that came before a sink was attached and were too old or too many to be kept."""
    messages_out: int = 0
    audio_bytes_out: int = 0
    dropped_out: int = 0
    """Audio that Asterisk did not take in time."""


class MediaSink(Protocol):
    """Who takes what a connection receives. Called on the event loop: must not block, and must not raise."""

    def audio(self, pcm: bytes, rate: int) -> None:
        """Take caller audio, signed 16-bit little-endian mono at ``rate`` Hz, any number of samples."""

    def digit(self, digit: str) -> None:
        """Take one key that the caller pressed: 0-9, *, #, A-D."""

    def ended(self, end: MediaEnd) -> None:
        """Take the ending. Called exactly once and last, perhaps from within ``hangup``, ``close`` or
        ``abort``."""


class ConnectionOwner(Protocol):
    """Who accepts connections; in production the server."""

    def connected(self, connection: Connection) -> str | None:
        """A peer has connected. Return why it must go at once, or None to let it say its UUID."""

    def identified(self, connection: Connection) -> None:
        """The UUID has arrived. May attach a sink, refuse or close; until there is a sink, sound is kept."""

    def closed(self, connection: Connection) -> None:
        """The socket is gone; ``connection.end`` says why. Called exactly once and last."""


class Connection(asyncio.Protocol):
    """One AudioSocket connection. Everything is synchronous except :meth:`wait_closed`."""

    def __init__(self, owner: ConnectionOwner, uuid_timeout: float = 2.0) -> None:
        self._owner = owner
        self._uuid_timeout = uuid_timeout
        self._loop = asyncio.get_running_loop()
        self._parser = Parser()
        self._sink: MediaSink | None = None
        self._held = Held()
        self._timer: asyncio.TimerHandle | None = None
        self._gone = asyncio.Event()
        self._uuid: UUID | None = None
        self._credit = AHEAD_SECONDS
        self._refilled = self._loop.time()
        self.peer = "?"
        """Address and port of the peer, for logs."""
        self.peer_host = ""
        self.rate = DEFAULT_RATE
        """Hz of what Asterisk sends; 8000 until ``rate_known``."""
        self.rate_known = False
        self.stats = MediaStats()
        self.end: MediaEnd | None = None
        """The ending, once there is one. Nothing is read or written any more from then on."""

    @property
    def identified(self) -> bool:
        """Whether the UUID has arrived."""
        return self._uuid is not None

    @property
    def uuid(self) -> UUID:
        """The call's UUID. Raises RuntimeError before it has arrived."""
        if self._uuid is None:
            raise RuntimeError("the connection has not said its UUID yet")
        return self._uuid

    def attach(self, sink: MediaSink) -> None:
        """Give what was kept and everything from now on to ``sink``, in the order of arrival.

        When the connection is over already, ``sink.ended`` is called at once and nothing else.
        Raises RuntimeError when there is a sink already.
        """
        if self._sink is not None:
            raise RuntimeError("a sink is attached already")
        self._sink = sink
        if self.end is not None:
            sink.ended(self.end)
            return
        for item in self._held.take():
            if isinstance(item, str):
                sink.digit(item)
            else:
                sink.audio(item, self.rate)
            if self._is_over():  # the sink itself may have hung up
                return

    def write_audio(self, pcm: bytes, rate: int | None = None) -> bool:
        """Send one message of audio, signed 16-bit little-endian mono at ``rate`` Hz (or ``self.rate``).

        Never waits. Returns False when the message was not sent: because the connection is over, or (counted
        in ``stats.dropped_out``) because Asterisk has left more than ``UNSENT_MESSAGES`` of them unread.
        Raises ValueError for a rate or a length that AudioSocket does not have.
        """
        message = encode_audio(pcm, rate or self.rate)
        transport = self._transport
        if self.end is not None or transport.is_closing():
            return False
        if transport.get_write_buffer_size() > UNSENT_MESSAGES * len(message):
            self.stats.dropped_out += 1
            return False
        transport.write(message)
        self.stats.messages_out += 1
        self.stats.audio_bytes_out += len(pcm)
        return True

    def hangup(self) -> None:
        """Send a hangup message after what is unsent, then close; all within LINGER_SECONDS."""
        self._finish(MediaEnd(EndReason.CLOSED_BY_US), farewell=HANGUP)

    def refuse(self, why: str) -> None:
        """Hang up on a connection that no call expects; the owner logs ``why``."""
        self._finish(MediaEnd(EndReason.REFUSED, why), farewell=HANGUP)

    def close(self) -> None:
        """Close without a hangup message, after what is unsent, within LINGER_SECONDS."""
        self._finish(MediaEnd(EndReason.CLOSED_BY_US), farewell=b"")

    def abort(self) -> None:
        """Cut the connection at once, even one that is being closed; unsent audio is lost."""
        self._finish(MediaEnd(EndReason.CLOSED_BY_US))
        self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the socket is gone. Cancelling changes nothing."""
        await self._gone.wait()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        _tune(transport.get_extra_info("socket"))
        name = transport.get_extra_info("peername")
        if name:  # None when the peer has already gone
            self.peer_host = name[0]
            self.peer = f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
        self._timer = self._loop.call_later(self._uuid_timeout, self._uuid_is_late)
        if (why := self._owner.connected(self)) is not None:
            self._finish(MediaEnd(EndReason.REFUSED, why))

    def data_received(self, data: bytes) -> None:
        if len(data) <= SLICE_BYTES and self.end is None:
            self._read(data)
            return
        for begin in range(0, len(data), SLICE_BYTES):
            if self.end is not None:
                return
            self._read(data[begin : begin + SLICE_BYTES])

    def eof_received(self) -> None:
        self._finish(MediaEnd(EndReason.EOF))
        # Whoever has closed his side reads no farewell either: waiting for it to be taken could last for
        # ever.
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            end = MediaEnd(EndReason.EOF)
        elif isinstance(exc, OSError):
            end = MediaEnd(EndReason.RESET, exc.strerror or str(exc))
        else:
            end = MediaEnd(EndReason.DEFECT, repr(exc))
        try:
            self._finish(end)
        finally:
            self._cancel_timer()
            self._gone.set()
            self._owner.closed(self)

    # What the bytes say.

    def _read(self, data: bytes) -> None:
        parser, stats = self._parser, self.stats
        begun = parser.headers
        messages = parser.feed(data)
        begun = parser.headers - begun
        stats.messages_in += begun
        stats.unknown_in = parser.unknown
        stats.malformed_in = parser.malformed
        seconds = 0.0
        for kind, payload in messages:
            rate = RATES.get(kind)
            if rate is None:
                self._control(kind, payload)
            else:
                seconds += len(payload) / (SAMPLE_BYTES * rate)
                self._audio(payload, rate)
            if self.end is not None:
                return
        if parser.fault is not None:
            self._finish(MediaEnd(EndReason.PROTOCOL, str(parser.fault)))
            return
        self._credit -= max(seconds, begun * MESSAGE_SECONDS)
        if self._credit < 0.0 and not self._refill(self._loop.time()):
            self._finish(MediaEnd(EndReason.FLOOD, "far ahead of real time"))

    def _audio(self, pcm: bytes, rate: int) -> None:
        if rate != self.rate and self.rate_known:
            # Asterisk never does it, and a resampler's history is of one rate.
            self._finish(MediaEnd(EndReason.PROTOCOL, f"the rate changed from {self.rate} to {rate} Hz"))
            return
        self.rate, self.rate_known = rate, True
        self.stats.audio_bytes_in += len(pcm)
        if self._sink is not None:
            self._sink.audio(pcm, rate)
        else:
            self.stats.dropped_in += self._held.audio(pcm, rate)

    def _control(self, kind: int, payload: bytes) -> None:
        if kind == Kind.DTMF:
            self._digit(digit_of(payload) or "")
        elif kind == Kind.UUID:
            self._uuid = UUID(bytes=payload)
            self._cancel_timer()
            self._owner.identified(self)
        elif kind == Kind.HANGUP:
            self._finish(MediaEnd(EndReason.HANGUP))
        else:
            code, text = error_of(payload)
            self._finish(MediaEnd(EndReason.ERROR, text, code))

    def _digit(self, digit: str) -> None:
        self.stats.digits_in += 1
        if self._sink is not None:
            self._sink.digit(digit)
        else:
            self.stats.dropped_in += self._held.digit(digit)

    def _refill(self, now: float) -> bool:
        """Give credit for the time that has passed; the clock is read only when the credit is used up."""
        self._credit = min(STALL_SECONDS, self._credit + (now - self._refilled) * REFILL)
        self._refilled = now
        return self._credit >= 0.0

    # The ending.

    def _is_over(self) -> bool:
        return self.end is not None

    def _uuid_is_late(self) -> None:
        self._finish(MediaEnd(EndReason.NO_UUID, f"no UUID within {self._uuid_timeout:g} s"))

    def _finish(self, end: MediaEnd, farewell: bytes | None = None) -> None:
        """End the connection, once: with a farewell when the peer is still listening, else by cutting it."""
        if self.end is not None:
            return
        self.end = end
        self._cancel_timer()
        self._held.take()
        if farewell is None:
            self._transport.abort()
        else:
            self._say_goodbye(farewell)
        if self._sink is not None:
            self._sink.ended(end)

    def _say_goodbye(self, farewell: bytes) -> None:
        """Send what is left and half-close; the peer's own close, or the timer, does the rest.

        Closing fully while Asterisk still sends would answer its next frame with a reset, and a reset makes
        it throw away the hangup message that it has not read yet.
        """
        self._timer = self._loop.call_later(LINGER_SECONDS, self._transport.abort)
        if farewell and not self._transport.is_closing():
            self._transport.write(farewell)
        with contextlib.suppress(OSError):  # the peer may have reset the connection in the meantime
            self._transport.write_eof()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _tune(sock: socket.socket | None) -> None:
    """Set what a voice connection needs. Fails only for a peer that has gone, which its end reports."""
    if sock is None:
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MS)
