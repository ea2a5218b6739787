"""A WebSocket server connection that can be slow to answer pings."""

from __future__ import annotations

import asyncio
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import State


class Link(ServerConnection):
    """``links`` is the register in which the connection stands while it lives."""

    def __init__(self, *args: Any, links: set[Link], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pong_delay = 0.0
        """Seconds between a ping and its pong."""
        self._links = links
        self._late: set[asyncio.TimerHandle] = set()
        self._send_frame = self.protocol.send_frame
        # The protocol object answers pings by itself and offers no other place to step in.
        setattr(self.protocol, "send_frame", self._send_or_delay)  # noqa: B010

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Enter the register."""
        super().connection_made(transport)
        self._links.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the register; late pongs will not be sent."""
        self._links.discard(self)
        for handle in self._late:
            handle.cancel()
        self._late.clear()
        super().connection_lost(exc)

    def _send_or_delay(self, frame: Frame) -> None:
        if frame.opcode is not Opcode.PONG or not self.pong_delay:
            self._send_frame(frame)
            return

        def send_late() -> None:
            self._late.discard(handle)
            if self.protocol.state is State.OPEN:
                self._send_frame(frame)
                self.send_data()

        handle = self.loop.call_later(self.pong_delay, send_late)
        self._late.add(handle)
