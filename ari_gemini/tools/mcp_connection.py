"""One connection to an MCP server, by the official SDK. The only module, with ``mcp_stdio``, that needs it.

Both generations of the protocol are spoken: 2026-07-28, which the server is asked for first, and the
``initialize`` handshake of those before. What the server announces of its tools is bounded here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, cast

import httpx2
import mcp_types as types
from mcp.client.session import ClientSession, IncomingMessage
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import listen
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from ari_gemini.errors import AriGeminiError, ConfigError, ToolError
from ari_gemini.tools.mcp_settings import McpSettings
from ari_gemini.tools.mcp_stdio import MAX_MESSAGE, Child, child

MAX_TOOLS = 256
"""Of one server. No model chooses well among so many."""
MAX_PAGES = 64
"""Of the list of tools: one that never ends cannot hold us."""
MAX_ERROR = 1000
"""Characters of an error that go on to the model."""
LIST_PAUSE = 1.0
"""Seconds at least between two listings, however often the server says that something changed."""
_READ_TIMEOUT = 300.0
"""Seconds of silence on an HTTP stream (mcp.shared._httpx_utils)."""
_FAREWELL = 2.0
"""Seconds that ending an HTTP session may take."""

for _logger in ("mcp", "client"):
    # the SDK logs what it cannot read, tracebacks and all; it may hold what a caller said
    logging.getLogger(_logger).setLevel(logging.CRITICAL)

_Streams = tuple[Any, Any]
"""What a transport of the SDK gives: messages in, messages out. The types for it are private."""


class ServerLost(AriGeminiError):
    """The server is gone, or is none."""


class _Session(ClientSession):
    async def validate_tool_result(self, name: str, result: types.CallToolResult) -> None:
        """Leave the result as it is: schema and result are both the server's, and its regular expressions
        could keep the event loop busy for ever."""


class Connection:
    """A server that has been greeted. Any task may use it."""

    def __init__(self) -> None:
        self.session: ClientSession
        self.wake = asyncio.Event()
        """Set when the list of tools is to be read again, or the connection is lost."""
        self.lost: str | None = None
        self.child: Child | None = None
        self.http_status: int | None = None
        """The last one that was an error."""
        self._loop = asyncio.get_running_loop()
        self._listed_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    def lose(self, why: str) -> None:
        """Nothing more can come."""
        self.lost = self.lost or why
        self.wake.set()

    def look_again(self) -> None:
        """Wake whoever keeps the list of tools, LIST_PAUSE after the last listing at the earliest."""
        if self._timer is None:
            self._timer = self._loop.call_at(self._listed_at + LIST_PAUSE, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.wake.set()

    def close(self) -> None:
        """Ring no more."""
        if self._timer is not None:
            self._timer.cancel()

    async def on_message(self, message: IncomingMessage) -> None:
        """What the server tells of its own accord."""
        if isinstance(message, types.ToolListChangedNotification):
            self.look_again()

    async def note_status(self, response: httpx2.Response) -> None:
        """Remember an HTTP error, which the SDK does not tell."""
        if response.status_code >= 400:
            self.http_status = response.status_code

    async def greet(self) -> None:
        """Agree on a protocol. Raises MCPError, RuntimeError or ValidationError when there is none."""
        try:
            await self.session.discover()
        except (MCPError, RuntimeError, ValidationError):
            await self.session.initialize()

    async def watch(self) -> None:
        """Follow the changes of the list of tools, for ever, where they must be subscribed to."""
        capabilities = self.session.server_capabilities
        tools = capabilities.tools if capabilities is not None else None
        if self.session.protocol_version not in MODERN_PROTOCOL_VERSIONS or not (
            tools and tools.list_changed
        ):
            return  # announced without being asked, or not at all
        while True:
            try:
                async with listen(self.session, tools_list_changed=True) as events:
                    self.look_again()  # it may have changed between the listing and now
                    async for _ in events:
                        self.look_again()
            except (MCPError, RuntimeError):
                pass  # refused, or cut off
            self.look_again()  # shows whether the server is still there
            await asyncio.sleep(5 * LIST_PAUSE)

    async def list_tools(self) -> list[types.Tool]:
        """The first MAX_TOOLS tools. Raises MCPError or ValidationError."""
        self._listed_at = self._loop.time()
        tools: list[types.Tool] = []
        params: types.PaginatedRequestParams | None = None
        for _ in range(MAX_PAGES):
            page = await self.session.list_tools(params=params)
            tools += page.tools
            if page.next_cursor is None or len(tools) >= MAX_TOOLS:
                break
            params = types.PaginatedRequestParams(cursor=page.next_cursor)
        return tools[:MAX_TOOLS]

    async def call(self, name: str, args: Mapping[str, Any]) -> Any:
        """Use a tool. Raises ToolError. Cancelling tells the server, within 5 s."""
        try:
            result = await self.session.call_tool(name, dict(args))
        except MCPError as error:
            self.look_again()  # shows whether the server is still there
            raise ToolError(f"{name} failed: {error.message[:MAX_ERROR]}") from None
        except ValidationError:
            raise ToolError(f"{name} failed: its server answered against its own protocol") from None
        except RuntimeError:
            raise ToolError(f"{name} failed: its server asks back, which is not possible here") from None
        text = "\n".join(_text(block) for block in result.content)
        if result.is_error:
            raise ToolError(text[:MAX_ERROR] or f"{name} failed")
        structured = result.structured_content
        if structured is None:
            return text
        if isinstance(structured, dict) and structured.keys() == {"result"}:
            return structured["result"]  # how the SDK's servers wrap what is no object
        return structured


def _text(block: types.ContentBlock) -> str:
    """What a model can read of one part of a result. Pictures and sound are named, not passed on."""
    match block:
        case types.TextContent():
            return block.text
        case types.ImageContent() | types.AudioContent():
            return f"({block.type}, {block.mime_type}, not shown)"
        case types.EmbeddedResource(resource=types.TextResourceContents(text=text)):
            return text
        case types.EmbeddedResource():
            return f"(resource {block.resource.uri}, not shown)"
        case types.ResourceLink():
            return f"(resource {block.name}: {block.uri})"


@asynccontextmanager
async def connect(settings: McpSettings, environ: Mapping[str, str]) -> AsyncIterator[Connection]:
    """Start or reach the server and greet it. Enter and leave it in one and the same task.

    Raises ServerLost or, from the SDK, what went wrong, perhaps in an ExceptionGroup; ConfigError without the
    value of ``header``. Cancelling closes everything.

    No AsyncExitStack here or around it: the contexts of the SDK's exceptions can form a circle, which that
    follows for ever (contextlib, _fix_exception_context).
    """
    connection = Connection()
    streams = _over_http(settings, connection) if settings.url else _over_stdio(settings, environ, connection)
    async with (
        streams as (read, write),
        _Session(
            read, write, message_handler=connection.on_message, client_info=_client()
        ) as connection.session,
    ):
        try:
            await connection.greet()
        except (MCPError, RuntimeError, ValidationError) as error:
            raise ServerLost(await _why(connection, error)) from error
        watcher = asyncio.create_task(connection.watch())
        try:
            yield connection
        finally:
            connection.close()
            watcher.cancel()
            await asyncio.wait({watcher})


@asynccontextmanager
async def _over_stdio(
    settings: McpSettings, environ: Mapping[str, str], connection: Connection
) -> AsyncIterator[_Streams]:
    env = settings.environment(environ)
    async with child(settings.command or (), env, settings.cwd, connection.lose) as connection.child:
        yield connection.child.streams


@asynccontextmanager
async def _over_http(settings: McpSettings, connection: Connection) -> AsyncIterator[_Streams]:
    async with (
        _http_client(settings, connection) as client,
        streamable_http_client(
            settings.url or "", http_client=client, max_sse_event_size=MAX_MESSAGE
        ) as streams,
    ):
        yield streams


async def _why(connection: Connection, error: Exception) -> str:
    if connection.child is not None and connection.lost is not None:
        return await connection.child.last_words()
    if connection.http_status is not None:
        return f"HTTP status {connection.http_status}"
    return "it does not speak MCP" if isinstance(error, ValidationError) else str(error)[:200]


def _client() -> types.Implementation:
    return types.Implementation(name="ari-gemini", version=version("ari-gemini"))


def _http_client(settings: McpSettings, connection: Connection) -> httpx2.AsyncClient:
    """Proxies and certificates of the environment are not looked at: only config.py reads it."""
    headers = {"accept-encoding": "identity"}
    if settings.header is not None:
        if settings.value is None:
            raise ConfigError(f"{settings.place}: the value of header {settings.header} is missing")
        headers[settings.header] = settings.value.get_secret_value()
    return httpx2.AsyncClient(
        headers=headers,
        timeout=httpx2.Timeout(settings.connect_timeout, read=_READ_TIMEOUT),
        transport=_BoundedTransport(trust_env=False),
        event_hooks={"response": [connection.note_status]},
        trust_env=False,
    )


class _BoundedTransport(httpx2.AsyncHTTPTransport):
    """Answers of at most MAX_MESSAGE bytes; event streams, which may be endless, are bounded by event."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "DELETE":  # the end of a session must not wait for a server that hangs
            request.extensions["timeout"] = httpx2.Timeout(_FAREWELL).as_dict()
        response = await super().handle_async_request(request)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise httpx2.DecodingError("compressed, which was not asked for", request=request)
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            response.stream = _Bounded(cast(httpx2.AsyncByteStream, response.stream))
        return response


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > MAX_MESSAGE:
                raise httpx2.StreamError(f"an answer of more than {MAX_MESSAGE} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
