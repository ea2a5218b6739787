"""The simulated Asterisk connects to the service: one WebSocket per call, as with ``outbound_websocket``.

What a real Asterisk 22.10.1 did: ApplicationRegistered at once, the caller enters 500 ms later, requests over
the same socket one after another, a new connection when one breaks, an end of its own after the caller has
left. Events that come to pass without a connection are kept and sent first.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections import deque
from dataclasses import dataclass
from typing import Any

import aiohttp

from ari_gemini.simulator.asterisk_http import EventSocket, HttpFront
from ari_gemini.simulator.asterisk_rest import Rest
from ari_gemini.simulator.asterisk_state import SimChannel
from ari_gemini.simulator.asterisk_switch import Switch

MAX_WAITING = 1000
"""Events kept for one application without a connection, the newest."""


@dataclass(frozen=True)
class Outbound:
    """``websocket_client.conf``, with ``ari.conf``'s ``apps``. All times in seconds."""

    uri: str
    username: str
    password: str
    app: str = "ari-gemini"
    reconnect_interval: float = 0.5
    reconnect_attempts: int = 20
    entry: float = 0.5
    """From ApplicationRegistered to StasisStart."""
    lingering: float = 3.5
    """From the caller's leaving to the end of his connection."""


class Dialler:
    """Connects for callers. ``channels`` holds those whose connection is kept up."""

    def __init__(self, settings: Outbound, front: HttpFront, switch: Switch, rest: Rest) -> None:
        self.settings = settings
        self.refusals: list[int] = []
        """HTTP statuses that answered an upgrade."""
        self._front = front
        self._switch = switch
        self._rest = rest
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, channel: SimChannel, args: list[str]) -> None:
        """``Stasis(app,args...)``: connect, and let the caller enter."""
        channel.app_name, channel.app_data = "Stasis", ",".join([self.settings.app, *args])
        task = asyncio.create_task(self._keep_up(channel, args), name=f"outbound {channel.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cut every connection, and make none any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep_up(self, channel: SimChannel, args: list[str]) -> None:
        name = f"{self.settings.app}:{channel.name}"
        self._front.waiting[name] = deque(maxlen=MAX_WAITING)
        entering: asyncio.Task[None] | None = None
        try:
            async with aiohttp.ClientSession() as session:
                while (socket := await self._connect(session)) is not None:
                    entering = entering or asyncio.create_task(self._enter(channel, name, args))
                    if await self._serve(socket, channel, name):
                        return
            if channel.hangup_cause is None and not channel.left.is_set():
                self._switch.fail_stasis(channel)
        finally:
            if entering is not None:
                entering.cancel()
            del self._front.waiting[name]

    async def _enter(self, channel: SimChannel, name: str, args: list[str]) -> None:
        await asyncio.sleep(self.settings.entry)
        if channel.hangup_cause is None:
            self._switch.enter_stasis(channel, name, args, written=self.settings.app)

    async def _connect(self, session: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse | None:
        login = base64.b64encode(f"{self.settings.username}:{self.settings.password}".encode()).decode()
        for _ in range(self.settings.reconnect_attempts):
            try:
                return await session.ws_connect(
                    self.settings.uri, protocols=["ari"], headers={"Authorization": f"Basic {login}"}
                )
            except aiohttp.WSServerHandshakeError as refused:
                self.refusals.append(refused.status)
            except (aiohttp.ClientError, OSError):
                pass  # nobody listens, or he hangs up: the same as a refusal
            await asyncio.sleep(self.settings.reconnect_interval)
        return None

    async def _serve(self, socket: aiohttp.ClientWebSocketResponse, channel: SimChannel, name: str) -> bool:
        """One connection. True: the caller has left, and it was ended from here."""
        mine = EventSocket(socket, socket.get_extra_info("transport"))
        waiting = self._front.waiting[name]
        while waiting:
            mine.push(waiting.popleft())
        self._front.sockets[name] = mine
        self._front.emit(name, "ApplicationRegistered", {})
        sending = asyncio.create_task(mine.send_for_ever())
        reading = asyncio.create_task(self._read(socket))
        ending = asyncio.create_task(self._linger(channel))
        try:
            await asyncio.wait((reading, ending), return_when=asyncio.FIRST_COMPLETED)
            return ending.done()
        finally:
            self._front.sockets.pop(name, None)
            for task in (sending, reading, ending):
                task.cancel()
            await asyncio.gather(sending, reading, ending, return_exceptions=True)
            with contextlib.suppress(ConnectionError):
                await socket.close()

    async def _linger(self, channel: SimChannel) -> None:
        await channel.left.wait()
        await asyncio.sleep(self.settings.lingering)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            asked = json.loads(message.data)
            status, body = await self._front.perform(self._rest, asked["method"], asked["uri"])
            numbers = {key: asked.get(key, "") for key in ("transaction_id", "request_id", "uri")}
            answer: dict[str, Any] = {"type": "RESTResponse", **numbers, "status_code": status}
            if body is not None:
                answer |= {"content_type": "application/json", "message_body": json.dumps(body)}
            await socket.send_str(json.dumps(answer))
