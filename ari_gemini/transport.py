"""WebSocket connections whose transport may be aborted at any time, even when it has ended already."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.connection import Connection


class _Ended:
    """A transport that is gone: to abort it does nothing, everything else is as it was."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def abort(self) -> None:
        """Nothing is left to abort."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Abortable(Connection):
    """To be mixed into one of websockets' connections.

    asyncio's own transport raises AttributeError when it is aborted after a ``close`` that waited for its
    buffer: ``_write_ready`` ends it without the mark that ``_force_close`` looks for (selector_events.py,
    seen with Python 3.11.7). And websockets aborts whenever a send finds the connection closing.
    """

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport, once."""
        super().connection_lost(exc)
        self.transport = cast(asyncio.Transport, _Ended(self.transport))


class AbortableClient(Abortable, ClientConnection):
    """For ``connect(create_connection=...)``."""
