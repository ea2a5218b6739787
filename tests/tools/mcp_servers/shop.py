"""A server as the SDK's quickstart builds it, over stdio, or over streamable HTTP with ``http PORT``.

Over HTTP it prints the port it listens on, and wants the header ``X-Shop: $SHOP_TOKEN`` if that is set.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import sys
from typing import Annotated, Any, Literal

import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import TextContent
from pydantic import BaseModel, Field

server = MCPServer("Shop")
waiting = asyncio.Event()
cancelled = asyncio.Event()


class Line(BaseModel):
    article: str
    count: Annotated[int, Field(ge=1)] = 1


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def order(lines: list[Line], speed: Literal["slow", "fast"] = "slow") -> dict[str, Any]:
    """Order articles."""
    return {"articles": sum(line.count for line in lines), "speed": speed}


@server.tool()
def find(number: Annotated[str, Field(pattern="^(a+)+$")]) -> str:
    """Find an order."""
    raise ToolError(f"no order {number}")


@server.tool()
async def wait() -> str:
    """Wait until cancelled."""
    waiting.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        cancelled.set()
        raise
    return "never"


@server.tool()
async def until(what: Literal["waiting", "cancelled"]) -> str:
    """Return once somebody waits, or was cancelled."""
    await {"waiting": waiting, "cancelled": cancelled}[what].wait()
    return what


@server.tool()
def crash() -> None:
    """End at once."""
    os._exit(3)


@server.tool()
def environment() -> dict[str, str]:
    """What it was given."""
    return dict(os.environ)


@server.tool(structured_output=False)
def picture() -> list[Any]:
    """Text and a picture."""
    pixel = base64.b64decode("R0lGODlhAQABAAAAACw=")
    return [TextContent(type="text", text="look"), Image(data=pixel, format="gif")]


@server.tool()
async def learn(name: str, context: Context) -> str:
    """Learn another trick."""
    server.add_tool(lambda: name, name=name, description=f"Say {name}.")
    await context.notify_tools_changed()
    return "learnt"


def http(port: int) -> None:
    listening = socket.create_server(("127.0.0.1", port))
    print(listening.getsockname()[1], flush=True)
    app = server.streamable_http_app()
    token = os.environ.get("SHOP_TOKEN")

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and token and (b"x-shop", token.encode()) not in scope["headers"]:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await app(scope, receive, send)

    config = uvicorn.Config(guarded, log_level="error", timeout_graceful_shutdown=0)
    asyncio.run(uvicorn.Server(config).serve(sockets=[listening]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["http"]:
        http(int(sys.argv[2]))
    else:
        server.run("stdio")
