from __future__ import annotations

from ari_gemini.simulator.agenda import Agenda


def test_things_are_done_in_order_of_time_then_of_entry() -> None:
    done: list[str] = []
    agenda = Agenda()
    for due, name in ((2.0, "late"), (1.0, "first"), (1.0, "second"), (5.0, "never")):
        agenda.at(due, lambda now, name=name: done.append(f"{name} {now}"))
    assert agenda.next_at == 1.0
    agenda.run(2.5)
    assert done == ["first 2.5", "second 2.5", "late 2.5"]
    assert agenda.next_at == 5.0


def test_what_an_action_enters_for_now_is_done_at_once() -> None:
    done: list[float] = []
    agenda = Agenda()
    agenda.at(1.0, lambda now: agenda.at(now, done.append))
    agenda.run(1.0)
    assert done == [1.0]
    assert agenda.next_at is None


def test_a_group_can_be_dropped_and_the_whole_closed() -> None:
    done: list[float] = []
    agenda = Agenda()
    agenda.at(1.0, done.append, "mouth")
    agenda.at(2.0, done.append, "reply")
    agenda.drop("mouth")
    assert agenda.next_at == 2.0
    agenda.run(1.5)
    assert done == []
    agenda.close()
    agenda.at(1.0, done.append)
    assert agenda.next_at is None
