"""What a simulated session heard, said and did, for tests and for the log: plain data, bounded."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ari_gemini.audio.pcm import SAMPLE_BYTES

MAX_EVENTS = 20_000
"""A quarter of an hour of speech in 50 ms chunks; older ones go first. Counts stay exact."""
MAX_MESSAGES = 1_000
"""Client messages other than audio; a client sends a few for each turn."""
MAX_HEARD_BYTES = 10_000_000
"""Five minutes at 16 kHz; older sound goes first."""
MAX_SAID = 256
"""Utterances; the longest recorded one is 0.6 MB."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something the session did or noticed. ``at`` is ``time.monotonic()``."""

    kind: str
    at: float
    number: int
    """How many of this kind there have been, this one included."""
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """One client message that is not audio, as it came (its own spelling). ``at`` is ``time.monotonic()``."""

    kind: str
    at: float
    body: Mapping[str, Any]


@dataclass(slots=True)
class Said:
    """One utterance of the model, as far as it was sent."""

    name: str
    text: str
    """All of its words, sent or not."""
    at: float
    """``time.monotonic()`` of the first chunk."""
    pcm: bytearray = field(default_factory=bytearray)
    """What was sent: 16-bit little-endian mono at 24 kHz. Empty when the simulator keeps no sound."""
    sent_bytes: int = 0
    sent_text: str = ""
    complete: bool = False
    interrupted: bool = False


class Heard:
    """The caller's sound as it came: 16-bit little-endian mono.

    ``pcm`` is what came at ``rate`` Hz since that rate was first used; a client that changes its rate begins
    anew. ``first_at`` is ``time.monotonic()`` of the first message.
    """

    def __init__(self, keep: bool = True) -> None:
        self._keep = keep
        self.rate = 0
        self.pcm = bytearray()
        self.messages = 0
        self.total_bytes = 0
        self.dropped_bytes = 0
        """Oldest sound given up for the bound, or at a change of rate."""
        self.first_at: float | None = None

    @property
    def seconds(self) -> float:
        """How long the kept sound lasts, s."""
        return len(self.pcm) / SAMPLE_BYTES / self.rate if self.rate else 0.0

    def add(self, pcm: bytes, rate: int, at: float) -> None:
        """Append one message's sound."""
        if self.first_at is None:
            self.first_at = at
        if rate != self.rate:
            self.dropped_bytes += len(self.pcm)
            self.pcm.clear()
            self.rate = rate
        self.messages += 1
        self.total_bytes += len(pcm)
        if not self._keep:
            self.dropped_bytes += len(pcm)
            return
        self.pcm += pcm
        excess = len(self.pcm) - MAX_HEARD_BYTES
        if excess > 0:
            # A second at a time: moving 10 MB for every message would starve the loop.
            excess += rate * SAMPLE_BYTES
            del self.pcm[:excess]
            self.dropped_bytes += excess


class SessionRecord:
    """The record of one connection.

    ``wall`` turns the simulator's time into ``time.monotonic()``; ``keep_sound`` false only counts sound.
    """

    def __init__(self, wall: Callable[[float], float], keep_sound: bool = True) -> None:
        self._wall = wall
        self._keep_sound = keep_sound
        self._counts: Counter[str] = Counter()
        self._listeners: list[Callable[[Event], None]] = []
        self.events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self.messages: deque[ClientMessage] = deque(maxlen=MAX_MESSAGES)
        self.said: deque[Said] = deque(maxlen=MAX_SAID)
        self.heard = Heard(keep_sound)
        self.setup: Mapping[str, Any] | None = None
        """The client's setup as it came."""
        self.closed: tuple[int, str] | None = None
        """Code and reason with which the connection ended; 1006 when there was no close frame."""

    def on_event(self, listener: Callable[[Event], None]) -> None:
        """Call ``listener`` with every event from now on, in the order they happen."""
        self._listeners.append(listener)

    def count(self, kind: str) -> int:
        """How many events of this kind there have been."""
        return self._counts[kind]

    def of(self, kind: str) -> list[Event]:
        """The kept events of this kind, oldest first."""
        return [event for event in self.events if event.kind == kind]

    def kinds(self) -> list[str]:
        """The kinds of all kept events in their order."""
        return [event.kind for event in self.events]

    def note(self, kind: str, now: float, **detail: Any) -> Event:
        """Record an event of simulator time ``now``."""
        self._counts[kind] += 1
        event = Event(kind, self._wall(now), self._counts[kind], detail)
        self.events.append(event)
        for listener in self._listeners:
            listener(event)
        return event

    def receive(self, kind: str, now: float, body: Mapping[str, Any]) -> None:
        """Record a client message that is not audio."""
        self.messages.append(ClientMessage(kind, self._wall(now), body))

    def hear(self, pcm: bytes, rate: int, now: float) -> None:
        """Record the caller's sound."""
        self.heard.add(pcm, rate, self._wall(now))

    def begin_saying(self, name: str, text: str, now: float) -> Said:
        """Record that an utterance begins."""
        said = Said(name, text, self._wall(now))
        self.said.append(said)
        return said

    def add_said(self, said: Said, pcm: bytes) -> None:
        """Record that a chunk of it was sent."""
        said.sent_bytes += len(pcm)
        if self._keep_sound:
            said.pcm += pcm
