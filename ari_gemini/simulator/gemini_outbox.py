"""Frames on their way to the client: put in without waiting, sent in order by a task of their own."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from websockets.exceptions import ConnectionClosed

from ari_gemini.simulator.gemini_frames import Json
from ari_gemini.simulator.gemini_link import Link

MAX_FRAMES = 4_096
"""Frames waiting for a client that does not read, minutes of speech; at that the connection is reset."""


@dataclass(frozen=True, slots=True)
class _Close:
    code: int
    reason: str


class Outbox:
    """The ``Wire`` of a conversation.

    ``sent`` sees each frame as it leaves; ``overrun`` is told when the client is given up.
    """

    def __init__(self, link: Link, sent: Callable[[str | bytes], None], overrun: Callable[[], None]) -> None:
        self._link = link
        self._sent = sent
        self._overrun = overrun
        self._waiting: deque[str | bytes | _Close] = deque()
        self._filled = asyncio.Event()

    def send(self, message: Json) -> None:
        """Send one message as a binary frame, as the service does."""
        self.send_raw(json.dumps(message, separators=(",", ":")).encode())

    def send_raw(self, frame: str | bytes) -> None:
        """Send a frame as it is: text for str, binary for bytes."""
        if len(self._waiting) >= MAX_FRAMES:
            self._overrun()
            self._link.transport.abort()
            return
        self._put(frame)

    def close(self, code: int, reason: str) -> None:
        """Close once everything is sent."""
        self._put(_Close(code, reason))

    def abort(self) -> None:
        """Reset the connection."""
        self._link.transport.abort()

    def slow_pongs(self, seconds: float) -> None:
        """Answer pings this many (real) seconds late from now on."""
        self._link.pong_delay = seconds

    async def empty(self) -> None:
        """Send what is put in until the connection ends. Cancelling leaves the rest unsent."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting:
                item = self._waiting.popleft()
                if isinstance(item, _Close):
                    await self._link.close(item.code, item.reason)
                    return
                self._sent(item)
                try:
                    await self._link.send(item)
                except ConnectionClosed:
                    return

    def _put(self, item: str | bytes | _Close) -> None:
        self._waiting.append(item)
        self._filled.set()
