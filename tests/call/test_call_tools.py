"""Keys and tools in the whole of a call: what the model gets, when, and what the caller hears meanwhile."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ari_gemini.audio.comfort import comfort_tone
from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.resample import Resampler
from ari_gemini.audio.wav import write_wav
from ari_gemini.audiosocket.connection import EndReason, MediaEnd
from ari_gemini.call import call as call_module
from ari_gemini.call.keys import NOT_SHOWN, TEXT
from ari_gemini.call.model_watch import StallSettings
from ari_gemini.errors import AriTimeout, Cause, SessionDropped
from ari_gemini.realtime.events import (
    AudioDelta,
    FunctionCall,
    GenerationComplete,
    Interrupted,
    Speaker,
    ToolCall,
    ToolCallCancelled,
    Transcript,
    TurnComplete,
)
from ari_gemini.realtime.functions import FunctionDeclaration
from ari_gemini.tools.base import Tool
from ari_gemini.tools.destination import Destination
from ari_gemini.tools.hangup_call import HangupCall
from ari_gemini.tools.send_dtmf import SendDtmf
from ari_gemini.tools.toolbox import Outcome
from ari_gemini.tools.transfer_call import TransferCall

TONE = struct.pack("<h", 9000) * 480  # 20 ms at 24 kHz


async def test_keys_reach_the_model_and_no_log_when_they_are_a_secret(clock, rig) -> None:
    rig.equip(activity_detection={"interruptions": False}, digits={"sensitive": True})
    with structlog.testing.capture_logs() as logs:
        session = await rig.up()
        await session.say(AudioDelta(TONE * 50, 24000), TurnComplete())
        for key in "8642":
            rig.call.key_pressed(key)
            rig.call.digit(key)
        await asyncio.sleep(3)
        rig.call.digit("7")
        rig.call.end(Cause.CALLER_HANGUP)
        await rig.done()
    assert session.texts == [TEXT.format("8642")]
    assert [line["keys"] for line in logs if line["event"] == "call.keys"] == ["****"]
    assert "8642" not in str(logs)
    (turn,) = rig.observer.turns
    assert turn.interrupted is None, "it could not be interrupted"


async def test_a_key_silences_the_model_and_what_is_said_next_is_heard_from_its_first_frame(
    clock, rig, until
) -> None:
    rig.equip()
    session = await rig.up()
    await session.say(AudioDelta(TONE * 100, 24000))
    await until(lambda: sum(any(pcm) for pcm, _ in rig.connection.written) == 10)
    rig.call.digit("5")
    await session.say(AudioDelta(TONE * 100, 24000), GenerationComplete(), TurnComplete())
    written = len(rig.connection.written)
    await asyncio.sleep(1)
    assert not any(any(pcm) for pcm, _ in rig.connection.written[written:])
    await session.say(AudioDelta(TONE, 24000), GenerationComplete(), TurnComplete())
    await until(lambda: len(rig.observer.turns) == 2)
    expected = Resampler(AudioFormat(24000), AudioFormat(8000))
    assert expected.process(TONE) + expected.flush() in rig.connection.speech
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


async def test_a_key_while_the_call_is_being_released_is_nobodys(rig) -> None:
    await rig.up()
    rig.leg.release_hangs = asyncio.Event()
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.steps.until("release")
    rig.call.digit("1")
    rig.leg.release_hangs.set()
    await rig.done()


# Tools.


class Work(Tool):
    """Takes until it is told."""

    goes_to = "nowhere"

    def __init__(self, name: str = "work") -> None:
        self.declaration = FunctionDeclaration(name, "Works.")
        self.finish = asyncio.Event()
        self.asked_by: list[str] = []

    async def run(self, args, context) -> str:
        call = context.call
        self.asked_by.append(f"{call.id} {call.caller_number} {call.called_number}")
        await self.finish.wait()
        return "done"


async def test_the_model_gets_the_tools_of_its_agent(rig) -> None:
    place = Destination(context="sales", extension="100")
    mine, other = Work("mine"), Work("other")
    rig.equip(mine, transfer={"Sales": place})
    rig.tools.tools.append(other)
    session = await rig.up()
    assert rig.tools.asked == [(("mine",), {"Sales": place})]
    assert rig.settings[0].tools == (mine.declaration,)
    mine.finish.set()
    await session.ask("mine")
    await session.ask("other", "2")
    await rig.steps.until("answer mine")
    await rig.steps.until("answer other")
    assert {answer.name: answer.response for answer in session.answers} == {
        "mine": {"result": "done"},
        "other": {"error": "there is no tool 'other' for you; there are: mine"},
    }
    assert mine.asked_by == [f"{rig.call.id} 0301234 100"]
    assert ("mine", Outcome.DONE) in [(use.name, use.outcome) for use in rig.observer.uses]
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


ENDINGS = {
    Cause.CALLER_HANGUP: lambda rig: rig.call.end(Cause.CALLER_HANGUP),
    Cause.MODEL_LOST: lambda rig: rig.lose_model(),
    Cause.MEDIA_LOST: lambda rig: rig.connection.finish(MediaEnd(EndReason.EOF)),
    Cause.MEDIA_ERROR: lambda rig: rig.call.audio(b"\0\0", 44100),
    Cause.INTERNAL_ERROR: lambda rig: rig.sessions[0].fail(ZeroDivisionError()),
    Cause.SHUTDOWN: lambda rig: rig.task.cancel(),
}


@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("cause", ENDINGS)
async def test_a_call_that_ends_with_tools_at_work_leaves_nothing(rig, cause: Cause, hold: bool) -> None:
    rig.audio_during_tools = not hold
    rig.equip(Work("a"), Work("b"))
    session = await rig.up()
    await session.ask("a")
    await session.ask("b", "2")
    rig.call.digit("1")
    ENDINGS[cause](rig)
    assert (await rig.done()).cause is cause
    uses = sorted((use.name, use.outcome) for use in rig.observer.uses)
    assert uses == [("a", Outcome.CANCELLED), ("b", Outcome.CANCELLED)]
    assert session.answers == []


async def test_a_model_that_takes_no_input_meanwhile_gets_it_after_its_answers(rig) -> None:
    rig.audio_during_tools = False
    a, b = Work("a"), Work("b")
    rig.equip(a, b)
    session = await rig.up()
    await session.say(ToolCall((FunctionCall("1", "a"), FunctionCall("2", "b"))))
    frames = [struct.pack("<160h", *range(n, n + 160)) for n in range(5)]
    for frame in frames:
        rig.call.audio(frame, 8000)
    rig.call.digit("5")
    rig.call.digit("#")
    a.finish.set()
    await rig.steps.until("answer a")
    for _ in range(5):
        await asyncio.sleep(0)
    assert (session.heard, session.texts) == ([], [])
    session.taking.clear()
    b.finish.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert (session.heard, session.texts) == ([], []), "its answer is still on its way"
    session.taking.set()
    await rig.steps.until("text")
    assert rig.steps.index("answer b") < rig.steps.index("text")
    assert session.texts == [TEXT.format("5")]
    heard = await session.until_heard(5 * 640)
    assert heard == Resampler(AudioFormat(8000), AudioFormat(16000)).process(b"".join(frames))
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


async def test_a_model_that_takes_input_meanwhile_gets_it_at_once(rig) -> None:
    rig.equip(Work())
    session = await rig.up()
    await session.ask("work")
    rig.call.audio(TONE[:320], 8000)
    rig.call.digit("#")
    await session.until_heard(640)
    await rig.steps.until("text")
    assert session.answers == []
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


def audible(rig, since: int = 0) -> list[bool]:
    return [any(pcm) for pcm, _ in rig.connection.written[since:]]


async def test_a_long_silence_while_a_tool_works_is_filled_until_the_model_speaks(clock, rig, until) -> None:
    work = Work()
    rig.equip(work, filler_after=1.0)
    session = await rig.up()
    await session.ask("work")
    asked = len(rig.connection.written)
    await asyncio.sleep(4)
    heard = audible(rig, asked)
    assert not any(heard[:50])
    assert any(heard[50:55])
    loop = comfort_tone(AudioFormat(8000))
    assert loop + loop[:320] in b"".join(pcm for pcm, _ in rig.connection.written[asked + 49 :])
    work.finish.set()
    await rig.steps.until("answer work")
    await asyncio.sleep(1)
    said = len(rig.connection.written)
    await session.say(AudioDelta(TONE * 5, 24000), GenerationComplete(), TurnComplete())
    await until(lambda: rig.observer.turns)
    await asyncio.sleep(5)
    expected = Resampler(AudioFormat(24000), AudioFormat(8000))
    speech = expected.process(TONE * 5) + expected.flush()
    written = b"".join(pcm for pcm, _ in rig.connection.written[said:])
    assert written.startswith(speech), "not a frame later"
    assert not any(written[len(speech) :])
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


@pytest.mark.parametrize("comfort_after", [0.0, 2.5])
async def test_a_model_that_does_not_speak_of_its_result(clock, rig, comfort_after: float) -> None:
    """Without a sign of life it leaves silence; with one, the sound goes on without a break."""
    work = Work()
    rig.equip(work, filler_after=1.0, stall=StallSettings(comfort_after=comfort_after))
    session = await rig.up()
    await session.ask("work")
    await asyncio.sleep(2)
    work.finish.set()
    await asyncio.sleep(call_module.ANSWER_SECONDS - 2.0)
    lingering = len(rig.connection.written)
    await asyncio.sleep(2.1)
    assert any(audible(rig, lingering))
    over = len(rig.connection.written)
    await asyncio.sleep(5)
    assert any(audible(rig, over)) is (comfort_after > 0)
    if comfort_after:
        assert comfort_tone(AudioFormat(8000)) * 5 in rig.connection.speech
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


async def test_a_prompt_comes_first_and_once(clock, rig, tmp_path) -> None:
    prompt = struct.pack("<h", 700) * 800
    write_wav(tmp_path / "moment.wav", AudioFormat(8000), prompt)
    rig.equip(Work(), filler=str(tmp_path / "moment.wav"), filler_after=0.5)
    session = await rig.up()
    await session.ask("work")
    await asyncio.sleep(6)
    sound = rig.connection.speech
    assert sound.count(prompt) == 1
    assert sound.index(comfort_tone(AudioFormat(8000))) == sound.index(prompt) + len(prompt)
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


async def test_who_wants_silence_gets_it(clock, rig) -> None:
    rig.equip(Work(), filler="none")
    session = await rig.up()
    await session.ask("work")
    await asyncio.sleep(10)
    assert not any(audible(rig))
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


# Whatever happens in whatever order.

PLACES = {
    "Sales": Destination(context="sales", extension="100"),
    "Ada": Destination(context="in", extension="7", attended=True),
}
REQUESTS = {
    "hang up": ("hangup_call", {}),
    "digits": ("send_dtmf", {"digits": "12w"}),
    "transfer": ("transfer_call", {"destination": "Sales"}),
    "consult": ("transfer_call", {"destination": "Ada", "summary": "Eve calls."}),
    "unknown": ("fly", {}),
}
SAID = {
    "speech": [AudioDelta(TONE * 20, 24000)],
    "end": [GenerationComplete(), TurnComplete()],
    "interrupted": [Interrupted()],
    "taken back": [ToolCallCancelled(("0", "1", "2"))],
}
STEPS = ("send_digits", "place_exists", "ring", "introduce", "join party")


@given(
    story=st.lists(
        st.tuples(
            st.sampled_from([*REQUESTS, *SAID, "key", "voice", "party leaves"]),
            st.sampled_from([0.0, 0.001, 0.03, 0.4, 2.0]),
        ),
        max_size=8,
    ),
    troubles=st.tuples(*[st.sets(st.sampled_from(STEPS), max_size=1)] * 2),
    traits=st.tuples(st.booleans(), st.booleans()),
    how=st.sampled_from(["end", "cancel", "session"]),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_tools_do_the_call_ends_and_nothing_is_left(rig_type, clock_type, **drawn) -> None:
    story, how = drawn["story"], drawn["how"]
    hang, fail = drawn["troubles"]

    async def live() -> None:
        with clock_type.rule():
            rig = rig_type()
            rig.steps.hang, rig.steps.fail = hang, dict.fromkeys(fail, AriTimeout("x"))
            rig.audio_during_tools, rig.leg.signals_digits = drawn["traits"]
            rig.equip(HangupCall(), SendDtmf(), TransferCall(PLACES), transfer=PLACES)
            await rig.up()
            for number, (what, pause) in enumerate(story):
                happens(rig, what, str(number))
                await asyncio.sleep(pause)
            if how == "end":
                rig.call.end(Cause.CALLER_HANGUP)
            elif how == "cancel":
                rig.task.cancel()
            else:
                rig.lose_model()
            usual = {"end": Cause.CALLER_HANGUP, "cancel": Cause.SHUTDOWN, "session": Cause.MODEL_LOST}[how]
            assert (await rig.done()).cause in (usual, Cause.MODEL_HANGUP, Cause.TRANSFERRED)

    with structlog.testing.capture_logs() as logs:
        asyncio.run(live())
    assert [line for line in logs if line["log_level"] in ("error", "critical")] == []


def happens(rig, what: str, number: str) -> None:
    """One thing of a story."""
    if what in REQUESTS:
        name, args = REQUESTS[what]
        rig.sessions[0].inbox.put_nowait([ToolCall((FunctionCall(number, name, args),))])
    elif what in SAID:
        rig.sessions[0].inbox.put_nowait(SAID[what])
    elif what == "key":
        rig.call.digit("5")
    elif what == "voice":
        for _ in range(5):
            rig.call.audio(TONE[:320], 8000)
    elif rig.leg.parties:
        rig.leg.parties[-1].gone.set()


# Transfers that meet something else.

OVER = (GenerationComplete(), TurnComplete())
ADA = Destination(context="in", extension="7", attended=True)
SALES = Destination(context="sales", extension="100")


def say(seconds: float, level: int = 9000) -> AudioDelta:
    return AudioDelta(struct.pack("<h", level) * int(seconds * 24000), 24000)


async def test_the_rest_of_a_sentence_for_the_caller_is_not_for_the_party(clock, rig, until) -> None:
    rig.equip(TransferCall({"Ada": ADA}), transfer={"Ada": ADA}, filler="none")
    session = await rig.up()
    await session.say(say(5.0))
    await session.ask("transfer_call", destination="Ada", summary="Eve calls.")
    await until(lambda: session.answers)
    assert session.answers[0].scheduling == "interrupt"
    at = len(rig.connection.written)
    await session.say(say(1.0), *OVER)
    await asyncio.sleep(2)
    assert "join party" not in rig.steps, "its end is no introduction"
    assert not any(audible(rig, at))
    await session.say(say(0.5), *OVER)
    assert (await rig.done()).cause is Cause.TRANSFERRED
    assert sum(audible(rig, at)) in (25, 26)


async def test_a_model_that_waits_for_its_tools_goes_on_in_the_same_turn(clock, rig, until) -> None:
    rig.audio_during_tools = False
    rig.equip(TransferCall({"Ada": ADA}), transfer={"Ada": ADA}, filler="none")
    session = await rig.up()
    await session.say(say(0.5))
    await session.ask("transfer_call", destination="Ada", summary="Eve calls.")
    await until(lambda: session.answers)
    at = len(rig.connection.written)
    await session.say(say(0.5), *OVER)
    assert (await rig.done()).cause is Cause.TRANSFERRED
    assert sum(audible(rig, at)) in (25, 26)


@pytest.mark.parametrize("first", ["hangup_call", "transfer_call"])
async def test_a_hangup_asked_for_with_a_transfer_does_not_come_before_it(clock, rig, first: str) -> None:
    rig.equip(HangupCall(), TransferCall({"Sales": SALES}), transfer={"Sales": SALES}, filler="none")
    session = await rig.up()
    calls = [
        FunctionCall("1", "hangup_call"),
        FunctionCall("2", "transfer_call", {"destination": "Sales"}),
    ]
    calls.sort(key=lambda call: call.name != first)
    await session.say(say(0.5), *OVER, ToolCall(tuple(calls)))
    assert (await rig.done()).cause is Cause.TRANSFERRED


async def test_a_key_pressed_while_a_tool_works_does_not_cost_the_answer(clock, rig, until) -> None:
    rig.audio_during_tools = False
    work = Work()
    rig.equip(work, filler="none")
    session = await rig.up()
    await session.say(say(0.2))
    await session.ask("work")
    rig.call.digit("1")
    work.finish.set()
    await until(lambda: session.answers)
    at = len(rig.connection.written)
    await session.say(say(0.5), *OVER)
    await asyncio.sleep(1)
    assert sum(audible(rig, at)) in (25, 26)
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


# What a session is told that begins from nothing.


class Booking(Tool):
    """Books a table, as often as it is asked to."""

    name = "book_table"
    declaration = FunctionDeclaration(
        "book_table",
        "Books a table.",
        {"type": "object", "properties": {"people": {"type": "integer"}, "pin": {"type": "string"}}},
    )

    async def run(self, args, context) -> str:
        return f"booked, number 4711, pin {args.get('pin')}"


def told(rig) -> list[str]:
    """The newest session, as it begins."""
    return [turn.text for turn in rig.histories[-1]]


async def anew(rig, until, session) -> Any:
    """Lose the session; the next one knows nothing."""
    before = len(rig.sessions)
    session.resume = None
    session.fail(SessionDropped("x"))
    await until(lambda: len(rig.sessions) > before)
    return rig.sessions[-1]


async def test_a_new_session_is_told_what_tools_did_and_what_he_typed(clock, rig, until) -> None:
    rig.equip(Booking())
    session = await rig.up()
    await session.say(Transcript(Speaker.CALLER, "A table for two."))
    await session.ask("book_table", people=2)
    await until(lambda: session.answers)
    rig.call.key_pressed("8")
    rig.call.key_pressed("#")
    await until(lambda: session.texts)
    another = await anew(rig, until, session)
    called, typed = 'Tool book_table was called with {"people": 2}', TEXT.format("8")
    result = '{"result": "booked, number 4711, pin None"}'
    assert told(rig) == ["A table for two.", f"[{called} and gave {result}]", f"[{typed}]"]
    assert not [text for text in another.texts if "book_table" in text or typed in text]
    assert another.answers == []
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


async def test_what_did_not_arrive_is_told_to_a_new_session_once(clock, rig, until) -> None:
    rig.equip(Booking())
    session = await rig.up()
    session.dead = True
    await session.ask("book_table")
    await until(lambda: session.answers)
    rig.call.key_pressed("8")
    rig.call.key_pressed("#")
    await until(lambda: session.texts)
    another = await anew(rig, until, session)
    await until(lambda: "4711" in str(another.texts))
    assert told(rig) == ["[Tool book_table was called with {}; its result is not there yet and will be told]"]
    assert another.texts.count(TEXT.format("8")) == 1
    assert ["4711" in text for text in another.texts if "book_table" in text] == [True]
    third = await anew(rig, until, another)
    assert [("4711" in text, "these keys" in text) for text in told(rig)] == [
        (False, False),
        (False, True),
        (True, False),
    ], "the third knows from the transcript what the second was told"
    assert not [text for text in third.texts if "4711" in text or "these keys" in text]
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


async def test_secret_keys_are_in_nothing_that_is_kept(clock, rig, until) -> None:
    rig.equip(Booking(), digits={"sensitive": True})
    session = await rig.up()
    for key in "8642#":
        rig.call.key_pressed(key)
    await until(lambda: session.texts)
    await session.ask("book_table", pin="8642")
    await until(lambda: session.answers)
    await anew(rig, until, session)
    called = "[Tool book_table was called with values for pin that are not shown"
    assert told(rig) == [NOT_SHOWN, f'{called} and gave {{"result": "booked, number 4711, pin ***"}}]']
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()
