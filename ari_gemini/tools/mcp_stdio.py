"""An MCP server as a child process: its lines to and from the SDK's streams, and its certain end.

The SDK's own transport is not used: it keeps a line of any length in memory, passes more of the environment
on, and may leave the child behind when it is cancelled twice.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

MAX_MESSAGE = 1024 * 1024
"""Bytes of one message, as the SDK's limit for HTTP (mcp.client.streamable_http)."""
MAX_GARBAGE = 100
"""Lines that are no message. A few are a greeting printed to the wrong place; more are another program."""
GRACE = 2.0
"""Seconds to end after its input is closed, and again after SIGTERM. The order is the specification's
(modelcontextprotocol.io, Lifecycle, Shutdown), the time the SDK's."""
_REAPED = 1.0
"""Seconds for the event loop to notice the end of a process that was killed."""
_POLL = 0.01
_TAIL = 2048
"""Bytes kept of what it wrote to standard error."""

T = TypeVar("T")
Inbound = MemoryObjectSendStream[SessionMessage | Exception]
Outbound = MemoryObjectReceiveStream[SessionMessage]
Streams = tuple[MemoryObjectReceiveStream[SessionMessage | Exception], MemoryObjectSendStream[SessionMessage]]


class Child:
    """The process, and why it is of no use any more."""

    def __init__(self, process: asyncio.subprocess.Process, on_lost: Callable[[str], None]) -> None:
        self.process = process
        self.streams: Streams
        self.why = ""
        self._on_lost = on_lost
        self._stderr = b""
        self._inbound: Inbound
        self._outbound: Outbound
        self._inbound, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        write, self._outbound = anyio.create_memory_object_stream[SessionMessage](0)
        self.streams = (read, write)

    async def last_words(self) -> str:
        """Why it ended: what was wrong, else its exit status, and the last line of its standard error."""
        await _exited(self.process, _REAPED)
        status = self.process.returncode
        why = self.why or ("it has not ended" if status is None else f"it ended with status {status}")
        lines = self._stderr.decode(errors="replace").strip().splitlines()
        return f"{why}: {lines[-1][:200]}" if lines else why

    def lose(self, why: str) -> None:
        """Say once that nothing more will come."""
        if not self.why:
            self.why = why
            self._on_lost(why)

    async def read(self) -> None:
        """Pass on what it writes, until it ends or has lost its way. Raises nothing."""
        stdout = _pipe(self.process.stdout)
        garbage = 0
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # the session is over
            async with self._inbound:
                while garbage <= MAX_GARBAGE:
                    try:
                        line = await stdout.readline()
                    except ValueError:
                        return self.lose(f"it sent more than {MAX_MESSAGE} bytes at once")
                    if not line:
                        return self.lose("it closed its output")
                    try:
                        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                    except ValueError:
                        garbage += 1
                    else:
                        await self._inbound.send(SessionMessage(message))
                self.lose("what it writes is not MCP")
        return None

    async def write(self) -> None:
        """Pass on what it is to read. Raises nothing."""
        stdin = _pipe(self.process.stdin)
        try:
            async with self._outbound:
                async for item in self._outbound:
                    text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                    stdin.write(text.encode() + b"\n")
                    await stdin.drain()
        except OSError:
            self.lose("it closed its input")

    async def listen(self) -> None:
        """Keep the end of what it says on standard error, so that it never waits for a reader."""
        stderr = _pipe(self.process.stderr)
        while chunk := await stderr.read(4096):
            self._stderr = (self._stderr + chunk)[-_TAIL:]

    def close(self) -> None:
        """Close our ends of the SDK's streams, both sides. Idempotent."""
        for stream in (self._inbound, self._outbound, *self.streams):
            stream.close()


@asynccontextmanager
async def child(
    command: Sequence[str], env: Mapping[str, str], cwd: Path | None, on_lost: Callable[[str], None]
) -> AsyncIterator[Child]:
    """Start ``command`` with exactly ``env``, in a process group of its own. ``on_lost`` is told why it left.

    At the end, and when cancelled, the whole group is gone: asked first, within twice GRACE, then killed;
    killed at once when cancelled again. Raises OSError when it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(env),
        cwd=cwd,
        start_new_session=True,
        limit=MAX_MESSAGE,
    )
    it = Child(process, on_lost)
    pumps = [asyncio.create_task(pump()) for pump in (it.read, it.write, it.listen)]
    try:
        yield it
    finally:
        try:
            await _end(process)
        finally:
            for pump in pumps:
                pump.cancel()
            it.close()
            await asyncio.wait(pumps)


async def _end(process: asyncio.subprocess.Process) -> None:
    _pipe(process.stdin).close()
    try:
        if not await _exited(process, GRACE):
            _signal(process.pid, signal.SIGTERM)
            await _exited(process, GRACE)
    finally:
        _signal(process.pid, signal.SIGKILL)  # also what it has started and left behind
        await _exited(process, _REAPED)
        # asyncio closes it only once every pipe is at its end, and a daemon that left the group may hold one
        transport = getattr(process, "_transport", None)
        if transport is not None:
            transport.close()


def _pipe(end: T | None) -> T:
    if end is None:
        raise RuntimeError("the process was started without this pipe")
    return end


async def _exited(process: asyncio.subprocess.Process, seconds: float) -> bool:
    """Whether it ends in time. Not ``wait()``, which waits for whoever holds its pipes, too."""
    deadline = asyncio.get_running_loop().time() + seconds
    while process.returncode is None:
        if asyncio.get_running_loop().time() >= deadline:
            return False
        await asyncio.sleep(_POLL)
    return True


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # gone already, or no longer ours
        os.killpg(group, number)
