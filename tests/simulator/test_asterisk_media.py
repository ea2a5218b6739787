"""Sound of the simulated Asterisk, against an AudioSocket service that the tests hold in their hands."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from uuid import UUID

import numpy as np
import pytest

from ari_gemini.simulator.asterisk_media import (
    AUDIO_RATES,
    FORMAT_KINDS,
    FRAME_BYTES,
    Leg,
    Phone,
    SilentVoice,
    converter,
)

CALL_ID = UUID("5ab32d72-dd59-4df7-aaea-4d145be1a835")


class Service:
    """Accepts one connection; the test reads and writes."""

    def __init__(self) -> None:
        self.port = 0
        self._arrived: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._arrived.put((reader, writer))

    async def connected(self) -> None:
        self.reader, self.writer = await self._arrived.get()

    async def message(self) -> tuple[int, bytes]:
        kind, size = struct.unpack(">BH", await self.reader.readexactly(3))
        return kind, await self.reader.readexactly(size)

    def send(self, kind: int, payload: bytes = b"") -> None:
        self.writer.write(struct.pack(">BH", kind, len(payload)) + payload)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    made = Service()
    server = await asyncio.start_server(made.accept, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    yield made
    server.close()
    if hasattr(made, "writer"):
        made.writer.close()
        await asyncio.gather(made.writer.wait_closed(), return_exceptions=True)


class Heard:
    """What a leg told."""

    def __init__(self, leg: Leg) -> None:
        self.audio: list[bytes] = []
        self.ends: list[bool] = []
        self.changed = asyncio.Event()
        leg.on_audio = self._hear
        leg.on_end = self._end

    def _hear(self, frame: bytes) -> None:
        self.audio.append(frame)
        self.changed.set()

    def _end(self, orderly: bool) -> None:
        self.ends.append(orderly)
        self.changed.set()

    async def end(self) -> bool:
        while not self.ends:
            self.changed.clear()
            await self.changed.wait()
        return self.ends[0]


async def dialled(service: Service, kind: int = 0x10) -> tuple[Leg, Heard]:
    leg = Leg(CALL_ID, kind)
    heard = Heard(leg)
    await leg.dial("127.0.0.1", service.port)
    await service.connected()
    assert await service.message() == (0x01, CALL_ID.bytes)
    return leg, heard


async def test_both_ways(service: Service) -> None:
    leg, heard = await dialled(service)
    leg.send_audio(b"\x01\x02" * 160)
    leg.send_digit("#")
    assert await service.message() == (0x10, b"\x01\x02" * 160)
    assert await service.message() == (0x03, b"#")
    frames = [bytes([n]) * FRAME_BYTES for n in range(5)]
    for frame in frames:
        service.send(0x10, frame)
    service.send(0x00)
    assert await heard.end() is True
    assert heard.audio == frames
    assert (leg.frames_sent, leg.frames_received, leg.open) == (1, 5, False)
    await leg.wait_closed()


async def test_bytes_may_be_cut_anywhere(service: Service) -> None:
    leg, heard = await dialled(service)
    wire = b"".join(struct.pack(">BH", 0x10, size) + bytes(size) for size in (2, 320, 640, 4)) + bytes(3)
    for at in range(len(wire)):
        leg.data_received(wire[at : at + 1])
    assert [len(frame) for frame in heard.audio] == [2, 320, 640, 4]
    assert heard.ends == [True]


async def test_closing_is_orderly_too(service: Service) -> None:
    _, heard = await dialled(service)
    service.writer.close()
    assert await heard.end() is True


async def test_a_cut_connection_is_not(service: Service) -> None:
    _, heard = await dialled(service)
    sock = service.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    service.writer.transport.abort()
    assert await heard.end() is False


@pytest.mark.parametrize(
    ("kind", "payload"),
    [(0x03, b"5"), (0x10, b""), (0x01, CALL_ID.bytes), (0xFF, b"\x01"), (0x42, b"?")],
)
async def test_what_asterisk_does_not_take_ends_the_call(service: Service, kind: int, payload: bytes) -> None:
    leg, heard = await dialled(service)
    service.send(kind, payload)
    service.send(0x10, bytes(320))
    assert await heard.end() is False
    assert heard.audio == []
    assert leg.digits_received == (kind == 0x03)


async def test_hanging_up_closes_without_a_message(service: Service) -> None:
    leg, heard = await dialled(service)
    leg.close()
    leg.send_audio(bytes(320))
    assert await service.reader.read() == b""
    await leg.wait_closed()
    assert heard.ends == []


async def test_a_service_that_does_not_read_loses_the_call(service: Service) -> None:
    """Asterisk writes without blocking; what the socket does not take is the end."""
    leg, heard = await dialled(service)
    service.reader._transport.pause_reading()  # type: ignore[attr-defined]
    while leg.open:
        leg.send_audio(bytes(64_000))
        await asyncio.sleep(0)
    assert heard.ends == [False]
    service.reader._transport.resume_reading()  # type: ignore[attr-defined]


async def test_nobody_there() -> None:
    leg = Leg(CALL_ID)
    with pytest.raises(OSError, match="Connect call failed"):
        await leg.dial("127.0.0.1", 1)
    assert not leg.open
    leg.send_audio(bytes(320))
    leg.close()
    await leg.wait_closed()


@pytest.mark.parametrize("name", ["slin", "slin12", "slin16", "slin24", "slin48"])
async def test_other_rates(service: Service, name: str) -> None:
    """A tone goes out at the format's own rate and comes back as the phone said it."""
    kind = FORMAT_KINDS[name]
    rate = AUDIO_RATES[kind]
    leg, heard = await dialled(service, kind)
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)).astype("<i2")
    for at in range(0, 8000, 160):
        leg.send_audio(tone[at : at + 160].tobytes())
        await asyncio.sleep(0)
    sent = leg.frames_sent
    assert sent >= 49  # the converter holds back less than a frame
    for _ in range(sent):
        got, payload = await service.message()
        assert (got, len(payload)) == (kind, rate // 50 * 2)
        service.send(got, payload)
    service.send(0x00)
    await heard.end()
    echo = np.frombuffer(b"".join(heard.audio), np.int16).astype(float)
    assert len(echo) >= 8000 - 4 * 160
    middle = echo[1000:6000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert abs(int(np.argmax(spectrum)) * 8000 / len(middle) - 440) < 2
    assert 5000 < np.sqrt(np.mean(middle**2)) < 6000


def test_formats_are_named_as_asterisk_names_them() -> None:
    assert {name: FORMAT_KINDS[name] for name in ("slin", "slin12", "slin16", "slin24", "slin48")} == {
        "slin": 0x10,
        "slin12": 0x11,
        "slin16": 0x12,
        "slin24": 0x13,
        "slin48": 0x16,
    }


def test_the_same_rate_is_left_alone() -> None:
    assert converter(8000, 8000)(b"\x01\x02\x03\x04") == b"\x01\x02\x03\x04"


class Counter(SilentVoice):
    """Numbers its frames, and lets a test know when it has said enough of them."""

    def __init__(self, enough: int) -> None:
        super().__init__()
        self.said = 0
        self.done = asyncio.Event()
        self._enough = enough

    def next_frame(self) -> bytes:
        self.said += 1
        if self.said == self._enough:
            self.done.set()
        return struct.pack("<h", self.said) * 160


async def test_the_phone_speaks_from_the_beginning_and_loses_what_nobody_hears(service: Service) -> None:
    leg, _ = await dialled(service)
    voice = Counter(10)
    phone = Phone(voice)

    def say(frame: bytes) -> bool:
        if voice.said > 4:
            leg.send_audio(frame)
        return voice.said > 4

    phone.start(say)
    phone.start(lambda _: False)
    await voice.done.wait()
    phone.stop()
    heard = [struct.unpack_from("<h", (await service.message())[1])[0] for _ in range(5)]
    assert heard == [5, 6, 7, 8, 9]
    assert phone.frames_dropped == 4
    leg.close()


class PaperClock:
    """Time that passes only while somebody sleeps, and when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self._sleep = asyncio.sleep
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)
        monkeypatch.setattr(asyncio, "sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += max(0.0, seconds)
        await self._sleep(0)


async def test_the_phone_keeps_to_its_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is late is caught up; but when the machine stood still, the caller did not say it all at once."""
    clock = PaperClock(monkeypatch)
    voice = Counter(3)
    phone = Phone(voice)
    phone.start(lambda _: True)
    await voice.done.wait()
    clock.now += 0.050
    while voice.said < 7:
        await clock._sleep(0)
    clock.now += 60.0
    while voice.said < 10:
        await clock._sleep(0)
    phone.stop()
    assert clock.slept[:9] == [0.02, 0.02, 0.02, -0.03, -0.01, 0.01, 0.02, 0.0, 0.02]


async def test_the_phone_hears() -> None:
    voice = SilentVoice()
    phone = Phone(voice)
    phone.hear(bytes(320))
    phone.hear(bytes(100))
    phone.stop()
    assert (voice.frames_heard, voice.bytes_heard) == (2, 420)
    assert voice.next_frame() == bytes(FRAME_BYTES)
