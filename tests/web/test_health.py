"""The health endpoint over real sockets: what it answers, and what strangers can do to it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from ari_gemini.errors import ConfigError
from ari_gemini.web import health
from ari_gemini.web.health import HealthServer, HealthSettings, Readiness

READY = Readiness(listening=True, ari_connected=True, draining=False, calls=1, max_calls=2)


@asynccontextmanager
async def serving(state: Readiness = READY, listen: str = "127.0.0.1:0") -> AsyncIterator[HealthServer]:
    server = HealthServer(HealthSettings(listen=listen), lambda: state)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


async def say(server: HealthServer, request: str) -> bytes:
    """Send these bytes; all that comes back until the connection ends."""
    assert server.address is not None
    reader, writer = await asyncio.open_connection(*server.address)
    try:
        writer.write(request.encode())
        async with asyncio.timeout(30):
            return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ask(server: HealthServer, request: str) -> tuple[int, dict[str, str], bytes]:
    """Send these bytes; status, headers and body of the answer, which ends the connection."""
    head, _, body = (await say(server, request)).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), headers, body


def get(path: str, version: str = "1.1") -> str:
    return f"GET {path} HTTP/{version}\r\nHost: probe\r\n\r\n"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_live(version: str) -> None:
    async with serving() as server:
        status, headers, body = await ask(server, get("/live", version))
    assert (status, json.loads(body)) == (200, {"live": True})
    assert headers["content-type"].startswith("application/json")
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, []),
        ({"ari_connected": None}, []),
        ({"listening": False}, ["not listening"]),
        ({"ari_connected": False}, ["not connected to Asterisk"]),
        ({"draining": True}, ["draining"]),
        ({"calls": 2}, ["max_calls are up"]),
        ({"draining": True, "calls": 3, "ari_connected": False, "listening": False}, None),
    ],
)
async def test_ready(changes: dict[str, object], why: list[str] | None) -> None:
    state = replace(READY, **changes)
    async with serving(state) as server:
        status, _, body = await ask(server, get("/ready"))
    said = json.loads(body)
    assert said["why_not"] == (state.why_not if why is None else why)
    assert len(said["why_not"]) == (4 if why is None else len(why))
    assert status == (503 if said["why_not"] else 200)
    assert said["ready"] is (status == 200) is state.ready
    assert said.keys() == {"ready", "why_not", "calls", "max_calls", "draining", "ari_connected"}


async def test_it_says_what_holds_now() -> None:
    state = [READY]
    server = HealthServer(HealthSettings(listen="127.0.0.1:0"), lambda: state[0])
    await server.start()
    assert (await ask(server, get("/ready")))[0] == 200
    state[0] = replace(READY, draining=True)
    assert (await ask(server, get("/ready")))[0] == 503
    await server.close()


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        *(("GET /", 404), ("GET /ready/x", 404), ("POST /live", 405), ("POST /", 404)),
        ("GET /" + "x" * 9000, 400),
    ],
)
async def test_anything_else_is_refused(request_line: str, status: int) -> None:
    async with serving() as server:
        assert (await ask(server, f"{request_line} HTTP/1.1\r\nHost: probe\r\n\r\n"))[0] == status
        assert (await ask(server, get("/live")))[0] == 200


async def test_who_says_nothing_is_shown_out_and_one_too_many_at_once(monkeypatch) -> None:
    monkeypatch.setattr(health, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(health, "CONNECTION_SECONDS", 0.3)
    async with serving() as server:
        assert server.address is not None
        silent = [await asyncio.open_connection(*server.address) for _ in range(3)]
        with pytest.raises((ConnectionError, IndexError, ValueError)):  # cut, with or without a reset
            await ask(server, get("/live"))
        for reader, _ in silent:
            async with asyncio.timeout(30):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
        assert (await ask(server, get("/live")))[0] == 200
        for _, writer in silent:
            writer.close()


async def test_one_too_many_at_once_is_cut_when_all_come_at_once(monkeypatch) -> None:
    monkeypatch.setattr(health, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(health, "CONNECTION_SECONDS", 60.0)
    async with serving() as server, contextlib.AsyncExitStack() as stack:
        assert server.address is not None
        lines = await asyncio.gather(*(asyncio.open_connection(*server.address) for _ in range(20)))
        for _, writer in lines:
            stack.enter_context(contextlib.closing(writer))
        ended = [asyncio.create_task(reader.read()) for reader, _ in lines]
        async with asyncio.timeout(30):
            while sum(end.done() for end in ended) < 17:
                await asyncio.wait([end for end in ended if not end.done()], return_when="FIRST_COMPLETED")
        for end, (_, writer) in zip(ended, lines, strict=True):
            if not end.done():
                writer.write(get("/live").encode())
        answers = await asyncio.gather(*ended, return_exceptions=True)
        assert sum(b'"live": true' in answer for answer in answers if isinstance(answer, bytes)) == 3


WORD = "what-nobody-should-read"
MALFORMED = [
    f"GET /live HTTP/1.1\r\nX: {WORD}\r\n\r\n",  # no Host
    f"GET /live HTTP/1.1\r\nHost: probe\r\nX : {WORD}\r\n\r\n",
    f"GET /live HTTP/1.1\r\nHost: probe\r\nX: \x01{WORD}\r\n\r\n",
    f"GET /live HTTP/1.1\r\nHost: probe\r\nX: {WORD * 300}\r\n\r\n",
    f"{WORD} /live HTTP/1.1\r\nHost: probe\r\n\r\n",
    f"POST / HTTP/1.1\r\nHost: probe\r\nTransfer-Encoding: chunked\r\n\r\n{WORD}",
    f"GET http://xn--/{WORD} HTTP/1.1\r\nHost: probe\r\n\r\n",
]


async def test_what_cannot_be_read_is_neither_logged_nor_answered(caplog) -> None:
    caplog.set_level(logging.DEBUG)
    with capture_logs() as logs:
        async with serving() as server:
            before = len(logs) + len(caplog.records)
            answers = [await say(server, MALFORMED[number % len(MALFORMED)]) for number in range(200)]
            expected = await ask(server, get("/live").replace("Host", f"Expect: {WORD}\r\nHost"))
        gc.collect()  # tasks that failed unheard say so now
    assert len(logs) + len(caplog.records) == before
    for answer in answers:
        assert not answer or answer.endswith(b'\r\n\r\n{"error": "cannot read the request"}\n')
        assert not answer or answer.split()[1] == b"400"
    assert WORD.encode() not in expected[2]


async def test_a_defect_is_logged_by_its_place_and_not_in_its_words(caplog) -> None:
    def readiness() -> Readiness:
        raise LookupError(WORD)

    server = HealthServer(HealthSettings(listen="127.0.0.1:0"), readiness)
    with capture_logs() as logs:
        await server.start()
        status, _, body = await ask(server, get("/ready"))
        await server.close()
    assert (status, json.loads(body)) == (500, {"error": "fails at this request"})
    [line] = [line for line in logs if line["log_level"] == "error"]
    assert line["error"] == "LookupError"
    assert "test_health.py:" in str(line["at"])
    assert WORD not in str(logs) + caplog.text


async def test_without_an_address_it_does_nothing() -> None:
    server = HealthServer(HealthSettings(), lambda: READY)
    await server.start()
    assert server.address is None
    await server.close()


async def test_closing_frees_the_address() -> None:
    async with serving() as server:
        listen = str(server.address)
        with pytest.raises(ConfigError, match=f"health.listen: cannot listen on {listen}: "):
            await HealthServer(HealthSettings(listen=listen), lambda: READY).start()
        await server.close()
        await server.close()
        assert server.address is None
        async with serving(listen=listen) as second:
            assert str(second.address) == listen


@pytest.mark.parametrize("listen", ["8086", "nowhere", "127.0.0.1:99999"])
def test_an_address_that_cannot_be_read(listen: str) -> None:
    with pytest.raises(ValidationError, match="listen"):
        HealthSettings(listen=listen)
