"""Plain HTTP on the simulated service's port, beside its WebSockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from ari_gemini.simulator import gemini_http
from ari_gemini.simulator.gemini_http import error_body
from ari_gemini.simulator.gemini_live import GeminiSimulator
from ari_gemini.simulator.scenario import Scenario

KEY = {"x-goog-api-key": "a-key"}
LONG = 30.0


@pytest.fixture
async def sim() -> AsyncIterator[GeminiSimulator]:
    async with GeminiSimulator(speed=20) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(LONG)) as session:
        yield session


async def ask(
    http: aiohttp.ClientSession, sim: GeminiSimulator, path: str = "/v1beta/auth_tokens", **options: Any
) -> tuple[int, Any]:
    given = {"headers": KEY, "json": {}, "method": "POST"} | options
    url = f"http://127.0.0.1:{sim.port}{path}"
    async with http.request(given.pop("method"), url, **given) as response:
        is_json = response.content_type == "application/json"
        return response.status, await (response.json() if is_json else response.text())


@pytest.mark.parametrize("path", ["/v1beta/auth_tokens", "/v1alpha/auth_tokens", "//v1beta/auth_tokens"])
async def test_a_token_is_minted(http: Any, sim: GeminiSimulator, path: str) -> None:
    status, answer = await ask(http, sim, path)
    assert status == 200
    assert [token.name for token in sim.tokens.minted] == [answer["name"]]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/auth_tokens"),
        ("POST", "/v1beta/models"),
        ("GET", "/v1beta/auth_tokens"),
        ("DELETE", "/v1beta/auth_tokens"),
    ],
)
async def test_nothing_else_is_there(http: Any, sim: GeminiSimulator, method: str, path: str) -> None:
    status, _ = await ask(http, sim, path, method=method, json=None)
    assert status == 404
    assert sim.tokens.minted == []


@pytest.mark.parametrize(
    ("headers", "query", "status", "word"),
    [
        ({}, "", 403, "PERMISSION_DENIED"),
        ({"x-goog-api-key": "wrong"}, "", 400, "INVALID_ARGUMENT"),
        ({"x-goog-api-key": "auth_tokens/x"}, "", 400, "INVALID_ARGUMENT"),
        (KEY, "", 200, None),
        ({}, "?key=a-key", 200, None),
    ],
)
async def test_keys(http: Any, headers: Any, query: str, status: int, word: str | None) -> None:
    async with GeminiSimulator(valid_keys={"a-key"}) as sim:
        got, answer = await ask(http, sim, f"/v1beta/auth_tokens{query}", headers=headers)
        assert (got, answer.get("error", {}).get("status")) == (status, word)
        assert len(sim.tokens.minted) == (status == 200)


async def test_what_is_wrong_is_said_in_full(http: Any, sim: GeminiSimulator) -> None:
    name = "x" * 200
    status, answer = await ask(http, sim, json={name: 1})
    message = f"Invalid JSON payload received. Unknown name \"{name}\" at 'auth_token': Cannot find field."
    assert (status, answer) == (400, error_body(400, message))


@pytest.mark.parametrize(
    ("scenario", "status", "word"),
    [("quota", 429, "RESOURCE_EXHAUSTED"), ("refuse_key", 400, "INVALID_ARGUMENT")],
)
async def test_scenarios_hold_for_tokens_too(http: Any, scenario: str, status: int, word: str) -> None:
    async with GeminiSimulator(scenario) as sim:
        got, answer = await ask(http, sim)
        assert (got, answer["error"]["status"]) == (status, word)


async def test_a_service_that_is_out_of_order(http: Any) -> None:
    async with GeminiSimulator(Scenario(http_status=503)) as sim:
        assert await ask(http, sim) == (503, error_body(503, "The service is currently unavailable."))


async def test_a_service_that_hangs_is_still_stopped(http: Any) -> None:
    async with GeminiSimulator("hang_upgrade") as sim:
        asking = asyncio.create_task(ask(http, sim))
        async with asyncio.timeout(LONG):
            while not sim._desk._server or not sim._desk._server.requests_count:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        await sim.stop()
        async with asyncio.timeout(LONG):
            with pytest.raises(aiohttp.ClientError):
                await asking


async def test_a_body_has_a_limit(http: Any, sim: GeminiSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemini_http, "MAX_BODY", 100)
    assert (await ask(http, sim, json={"fieldMask": "m" * 100}))[0] == 400
    assert (await ask(http, sim, json={"fieldMask": "model"}))[0] == 200


async def test_requests_and_websockets_share_the_port(
    http: Any, sim: GeminiSimulator, dial: Any, kit: Any
) -> None:
    _, answer = await ask(http, sim)
    path = f"{kit.PATH}Constrained?access_token={answer['name']}"
    async with dial(sim, path, key=None) as client:
        await client.setup()
    async with dial(sim, path, key=None) as client:
        await client.send({"setup": {"model": kit.LIVE}})
        assert await client.end() == (1011, "Token has been used too many times")
    assert (await ask(http, sim))[0] == 200


async def test_a_session_is_ended_with_its_token(
    http: Any, sim: GeminiSimulator, dial: Any, kit: Any
) -> None:
    soon = (sim._wall_clock() + timedelta(seconds=5)).isoformat()
    _, answer = await ask(http, sim, json={"expireTime": soon})
    async with dial(sim, f"{kit.PATH}Constrained?access_token={answer['name']}", key=None) as client:
        await client.setup()
        assert await client.end() == (1011, "auth token has expired")
