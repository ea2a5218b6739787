"""The simulated Asterisk as a whole: calls that come, talk and go, through the package's own ARI door."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from ari_gemini.ari.channel import Bridge, Channel
from ari_gemini.ari.client import AriClient
from ari_gemini.ari.events import Event, StasisEnd, StasisStart
from ari_gemini.ari.settings import AriSettings
from ari_gemini.errors import AriError
from ari_gemini.simulator import asterisk as asterisk_module
from ari_gemini.simulator.asterisk import Continuation, SimulatedAsterisk, SimulatedCall, serve
from ari_gemini.simulator.asterisk_media import SilentVoice
from ari_gemini.simulator.caller_voice import PHONE, CallerReport, CallerTurn, Cue
from ari_gemini.simulator.phrases import phrase

CALL_ID = UUID("5ab32d72-dd59-4df7-aaea-4d145be1a835")
LOUD = struct.pack("<h", 12_000) * 160


class Service:
    """As little of a service as a call needs: sets calls up, and answers the caller's sound with its echo."""

    def __init__(self) -> None:
        self.address = ""
        self.heard: list[tuple[int, bytes]] = []
        self.ends = 0
        self.changed = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []
        self.hang_up_after: int | None = None
        """Frames after which it ends the conversation."""
        self.starts: asyncio.Queue[StasisStart] = asyncio.Queue()
        self.ended: asyncio.Queue[StasisEnd] = asyncio.Queue()

    def on_event(self, event: Event) -> None:
        if isinstance(event, StasisStart):
            self.starts.put_nowait(event)
        elif isinstance(event, StasisEnd):
            self.ended.put_nowait(event)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                kind, size = struct.unpack(">BH", await reader.readexactly(3))
                payload = await reader.readexactly(size)
                self._take(kind, payload, writer)
                if self.hang_up_after is not None and self.frames >= self.hang_up_after:
                    writer.write(bytes(3))
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ends += 1
            self.changed.set()
        finally:
            writer.close()

    def _take(self, kind: int, payload: bytes, writer: asyncio.StreamWriter) -> None:
        self.heard.append((kind, payload))
        if kind == 0x10:
            writer.write(struct.pack(">BH", kind, len(payload)) + payload)
        self.changed.set()

    @property
    def frames(self) -> int:
        return sum(kind == 0x10 for kind, _ in self.heard)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def take_call(self, client: AriClient) -> tuple[Channel, Channel, Bridge]:
        """Set up the next call as asterisk.md has it. Raises AriError when the caller leaves meanwhile."""
        start = await self.starts.get()
        call_id = uuid4()
        caller, media = Channel(client, start.channel.id), Channel(client, f"media-{call_id}")
        bridge = Bridge(client, str(call_id))
        try:
            await caller.ring()
            await bridge.create()
            await client.external_media(media.id, client.settings.app, self.address, call_id)
            while (await self.starts.get()).channel.id != media.id:
                pass
            await caller.answer()
            await bridge.add_channel(caller.id, media.id)
        except AriError:
            await self.release(media, bridge)
            raise
        return caller, media, bridge

    @staticmethod
    async def release(media: Channel, bridge: Bridge) -> None:
        await media.hangup()
        await bridge.destroy()


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    made = Service()
    server = await asyncio.start_server(made.accept, "127.0.0.1", 0)
    made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()
    for writer in made.writers:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for writer in made.writers), return_exceptions=True)


@pytest.fixture
async def asterisk() -> AsyncIterator[SimulatedAsterisk]:
    async with SimulatedAsterisk() as simulated:
        yield simulated


@pytest.fixture
async def client(asterisk: SimulatedAsterisk, service: Service) -> AsyncIterator[AriClient]:
    async with running(asterisk, service) as connected:
        yield connected


class running:  # noqa: N801  # reads as a verb
    """A client of ``asterisk`` whose events go to ``service``."""

    def __init__(self, asterisk: SimulatedAsterisk, service: Service) -> None:
        given = {
            "url": asterisk.url,
            "username": asterisk.username,
            "password": asterisk.password,
            "request_timeout": 20.0,
            "reconnect_min": 0.01,
            "reconnect_max": 0.02,
        }
        self._client = AriClient(AriSettings.model_validate(given))
        self._client.on_event(service.on_event)

    async def __aenter__(self) -> AriClient:
        self._task = asyncio.create_task(self._client.run())
        await self._client.wait_connected()
        return self._client

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


class Counter(SilentVoice):
    """Numbers its frames; remembers what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.said = 0
        self.heard: list[bytes] = []
        self.times: list[float] = []
        self.changed = asyncio.Event()

    def next_frame(self) -> bytes:
        self.said += 1
        self.changed.set()
        return struct.pack("<h", self.said) * 160

    def hear(self, frame: bytes, at: float) -> None:
        self.heard.append(frame)
        self.times.append(at)
        self.changed.set()

    async def hears(self, frames: int) -> None:
        await self.until(lambda: len(self.heard) >= frames)

    async def says(self, frames: int) -> None:
        await self.until(lambda: self.said >= frames)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()


# -- way A --------


async def test_a_whole_call(asterisk: SimulatedAsterisk, service: Service, client: AriClient) -> None:
    voice = Counter()
    call = await asterisk.call(number="0123", name="Alice", voice=voice)
    caller, media, bridge = await service.take_call(client)
    await call.wait_answered()
    await voice.hears(5)
    call.press("7")
    await service.until(lambda: (0x03, b"7") in service.heard)
    call.hang_up()
    await call.wait_gone()
    assert list(asterisk.channels) == [media.id]
    await service.release(media, bridge)
    await service.until(lambda: service.ends == 1)
    assert (asterisk.channels, asterisk.bridges) == ({}, {})
    assert call.continued is None
    assert service.heard[0] == (0x01, UUID(bridge.id).bytes)
    said = [payload for kind, payload in service.heard if kind == 0x10]
    first = struct.unpack_from("<h", said[0])[0]
    assert said == [struct.pack("<h", first + n) * 160 for n in range(len(said))]
    assert voice.heard == said[: len(voice.heard)]
    assert voice.times == sorted(voice.times)
    assert asterisk.operations() == [
        "channels.ring",
        "bridges.createWithId",
        "channels.externalMedia",
        "channels.answer",
        "bridges.addChannel",
        "channels.hangup",
        "bridges.destroy",
    ]
    assert caller.id == call.id


async def test_sound_flows_only_while_bridged(
    asterisk: SimulatedAsterisk, service: Service, client: AriClient
) -> None:
    voice = Counter()
    await asterisk.call(voice=voice)
    _, media, bridge = await service.take_call(client)
    await voice.hears(3)
    await bridge.remove_channel(media.id)
    heard = len(voice.heard)
    service.writers[0].write(struct.pack(">BH", 0x10, 320) + LOUD)
    await voice.says(voice.said + 3)
    assert len(voice.heard) == heard
    said, frames = voice.said, service.frames
    await bridge.add_channel(media.id)
    await voice.hears(heard + 5)
    assert LOUD not in voice.heard
    assert service.frames > frames
    assert struct.unpack_from("<h", voice.heard[heard])[0] > said


async def test_nothing_is_said_before_answering(
    asterisk: SimulatedAsterisk, service: Service, client: AriClient
) -> None:
    voice = Counter()
    call = await asterisk.call(voice=voice)
    start = await service.starts.get()
    await Channel(client, start.channel.id).ring()
    assert voice.said == 0
    await Channel(client, start.channel.id).answer()
    await call.wait_answered()
    await voice.says(1)


STEPS = [
    "channels.ring",
    "bridges.createWithId",
    "channels.externalMedia",
    "channels.answer",
    "bridges.addChannel",
]


@pytest.mark.parametrize("step", STEPS)
async def test_the_caller_hangs_up_at_every_step(
    asterisk: SimulatedAsterisk, service: Service, client: AriClient, step: str
) -> None:
    """The hook sees each request before Asterisk does."""
    call = await asterisk.call()

    def leave(_method: str, _path: str) -> None:
        if asterisk.operations()[-1] == step:
            call.hang_up()

    asterisk.on_request = leave
    with pytest.raises(AriError) as caught:
        await service.take_call(client)
    assert caught.value.status in {400, 404}
    await call.wait_gone()
    assert (asterisk.channels, asterisk.bridges) == ({}, {})


async def test_media_refused(asterisk: SimulatedAsterisk, service: Service, client: AriClient) -> None:
    asterisk.media_refused = True
    call = await asterisk.call()
    with pytest.raises(AriError, match="500"):
        await service.take_call(client)
    await Channel(client, call.id).continue_in_dialplan()
    await call.wait_left()
    assert call.continued == Continuation()
    assert service.heard == []


async def test_the_dialplan_has_the_last_word(asterisk: SimulatedAsterisk) -> None:
    """Nobody is connected: Stasis() fails, and the dialplan goes on."""
    call = await asterisk.call(stays=True)
    await call.wait_left()
    assert call.variables["STASISSTATUS"] == "FAILED"
    assert call.continued == Continuation()
    assert list(asterisk.channels) == [call.id]
    call.hang_up()
    assert asterisk.channels == {}


async def test_a_restart_leaves_nothing(
    asterisk: SimulatedAsterisk, service: Service, client: AriClient
) -> None:
    url = asterisk.url
    call = await asterisk.call()
    await service.take_call(client)
    await asterisk.restart()
    assert (asterisk.channels, asterisk.bridges, asterisk.url) == ({}, {}, url)
    assert call.channel.gone.is_set()
    await service.until(lambda: service.ends == 1)
    await asterisk.wait_connected()


async def test_channels_outlive_a_lost_connection(
    asterisk: SimulatedAsterisk, service: Service, client: AriClient
) -> None:
    """As with the real one, a channel stays in Stasis when its application's connection dies."""
    call = await asterisk.call()
    await service.take_call(client)
    await asterisk.stop_listening()
    await asterisk.start(port=asterisk.port)
    await asterisk.wait_connected()
    assert call.id in asterisk.channels
    frames = service.frames
    await service.until(lambda: service.frames > frames)
    await asterisk.stop()


# -- way B --------


async def test_the_audiosocket_application(asterisk: SimulatedAsterisk, service: Service) -> None:
    voice = Counter()
    call = await asterisk.audiosocket_call(service.address, CALL_ID, voice=voice)
    await voice.hears(3)
    call.press("#")
    await service.until(lambda: (0x03, b"#") in service.heard)
    assert service.heard[0] == (0x01, CALL_ID.bytes)
    info = asterisk.channels[call.id].to_json()
    assert info["dialplan"] == {
        "context": "ari-gemini",
        "exten": "701",
        "priority": 1,
        "app_name": "AudioSocket",
        "app_data": f"{CALL_ID},{service.address}",
    }
    call.hang_up()
    await service.until(lambda: service.ends == 1)
    assert (asterisk.channels, call.continued) == ({}, None)


async def test_the_service_ends_the_audiosocket_application(
    asterisk: SimulatedAsterisk, service: Service
) -> None:
    service.hang_up_after = 3
    call = await asterisk.audiosocket_call(service.address, stays=True)
    await call.wait_left()
    assert (call.continued, call.channel.hangup_cause) == (Continuation(), None)
    call.hang_up()


async def test_nobody_answers_the_audiosocket_application(asterisk: SimulatedAsterisk) -> None:
    with pytest.raises(OSError, match="Connect call failed"):
        await asterisk.audiosocket_call("127.0.0.1:1")
    assert asterisk.channels == {}


# -- for a newcomer --------


class Lines:
    """What was printed."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.changed = asyncio.Event()

    def __call__(self, text: str) -> None:
        self.lines.append(text)
        self.changed.set()

    async def until(self, words: str) -> None:
        while not any(words in line for line in self.lines):
            self.changed.clear()
            await self.changed.wait()


class BriefVoice(Counter):
    """Has enough when it has heard five frames."""

    def __init__(self, _script: object, _clock: object) -> None:
        super().__init__()

    @property
    def done(self) -> bool:
        return len(self.heard) >= 5

    @staticmethod
    def report() -> CallerReport:
        turns = [
            CallerTurn("Hello?", Cue.NOTHING, 0.0, 100.0, reply_began_ms=740.0),
            CallerTurn("Goodbye.", Cue.REPLY_END, 2000.0, 2500.0),
        ]
        return CallerReport(PHONE, turns=turns)


async def free_port() -> int:
    async with SimulatedAsterisk() as asterisk:
        return asterisk.port


async def test_serve_places_calls(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asterisk_module, "ScriptedVoice", BriefVoice)
    monkeypatch.setattr(asterisk_module, "CLEAN_UP_SECONDS", 20.0)
    port, lines = await free_port(), Lines()
    serving = asyncio.create_task(
        serve(f"127.0.0.1:{port}", password="x", agent="sales", calls=2, interval=0.0, say=lines)
    )
    await lines.until("waiting for 'ari-gemini' to connect")
    reached = SimulatedAsterisk(password="x")
    reached.port = port
    async with running(reached, service) as client:
        _, media, bridge = await service.take_call(client)
        await service.ended.get()
        await service.release(media, bridge)
        await lines.until("call 2")
        monkeypatch.setattr(asterisk_module, "CLEAN_UP_SECONDS", 0.0)
        await service.take_call(client)
        await serving
    call = [
        "4711 dials 700: Stasis(ari-gemini,sales)",
        "answered",
        "the caller hangs up",
        '"Hello?" answered after 640 ms',
        '"Goodbye." no answer',
    ]
    assert lines.lines == [
        f"Simulated Asterisk at http://127.0.0.1:{port}, user gemini; waiting for 'ari-gemini' to connect",
        *(f"call 1: {line}" for line in call),
        *(f"call 2: {line}" for line in call),
        "call 2: the service left 1 channels and 1 bridges behind",
    ]


def test_the_caller_of_serve_has_something_to_say() -> None:
    script = asterisk_module._script()
    assert [line.text for line in script] == [phrase(name).text for name in asterisk_module.SCRIPT]
    assert all(phrase(name).rate == PHONE.rate for name in asterisk_module.SCRIPT)


@pytest.mark.parametrize(
    ("listen", "error"), [("127.0.0.1", ValueError), ("127.0.0.1:x", ValueError), ("192.0.2.1:0", OSError)]
)
async def test_serve_needs_an_address(listen: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await serve(listen)


async def test_how_calls_end_in_words(asterisk: SimulatedAsterisk) -> None:
    ending = asterisk_module._ending

    async def fresh(**options: Any) -> SimulatedCall:
        return await asterisk.call(**options)

    asterisk._switch._listening = lambda app: app == "ari-gemini"
    assert ending(await fresh(app="other")) == "nobody took the call"
    talking = await fresh()
    assert ending(talking) == "the caller hangs up"
    asterisk._switch.hang_up(talking.channel, 17, requested=True)
    assert ending(talking) == "the service hung up (cause 17)"
    sent_on = await fresh(variables={"ARI_GEMINI_CAUSE": "model_unavailable"})
    asterisk._switch.continue_in_dialplan(sent_on.channel, Continuation())
    assert ending(sent_on) == "the service sent the caller on in the dialplan (model_unavailable)"
