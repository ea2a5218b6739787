"""The HTTP side of the simulated Asterisk: who may ask, what was asked, faults, and the event connections."""

from __future__ import annotations

import asyncio
import base64
import hmac
import inspect
import json
import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from aiohttp import ClientWebSocketResponse, WSCloseCode, web

from ari_gemini.simulator.asterisk_docs import OPERATIONS, Operation, describe_all, describe_one
from ari_gemini.simulator.asterisk_rest import VERSION, Ask, Handler, Refused, Rest
from ari_gemini.simulator.asterisk_state import Json, timestamp

MAX_EVENTS = 10_000
"""Events waiting for one connection. A client that does not read for so long is dropped, as by Asterisk."""
MAX_REQUESTS = 100_000
"""Requests remembered, the newest: some hours of calls."""
CLOSE_WAIT = 1.0
"""Seconds that a closing event connection waits for the client's close frame."""
SHUTDOWN = 0.1
"""Seconds that requests in progress get when it stops."""

OnRequest = Callable[[str, str], Awaitable[None] | None]
"""Fault hook: method and path (without ``/ari``). May hang up, wait, or raise Refused."""


@dataclass(slots=True)
class Request:
    """One request that was made. ``status`` is None while it is not answered."""

    operation: str
    """Resource and nickname, as in ``channels.answer``."""
    method: str
    path: str
    params: Mapping[str, str]
    status: int | None = None


class EventSocket:
    """One client's event connection: events are queued by the switch and sent in order."""

    def __init__(
        self,
        socket: web.WebSocketResponse | ClientWebSocketResponse,
        transport: asyncio.BaseTransport | None,
    ) -> None:
        self.socket = socket
        self._transport = transport
        self._outbox: asyncio.Queue[str] = asyncio.Queue(MAX_EVENTS)

    def push(self, text: str) -> None:
        try:
            self._outbox.put_nowait(text)
        except asyncio.QueueFull:
            self.abort()

    def abort(self) -> None:
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()

    async def send_for_ever(self) -> None:
        while True:
            await self.socket.send_str(await self._outbox.get())


class HttpFront:
    """Listens, and passes requests on to :class:`Rest` and events to the clients."""

    def __init__(self, username: str, password: str) -> None:
        self.username = username
        self.password = password
        self.on_request: OnRequest | None = None
        self.media_refused = False
        """``externalMedia`` answers 500 and dials nobody."""
        self.delay = 0.0
        """Seconds before every answer."""
        self.requests: deque[Request] = deque(maxlen=MAX_REQUESTS)
        """Requests in the order they came; the description and the event connection are not among them."""
        self.host = "127.0.0.1"
        self.port = 0
        self.sockets: dict[str, EventSocket] = {}
        self.waiting: dict[str, deque[str]] = {}
        """Of applications whose connection Asterisk itself is making: events until it stands."""
        self._connected = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """What ``[ari] url`` must be to reach it."""
        return f"http://{self.host}:{self.port}"

    def operations(self) -> list[str]:
        """What was asked, in order: ``channels.ring``, ``channels.answer`` …"""
        return [request.operation for request in self.requests]

    def connected_apps(self) -> set[str]:
        """Applications that a client listens for."""
        return set(self.sockets)

    async def wait_connected(self, app: str = "ari-gemini") -> None:
        """Wait until a client listens to this application's events."""
        async with self._connected:
            await self._connected.wait_for(lambda: app in self.sockets)

    async def wait_disconnected(self, app: str = "ari-gemini") -> None:
        """Wait until no client listens to this application's events."""
        async with self._connected:
            await self._connected.wait_for(lambda: app not in self.sockets)

    async def listen(self, rest: Rest, host: str, port: int) -> None:
        """Open the HTTP server. Raises OSError."""
        app = web.Application(middlewares=[self._gate])
        app.router.add_get("/ari/api-docs/{name}.json", self._describe)
        for operation in OPERATIONS:
            handler = self._events if operation.websocket else self._answer_with(operation, rest)
            app.router.add_route(operation.method, f"/ari{operation.path}", handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self.host, self.port = runner.addresses[0][:2]

    async def stop_listening(self) -> None:
        """Close the HTTP server with all its connections. Idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            self.drop_events()
            await runner.cleanup()

    def drop_events(self) -> None:
        """Cut every event connection, without a word."""
        for socket in list(self.sockets.values()):
            socket.abort()

    def send_raw(self, text: str) -> None:
        """Send this on every event connection, whatever it is."""
        for socket in self.sockets.values():
            socket.push(text)

    def emit(self, app: str | None, kind: str, fields: Json) -> None:
        """Send an event to the client of ``app``, if there is one."""
        socket = self.sockets.get(app) if app is not None else None
        waiting = self.waiting.get(app) if app is not None else None
        if socket is None and waiting is None:
            return
        event = {
            "type": kind,
            "timestamp": timestamp(),
            **fields,
            "asterisk_id": "02:00:00:00:00:01",
            "application": app,
        }
        text = json.dumps(event, separators=(",", ":"))
        if socket is not None:
            socket.push(text)
        elif waiting is not None:
            waiting.append(text)

    @web.middleware
    async def _gate(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            if self.delay:
                await asyncio.sleep(self.delay)
            if not self._admits(request):
                raise Refused(401, "Authentication required")
            return await handler(request)
        except Refused as refused:
            answer = web.json_response({"message": refused.message}, status=refused.status)
        except web.HTTPNotFound:
            answer = web.json_response({"message": "Resource not found"}, status=404)
        except web.HTTPMethodNotAllowed:
            answer = web.json_response({"message": "Invalid method"}, status=405)
        answer.headers["Server"] = f"Asterisk/{VERSION}"
        if answer.status == 401:
            answer.headers["WWW-Authenticate"] = 'Basic realm="Asterisk REST Interface"'
        return answer

    def _admits(self, request: web.Request) -> bool:
        """HTTP Basic, or ``?api_key=user:password``: Asterisk takes both."""
        wanted = f"{self.username}:{self.password}".encode()
        kind, _, value = request.headers.get("Authorization", "").partition(" ")
        try:
            given = base64.b64decode(value, validate=True) if kind.lower() == "basic" else b""
        except ValueError:
            return False
        return hmac.compare_digest(given or request.query.get("api_key", "").encode(), wanted)

    async def _describe(self, request: web.Request) -> web.Response:
        base, name = f"http://{request.host}/ari", request.match_info["name"]
        try:
            described = describe_all(base) if name == "resources" else describe_one(base, name)
        except KeyError:
            raise Refused(404, "Resource not found") from None
        return web.json_response(described)

    def _answer_with(
        self, operation: Operation, rest: Rest
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        handler = rest.handler(operation.resource, operation.nickname)
        name = f"{operation.resource}.{operation.nickname}"

        async def answer(request: web.Request) -> web.Response:
            params = await _params(request)
            entry = Request(name, request.method, request.path.removeprefix("/ari"), params)
            result = await self._perform(handler, entry)
            return web.Response(status=204) if result is None else web.json_response(result)

        return answer

    async def _perform(self, handler: Handler, entry: Request) -> object:
        """Note the request and carry it out. Raises Refused."""
        self.requests.append(entry)
        try:
            await self._interfere(entry)
            result = await handler(Ask(entry.params))
        except Refused as refused:
            entry.status = refused.status
            raise
        entry.status = 204 if result is None else 200
        return result

    async def perform(self, rest: Rest, method: str, uri: str) -> tuple[int, object]:
        """A request that came over a WebSocket, ``channels/ID?name=value``: status, and body or None."""
        path, _, query = uri.partition("?")
        for operation in OPERATIONS:
            pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", operation.path)
            match = re.fullmatch(pattern, f"/{path}")
            if match is None or operation.method != method or operation.websocket:
                continue
            named = {name: unquote(value) for name, value in match.groupdict().items()}
            name = f"{operation.resource}.{operation.nickname}"
            entry = Request(name, method, f"/{path}", {**dict(parse_qsl(query)), **named})
            try:
                result = await self._perform(rest.handler(operation.resource, operation.nickname), entry)
            except Refused as refused:
                return refused.status, {"message": refused.message}
            return (204 if result is None else 200), result
        return 404, {"message": "Resource not found"}

    async def _interfere(self, entry: Request) -> None:
        if self.on_request is not None:
            waiting = self.on_request(entry.method, entry.path)
            if inspect.isawaitable(waiting):
                await waiting
        if self.media_refused and entry.operation == "channels.externalMedia":
            raise Refused(500)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        apps = [app for app in request.query.get("app", "").split(",") if app]
        if not apps:
            raise Refused(400, "Missing parameter: app")
        socket = web.WebSocketResponse(timeout=CLOSE_WAIT)
        mine = EventSocket(socket, request.transport)
        await self._register(mine, apps)
        sender: asyncio.Task[None] | None = None
        try:
            # From its answer on the client counts on events; they have been queued since it was registered.
            await socket.prepare(request)
            sender = asyncio.create_task(mine.send_for_ever())
            async for _ in socket:
                pass  # Asterisk takes requests here too; this service makes them over HTTP
        finally:
            await self._unregister(mine)
            if sender is not None:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)
            await socket.close(code=WSCloseCode.GOING_AWAY)
        return socket

    async def _register(self, socket: EventSocket, apps: list[str]) -> None:
        async with self._connected:
            for app in apps:
                self.emit(app, "ApplicationReplaced", {})
                self.sockets[app] = socket
            self._connected.notify_all()

    async def _unregister(self, socket: EventSocket) -> None:
        async with self._connected:
            for app in [app for app, held in self.sockets.items() if held is socket]:
                del self.sockets[app]
            self._connected.notify_all()


async def _params(request: web.Request) -> dict[str, str]:
    """Path, query and the fields of a JSON body: Asterisk takes parameters from all three."""
    body: Any = {}
    if request.can_read_body:
        try:
            body = json.loads(await request.text() or "{}")
        except ValueError:
            raise Refused(400, "Request body is not valid JSON") from None
    fields = body if isinstance(body, dict) else {}
    scalars = {name: str(value) for name, value in fields.items() if isinstance(value, str | int | float)}
    return {**scalars, **request.query, **request.match_info}
