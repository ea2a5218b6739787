"""A caller and another party who talk without the model."""

from __future__ import annotations

import asyncio
from collections.abc import Set as AbstractSet

import structlog

from ari_gemini.ari.channel import Bridge, Channel
from ari_gemini.ari.requests import Requests
from ari_gemini.call.cleanup import Verb, persist
from ari_gemini.call.names import bridge_of

log = structlog.get_logger(__name__)


class Joined:
    """Two channels in the bridge of a call that is over. When one leaves, Asterisk does not end the other."""

    def __init__(self, client: Requests, caller: str, party: str) -> None:
        self.caller = caller
        self.members = frozenset((caller, party))
        """Either may have been replaced by whom it transferred the other to."""
        self.parting = False
        """``part`` is under way."""
        self._client = client

    def replace(self, old: str, new: str) -> None:
        """A member has transferred the other one on, to somebody who is in the bridge in its place."""
        self.members = self.members - {old} | {new}

    async def part(self, gone: AbstractSet[str]) -> bool:
        """Hang up on the members that are not ``gone``, and destroy the bridge. False: something may be left.

        Takes at most CLEANUP_DELAYS and three requests one after another; never raises.
        """
        self.parting = True
        verbs: list[Verb] = [Channel(self._client, one).hangup for one in sorted(self.members - gone)]
        verbs.append(Bridge(self._client, bridge_of(self.caller)).destroy)
        try:
            failures = await asyncio.gather(*(persist(verb) for verb in verbs))
        finally:
            self.parting = False
        for failure in filter(None, failures):
            log.warning("stasis.not_parted", call=self.caller, error=str(failure))
        return not any(failures)
