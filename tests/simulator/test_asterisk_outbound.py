"""The simulated Asterisk's own connections, as a real one makes them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import WSMsgType, web

from ari_gemini.simulator.asterisk import Outbound, SimulatedAsterisk

PATIENCE = 20.0


class Service:
    """Takes connections, or refuses them with ``status``."""

    def __init__(self) -> None:
        self.status = 0
        self.sockets: list[web.WebSocketResponse] = []
        self.events: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []
        self.news = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.status:
            return web.Response(status=self.status)
        assert request.headers["Authorization"] == "Basic Z2VtaW5pOmdlaGVpbQ=="
        socket = web.WebSocketResponse(protocols=["ari"])
        await socket.prepare(request)
        assert socket.ws_protocol == "ari"
        self.sockets.append(socket)
        async for message in socket:
            assert message.type is WSMsgType.TEXT
            raw = json.loads(message.data)
            (self.answers if raw["type"] == "RESTResponse" else self.events).append(raw)
            self.news.set()
        self.news.set()
        return socket

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.news.clear()
                await self.news.wait()

    async def kinds(self, *wanted: str) -> None:
        """Wait until these are the events so far."""
        await self.until(lambda: [event["type"] for event in self.events] == list(wanted))

    async def ask(self, method: str, uri: str) -> tuple[int, Any]:
        count = len(self.answers)
        request = {"type": "RESTRequest", "request_id": "7", "method": method, "uri": uri}
        await self.sockets[-1].send_str(json.dumps(request))
        await self.until(lambda: len(self.answers) > count)
        answer = self.answers[-1]
        assert answer["request_id"] == "7"
        return answer["status_code"], json.loads(answer.get("message_body", "null"))


@asynccontextmanager
async def both(**times: float) -> AsyncIterator[tuple[SimulatedAsterisk, Service]]:
    service = Service()
    app = web.Application()
    app.router.add_get("/ari", service.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    uri = f"ws://127.0.0.1:{runner.addresses[0][1]}/ari"
    given = {"reconnect_interval": 0.01, "entry": 0.02, "lingering": 0.02, **times}
    try:
        async with SimulatedAsterisk(outbound=Outbound(uri, "gemini", "geheim", **given)) as asterisk:
            yield asterisk, service
    finally:
        await runner.cleanup()


async def test_a_call_from_its_connection_to_the_end_of_it() -> None:
    async with both() as (asterisk, service):
        call = await asterisk.call(args=("sales",))
        name = f"ari-gemini:{call.channel.name}"
        await service.kinds("ApplicationRegistered")
        assert service.events[0]["application"] == name
        escaped = name.replace("/", "%2F")
        status, body = await service.ask("GET", f"applications/{escaped}")
        assert (status, body["channel_ids"]) == (200, [])
        assert await service.ask("POST", f"channels/{call.id}/answer") == (
            409,
            {"message": "Channel not in Stasis application"},
        )
        channel = call.channel.name.replace("/", "%2F")
        assert await service.ask("GET", f"channels/{channel}/variable?variable=UNIQUEID") == (
            200,
            {"value": call.id},
        )
        assert call.channel.to_json()["dialplan"]["app_data"] == "ari-gemini,sales"
        await service.kinds("ApplicationRegistered", "StasisStart")
        assert service.events[1]["args"] == ["sales"]
        assert await service.ask("POST", f"channels/{call.id}/answer") == (204, None)
        assert (await service.ask("GET", "nonsense"))[0] == 404
        call.hang_up()
        await service.until(lambda: service.sockets[0].closed)
        assert len(service.sockets) == 1, "no new one for a caller who has left"


async def test_a_broken_connection_is_made_anew_and_nothing_is_lost() -> None:
    async with both() as (asterisk, service):
        call = await asterisk.call()
        await service.kinds("ApplicationRegistered", "StasisStart")
        service.status = 503
        await service.sockets[0].close()
        assert asterisk.dialler is not None
        async with asyncio.timeout(PATIENCE):
            while not asterisk.dialler.refusals:  # noqa: ASYNC110 - refusals have no event
                await asyncio.sleep(0.005)
        call.press("5")
        service.status = 0
        await service.kinds(
            "ApplicationRegistered", "StasisStart", "ChannelDtmfReceived", "ApplicationRegistered"
        )
        status, body = await service.ask(
            "GET", f"applications/{service.events[0]['application'].replace('/', '%2F')}"
        )
        assert (status, body["channel_ids"]) == (200, [call.id])


async def test_when_nobody_answers_the_dialplan_goes_on() -> None:
    async with both(reconnect_attempts=3) as (asterisk, service):
        service.status = 401
        call = await asterisk.call()
        await call.wait_left()
        assert call.variables["STASISSTATUS"] == "FAILED"
        assert asterisk.dialler is not None
        assert asterisk.dialler.refusals == [401] * 3


async def test_other_applications_wait_for_the_service_to_connect() -> None:
    async with both() as (asterisk, service):
        call = await asterisk.call("another")
        assert call.variables["STASISSTATUS"] == "FAILED"
        assert service.sockets == []
