"""Golden ladders, an independent judge of what we send, and a Gemini that does what a test scripts."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.genai import types
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from ari_gemini.gemini.settings import GeminiSettings

GOLDEN = Path(__file__).parent / "golden"
KEY = "AIza-test-key"
LONG = 30.0
"""Seconds: only a hanging test gets there."""


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every asynchronous test of this room on both event loops."""
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


@dataclass
class Rung:
    """One message of a ladder, what it must yield and what it must add to the counts."""

    line: int
    message: str
    events: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def read_ladder(name: str) -> list[Rung]:
    rungs: list[Rung] = []
    for number, line in enumerate((GOLDEN / name).read_text().splitlines(), 1):
        glyph, text = line[:1], line[2:]
        if glyph == "<":
            rungs.append(Rung(number, text))
        elif glyph == "=":
            rungs[-1].events.append(text)
        elif glyph == "~":
            what, count = text.split()
            rungs[-1].counts[what] = int(count)
        else:
            assert glyph == "#"
    return rungs


@pytest.fixture
def ladder() -> Callable[[str], list[Rung]]:
    return read_ladder


# What may stand in a message of ours, by the reference: None is a value, a dict an object with no other keys,
# a list holds one kind of item, a set names the values allowed.
_SCHEMA_VALUES = {
    *("type", "title", "description", "nullable", "enum", "required", "format", "pattern", "default"),
    *("minItems", "maxItems", "minLength", "maxLength", "minimum", "maximum"),
}
_SETUP = {
    "model": None,
    "generationConfig": {
        "responseModalities": None,
        "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": None}}, "languageCode": None},
        "temperature": None,
    },
    "systemInstruction": {"parts": [{"text": None}]},
    "tools": [{"functionDeclarations": [{"name": None, "description": None, "parameters": "schema"}]}],
    "realtimeInputConfig": {
        "automaticActivityDetection": {
            "startOfSpeechSensitivity": {"START_SENSITIVITY_HIGH", "START_SENSITIVITY_LOW"},
            "endOfSpeechSensitivity": {"END_SENSITIVITY_HIGH", "END_SENSITIVITY_LOW"},
            "prefixPaddingMs": None,
            "silenceDurationMs": None,
        },
        "activityHandling": {"NO_INTERRUPTION"},
        "turnCoverage": {
            "TURN_INCLUDES_ONLY_ACTIVITY",
            "TURN_INCLUDES_ALL_INPUT",
            "TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO",
        },
    },
    "inputAudioTranscription": {},
    "outputAudioTranscription": {},
    "sessionResumption": {"handle": None},
    "contextWindowCompression": {"triggerTokens": None, "slidingWindow": {"targetTokens": None}},
}
_MESSAGES: dict[str, Any] = {
    "setup": _SETUP,
    "realtimeInput": {
        "audio": {"mimeType": {"audio/pcm;rate=16000", "audio/pcm;rate=8000"}, "data": None},
        "text": None,
        "audioStreamEnd": {True},
    },
    "clientContent": {
        "turns": [{"role": {"user", "model"}, "parts": [{"text": None}]}],
        "turnComplete": {True, False},
    },
    "toolResponse": {"functionResponses": [{"id": None, "name": None, "response": "object"}]},
}
THINKING = {
    "gemini-3.8-live": {},
    "gemini-3.8-live-extended-thinking": {"thinkingLevel": {"LOW", "MEDIUM", "HIGH"}},
    "gemini-3.1-flash-live-preview": {"thinkingLevel": {"MINIMAL", "LOW", "MEDIUM", "HIGH"}},
    "gemini-2.5-flash-native-audio-preview-12-2025": {"thinkingBudget": None},
}
BEHAVIORS = {
    "gemini-3.8-live": {"BLOCKING", "NON_BLOCKING"},
    "gemini-3.8-live-extended-thinking": {"NON_BLOCKING"},
    "gemini-3.1-flash-live-preview": {"BLOCKING"},
    "gemini-2.5-flash-native-audio-preview-12-2025": {"BLOCKING", "NON_BLOCKING"},
}
SEEDED = {"gemini-3.1-flash-live-preview"}
"""Models that take clientContent only before the conversation, announced in the setup."""
SCHEDULING = {"gemini-3.8-live", "gemini-2.5-flash-native-audio-preview-12-2025"}
MODELS = sorted(THINKING)


def _check(value: Any, allowed: Any, path: str) -> None:
    match allowed:
        case None:
            assert not isinstance(value, dict), path
        case "schema":
            _check_schema(value, path)
        case "object":
            assert isinstance(value, dict), path
        case set():
            assert value in allowed, f"{path}: {value!r}"
        case dict():
            assert isinstance(value, dict), path
            assert set(value) <= set(allowed), f"{path}: {set(value) - set(allowed)}"
            for key, sub in value.items():
                _check(sub, allowed[key], f"{path}.{key}")
        case [item]:
            assert isinstance(value, list), path
            assert value, path
            for sub in value:
                _check(sub, item, path)


def _check_schema(schema: Any, path: str) -> None:
    children = {"properties", "items", "anyOf"}
    assert set(schema) <= _SCHEMA_VALUES | children, path
    if "type" in schema:
        assert schema["type"] in {"OBJECT", "ARRAY", "STRING", "NUMBER", "INTEGER", "BOOLEAN"}
    for name, sub in schema.get("properties", {}).items():
        _check_schema(sub, f"{path}.{name}")
    for sub in [*schema.get("anyOf", []), *([schema["items"]] if "items" in schema else [])]:
        _check_schema(sub, path)


def _allowed(model: str) -> dict[str, Any]:
    setup: dict[str, Any] = {**_SETUP}
    thinking = {"thinkingConfig": THINKING[model]} if THINKING[model] else {}
    setup["generationConfig"] = {**_SETUP["generationConfig"], **thinking}
    if model in SEEDED:
        setup["historyConfig"] = {"initialHistoryInClientContent": {True}}
    function = {**_SETUP["tools"][0]["functionDeclarations"][0], "behavior": BEHAVIORS[model]}
    setup["tools"] = [{"functionDeclarations": [function]}]
    response: dict[str, Any] = {**_MESSAGES["toolResponse"]["functionResponses"][0]}
    if model in SCHEDULING:
        response["scheduling"] = {"SILENT", "WHEN_IDLE", "INTERRUPT"}
    return {**_MESSAGES, "setup": setup, "toolResponse": {"functionResponses": [response]}}


def judge(data: str | bytes, model: str = "gemini-3.8-live") -> dict[str, Any]:
    """The message, if the reference allows it and the official client's types know it."""
    message: dict[str, Any] = json.loads(data)
    assert len(message) == 1, "exactly one of setup, realtimeInput, clientContent, toolResponse"
    _check(message, _allowed(model), "")
    # The official type of setup lacks realtimeInputConfig, which has a type of its own.
    setup = dict(message.get("setup", {}))
    types.RealtimeInputConfig.model_validate(setup.pop("realtimeInputConfig", {}))
    types.LiveClientMessage.model_validate({"setup": setup} if setup else message)
    return message


@pytest.fixture
def validated() -> Callable[..., dict[str, Any]]:
    return judge


async def until_true(condition: Callable[[], object]) -> None:
    """Wait for what nobody announces, as what the kernel or the other side's list shows."""
    async with asyncio.timeout(LONG):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Awaitable[None]]:
    return until_true


Script = Callable[["Wire"], Awaitable[None]]


class Wire:
    """The service's side of one connection, as a script drives it."""

    def __init__(self, websocket: ServerConnection, gemini: Gemini) -> None:
        self.websocket = websocket
        self._gemini = gemini

    async def next(self) -> dict[str, Any]:
        """The client's next message, judged."""
        async with asyncio.timeout(LONG):
            data = await self.websocket.recv()
        assert isinstance(data, str), "we send TEXT frames"
        message = judge(data, self._gemini.model)
        self._gemini.received.append(message)
        return message

    async def say(self, message: Any, *, text: bool = False) -> None:
        """Send a message as the service does, in a BINARY frame, or as TEXT."""
        data = json.dumps(message)
        await self.websocket.send(data if text else data.encode())

    async def open(self) -> dict[str, Any]:
        """Take the setup and confirm it."""
        setup = await self.next()
        await self.say({"setupComplete": {}})
        return setup

    async def gone(self) -> None:
        """Wait until the client's side of the connection has ended."""
        async with asyncio.timeout(LONG):
            await self.websocket.wait_closed()

    async def over(self) -> None:
        """Wait until the test says so, and break the connection off."""
        async with asyncio.timeout(LONG):
            await self._gemini.over.wait()
        self.websocket.transport.abort()


class Gemini:
    """A server on a port of its own that runs ``script`` on every connection."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.script: Script = Wire.open
        self.refusal: tuple[int, dict[str, str], str] | None = None
        self.requests: list[Request] = []
        self.received: list[dict[str, Any]] = []
        self.failures: list[BaseException] = []
        self.closes: list[tuple[int | None, str | None]] = []
        self.ended = asyncio.Event()
        self.over = asyncio.Event()
        self.model = "gemini-3.8-live"
        self.port = 0

    def settings(self, **overrides: Any) -> GeminiSettings:
        scheme = "wss" if self.tls else "ws"
        given: dict[str, Any] = {
            "base_url": f"{scheme}://127.0.0.1:{self.port}",
            "api_key": KEY,
            "connect_timeout": LONG,
            "setup_timeout": LONG,
        }
        settings = GeminiSettings(**(given | overrides))
        self.model = settings.model.removeprefix("models/")
        return settings

    def sockets(self) -> int:
        """Ends of connections to or from this server that this process still holds."""
        held = [
            (connection.laddr, connection.raddr)
            for connection in psutil.Process().net_connections("tcp4")
            if connection.status != psutil.CONN_LISTEN and connection.fd != -1
        ]
        return sum(address.port == self.port for addresses in held for address in addresses if address)

    async def handle(self, websocket: ServerConnection) -> None:
        try:
            await self.script(Wire(websocket, self))
            await websocket.wait_closed()
        except ConnectionClosed:
            pass  # the client may leave whenever it likes
        except BaseException as exc:
            self.failures.append(exc)
            raise
        finally:
            self.closes.append((websocket.close_code, websocket.close_reason))
            self.ended.set()

    def answer(self, websocket: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        if self.refusal is None:
            return None
        status, headers, body = self.refusal
        response = websocket.respond(status, body)
        for name, value in headers.items():
            response.headers[name] = value
        return response


async def _serve(gemini: Gemini) -> AsyncIterator[Gemini]:
    async with serve(
        gemini.handle,
        "127.0.0.1",
        0,
        ssl=gemini.tls,
        process_request=gemini.answer,
        compression=None,
        ping_interval=None,
        close_timeout=1,
    ) as server:
        gemini.port = server.sockets[0].getsockname()[1]
        yield gemini
    assert [str(failure) for failure in gemini.failures] == []


@pytest.fixture
async def gemini() -> AsyncIterator[Gemini]:
    async for served in _serve(Gemini()):
        yield served


@pytest.fixture
async def other_gemini() -> AsyncIterator[Gemini]:
    async for served in _serve(Gemini()):
        yield served


@pytest.fixture
async def tls_gemini(server_tls: ssl.SSLContext) -> AsyncIterator[Gemini]:
    async for served in _serve(Gemini(server_tls)):
        yield served


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PEM file with a self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ari-gemini tests")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


@pytest.fixture(scope="session")
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines
