"""Call states in Redis: for workers on several machines, who go on with each other's calls.

Records lie there in clear: whoever may read that Redis may read along. ``rediss://`` hides them on the way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from pydantic import SecretStr
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ari_gemini.errors import StateError, StateUnavailable
from ari_gemini.state.record import MAX_BYTES, CallState, decode, encode
from ari_gemini.state.store import LIFETIME, TIMEOUT, key_of, within

PREFIX = "ari-gemini:call:"
"""Of every key, so that the Redis may be one that others use as well, too."""
CONNECTIONS = 8
"""At most; an operation takes a millisecond, so that some are enough for hundreds of calls."""


class RedisStore:
    """A StateStore. Connects when it is needed, and again after every loss."""

    def __init__(
        self,
        url: SecretStr,
        *,
        lifetime: float = LIFETIME,
        timeout: float = TIMEOUT,
        ca_file: Path | None = None,
    ) -> None:
        self._lifetime_ms = max(1, round(lifetime * 1000))
        self._timeout = timeout
        secret = url.get_secret_value()
        tls = {"ssl_ca_certs": str(ca_file)} if ca_file and secret.startswith("rediss:") else {}
        pool = BlockingConnectionPool.from_url(
            secret,
            max_connections=CONNECTIONS,
            # the limit is that of the whole operation
            timeout=None,
            socket_timeout=None,
            socket_connect_timeout=None,
            # once more and at once: the connection may have been closed while nobody used it
            retry=Retry(NoBackoff(), 1),
            protocol=2,
            **tls,
        )
        self._redis = Redis(connection_pool=pool)

    async def save(self, state: CallState) -> None:
        """See StateStore."""
        data = encode(state)
        async with self._asking():
            await self._redis.set(_key(state.call_id), data, px=self._lifetime_ms)

    async def load(self, call_id: str) -> CallState | None:
        """See StateStore."""
        async with self._asking():
            # not GET: whatever another has put there must not fill the memory
            data = await self._redis.getrange(_key(call_id), 0, MAX_BYTES)
        if not isinstance(data, bytes) or not data:
            return None
        state = decode(data)
        if state.call_id != call_id:
            raise StateError("the record is that of another call")
        return state

    async def delete(self, call_id: str) -> None:
        """See StateStore."""
        async with self._asking():
            await self._redis.delete(_key(call_id))

    async def sweep(self) -> None:
        """See StateStore. Redis removes by itself what has expired."""

    async def close(self) -> None:
        """See StateStore."""
        with suppress(StateError):
            async with self._asking():
                await self._redis.connection_pool.disconnect()

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        """The time limit, and the library's errors as ours, in words that hold no password."""
        try:
            async with within(self._timeout):
                yield
        except (RedisError, OSError) as error:
            raise StateUnavailable(f"Redis: {type(error).__name__}: {error}"[:200]) from None


def _key(call_id: str) -> str:
    return PREFIX + key_of(call_id)
