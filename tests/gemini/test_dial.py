from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from websockets.exceptions import InvalidHeader, InvalidMessage, ProxyError

from ari_gemini.errors import (
    KeyRefused,
    QuotaExceeded,
    SessionError,
    SessionRefused,
    SessionUnavailable,
)
from ari_gemini.gemini import dial as dial_module
from ari_gemini.gemini.dial import dial
from ari_gemini.gemini.settings import GeminiSettings
from ari_gemini.gemini.tokens import Token

LONG = 30.0
KEY = "AIza-test-key"

WRONG_ACCEPT = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: wrong\r\n\r\n"
)

Raw = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Listen = Callable[[Raw], Awaitable[int]]


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """Serve raw TCP on a port of its own; every connection is closed when its handler ends."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(handler: Raw) -> int:
            async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                try:
                    await handler(reader, writer)
                finally:
                    writer.close()

            server = await stack.enter_async_context(await asyncio.start_server(handle, "127.0.0.1", 0))
            port: int = server.sockets[0].getsockname()[1]
            return port

        yield start


class Silent:
    """Accepts, reads and says nothing; knows when the client has come and gone."""

    def __init__(self) -> None:
        self.heard = asyncio.Event()
        self.gone = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(4096):
                self.heard.set()
        self.gone.set()


def settings_for(port: int, scheme: str = "ws", **given: Any) -> GeminiSettings:
    limits = {"connect_timeout": LONG, "api_key": KEY}
    return GeminiSettings(base_url=f"{scheme}://127.0.0.1:{port}", **(limits | given))


async def refused(settings: GeminiSettings) -> SessionError:
    async with asyncio.timeout(LONG):
        with pytest.raises(SessionError) as caught:
            await dial(settings)
    assert KEY not in str(caught.value)
    return caught.value


async def test_the_request(gemini: Any) -> None:
    websocket = await dial(gemini.settings(base_url=f"ws://127.0.0.1:{gemini.port}/prefix"))
    await websocket.close()
    (request,) = gemini.requests
    assert request.path == (
        "/prefix/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent"
    )
    assert request.headers["x-goog-api-key"] == KEY
    assert request.headers["User-Agent"].startswith("ari-gemini/")
    assert "Sec-WebSocket-Extensions" not in request.headers, "no compression"
    assert "Authorization" not in request.headers


async def test_no_key_no_header(gemini: Any) -> None:
    websocket = await dial(gemini.settings(api_key=None))
    await websocket.close()
    assert "x-goog-api-key" not in gemini.requests[0].headers


async def test_a_token_goes_in_place_of_the_key_and_elsewhere(gemini: Any) -> None:
    token = Token(SecretStr("auth_tokens/abc"), 0.0)
    websocket = await dial(gemini.settings(), token)
    await websocket.close()
    (request,) = gemini.requests
    assert request.path == (
        "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContentConstrained"
    )
    assert request.headers["Authorization"] == "Token auth_tokens/abc"
    assert "x-goog-api-key" not in request.headers


async def test_a_token_that_the_peer_repeats_is_not_told(gemini: Any) -> None:
    gemini.refusal = (403, {}, "no such luck with auth_tokens/abc")
    with pytest.raises(KeyRefused, match=r"no such luck with \[token\]"):
        await dial(gemini.settings(), Token(SecretStr("auth_tokens/abc"), 0.0))


async def test_the_socket_is_tuned(gemini: Any) -> None:
    websocket = await dial(gemini.settings())
    sock = websocket.transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    if sys.platform == "linux":
        assert sock.getsockopt(socket.IPPROTO_TCP, 25) == 16 * 1024  # TCP_NOTSENT_LOWAT
    await websocket.close()


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, KeyRefused), (403, KeyRefused), (404, SessionRefused), (429, QuotaExceeded)]
    + [(status, SessionUnavailable) for status in (500, 502, 503)],
)
async def test_refused_upgrades(gemini: Any, status: int, error: type) -> None:
    gemini.refusal = (status, {}, f"no such luck with {KEY}")
    caught = await refused(gemini.settings())
    assert type(caught) is error
    assert caught.code == status
    assert "no such luck with [secret]" in str(caught)


async def test_a_redirect_is_not_followed_with_the_key(gemini: Any, other_gemini: Any) -> None:
    gemini.refusal = (302, {"Location": f"ws://127.0.0.1:{other_gemini.port}/"}, "")
    caught = await refused(gemini.settings())
    assert type(caught) is SessionRefused
    assert "redirects" in str(caught)
    assert len(gemini.requests) == 1
    assert other_gemini.requests == []


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: nobody else gets the port
        port = taken.getsockname()[1]
        caught = await refused(settings_for(port))
    assert type(caught) is SessionUnavailable
    assert str(caught) == f"127.0.0.1:{port} refuses the connection"


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_server_that_never_answers(listen: Listen, scheme: str) -> None:
    silent = Silent()
    port = await listen(silent)
    caught = await refused(settings_for(port, scheme, connect_timeout=0.5))
    assert type(caught) is SessionUnavailable
    assert str(caught) == f"127.0.0.1:{port} did not answer within 0.5 s"
    async with asyncio.timeout(LONG):
        await silent.gone.wait()


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_cancelling_leaves_no_socket(listen: Listen, scheme: str) -> None:
    silent = Silent()
    dialing = asyncio.create_task(dial(settings_for(await listen(silent), scheme)))
    async with asyncio.timeout(LONG):
        await silent.heard.wait()
        dialing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialing
        await silent.gone.wait()


async def test_cancelling_at_any_moment_leaves_no_socket(gemini: Any, until: Any) -> None:
    """Cancelled after one more turn of the loop each time, until it is through."""
    turns = 0
    while True:
        turns += 1
        dialing = asyncio.create_task(dial(gemini.settings()))
        for _ in range(turns):
            await asyncio.sleep(0)
        dialing.cancel()
        try:
            websocket = await dialing
        except asyncio.CancelledError:
            continue
        assert gemini.sockets() >= 2, "the check sees sockets"
        await websocket.close()
        break
    await until(lambda: gemini.sockets() == 0)
    assert turns > 3


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (b"", SessionUnavailable, "no HTTP answer from"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", SessionUnavailable, "no HTTP answer from"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", SessionRefused, "refuses the connection"),
        (WRONG_ACCEPT, SessionRefused, "does not speak WebSocket"),
    ],
    ids=["nothing", "ssh", "http", "wrong accept"],
)
async def test_servers_that_are_no_gemini(listen: Listen, answer: bytes, error: type, words: str) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    caught = await refused(settings_for(await listen(speak)))
    assert type(caught) is error
    assert words in str(caught)


async def test_tls_with_a_private_authority(tls_gemini: Any, certificate: Path) -> None:
    websocket = await dial(tls_gemini.settings(ca_file=certificate))
    assert websocket.transport.get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")
    await websocket.close()
    assert tls_gemini.requests[0].headers["x-goog-api-key"] == KEY


async def test_a_certificate_nobody_vouches_for(tls_gemini: Any) -> None:
    caught = await refused(tls_gemini.settings())
    assert type(caught) is SessionRefused
    assert "is not trusted: self-signed certificate" in str(caught)
    assert tls_gemini.requests == []


async def test_a_certificate_for_another_host(tls_gemini: Any, certificate: Path) -> None:
    base_url = f"wss://localhost:{tls_gemini.port}"
    caught = await refused(tls_gemini.settings(base_url=base_url, ca_file=certificate))
    assert type(caught) is SessionRefused
    assert "Hostname mismatch" in str(caught)
    assert tls_gemini.requests == []


async def test_tls_towards_a_server_without(listen: Listen) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    caught = await refused(settings_for(await listen(speak), "wss"))
    assert type(caught) is SessionUnavailable
    assert "no TLS with 127.0.0.1" in str(caught)


async def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("not a certificate")
    caught = await refused(settings_for(1, "wss", ca_file=path))
    assert type(caught) is SessionRefused
    assert f"cannot read certificates from {path}" in str(caught)


@pytest.mark.parametrize(
    ("failure", "error", "words"),
    [
        (TimeoutError(), SessionUnavailable, "did not answer within 30 s"),
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            SessionUnavailable,
            "the name of 127.0.0.1:9 cannot be resolved: Name or service not known",
        ),
        (ConnectionRefusedError(111, "refused"), SessionUnavailable, "127.0.0.1:9 refuses the connection"),
        (
            OSError("Multiple exceptions: [Errno 111] a, [Errno 101] b"),
            SessionUnavailable,
            "no connection to 127.0.0.1:9: Multiple exceptions: [Errno 111] a, [Errno 101] b",
        ),
        (OSError(101, "Network is unreachable"), SessionUnavailable, "127.0.0.1:9: Network is unreachable"),
        (ssl.SSLError(1, f"odd {KEY}"), SessionUnavailable, "no TLS with 127.0.0.1:9: odd [secret]"),
        (InvalidMessage("did not receive"), SessionUnavailable, "no HTTP answer from 127.0.0.1:9: did not"),
        (ProxyError("gone"), SessionUnavailable, "no way through the proxy to 127.0.0.1:9: gone"),
        (InvalidHeader("Upgrade"), SessionRefused, "127.0.0.1:9 does not speak WebSocket: missing Upgrade"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
async def test_every_failure_in_plain_words(
    failure: Exception, error: type, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fails:
        def __init__(self, *_args: object, **_kwargs: object) -> None: ...

        def __await__(self) -> Generator[Any, None, None]:
            raise failure
            yield

    monkeypatch.setattr(dial_module, "_Connect", Fails)
    caught = await refused(settings_for(9))
    assert type(caught) is error
    assert words in str(caught)
    assert caught.__cause__ is failure


async def test_proxies_of_the_environment_are_not_used(gemini: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "ws_proxy", "wss_proxy", "all_proxy", "socks_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    websocket = await dial(gemini.settings())
    await websocket.close()


async def test_the_proxy_of_the_settings_is_used(gemini: Any, listen: Listen) -> None:
    asked: list[bytes] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        there, back = await asyncio.open_connection("127.0.0.1", gemini.port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(pump(reader, back), pump(there, writer))

    port = await listen(proxy)
    websocket = await dial(gemini.settings(proxy=f"http://user:pass-word@127.0.0.1:{port}"))
    await websocket.close()
    assert asked[0].startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n" % gemini.port)
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNzLXdvcmQ=\r\n" in asked[0]
    assert KEY.encode() not in asked[0]
    assert gemini.requests[0].headers["x-goog-api-key"] == KEY


async def test_a_proxy_that_says_no(listen: Listen) -> None:
    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    port = await listen(proxy)
    caught = await refused(settings_for(9, proxy=f"http://user:pass-word@127.0.0.1:{port}"))
    assert type(caught) is SessionUnavailable
    assert "the proxy does not connect to 127.0.0.1:9" in str(caught)
    assert "407" in str(caught)
    assert "pass-word" not in str(caught)


async def test_the_key_is_in_no_log(gemini: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "websockets")
    websocket = await dial(gemini.settings())
    await websocket.close()
    assert [record for record in caplog.records if "ari_gemini" in record.name] == []
    mine = [record for record in caplog.records if record.name == "websockets.client"]
    assert mine == [], "the client writes headers at DEBUG"
