"""The line to the model: what the caller hears and the model is told when its sessions come and go."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import structlog
from support.talk import HANDLE, SILENCE, Talk, resampled, speech, tone, until

from ari_gemini.call.agent import Agent
from ari_gemini.call.line import ANSWER, GO_ON, LASTED_SECONDS, MAX_IN_A_ROW, ReconnectSettings
from ari_gemini.errors import (
    Cause,
    HandleRefused,
    KeyRefused,
    MalformedMessage,
    QuotaExceeded,
    SessionDropped,
    SessionUnavailable,
    SetupRefused,
)
from ari_gemini.realtime.events import (
    GenerationComplete,
    GoAway,
    Speaker,
    Transcript,
    TurnComplete,
)
from ari_gemini.realtime.functions import FunctionDeclaration
from ari_gemini.realtime.session import HistoryTurn, Resume
from ari_gemini.tools.base import Tool


def refusing_early(rig):
    async def open_session(settings, *, before_setup=None, **more):
        refuses = bool(rig.refusals)
        return await rig.open_session(settings, before_setup=None if refuses else before_setup, **more)

    return open_session


@pytest.fixture
async def talk(rig, clock) -> Talk:
    return Talk(rig)


# The ladder.


@pytest.mark.parametrize(
    "error", [SessionDropped("x"), MalformedMessage("x"), SessionUnavailable("x"), QuotaExceeded("x")]
)
async def test_a_lost_session_is_closed_and_resumed_at_once(talk, error: Exception) -> None:
    session = await talk.up()
    began = talk.now()
    session.fail(error)
    await talk.next()
    assert talk.now() - began <= 0.02
    assert talk.rig.resumes == [None, HANDLE]
    assert talk.rig.steps.index("session closed") < len(talk.rig.steps) - 1 - talk.rig.steps[::-1].index(
        "open_session"
    ), "resuming is refused while the former connection lives"
    await talk.end()


async def test_the_newest_handle_counts(talk) -> None:
    session = await talk.up()
    session.resume = Resume("h-2")
    session.fail(SessionDropped("x"))
    second = await talk.next()
    second.resume = Resume("h-3")
    second.fail(SessionDropped("x"))
    await talk.next(3)
    assert talk.rig.resumes == [None, Resume("h-2"), Resume("h-3")]
    await talk.end()


async def test_the_attempts_are_at_once_after_one_second_and_after_three(talk) -> None:
    session = await talk.up()
    times: list[float] = []
    talk.rig.steps.on["open_session"] = lambda: times.append(talk.now())
    talk.rig.refusals = [SessionDropped("1011")] * 2
    began = talk.now()
    session.fail(SessionDropped("x"))
    await talk.next()
    assert [round(at - began, 1) for at in times] == [0.0, 1.0, 3.0]
    assert talk.rig.resumes[1:] == [HANDLE] * 3
    await talk.end()


async def test_then_a_new_session_is_told_what_was_said(talk) -> None:
    session = await talk.up()
    await session.say(
        Transcript(Speaker.CALLER, "When do you "),
        Transcript(Speaker.CALLER, "open?"),
        Transcript(Speaker.MODEL, "At nine."),
        speech(20),
        TurnComplete(),
    )
    talk.rig.refusals = [SessionDropped("1011")] * 3
    session.fail(SessionDropped("x"))
    await talk.next()
    assert talk.rig.resumes[-1] is None
    said = (HistoryTurn(Speaker.CALLER, "When do you open?"), HistoryTurn(Speaker.MODEL, "At nine."))
    assert talk.rig.histories[-1] == said
    assert talk.rig.histories[:-1] == [()] * 4, "a resumed session knows"
    await talk.end()


@pytest.mark.parametrize("refused", [HandleRefused("dead"), SetupRefused("no")])
async def test_a_dead_handle_is_dropped_at_once(talk, refused: Exception) -> None:
    session = await talk.up()
    talk.rig.refusals = [refused]
    began = talk.now()
    session.fail(SessionDropped("x"))
    await talk.next()
    assert talk.rig.resumes == [None, HANDLE, None]
    assert talk.now() - began <= 0.02
    await talk.end()


@pytest.mark.parametrize(("error", "handle"), [(HandleRefused("x"), HANDLE), (SessionDropped("x"), None)])
async def test_without_a_handle_the_session_is_new(talk, error: Exception, handle: Resume | None) -> None:
    session = await talk.up(handle=handle)
    session.fail(error)
    await talk.next()
    assert talk.rig.resumes == [None, None]
    await talk.end()


async def test_an_attempt_that_hangs_is_given_up(talk) -> None:
    session = await talk.up()
    times: list[float] = []
    talk.rig.steps.on["open_session"] = lambda: times.append(talk.now())
    talk.rig.steps.hang = {"open_session"}
    began = talk.now()
    session.fail(SessionDropped("x"))
    await until(lambda: len(times) == 3)
    talk.rig.steps.hang = set()
    await talk.next()
    assert [round(at - began, 1) for at in times[:3]] == [0.0, 4.0, 8.0]
    await talk.end()


async def test_after_twenty_seconds_the_caller_has_waited_long_enough(talk) -> None:
    session = await talk.up()
    talk.rig.steps.fail["open_session"] = SessionUnavailable("away")
    began = talk.now()
    session.fail(SessionDropped("x"))
    outcome = await talk.rig.done()
    assert (outcome.cause, outcome.detail) == (Cause.MODEL_LOST, "away")
    assert 20 <= talk.now() - began < 20 + 4 + 5, "the last pause and the apology"


@pytest.mark.parametrize("error", [KeyRefused("no"), QuotaExceeded("used up")])
async def test_what_cannot_help_is_not_tried_for_long(talk, error: Exception) -> None:
    session = await talk.up(handle=None)
    talk.rig.refusals = [error]
    session.fail(SessionDropped("x"))
    assert (await talk.rig.done()).detail == str(error)
    assert len(talk.rig.settings) == 2


async def test_a_word_of_the_model_makes_them_count_anew(talk) -> None:
    session = await talk.up()
    for number in range(2 * MAX_IN_A_ROW):
        await session.say(speech(20), TurnComplete())
        session.resume = HANDLE
        session.fail(SessionDropped("x"))
        session = await talk.next(number + 2)
    await talk.end()


async def test_losses_far_apart_do_not_add_up(talk) -> None:
    session = await talk.up()
    talk.rig.call._watchdogs.stop()  # they would not let both be silent for so long
    for number in range(2, MAX_IN_A_ROW + 4):
        await asyncio.sleep(LASTED_SECONDS)
        session.fail(SessionDropped("x"))
        session = await talk.next(number)
    await talk.end()


async def test_the_patience_can_be_set(talk) -> None:
    session = await talk.up(reconnect=ReconnectSettings(resume_delays=(0.5,), give_up_after=2.0))
    talk.rig.steps.fail["open_session"] = SessionUnavailable("away")
    session.fail(SessionDropped("x"))
    await talk.rig.done()
    assert talk.rig.resumes == [None, HANDLE, None, None, None]


# What the caller hears.


async def test_what_has_come_is_played_to_its_end_and_then_a_soft_tone(talk) -> None:
    session = await talk.up()
    await session.say(speech(400))
    talk.rig.refusals = [SessionDropped("1011")] * 2
    session.fail(SessionDropped("x"))
    second = await talk.next()
    written = talk.rig.connection.written
    loud = [max(abs(np.frombuffer(pcm, "<i2").astype(int))) for pcm, _ in written]
    first = next(n for n, level in enumerate(loud) if level > 3000)
    assert all(level > 3000 for level in loud[first : first + 20]), "all 400 ms"
    quiet = loud[first + 21 :]
    assert quiet.index(next(level for level in quiet if level)) in range(29, 33), "a tone after 0.6 s"
    assert 0 < max(quiet) < 1500
    await second.say(speech(100), TurnComplete())
    await asyncio.sleep(0.5)
    assert max(np.frombuffer(written[-1][0], "<i2"), key=abs) == 0
    await talk.end()


async def test_nothing_is_heard_of_a_short_loss_in_a_pause(talk) -> None:
    session = await talk.up()
    talk.rig.refusals = [SessionDropped("1011")]
    session.fail(SessionDropped("x"))
    await talk.next()
    await asyncio.sleep(3)
    assert not any(talk.rig.connection.speech)
    await talk.end()


# What the model is told.


async def test_a_sentence_cut_off_goes_on_in_a_new_session(talk) -> None:
    session = await talk.up(handle=None)
    await session.say(speech(400))
    session.fail(SessionDropped("x"))
    second = await talk.next()
    await until(lambda: second.texts)
    assert second.texts == [GO_ON]
    await talk.end()


@pytest.mark.parametrize("by_itself", [True, False])
async def test_a_resumed_model_goes_on_by_itself_or_is_asked_to(talk, by_itself: bool) -> None:
    session = await talk.up()
    await session.say(speech(400))
    session.fail(SessionDropped("x"))
    second = await talk.next()
    if by_itself:
        await second.say(speech(40), TurnComplete())
    await asyncio.sleep(5)
    assert second.texts == ([] if by_itself else [GO_ON])
    await talk.end()


async def test_a_turn_that_was_complete_needs_nothing(talk) -> None:
    session = await talk.up(handle=None)
    await session.say(speech(400), GenerationComplete())
    session.fail(SessionDropped("x"))
    second = await talk.next()
    await asyncio.sleep(5)
    assert second.texts == []
    await talk.end()


@pytest.mark.parametrize("handle", [HANDLE, None])
async def test_a_greeting_that_was_not_heard_is_asked_for_again(talk, handle) -> None:
    session = await talk.up(greeting="Say hello.", handle=handle)
    session.fail(SessionDropped("x"))
    second = await talk.next()
    await until(lambda: second.texts)
    assert second.texts == ["Say hello."]
    await talk.end()


async def test_the_greeting_cannot_even_be_sent(talk) -> None:
    talk.rig.agents = {"default": Agent(greeting="Say hello.")}
    talk.rig.greet_error = SessionDropped("gone")
    talk.rig.start()
    second = await talk.next()
    await until(lambda: second.texts)
    assert second.texts == ["Say hello."]
    await talk.end()


async def test_words_without_an_answer_are_heard_by_the_next_session(talk) -> None:
    session = await talk.up()
    await talk.say(SILENCE * 50 + tone(40) + SILENCE * 30)
    session.fail(SessionDropped("x"))
    second = await talk.next()
    await talk.say(SILENCE * 5)
    heard = await second.until_heard(70 * 640)
    assert resampled(tone(40))[640:-640] in heard
    assert second.texts == [], "the words themselves ask for the answer"
    await talk.end()


async def test_in_a_new_session_those_words_are_not_told_besides(talk) -> None:
    session = await talk.up(handle=None)
    await session.say(Transcript(Speaker.MODEL, "Hello."), speech(20), TurnComplete())
    await talk.say(SILENCE * 50 + tone(40) + SILENCE * 30)
    await session.say(Transcript(Speaker.CALLER, "Are you open?"))
    session.fail(SessionDropped("x"))
    await talk.next()
    assert talk.rig.histories[-1] == (HistoryTurn(Speaker.MODEL, "Hello."),)
    await talk.end()


async def test_words_that_were_answered_are_not_heard_again(talk) -> None:
    session = await talk.up()
    await talk.say(SILENCE * 50 + tone(40) + SILENCE * 30)
    await session.say(speech(20), TurnComplete())
    session.fail(SessionDropped("x"))
    second = await talk.next()
    await talk.say(SILENCE * 5)
    assert not any(await second.until_heard(5 * 640))
    assert talk.rig.call.uplink.repeated == 0
    await talk.end()


async def test_a_text_that_did_not_arrive_is_sent_again(talk) -> None:
    session = await talk.up()
    session.dead = True
    for digit in "5#":
        talk.rig.call.key_pressed(digit)
    await talk.rig.steps.until("text")
    session.fail(SessionDropped("x"))
    second = await talk.next()
    await until(lambda: second.texts)
    assert second.texts == session.texts
    await talk.end()


# A planned change.


async def test_nobody_notices_a_planned_change(talk) -> None:
    session = await talk.up()
    pcm = tone(10, 40) + SILENCE * 40
    await talk.say(pcm)
    await session.say(GoAway(50.0))
    began = talk.now()
    second = await talk.next()
    assert talk.now() - began < 0.2
    await talk.say(pcm)
    await second.until_heard(50 * 640)
    assert b"".join(session.heard + second.heard) == resampled(pcm + pcm), "not a sample is lost or repeated"
    assert talk.rig.call.line.planned == 1
    assert talk.rig.resumes == [None, HANDLE]
    assert not any(talk.rig.connection.speech)
    await talk.end()


async def test_the_next_connection_stands_before_the_old_one_is_closed(talk) -> None:
    session = await talk.up()
    gate = talk.rig.steps.gate("open_session")
    await session.say(GoAway(50.0))
    await until(lambda: talk.rig.steps.count("open_session") == 2)
    await asyncio.sleep(1)
    assert session.closed == 0
    gate.set()
    await talk.next()
    assert session.closed == 1
    await talk.end()


async def test_the_change_waits_for_the_end_of_the_turn(talk) -> None:
    session = await talk.up()
    await session.say(speech(400))
    await session.say(GoAway(50.0))
    await asyncio.sleep(5)
    assert len(talk.rig.settings) == 1
    await session.say(GenerationComplete())
    await asyncio.sleep(5)
    assert len(talk.rig.settings) == 1, "there is time to wait for its very end"
    await session.say(TurnComplete())
    await talk.next()
    await talk.end()


async def test_the_change_waits_while_the_caller_speaks_and_for_his_answer(talk) -> None:
    session = await talk.up()
    await talk.say(SILENCE * 50 + tone(20))
    await session.say(GoAway(50.0))
    await talk.say(tone(40))
    assert len(talk.rig.settings) == 1
    await talk.say(SILENCE * 100)
    assert len(talk.rig.settings) == 1
    await session.say(speech(20), TurnComplete())
    await talk.next()
    await talk.end()


async def test_a_noise_without_an_answer_holds_the_change_back_for_ten_seconds(talk) -> None:
    session = await talk.up()
    await talk.say(SILENCE * 50 + tone(20))
    ended = talk.now()
    await session.say(GoAway(50.0))
    saying = asyncio.create_task(talk.say(SILENCE * 700))
    await talk.next()
    assert 9.9 < talk.now() - ended < 10.5
    await saying
    await talk.end()


async def test_time_is_up_in_mid_sentence(talk) -> None:
    session = await talk.up()
    await session.say(speech(400))
    began = talk.now()
    await session.say(GoAway(8.0))
    second = await talk.next()
    assert 3.0 <= talk.now() - began < 3.3, "five seconds before the end"
    await asyncio.sleep(5)
    assert second.texts == [GO_ON], "it does not by itself"
    await talk.end()


async def test_a_tool_at_work_holds_the_change_back_until_its_answer_is_spoken(talk) -> None:
    tool = Slow()
    talk.rig.equip(tool)
    session = await talk.rig.up()
    session.resume = HANDLE
    await session.ask("slow", "call-7")
    await session.say(GoAway(50.0))
    await asyncio.sleep(2)
    tool.done.set()
    await until(lambda: session.answers)
    await asyncio.sleep(2)
    assert len(talk.rig.settings) == 1
    await session.say(speech(20), TurnComplete())
    await talk.next()
    assert session.closed == 1
    await talk.end()


@pytest.mark.parametrize("resumed", [True, False])
async def test_an_answer_that_was_owed_is_asked_for(talk, resumed: bool) -> None:
    tool = Slow()
    talk.rig.equip(tool)
    session = await talk.rig.up()
    session.resume = HANDLE if resumed else None
    await session.ask("slow", "call-7")
    tool.done.set()
    await until(lambda: session.answers)
    session.fail(SessionDropped("x"))
    second = await talk.next()
    began = talk.now()
    await until(lambda: second.texts)
    assert second.texts == [ANSWER]
    assert (talk.now() - began < 1) is not resumed, "a resumed model may speak by itself"
    await talk.end()


async def test_a_change_that_cannot_connect_leaves_the_session_alone_while_there_is_time(talk) -> None:
    session = await talk.up()
    talk.rig.steps.fail["open_session"] = SessionUnavailable("no network")
    with structlog.testing.capture_logs() as logs:
        await session.say(GoAway(50.0))
        await asyncio.sleep(3.5)
        assert session.closed == 0
        del talk.rig.steps.fail["open_session"]
        await talk.next()
    assert sum(line["event"] == "session.not_changed" for line in logs) == 4
    await talk.end()


async def test_after_such_a_failure_the_next_pause_is_waited_for(talk) -> None:
    session = await talk.up()
    talk.rig.refusals = [SessionUnavailable("no connection")]
    talk.rig.steps.on["open_session"] = lambda: spoken.append(talk.rig.call.uplink.speaking)
    spoken: list[bool] = []
    talk.rig.call.line._open_session = refusing_early(talk.rig)
    talking = asyncio.create_task(talk.say(SILENCE + tone(150) + SILENCE * 25))
    await session.say(GoAway(60.0))
    await talking
    assert spoken == [False], "he spoke"
    await session.say(speech(20), TurnComplete())
    await talk.next()
    assert spoken == [False, False]
    await talk.end()


async def test_a_change_that_runs_out_of_time_at_the_close_loses_nothing(talk) -> None:
    session = await talk.up()
    await session.say(speech(2000))
    close, hangs = session.close, [True]

    async def close_late() -> None:
        if hangs.pop() if hangs else False:
            await asyncio.sleep(60)
        await close()

    session.close = close_late
    session.dead = True
    await talk.say(SILENCE * 2)
    await session.say(GoAway(0.0))
    second = await talk.next()
    assert session.closed == 1
    assert talk.rig.call.uplink.repeated >= 1
    await until(lambda: second.heard)
    await until(lambda: second.texts == [GO_ON])
    await talk.end()


async def test_a_connection_made_twice_parts_but_once(talk) -> None:
    """A token may be refused when the setup has been sent; another one follows."""
    session = await talk.up()
    open_session = talk.rig.open_session

    async def twice(settings, *, before_setup, **more):
        await before_setup()
        return await open_session(settings, before_setup=before_setup, **more)

    talk.rig.call.line._open_session = twice
    await session.say(speech(2000))
    await session.say(GoAway(0.0))
    second = await talk.next()
    assert session.closed == 1
    await until(lambda: second.texts == [GO_ON])
    await talk.end()


async def test_a_service_that_sends_everybody_away_is_not_called_on_without_pause(talk) -> None:
    session = await talk.up()
    for number in range(2, 6):
        began = talk.now()
        await session.say(GoAway(0.0))
        session = await talk.next(number)
        assert round(talk.now() - began, 2) >= (3.0 if number > 2 else 0.0)
    await talk.end()


async def test_a_change_refused_after_the_close_goes_down_the_ladder(talk) -> None:
    session = await talk.up()
    times: list[float] = []
    talk.rig.steps.on["open_session"] = lambda: times.append(round(talk.now(), 1))
    await session.say(GoAway(50.0))
    talk.rig.refusals = [SessionDropped("1011")] * 2
    await talk.next()
    assert [at - times[0] for at in times] == pytest.approx([0.0, 1.0, 3.0], abs=0.11)
    assert session.closed == 1
    await talk.end()


async def test_a_session_that_drops_before_its_change_is_resumed_as_ever(talk) -> None:
    session = await talk.up()
    await session.say(speech(400))
    await session.say(GoAway(50.0))
    session.fail(SessionDropped("early"))
    await talk.next()
    assert talk.rig.call.line.planned == 0
    assert talk.rig.call.line.resumed == 1
    await talk.end()


@pytest.mark.parametrize("step", ["attempt", "pause", "ladder"])
async def test_a_caller_who_leaves_meanwhile_leaves_nothing_behind(talk, step: str) -> None:
    session = await talk.up()
    if step == "ladder":
        talk.rig.refusals = [SessionDropped("1011")] * 3
        session.fail(SessionDropped("x"))
        await asyncio.sleep(2)
    else:
        if step == "pause":
            await session.say(speech(400))
        talk.rig.steps.hang = {"open_session"}
        await session.say(GoAway(50.0))
        await asyncio.sleep(2)
    await talk.end()


async def test_a_session_that_is_no_good_is_given_up(talk) -> None:
    session = await talk.up()
    await asyncio.sleep(0.1)
    talk.rig.call.line.give_up("it says nothing")
    second = await talk.next()
    await until(lambda: second.texts == [ANSWER])
    assert talk.rig.resumes == [None, HANDLE]
    assert session.closed == 1
    talk.rig.call.line.give_up("and again")
    talk.rig.call.line.give_up("and again")
    await talk.next(3)
    await talk.end()


# Tools.


class Slow(Tool):
    name = "slow"

    def __init__(self) -> None:
        self.declaration = FunctionDeclaration("slow", "Takes its time.")
        self.done = asyncio.Event()

    async def run(self, args, context):
        await self.done.wait()
        return "ready"


@pytest.mark.parametrize("resumed", [True, False])
async def test_a_tool_at_work_is_answered_on_the_next_session(talk, resumed: bool) -> None:
    tool = Slow()
    talk.rig.equip(tool)
    session = await talk.rig.up()
    session.resume = HANDLE if resumed else None
    await session.ask("slow", "call-7")
    session.fail(SessionDropped("x"))
    second = await talk.next()
    tool.done.set()
    await until(lambda: second.answers or second.texts)
    if resumed:
        (answer,) = second.answers
        assert (answer.id, answer.response) == ("call-7", {"result": "ready"})
        assert second.texts == []
    else:
        assert second.answers == []
        (told,) = second.texts
        assert told.startswith("[slow, called before")
        assert '"result": "ready"' in told
    await talk.end()


async def test_an_answer_that_did_not_arrive_is_sent_again(talk) -> None:
    tool = Slow()
    talk.rig.equip(tool)
    session = await talk.rig.up()
    session.resume = HANDLE
    await session.ask("slow", "call-7")
    session.dead = True
    tool.done.set()
    await talk.rig.steps.until("answer slow")
    session.fail(SessionDropped("x"))
    second = await talk.next()
    await until(lambda: second.answers)
    assert second.answers == session.answers
    await talk.end()
