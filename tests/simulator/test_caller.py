"""The simulated caller against a raw service that the test writes byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
from uuid import UUID

import numpy as np
import pytest

from ari_gemini.audiosocket.connection import EndReason, MediaEnd
from ari_gemini.audiosocket.server import AudioSocketServer, AudioSocketSettings
from ari_gemini.simulator import caller as subject
from ari_gemini.simulator.caller import Caller, Cue, Line

CALL = UUID("00112233-4455-6677-8899-aabbccddeeff")
FRAME = 320
LONG = 30.0
"""Seconds: only a hanging test gets there."""


def loud(frames, value=8000):
    return struct.pack("<h", value) * (FRAME // 2) * frames


def message(kind, payload=b""):
    return struct.pack(">BH", kind, len(payload)) + payload


def sounding(pcm):
    """The samples that are not zero: whatever holes a slow machine has made."""
    samples = np.frombuffer(pcm, "<i2")
    return samples[samples != 0].tobytes()


class Service:
    """Takes one call; a test says what it does with each message."""

    def __init__(self):
        self.got = []
        self.writer = None
        self.identified = asyncio.Event()
        self.frames = 0
        self.on_frame = lambda number, pcm: None
        self.over = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()

    async def serve(self, reader, writer):
        self.writer = writer
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await self.reading.wait()
                    kind, length = struct.unpack(">BH", await reader.readexactly(3))
                    self.take(kind, await reader.readexactly(length))
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self.over.set()

    def take(self, kind, payload):
        self.got.append((kind, payload))
        self.identified.set()
        if kind in range(0x10, 0x19):
            self.frames += 1
            self.on_frame(self.frames, payload)

    def send(self, kind, payload=b""):
        self.writer.write(message(kind, payload))

    @property
    def kinds(self):
        return [kind for kind, _ in self.got]

    @property
    def heard(self):
        return b"".join(payload for kind, payload in self.got if kind in range(0x10, 0x19))


@pytest.fixture
async def service():
    service = Service()
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    service.port = server.sockets[0].getsockname()[1]
    yield service
    server.close()
    service.reading.set()
    if service.writer is not None:
        service.writer.transport.abort()
        await service.over.wait()
    await server.wait_closed()


async def living(caller):
    async with asyncio.timeout(LONG):
        return await caller.run()


def now(pcm, delay_ms=0.0, text=""):
    return Line(pcm, text, Cue.NOTHING, delay_ms)


async def test_says_who_calls_then_frames_then_hangs_up(service, monkeypatch):
    monkeypatch.setattr("ari_gemini.simulator.caller_voice.LAST_PAUSE_MS", 60.0)
    service.on_frame = lambda number, pcm: service.send(0x10, loud(1, 500) if number == 25 else bytes(FRAME))
    line = struct.pack("<480h", *range(9000, 9480))
    report = await living(Caller("127.0.0.1", service.port, CALL, [now(line, text="hello")]))
    await service.over.wait()
    assert service.got[0] == (0x01, CALL.bytes)
    assert service.got[-1] == (0x00, b"")
    assert set(service.kinds[1:-1]) == {0x10}
    assert {len(payload) for _, payload in service.got[1:-1]} == {FRAME}
    assert service.heard.startswith(line)
    assert sounding(service.heard) == line
    assert (report.ended_by, report.completed) == ("caller", True)
    assert sounding(report.said) == line
    assert sounding(report.heard) == loud(1, 500)
    assert len(report.said) == len(report.heard)
    assert report.frames_said == service.frames
    assert len(report.gaps_ms) == report.frames_heard - 1
    assert [turn.text for turn in report.turns] == ["hello"]
    assert [event.what for event in report.events if event.what != "model_ended"] == [
        "connected",
        "line_began",
        "line_ended",
        "model_began",
        "hung_up",
    ]


async def test_a_conversation_of_two_turns(service):
    """A service that speaks first and answers every line after 100 ms of silence."""
    quiet = {"frames": 0, "spoken": 0, "say": [loud(1, 701)] * 5}

    def on_frame(number, pcm):
        if any(pcm):
            quiet["frames"] = 0
            quiet["spoken"] += 1
        else:
            quiet["frames"] += 1
            if quiet["frames"] == 5 and quiet["spoken"]:
                quiet["spoken"] = 0
                quiet["say"] = [loud(1, 702)] * 5
        service.send(0x10, quiet["say"].pop() if quiet["say"] else bytes(FRAME))

    service.on_frame = on_frame
    script = [Line(loud(4, 3000 + n), f"line {n}", delay_ms=300) for n in range(2)]
    report = await living(Caller("127.0.0.1", service.port, CALL, script))
    assert report.completed
    assert sounding(report.heard) == loud(5, 701) + loud(10, 702)
    assert sounding(report.said) == loud(4, 3000) + loud(4, 3001)
    assert [turn.text for turn in report.turns] == ["line 0", "line 1"]
    assert len(report.latencies_ms) == 2
    began = [event.what for event in report.events if event.what in {"line_began", "model_began"}]
    order = [what for what, _ in itertools.groupby(began)]  # a slow machine tears speech into pieces
    assert order == ["model_began", "line_began", "model_began", "line_began", "model_began"]


async def test_a_conversation_that_the_test_leads(service):
    service.on_frame = lambda number, pcm: service.send(0x10, loud(1) if any(pcm) else bytes(FRAME))
    caller = Caller("127.0.0.1", service.port, CALL, hang_up=False, patience=LONG)
    living_ = asyncio.ensure_future(living(caller))
    await service.identified.wait()
    saying = asyncio.ensure_future(caller.say(now(loud(10))))
    await caller.hears_speech()
    await saying
    await caller.hears_silence(500)
    assert not living_.done()
    caller.send_digit("5")
    caller.hang_up()
    caller.hang_up()
    report = await living_
    await service.over.wait()
    assert (0x03, b"5") in service.got
    assert service.kinds.count(0x00) == 1
    assert report.ended_by == "caller"
    assert sounding(report.heard) == loud(10)
    for waiting in (caller.hears_speech(), caller.say(now(loud(1)))):
        with pytest.raises(ConnectionError, match="over"):
            await waiting


@pytest.mark.parametrize("how", ["hangup", "close"])
async def test_the_service_ends_the_call(service, how):
    def on_frame(number, pcm):
        if number == 3:
            service.send(0x00) if how == "hangup" else service.writer.close()

    service.on_frame = on_frame
    caller = Caller("127.0.0.1", service.port, CALL, hang_up=False)
    living_ = asyncio.ensure_future(living(caller))
    await service.identified.wait()
    with pytest.raises(ConnectionError):
        await caller.hears_speech()
    report = await living_
    assert report.ended_by == "service"
    assert report.events[-1].what == "ended_by_service"
    assert not report.completed
    assert 0x00 not in service.kinds


async def test_the_service_resets_the_connection(service):
    def on_frame(number, pcm):
        if number == 3:
            sock = service.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            service.writer.transport.abort()

    service.on_frame = on_frame
    report = await living(Caller("127.0.0.1", service.port, CALL, hang_up=False))
    assert (report.ended_by, report.events[-1].what) == ("lost", "lost")


@pytest.mark.parametrize(
    "wrong", [(0x03, b"5"), (0x10, b""), (0x12, bytes(640)), (0x42, b"?"), (0x01, CALL.bytes)]
)
async def test_what_asterisk_does_not_take_ends_the_call(service, wrong):
    service.on_frame = lambda number, pcm: service.send(*wrong) if number == 2 else None
    report = await living(Caller("127.0.0.1", service.port, CALL, hang_up=False))
    assert report.ended_by == "lost"
    assert f"kind 0x{wrong[0]:02x} with {len(wrong[1])} bytes" in report.detail
    assert report.frames_heard == 0


async def test_a_service_that_does_not_read_loses_the_call(service):
    caller = Caller("127.0.0.1", service.port, CALL, hang_up=False)
    living_ = asyncio.ensure_future(living(caller))
    await service.identified.wait()
    service.reading.clear()
    while not living_.done():
        caller._leg.send_audio(bytes(65534))
        await asyncio.sleep(0)
    report = await living_
    assert (report.ended_by, report.detail) == ("lost", "the service does not read")


async def test_whatever_the_chunking(service):
    sound = b"".join(message(0x10, loud(1, 900 + n)) for n in range(5)) + message(0x00)

    async def dribble():
        for at in range(0, len(sound), 7):
            service.writer.write(sound[at : at + 7])
            await asyncio.sleep(0)

    tasks = []
    service.on_frame = lambda number, pcm: (
        tasks.append(asyncio.ensure_future(dribble())) if number == 2 else None
    )
    report = await living(Caller("127.0.0.1", service.port, CALL, hang_up=False))
    await tasks[0]
    assert sounding(report.heard) == b"".join(loud(1, 900 + n) for n in range(5))
    assert report.frames_heard == 5
    assert report.ended_by == "service"


async def test_wideband(service):
    service.on_frame = lambda number, pcm: service.send(
        0x12, b"\x00\x10" * 320 if number == 25 else bytes(640)
    )
    line = b"\x00\x20" * 960
    report = await living(Caller("127.0.0.1", service.port, CALL, [now(line)], rate=16000))
    await service.over.wait()
    assert set(service.kinds) == {0x01, 0x12, 0x00}
    assert (report.format.rate, report.completed) == (16000, True)
    assert sounding(service.heard) == line
    assert sounding(report.heard) == b"\x00\x10" * 320


async def test_giving_up(service):
    report = await living(Caller("127.0.0.1", service.port, CALL, [Line(loud(1), "hello?")], patience=0.1))
    assert (report.ended_by, report.completed) == ("caller", False)
    assert [event.what for event in report.events] == ["connected", "gave_up", "hung_up"]


async def test_nobody_answers():
    with socket.socket() as taken:  # bound, not listening
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(OSError):  # noqa: PT011  # whatever the kernel calls it
            await Caller("127.0.0.1", taken.getsockname()[1], CALL).run()


async def test_cancelling_cuts_the_connection(service):
    living_ = asyncio.ensure_future(Caller("127.0.0.1", service.port, CALL, hang_up=False).run())
    await service.identified.wait()
    living_.cancel()
    with pytest.raises(asyncio.CancelledError):
        await living_
    async with asyncio.timeout(LONG):
        await service.over.wait()
    assert 0x00 not in service.kinds


async def test_a_machine_that_stood_still_says_no_backlog(service, monkeypatch):
    monkeypatch.setattr(subject, "CATCH_UP_SECONDS", 0.0)  # every lateness is too much
    service.on_frame = lambda number, pcm: service.send(0x00) if number == 20 else None
    report = await living(Caller("127.0.0.1", service.port, CALL, hang_up=False))
    assert report.frames_said >= 20
    assert report.ended_by == "service"


async def test_the_door_and_the_caller_read_the_protocol_alike():
    class Echo:
        def __init__(self, connection):
            self.connection = connection
            self.written = b""
            self.digits = []
            self.ends = []

        def audio(self, pcm, rate):
            self.write(pcm if self.connection.stats.messages_in > 30 else bytes(FRAME))

        def digit(self, digit):
            self.digits.append(digit)
            self.write(loud(1, 600))

        def ended(self, end):
            self.ends.append(end)

        def write(self, pcm):
            assert self.connection.write_audio(pcm)
            self.written += pcm

    sinks = []

    def arrived(connection):
        sinks.append(Echo(connection))
        connection.attach(sinks[-1])

    server = AudioSocketServer(AudioSocketSettings(listen="127.0.0.1:0"), arrived)
    await server.start()
    caller = Caller("127.0.0.1", server.port, CALL, hang_up=False)
    living_ = asyncio.ensure_future(living(caller))
    await caller.say(now(loud(40, 5000)))
    caller.send_digit("#")
    await caller.hears_silence(500)
    caller.hang_up()
    report = await living_
    await server.close()
    [sink] = sinks
    assert sink.digits == ["#"]
    assert sink.ends == [MediaEnd(EndReason.HANGUP)]
    assert sink.connection.uuid == CALL
    assert report.ended_by == "caller"
    assert sink.connection.stats.audio_bytes_in == report.frames_said * FRAME
    assert sounding(report.heard) == sounding(sink.written)
    assert set(np.frombuffer(sounding(report.heard), "<i2")) == {5000, 600}


async def test_a_rate_that_audiosocket_does_not_have():
    with pytest.raises(ValueError, match="11025"):
        Caller("127.0.0.1", 1, CALL, rate=11025)
