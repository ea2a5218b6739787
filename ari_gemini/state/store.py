"""What every store of call states can do."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from ari_gemini.errors import StateUnavailable
from ari_gemini.state.record import CallState

LIFETIME = 7200.0
"""Seconds: a resumption handle is good for two hours after its session
(ai.google.dev/gemini-api/docs/live-session), and a caller has hung up long before."""
TIMEOUT = 1.0
"""Seconds: a caller whose call is taken over waits in silence for that long at most."""


class StateStore(Protocol):
    """Records by call. Every operation but ``sweep`` is bounded in time; all raise StateError or
    StateUnavailable alone.

    Nobody claims a call, because Asterisk decides who has it: one media connection belongs to a channel, one
    events connection to an application, and the worker who holds them goes on with the call. Should a former
    worker delete the record late, the present one's keeper writes all of it again with the next change.
    """

    async def save(self, state: CallState) -> None:
        """Replace the call's former record, wholly or not at all; it expires ``lifetime`` seconds later.
        Cancelling leaves the former record or the new one."""

    async def load(self, call_id: str) -> CallState | None:
        """The newest record, or None if there is none that is still good. StateError: it cannot be read."""

    async def delete(self, call_id: str) -> None:
        """Forget the call, known or not."""

    async def sweep(self) -> None:
        """Remove what has expired. It alone takes as long as it takes: no call waits for it."""

    async def close(self) -> None:
        """Let go of what is open. Idempotent; never raises."""


def key_of(call_id: str) -> str:
    """64 hexadecimal digits: whoever chooses a channel's id chooses no path, no length and no other's key."""
    return hashlib.sha256(call_id.encode(errors="surrogatepass")).hexdigest()


@asynccontextmanager
async def within(timeout: float) -> AsyncIterator[None]:
    """Bound what is done inside: StateUnavailable after ``timeout`` seconds."""
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError:
        raise StateUnavailable(f"no answer within {timeout:g} s") from None
