"""Who may ask, what was asked, faults, and the event connections of the simulated Asterisk."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from ari_gemini.simulator import asterisk_http
from ari_gemini.simulator.asterisk import Refused, SimulatedAsterisk

BASIC = aiohttp.encode_basic_auth("gemini", "simulated")


@pytest.fixture
async def asterisk() -> AsyncIterator[SimulatedAsterisk]:
    async with SimulatedAsterisk() as simulated:
        yield simulated


@pytest.fixture
async def http(asterisk: SimulatedAsterisk) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": BASIC}
    async with aiohttp.ClientSession(f"{asterisk.url}/ari/", headers=headers) as session:
        yield session


async def ask(http: aiohttp.ClientSession, method: str, path: str, **options: Any) -> tuple[int, Any]:
    async with http.request(method, path, **options) as response:
        text = await response.text()
        return response.status, json.loads(text) if text else None


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({"Authorization": BASIC}, "", 200),
        ({"authorization": BASIC.replace("Basic", "basic")}, "", 200),
        ({}, "?api_key=gemini:simulated", 200),
        ({}, "", 401),
        ({}, "?api_key=gemini:wrong", 401),
        ({"Authorization": aiohttp.encode_basic_auth("gemini", "")}, "", 401),
        ({"Authorization": "Basic ?"}, "", 401),
        ({"Authorization": "Bearer simulated"}, "", 401),
    ],
)
async def test_who_may_ask(
    asterisk: SimulatedAsterisk, headers: dict[str, str], query: str, status: int
) -> None:
    async with aiohttp.ClientSession(asterisk.url, headers=headers) as http:
        for path in ("/ari/channels", "/ari/api-docs/resources.json"):
            async with http.get(path + query) as response:
                assert response.status == status
                if status == 401:
                    assert await response.json() == {"message": "Authentication required"}
                    assert response.headers["WWW-Authenticate"] == 'Basic realm="Asterisk REST Interface"'
        if status == 401:
            with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
                await http.ws_connect(f"/ari/events{query or '?'}&app=ari-gemini")


async def test_the_aioari_way_of_connecting(asterisk: SimulatedAsterisk) -> None:
    """The plain client library connects, too: credentials in the query, description, events."""
    import ari_gemini.ari.transport  # noqa: F401  # shields from what the library's files warn of
    import aioari  # isort: skip

    client = await aioari.connect(f"{asterisk.url}/", "gemini", "simulated")
    try:
        assert await client.channels.list() == []
        heard: asyncio.Queue[Any] = asyncio.Queue()
        client.on_event("StasisStart", heard.put_nowait)
        running = asyncio.create_task(client.run("other"))
        await asterisk.wait_connected("other")
        call = await asterisk.call("other")
        assert (await heard.get())["channel"]["id"] == call.id
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    finally:
        await client.close()


async def test_requests_are_remembered(asterisk: SimulatedAsterisk, http: aiohttp.ClientSession) -> None:
    await ask(http, "GET", "api-docs/resources.json")
    await ask(http, "POST", "bridges/b?type=mixing", json={"name": "talk", "odd": [1], "type": "holding"})
    await ask(http, "DELETE", "channels/nobody")
    assert asterisk.operations() == ["bridges.createWithId", "channels.hangup"]
    first, second = asterisk.requests
    assert (first.method, first.path, first.status) == ("POST", "/bridges/b", 200)
    assert first.params == {"bridgeId": "b", "type": "mixing", "name": "talk"}
    assert (second.path, second.status) == ("/channels/nobody", 404)


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("GET", "nothing", (404, {"message": "Resource not found"})),
        ("GET", "api-docs/mailboxes.json", (404, {"message": "Resource not found"})),
        ("PUT", "channels", (405, {"message": "Invalid method"})),
        ("GET", "events", (400, {"message": "Missing parameter: app"})),
    ],
)
async def test_what_is_not_there(
    http: aiohttp.ClientSession, method: str, path: str, answer: tuple[int, Any]
) -> None:
    assert await ask(http, method, path) == answer


async def test_a_body_that_is_no_json(http: aiohttp.ClientSession) -> None:
    answer = await ask(http, "POST", "bridges", data="{")
    assert answer == (400, {"message": "Request body is not valid JSON"})
    assert (await ask(http, "POST", "bridges", data="[]"))[0] == 200


async def test_the_description_names_whom_it_was_asked(
    asterisk: SimulatedAsterisk, http: aiohttp.ClientSession
) -> None:
    for name in ("resources", "channels"):
        _, described = await ask(http, "GET", f"api-docs/{name}.json")
        assert described["basePath"] == f"{asterisk.url}/ari"


async def test_faults(asterisk: SimulatedAsterisk, http: aiohttp.ClientSession) -> None:
    seen: list[tuple[str, str]] = []

    def refuse(method: str, path: str) -> None:
        seen.append((method, path))
        if path == "/bridges":
            raise Refused(500)

    asterisk.on_request = refuse
    assert (await ask(http, "GET", "bridges"))[0] == 500
    assert (await ask(http, "GET", "channels"))[0] == 200
    assert seen == [("GET", "/bridges"), ("GET", "/channels")]
    assert asterisk.requests[0].status == 500

    asked, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_method: str, _path: str) -> None:
        asked.set()
        await go_on.wait()

    asterisk.on_request = wait
    waiting = asyncio.create_task(ask(http, "GET", "channels"))
    await asked.wait()
    assert asterisk.requests[-1].status is None
    go_on.set()
    assert (await waiting)[0] == 200


async def test_refused_media(asterisk: SimulatedAsterisk, http: aiohttp.ClientSession) -> None:
    asterisk.media_refused = True
    assert (await ask(http, "POST", "channels/externalMedia"))[0] == 500
    assert (await ask(http, "GET", "channels"))[0] == 200


async def test_delay(asterisk: SimulatedAsterisk, http: aiohttp.ClientSession) -> None:
    asterisk.delay = 0.05
    loop = asyncio.get_running_loop()
    before = loop.time()
    assert (await ask(http, "GET", "channels"))[0] == 200
    assert loop.time() - before >= 0.05


async def test_events_go_to_the_newest_client(
    asterisk: SimulatedAsterisk, http: aiohttp.ClientSession
) -> None:
    async with http.ws_connect("events?app=ari-gemini,other") as first:
        assert asterisk.connected_apps() == {"ari-gemini", "other"}
        async with http.ws_connect("events?app=ari-gemini") as second:
            replaced = await first.receive_json()
            assert (replaced["type"], replaced["application"]) == ("ApplicationReplaced", "ari-gemini")
            call = await asterisk.call()
            started = await second.receive_json()
            assert (started["type"], started["channel"]["id"]) == ("StasisStart", call.id)
            assert set(started) >= {"timestamp", "application", "asterisk_id", "args"}
            await asterisk.call("other")
            assert (await first.receive_json())["application"] == "other"
        await asterisk.wait_disconnected()
        assert asterisk.connected_apps() == {"other"}
    await asterisk.wait_disconnected("other")


async def test_an_event_is_never_too_early(asterisk: SimulatedAsterisk, http: aiohttp.ClientSession) -> None:
    """A client counts on events from the answer to its upgrade on."""
    async with http.ws_connect("events?app=ari-gemini") as socket:
        await asterisk.call()
        assert (await socket.receive_json())["type"] == "StasisStart"


async def test_cutting_and_confusing(asterisk: SimulatedAsterisk, http: aiohttp.ClientSession) -> None:
    async with http.ws_connect("events?app=ari-gemini") as socket:
        asterisk.send_raw("{")
        assert (await socket.receive()).data == "{"
        asterisk.drop_events()
        assert (await socket.receive()).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
    await asterisk.wait_disconnected()


async def test_a_client_that_does_not_read_is_dropped(
    asterisk: SimulatedAsterisk, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asterisk_http, "MAX_EVENTS", 5)
    async with http.ws_connect("events?app=ari-gemini"):
        for _ in range(6):
            asterisk.send_raw("{}")
        await asterisk.wait_disconnected()


async def test_a_port_that_is_taken(asterisk: SimulatedAsterisk) -> None:
    with pytest.raises(OSError, match="in use"):
        await SimulatedAsterisk().start(port=asterisk.port)


async def test_stopping_ends_what_is_in_progress(asterisk: SimulatedAsterisk) -> None:
    asked, never = asyncio.Event(), asyncio.Event()

    async def wait(_method: str, _path: str) -> None:
        asked.set()
        await never.wait()

    asterisk.on_request = wait
    async with aiohttp.ClientSession(asterisk.url, headers={"Authorization": BASIC}) as http:
        asking = asyncio.create_task(ask(http, "GET", "/ari/channels"))
        await asked.wait()
        async with http.ws_connect("/ari/events?app=ari-gemini"):
            await asterisk.stop()
            await asterisk.stop()
        with pytest.raises(aiohttp.ClientError):
            await asking
    assert asterisk.connected_apps() == set()
