"""Undoing things in Asterisk, again and again while that can help."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeAlias

from ari_gemini.errors import AriError, Retry

CLEANUP_DELAYS = (0.5, 2.0)
"""Pauses before a clean-up request is repeated, s: long enough for a short stall of Asterisk's."""

Verb: TypeAlias = Callable[[], Coroutine[Any, Any, object]]
"""One request that may be made again."""


async def failure_of(verb: Verb) -> AriError | None:
    """Run it once; what went wrong, if anything."""
    try:
        await verb()
    except AriError as error:
        return error
    return None


async def persist(verb: Verb, *, insist: bool = False) -> AriError | None:
    """Repeat it while repeating can help; with ``insist`` also when it went well.

    Returns what went wrong in the end. Takes at most three requests and CLEANUP_DELAYS.
    """
    for pause in CLEANUP_DELAYS:
        failure = await failure_of(verb)
        if failure is None and not insist:
            return None
        if failure is not None and failure.retry is not Retry.BACKOFF:
            return failure
        await asyncio.sleep(pause)
    return await failure_of(verb)


def unanswered(results: Iterable[object]) -> bool:
    """Whether one of these outcomes is a request without an answer: Asterisk may carry it out yet."""
    return any(isinstance(result, AriError) and result.retry is Retry.BACKOFF for result in results)
