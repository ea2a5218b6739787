"""What goes wrong in a scenario, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ari_gemini.simulator.agenda import Agenda
from ari_gemini.simulator.scenario import Fault, FaultPoint

_ONCE = ("connect", "setup", "ready")


class Faults:
    """One connection's faults: counts the points it reaches and acts when a fault's point is there.

    ``act(fault, now)`` does what the fault says. ``connection`` counts the simulator's connections from 1.
    """

    def __init__(
        self, faults: Sequence[Fault], connection: int, agenda: Agenda, act: Callable[[Fault, float], None]
    ) -> None:
        self._open = [fault for fault in faults if fault.connection in (None, connection)]
        self._reached: dict[FaultPoint, float] = {}
        self._agenda = agenda
        self._act = act

    def reach(self, point: FaultPoint, now: float, amount: float = 1.0) -> None:
        """The connection has come to this point, by ``amount`` more of it than before."""
        if not self._open:
            return
        reached = self._reached[point] = self._reached.get(point, 0.0) + amount
        due = [
            fault for fault in self._open if fault.at == point and (point in _ONCE or reached >= fault.after)
        ]
        for fault in due:
            self._open.remove(fault)
            self._act(fault, now)

    def start_clock(self, now: float) -> None:
        """The session stands: faults ``at = "time"`` count from here."""
        for fault in self._open:
            if fault.at == "time":
                self._agenda.at(now + fault.after, partial(self._act, fault))
