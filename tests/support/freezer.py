"""A TCP proxy on loopback that can go silent, slow, or away: the network between two parts of a test."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: close(2) sends RST (tcp(7))."""


class Freezer:
    """Forwards every connection to ``target``. ``async with Freezer(target) as it:`` listens at ``address``.

    What is done to the freezer is done to every connection there is, and ``freeze`` and ``delay`` also to
    those to come; a ``Tunnel`` can be treated by itself. ``target`` may be assigned later, before the first
    connection.
    """

    def __init__(self, target: tuple[str, int] | None = None, host: str = "127.0.0.1") -> None:
        self.target = target
        self.connections = 0
        """Connections taken so far."""
        self.tunnels: list[Tunnel] = []
        """Those that live, oldest first."""
        self._frozen = False
        self._delay = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        with socket.create_server((host, 0)) as free:
            self.address: tuple[str, int] = free.getsockname()[:2]

    async def __aenter__(self) -> Self:
        self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self.tunnels:
            self.reset()
            await asyncio.sleep(0)

    def freeze(self) -> None:
        """Forward nothing any more, either way, and close nothing: what is sent fills the kernel's buffers.

        A new connection is taken and hears nothing.
        """
        self._frozen = True
        for tunnel in self.tunnels:
            tunnel.freeze()

    def thaw(self) -> None:
        """Forward again, beginning with what has gathered."""
        self._frozen = False
        for tunnel in self.tunnels:
            tunnel.thaw()

    def delay(self, seconds: float) -> None:
        """Forward everything that comes from now on so much later, both ways."""
        self._delay = seconds
        for tunnel in self.tunnels:
            tunnel.delay(seconds)

    def reset(self) -> None:
        """End every connection with RST on both sides."""
        for tunnel in list(self.tunnels):
            tunnel.reset()

    def cut(self) -> None:
        """End every connection with FIN on both sides."""
        for tunnel in list(self.tunnels):
            tunnel.cut()

    def refuse(self) -> None:
        """Refuse new connections (RST to their SYN)."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def accept(self) -> None:
        """Take connections (again), at the same address."""
        if self._listener is None:
            self._listener = socket.create_server(self.address, backlog=128)
            self._listener.setblocking(False)
            asyncio.get_running_loop().add_reader(self._listener, self._take)

    def tunnel(self, upstream: tuple[str, int]) -> Tunnel:
        """The tunnel whose own address towards the target is ``upstream``. Raises LookupError for none: it
        may have ended though its target does not know yet."""
        for tunnel in self.tunnels:
            if tunnel.upstream == upstream:
                return tunnel
        raise LookupError(upstream)

    def _take(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(BlockingIOError):
            client, _ = self._listener.accept()
            client.setblocking(False)
            self.connections += 1
            task = asyncio.get_running_loop().create_task(self._join(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _join(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        assert self.target is not None, "the freezer has no target yet"
        tunnel = Tunnel(self._forget)
        tunnel.frozen = self._frozen
        near, far = tunnel.ends
        try:
            await loop.create_connection(lambda: far, *self.target)
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            return
        except asyncio.CancelledError:
            client.close()
            raise
        self.tunnels.append(tunnel)
        tunnel.delay(self._delay)
        await loop.connect_accepted_socket(lambda: near, client)
        if not far.alive:  # the target has gone meanwhile
            near.transport.close()

    def _forget(self, tunnel: Tunnel) -> None:
        if tunnel in self.tunnels:
            self.tunnels.remove(tunnel)


class Tunnel:
    """One connection through a freezer; ``closed(tunnel)`` is called once both ends are gone."""

    def __init__(self, closed: Callable[[Tunnel], None]) -> None:
        near, far = _End(self), _End(self)
        near.other, far.other = far, near
        self.ends = near, far
        self.frozen = False
        self.seconds = 0.0
        self._closed = closed

    @property
    def upstream(self) -> tuple[str, int]:
        """Its own address towards the target."""
        host, port = self.ends[1].transport.get_extra_info("sockname")[:2]
        return host, port

    def freeze(self) -> None:
        """As the freezer's, for this connection."""
        self.frozen = True
        for end in self.ends:
            end.pause()

    def thaw(self) -> None:
        """As the freezer's, for this connection."""
        self.frozen = False
        for end in self.ends:
            end.resume()

    def delay(self, seconds: float) -> None:
        """As the freezer's, for this connection."""
        self.seconds = seconds

    def reset(self) -> None:
        """As the freezer's, for this connection."""
        for end in self.ends:
            if end.alive:
                end.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.transport.abort()

    def cut(self) -> None:
        """As the freezer's, for this connection."""
        for end in self.ends:
            if end.alive:
                end.transport.close()

    def lost(self) -> None:
        """One end is gone."""
        if not any(end.alive for end in self.ends):
            self._closed(self)


class _End(asyncio.Protocol):
    """One side of a tunnel: what it receives goes out at the other."""

    other: _End
    transport: asyncio.Transport

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._choked = False  # the other side takes nothing more
        self._eof = False
        self._waiting: deque[Callable[[], None]] = deque()
        self._due = 0.0
        self.alive = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.alive = True
        transport.pause_reading()
        if self.other.alive:  # both ends are there
            self.resume()
            self.other.resume()

    def data_received(self, data: bytes) -> None:
        self._later(lambda: self.other.send(data))

    def eof_received(self) -> bool:
        self._eof = True
        self._later(self.other.finish)
        return True  # half closed: the other way goes on

    def connection_lost(self, error: Exception | None) -> None:
        self.alive = False
        other = self.other
        if other.alive:
            # a reset goes through as one; after an ordinary end what is on its way still arrives
            if error is not None:
                self._tunnel.reset()
            else:
                self._later(other.finish)
        self._tunnel.lost()

    def pause_writing(self) -> None:
        self.other._choked = True
        self.other.pause()

    def resume_writing(self) -> None:
        self.other._choked = False
        self.other.resume()

    def send(self, data: bytes) -> None:
        if self.alive:
            self.transport.write(data)

    def finish(self) -> None:
        """Nothing more comes from the other side."""
        if not self.alive:
            return
        if self._eof or not self.other.alive:
            self.transport.close()
        elif self.transport.can_write_eof():
            self.transport.write_eof()

    def pause(self) -> None:
        if self.alive:
            self.transport.pause_reading()

    def resume(self) -> None:
        if self.alive and self.other.alive and not self._tunnel.frozen and not self._choked:
            self.transport.resume_reading()

    def _later(self, act: Callable[[], None]) -> None:
        """Do it when the tunnel's delay is over, never before what came earlier."""
        loop = asyncio.get_running_loop()
        self._due = max(self._due, loop.time() + self._tunnel.seconds)
        if not self._waiting and not self._tunnel.seconds:
            act()
            return
        self._waiting.append(act)
        loop.call_at(self._due, self._next)

    def _next(self) -> None:
        self._waiting.popleft()()
