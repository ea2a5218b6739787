"""Whatever a client sends, nothing of it is answered or logged, and its connection is closed."""

from __future__ import annotations

import asyncio

import pytest
import structlog
from aiohttp import web
from structlog.testing import capture_logs

from ari_gemini.discreet import DiscreetHandler

SECRET = "s3cret"
GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer s3cret\r\n"


class Plain(DiscreetHandler):
    def unreadable(self, client: str) -> web.Response:
        return web.Response(status=400, text=f"unreadable from {client}")

    def failed(self) -> web.Response:
        return web.Response(status=500, text="failed")


async def broken(request: web.BaseRequest) -> web.Response:
    raise KeyError(request.headers["Authorization"])


async def said_to(request: bytes) -> bytes:
    """All that a server with a broken handler says until it closes the connection."""
    http = web.Server(broken)
    log = structlog.get_logger()
    server = await asyncio.get_running_loop().create_server(lambda: Plain(http, log), "127.0.0.1", 0)
    async with server, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(request)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        await http.shutdown(1.0)
    return answer


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (GET + b"\r\n", b"failed"),
        (GET + b"X : s3cret\r\n\r\n", b"unreadable from 127.0.0.1"),
        (b"s3cret\r\n\r\n", b"unreadable from 127.0.0.1"),
        (b"GET http://xn--/ HTTP/1.1\r\nX: s3cret\r\n\r\n", b""),
    ],
)
async def test_nothing_of_the_request_is_told(
    request_: bytes, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with capture_logs() as logs:
        said = await said_to(request_)
    assert said.endswith(answer)
    assert SECRET not in f"{said!r}{logs}{caplog.text}"
    assert caplog.records == []


async def test_a_defect_is_told_by_its_kind_and_place() -> None:
    with capture_logs() as logs:
        await said_to(GET + b"\r\n")
    (line,) = logs
    assert (line["event"], line["error"]) == ("! request failed", "KeyError")
    assert line["at"][-1].startswith("test_discreet.py:")
