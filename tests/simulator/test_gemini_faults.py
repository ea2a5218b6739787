from __future__ import annotations

import pytest

from ari_gemini.simulator.agenda import Agenda
from ari_gemini.simulator.gemini_faults import Faults
from ari_gemini.simulator.scenario import Fault, FaultPoint


class Bench:
    def __init__(self, *faults: Fault, connection: int = 1) -> None:
        self.done: list[tuple[str, float]] = []
        self.agenda = Agenda()
        self.faults = Faults(
            faults, connection, self.agenda, lambda fault, now: self.done.append((fault.do, now))
        )


@pytest.mark.parametrize("point", ["connect", "setup", "ready"])
def test_points_that_come_once(point: FaultPoint) -> None:
    bench = Bench(Fault(at=point, do="mute", after=9))
    bench.faults.reach(point, 1.0)
    bench.faults.reach(point, 2.0)
    assert bench.done == [("mute", 1.0)]


@pytest.mark.parametrize("point", ["heard", "caller", "turn", "tool"])
def test_points_that_are_counted(point: FaultPoint) -> None:
    bench = Bench(Fault(at=point, after=3, do="interrupt"))
    for now in range(5):
        bench.faults.reach(point, float(now))
    assert bench.done == [("interrupt", 2.0)]


def test_speech_is_counted_in_seconds() -> None:
    bench = Bench(Fault(at="speech", after=0.5, do="abort"))
    for now in range(4):
        bench.faults.reach("speech", float(now), 0.2)
    assert bench.done == [("abort", 2.0)]


def test_time_runs_from_the_start_of_the_clock() -> None:
    bench = Bench(Fault(at="time", after=5, do="close"))
    assert bench.agenda.next_at is None
    bench.faults.start_clock(2.0)
    bench.agenda.run(6.9)
    assert bench.done == []
    bench.agenda.run(7.0)
    assert bench.done == [("close", 7.0)]


def test_a_fault_may_be_meant_for_one_connection() -> None:
    second = Fault(at="connect", do="abort", connection=2)
    every = Fault(at="connect", do="mute")
    for connection, done in ((1, ["mute"]), (2, ["abort", "mute"]), (3, ["mute"])):
        bench = Bench(second, every, connection=connection)
        bench.faults.reach("connect", 0.0)
        assert [do for do, _ in bench.done] == done
