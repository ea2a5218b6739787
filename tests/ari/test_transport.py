"""HTTP under aioari, against a server that answers as badly as it can."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from ari_gemini.ari import transport as transport_module
from ari_gemini.ari.settings import AriSettings
from ari_gemini.ari.transport import Api, Reply, Transport, load_api, status_error
from ari_gemini.errors import (
    AriConflict,
    AriDenied,
    AriError,
    AriNotFound,
    AriRejected,
    AriTimeout,
    AriUnavailable,
    ConfigError,
)
from ari_gemini.simulator.asterisk import SimulatedAsterisk
from ari_gemini.simulator.asterisk_docs import describe_all, describe_one

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
BASIC = "Basic Z2VtaW5pOmdlaGVpbQ=="  # gemini:geheim


class Server:
    """Answers every request with ``handler`` and remembers them."""

    def __init__(self) -> None:
        self.handler: Handler = self.say()
        self.seen: list[web.Request] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        return await self.handler(request)

    def say(self, status: int = 200, text: str = "{}", **headers: str) -> Handler:
        async def handler(_request: web.Request) -> web.Response:
            return web.Response(status=status, text=text, headers=headers)

        return handler


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    made.url = f"http://{host}:{port}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def transport_to() -> AsyncIterator[Callable[..., Transport]]:
    """``transport_to(url, request_timeout=...)``; closed at the end."""
    made: list[Transport] = []

    def make(url: str, request_timeout: float = 20.0) -> Transport:
        settings = AriSettings.model_validate(
            {"url": url, "username": "gemini", "password": "geheim", "request_timeout": request_timeout}
        )
        made.append(Transport(settings))
        return made[-1]

    yield make
    for transport in made:
        await transport.close()
        await transport.close()


To = Callable[..., Transport]


async def test_credentials_travel_in_a_header_only(server: Server, transport_to: To) -> None:
    transport = transport_to(server.url)
    await transport.request("GET", f"{server.url}/ari/channels", params={"a": "b c"})

    async def upgrade(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close()
        return socket

    server.handler = upgrade
    socket = await transport.ws_connect(f"{server.url}/ari/events", params={"app": "ari-gemini"})
    await socket.close()
    assert [request.headers["Authorization"] for request in server.seen] == [BASIC, BASIC]
    assert [request.path_qs for request in server.seen] == [
        "/ari/channels?a=b+c",
        "/ari/events?app=ari-gemini",
    ]


async def test_no_redirect_takes_the_credentials_elsewhere(server: Server, transport_to: To) -> None:
    server.handler = server.say(302, Location=f"{server.url}/elsewhere")
    with pytest.raises(AriRejected, match="302"):
        await transport_to(server.url).request("GET", f"{server.url}/ari/channels")
    assert [request.path for request in server.seen] == ["/ari/channels"]


async def test_a_password_is_needed() -> None:
    with pytest.raises(ConfigError, match="ARI_PASSWORD"):
        Transport(AriSettings(username="gemini"))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, AriRejected),
        (401, AriDenied),
        (403, AriDenied),
        (404, AriNotFound),
        (405, AriRejected),
        (409, AriConflict),
        (412, AriConflict),
        (413, AriRejected),
        (422, AriRejected),
        (500, AriRejected),
        (503, AriUnavailable),
    ],
)
async def test_statuses_are_typed(
    server: Server, transport_to: To, status: int, kind: type[AriError]
) -> None:
    server.handler = server.say(status, json.dumps({"message": "In Asterisk's words"}))
    with pytest.raises(AriError, match=f"POST /ari/x: {status} In Asterisk's words") as caught:
        await transport_to(server.url).request("POST", f"{server.url}/ari/x")
    assert (type(caught.value), caught.value.status) == (kind, status)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", ""),
        ("<html>", ""),
        ("[]", ""),
        ("[" * 100_000, ""),
        ('{"message": null}', "None"),
        ('{"message": "a\\u0000\\nb"}', "ab"),
        (json.dumps({"message": "x" * 1000}), "x" * 200),
    ],
)
def test_asterisks_words_are_taken_with_care(body: str, words: str) -> None:
    assert Reply(500, body.encode()).message() == words
    assert str(status_error("GET /x", 500, words)) == f"GET /x: 500 {words}".rstrip()


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(AriRejected, match="not JSON"):
        Reply(200, body).json()


async def test_a_reply_is_read_whole() -> None:
    assert Reply(204, b" ").json() is None
    assert Reply(200, b'{"a": 1}').json() == {"a": 1}
    assert await Reply(200, b"\xc3\xa4\xff").text() == "ä\N{REPLACEMENT CHARACTER}"


async def test_an_answer_that_never_comes_times_out(server: Server, transport_to: To) -> None:
    released = asyncio.Event()

    async def hang(_request: web.Request) -> web.Response:
        await released.wait()
        return web.Response()

    async def hang_in_the_body(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"{")
        await released.wait()
        return response

    transport = transport_to(server.url, request_timeout=0.05)
    for server.handler in (hang, hang_in_the_body):
        with pytest.raises(AriTimeout, match=r"GET /ari/x: no answer within 0.05 s"):
            await transport.request("GET", f"{server.url}/ari/x")
    server.handler = hang
    with pytest.raises(AriTimeout):
        await transport.ws_connect(f"{server.url}/ari/events")
    released.set()


async def test_nobody_there(server: Server, transport_to: To) -> None:
    nowhere = "http://127.0.0.1:1"
    with pytest.raises(AriUnavailable, match=r"no connection to http://127\.0\.0\.1:1: .*[Cc]onnect"):
        await transport_to(nowhere).request("GET", f"{nowhere}/ari/x")

    async def cut(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    server.handler = cut
    with pytest.raises(AriUnavailable, match="POST /ari/x"):
        await transport_to(server.url).request("POST", f"{server.url}/ari/x")


async def test_an_answer_without_end_is_cut(
    server: Server, transport_to: To, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "MAX_BODY", 100)
    transport = transport_to(server.url)
    server.handler = server.say(text="x" * 100)
    assert await (await transport.request("GET", f"{server.url}/ari/x")).text() == "x" * 100
    server.handler = server.say(text="x" * 101)
    with pytest.raises(AriRejected, match="longer than 100 bytes"):
        await transport.request("GET", f"{server.url}/ari/x")


@pytest.mark.parametrize(("status", "kind"), [(401, AriDenied), (404, AriNotFound), (200, AriRejected)])
async def test_what_is_no_websocket(
    server: Server, transport_to: To, status: int, kind: type[AriError]
) -> None:
    server.handler = server.say(status)
    with pytest.raises(kind, match="GET /ari/events"):
        await transport_to(server.url).ws_connect(f"{server.url}/ari/events")


async def test_the_description_is_read_and_its_addresses_are_not(
    asterisk: SimulatedAsterisk, server: Server, transport_to: To
) -> None:
    """Asterisk writes http and the Host header into its description; neither need lead back to it."""

    async def describe(request: web.Request) -> web.Response:
        name = request.path.rpartition("/")[2].removesuffix(".json")
        if request.path.startswith("/pbx/ari/api-docs/"):
            foreign = "http://127.0.0.1:1/ari"
            return web.json_response(
                describe_all(foreign) if name == "resources" else describe_one(foreign, name)
            )
        return web.json_response([])

    server.handler = describe
    url = f"{server.url}/pbx"
    api = await load_api(url, transport_to(url))
    assert (await api.operation("channels", "list")({})).json() == []
    assert server.seen[-1].path == "/pbx/ari/channels"


GOOD: dict[str, Any] = describe_all("http://127.0.0.1/ari")


@pytest.mark.parametrize(
    "body",
    [
        "<html>It works!</html>",
        "[]",
        "{}",
        "null",
        '{"apis": [{}]}',
        '{"apis": 7}',
        '{"apis": []}',
        json.dumps({**GOOD, "swaggerVersion": "3.0"}),
        json.dumps({**GOOD, "apis": [{"path": "x", "description": ""}]}),
        "[" * 100_000,
    ],
)
async def test_what_answers_is_not_asterisk(server: Server, transport_to: To, body: str) -> None:
    server.handler = server.say(text=body)
    with pytest.raises(AriRejected, match="not with Asterisk's API description"):
        await load_api(server.url, transport_to(server.url))


@pytest.mark.parametrize(("status", "kind"), [(401, AriDenied), (404, AriNotFound), (503, AriUnavailable)])
async def test_no_description(server: Server, transport_to: To, status: int, kind: type[AriError]) -> None:
    server.handler = server.say(status)
    with pytest.raises(kind):
        await load_api(server.url, transport_to(server.url))


@pytest.fixture
async def api(asterisk: SimulatedAsterisk, transport_to: To) -> Api:
    asterisk.password = "geheim"
    return await load_api(asterisk.url, transport_to(asterisk.url))


async def test_operations_this_asterisk_does_not_have(api: Api) -> None:
    with pytest.raises(AriRejected, match=r"no channels\.teleport"):
        api.operation("channels", "teleport")
    with pytest.raises(AriRejected, match=r"no teapots\.list"):
        api.operation("teapots", "list")
    with pytest.raises(AriRejected, match=r"channels\.get does not take colour"):
        await api.operation("channels", "get")({"channelId": "x", "colour": "red"})
    with pytest.raises(AriRejected, match=r"events\.eventWebsocket does not take colour"):
        await api.operation("events", "eventWebsocket").open_socket({"app": "x", "colour": "red"})


async def test_ids_are_quoted(api: Api, asterisk: SimulatedAsterisk) -> None:
    odd = "a/b?c#d%e+f"
    with pytest.raises(AriNotFound):
        await api.operation("channels", "get")({"channelId": odd})
    assert asterisk.requests[-1].params["channelId"] == odd
