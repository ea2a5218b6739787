"""The health endpoint over real sockets: what it answers, and what strangers can do to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import uvloop
from pydantic import ValidationError

from ari_gemini.errors import ConfigError
from ari_gemini.web import health
from ari_gemini.web.health import HealthServer, HealthSettings, Readiness

READY = Readiness(listening=True, ari_connected=True, draining=False, calls=1, max_calls=2)


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


@asynccontextmanager
async def serving(state: Readiness = READY, listen: str = "127.0.0.1:0") -> AsyncIterator[HealthServer]:
    server = HealthServer(HealthSettings(listen=listen), lambda: state)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


async def ask(server: HealthServer, request: str) -> tuple[int, dict[str, str], bytes]:
    """Send these bytes; status, headers and body of the answer, which ends the connection."""
    assert server.address is not None
    reader, writer = await asyncio.open_connection(*server.address)
    try:
        writer.write(request.encode())
        async with asyncio.timeout(30):
            answer = await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
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
    [("GET /", 404), ("GET /ready/x", 404), ("POST /live", 405), ("GET /" + "x" * 9000, 400)],
)
async def test_anything_else_is_refused(request_line: str, status: int) -> None:
    async with serving() as server:
        asked = f"{request_line} HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n"
        assert (await ask(server, asked))[0] == status
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
