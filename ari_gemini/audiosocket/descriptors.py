"""File descriptors: as many as the calls need, and what is done when the system does not give them.

A listener that cannot accept is worse than one that turns away: asyncio does not listen for a second and logs
it up to ``backlog`` times each (``asyncio/selector_events.py``, ACCEPT_RETRY_DELAY); uvloop closes whoever
comes unseen (libuv, ``uv__emfile_trick``); and calls in progress cannot reach their model again. So the limit
is raised, and the door turns away before descriptors run out.
"""

from __future__ import annotations

import resource
from typing import Final

import structlog

BASE_DESCRIPTORS: Final = 128
"""What there is without calls: standard streams, event loop, ARI, logs, tools' servers, name resolution."""
PER_CALL: Final = 3
"""Beside the media connection: the model's, one that replaces it, and one to Asterisk or of a tool."""

log = structlog.get_logger(__name__)


def needed(max_calls: int, *doors: int) -> int:
    """Descriptors that so many calls take with so many connections at each door where others connect."""
    return BASE_DESCRIPTORS + PER_CALL * max_calls + sum(doors)


def raise_limit(wanted: int) -> int:
    """Raise this process's soft limit (RLIMIT_NOFILE) to ``wanted``, or as far as its hard limit lets it.

    Never lowers it. Returns the limit that is then in force; child processes inherit it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft >= wanted:
        return soft
    aim = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (aim, hard))
    except (OSError, ValueError):  # above what the kernel allows at all (fs.nr_open), or forbidden
        return soft
    return aim


def room_for(max_calls: int, *doors: int) -> tuple[int, ...]:
    """Make room for so many calls; return how many connections there can be at each door, the media's first.

    At most as many as given. When the system gives fewer, every door has the same share of what it wanted,
    since a call needs one at each; that is said, and when not even ``max_calls`` fit.
    """
    wanted = needed(max_calls, *doors)
    limit = raise_limit(wanted)
    if limit >= wanted:
        return doors
    left = max(0, limit - needed(max_calls))
    rooms = tuple(max(1, door * left // sum(doors)) for door in doors)
    log.warning(
        "! file descriptors are few",
        limit=limit,
        wanted=wanted,
        media_connections=rooms[0],
        calls=max(0, min(max_calls, rooms[0], (limit - BASE_DESCRIPTORS) // (PER_CALL + 1))),
    )
    return rooms
