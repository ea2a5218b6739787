"""Names to addresses: looked up once, and then for one connection fixed to what has been checked."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence

from aiohttp.abc import AbstractResolver, ResolveResult

from ari_gemini.tools.address import Address

LOOKUPS = 2
"""Names looked up at once. A lookup cannot be stopped and keeps a thread until it has failed, which a hostile
name server can delay; the loop's pool of them (four in libuv) also serves the model's sessions."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Name and port to addresses. Raises OSError when there are none."""


class SystemResolver:
    """Looks names up as the operating system does."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(LOOKUPS)

    async def __call__(self, host: str, port: int) -> list[str]:
        """Raises OSError. Cancelling ends the waiting; the lookup goes on and keeps its place meanwhile."""
        await self._free.acquire()
        lookup = asyncio.ensure_future(self._look_up(host, port))
        lookup.add_done_callback(self._done)
        return await asyncio.shield(lookup)

    async def _look_up(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [str(address[0]) for *_, address in found]

    def _done(self, lookup: asyncio.Task[list[str]]) -> None:
        self._free.release()
        if not lookup.cancelled():
            lookup.exception()  # nobody may be left to take it


class PinnedResolver(AbstractResolver):
    """Knows one host, whose addresses have been checked."""

    def __init__(self, host: str, addresses: Iterable[Address]) -> None:
        self._host = host
        self._addresses = tuple(addresses)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """What aiohttp asks for. Raises OSError for another host."""
        if host != self._host:
            raise OSError("this name has not been checked")
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is open."""
