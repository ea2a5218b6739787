"""Our own WebSocket pings, and the one rule by which a connection counts as silently lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed


class Keepalive:
    """Pings every ``interval`` seconds; ``lost_after`` seconds without message and pong are a loss.

    A late pong alone is none: the service has been seen to answer half a minute late in sessions that worked,
    so any message counts as a sign of life. Nor would messages alone do, for an idle model sends none.

    A pong also tells how far the peer has come: it has everything that ``sent()`` counted when the ping went
    out (RFC 6455, section 5.5.2, over TCP).
    """

    def __init__(
        self, websocket: ClientConnection, interval: float, lost_after: float, sent: Callable[[], int]
    ) -> None:
        self._websocket = websocket
        self._interval = interval
        self._lost_after = lost_after
        self._sent = sent
        self.heard = False
        """To be set with every message that came."""
        self.confirmed = 0
        """So much of what was sent has arrived."""

    async def silence(self) -> bool:
        """Ping until the connection is lost (True) or somebody has closed it (False).

        Silence is counted in whole intervals rather than read from a clock, so a stalled loop or a machine
        that slept does not look like a silent peer. Cancelling just ends the pings.
        """
        silent = 0.0
        while silent < self._lost_after:
            self.heard = False
            sent = self._sent()
            try:
                async with asyncio.timeout(self._interval):
                    pong = asyncio.ensure_future(await self._websocket.ping())
                pong.add_done_callback(partial(self._on_pong, sent))
                await asyncio.sleep(self._interval)
            except TimeoutError:
                pass  # the ping waits behind a full socket: that was the interval
            except ConnectionClosed:
                return False
            silent = 0.0 if self.heard else silent + self._interval
        return True

    def _on_pong(self, sent: int, pong: asyncio.Future[float]) -> None:
        with contextlib.suppress(ConnectionClosed, asyncio.CancelledError):
            pong.result()
            self.heard = True
            self.confirmed = max(self.confirmed, sent)
