"""The broker between workers and the simulated Gemini: what it gives, refuses, and keeps to itself."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from ari_gemini.errors import (
    ConfigError,
    KeyRefused,
    MalformedMessage,
    ModelRefused,
    QuotaExceeded,
    SessionError,
    SessionUnavailable,
    SetupRefused,
)
from ari_gemini.gemini import broker as subject
from ari_gemini.gemini.broker import Broker, checked_setup, serve
from ari_gemini.gemini.session import open_session
from ari_gemini.gemini.settings import BrokerSettings, GeminiSettings
from ari_gemini.gemini.tokens import BrokerClient, Minter, Token, TokenSource
from ari_gemini.realtime.session import SessionSettings
from ari_gemini.simulator.gemini_live import GeminiSimulator
from ari_gemini.simulator.scenario import load_scenario

LONG = 30.0
KEY = "AIza-the-long-key"
SECRET = "broker-secret-0123456789"
MODEL = "models/gemini-3.8-live"
MODELS = ("gemini-3.8-live",)
BEARER = {"Authorization": f"Bearer {SECRET}"}
REQUEST = {"setup": {"model": MODEL}}
MALFORMED = [
    f"POST /v1/tokens HTTP/1.1\r\nHost: x\r\n{rest}\r\n\r\n".encode()
    for rest in (
        f"Authorization: Bearer {SECRET}\r",
        f"Authorization : Bearer {SECRET}",
        f"Authorization: Bearer \x01{SECRET}",
        f"Authorization: Bearer {SECRET}\r\nHost: y",
        f"Authorization: Bearer {SECRET}\r\nX: {SECRET * 900}",
        f"Authorization: Bearer {SECRET}\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}",
        f"Authorization: Bearer wrong\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}",
        f"Authorization: Bearer {SECRET}\r\nContent-Encoding: gzip\r\nContent-Length: 24\r\n\r\n{SECRET}",
    )
] + [
    f"POST /v1/tokens HTTP/1.1\r\nAuthorization: Bearer {SECRET}\r\n\r\n".encode(),
    f"{SECRET} / HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    f"GET http://[{SECRET} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    f"GET http://xn--/{SECRET} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET}\r\n\r\n".encode(),
]
"""What is no HTTP, or less than a request, with the secret in it."""
Until = Callable[[Callable[[], object]], Awaitable[None]]


class World:
    """A simulated Gemini, a broker that has its key, and a clock for the broker's limits."""

    def __init__(self, **broker: Any) -> None:
        self.sim = GeminiSimulator(valid_keys={KEY})
        self.now = 1000.0
        self.minter: TokenSource | None = None
        self._given = broker
        self._stack: list[Any] = []

    async def __aenter__(self) -> World:
        await self.sim.start()
        self.settings = GeminiSettings(
            base_url=self.sim.url, api_key=KEY, broker_secret=SECRET, connect_timeout=LONG
        )
        self.google = Minter(self.settings)
        settings = BrokerSettings(**({"listen": "127.0.0.1:0"} | self._given))
        self.broker = Broker(self.settings, settings, self, monotonic=lambda: self.now)
        _, port = await self.broker.start()
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(LONG))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()
        await self.broker.close()
        await self.google.close()
        await self.sim.stop()

    async def mint(self, setup: Any) -> Token:
        return await (self.minter or self.google).mint(setup)

    async def close(self) -> None: ...

    def worker(self, **given: Any) -> GeminiSettings:
        """Settings of a process that has no key."""
        fixed = {
            "base_url": self.sim.url,
            "auth": "ephemeral",
            "broker_url": self.url,
            "broker_secret": SECRET,
            "connect_timeout": LONG,
            "setup_timeout": LONG,
        }
        return GeminiSettings(**(fixed | given))

    async def ask(self, path: str = "/v1/tokens", **options: Any) -> tuple[int, Any, Any]:
        """Status, body and headers."""
        given = {"method": "POST", "headers": BEARER, "json": REQUEST} | options
        async with self.http.request(given.pop("method"), self.url + path, **given) as response:
            return response.status, await response.json(), response.headers

    async def say(self, data: bytes) -> bytes:
        """Send these bytes; what comes until the broker ends the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        answer = b""
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            writer.write(data)
            async with asyncio.timeout(LONG):
                while more := await reader.read(65536):
                    answer += more
        return answer

    @property
    def door(self) -> Any:
        """Of the broker; it must be listening."""
        assert self.broker._door is not None
        return self.broker._door

    def sockets(self) -> int:
        """Connections that the broker's side holds a descriptor for."""
        held = psutil.Process().net_connections("tcp4")
        return sum(
            one.laddr.port == self.port and one.fd != -1 and one.status != psutil.CONN_LISTEN for one in held
        )


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as made:
        yield made


# --- what it gives ---


async def test_a_worker_without_a_key_has_its_session(world: World) -> None:
    settings = world.worker()
    client = BrokerClient(settings)
    session = await open_session(settings, SessionSettings(instructions="Be kind."), tokens=client)
    await session.close()
    await client.close()
    [minted] = world.sim.tokens.minted
    assert minted.used == 1
    assert minted.setup is not None
    assert minted.setup["systemInstruction"] == {"parts": [{"text": "Be kind."}]}
    assert "model" in (minted.mask or ())
    connection = await world.sim.wait_session()
    assert connection.headers["authorization"] == f"Token {minted.name}"
    assert KEY not in str(dict(connection.headers))


async def test_the_answer(world: World) -> None:
    status, body, headers = await world.ask()
    [minted] = world.sim.tokens.minted
    assert status == 200
    assert body.keys() == {"name", "expires_in"}
    assert body["name"] == minted.name
    assert 7190 < body["expires_in"] <= 7200
    assert headers["Cache-Control"] == "no-store"
    assert headers["Connection"] == "close"


async def test_uses_and_times_are_the_brokers_to_decide(world: World) -> None:
    worker = world.worker(token_uses=0, token_lifetime=70_000, token_lock=False)
    client = BrokerClient(worker)
    await client.mint({"model": MODEL})
    await client.close()
    [minted] = world.sim.tokens.minted
    assert minted.uses == 1
    assert minted.mask is not None
    assert (minted.expires - minted.start_before).total_seconds() == 7200 - 60


async def test_health(world: World) -> None:
    status, body, _ = await world.ask("/health", method="GET", headers={}, json=None)
    assert (status, body) == (200, {"status": "ok"})


async def test_over_tls(server_tls: Any, certificate: Path) -> None:
    async with World(tls_cert=certificate, tls_key=certificate) as world:
        url = world.url.replace("http:", "https:")
        client = BrokerClient(world.worker(broker_url=url, broker_ca_file=certificate))
        await client.mint({"model": MODEL})
        await client.close()
        assert len(world.sim.tokens.minted) == 1


# --- whom and what it refuses ---


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong-secret-0123456789"},
        {"Authorization": f"Bearer {SECRET} "[:-2]},
        {"Authorization": f"bearer {SECRET}"},
        {"Authorization": f"Token {SECRET}"},
        {"Authorization": SECRET},
        {"x-goog-api-key": KEY},
    ],
)
async def test_without_the_secret(world: World, headers: dict[str, str]) -> None:
    status, body, answered = await world.ask(headers=headers)
    assert status == 401
    assert answered["WWW-Authenticate"] == "Bearer"
    assert body == {"error": {"kind": "KeyRefused", "message": "refuses broker_secret"}}
    assert world.sim.tokens.minted == []


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/tokens"), ("POST", "/"), ("POST", "/health"), ("PUT", "/v1/tokens")]
)
async def test_nothing_else_is_there(world: World, method: str, path: str) -> None:
    status, body, _ = await world.ask(path, method=method)
    assert (status, body["error"]["kind"]) == (404, "SessionRefused")


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (b"", SetupRefused, "wants"),
        (b"[]", SetupRefused, "wants"),
        (b"{", SetupRefused, "wants"),
        (b"[" * 100_000, SetupRefused, "wants"),
        ({"setup": []}, SetupRefused, "wants"),
        ({"setup": {}}, ModelRefused, "only for: gemini-3.8-live"),
        ({"setup": {"model": 1}}, ModelRefused, "only for"),
        ({"setup": {"model": "models/gemini-dearer"}}, ModelRefused, "only for"),
        ({"setup": {"model": MODEL, "sessionResumption": {}}}, SetupRefused, "fields of the setup"),
        ({"setup": {"model": MODEL, "x" * 900: 1}}, SetupRefused, "fields of the setup"),
        ({"setup": {"model": MODEL, "tools": {}}}, SetupRefused, "no tools but"),
        ({"setup": {"model": MODEL, "tools": [{"googleSearch": {}}]}}, SetupRefused, "no tools but"),
        (
            {"setup": {"model": MODEL, "tools": [{"functionDeclarations": [], "codeExecution": {}}]}},
            SetupRefused,
            "no tools but",
        ),
    ],
    ids=range(13),
)
def test_setups_that_get_no_token(request_: Any, error: type, words: str) -> None:
    body = request_ if isinstance(request_, bytes) else json.dumps(request_).encode()
    with pytest.raises(SessionError, match=words) as caught:
        checked_setup(body, MODELS)
    assert type(caught.value) is error
    assert len(str(caught.value)) < 300


def test_a_setup_that_gets_one() -> None:
    setup = {"model": "gemini-3.8-live", "tools": [{"functionDeclarations": [{"name": "f"}]}]}
    assert checked_setup(json.dumps({"setup": setup}).encode(), MODELS) == setup


async def test_models_are_those_of_the_broker() -> None:
    async with World(models=("models/gemini-3.1-flash-live-preview",)) as world:
        client = BrokerClient(world.worker())
        with pytest.raises(ModelRefused, match="only for: gemini-3"):
            await client.mint({"model": MODEL})
        await client.mint({"model": "models/gemini-3.1-flash-live-preview"})
        await client.close()


async def test_a_body_too_long(world: World) -> None:
    status, body, _ = await world.ask(json=None, data=b" " * (subject.MAX_BODY + 1))
    assert (status, body["error"]["kind"]) == (413, "SetupRefused")


async def test_a_body_that_never_comes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "READ_SECONDS", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    head = (
        f"POST /v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nAuthorization: Bearer {SECRET}\r\n\r\n"
    )
    writer.write(head.encode())
    async with asyncio.timeout(LONG):
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    writer.close()


@pytest.mark.parametrize("head", [b"", b"POST /v1/to"])
async def test_who_does_not_ask_is_let_go(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "READ_SECONDS", 0.2)
    async with World() as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(head)
        async with asyncio.timeout(LONG):
            await reader.read()
        writer.close()


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
async def test_connections_have_a_limit_from_accept_on(
    tls: bool, certificate: Path, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    monkeypatch.setattr(subject, "READ_SECONDS", 2 * LONG)
    limit = subject.MAX_CONNECTIONS
    files = {"tls_cert": certificate, "tls_key": certificate} if tls else {}
    async with World(**files) as world, contextlib.AsyncExitStack() as stack:
        door = world.door
        lines = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(limit - 6)]
        at_once = (asyncio.open_connection("127.0.0.1", world.port) for _ in range(80))
        lines += await asyncio.gather(*at_once)
        for _, writer in lines:
            stack.enter_context(contextlib.closing(writer))
        ended = [asyncio.create_task(reader.read()) for reader, _ in lines]
        await until(lambda: sum(end.done() for end in ended) == 74)
        assert (door.connections, world.sockets()) == (limit, limit)
        assert len(door.greeting) == (limit if tls else 0)
        still = [writer for end, (_, writer) in zip(ended, lines, strict=True) if not end.done()]
        still[0].close()
        still[1].write(b"GET / HTTP/1.0\r\n\r\n")  # over TLS: no handshake
        still[2].transport.abort()
        await until(lambda: door.connections == limit - 3 and world.sockets() == limit - 3)
        url = world.url.replace("http:", "https:") if tls else world.url
        client = BrokerClient(world.worker(broker_url=url, broker_ca_file=certificate if tls else None))
        await client.mint({"model": MODEL})
        await client.close()
        for _, writer in lines:
            writer.close()
        await until(lambda: not door.connections and not world.sockets())
        await asyncio.gather(*ended, return_exceptions=True)


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"])
async def test_who_does_not_shake_hands_is_let_go(
    said: bytes, certificate: Path, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    monkeypatch.setattr(subject, "READ_SECONDS", 0.2)
    async with World(tls_cert=certificate, tls_key=certificate) as world:
        assert await world.say(said) == b""
        door = world.door
        await until(lambda: not door.connections and not world.sockets())


async def test_who_shakes_hands_when_it_stops_is_let_go(
    certificate: Path, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    monkeypatch.setattr(subject, "READ_SECONDS", 2 * LONG)
    async with World(tls_cert=certificate, tls_key=certificate) as world:
        door = world.door
        asking = asyncio.create_task(world.say(b""))
        await until(lambda: door.greeting)
        await world.broker.close()
        assert await asking == b""
        assert door.connections == 0


async def test_a_handshake_that_is_there_at_once_and_a_request_that_comes_with_its_end(
    certificate: Path,
) -> None:
    context = ssl.create_default_context(cafile=str(certificate))
    received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(received, to_send, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    async with World(tls_cert=certificate, tls_key=certificate) as world, asyncio.timeout(LONG):
        sock = socket.create_connection(("127.0.0.1", world.port))
        sock.sendall(to_send.read())  # before the broker has accepted
        reader, writer = await asyncio.open_connection(sock=sock)
        with contextlib.closing(writer):
            while client.version() is None:
                received.write(await reader.read(65536))
                with contextlib.suppress(ssl.SSLWantReadError):
                    client.do_handshake()
            client.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            writer.write(to_send.read())
            answer = b""
            while not answer.endswith(b'{"status": "ok"}'):
                received.write(await reader.read(65536))
                with contextlib.suppress(ssl.SSLWantReadError):
                    while more := client.read():
                        answer += more


async def test_what_no_request_can_be_made_of_keeps_no_place(world: World, until: Until) -> None:
    door = world.door
    assert await world.say(b"GET http://xn--/ HTTP/1.1\r\nHost: x\r\n\r\n") == b""
    await until(lambda: door.connections == 0)


# --- how often ---


async def test_one_client_has_its_limit_right_or_wrong() -> None:
    async with World(client_rate=0.5, client_burst=3) as world:
        statuses = [(await world.ask(headers={}))[0] for _ in range(3)]
        status, body, headers = await world.ask()
        assert [*statuses, status] == [401, 401, 401, 429]
        assert headers["Retry-After"] == "2"
        assert body["error"] == {"kind": "SessionUnavailable", "message": "is asked too often"}
        assert world.sim.tokens.minted == []
        world.now += 2.0
        assert (await world.ask())[0] == 200


async def test_all_together_have_theirs_and_strangers_do_not_use_it_up() -> None:
    async with World(total_rate=0.1, total_burst=2) as world:
        assert [(await world.ask(headers={}))[0] for _ in range(5)] == [401] * 5
        answers = [await world.ask() for _ in range(3)]
        assert [status for status, _, _ in answers] == [200, 200, 429]
        assert answers[2][2]["Retry-After"] == "10"
        client = BrokerClient(world.worker())
        with pytest.raises(SessionUnavailable, match="is asked too often"):
            await client.mint({"model": MODEL})
        await client.close()


# --- what it says of Google's refusals ---


class Failing:
    def __init__(self, error: SessionError) -> None:
        self.error = error

    async def mint(self, setup: Any) -> Token:
        raise self.error

    async def close(self) -> None: ...


GOSSIP = "project 4711 of anna@shop.test says AIza-the-long-key"


@pytest.mark.parametrize(
    ("error", "status", "at_worker"),
    [
        (KeyRefused(GOSSIP, 400), 502, KeyRefused),
        (QuotaExceeded(GOSSIP, 429), 503, QuotaExceeded),
        (SetupRefused(GOSSIP, 400), 422, SetupRefused),
        (SessionUnavailable(GOSSIP), 503, SessionUnavailable),
        (MalformedMessage(GOSSIP), 502, subject.SessionError),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_googles_refusals_are_told_in_other_words(
    world: World, error: SessionError, status: int, at_worker: type
) -> None:
    world.minter = Failing(error)
    got, body, _ = await world.ask()
    assert got == status
    for word in ("4711", "anna", KEY):
        assert word not in str(body)
    client = BrokerClient(world.worker())
    with pytest.raises(at_worker) as caught:
        await client.mint({"model": MODEL})
    await client.close()
    assert "anna" not in str(caught.value)


async def test_a_quota_at_google_reaches_the_worker_as_one(world: World) -> None:
    world.sim.scenario = load_scenario("quota")
    client = BrokerClient(world.worker())
    with pytest.raises(QuotaExceeded, match="has no quota left at the service"):
        await client.mint({"model": MODEL})
    await client.close()


# --- what it keeps to itself ---


class Ears:
    """Everything that is logged, tracebacks included, and what the event loop complains of."""

    def __init__(self, caplog: pytest.LogCaptureFixture, logs: list[Any]) -> None:
        self._caplog = caplog
        self._logs = logs
        caplog.set_level(logging.DEBUG)

    def lines(self) -> list[str]:
        gc.collect()  # tasks that failed unheard say so now
        formatter = logging.Formatter()
        records = (formatter.format(record) for record in self._caplog.records)
        return [line for text in (*map(str, self._logs), *records) for line in text.splitlines()]


@pytest.fixture
def ears(caplog: pytest.LogCaptureFixture, logged: list[Any]) -> Ears:
    return Ears(caplog, logged)


async def test_no_secret_is_in_any_log(ears: Ears, logged: list[Any]) -> None:
    async with World() as world:
        await world.ask()
        await world.ask(headers={"Authorization": "Bearer what-somebody-tried"})
        world.now += 2
        await world.ask(json={"setup": {"model": "models/none"}})
        world.sim.scenario = load_scenario("refuse_key")
        await world.ask()
        [minted] = world.sim.tokens.minted
    events = [line["event"] for line in logged]
    assert events.count("token minted") == 1
    assert events.count("token not minted") == 1
    assert events.count("request refused") >= 2
    for secret in (KEY, SECRET, minted.name, "what-somebody-tried"):
        assert not any(secret in line for line in ears.lines())


@pytest.mark.parametrize("request_", MALFORMED, ids=range(len(MALFORMED)))
async def test_what_cannot_be_read_is_neither_logged_nor_answered(request_: bytes, ears: Ears) -> None:
    async with World() as world:
        answer = await world.say(request_)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1:2] in ([b"400"], []), "and nothing where aiohttp makes no request of it"
    assert not body or json.loads(body)["error"]["message"] == "cannot read the request"
    assert SECRET.encode() not in answer
    heard = ears.lines()
    assert not any(SECRET in line for line in heard)
    assert not any("Traceback" in line or "HTTP/1" in line for line in heard)
    assert sum("request refused" in line for line in heard) == 1


async def test_a_flood_of_what_cannot_be_read_fills_no_log_and_has_the_limit_of_a_client(ears: Ears) -> None:
    async with World(client_burst=20) as world:
        before = len(ears.lines())
        answers = [await world.say(MALFORMED[number % len(MALFORMED)]) for number in range(200)]
        assert sum(answer.split()[1:2] == [b"429"] for answer in answers) > 150
        assert len(ears.lines()) - before == 1


async def test_a_defect_is_logged_by_its_place_and_not_in_its_words(world: World, ears: Ears) -> None:
    async def mint(setup: Any) -> Token:
        raise LookupError(f"no {setup}, {SECRET}")

    world.minter = Failing(SessionError(""))
    world.minter.mint = mint  # type: ignore[method-assign]
    status, body, _ = await world.ask()
    assert (status, body["error"]["kind"]) == (500, "SessionUnavailable")
    [line] = [line for line in ears.lines() if "request failed" in line]
    assert "LookupError" in line
    assert "test_broker.py:" in line
    assert not any(SECRET in line or MODEL in line for line in ears.lines())


async def test_a_flood_of_refusals_does_not_fill_the_log() -> None:
    with capture_logs() as logs:
        async with World() as world:
            for _ in range(20):
                await world.ask(headers={})
            world.now += 1.0
            await world.ask(headers={})
    lines = [line for line in logs if line["event"] == "request refused"]
    assert [line["count"] for line in lines] == [1, 20]
    assert lines[0]["client"] == "127.0.0.1"


# --- beginning and end ---


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"broker_secret": None}, "gemini.broker_secret: missing; set ARI_GEMINI_BROKER_SECRET"),
        ({"token_lock": False}, "gemini.token_lock: a broker's tokens are always locked"),
    ],
)
def test_a_broker_that_would_be_open_is_none(given: dict[str, Any], words: str) -> None:
    settings = GeminiSettings(**({"api_key": KEY, "broker_secret": SECRET} | given))
    with pytest.raises(ConfigError, match=words):
        Broker(settings, BrokerSettings(), Minter(settings))


async def test_addresses_and_certificates_that_cannot_be_had(tmp_path: Path) -> None:
    settings = GeminiSettings(api_key=KEY, broker_secret=SECRET)
    pem = tmp_path / "x.pem"
    pem.write_text("nothing")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        for broker, words in (
            (BrokerSettings(listen=listen), f"cannot listen on {listen}"),
            (BrokerSettings(tls_cert=pem, tls_key=pem), r"broker\.tls_cert"),
        ):
            with pytest.raises(ConfigError, match=words):
                await serve(settings, broker, asyncio.Event())
    with pytest.raises(ConfigError, match="api_key: missing"):
        await serve(GeminiSettings(broker_secret=SECRET), BrokerSettings(), asyncio.Event())


async def test_a_request_that_is_being_answered_when_it_stops_is_answered(world: World) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Failing):
        async def mint(self, setup: Any) -> Token:
            begun.set()
            await go_on.wait()
            return Token(SecretStr("auth_tokens/late"), world.now + 1e10)

    world.minter = Slow(SessionError(""))
    asking = asyncio.create_task(world.ask())
    async with asyncio.timeout(LONG):
        await begun.wait()
        closing = asyncio.create_task(world.broker.close())
        await asyncio.sleep(0)
        go_on.set()
        assert (await asking)[0] == 200
        await closing
        with pytest.raises(aiohttp.ClientConnectionError):
            await world.ask()


async def test_as_a_process(tmp_path: Path) -> None:
    """Its secrets come by the environment and by a file; the list of processes shows neither."""
    async with GeminiSimulator(valid_keys={KEY}) as sim:
        secret, config = tmp_path / "secret", tmp_path / "c.toml"
        secret.write_text(f"{SECRET}\n")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config.write_text(
            f'[ari]\nusername = "x"\npassword_file = "/nonexistent"\n[broker]\nlisten = "127.0.0.1:{port}"\n'
            f'[gemini]\nbase_url = "{sim.url}"\n[log]\nformat = "json"\nlevel = "debug"\n'
        )
        environ = {**os.environ, "GEMINI_API_KEY": KEY, "ARI_GEMINI_BROKER_SECRET_FILE": str(secret)}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ari_gemini", "token", "serve", "--config", str(config)),
            env=environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(LONG):
                assert process.stdout is not None
                line = await process.stdout.readline()
                assert b"broker listens" in line
                settings = GeminiSettings(
                    auth="ephemeral",
                    base_url=sim.url,
                    broker_url=f"http://127.0.0.1:{port}",
                    broker_secret=SECRET,
                )
                client = BrokerClient(settings)
                token = await client.mint({"model": MODEL})
                await client.close()
                shown = " ".join(psutil.Process(process.pid).cmdline())
                process.send_signal(signal.SIGTERM)
                output = line + await process.stdout.read()
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert b"token minted" in output
    assert b"broker stopped" in output
    for hidden in (KEY, SECRET, token.name.get_secret_value()):
        assert hidden not in shown
        assert hidden.encode() not in output
