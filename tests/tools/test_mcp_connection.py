"""One connection, against HTTP servers that do what none should; the good ones are in test_mcp_server.py."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import mcp_types as types
import psutil
import pytest

from ari_gemini.errors import ConfigError, ToolError
from ari_gemini.tools import mcp_connection
from ari_gemini.tools.mcp_connection import MAX_ERROR, MAX_TOOLS, Connection, ServerLost, connect
from ari_gemini.tools.mcp_settings import McpSettings
from ari_gemini.tools.mcp_stdio import MAX_MESSAGE

PATIENCE = 30.0
JSON = "application/json"
EVENTS = "text/event-stream"

Message = dict[str, Any]
Reply = tuple[str, str, bytes] | None
"""Status line, content type and further headers, body. None: no answer at all."""


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    before = psutil.Process().num_fds()
    yield
    assert psutil.Process().num_fds() <= before


def result(message: Message, value: Message) -> Reply:
    body = {"jsonrpc": "2.0", "id": message["id"], "result": value}
    return "200 OK", f"{JSON}\r\nMcp-Session-Id: 1", json.dumps(body).encode()


def good(message: Message) -> Reply:
    """A server of the protocol before 2026, with a session."""
    match message.get("method"):
        case "initialize":
            info = {"name": "raw", "version": "1"}
            return result(message, {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": info})
        case "tools/list":
            return result(message, {"tools": []})
        case "tools/call":
            return result(message, {"content": [{"type": "text", "text": "done"}]})
        case method if method is not None and "id" in message:
            error = {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}}
            return "200 OK", JSON, json.dumps(error).encode()
    return "202 Accepted", JSON, b""


class Raw:
    """An HTTP server of a few lines, which notes what it is asked."""

    def __init__(self, answer: Callable[[Message], Reply]) -> None:
        self.answer = answer
        self.asked: list[tuple[str, dict[str, str], Message]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *more = head.decode().strip().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in more)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method = first.split()[0]
                message = json.loads(body) if body else {}
                self.asked.append((method, headers, message))
                reply = self.answer({"http": method, **message})
                if reply is None:
                    await asyncio.Event().wait()
                else:
                    await self.send(writer, reply)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def send(self, writer: asyncio.StreamWriter, reply: tuple[str, str, bytes]) -> None:
        status, kind, body = reply
        length = "" if kind.startswith(EVENTS) else f"content-length: {len(body)}\r\n"
        writer.write(f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{length}\r\n".encode() + body)
        await writer.drain()
        if not length:
            await asyncio.Event().wait()


@asynccontextmanager
async def raw(answer: Callable[[Message], Reply]) -> AsyncIterator[Raw]:
    server = Raw(answer)
    handlers: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.create_task(server.serve(reader, writer)))

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/mcp"
    try:
        yield server
    finally:
        listening.close()
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers)
        await listening.wait_closed()


def during(method: str, reply: Callable[[Message], Reply]) -> Callable[[Message], Reply]:
    return lambda message: (
        reply(message) if method in (message.get("method"), message["http"]) else good(message)
    )


@asynccontextmanager
async def connected(server: Raw, **values: Any) -> AsyncIterator[Connection]:
    async with asyncio.timeout(PATIENCE), connect(McpSettings(url=server.url, **values), {}) as connection:
        yield connection


async def test_a_session_is_begun_used_and_ended() -> None:
    async with raw(good) as server:
        async with connected(server, header="X-Key", value="v") as connection:
            assert await connection.list_tools() == []
            assert await connection.call("t", {"a": 1}) == "done"
        methods = [message.get("method", http) for http, _, message in server.asked]
        assert methods[:2] == ["server/discover", "initialize"]
        assert methods[-1] == "DELETE"
        assert {headers.get("x-key") for _, headers, _ in server.asked} == {"v"}
        assert {headers.get("accept-encoding") for _, headers, _ in server.asked} == {"identity"}


async def test_an_end_of_session_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_connection, "_FAREWELL", 0.05)
    async with raw(during("DELETE", lambda _: None)) as server, connected(server):
        pass


@pytest.mark.parametrize(
    "reply",
    [
        ("200 OK", JSON, b'"' + b"x" * MAX_MESSAGE + b'"'),
        ("200 OK", EVENTS, b"data: " + b"x" * (2 * MAX_MESSAGE)),
        ("200 OK", JSON, b"<html>"),
        ("200 OK", "text/html", b"<html>"),
        ("200 OK", EVENTS, b"data: <html>\n\n"),
        ("202 Accepted", JSON, b""),
        ("500 No", JSON, b"{}"),
        ("307 Elsewhere", f"{JSON}\r\nlocation: http://127.0.0.2:1/", b""),
    ],
)
async def test_a_bad_answer_ends_the_call_with_words_and_is_not_logged(
    reply: tuple[str, str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async with raw(during("tools/call", lambda _: reply)) as server, connected(server) as connection:
        with pytest.raises(ToolError, match=r"^t failed: ") as caught:
            await connection.call("t", {})
        assert len(str(caught.value)) <= MAX_ERROR + 20
        await asyncio.wait_for(connection.wake.wait(), PATIENCE)  # to see whether it is still there
        assert await connection.list_tools() == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_compressed_answer_is_not_unpacked() -> None:
    bomb = ("200 OK", f"{JSON}\r\ncontent-encoding: gzip", gzip.compress(b"x" * 100_000_000))
    async with raw(during("tools/call", lambda _: bomb)) as server:
        with pytest.raises(ExceptionGroup) as caught:
            async with connected(server) as connection:
                await connection.call("t", {})
        assert "compressed, which was not asked for" in repr(caught.value)


@pytest.mark.parametrize(
    ("status", "reason"),
    [("401 No", "HTTP status 401"), ("404 No", "HTTP status 404"), ("503 No", "HTTP status 503")],
)
async def test_the_http_status_is_the_reason(status: str, reason: str) -> None:
    async with raw(lambda _: (status, "text/plain", b"no")) as server:
        with pytest.RaisesGroup(pytest.RaisesExc(ServerLost, match=reason), flatten_subgroups=True):
            async with connected(server):
                pass


async def test_a_header_without_its_value_is_a_mistake_in_the_configuration() -> None:
    async with raw(good) as server:
        with pytest.raises(ConfigError, match="the value of header X-Key is missing"):
            async with connected(server, header="X-Key", value_env="NOT_RESOLVED"):
                pass
        assert server.asked == []


async def test_more_tools_than_anyone_needs_are_cut() -> None:
    many = {"tools": [{"name": f"t{n}", "inputSchema": {"type": "object"}} for n in range(MAX_TOOLS + 1)]}
    answer = during("tools/list", lambda message: result(message, many))
    async with raw(answer) as server, connected(server) as connection:
        assert len(await connection.list_tools()) == MAX_TOOLS


async def test_changes_are_looked_at_at_once_and_then_with_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_connection, "LIST_PAUSE", 0.05)
    async with raw(good) as server, connected(server) as connection:
        connection.look_again()
        await asyncio.wait_for(connection.wake.wait(), PATIENCE)
        listed = asyncio.get_running_loop().time()
        await connection.list_tools()
        connection.wake.clear()
        for _ in range(100):
            await connection.on_message(types.ToolListChangedNotification())
        await asyncio.wait_for(connection.wake.wait(), PATIENCE)
        assert asyncio.get_running_loop().time() - listed >= 0.049
        connection.wake.clear()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.wake.wait(), 0.1)


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ({"content": []}, ""),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "a\nb"),
        ({"content": [], "structuredContent": {"n": 1}}, {"n": 1}),
        ({"content": [], "structuredContent": {"result": [1]}}, [1]),
        (
            {"content": [{"type": "audio", "data": "eA==", "mimeType": "audio/wav"}]},
            "(audio, audio/wav, not shown)",
        ),
        ({"content": [{"type": "resource", "resource": {"uri": "x://a", "text": "words"}}]}, "words"),
        (
            {"content": [{"type": "resource", "resource": {"uri": "x://a", "blob": "eA=="}}]},
            "(resource x://a, not shown)",
        ),
        ({"content": [{"type": "resource_link", "name": "bill", "uri": "x://b"}]}, "(resource bill: x://b)"),
    ],
)
async def test_what_a_result_becomes(answer: Message, value: object) -> None:
    reply = during("tools/call", lambda message: result(message, answer))
    async with raw(reply) as server, connected(server) as connection:
        assert await connection.call("t", {}) == value


async def test_an_error_is_bounded() -> None:
    answer = {"content": [{"type": "text", "text": "x" * 100_000}], "isError": True}
    reply = during("tools/call", lambda message: result(message, answer))
    async with raw(reply) as server, connected(server) as connection:
        with pytest.raises(ToolError) as caught:
            await connection.call("t", {})
        assert str(caught.value) == "x" * MAX_ERROR
