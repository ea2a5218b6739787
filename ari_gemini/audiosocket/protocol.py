"""What AudioSocket's bytes mean. Pure: bytes in, messages out.

One message is a kind (1 byte), the payload's length (2 bytes, big-endian) and the payload
(Asterisk, ``include/asterisk/res_audiosocket.h`` and ``res/res_audiosocket.c``).

What the parser does with what it does not expect:

* Tolerated and counted, because the call can go on without it: kinds nobody defined (``Parser.unknown``);
  audio without a sample, which Asterisk sends when a voice frame holds none, and DTMF that is not exactly
  one digit (``Parser.malformed``).
* A fault, because the stream can no longer be trusted: a first message that is not a UUID, a UUID that is not
  16 bytes or comes a second time, audio that is half a sample short.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple

from ari_gemini.errors import AudioSocketError

HEADER_BYTES: Final = 3
MAX_PAYLOAD: Final = 0xFFFF
"""What the two length bytes can say."""
UUID_BYTES: Final = 16
DIGITS: Final = "0123456789*#ABCD"
"""The telephone keypad: RFC 4733, section 3.2, events 0 to 15."""
HANGUP: Final = bytes(HEADER_BYTES)
"""The whole hangup message. Asterisk ends the AudioSocket as it does when the connection closes."""


class Kind(IntEnum):
    """The first byte of a message (``enum ast_audiosocket_msg_kind``)."""

    HANGUP = 0x00
    UUID = 0x01
    DTMF = 0x03
    """Asterisk to service only; sent the other way it ends the call."""
    AUDIO_8K = 0x10
    AUDIO_12K = 0x11
    AUDIO_16K = 0x12
    AUDIO_24K = 0x13
    AUDIO_32K = 0x14
    AUDIO_44K1 = 0x15
    AUDIO_48K = 0x16
    AUDIO_96K = 0x17
    AUDIO_192K = 0x18
    ERROR = 0xFF


RATES: Final[dict[int, int]] = {
    Kind.AUDIO_8K: 8_000,
    Kind.AUDIO_12K: 12_000,
    Kind.AUDIO_16K: 16_000,
    Kind.AUDIO_24K: 24_000,
    Kind.AUDIO_32K: 32_000,
    Kind.AUDIO_44K1: 44_100,
    Kind.AUDIO_48K: 48_000,
    Kind.AUDIO_96K: 96_000,
    Kind.AUDIO_192K: 192_000,
}
"""Sample rate in Hz by audio kind; the payload is signed 16-bit little-endian mono at that rate."""

KINDS: Final[dict[int, int]] = {rate: kind for kind, rate in RATES.items()}
"""Audio kind by sample rate in Hz."""

_DEFINED: Final = frozenset(int(kind) for kind in Kind)

ERROR_TEXTS: Final[dict[int, str]] = {
    0x01: "the calling party hung up",
    0x02: "Asterisk could not forward a frame",
    0x04: "Asterisk ran out of memory",
}
"""What the code in an error message's payload says (the AudioSocket specification, "Errors")."""


class Message(NamedTuple):
    """One AudioSocket message. ``kind`` is a number, to be compared with :class:`Kind` or found in RATES."""

    kind: int
    payload: bytes


class Parser:
    """Takes the bytes that Asterisk sends, cut anywhere, and gives whole messages.

    ``feed`` never raises for bytes it has just been given: it returns what was whole before the fault and
    sets ``fault``, so that no message is lost and both come in order. Feeding on after that raises the fault.
    Holds at most one unfinished message (64 KiB) and the bytes of one ``feed``.
    """

    __slots__ = ("_aligned", "_buffer", "_identified", "_skip", "fault", "headers", "malformed", "unknown")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0
        """Bytes of an unknown kind's payload that are still to come and to be thrown away."""
        self._identified = False
        self._aligned = False
        """The UUID is behind us and the next byte begins a message."""
        self.headers = 0
        """Messages begun, of whatever kind."""
        self.unknown = 0
        """Messages skipped because nobody defined their kind."""
        self.malformed = 0
        """Messages skipped because they say nothing: audio without a sample, DTMF that is not one digit."""
        self.fault: AudioSocketError | None = None

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that ``data`` completes, in order. Raises AudioSocketError when there is a
        fault."""
        # The usual case, 50 times a second per call: exactly one audio message, nothing left over before.
        if self._aligned and len(data) > HEADER_BYTES:
            kind = data[0]
            length = data[1] << 8 | data[2]
            if kind in RATES and length + HEADER_BYTES == len(data) and not length & 1:
                self.headers += 1
                return [Message(kind, data[HEADER_BYTES:])]
        return self._feed_any(data)

    def _feed_any(self, data: bytes) -> list[Message]:
        if self.fault is not None:
            raise self.fault
        self._buffer += data
        messages: list[Message] = []
        at = self._skipped(0)
        while at < len(self._buffer) and (following := self._step(at, messages)) is not None:
            at = following
        del self._buffer[:at]
        self._aligned = self._identified and not self._buffer and not self._skip
        return messages

    def _step(self, at: int, messages: list[Message]) -> int | None:
        """Read the message at ``at``; return where the next one begins, None when this one cannot be had."""
        buffer = self._buffer
        kind = buffer[at]
        length = buffer[at + 1] << 8 | buffer[at + 2] if len(buffer) - at >= HEADER_BYTES else None
        if (wrong := self._wrong_with(kind, length)) is not None:
            self.fault = AudioSocketError(wrong)
            return None
        if length is None:
            return None
        begin = at + HEADER_BYTES
        if kind not in _DEFINED:
            self.headers += 1
            self.unknown += 1
            self._skip = length
            return self._skipped(begin)
        if len(buffer) - begin < length:
            return None
        self.headers += 1
        self._accept(kind, bytes(buffer[begin : begin + length]), messages)
        return begin + length

    def _skipped(self, at: int) -> int:
        """Throw away what is here of an unknown payload; return where to read on."""
        step = min(self._skip, len(self._buffer) - at)
        self._skip -= step
        return at + step

    def _wrong_with(self, kind: int, length: int | None) -> str | None:
        """Say what forbids this header, as early as its bytes allow."""
        if not self._identified and kind != Kind.UUID:
            return f"the first message is of kind 0x{kind:02x}, not a UUID"
        if self._identified and kind == Kind.UUID:
            return "a second UUID"
        if length is None:
            return None
        if kind == Kind.UUID and length != UUID_BYTES:
            return f"a UUID of {length} bytes"
        if kind in RATES and length & 1:
            return f"audio of {length} bytes, half a sample short"
        return None

    def _accept(self, kind: int, payload: bytes, messages: list[Message]) -> None:
        if kind == Kind.UUID:
            self._identified = True
        elif (kind in RATES and not payload) or (kind == Kind.DTMF and digit_of(payload) is None):
            self.malformed += 1
            return
        messages.append(Message(kind, payload))


def digit_of(payload: bytes) -> str | None:
    """Return the digit of a DTMF payload, one of :data:`DIGITS`, or None when it is not exactly one."""
    digit = payload.decode("latin-1").upper()
    return digit if len(digit) == 1 and digit in DIGITS else None


def error_of(payload: bytes) -> tuple[int | None, str]:
    """Return code and meaning of an error payload; it may be empty, and Asterisk may learn new codes."""
    if not payload:
        return None, "an error without a code"
    code = payload[0]
    return code, ERROR_TEXTS.get(code, f"an error with the unknown code 0x{code:02x}")


def encode(kind: int, payload: bytes = b"") -> bytes:
    """Return one message for Asterisk.

    Asterisk understands only hangup and audio with at least one sample; anything else makes it drop the call
    (``ast_audiosocket_receive_frame``), so anything else raises ValueError here. So does a payload that does
    not fit.
    """
    if kind == Kind.HANGUP:
        if payload:
            raise ValueError("a hangup has no payload")
        return HANGUP
    if kind not in RATES:
        raise ValueError(f"kind 0x{kind:02x} sent to Asterisk would end the call")
    return encode_audio(payload, RATES[kind])


def encode_audio(pcm: bytes, rate: int) -> bytes:
    """Return one audio message of 1 to 32767 samples, signed 16-bit little-endian mono at ``rate`` Hz.

    Raises ValueError for a rate that AudioSocket does not have or a length that is none, odd or too long.
    """
    return _audio_header(rate, len(pcm)) + pcm


@lru_cache(maxsize=64)  # a call uses one or two lengths at one rate
def _audio_header(rate: int, length: int) -> bytes:
    if rate not in KINDS:
        raise ValueError(f"AudioSocket has no kind for {rate} Hz")
    if not 0 < length <= MAX_PAYLOAD or length & 1:
        raise ValueError(f"an audio message cannot hold {length} bytes")
    return bytes((KINDS[rate], length >> 8, length & 0xFF))
