"""Keeps the record of one call up to date, beside the call and never in its way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from ari_gemini.errors import StateError
from ari_gemini.state.record import CallState
from ari_gemini.state.store import StateStore

INTERVAL = 0.5
"""Seconds between two writes: what was said in them is lost with a worker that is killed, and no more."""
MAX_PAUSE = 3.0
"""Seconds: while the store fails the pause doubles up to this. So long after its return a worker that dies
takes with it what was said; and hundreds of calls that ask so often are no burden to it."""
REFRESH = 30.0
"""Seconds after which the record is written though nothing has changed: it must not expire under the call,
and a store that was restarted empty, while nothing was written, must not stay without it."""

log = structlog.get_logger(__name__)


class Keeper:
    """For one call: ``run`` beside it, ``changed`` whenever something has, ``forget`` at its end.

    ``snapshot`` gives the state as it is now; it is called on the loop, at most once in ``interval`` seconds.
    Whatever fails is logged when it begins and when it ends.
    """

    def __init__(
        self,
        store: StateStore,
        call_id: str,
        snapshot: Callable[[], CallState],
        *,
        interval: float = INTERVAL,
        refresh: float = REFRESH,
    ) -> None:
        self._store = store
        self._call_id = call_id
        self._snapshot = snapshot
        self._interval = interval
        self._refresh = refresh
        self._dirty = asyncio.Event()
        self._writing = asyncio.Lock()
        self._failures = 0
        self._over = False

    def changed(self) -> None:
        """The record is out of date. Never waits, never raises."""
        self._dirty.set()

    async def run(self) -> None:
        """Write until cancelled or the call is forgotten. Cancelling leaves the former record or the new."""
        while not self._over:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._refresh):
                    await self._dirty.wait()
            await self.flush()
            await asyncio.sleep(min(self._interval * 2.0**self._failures, max(MAX_PAUSE, self._interval)))

    async def flush(self) -> None:
        """Write the state as it is now, for whoever goes on with it. Never raises; bounded by the store."""
        async with self._writing:
            if self._over:
                return
            self._dirty.clear()
            try:
                await self._store.save(self._snapshot())
            except StateError as error:
                self._fail(str(error))
            except Exception as error:  # noqa: BLE001  # a defect here must not end the call
                self._fail(f"{type(error).__name__}: {error}", defect=True)
            else:
                self._succeed()

    async def forget(self) -> None:
        """The call is over: remove its record and write no other. Never raises; bounded by the store."""
        self._over = True
        self._dirty.set()
        async with self._writing:
            try:
                await self._store.delete(self._call_id)
            except StateError as error:
                log.warning("! state not removed, it will expire", call=self._call_id, error=str(error))

    def _fail(self, error: str, *, defect: bool = False) -> None:
        self._dirty.set()
        self._failures = min(self._failures + 1, 32)
        if self._failures == 1:
            log.warning(
                "! state not saved, will keep trying", call=self._call_id, error=error, exc_info=defect
            )

    def _succeed(self) -> None:
        if self._failures:
            log.info("= state is saved again", call=self._call_id)
        self._failures = 0
