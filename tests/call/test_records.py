"""A call that another worker, or an earlier life of this one, has begun: what becomes of it here."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.states import state

from ari_gemini.call import line as line_module
from ari_gemini.call.agent import Agent
from ari_gemini.call.records import ASKED, BACK, LOST_WORK, Records
from ari_gemini.errors import Cause, HandleRefused, SessionDropped
from ari_gemini.realtime.events import FunctionCall, Speaker, Transcript
from ari_gemini.realtime.functions import FunctionDeclaration, FunctionResult
from ari_gemini.realtime.session import HistoryTurn, Resume
from ari_gemini.state.directory import DirectoryStore
from ari_gemini.state.memory import MemoryStore
from ari_gemini.state.record import CallState, encode
from ari_gemini.state.store import key_of
from ari_gemini.tools.base import Tool

MODEL = "0123456789abcdef"
CALL = "1700000000.1"
"""The rig's."""
LONG = 30.0


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "calls")


@pytest.fixture(autouse=True)
def _kept(rig, store: DirectoryStore) -> None:
    rig.records = Records(store, MODEL)
    rig.leg.adopted = True
    rig.agents = {"default": Agent(instructions="About {ORDER}.", greeting="Greet.", variables=("ORDER",))}


async def left_behind(store: DirectoryStore, **fields: Any) -> CallState:
    """What a worker kept of a call a minute old, without tools unless ``fields`` has some."""
    now = time.time()
    usual = {"started_at": now - 60, "saved_at": now, "open_calls": (), "unconfirmed": ()}
    kept = state(CALL, **usual | fields)
    await store.save(kept)
    return kept


async def taken_over(rig, until) -> Any:
    """The session with which the call goes on, when it has been told that it is back."""
    rig.start()
    await until(lambda: rig.sessions and rig.sessions[0].texts)
    return rig.sessions[0]


async def end(rig, cause: Cause = Cause.CALLER_HANGUP) -> None:
    rig.call.end(cause)
    assert (await rig.done()).cause is cause


def greetings(rig) -> list[str]:
    return [step for step in rig.steps if step.startswith("greet")]


# Going on.


async def test_the_session_is_resumed_and_told_that_it_is_back(rig, store, until) -> None:
    kept = await left_behind(store)
    session = await taken_over(rig, until)
    assert rig.resumes == [kept.resume]
    assert session.texts == [BACK + ASKED], "he had said something"
    assert greetings(rig) == []
    await end(rig)


async def test_who_calls_and_whom_is_taken_from_the_record(rig, store, until) -> None:
    await left_behind(store, agent="sales", values={"ORDER": "17"})
    rig.agents["sales"] = Agent(instructions="Sell {ORDER}.", variables=("ORDER",))
    await taken_over(rig, until)
    assert rig.settings[0].instructions == "Sell 17."
    assert "variables" not in rig.steps
    assert (rig.call.identity.agent, rig.call.identity.caller_name) == ("sales", "Zoë")
    await end(rig)


async def test_a_session_of_another_model_is_not_resumed_but_told_what_was_said(rig, store, until) -> None:
    kept = await left_behind(store, fingerprint="another")
    session = await taken_over(rig, until)
    assert (rig.resumes, rig.histories) == ([None], [kept.transcript])
    assert session.texts == [BACK + ASKED], "he had said something"
    assert greetings(rig) == []
    await end(rig)


async def test_so_is_one_that_cannot_be_resumed(rig, store, until) -> None:
    kept = await left_behind(store)
    rig.refusals = [HandleRefused("unknown")]
    await taken_over(rig, until)
    assert rig.resumes == [kept.resume, None]
    assert rig.histories == [kept.transcript, kept.transcript]
    assert greetings(rig) == []
    await end(rig)


@pytest.mark.parametrize("how", ["refuses", "hangs"])
async def test_so_is_one_that_cannot_be_resumed_in_time(rig, clock, how: str) -> None:
    """As long as the service takes the former connection to be alive, it refuses, or does not answer."""
    store = MemoryStore()  # works without threads, which know nothing of the clock
    rig.records = Records(store, MODEL)
    kept = await left_behind(store)
    open_session = rig.open_session

    async def locked(settings, *, resume, history, **more):
        if resume is not None:
            await asyncio.sleep(LONG if how == "hangs" else 0.1)
            raise SessionDropped("1011")
        return await open_session(settings, resume=resume, history=history, **more)

    rig.open_session = locked
    rig.start(setup_timeout=5.0)
    await asyncio.sleep(line_module.FIRST_RESUME_SECONDS + 1)
    assert [session.resumed for session in rig.sessions] == [False]
    assert rig.histories == [kept.transcript]
    await end(rig)


async def test_a_caller_who_had_heard_nothing_yet_is_greeted(rig, store) -> None:
    await left_behind(store, greeted=False, resume=None, transcript=())
    session = await rig.up()
    assert greetings(rig) == ["greet Greet."]
    assert session.texts == []
    await end(rig)


async def test_an_agent_that_is_gone_gives_way_to_the_one_that_the_dialplan_names(rig, store, until) -> None:
    await left_behind(store, agent="gone")
    await taken_over(rig, until)
    assert rig.call.identity.agent == "default"
    await end(rig)


async def test_the_callers_time_has_run_since_the_call_began(rig, store, until) -> None:
    limits = {"max_duration": 3600, "warn_before": 60, "duration_warning": "Nearly over."}
    rig.agents = {"default": Agent(limits=limits)}
    await left_behind(store, started_at=time.time() - 3590)
    session = await taken_over(rig, until)
    await until(lambda: "Nearly over." in session.texts)
    await end(rig)


# Tools.


async def test_what_tools_had_to_say_is_said_and_what_died_is_owned_up_to(rig, store, until) -> None:
    asked, said = FunctionCall("2", "book", {}), FunctionResult("1", "look_up", {"result": 7}, "when_idle")
    await left_behind(store, open_calls=(asked,), unconfirmed=(said,))
    session = await taken_over(rig, until)
    await until(lambda: len(session.answers) >= 2)
    assert session.answers == [said, FunctionResult("2", "book", {"error": LOST_WORK})]
    await end(rig)


async def test_a_session_that_never_called_them_is_told_in_words(rig, store, until) -> None:
    asked = FunctionCall("2", "book", {})
    await left_behind(store, open_calls=(asked,), fingerprint="another")
    session = await taken_over(rig, until)
    await until(lambda: len(session.texts) >= 2)
    assert [LOST_WORK in text and "book" in text for text in session.texts] == [False, True]
    assert session.answers == []
    await end(rig)


class Booking(Tool):
    name = "book_table"
    declaration = FunctionDeclaration(
        "book_table", "Books a table.", {"type": "object", "properties": {"who": {"type": "string"}}}
    )

    async def run(self, args, context) -> str:
        return f"booked for {args['who']}"


@pytest.mark.parametrize("secret", [False, True])
async def test_the_next_worker_knows_what_was_typed_and_what_tools_did(rig, store, until, secret) -> None:
    rig.leg.adopted = False
    rig.equip(Booking(), digits={"sensitive": secret})
    session = await rig.up()
    await session.say(Transcript(Speaker.MODEL, "Whom for?"), Transcript(Speaker.CALLER, "For me."))
    for key in "8642#":
        rig.call.key_pressed(key)
    await until(lambda: session.texts)
    await session.ask("book_table", who="8642")
    await until(lambda: session.answers)
    await end(rig, Cause.HANDED_OVER)
    kept = await store.load(CALL)
    assert kept is not None
    assert ("8642" in encode(kept).decode()) is not secret
    assert [turn.note for turn in kept.transcript] == [False, False, True, True]
    assert "booked for " in kept.transcript[3].text
    assert kept.unconfirmed == ()

    heir = type(rig)()
    heir.records, heir.agents, heir.leg.adopted = rig.records, rig.agents, True
    heir.tools.tools = rig.tools.tools
    session = await taken_over(heir, until)
    assert heir.histories == [kept.transcript]
    assert not any("book" in text for text in session.texts)
    await end(heir)


# Without a record.


async def test_a_caller_who_has_just_come_is_none_of_the_records(rig, store) -> None:
    await left_behind(store)
    rig.leg.adopted = False
    await rig.up()
    assert (rig.resumes, rig.histories) == ([None], [()])
    assert greetings(rig) == ["greet Greet."]
    await end(rig)


async def test_a_caller_of_whom_nothing_is_known_is_a_new_one(rig) -> None:
    await rig.up()
    assert rig.resumes == [None]
    assert greetings(rig) == ["greet Greet."]
    await end(rig)


async def test_a_record_that_cannot_be_read_costs_no_call(rig, store, tmp_path: Path) -> None:
    await left_behind(store)
    (tmp_path / "calls" / f"{key_of(CALL)}.json").write_bytes(b"{")
    await rig.up()
    assert greetings(rig) == ["greet Greet."]
    await end(rig)


async def test_a_store_that_fails_costs_no_call(rig, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    rig.records = Records(DirectoryStore(tmp_path / "file" / "calls"), MODEL)
    await rig.up()
    assert greetings(rig) == ["greet Greet."]
    await end(rig)


# What this one leaves behind.


async def test_a_call_that_is_over_leaves_nothing(rig, store, until) -> None:
    await left_behind(store)
    await taken_over(rig, until)
    await end(rig)
    assert await store.load(CALL) is None


async def test_a_call_that_is_handed_over_leaves_all_of_it(rig, store) -> None:
    rig.leg.adopted = False
    rig.leg.values = {"ORDER": "18"}
    session = await rig.up()
    before = time.time()
    session.resume = resume = Resume("newest")
    await session.say(Transcript(Speaker.MODEL, "Hello."), Transcript(Speaker.CALLER, "Hi."))
    await end(rig, Cause.HANDED_OVER)
    kept = await store.load(CALL)
    assert kept is not None
    assert (kept.agent, kept.caller_number, kept.called_number) == ("default", "0301234", "100")
    assert kept.values["ORDER"] == "18"
    assert kept.transcript == (HistoryTurn(Speaker.MODEL, "Hello."), HistoryTurn(Speaker.CALLER, "Hi."))
    assert (kept.resume, kept.fingerprint, kept.greeted) == (resume, MODEL, True)
    assert kept.started_at <= before <= kept.saved_at


async def test_the_next_worker_goes_on_from_both(rig, store, until) -> None:
    kept = await left_behind(store)
    session = await taken_over(rig, until)
    session.resume = resume = Resume("newest")
    await session.say(Transcript(Speaker.MODEL, " again"))
    await end(rig, Cause.HANDED_OVER)
    left = await store.load(CALL)
    assert left is not None
    assert [turn.text for turn in left.transcript] == ["Grüezi", "Hello 👋 again"]
    assert (left.resume, left.started_at, left.greeted) == (resume, kept.started_at, True)


@pytest.mark.parametrize("step", ["identify", "open_session", "open_media", "join"])
async def test_handed_over_again_before_it_was_up_the_next_worker_finds_the_same(rig, store, step) -> None:
    open_calls = (FunctionCall("2", "book", {}),)
    kept = await left_behind(store, open_calls=open_calls)
    rig.steps.hang.add(step)
    rig.start()
    await rig.steps.until(step)
    await end(rig, Cause.HANDED_OVER)
    assert await store.load(CALL) == kept


async def test_nothing_is_kept_where_there_is_no_store(rig, tmp_path: Path) -> None:
    rig.records = None
    await rig.up()
    await end(rig, Cause.HANDED_OVER)
    assert not (tmp_path / "calls").exists()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "SETUP_RETRY_DELAYS", (0.0,))
