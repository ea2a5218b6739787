"""aiohttp's connections, bounded where aiohttp 3.14 leaves them open, to addresses that have been checked.

Its parser limits fields and their number, and its streams hold back a body that nobody reads. Nothing limits
how many interim answers (1xx) a server sends before the real one: a quarter of a megabyte of them, which is
what one read can bring, took 60 MB and a tenth of a second in which no sound moved.
"""

from __future__ import annotations

import functools
import socket
import ssl
from collections.abc import Callable, Collection
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from ari_gemini.tools.address import Address, read_address
from ari_gemini.tools.resolver import PinnedResolver

MAX_MESSAGES = 8
"""Answers to one request, interim ones among them; servers send one or two (RFC 9110, section 15.2)."""
PIECE = 4096
"""Bytes parsed at a time: at most 160 answers, some two milliseconds."""

OpenSocket = Callable[[aiohttp.AddrInfoType], socket.socket]
"""Makes the socket that is then connected to the address given."""


class BoundedHandler(ResponseHandler):
    """Breaks the connection off when there are too many answers."""

    _messages = 0

    def data_received(self, data: bytes) -> None:
        """What the transport calls. Nothing is parsed any more once the connection has failed."""
        for at in range(0, len(data) or 1, PIECE):
            if self.exception() is None:
                super().data_received(data[at : at + PIECE])

    def feed_data(self, data: Any, size: int = 0) -> None:
        """What aiohttp calls for each answer."""
        self._messages += 1
        if self._messages <= MAX_MESSAGES:
            super().feed_data(data, size)
        elif self.exception() is None:
            self.set_exception(aiohttp.ClientPayloadError("too many interim answers"))
            if self.transport is not None:
                self.transport.abort()


class PinnedConnector(aiohttp.TCPConnector):
    """Connects to ``host`` at ``addresses`` and to nothing else, and keeps no connection."""

    def __init__(
        self, host: str, addresses: Collection[Address], tls: ssl.SSLContext, open_socket: OpenSocket
    ) -> None:
        """Needs a running event loop."""

        def guarded(info: aiohttp.AddrInfoType) -> socket.socket:
            if read_address(str(info[4][0])) not in addresses:
                raise OSError("this address has not been checked")
            return open_socket(info)

        super().__init__(
            resolver=PinnedResolver(host, addresses),
            use_dns_cache=False,
            force_close=True,
            ssl=tls,
            socket_factory=guarded,
        )
        self._factory = functools.partial(BoundedHandler, loop=self._loop)  # type: ignore[assignment]  # invariant


def open_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    """The usual OpenSocket."""
    return socket.socket(*info[:3])
