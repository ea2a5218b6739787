"""What reaches the simulated service on its port and is no WebSocket: requests to mint a token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from ari_gemini.simulator.gemini_access import BAD_KEY, Access, minting_version
from ari_gemini.simulator.gemini_schema import RefusalError
from ari_gemini.simulator.gemini_tokens import TokenBook
from ari_gemini.simulator.scenario import Scenario

MAX_BODY = 4 * 2**20
"""Bytes of a request; instructions and declarations of tools are some 100 kB at most."""
SHUTDOWN = 0.1
"""Seconds that requests in progress get when it stops."""
NOT_FOUND = "The requested URL was not found on this server.\n"
QUOTA = "You exceeded your current quota, please check your plan and billing details."
UNAVAILABLE = "The service is currently unavailable."
_STATUS = {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}


def error_body(status: int, message: str) -> dict[str, object]:
    """An error as Google's APIs put it into JSON (google.rpc.Status, by its HTTP mapping)."""
    return {"error": {"code": status, "message": message, "status": _STATUS.get(status, "UNKNOWN")}}


def failure_text(status: int) -> str:
    """What the service says with a status that a scenario asks for."""
    return QUOTA if status == 429 else UNAVAILABLE


class MintingDesk:
    """Answers HTTP requests; ``scenario`` tells what goes wrong at the time."""

    def __init__(self, book: TokenBook, access: Access, scenario: Callable[[], Scenario]) -> None:
        self._book = book
        self._access = access
        self._scenario = scenario
        self._server: web.Server | None = None

    def connection(self) -> asyncio.Protocol:
        """A protocol that speaks HTTP on one connection."""
        if self._server is None:
            self._server = web.Server(self._answer, access_log=None)
        return self._server()

    async def close(self) -> None:
        """End every connection, also in the middle of a request. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.pre_shutdown()  # those that wait for another request
            await server.shutdown(SHUTDOWN)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        version = minting_version(request.raw_path)
        if version is None or request.method != "POST":
            return web.Response(status=404, text=NOT_FOUND)
        body = await request.content.read(MAX_BODY + 1) if request.can_read_body else b""
        while len(body) <= MAX_BODY and (more := await request.content.readany()):
            body += more
        scenario = self._scenario()
        if not scenario.upgrade:
            await asyncio.get_running_loop().create_future()
        if scenario.http_status is not None:
            return _failure(scenario.http_status, failure_text(scenario.http_status))
        try:
            self._access.check_key(request.headers.get("x-goog-api-key") or request.query.get("key", ""))
            if scenario.refuse_keys:
                raise RefusalError(1007, BAD_KEY)
            if len(body) > MAX_BODY:
                raise RefusalError(1007, "Request payload size exceeds the limit.")
            return web.json_response(self._book.mint(body, version))
        except RefusalError as refusal:
            return _failure(403 if refusal.code == 1008 else 400, refusal.text)


def _failure(status: int, message: str) -> web.Response:
    return web.json_response(error_body(status, message), status=status)
