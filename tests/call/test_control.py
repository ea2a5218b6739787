"""What a call does for its tools, seen from both ends: the real tools, the whole call, on time of its own."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

import numpy as np
import pytest
import structlog

from ari_gemini.audio.dtmf import tones
from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.resample import Resampler
from ari_gemini.call.control import CALLED_OFF, INTRODUCTION_SECONDS, PARTY_LEFT, TAIL_SECONDS
from ari_gemini.call.keys import TEXT
from ari_gemini.errors import (
    AriConflict,
    AriDenied,
    AriError,
    AriNotFound,
    AriTimeout,
    CallEnded,
    Cause,
    ToolError,
)
from ari_gemini.realtime.events import (
    AudioDelta,
    FunctionCall,
    GenerationComplete,
    Interrupted,
    SpeechStarted,
    ToolCall,
    ToolCallCancelled,
    TurnComplete,
)
from ari_gemini.tools.destination import Destination
from ari_gemini.tools.hangup_call import HangupCall
from ari_gemini.tools.send_dtmf import SendDtmf
from ari_gemini.tools.toolbox import Outcome
from ari_gemini.tools.transfer_call import TransferCall

pytestmark = pytest.mark.usefixtures("clock")

OVER = (GenerationComplete(), TurnComplete())
HANG_UP = ToolCall((FunctionCall("1", "hangup_call"),))
SALES = Destination(context="sales", extension="100")
ADA = Destination(context="in", extension="7", attended=True)
VOICE = (8000 * np.sin(np.arange(160) * 0.3)).astype("<i2").tobytes()

GONE = "the caller is no longer there"
NOT_DONE = "the telephone system did not do it: tell the caller that it cannot be done"
REFUSALS = [(AriNotFound("x"), GONE), (AriConflict("x"), GONE), (AriTimeout("x"), NOT_DONE)]


def speech(seconds: float) -> AudioDelta:
    return AudioDelta(struct.pack("<h", 9000) * int(seconds * 24000), 24000)


def heard_of(*said: AudioDelta) -> bytes:
    """What Asterisk is written of one turn."""
    resampler = Resampler(AudioFormat(24000), AudioFormat(8000))
    return b"".join(resampler.process(delta.pcm) for delta in said) + resampler.flush()


class Line:
    """A call whose model may hang up, send digits and transfer."""

    def __init__(self, rig, session, until) -> None:
        self.rig, self.session, self.steps, self._until = rig, session, rig.steps, until

    @property
    def audible(self) -> int:
        """Frames written that were not silent."""
        return sum(any(pcm) for pcm, _ in self.rig.connection.written)

    @property
    def silent(self) -> int:
        """Silent frames written after the last one that was not."""
        written = self.rig.connection.written
        return next((n for n, (pcm, _) in enumerate(reversed(written)) if any(pcm)), len(written))

    @property
    def errors(self) -> list[str]:
        return [answer.response["error"] for answer in self.session.answers]

    async def done(self, cause: Cause) -> None:
        outcome = await self.rig.done()
        assert outcome.cause is cause

    async def hang_up(self) -> None:
        self.rig.call.end(Cause.CALLER_HANGUP)
        await self.done(Cause.CALLER_HANGUP)

    async def answered(self, count: int = 1) -> None:
        await self._until(lambda: len(self.session.answers) >= count)


@pytest.fixture
async def line(clock, rig, until) -> Line:
    places = {"Sales": SALES, "Ada": ADA}
    rig.equip(HangupCall(), SendDtmf(), TransferCall(places), transfer=places, filler="none")
    return Line(rig, await rig.up(), until)


# Hearing the farewell out.


async def test_the_call_ends_when_the_farewell_has_been_heard_and_a_pause_after_it(line: Line) -> None:
    bye = speech(1.5)
    await line.session.say(bye, *OVER, HANG_UP)
    await line.done(Cause.MODEL_HANGUP)
    assert heard_of(bye) in line.rig.connection.speech
    assert line.silent in (20, 21), "TAIL_SECONDS in frames"
    assert [(use.name, use.outcome) for use in line.rig.observer.uses] == [("hangup_call", Outcome.DONE)]


async def test_what_is_said_before_and_after_the_call_of_the_tool_is_heard(line: Line) -> None:
    first, second, third = speech(0.5), speech(0.7), speech(0.9)
    await line.session.say(first, HANG_UP)
    await line.session.say(second)
    await asyncio.sleep(0.3)
    await line.session.say(third, *OVER)
    await line.done(Cause.MODEL_HANGUP)
    assert heard_of(first, second, third) in line.rig.connection.speech
    assert line.silent in (20, 21)


@pytest.mark.parametrize("pause", [0.02, 0.2, 0.38])
async def test_more_speech_within_the_pause_prolongs_it(line: Line, until, pause: float) -> None:
    await line.session.say(speech(0.2), *OVER, HANG_UP)
    await until(lambda: line.audible and line.silent >= 1)
    await asyncio.sleep(pause - 0.02)
    more = speech(0.6)
    await line.session.say(more, *OVER)
    await line.done(Cause.MODEL_HANGUP)
    assert heard_of(more) in line.rig.connection.speech
    assert line.silent in (20, 21)


@pytest.mark.parametrize("rounds", range(5))
async def test_speech_that_comes_just_as_all_is_heard_is_not_missed(line: Line, rounds: int) -> None:
    """Between one waiting and the next there is no gap, not of one round of the loop."""
    late = speech(1.0)

    def comes_late(*_: object) -> None:
        del line.rig.observer.turn
        in_rounds(rounds, lambda: line.rig.call.conversation._on_audio(late))

    line.rig.observer.turn = comes_late
    await line.session.say(speech(0.2), *OVER, HANG_UP)
    await line.done(Cause.MODEL_HANGUP)
    assert heard_of(late)[:-320] in line.rig.connection.speech
    assert line.silent in (50, 51), "its end was not told"


def in_rounds(count: int, act: Callable[[], None]) -> None:
    """Do it after so many rounds of the loop."""
    if count:
        asyncio.get_running_loop().call_soon(in_rounds, count - 1, act)
    else:
        act()


@pytest.mark.parametrize("rounds", range(5))
async def test_a_caller_who_speaks_just_as_it_begins_is_not_missed(line: Line, rounds: int) -> None:
    farewell = asyncio.create_task(line.rig.call._control.farewell())
    await asyncio.sleep(0)
    in_rounds(rounds, line.rig.call.conversation.caller_began)
    with pytest.raises(ToolError):
        await farewell
    await line.hang_up()


async def test_a_turn_that_may_go_on_is_waited_for_longer(line: Line) -> None:
    """A model that blocks on its tools does not end its turn before it has the answer."""
    await line.session.say(speech(0.5), HANG_UP)
    await line.done(Cause.MODEL_HANGUP)
    assert line.silent in (50, 51), "OPEN_TAIL_SECONDS in frames"


async def test_a_model_that_says_nothing_hangs_up_after_the_pause(line: Line) -> None:
    before = len(line.rig.connection.written)
    await line.session.say(HANG_UP)
    await line.done(Cause.MODEL_HANGUP)
    assert line.audible == 0
    assert len(line.rig.connection.written) - before in (19, 20, 21)


def speaks(line: Line) -> None:
    for _ in range(20):
        line.rig.call.audio(VOICE, 8000)


HEARD = {
    "our detector": speaks,
    "the model's": lambda line: line.session.inbox.put_nowait((SpeechStarted(),)),
    "an interruption": lambda line: line.session.inbox.put_nowait((Interrupted(),)),
    "a key": lambda line: line.rig.call.digit("1"),
    "a key, as signalled": lambda line: line.rig.call.key_pressed("1"),
}


@pytest.mark.parametrize("when", [0.1, 1.2], ids=["during the farewell", "in the pause after it"])
@pytest.mark.parametrize("by", HEARD)
async def test_a_caller_who_makes_himself_heard_calls_it_off(line: Line, by: str, when: float) -> None:
    await line.session.say(speech(1.0), *OVER, HANG_UP)
    await asyncio.sleep(when)
    HEARD[by](line)
    await line.answered()
    assert line.errors == [CALLED_OFF]
    assert not line.rig.task.done()
    await asyncio.sleep(3)
    assert not line.rig.task.done()
    await line.session.say(TurnComplete(), speech(0.2), *OVER)
    await line.session.ask("hangup_call", "2")
    await line.done(Cause.MODEL_HANGUP)


async def test_who_spoke_before_the_farewell_has_not_called_it_off(line: Line) -> None:
    await line.session.say(SpeechStarted(), Interrupted(), TurnComplete())
    await line.session.say(speech(0.2), *OVER, HANG_UP)
    await line.done(Cause.MODEL_HANGUP)


async def test_a_farewell_without_end_is_ended(line: Line) -> None:
    await line.session.say(speech(40.0), *OVER)
    await asyncio.sleep(0.5)
    before = len(line.rig.connection.written)
    await line.session.say(HANG_UP)
    await asyncio.sleep(10)
    await line.done(Cause.MODEL_HANGUP)
    assert len(line.rig.connection.written) - before in (1499, 1500, 1501), "FAREWELL_LIMIT in frames"


async def test_a_farewell_that_is_taken_back_leaves_nothing(line: Line) -> None:
    tasks = asyncio.all_tasks()
    await line.session.say(speech(1.0), *OVER, HANG_UP)
    await asyncio.sleep(0.5)
    assert asyncio.all_tasks() > tasks
    await line.session.say(ToolCallCancelled(("1",)))
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == tasks
    await asyncio.sleep(5)
    assert line.session.answers == []
    await line.hang_up()


# Digits.


async def test_digits_go_by_signalling_where_that_can_be_done_and_speech_waits(line: Line) -> None:
    gate = line.steps.gate("send_digits")
    await line.session.ask("send_dtmf", digits="12a")
    await line.session.say(speech(0.2), *OVER)
    await asyncio.sleep(0.5)
    assert line.rig.leg.digits == ["12A"]
    assert line.audible == 0
    gate.set()
    await asyncio.sleep(0.5)
    assert heard_of(speech(0.2)) in line.rig.connection.speech
    assert line.session.answers[0].response == {"result": "Successfully sent DTMF digits: 12a"}
    assert tones("1", AudioFormat(8000))[:1600] not in line.rig.connection.speech
    await line.hang_up()


async def test_else_they_are_heard_as_tones_and_speech_waits(line: Line) -> None:
    line.rig.leg.signals_digits = False
    said = speech(0.2)
    await line.session.ask("send_dtmf", digits="1w2")
    await line.session.say(said, *OVER)
    await line.answered()
    sounded = tones("1w2", AudioFormat(8000))
    await asyncio.sleep(0.5)
    sound = line.rig.connection.speech
    assert sounded in sound
    assert heard_of(said) in sound[sound.index(sounded) + len(sounded) :]
    await line.hang_up()


@pytest.mark.parametrize("signalled", [True, False])
async def test_one_sequence_follows_the_other(line: Line, signalled: bool) -> None:
    line.rig.leg.signals_digits = signalled
    gate = line.steps.gate("send_digits")
    both = (
        FunctionCall("1", "send_dtmf", {"digits": "12"}),
        FunctionCall("2", "send_dtmf", {"digits": "34"}),
    )
    await line.session.say(ToolCall(both))
    await asyncio.sleep(0.1)
    assert line.rig.leg.digits == ["12"]
    gate.set()
    await line.answered(2)
    assert line.rig.leg.digits == ["12", "34"]
    assert [answer.id for answer in line.session.answers] == ["1", "2"]
    if not signalled:
        sound = line.rig.connection.speech
        assert sound.index(tones("34", AudioFormat(8000))) > sound.index(tones("12", AudioFormat(8000)))
    await line.hang_up()


@pytest.mark.parametrize("pause", [0.0, 0.3])
@pytest.mark.parametrize("signalled", [True, False])
async def test_digits_are_heard_out_before_the_call_is_ended(
    line: Line, clock, signalled: bool, pause: float
) -> None:
    line.rig.leg.signals_digits = signalled
    gate = line.steps.gate("send_digits")
    await line.session.say(HANG_UP)
    await asyncio.sleep(pause)
    await line.session.ask("send_dtmf", "2", digits="1234")
    await asyncio.sleep(2.1)
    assert not line.rig.task.done()
    gate.set()
    began = clock.time()
    await line.done(Cause.MODEL_HANGUP)
    if signalled:
        assert clock.time() - began == pytest.approx(TAIL_SECONDS, abs=0.01)
    else:
        assert tones("1234", AudioFormat(8000)) in line.rig.connection.speech
        assert line.silent in range(22, 25), "the last key's gap, and TAIL_SECONDS"


@pytest.mark.parametrize(("error", "words"), REFUSALS, ids=lambda value: type(value).__name__)
async def test_digits_that_asterisk_does_not_send(line: Line, error: AriError, words: str) -> None:
    line.steps.fail["send_digits"] = error
    await line.session.ask("send_dtmf", digits="1")
    await line.answered()
    assert line.errors == [words]
    await line.session.say(speech(0.1), *OVER)
    await asyncio.sleep(0.3)
    assert heard_of(speech(0.1)) in line.rig.connection.speech, "speech goes on"
    await line.hang_up()


@pytest.mark.parametrize("signalled", [True, False])
async def test_digits_that_are_taken_back(line: Line, signalled: bool) -> None:
    line.rig.leg.signals_digits = signalled
    if signalled:
        line.steps.hang.add("send_digits")
    await line.session.ask("send_dtmf", digits="1" * 30)
    await line.session.say(speech(0.1), *OVER)
    await asyncio.sleep(0.5)
    await line.session.say(ToolCallCancelled(("1",)))
    await asyncio.sleep(0.3)
    assert line.session.answers == []
    assert heard_of(speech(0.1)) in line.rig.connection.speech
    line.steps.hang.clear()
    await line.session.ask("send_dtmf", "2", digits="2")
    await line.answered()
    await line.hang_up()


# Sending the caller on.


async def test_a_transfer_comes_after_the_farewell(line: Line) -> None:
    said = speech(0.5)
    await line.session.say(said, *OVER)
    await line.session.ask("transfer_call", destination="Sales")
    await line.done(Cause.TRANSFERRED)
    assert heard_of(said) in line.rig.connection.speech
    assert line.rig.leg.next_place == SALES
    assert line.rig.leg.released[0].detail == "sales,100,1"
    assert line.steps.index("go_on_at") < line.steps.index("place_exists") < line.steps.index("release")


async def test_a_place_that_is_missing(line: Line) -> None:
    line.rig.leg.has_place = False
    await line.session.ask("transfer_call", destination="Sales")
    await line.answered()
    assert line.errors == ["that place does not exist in the dialplan: tell the caller it cannot be done"]
    await line.hang_up()


@pytest.mark.parametrize(("name", "step"), [("Sales", "go_on_at"), ("Ada", "consult")])
async def test_a_leg_that_cannot_transfer_says_so(line: Line, name: str, step: str) -> None:
    line.steps.fail[step] = ToolError("the dialplan keeps control of the channel")
    await line.session.ask("transfer_call", destination=name, summary="Eve calls.")
    await line.answered()
    assert line.errors == ["the dialplan keeps control of the channel"]
    assert line.steps[-1] == "answer transfer_call"
    await line.hang_up()


@pytest.mark.parametrize(("error", "words"), REFUSALS, ids=lambda value: type(value).__name__)
async def test_asterisk_does_not_say_whether_the_place_is_there(line: Line, error, words: str) -> None:
    line.steps.fail["place_exists"] = error
    await line.session.ask("transfer_call", destination="Sales")
    await line.answered()
    assert line.errors == [words]
    await line.hang_up()


@pytest.mark.parametrize("step", ["go_on_at", "place_exists"])
async def test_a_leg_that_finds_the_call_over_ends_it(line: Line, step: str) -> None:
    line.steps.fail[step] = CallEnded(Cause.CALLER_HANGUP, "left")
    await line.session.ask("transfer_call", destination="Sales")
    await line.done(Cause.CALLER_HANGUP)
    assert [use.outcome for use in line.rig.observer.uses] == [Outcome.ERROR], "no defect"


async def test_a_transfer_is_called_off_by_a_caller_who_speaks(line: Line) -> None:
    await line.session.say(speech(1.0), *OVER)
    await line.session.ask("transfer_call", destination="Sales")
    await asyncio.sleep(0.5)
    speaks(line)
    await line.answered()
    assert line.errors == [CALLED_OFF]
    await line.hang_up()


# Asking another party first.


class Attended(Line):
    """A model that has announced a transfer and asked for it."""

    @property
    def party(self):
        return self.rig.leg.parties[-1]

    async def ask(self, number: str = "1") -> None:
        await self.session.ask("transfer_call", number, destination="Ada", summary="Eve calls.")

    async def introduce(self) -> None:
        """Bring it to where the party hears the model."""
        await self.ask()
        await self.answered()

    @property
    def consulting(self) -> list[str]:
        """Its steps since the party was to be asked."""
        return self.steps[self.steps.index("consult") :]


@pytest.fixture
async def attended(line: Line, until) -> Attended:
    return Attended(line.rig, line.session, until)


INTRODUCED = ["consult", "ring", "introduce", "answer transfer_call"]


async def test_the_party_is_told_who_calls_and_then_they_are_joined(attended: Attended) -> None:
    line = attended
    sentence = speech(0.8)
    await line.session.say(speech(0.2), *OVER)
    await asyncio.sleep(0.5)
    await line.introduce()
    assert line.session.answers[0].response["result"].startswith("Ada has answered.")
    await asyncio.sleep(2)
    assert line.consulting == INTRODUCED, "what was said before is no introduction"
    await line.session.say(sentence, *OVER)
    await line.done(Cause.TRANSFERRED)
    assert heard_of(sentence) in line.rig.connection.speech
    assert line.silent in (20, 21)
    assert line.consulting[:6] == [*INTRODUCED, "join party", "release"]
    assert "abandon" not in line.steps
    assert line.rig.leg.released[0].detail == "Local/7@in/n, attended"
    assert line.session.texts == []


async def test_the_caller_hears_the_sentence_that_is_being_said_when_the_party_answers(
    attended: Attended,
) -> None:
    line, said = attended, speech(2.0)
    await line.session.say(said, *OVER)
    await line.ask()
    await line.steps.until("introduce")
    assert heard_of(said) in line.rig.connection.speech
    assert line.silent in (0, 1)
    await line.hang_up()


async def test_but_the_party_does_not_wait_for_a_speech(attended: Attended) -> None:
    line, said = attended, speech(20.0)
    await line.session.say(said, *OVER)
    await line.ask()
    await line.answered()
    assert line.audible in range(149, 153), "LAST_WORDS_SECONDS in frames"
    await asyncio.sleep(1)
    assert line.audible in range(149, 153), "the rest is not for the party"
    await line.session.say(speech(0.2), *OVER)
    await line.done(Cause.TRANSFERRED)


async def test_what_was_left_of_the_last_words_is_no_introduction(attended: Attended) -> None:
    line = attended
    await line.session.say(speech(20.0))
    await line.ask()
    await line.answered()
    await line.session.say(*OVER)
    await asyncio.sleep(3)
    assert line.consulting == INTRODUCED
    await line.session.say(speech(0.2), *OVER)
    await line.done(Cause.TRANSFERRED)


async def test_what_the_caller_hears_while_it_rings_is_not_for_the_party(rig, until) -> None:
    rig.equip(TransferCall({"Ada": ADA}), transfer={"Ada": ADA}, filler_after=1.0)
    line = Attended(rig, await rig.up(), until)
    gate = line.steps.gate("ring")
    await line.ask()
    await asyncio.sleep(1.5)
    assert line.audible > 0
    gate.set()
    await line.answered()
    audible = line.audible
    await asyncio.sleep(0.9)
    assert line.audible == audible
    await line.hang_up()


async def test_nobody_answers(attended: Attended) -> None:
    line = attended
    line.steps.fail["ring"] = ToolError("nobody answers")
    await line.ask()
    await line.answered()
    assert line.errors == ["nobody answers"]
    assert line.consulting == ["consult", "ring", "abandon", "answer transfer_call"]
    del line.steps.fail["ring"]
    await line.ask("2")
    await line.answered(2)
    assert line.session.answers[1].response["result"].startswith("Ada has answered.")
    await line.hang_up()


@pytest.mark.parametrize("step", ["consult", "ring", "introduce"])
@pytest.mark.parametrize(("error", "words"), REFUSALS, ids=lambda value: type(value).__name__)
async def test_asterisk_refuses_a_step(attended: Attended, step: str, error: AriError, words: str) -> None:
    line = attended
    line.steps.fail[step] = error
    await line.ask()
    await line.answered()
    assert line.errors == [words]
    assert line.consulting.count("abandon") == (step != "consult")
    await types(line, "5#")
    assert line.session.texts == [TEXT.format("5")]
    await line.hang_up()


async def types(line: Line, keys: str) -> None:
    for key in keys:
        line.rig.call.digit(key)
    await asyncio.sleep(0.01)


async def left_before(line: Attended) -> None:
    line.party.gone.set()


async def left_while(line: Attended) -> None:
    await line.session.say(speech(2.0))
    await asyncio.sleep(0.5)
    line.party.gone.set()


@pytest.mark.parametrize("leaves", [left_before, left_while])
async def test_a_party_that_leaves_gives_the_caller_back(attended: Attended, leaves) -> None:
    line = attended
    await line.introduce()
    await leaves(line)
    await line.steps.until("text")
    assert line.consulting == [*INTRODUCED, "abandon", "text"]
    assert line.session.texts == [PARTY_LEFT]
    assert PARTY_LEFT in line.rig.call._transcript.turns()[-1].text, "a later session must know it"
    audible = line.audible
    await asyncio.sleep(1)
    assert line.audible == audible, "the caller does not hear what the party was told"
    await line.session.say(*OVER, speech(0.2), *OVER)
    await asyncio.sleep(1)
    assert heard_of(speech(0.2)) in line.rig.connection.speech, "but what follows"
    await types(line, "5#")
    assert line.session.texts == [PARTY_LEFT, TEXT.format("5")]
    await line.ask("2")
    await line.answered(2)
    await line.session.say(speech(0.2), *OVER)
    await line.done(Cause.TRANSFERRED)


@pytest.mark.parametrize("error", [AriNotFound("x"), AriTimeout("x"), AriDenied("x"), ToolError("x")])
async def test_they_cannot_be_joined(attended: Attended, error: Exception) -> None:
    line = attended
    line.steps.fail["join party"] = error
    with structlog.testing.capture_logs() as logs:
        await line.introduce()
        await line.session.say(speech(0.2), *OVER)
        await line.steps.until("text")
    assert line.consulting == [*INTRODUCED, "join party", "abandon", "text"]
    assert [log["error"] for log in logs if log["event"] == "call.not_joined"] == ["x"]
    await types(line, "5#")
    assert line.session.texts == [PARTY_LEFT, TEXT.format("5")]
    await line.hang_up()


async def test_a_model_that_says_nothing_to_the_party(attended: Attended, clock) -> None:
    line = attended
    await line.introduce()
    began = clock.time()
    await line.done(Cause.TRANSFERRED)
    assert clock.time() - began == pytest.approx(INTRODUCTION_SECONDS, abs=0.01)


async def test_an_introduction_that_is_interrupted_is_said_again(attended: Attended) -> None:
    line, again = attended, speech(0.4)
    await line.introduce()
    await line.session.say(speech(2.0))
    await asyncio.sleep(0.5)
    speaks(line)
    await line.session.say(Interrupted(), TurnComplete())
    await asyncio.sleep(2)
    assert line.consulting == INTRODUCED, "nobody has been told yet who calls"
    await line.session.say(again, *OVER)
    await line.done(Cause.TRANSFERRED)
    assert heard_of(again) in line.rig.connection.speech


async def test_while_it_rings_keys_are_the_callers_and_then_the_partys(attended: Attended) -> None:
    line = attended
    gate = line.steps.gate("ring")
    await line.ask()
    await line.steps.until("ring")
    await types(line, "1#")
    assert line.session.texts == [TEXT.format("1")]
    gate.set()
    await line.answered()
    await line.session.say(speech(0.5))
    await types(line, "2#")
    line.rig.call.key_pressed("3")
    assert line.session.texts == [TEXT.format("1")]
    await line.session.say(*OVER)
    await line.done(Cause.TRANSFERRED)
    assert heard_of(speech(0.5)) in line.rig.connection.speech, "and silence nobody"


@pytest.mark.parametrize("step", ["ring", "introduced"])
async def test_meanwhile_there_is_no_other_way_out(attended: Attended, step: str) -> None:
    line = attended
    gate = line.steps.gate("ring")
    await line.ask()
    await line.steps.until("ring")
    if step == "introduced":
        gate.set()
        await line.answered()
    before = len(line.session.answers)
    await line.session.ask("hangup_call", "2")
    await line.session.ask("transfer_call", "3", destination="Sales")
    await line.session.ask("transfer_call", "4", destination="Ada", summary="Eve calls.")
    await line.answered(before + 3)
    assert [answer.response for answer in line.session.answers[before:]] == [
        {"error": "the caller is being transferred already: wait"}
    ] * 3
    await line.hang_up()


@pytest.mark.parametrize("step", ["ring", "introduce"])
async def test_a_transfer_that_is_taken_back_in_time(attended: Attended, step: str) -> None:
    line = attended
    line.steps.hang.add(step)
    await line.ask()
    await line.steps.until(step)
    await line.session.say(ToolCallCancelled(("1",)))
    await line.steps.until("abandon")
    assert line.session.answers == []
    await types(line, "5#")
    assert line.session.texts == [TEXT.format("5")]
    await line.session.ask("hangup_call", "2")
    await line.done(Cause.MODEL_HANGUP)


@pytest.mark.parametrize("how", [Cause.CALLER_HANGUP, Cause.MEDIA_LOST, Cause.MODEL_LOST, Cause.SHUTDOWN])
@pytest.mark.parametrize("step", ["ring", "last words", "introduce", "introduced", "join party", "abandon"])
async def test_the_call_ends_at_any_step(attended: Attended, step: str, how: Cause) -> None:
    line = attended
    if step == "last words":
        await line.session.say(speech(2.0), *OVER)
    line.steps.hang.add(step)
    await line.ask()
    if step == "last words":
        await asyncio.sleep(0.5)
    elif step in ("introduced", "join party", "abandon"):
        await line.answered()
        if step == "join party":
            await line.session.say(speech(0.2), *OVER)
        if step == "abandon":
            line.party.gone.set()
    if step in ("ring", "introduce", "join party", "abandon"):
        await line.steps.until(step)
    if how is Cause.SHUTDOWN:
        line.rig.task.cancel()
    elif how is Cause.MODEL_LOST:
        line.rig.lose_model()
    else:
        line.rig.call.end(how)
    await line.done(how)
    if step in ("ring", "last words", "introduce"):
        assert line.consulting.count("abandon") == 1
