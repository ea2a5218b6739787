"""A call's answers when its sessions are lost: none is lost with them, and none told twice."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ari_gemini.realtime.events import FunctionCall
from ari_gemini.realtime.functions import FunctionResult
from ari_gemini.simulator.gemini_live import GeminiSimulator
from ari_gemini.tools.base import ToolContext
from ari_gemini.tools.toolbox import _MAX_TOLD, _MAX_UNCONFIRMED

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from support.hurry import hurried
from toolbox_support import (
    LONG,
    NUMBERED,
    Handy,
    Inbox,
    Patient,
    asked,
    calls,
    echo,
    responses,
    rigged,
    talking,
)

LIVE = "gemini-3.8-live"
DONE = '[handy, called before the connection was interrupted, has ended: {"result": "done"}]'


async def test_an_answer_written_to_a_dead_connection_goes_to_the_next() -> None:
    """The service reads no more, the socket takes the answer all the same."""
    work = Patient()
    with hurried():
        async with GeminiSimulator(calls(1)) as simulator, talking(simulator, LIVE, Handy(work)) as talk:
            first = await talk.start()
            ids = await asked(talk, first)
            await work.begun.wait()
            first._link.transport.pause_reading()
            work.release.set()
            await talk.idle()
            assert talk.session.confirmed < talk.session.sent
            first.cut()
            await talk.lost()
            talk.toolbox.recover(talk.session.confirmed)
            assert talk.toolbox.busy
            second = await talk.open()
            talk.toolbox.attach(talk.session, resumed=talk.session.resumed)
            await talk.idle()
            await second.wait_for("generation_complete", timeout=LONG)
    assert first.record.count("tool_response") == 0
    assert responses(first, second) == {ids[0]: {"result": "done"}}
    assert talk.busy == [True, False] * 2
    assert talk.told == []


@pytest.mark.parametrize("arrived", [0, 1, 2])
async def test_what_has_not_arrived_is_sent_again_in_one_message_before_what_has_waited(arrived: int) -> None:
    old, new = Inbox(), Inbox()
    async with rigged(Handy(echo), answers=old) as rig:
        for call_id in ("1", "2"):
            rig.call(call_id=call_id)
            await rig.idle()
        assert len(old.messages) == 2
        rig.toolbox.recover(arrived)
        assert rig.toolbox.busy is (arrived < 2)
        rig.call(call_id="3")
        await rig.used(3)
        assert [result.id for result in rig.toolbox.unconfirmed] == ["1", "2", "3"][arrived:]
        rig.toolbox.attach(new)
        await rig.idle()
    assert [[result.id for result in message] for message in new.messages] == [["1", "2", "3"][arrived:]]


async def test_what_was_confirmed_while_the_session_lived_stays_answered() -> None:
    old = Inbox()
    async with rigged(Handy(echo), answers=old) as rig:
        rig.call(call_id="1")
        await rig.idle()
        old.confirmed = 1
        rig.call(call_id="2")
        await rig.idle()
        rig.toolbox.recover(1)
        assert [result.id for result in rig.toolbox.unconfirmed] == ["2"]
        rig.toolbox.take_back(["2"])


async def test_what_is_lost_twice_is_sent_a_third_time() -> None:
    async with rigged(Handy(echo), answers=Inbox()) as rig:
        rig.call()
        await rig.idle()
        for _ in range(2):
            rig.toolbox.recover(0)
            inbox = Inbox()
            rig.toolbox.attach(inbox)
            await rig.idle()
            assert list(inbox.answers) == ["1"]
    assert rig.busy == [True, False] * 3
    assert len(rig.uses) == 1


async def test_an_answer_taken_back_after_it_was_written_is_not_sent_again() -> None:
    async with rigged(Handy(echo), answers=Inbox()) as rig:
        rig.toolbox.call([FunctionCall("1", "handy"), FunctionCall("2", "handy")])
        await rig.idle()
        rig.toolbox.take_back(["1"])
        rig.toolbox.recover(0)
        assert [result.id for result in rig.toolbox.unconfirmed] == ["2"]
        rig.toolbox.take_back(["2"])
    assert rig.busy == [True, False] * 2


async def test_one_that_was_being_written_while_the_session_was_given_up_goes_to_the_next() -> None:
    """Even if the writing ends well: nobody will say any more whether it arrived."""
    old, new = Inbox(), Inbox()
    old.gate.clear()
    async with rigged(Handy(echo), answers=old) as rig:
        rig.call()
        await old.sending.wait()
        rig.toolbox.recover(0)
        rig.toolbox.attach(new)
        assert new.begun == []
        old.gate.set()
        await rig.idle()
        rig.toolbox.recover(1)
        assert rig.toolbox.unconfirmed == ()
    assert list(new.answers) == ["1"]


async def test_what_is_remembered_of_answers_has_a_bound() -> None:
    inbox = Inbox()
    async with rigged(Handy(echo), answers=inbox) as rig:
        for number in range(_MAX_UNCONFIRMED + 3):
            rig.call(call_id=str(number))
            await rig.idle()
        rig.toolbox.recover(0)
        ids = [result.id for result in rig.toolbox.unconfirmed]
        rig.toolbox.take_back(ids)
    assert ids == [str(number) for number in range(3, _MAX_UNCONFIRMED + 3)]


async def test_answers_that_another_toolbox_owes_are_inherited() -> None:
    """One is on its way, one is written, one waits: whoever takes the call over knows of all three."""
    old, new = Inbox(), Inbox()
    async with rigged(Handy(echo), answers=old) as rig:
        rig.call(call_id="1")
        await rig.idle()
        old.gate.clear()
        old.sending.clear()
        rig.call(call_id="2")
        await old.sending.wait()
        rig.call(call_id="3")
        await rig.used(3)
        owed = rig.toolbox.unconfirmed
        assert [result.id for result in owed] == ["1", "2", "3"]
        old.gate.set()
    async with rigged(Handy(echo)) as heir:
        heir.toolbox.inherit(owed)
        assert heir.toolbox.busy
        heir.toolbox.attach(new)
        await heir.idle()
    assert list(new.answers) == ["1", "2", "3"]
    assert heir.busy == [True, False]


async def test_what_is_inherited_is_told_in_words_to_a_session_that_does_not_know_it() -> None:
    new = Inbox()
    async with rigged() as heir:
        heir.toolbox.inherit([FunctionResult("1", "handy", {"result": "done"})])
        heir.toolbox.attach(new, resumed=False)
        assert not heir.toolbox.busy
    assert heir.told == [DONE]
    assert new.begun == []


# --- a session that knows nothing of the calls


@pytest.mark.parametrize("ended", ["before it", "during it"])
async def test_a_session_that_does_not_know_the_call_is_told_in_words(ended: str) -> None:
    old, new, work = Inbox(), Inbox(), Patient()
    async with rigged(Handy(work), answers=old) as rig:
        rig.call()
        await work.begun.wait()
        rig.toolbox.recover(0)
        if ended == "before it":
            work.release.set()
            await rig.used()
            assert rig.told == []
        rig.toolbox.attach(new, resumed=False)
        work.release.set()
        await rig.idle()
    assert rig.told == [DONE]
    assert old.begun == new.begun == []
    assert rig.busy == [True, False]
    assert rig.outcomes == ["done"]


async def test_an_answer_that_did_not_arrive_is_told_in_words() -> None:
    new = Inbox()
    async with rigged(Handy(echo, parameters=NUMBERED), answers=Inbox()) as rig:
        rig.call(n=7)
        await rig.idle()
        rig.toolbox.recover(0)
        rig.toolbox.attach(new, resumed=False)
        assert not rig.toolbox.busy
    (text,) = rig.told
    assert text == DONE.replace('"done"', '{"n": 7}')
    assert new.begun == []


@pytest.mark.parametrize("arrives", [True, False])
async def test_one_that_is_being_written_still_is_told_in_words(arrives: bool) -> None:
    old, new = Inbox(), Inbox()
    old.gate.clear()
    async with rigged(Handy(echo), answers=old) as rig:
        rig.call()
        await old.sending.wait()
        rig.toolbox.recover(0)
        rig.toolbox.attach(new, resumed=False)
        if arrives:
            old.gate.set()
        else:
            old.lose()
        await rig.idle()
        rig.toolbox.recover(0)
        assert rig.toolbox.unconfirmed == ()
    assert len(rig.told) == 1
    assert new.begun == []


async def test_its_own_calls_are_answered_even_by_an_id_that_was_used_before() -> None:
    new, work = Inbox(), Patient()
    async with rigged(Handy(work), Handy(echo, "other"), answers=Inbox()) as rig:
        rig.call()
        await work.begun.wait()
        rig.toolbox.recover(0)
        rig.toolbox.attach(new, resumed=False)
        rig.call("other")
        await rig.used()
        work.release.set()
        await rig.idle()
    assert new.answers == {"1": {"result": {}}}
    assert rig.told == [DONE]


async def test_a_call_taken_back_is_not_told_in_words() -> None:
    work = Patient()
    async with rigged(Handy(work), answers=Inbox()) as rig:
        rig.call()
        await work.begun.wait()
        rig.toolbox.recover(0)
        rig.toolbox.attach(Inbox(), resumed=False)
        rig.toolbox.take_back(["1"])
        await work.cancelled.wait()
    assert rig.told == []
    assert rig.outcomes == ["cancelled"]


async def test_words_are_readable_text() -> None:
    async def city(args: Mapping[str, Any], context: ToolContext) -> Any:
        return "Köln \ud83d"

    async with rigged(Handy(city), answers=Inbox()) as rig:
        rig.call()
        await rig.idle()
        rig.toolbox.recover(0)
        rig.toolbox.attach(Inbox(), resumed=False)
    assert rig.told == [DONE.replace("done", "Köln \ud83d")]


async def test_an_answer_that_has_arrived_since_is_not_unconfirmed_any_more() -> None:
    inbox = Inbox()
    inbox.confirmed = 0
    async with rigged(Handy(echo), answers=inbox) as rig:
        rig.call(call_id="1")
        await rig.idle()
        assert [result.id for result in rig.toolbox.unconfirmed] == ["1"]
        inbox.confirmed = 1
        assert rig.toolbox.unconfirmed == ()


async def test_a_new_session_does_not_wait_for_what_it_never_asked_for() -> None:
    """A model that takes no input while its tools work must hear the caller."""
    work = Patient()
    async with rigged(Handy(work)) as rig:
        rig.call()
        await work.begun.wait()
        rig.toolbox.recover(0)
        assert rig.toolbox.busy
        rig.toolbox.attach(Inbox(), resumed=False)
        assert not rig.toolbox.busy
        work.release.set()
        await rig.used(1)
        assert rig.told == [DONE]
    assert rig.busy == [True, False]


# --- what a session that begins later is told of all calls, where they were made

CALLED = 'Tool handy was called with {"n": 7}'
PENDING = f"[{CALLED}; its result is not there yet and will be told]"
GAVE = f'[{CALLED} and gave {{"result": {{"n": 7}}}}]'


async def test_a_call_is_told_of_with_its_result_once_that_has_arrived() -> None:
    inbox, work = Inbox(), Patient({"n": 7})
    async with rigged(Handy(work, parameters=NUMBERED), answers=inbox) as rig:
        rig.call(n=7)
        await work.begun.wait()
        assert rig.accounts() == [PENDING]
        work.release.set()
        await rig.idle()
        assert rig.accounts() == [PENDING], "any later session is told the result anyway"
        assert [result.id for result in rig.toolbox.unconfirmed] == ["1"]
        inbox.confirmed = 1
        assert rig.accounts() == [GAVE]
        assert rig.toolbox.unconfirmed == ()
        rig.toolbox.recover(1)
        rig.toolbox.attach(Inbox(), resumed=False)
        assert (rig.accounts(), rig.told) == ([GAVE], [])


async def test_one_that_was_told_in_words_is_not_told_of_twice() -> None:
    inbox = Inbox()
    async with rigged(Handy(echo, parameters=NUMBERED), answers=inbox) as rig:
        rig.call(n=7)
        await rig.idle()
        rig.toolbox.recover(0)
        rig.toolbox.attach(Inbox(), resumed=False)
        assert rig.accounts() == [PENDING]
        assert rig.kept == rig.told
        rig.toolbox.attach(Inbox(), resumed=False)
        assert (rig.accounts(), len(rig.told)) == ([PENDING], 1)


async def test_one_that_is_sent_again_to_a_session_that_knows_it_is_told_of_once() -> None:
    again = Inbox()
    async with rigged(Handy(echo, parameters=NUMBERED), answers=Inbox()) as rig:
        rig.call(n=7)
        await rig.idle()
        rig.toolbox.recover(0)
        rig.toolbox.attach(again)
        await rig.idle()
        again.confirmed = 1
        assert rig.accounts() == [GAVE]


async def test_long_arguments_and_results_are_cut() -> None:
    text, inbox = "a" * 2000, Inbox()
    parameters = {"type": "object", "properties": {"text": {"type": "string"}}}
    async with rigged(Handy(echo, parameters=parameters), answers=inbox) as rig:
        rig.call(text=text)
        await rig.idle()
        inbox.confirmed = 1
        (account,) = rig.accounts()
        assert account.count("… (cut)") == 2
        assert account.startswith('[Tool handy was called with {"text": "aaa')
        assert len(account) < 2 * _MAX_TOLD + 100
        rig.call(text=text, call_id="2")
        await rig.idle()
        rig.toolbox.recover(1)
        rig.toolbox.attach(Inbox(), resumed=False)
    assert text in rig.told[0]
    assert rig.kept[0].endswith("a… (cut)]")
    assert len(rig.kept[0]) < _MAX_TOLD + 100


async def test_discreetly_arguments_are_told_by_their_names() -> None:
    async with rigged(Handy(echo), answers=Inbox()) as rig:
        rig.call(pin="4711", branch="north")
        rig.call(call_id="2")
        told = rig.accounts(discreet=True)
        await rig.idle()
    assert told[0].startswith("[Tool handy was called with values for branch, pin that are not shown; its")
    assert told[1].startswith("[Tool handy was called with {}; its")


@pytest.mark.parametrize("when", ["it works", "its answer is under way"])
async def test_one_that_was_taken_back_is_told_of_as_such(when: str) -> None:
    work = Patient()
    async with rigged(Handy(work, parameters=NUMBERED), answers=Inbox()) as rig:
        rig.call(n=7)
        await work.begun.wait()
        if when != "it works":
            work.release.set()
            await rig.idle()
        rig.toolbox.take_back(["1"])
        await rig.idle()
        assert rig.accounts() == [f"[{CALLED} and taken back before it was answered]"]


async def test_one_that_is_taken_back_after_its_result_arrived_keeps_that() -> None:
    inbox = Inbox()
    async with rigged(Handy(echo, parameters=NUMBERED), answers=inbox) as rig:
        rig.call(n=7)
        await rig.idle()
        inbox.confirmed = 1
        rig.toolbox.take_back(["1"])
        assert rig.accounts() == [GAVE]


async def test_one_that_was_refused_is_told_of_with_the_reason() -> None:
    inbox = Inbox()
    async with rigged(answers=inbox) as rig:
        rig.call("made_up")
        await rig.idle()
        inbox.confirmed = 1
        (account,) = rig.accounts()
    assert account.startswith('[Tool made_up was called with {} and gave {"error": "there is no tool')


async def test_what_is_inherited_is_told_of_when_it_has_arrived() -> None:
    """That it was called is in what the former worker kept."""
    inbox = Inbox()
    async with rigged() as heir:
        heir.toolbox.inherit([FunctionResult("1", "handy", {"result": "done"})])
        assert heir.accounts() == []
        heir.toolbox.attach(inbox)
        await heir.idle()
        assert heir.accounts() == []
        inbox.confirmed = 1
        assert heir.accounts() == ['[Tool handy was called and gave {"result": "done"}]']


async def test_arguments_nested_too_deeply_to_be_written_cost_no_call() -> None:
    nested: Any = 1
    for _ in range(100_000):
        nested = [nested]
    async with rigged(Handy(echo), answers=Inbox()) as rig:
        rig.call(deep=nested)
        assert "what cannot be shown" in rig.accounts()[0]
        await rig.idle()
