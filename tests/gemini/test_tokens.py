"""Tokens minted at the simulated Gemini, sessions opened and resumed with them, and every way it can fail."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from ari_gemini.errors import (
    HandleRefused,
    KeyRefused,
    MalformedMessage,
    QuotaExceeded,
    SessionDropped,
    SessionError,
    SessionRefused,
    SessionUnavailable,
    SetupRefused,
)
from ari_gemini.gemini import tokens as subject
from ari_gemini.gemini.session import GeminiSession, open_session
from ari_gemini.gemini.settings import GeminiSettings
from ari_gemini.gemini.tokens import BrokerClient, Minter, Token, open_with_token, token_source
from ari_gemini.realtime.session import Resume, SessionSettings
from ari_gemini.simulator.gemini_live import GeminiSimulator

LONG = 30.0
KEY = "AIza-test-key"
SECRET = "broker-secret-0123456789"
NAME = "auth_tokens/test-token"
SETUP = {"model": "models/gemini-3.8-live", "sessionResumption": {}}
SESSION = SessionSettings(instructions="Be kind.")

Answer = tuple[int, bytes] | bytes


def settings_for(base: str, **given: Any) -> GeminiSettings:
    fixed = {"base_url": base, "api_key": KEY, "connect_timeout": LONG, "setup_timeout": LONG}
    return GeminiSettings(**(fixed | {"auth": "ephemeral"} | given))


@pytest.fixture
async def sim() -> AsyncIterator[GeminiSimulator]:
    async with GeminiSimulator(valid_keys={KEY}) as running:
        running.scenario = running.scenario.model_copy(update={"resume_hold": 0.0})
        yield running


@pytest.fixture
async def minter(sim: GeminiSimulator) -> AsyncIterator[Minter]:
    made = Minter(settings_for(sim.url))
    yield made
    await made.close()


class Http:
    """An HTTP server that answers everything with the same, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answer: Answer | None = (200, json.dumps({"name": NAME}).encode())
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.gone = asyncio.Event()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.requests.append((first, headers, body))
            if isinstance(self.answer, bytes):
                writer.write(self.answer)
            elif self.answer is not None:
                status, text = self.answer
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(text), text))
            else:
                await reader.read()
            await writer.drain()
        writer.close()
        self.gone.set()


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    made = Http()
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0) as server:
        made.port = server.sockets[0].getsockname()[1]
        yield made


async def refused(settings: GeminiSettings, hidden: str = KEY) -> SessionError:
    source = token_source(settings)
    assert source is not None
    try:
        async with asyncio.timeout(LONG):
            with pytest.raises(SessionError) as caught:
                await source.mint(SETUP)
    finally:
        await source.close()
    assert hidden not in str(caught.value)
    return caught.value


# --- tokens ---


def test_a_token_hides_its_name_and_travels_as_a_credential() -> None:
    token = Token(SecretStr(NAME), 1234.0)
    for shown in (repr(token), str(token), repr(token.credential), f"{token.credential}"):
        assert "test-token" not in shown
    assert Token.of(token.credential) == token


@pytest.mark.parametrize("credential", ["", "x", NAME, f"soon {NAME}"])
def test_any_other_credential_is_a_token_that_has_ended(credential: str) -> None:
    assert not Token.of(SecretStr(credential)).good_for(0.0, 1.0)


def test_how_long_a_token_is_good() -> None:
    token = Token(SecretStr(NAME), 100.0)
    assert token.good_for(30.0, 69.9)
    assert not token.good_for(30.0, 70.0)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"auth": "api_key"}, type(None)),
        ({"auth": "ephemeral"}, Minter),
        ({"auth": "ephemeral", "broker_url": "http://b", "broker_secret": SECRET}, BrokerClient),
    ],
)
def test_where_tokens_come_from(given: dict[str, Any], kind: type) -> None:
    assert type(token_source(GeminiSettings(**given))) is kind


# --- minting ---


async def test_what_is_sent(http: Http) -> None:
    minter = Minter(settings_for(f"ws://127.0.0.1:{http.port}/gate", api_version="v1alpha"), now=lambda: 1e9)
    token = await minter.mint(SETUP)
    await minter.close()
    [(first, headers, body)] = http.requests
    assert first == "POST /gate/v1alpha/auth_tokens HTTP/1.1"
    assert headers["x-goog-api-key"] == KEY
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("ari-gemini/")
    assert "authorization" not in headers
    assert "cookie" not in headers
    assert json.loads(body)["expireTime"] == "2001-09-09T03:46:40.000Z"
    assert (token.name.get_secret_value(), token.expires) == (NAME, 1e9 + 7200)


async def test_the_simulated_service_takes_all_of_it(sim: GeminiSimulator, minter: Minter) -> None:
    began = time.time()
    token = await minter.mint(SETUP)
    assert began + 7200 <= token.expires <= time.time() + 7200
    [minted] = sim.tokens.minted
    assert minted.name == token.name.get_secret_value()
    assert minted.setup == {"model": "models/gemini-3.8-live"}
    assert minted.mask is not None
    assert not any(path.startswith("sessionResumption") for path in minted.mask)


async def test_one_session_of_connections_which_its_owner_closes(http: Http) -> None:
    minter = Minter(settings_for(f"ws://127.0.0.1:{http.port}"))
    await asyncio.gather(*(minter.mint(SETUP) for _ in range(5)))
    session = minter._http._session
    assert session is not None
    await minter.close()
    assert session.closed
    await minter.close()
    await minter.mint(SETUP)
    await minter.close()
    assert len(http.requests) == 6


GOOGLES = b'{"error": {"message": "%s (%s)"}}'


@pytest.mark.parametrize(
    ("status", "said", "error"),
    [
        (302, b"elsewhere", SessionRefused),
        (400, b"API key not valid. Please pass a valid API key.", KeyRefused),
        (400, b"Unknown name", SetupRefused),
        (401, b"no", KeyRefused),
        (403, b"no", KeyRefused),
        (404, b"nothing", SessionRefused),
        (418, b"tea", SessionRefused),
        (429, b"quota", QuotaExceeded),
        (500, b"oh", SessionUnavailable),
        (503, b"oh", SessionUnavailable),
    ],
)
async def test_googles_refusals(http: Http, status: int, said: bytes, error: type) -> None:
    http.answer = (status, GOOGLES % (said, f"{KEY} {NAME}".encode()))
    caught = await refused(settings_for(f"ws://127.0.0.1:{http.port}"))
    assert type(caught) is error
    assert caught.code == status
    assert said.decode() in str(caught)
    assert "[secret]" in str(caught)
    assert "test-token" not in str(caught)
    assert len(http.requests) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, b"hello"), "answers with no JSON object"),
        ((200, b"[]"), "answers with no JSON object"),
        ((200, b"{}"), "answers with no token"),
        ((200, b'{"name": 1}'), "answers with no token"),
        ((200, b'{"name": "tokens/x"}'), "answers with no token"),
        ((200, b'{"name": "auth_tokens/x\\r\\nX-Evil: 1"}'), "answers with no token"),
        ((200, b"x" * (subject.MAX_ANSWER + 1)), "answers with more than 65536 bytes"),
    ],
    ids=range(7),
)
async def test_answers_that_are_none(http: Http, answer: Answer, words: str) -> None:
    http.answer = answer
    caught = await refused(settings_for(f"ws://127.0.0.1:{http.port}"))
    assert type(caught) is MalformedMessage
    assert words in str(caught)


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"]
)
async def test_servers_that_speak_no_http(http: Http, answer: bytes) -> None:
    http.answer = answer
    caught = await refused(settings_for(f"ws://127.0.0.1:{http.port}"))
    assert type(caught) is SessionUnavailable
    assert f"no HTTP answer from 127.0.0.1:{http.port}" in str(caught)


async def test_a_server_that_never_answers(http: Http) -> None:
    http.answer = None
    caught = await refused(settings_for(f"ws://127.0.0.1:{http.port}", connect_timeout=0.5))
    assert type(caught) is SessionUnavailable
    assert str(caught) == f"127.0.0.1:{http.port} minted no token within 0.5 s"
    async with asyncio.timeout(LONG):
        await http.gone.wait()


async def test_cancelling_leaves_no_socket(http: Http) -> None:
    http.answer = None
    minter = Minter(settings_for(f"ws://127.0.0.1:{http.port}"))
    minting = asyncio.create_task(minter.mint(SETUP))
    async with asyncio.timeout(LONG):
        while not http.requests:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        minting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await minting
        await http.gone.wait()
    await minter.close()


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        caught = await refused(settings_for(f"ws://127.0.0.1:{port}"))
    assert type(caught) is SessionUnavailable
    assert f"no connection to 127.0.0.1:{port}" in str(caught)


async def test_tls(certificate: Path, server_tls: Any) -> None:
    async with GeminiSimulator(ssl=server_tls, valid_keys={KEY}) as sim:
        stranger = await refused(settings_for(sim.url))
        assert type(stranger) is SessionRefused
        assert "is not trusted" in str(stranger)
        minter = Minter(settings_for(sim.url, ca_file=certificate))
        await minter.mint(SETUP)
        await minter.close()
        assert len(sim.tokens.minted) == 1


async def test_the_proxy_of_the_settings_is_used_and_not_told(http: Http) -> None:
    http.answer = (407, b"who?")
    proxy = f"http://user:pass-word@127.0.0.1:{http.port}"
    caught = await refused(settings_for("ws://gemini.test", proxy=proxy), "pass-word")
    [(first, headers, _)] = http.requests
    assert first == "POST http://gemini.test/v1beta/auth_tokens HTTP/1.1"
    assert headers["proxy-authorization"] == "Basic dXNlcjpwYXNzLXdvcmQ="
    assert type(caught) is SessionRefused


# --- the broker's client ---


def brokered(port: int, **given: Any) -> GeminiSettings:
    broker = {"broker_url": f"http://127.0.0.1:{port}/gate/", "broker_secret": SECRET, "api_key": None}
    return settings_for("ws://gemini.test", **(broker | given))


async def test_what_the_broker_is_asked(http: Http) -> None:
    http.answer = (200, json.dumps({"name": NAME, "expires_in": 90}).encode())
    client = BrokerClient(brokered(http.port, proxy="http://proxy.test:1"), now=lambda: 1000.0)
    token = await client.mint({"model": "m", "sessionResumption": {"handle": "h"}, "historyConfig": {}})
    await client.close()
    [(first, headers, body)] = http.requests
    assert first == "POST /gate/v1/tokens HTTP/1.1"
    assert headers["authorization"] == f"Bearer {SECRET}"
    assert "x-goog-api-key" not in headers
    assert json.loads(body) == {"setup": {"model": "m"}}
    assert token == Token(SecretStr(NAME), 1090.0)


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (401, {}, KeyRefused, "refuses broker_secret"),
        (404, {}, SessionRefused, "is no broker"),
        (429, {}, SessionUnavailable, "is asked too often"),
        (502, {}, SessionUnavailable, "is not to be had now"),
        (301, {}, SessionRefused, "redirects"),
        (502, {"kind": "KeyRefused", "message": "has a bad key"}, KeyRefused, "has a bad key (HTTP 502)"),
        (503, {"kind": "QuotaExceeded", "message": ""}, QuotaExceeded, "is not to be had now"),
        (422, {"kind": "SetupRefused", "message": f"no {SECRET}"}, SetupRefused, "no [secret]"),
        (422, {"kind": "Exception"}, SessionRefused, "gives no token"),
        (500, {"kind": ["x"], "message": 3}, SessionUnavailable, "3 (HTTP 500)"),
    ],
)
async def test_the_brokers_refusals(
    http: Http, status: int, body: dict[str, Any], error: type, words: str
) -> None:
    http.answer = (status, json.dumps({"error": body}).encode())
    caught = await refused(brokered(http.port), SECRET)
    assert type(caught) is error
    assert words in str(caught)
    assert f"the broker 127.0.0.1:{http.port}" in str(caught)
    assert caught.code == status


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"name": NAME}, "does not say how long"),
        ({"name": NAME, "expires_in": "long"}, "does not say how long"),
        ({"name": NAME, "expires_in": -1}, "does not say how long"),
        ({"name": "x", "expires_in": 1}, "answers with no token"),
    ],
)
async def test_answers_of_a_broker_that_are_none(http: Http, told: dict[str, Any], words: str) -> None:
    http.answer = (200, json.dumps(told).encode())
    caught = await refused(brokered(http.port), SECRET)
    assert type(caught) is MalformedMessage
    assert words in str(caught)


# --- which token a session is opened with ---


class Source:
    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def mint(self, setup: Any) -> Token:
        self.asked.append(setup)
        return Token(SecretStr(f"auth_tokens/{len(self.asked)}"), 1000.0)

    async def close(self) -> None: ...


OLD = Token(SecretStr("auth_tokens/old"), 500.0)


async def opened(
    source: Source, credential: SecretStr | None, now: float, *refuse: str, error: type = KeyRefused
) -> list[str]:
    """The names of the tokens that were tried."""
    tried: list[str] = []

    async def attempt(token: Token) -> None:
        tried.append(token.name.get_secret_value().removeprefix("auth_tokens/"))
        if tried[-1] in refuse:
            raise error("no")

    with contextlib.suppress(SessionError):
        await open_with_token(source, b'{"setup": {"model": "m"}}', credential, attempt, now=lambda: now)
    return tried


async def test_a_first_connection_mints() -> None:
    source = Source()
    assert await opened(source, None, 0.0) == ["1"]
    assert source.asked == [{"model": "m"}]


@pytest.mark.parametrize(
    ("now", "refuse", "tried"),
    [
        (469.9, (), ["old"]),
        (470.0, (), ["1"]),
        (0.0, ("old",), ["old", "1"]),
        (0.0, ("old", "1"), ["old", "1"]),
    ],
)
async def test_a_later_one_shows_the_same_token_while_it_is_good(
    now: float, refuse: tuple[str, ...], tried: list[str]
) -> None:
    assert await opened(Source(), OLD.credential, now, *refuse) == tried


@pytest.mark.parametrize("error", [HandleRefused, SessionUnavailable, QuotaExceeded, SetupRefused])
async def test_another_token_is_no_answer_to_other_errors(error: type) -> None:
    assert await opened(Source(), OLD.credential, 0.0, "old", error=error) == ["old"]


# --- whole sessions ---

Open = Callable[..., Awaitable[GeminiSession]]


@pytest.fixture
def open_with(sim: GeminiSimulator, minter: Minter) -> Open:
    async def start(resume: Resume | None = None, session: SessionSettings = SESSION) -> GeminiSession:
        async with asyncio.timeout(LONG):
            return await open_session(settings_for(sim.url), session, resume=resume, tokens=minter)

    return start


async def resume_of(session: GeminiSession) -> Resume:
    """What the session is resumed with, once the service has said so; the session is closed."""
    async with asyncio.timeout(LONG):
        while session.resume is None:
            await session.receive()
    await session.close()
    return session.resume


async def test_a_call_goes_on_with_its_one_token(sim: GeminiSimulator, open_with: Open) -> None:
    resume = await resume_of(await open_with())
    for _ in range(2):
        resume = await resume_of(await open_with(resume))
    [token] = sim.tokens.minted
    assert (token.used, token.resumed) == (1, 2)
    for number in (1, 2, 3):
        session = await sim.wait_session(number)
        assert session.path.endswith(".BidiGenerateContentConstrained")
        assert session.headers["authorization"] == f"Token {token.name}"
        assert "x-goog-api-key" not in session.headers
    assert KEY not in repr(resume)
    assert token.name not in repr(resume)


async def test_a_token_that_is_refused_at_resumption_is_replaced(
    sim: GeminiSimulator, open_with: Open
) -> None:
    resume = await resume_of(await open_with())
    sim.tokens._tokens.clear()
    with capture_logs() as logs:
        later = await resume_of(await open_with(resume))
    assert later.credential != resume.credential
    assert [token.resumed for token in sim.tokens.minted] == [1]
    [line] = [line for line in logs if "token refused" in line["event"]]
    assert "Missing or malformed auth token" in line["reason"]


async def until_lost(session: GeminiSession) -> None:
    while True:
        await session.receive()


async def test_a_call_outlives_its_token(sim: GeminiSimulator) -> None:
    """It ends in mid-session: the session is dropped, and resumed with another token."""
    settings = settings_for(sim.url, token_lifetime=0.6, token_start_within=0.6)
    minter = Minter(settings)
    async with asyncio.timeout(LONG):
        first = await open_session(settings, SESSION, tokens=minter)
        with pytest.raises(SessionDropped, match="the token ran out"):
            await until_lost(first)
        resume = first.resume
        await first.close()
        assert resume is not None
        second = await open_session(settings, SESSION, resume=resume, tokens=minter)
        await second.close()
    await minter.close()
    assert [(token.used, token.resumed) for token in sim.tokens.minted] == [(1, 0), (0, 1)]


async def test_a_token_that_was_used_opens_no_other_session(sim: GeminiSimulator, minter: Minter) -> None:
    settings = settings_for(sim.url)
    token = await minter.mint(SETUP)

    class Stolen(Source):
        async def mint(self, setup: Any) -> Token:
            return token

    thief = SessionSettings(instructions="Swear.", temperature=2.0)
    await (await open_session(settings, thief, tokens=Stolen())).close()
    with pytest.raises(KeyRefused, match="Token has been used too many times"):
        await open_session(settings, thief, tokens=Stolen())
    [minted] = sim.tokens.minted
    assert minted.used == 1


async def test_a_setup_that_google_refuses_costs_no_connection(sim: GeminiSimulator) -> None:
    settings = settings_for(sim.url, api_key="AIza-wrong-key")
    minter = Minter(settings)
    with pytest.raises(KeyRefused, match="refuses the API key"):
        await open_session(settings, SESSION, tokens=minter)
    await minter.close()
    assert sim.connections == 0


async def test_no_secret_is_in_any_log(
    sim: GeminiSimulator, open_with: Open, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with capture_logs() as logs:
        resume = await resume_of(await open_with())
        sim.tokens._tokens.clear()
        await resume_of(await open_with(resume))
    [token] = sim.tokens.minted
    first = Token.of(resume.credential or SecretStr("")).name.get_secret_value()
    mine = [record.getMessage() for record in caplog.records if record.name != "websockets.server"]
    for text in (*map(str, logs), *mine):
        for secret in (KEY, token.name, first):
            assert secret not in text
