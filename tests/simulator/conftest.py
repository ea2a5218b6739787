"""A conversation with the simulated Gemini, with and without a socket."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import random
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from ari_gemini.simulator.gemini_live import GeminiSimulator
from ari_gemini.simulator.gemini_memory import HandleBook
from ari_gemini.simulator.gemini_record import SessionRecord
from ari_gemini.simulator.gemini_session import Conversation
from ari_gemini.simulator.phrases import phrase
from ari_gemini.simulator.scenario import Scenario, load_scenario

Json = dict[str, Any]

LIVE = "models/gemini-3.8-live"
PATH = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"

TRANSCRIBED: Json = {"inputAudioTranscription": {}, "outputAudioTranscription": {}}


def kind_of(message: Json) -> str:
    """One word for a server message, as the recordings are told."""
    content = message.get("serverContent")
    if content is None or "voiceActivity" in message:
        return next(iter(message), "{}")
    if not content:
        return "serverContent:{}"
    if "modelTurn" in content:
        part = content["modelTurn"]["parts"][0]
        return "thought" if part.get("thought") else "audio"
    return next(iter(content))


def sound(message: Json) -> bytes:
    """The PCM in a server message."""
    parts = message.get("serverContent", {}).get("modelTurn", {}).get("parts", ())
    data = "".join(part["inlineData"]["data"] for part in parts if "inlineData" in part)
    return base64.b64decode(data.replace("-", "+").replace("_", "/"))


def audio_message(pcm: bytes, mime: str = "audio/pcm;rate=8000") -> Json:
    return {"realtimeInput": {"audio": {"mimeType": mime, "data": base64.b64encode(pcm).decode()}}}


class Kit:
    """What the test modules of this directory share; conftest files cannot be imported."""

    LIVE = LIVE
    PATH = PATH
    TRANSCRIBED = TRANSCRIBED
    kind_of = staticmethod(kind_of)
    sound = staticmethod(sound)
    audio_message = staticmethod(audio_message)

    @staticmethod
    def tone(ms: int, dbfs: float, rate: int = 8000) -> bytes:
        """A 440 Hz tone of that RMS level."""
        time = np.arange(ms * rate // 1000) / rate
        peak = 32768 * 10 ** (dbfs / 20) * np.sqrt(2)
        return bytes((peak * np.sin(2 * np.pi * 440 * time)).astype("<i2").tobytes())

    @staticmethod
    def silence(ms: int, rate: int = 8000) -> bytes:
        return bytes(ms * rate // 1000 * 2)


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    return Kit


@dataclass
class PaperWire:
    """Writes down what a conversation sends."""

    frames: list[str | bytes] = field(default_factory=list)
    closed: tuple[int, str] | None = None
    aborted: bool = False
    pongs: float = 0.0

    def send(self, message: Json) -> None:
        self.frames.append(json.dumps(message).encode())

    def send_raw(self, frame: str | bytes) -> None:
        self.frames.append(frame)

    def close(self, code: int, reason: str) -> None:
        assert self.closed is None
        self.closed = (code, reason)

    def abort(self) -> None:
        self.aborted = True

    def slow_pongs(self, seconds: float) -> None:
        self.pongs = seconds

    @property
    def messages(self) -> list[Json]:
        return [json.loads(frame) for frame in self.frames]

    @property
    def kinds(self) -> list[str]:
        """Kinds of messages without the empty ones, runs of audio told once."""
        told: list[str] = []
        for message in self.messages:
            kind = kind_of(message)
            if kind in ("{}", "serverContent:{}") or (kind == "audio" and told[-1:] == ["audio"]):
                continue
            told.append(kind)
        return told


class PaperCall:
    """A client of one conversation on a clock of paper: nothing waits, nothing is approximate."""

    def __init__(
        self, scenario: Scenario, book: HandleBook | None = None, now: float = 0.0, number: int = 1
    ) -> None:
        self.scenario = scenario
        self.book = book or HandleBook(random.Random(1))
        self.now = now
        self.wire = PaperWire()
        self.record = SessionRecord(lambda moment: moment)
        self.talk = Conversation(scenario, self.book, self.wire, self.record, number=number)
        self.talk.connected(now)

    def send(self, message: Json | str | bytes) -> None:
        frame = message if isinstance(message, str | bytes) else json.dumps(message)
        self.talk.receive(frame, self.now)

    def setup(self, model: str = LIVE, **fields: Any) -> None:
        """Send a setup and let it be accepted."""
        self.send({"setup": {"model": model, **TRANSCRIBED, **fields}})
        self.settle(self.scenario.setup_delay)

    def settle(self, seconds: float) -> None:
        """Let this much time pass, every due thing at its time."""
        end = self.now + seconds
        while (due := self.talk.agenda.next_at) is not None and due <= end:
            self.now = max(self.now, due)
            self.talk.tick(self.now)
        self.now = end

    def finish(self) -> None:
        """Let everything happen that is still due."""
        while (due := self.talk.agenda.next_at) is not None:
            self.settle(max(0.0, due - self.now))

    def hear(self, pcm: bytes, rate: int = 8000, pace: float = 1.0) -> None:
        """Speak in 20 ms messages; ``pace`` 0 sends all at once."""
        step = rate // 50 * 2
        for start in range(0, len(pcm), step):
            self.send(audio_message(pcm[start : start + step], f"audio/pcm;rate={rate}"))
            self.settle(0.02 * pace)

    def say(self, name: str, pace: float = 0.0) -> None:
        """Say a recorded phrase and be silent for a second."""
        one = phrase(name)
        self.hear(one.pcm + bytes(one.rate * 2), one.rate, pace)

    def text(self, text: str = "Greet the caller.") -> None:
        self.send({"realtimeInput": {"text": text}})


@pytest.fixture
def paper_call() -> Callable[..., PaperCall]:
    """``paper_call(scenario, **changes)``: a conversation without a socket."""

    def open_call(scenario: str | Scenario = "two_turns", **changes: Any) -> PaperCall:
        chosen = load_scenario(scenario) if isinstance(scenario, str) else scenario
        keep = {key: changes.pop(key) for key in ("book", "now", "number") if key in changes}
        return PaperCall(chosen.model_copy(update=changes), **keep)

    return open_call


class Client:
    """A bare WebSocket client of the simulator."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[Json] = []

    async def send(self, message: Json | str | bytes) -> None:
        await self.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))

    async def setup(self, model: str = LIVE, **fields: Any) -> None:
        """Send a setup and wait for setupComplete."""
        await self.send({"setup": {"model": model, **TRANSCRIBED, **fields}})
        await self.until("setupComplete")

    async def until(self, kind: str) -> Json:
        """Read up to the next message of that kind."""
        while True:
            frame = await self.socket.recv()
            assert isinstance(frame, bytes)
            self.messages.append(json.loads(frame))
            if kind_of(self.messages[-1]) == kind:
                return self.messages[-1]

    async def say(self, name: str, silence_ms: int = 1000) -> None:
        """Speak a phrase, and be silent, all at once."""
        one = phrase(name)
        pcm = one.pcm + bytes(one.rate * silence_ms // 1000 * 2)
        for start in range(0, len(pcm), 1600):
            await self.send(audio_message(pcm[start : start + 1600], f"audio/pcm;rate={one.rate}"))

    async def end(self) -> tuple[int, str]:
        """Code and reason with which the service closes; what it sends before is read."""
        try:
            while True:
                frame = await self.socket.recv()
                self.messages.append(json.loads(frame))
        except ConnectionClosed as closed:
            return (1006, "") if closed.rcvd is None else (closed.rcvd.code, closed.rcvd.reason)


@pytest.fixture
def dial() -> Callable[..., AbstractAsyncContextManager[Client]]:
    """``async with dial(sim, path=..., key=...) as client:``."""

    @asynccontextmanager
    async def open_client(
        sim: GeminiSimulator, path: str = PATH, key: str | None = "a-key", **options: Any
    ) -> AsyncIterator[Client]:
        headers = {"x-goog-api-key": key} if key is not None else {}
        headers |= options.pop("headers", {})
        settings = {"compression": None, "ping_interval": None, "proxy": None, **options}
        async with connect(sim.url + path, additional_headers=headers, **settings) as socket:
            yield Client(socket)

    return open_client


@dataclass(frozen=True)
class Certificate:
    """A certificate for 127.0.0.1 that is its own authority."""

    cert: Path
    key: Path

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        return context

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.cert))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "simulated Gemini")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    made.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made
