"""Every tool there is, by its name, and which of them an agent gets.

=================  =========================================  ==================================
a name             comes from                                 is there
=================  =========================================  ==================================
``hangup_call``    this package                               always
``send_dtmf``      this package                               always
``transfer_call``  this package, with the agent's own table   when the table has a name
``api_call``       this package                               when ``[tools.api_call]`` allows something
``NAME``           ``[tools.named.NAME]``                     always
``NAME``           entry point group ``ari_gemini.tools``     when its package is installed
``SERVER.TOOL``    ``[tools.mcp.SERVER]``                     while the server is up and offers it
=================  =========================================  ==================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property

import structlog

from ari_gemini.errors import ConfigError
from ari_gemini.tools.api_call import ApiCall
from ari_gemini.tools.base import Tool
from ari_gemini.tools.destination import Destination
from ari_gemini.tools.hangup_call import HangupCall
from ari_gemini.tools.http_client import HttpClient
from ari_gemini.tools.http_tool import HttpTool
from ari_gemini.tools.mcp_server import McpServer
from ari_gemini.tools.python_tool import find_python_tools, load_python_tool
from ari_gemini.tools.send_dtmf import SendDtmf
from ari_gemini.tools.settings import ToolLimits, ToolsSettings
from ari_gemini.tools.transfer_call import TransferCall

log = structlog.get_logger(__name__)

OWN = ("hangup_call", "send_dtmf", "transfer_call", "api_call")


class Catalogue:
    """One per process. ``wanted``: the names that some agent may use; nothing else is loaded or started."""

    def __init__(
        self, settings: ToolsSettings, wanted: Iterable[str], environ: Mapping[str, str] | None = None
    ) -> None:
        """Needs no event loop, and opens nothing. ``environ`` is what MCP servers may get variables of.

        Raises ConfigError for a name that nothing stands for.
        """
        self.limits: ToolLimits = settings.limits
        self._settings = settings
        self._environ = environ or {}
        self._servers: dict[str, McpServer] = {}
        self._fixed: dict[str, Tool] = {}
        self._wanted = tuple(dict.fromkeys(wanted))
        _unambiguous(settings)
        for name in self._wanted:
            self._provide(name)

    @cached_property
    def _http(self) -> HttpClient:
        return HttpClient(self._settings.http)

    @property
    def servers(self) -> Mapping[str, McpServer]:
        """The MCP servers that some agent wants something of."""
        return self._servers

    def pick(self, names: Sequence[str], destinations: Mapping[str, Destination]) -> list[Tool]:
        """The tools with these names that can be had now; what is missing is logged, and done without."""
        picked = []
        for name in names:
            tool = self._find(name, destinations)
            if tool is None:
                log.warning("tool.missing", tool=name, why="its MCP server is down or does not offer it")
            else:
                picked.append(tool)
        return picked

    def fixed(self, names: Sequence[str], destinations: Mapping[str, Destination]) -> list[Tool]:
        """Those of them that need no server: what can be checked before anything runs."""
        return [tool for name in names if "." not in name and (tool := self._find(name, destinations))]

    async def run(self) -> None:
        """Keep the MCP servers up until cancelled; then they are gone. Returns when there are none."""
        async with asyncio.TaskGroup() as tasks:
            for name, server in self._servers.items():
                tasks.create_task(server.run(), name=f"mcp {name}")

    def _find(self, name: str, destinations: Mapping[str, Destination]) -> Tool | None:
        if name == "transfer_call":
            return TransferCall(destinations)
        fixed = self._fixed.get(name)
        if fixed is not None:
            return fixed
        server = self._servers.get(name.partition(".")[0])
        return None if server is None else server.tools().get(name)

    def _provide(self, name: str) -> None:
        """Make the tool, or its server, so that ``pick`` finds it."""
        settings = self._settings
        own: dict[str, Callable[[], Tool]] = {"hangup_call": HangupCall, "send_dtmf": SendDtmf}
        server, dot, _ = name.partition(".")
        if name == "transfer_call":
            return
        if name in own:
            self._fixed[name] = own[name]()
        elif name == "api_call":
            self._fixed[name] = ApiCall(settings.api_call, settings.credentials, self._http)
        elif name in settings.named:
            self._fixed[name] = HttpTool(name, settings.named[name], settings.credentials, self._http)
        elif dot and server in settings.mcp:
            if server not in self._servers:
                self._servers[server] = McpServer(server, settings.mcp[server], self._environ, self._wanted)
        elif name in (found := find_python_tools()):
            self._fixed[name] = load_python_tool(found[name])
        else:
            raise ConfigError(f"there is no tool {name!r}; there are: {', '.join(self._known())}")

    def _known(self) -> list[str]:
        servers = [f"{server}.(a tool of it)" for server in self._settings.mcp]
        return [*OWN, *self._settings.named, *servers, *find_python_tools()]


def _unambiguous(settings: ToolsSettings) -> None:
    python = find_python_tools()
    for name in settings.named:
        if name in OWN or name in python:
            raise ConfigError(f"tools.named.{name}: another tool has this name")
    for name in python:
        server = name.partition(".")[0]
        if name in OWN or ("." in name and server in settings.mcp):
            raise ConfigError(f"entry point {name} ({python[name].value}): another tool has this name")
