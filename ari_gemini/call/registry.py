"""Calls in progress, and the place where a call and its AudioSocket meet by UUID."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol
from uuid import UUID

from ari_gemini.audiosocket.connection import Connection
from ari_gemini.errors import CallEnded, Cause


class Listed(Protocol):
    """What the registry needs to know of a call."""

    @property
    def id(self) -> str: ...

    def end(self, cause: Cause, detail: str = "") -> None: ...

    def key_pressed(self, digit: str) -> None:
        """Asterisk says that the caller pressed a key."""


class Registry:
    """Who is on the phone. One per process; used from its event loop only."""

    def __init__(self, max_calls: int) -> None:
        self.max_calls = max_calls
        """Newcomers are let in while fewer are up; those who are adopted may make it more."""
        self.calls: dict[str, Listed] = {}
        self._expected: dict[UUID, Callable[[Connection], None]] = {}

    @contextmanager
    def admit(self, call: Listed, *, adopted: bool = False) -> Iterator[None]:
        """Keep ``call`` listed while the block runs.

        Raises CallEnded: OVERLOADED when ``max_calls`` are up, UNKNOWN_CALL when one of them has this id
        already (a second AudioSocket connection with the UUID of the first). The limit protects those who
        talk from those who come: an ``adopted`` caller, who talked with another worker a moment ago, is let
        in beyond it, and takes a place from the next newcomer.
        """
        if call.id in self.calls:
            raise CallEnded(Cause.UNKNOWN_CALL, "a call with this id is up already")
        if len(self.calls) >= self.max_calls and not adopted:
            raise CallEnded(Cause.OVERLOADED, f"{len(self.calls)} calls are up, of {self.max_calls}")
        self.calls[call.id] = call
        try:
            yield
        finally:
            del self.calls[call.id]

    @contextmanager
    def expect(self, uuid: UUID, arrived: Callable[[Connection], None]) -> Iterator[None]:
        """While the block runs, ``arrived`` gets the connection that names ``uuid``, once.

        Enter it before Asterisk is asked to dial. A callback and not a future: between a future's result and
        the task that awaits it there is a gap in which a cancelled call would forget to close the connection.
        """
        self._expected[uuid] = arrived
        try:
            yield
        finally:
            self._expected.pop(uuid, None)

    def deliver(self, connection: Connection) -> bool:
        """Hand an identified connection to the call that expects its UUID. False: nobody does."""
        arrived = self._expected.pop(connection.uuid, None)
        if arrived is None:
            return False
        arrived(connection)
        return True
