"""A WebSocket server connection that can be slow to answer pings, and leaves other HTTP to somebody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from ari_gemini.transport import Abortable

_UPGRADES = b"GET "
"""How the request for a WebSocket begins (RFC 6455, section 4.1)."""


class Link(Abortable, ServerConnection):
    """``links`` is the register in which the connection stands while it lives.

    What does not begin as a WebSocket does goes to a protocol that ``other`` makes, from its first byte on.
    """

    def __init__(
        self, *args: Any, links: set[Link], other: Callable[[], asyncio.Protocol], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._other = other
        self._unread = b""
        self._begun = False
        self.pong_delay = 0.0
        """Seconds between a ping and its pong."""
        self._links = links
        self._late: set[asyncio.TimerHandle] = set()
        self._send_frame = self.protocol.send_frame
        # The protocol object answers pings by itself and offers no other place to step in.
        setattr(self.protocol, "send_frame", self._send_or_delay)  # noqa: B010

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Enter the register, and wait for the first bytes: they tell what this is going to be."""
        self.transport = cast(asyncio.Transport, transport)
        self._links.add(self)

    def data_received(self, data: bytes) -> None:
        """Decide with the first bytes whose connection it is."""
        if self._begun:
            super().data_received(data)
            return
        self._unread += data
        if len(self._unread) < len(_UPGRADES) and _UPGRADES.startswith(self._unread):
            return
        self._begun = True
        if self._unread.startswith(_UPGRADES):
            super().connection_made(self.transport)
            super().data_received(self._unread)
        else:
            self._hand_over(self._unread)

    def _hand_over(self, data: bytes) -> None:
        self._links.discard(self)
        other = self._other()
        self.transport.set_protocol(other)
        other.connection_made(self.transport)
        other.data_received(data)

    def eof_received(self) -> None:
        """Nothing more will come; from who has said nothing, too."""
        if self._begun:
            super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the register; late pongs will not be sent."""
        self._links.discard(self)
        if not self._begun:
            return
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
