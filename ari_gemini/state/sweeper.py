"""Sees to it that records of calls that nobody ended are removed, although nobody writes any more."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from ari_gemini.errors import StateError
from ari_gemini.state.store import StateStore

SHARE: Final = 20
"""What has expired stays for a twentieth of its lifetime more, at most."""
SHORTEST: Final = 10.0
LONGEST: Final = 600.0
"""Seconds: bounds of the time between two sweeps, each of which looks at every file of the directory."""

log = structlog.get_logger(__name__)


def period_for(lifetime: float) -> float:
    """Seconds between two sweeps of a store whose records last ``lifetime`` seconds."""
    return min(max(lifetime / SHARE, SHORTEST), LONGEST)


async def sweep_regularly(store: StateStore, period: float) -> None:
    """Sweep at once, for what was left while nobody was here, and ``period`` seconds after each sweep.

    Runs until cancelled. Whatever fails is logged when it begins and when it ends.
    """
    failing = False
    while True:
        try:
            await store.sweep()
        except Exception as error:  # a defect here must end neither the sweeps nor the service
            if not failing:
                expected = isinstance(error, StateError)
                said = str(error) if expected else f"{type(error).__name__}: {error}"
                log.warning("! expired states stay, will keep trying", error=said, exc_info=not expected)
            failing = True
        else:
            if failing:
                log.info("= expired states are removed again")
            failing = False
        await asyncio.sleep(period)
