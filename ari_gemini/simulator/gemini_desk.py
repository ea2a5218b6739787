"""What the parts of a simulated conversation share: the way to the client, and what a reply is made of."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ari_gemini.simulator.agenda import Agenda
from ari_gemini.simulator.gemini_frames import Json
from ari_gemini.simulator.gemini_memory import CallGroup, HandleBook, Memory, Say
from ari_gemini.simulator.gemini_record import SessionRecord
from ari_gemini.simulator.gemini_setup import AcceptedSetup
from ari_gemini.simulator.phrases import join
from ari_gemini.simulator.scenario import FaultPoint, Scenario, ScriptedCall, ScriptTurn

_SILENT_GAIN = 10 ** (-60 / 20)


class Wire(Protocol):
    """The way to the client. Nothing here waits."""

    def send(self, message: Json) -> None:
        """Send one message as a binary frame."""

    def send_raw(self, frame: str | bytes) -> None:
        """Send a frame as it is: text for str, binary for bytes."""

    def close(self, code: int, reason: str) -> None:
        """Close after what was sent so far."""

    def abort(self) -> None:
        """Reset the TCP connection."""

    def slow_pongs(self, seconds: float) -> None:
        """Answer pings this late from now on."""


@dataclass(frozen=True, slots=True)
class Desk:
    """One connection's surroundings; its session's once that is set up."""

    scenario: Scenario
    wire: Wire
    record: SessionRecord
    agenda: Agenda
    rng: random.Random
    book: HandleBook
    reach: Callable[[FaultPoint, float, float], None]
    """Tells the scenario's faults: point reached, time, amount (of speech: seconds; else 1)."""


@dataclass(frozen=True, slots=True)
class Open:
    """A session that has been set up: what was asked for, and what is remembered."""

    setup: AcceptedSetup
    memory: Memory


@dataclass(frozen=True, slots=True)
class Call:
    """A step of a reply: functions to be called, and what is said when they are answered."""

    calls: tuple[ScriptedCall, ...]
    after: tuple[Say, ...] = ()


@dataclass(slots=True, eq=False)
class Reply:
    """One turn of the model."""

    origin: str
    """What started it: speech, text, tool, resume or control."""
    steps: deque[Say | Call]
    turn: ScriptTurn | None = None
    begun: bool = False
    group: CallGroup | None = None
    """Blocking calls that the reply waits for."""


def says(names: Sequence[str], *, silent: bool = False) -> tuple[Say, ...]:
    """The step that says these phrases one after another; none for no phrases. ``silent``: 60 dB lower.

    Raises ConfigError for a phrase that is not the model's.
    """
    if not names:
        return ()
    text, pcm = join(names)
    if silent:
        quiet = np.frombuffer(pcm, "<i2").astype(np.float64) * _SILENT_GAIN
        pcm = quiet.astype("<i2").tobytes()
    return (Say("+".join(names), text, pcm),)
