"""How a service stops: it takes no new calls, lets those in progress end, and ends the rest in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog
from pydantic import BaseModel, ConfigDict, Field

from ari_gemini.errors import Cause

PROGRESS_SECONDS: Final = 10.0
"""While calls are waited for, one line in this time says how many."""

log = structlog.get_logger(__name__)


class DrainSettings(BaseModel):
    """``[drain]``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timeout: float = Field(default=30.0, ge=0, le=86_400)
    """Seconds that calls are given to end by themselves when the service is to stop. Those left are sent
    on."""


class Drain:
    """Serving, then draining, then over; never back. ``calls`` says how many are in progress.

    Used from one event loop. ``begin`` and ``end`` may be called from signal handlers, any number of times.
    """

    def __init__(self, settings: DrainSettings, calls: Callable[[], int]) -> None:
        self._timeout = settings.timeout
        self._calls = calls
        self._begun = asyncio.Event()
        self._over = asyncio.Event()
        self._changed = asyncio.Event()

    @property
    def begun(self) -> bool:
        """No new calls are taken."""
        return self._begun.is_set()

    @property
    def refusal(self) -> Cause | None:
        """Why a call that comes now cannot be taken; None: it can."""
        if self._over.is_set():
            return Cause.SHUTDOWN
        return Cause.DRAINING if self._begun.is_set() else None

    def begin(self) -> None:
        """Take no new calls and wait for those in progress. Said again, it is ``end``."""
        if self._begun.is_set():
            self.end()
            return
        self._begun.set()
        log.info("= draining", calls=self._calls(), timeout=self._timeout)

    def end(self) -> None:
        """Wait for nobody."""
        self._begun.set()
        self._over.set()
        self._changed.set()

    def call_over(self) -> None:
        """One call less."""
        self._changed.set()

    async def wait_over(self) -> bool:
        """Wait until it has begun and no call is left, or time is up, or ``end``. Then it is over.

        Returns whether time was up. Cancelling leaves it as it is.
        """
        await self._begun.wait()
        loop = asyncio.get_running_loop()
        deadline, late = loop.time() + self._timeout, False
        while self._calls() and not self._over.is_set():
            left = deadline - loop.time()
            if late := left <= 0:
                log.warning("! drain timeout: calls are ended", calls=self._calls())
                break
            await self._progress(min(left, PROGRESS_SECONDS))
        self.end()
        return late

    async def _progress(self, seconds: float) -> None:
        """Wait until a call ends; say how many there are when none does for so long."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
            return
        if seconds == PROGRESS_SECONDS:
            log.info("= still draining", calls=self._calls())
