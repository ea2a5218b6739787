"""Tools of MCP servers (modelcontextprotocol.io): each server kept up for ever, its tools known and usable.

::

    down ──▶ connecting ──▶ up ──▶ (list changed, or time to look) ──▶ up
      ▲          │           │
      └──pause◀──┴──failed◀──┘      the pause doubles; tools once known stay known, and say that it is away
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn

import structlog

from ari_gemini.errors import AriGeminiError, ConfigError, ToolError
from ari_gemini.realtime.functions import FunctionDeclaration
from ari_gemini.tools.base import Tool, ToolContext
from ari_gemini.tools.mcp_settings import McpSettings
from ari_gemini.tools.schema import MAX_DESCRIPTION, TOOL_NAME, declarable, inlined

if TYPE_CHECKING:
    from mcp_types import Tool as ListedTool

    from ari_gemini.tools.mcp_connection import Connection

log = structlog.get_logger(__name__)

CLOSE_PATIENCE = 5.0
"""Seconds that a connection may take to close before it is cancelled once more; a child may take 4."""

_SERVER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,31}")
"""Leaves most of TOOL_NAME's length to the tool."""


class McpTool(Tool):
    """One tool of a server, under the name ``SERVER.TOOL``."""

    def __init__(self, server: McpServer, remote_name: str, declaration: FunctionDeclaration) -> None:
        self.declaration = declaration
        self.goes_to = server.goes_to
        self.time_limit = server.settings.time_limit
        self._server = server
        self._remote_name = remote_name

    async def run(self, args: Mapping[str, Any], context: ToolContext) -> Any:
        """Ask the server. Cancelling returns at once; the server is told to stop.

        Raises ToolError when it says so, is not there, or leaves meanwhile.
        """
        return await self._server.call(self._remote_name, args)


@dataclass(frozen=True, slots=True)
class _Known:
    """What became of one listed tool, kept while the server says the same of it."""

    description: str
    schema: str
    """As JSON: in Python ``1 == True``, and two dicts are equal whatever their order."""
    outcome: McpTool | str
    """The tool, or why it is none."""


class McpServer:
    """One server. Run :meth:`run` in a task of its own; its tools serve every call."""

    def __init__(
        self,
        name: str,
        settings: McpSettings,
        environ: Mapping[str, str],
        wanted: Collection[str] | None = None,
    ) -> None:
        """``environ``: this service's environment, of which the server gets what its settings name.

        ``wanted``: the names, ``SERVER.TOOL``, of the tools to know; whatever else it lists costs nothing.
        None: all of them. Raises ConfigError for a name that cannot begin a tool's, and without the SDK.
        """
        if not _SERVER_NAME.fullmatch(name):
            raise ConfigError(
                f"tools.mcp.{name[:40]}: must be a letter or _, then letters, digits, _ or - (32)"
            )
        if find_spec("mcp") is None:
            raise ConfigError(f"tools.mcp.{name}: needs another package: pip install 'ari-gemini[mcp]'")
        self.name = name
        self.settings = settings
        self.goes_to = f"MCP {name}: {settings.place}"
        self.trouble: str | None = None
        """Why it is down; None while it is up, and before the first attempt is over."""
        self._environ = environ
        self._wanted = None if wanted is None else frozenset(wanted)
        self._connection: Connection | None = None
        self._known: dict[str, _Known] = {}
        self._tools: dict[str, Tool] = {}
        self._skipped: dict[str, str] = {}
        self._ready = asyncio.Event()
        self._calls: set[asyncio.Task[Any]] = set()
        self._log = log.bind(mcp=name)

    def tools(self) -> Mapping[str, Tool]:
        """The tools known now, by name. They stay known while the server is away."""
        return dict(self._tools)

    async def wait_ready(self, timeout: float) -> bool:
        """Whether the tools are known within ``timeout`` seconds. Cancelling loses nothing."""
        try:
            async with asyncio.timeout(timeout):
                await self._ready.wait()
        except TimeoutError:
            return False
        return True

    # -- lifetime ------------------------------------------------------------------------------------------

    async def run(self) -> NoReturn:
        """Connect, stay, connect again, for ever. Cancelling closes everything; a child process is gone then.

        What goes wrong is logged when it begins and when it is over.
        """
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            since = loop.time()
            # A task of its own: what the SDK's scopes do to the task they live in ends with it.
            life = asyncio.create_task(self._live(), name=f"mcp {self.name}")
            try:
                await asyncio.wait({life})
            finally:
                await self._end(life)
            self._say_trouble(_reason(life))
            if loop.time() - since > self.settings.reconnect_max:
                attempt = 0  # not at once: one that starts and ends again is no recovery
            ceiling = min(self.settings.reconnect_max, self.settings.reconnect_min * 2.0 ** min(attempt, 32))
            attempt += 1
            await asyncio.sleep(ceiling * (1.0 - random.random() / 2.0))

    async def _live(self) -> None:
        """One connection, from its opening to its end; returns never, raises what ended it."""
        # only who has such a server needs the package
        from ari_gemini.tools.mcp_connection import ServerLost, connect  # noqa: PLC0415

        async with asyncio.timeout(self.settings.connect_timeout) as limit:
            async with connect(self.settings, self._environ) as connection:
                await self._take(await connection.list_tools())
                limit.reschedule(None)
                self._go_up(connection)
                try:
                    await self._stay(connection)
                finally:
                    self._connection = None
                raise ServerLost(connection.lost)

    async def _stay(self, connection: Connection) -> None:
        """Keep the list of tools until the connection is lost. Raises what the listing raises."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.settings.refresh):
                    await connection.wake.wait()
            if connection.lost is not None:
                return
            connection.wake.clear()
            async with asyncio.timeout(self.settings.connect_timeout):
                await self._take(await connection.list_tools())

    async def _end(self, life: asyncio.Task[None]) -> None:
        """End it however often it must be told, and the uses of tools that went over it."""
        for _ in range(3):
            if life.done():
                break
            life.cancel()
            await asyncio.wait({life}, timeout=CLOSE_PATIENCE)
        else:
            self._log.error("! mcp connection does not close")
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(set(self._calls), timeout=CLOSE_PATIENCE)

    def _go_up(self, connection: Connection) -> None:
        message = "= mcp server connected" if self.trouble is None else "= mcp server is back"
        self._log.info(message, tools=len(self._tools))
        self.trouble = None
        self._connection = connection
        self._ready.set()

    def _say_trouble(self, reason: str) -> None:
        if self.trouble is None:
            self._log.warning("! mcp server unavailable, will keep trying", reason=reason)
        else:
            self._log.debug("! mcp server still unavailable", reason=reason)
        self.trouble = reason

    # -- tools ---------------------------------------------------------------------------------------------

    async def _take(self, listed: list[ListedTool]) -> None:
        """Take over what is wanted of what the server lists, as far as a model can be told of it.

        Lets others run between two tools. Until the end, and when cancelled, what was known stays.
        """
        known: dict[str, _Known] = {}
        twice: set[str] = set()
        for one in listed:
            name = f"{self.name}.{one.name}"
            if self._wanted is not None and name not in self._wanted:
                continue
            if name in known:
                twice.add(name)
                continue
            known[name] = self._looked_at(name, one)
            await asyncio.sleep(0)  # a large schema takes many milliseconds, and calls must be heard
        self._swap_in(known, twice)

    def _looked_at(self, name: str, listed: ListedTool) -> _Known:
        """The former one, if the server says the same of it as before."""
        description = _description(listed)
        schema = json.dumps(listed.input_schema)
        former = self._known.get(name)
        if former is not None and (former.description, former.schema) == (description, schema):
            return former
        outcome: McpTool | str
        try:
            outcome = McpTool(self, listed.name, _declaration(name, description, listed.input_schema))
        except ConfigError as error:
            outcome = str(error)
        return _Known(description, schema, outcome)

    def _swap_in(self, known: dict[str, _Known], twice: set[str]) -> None:
        """``twice``: names of ``known`` that were listed again, of which the first counts."""
        tools: dict[str, Tool] = {}
        skipped = {name[:128]: "it is listed twice" for name in twice}
        for name, one in known.items():
            if isinstance(one.outcome, str):
                skipped[name[:128]] = one.outcome
            else:
                tools[name] = one.outcome
        for name, why in skipped.items():
            if self._skipped.get(name) != why:
                self._log.warning("! mcp tool left out", tool=name, reason=why)
        if self._ready.is_set() and tools.keys() != self._tools.keys():
            self._log.info("= mcp tools changed", tools=len(tools))
        self._known, self._tools, self._skipped = known, tools, skipped

    async def call(self, name: str, args: Mapping[str, Any]) -> Any:
        """Use the tool that the server calls ``name``; see :meth:`McpTool.run`."""
        gone = f"{self.name} cannot be reached at the moment"
        if self._connection is None:
            raise ToolError(gone)
        # A task of its own: cancelled, it still tells the server, for which nobody here should wait.
        call = asyncio.create_task(self._connection.call(name, args), name=f"mcp {self.name} call")
        self._calls.add(call)
        call.add_done_callback(self._forget)
        try:
            await asyncio.wait({call})
        except asyncio.CancelledError:
            call.cancel()
            raise
        if call.cancelled():
            raise ToolError(gone)
        return call.result()

    def _forget(self, call: asyncio.Task[Any]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # seen, even if whoever asked is gone


def _description(listed: ListedTool) -> str:
    description = (listed.description or listed.title or listed.name).strip()
    if len(description) > MAX_DESCRIPTION:
        description = description[: MAX_DESCRIPTION - 1] + "…"
    return description


def _declaration(name: str, description: str, schema: Mapping[str, Any]) -> FunctionDeclaration:
    """Raises ConfigError for what a model cannot be told."""
    if not TOOL_NAME.fullmatch(name):
        raise ConfigError("no model could call it by this name")
    return FunctionDeclaration(name, description, declarable(inlined(schema, patterns=False)))


def _reason(life: asyncio.Task[None]) -> str:
    """One line on what ended it, from the leaves of whatever group the SDK made of it."""
    if life.cancelled() or (error := life.exception()) is None:
        return "cancelled"
    leaves = list(_leaves(error))
    first = next((leaf for leaf in leaves if isinstance(leaf, AriGeminiError)), leaves[0])
    if isinstance(first, TimeoutError):
        return "it did not answer in time"
    text = " ".join(str(first).split())[:300]
    return text if isinstance(first, AriGeminiError) else f"{type(first).__name__}: {text}".removesuffix(": ")


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error
