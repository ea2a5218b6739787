"""What is done when a watchdog barks, in a whole call. Time passes only where there is nothing left to do."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

from ari_gemini.audio.comfort import comfort_tone
from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.call.agent import Agent
from ari_gemini.call.model_watch import NUDGE, Fault
from ari_gemini.call.remedies import Remedies
from ari_gemini.errors import Cause
from ari_gemini.realtime.events import AudioDelta, GenerationComplete, SpeechStarted, TurnComplete
from ari_gemini.realtime.session import Resume

SPEECH = struct.pack("<h", 9000) * 24_000
"""1 s of the model's, 24 kHz."""


class Ends:
    """Who ends the call, and how."""

    def __init__(self) -> None:
        self.gave_up: list[tuple[Cause, str]] = []
        self.ended: list[tuple[Cause, str]] = []

    def remedies(self, call: Any) -> Remedies:
        return Remedies(
            call.conversation,
            call._texts,
            call.line,
            give_up=lambda cause, detail: self.gave_up.append((cause, detail)),
            end=lambda cause, detail: self.ended.append((cause, detail)),
        )


async def over(rig) -> None:
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


@pytest.mark.parametrize(("fault", "kept"), [(Fault.STALL, True), (Fault.SILENT_AUDIO, False)])
async def test_a_nudge_is_told_and_silence_makes_room_for_what_follows(rig, until, fault, kept) -> None:
    session = await rig.up()
    await session.say(AudioDelta(SPEECH, 24_000))
    assert rig.call.downlink.buffer.buffered_ms > 500
    Ends().remedies(rig.call).nudge("Go on.", fault)
    assert (rig.call.downlink.buffer.buffered_ms > 500) is kept
    assert rig.call.downlink.buffer.empty is not kept
    await until(lambda: "Go on." in session.texts)
    await over(rig)


async def test_to_reconnect_is_to_resume_the_session(rig, until) -> None:
    session = await rig.up()
    session.resume = resume = Resume("newest")
    Ends().remedies(rig.call).reconnect("no answer")
    await until(lambda: len(rig.sessions) == 2)
    assert session.closed
    assert rig.resumes == [None, resume]
    await over(rig)


async def test_a_waiting_caller_hears_a_soft_tone_until_the_model_speaks(clock, rig) -> None:
    session = await rig.up()
    remedies, written = Ends().remedies(rig.call), rig.connection.written
    remedies.comfort(True)
    begin = len(written)
    await asyncio.sleep(4.0)
    sound = b"".join(pcm for pcm, _ in written[begin:])
    period = comfort_tone(AudioFormat(8000))
    assert sound.startswith(period)
    await session.say(AudioDelta(SPEECH, 24_000), GenerationComplete(), TurnComplete())
    await asyncio.sleep(3.0)
    remedies.comfort(True)
    await asyncio.sleep(1.0)
    assert any(written[-1][0])
    remedies.comfort(False)
    begin = len(written)
    await asyncio.sleep(1.0)
    assert not any(any(pcm) for pcm, _ in written[begin + 1 :])
    await over(rig)


async def test_who_keys_digits_into_an_answer_hears_no_tone(clock, rig) -> None:
    session = await rig.up()
    await session.say(AudioDelta(SPEECH * 5, 24_000))
    await asyncio.sleep(1.0)
    rig.call.key_pressed("1")
    begin = len(rig.connection.written)
    await session.say(AudioDelta(SPEECH * 5, 24_000))
    await asyncio.sleep(4.0)
    assert not any(any(pcm) for pcm, _ in rig.connection.written[begin + 1 :])
    await over(rig)


async def test_silence_for_an_answer_and_his_own_words_only_interrupt_the_tone(clock, rig) -> None:
    rig.agents = {"default": Agent(greeting="Greet.")}
    session, written = await rig.up(), rig.connection.written

    def sounds(begin: int, end: int | None = None) -> bool:
        return any(any(pcm) for pcm, _ in written[begin:end])

    await asyncio.sleep(3.0)
    assert sounds(0)
    said = len(written)
    await session.say(SpeechStarted())
    await asyncio.sleep(1.5)
    assert not sounds(said + 1)
    await session.say(AudioDelta(bytes(9600), 24_000))
    silent = len(written)
    await asyncio.sleep(3.5)
    assert not sounds(silent, silent + 100)
    assert sounds(silent + 100)
    await over(rig)


async def test_the_rest_is_passed_on(rig, until) -> None:
    session, ends = await rig.up(), Ends()
    remedies = ends.remedies(rig.call)
    remedies.tell("soon")
    remedies.give_up(Cause.MODEL_STALLED, "why")
    remedies.end(Cause.NO_INPUT, "nobody")
    await until(lambda: "soon" in session.texts)
    assert ends.gave_up == [(Cause.MODEL_STALLED, "why")]
    assert ends.ended == [(Cause.NO_INPUT, "nobody")]
    await over(rig)


async def test_a_model_that_never_answers_is_asked_then_left_then_given_up(rig, clock) -> None:
    rig.agents = {"default": Agent(greeting="Greet.", apology="none")}
    began = clock.time()
    session = await rig.up()
    session.resume = resume = Resume("newest")
    assert (await rig.done()).cause is Cause.MODEL_STALLED
    assert session.texts[0] == NUDGE
    assert rig.resumes == [None, resume]
    assert clock.time() - began == pytest.approx(3 * 8, abs=1.0)


async def test_a_caller_who_never_speaks_is_asked_twice_and_told_goodbye(rig, clock) -> None:
    limits = {"no_input_prompts": ["there?", "still?"], "no_input_goodbye": "bye"}
    rig.agents = {"default": Agent(limits=limits, stall={"stall_after": 0}, apology="none")}
    began = clock.time()
    session = await rig.up()
    await rig.task
    assert (await rig.done()).cause is Cause.NO_INPUT
    assert session.texts == ["there?", "still?", "bye"]
    assert clock.time() - began == pytest.approx(3 * 15 + 20, abs=1.0)


async def test_the_apology_is_heard_before_a_stalled_call_ends(rig, clock) -> None:
    rig.agents = {"default": Agent(greeting="Greet.", stall={"max_nudges": 0, "max_reconnects": 0})}
    began = clock.time()
    await rig.up()
    assert (await rig.done()).cause is Cause.MODEL_STALLED
    loud = [pcm for pcm, _ in rig.connection.written if max(memoryview(pcm).cast("h")) > 1000]
    assert len(loud) > 50  # 1 s of speech in it, at 20 ms a frame
    assert clock.time() - began > 8 + 2
