"""Sessions that are lost one after another, and what the caller does while what is left of one is played."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest
from support.talk import HANDLE, SILENCE, Talk, speech, tone, until

from ari_gemini.call.agent import Agent
from ari_gemini.call.line import ANSWER, FRESH_IN_A_ROW, GO_ON, MAX_IN_A_ROW, ReconnectSettings
from ari_gemini.errors import SessionDropped, SessionUnavailable
from ari_gemini.realtime.events import (
    GenerationComplete,
    GoAway,
    Interrupted,
    Speaker,
    Transcript,
    TurnComplete,
)
from ari_gemini.realtime.session import ActivityDetection, Resume

COUGH = tone(5, 150)
"""100 ms at -50 dBFS."""


@pytest.fixture
async def talk(rig, clock) -> Talk:
    return Talk(rig)


@asynccontextmanager
async def quiet_room(talk: Talk, frames: int = 1500):
    feeding = asyncio.create_task(talk.say(SILENCE * frames))
    try:
        yield
    finally:
        feeding.cancel()


def heard_for(talk: Talk, written: int) -> float:
    """Seconds until the last sound of the model among what was written after so many frames."""
    loud = [
        number
        for number, (pcm, _) in enumerate(talk.rig.connection.written[written:], 1)
        if np.abs(np.frombuffer(pcm, "<i2").astype(int)).max() > 3000
    ]
    return loud[-1] * 0.02 if loud else 0.0


# In a row.


async def test_sessions_that_are_lost_before_a_word_are_not_tried_for_ever(talk) -> None:
    """From the third loss on it is a new one each time, after longer and longer pauses."""
    session = await talk.up()
    began, number = talk.now(), 0
    while not talk.rig.leg.released:
        number += 1
        session.resume = HANDLE
        session.fail(SessionDropped(f"loss {number}"))
        async with asyncio.timeout(60):
            while len(talk.rig.sessions) == number and not talk.rig.leg.released:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)
        session = talk.rig.sessions[-1]
    patience = ReconnectSettings().give_up_after
    assert patience <= talk.now() - began < patience + 10.0
    assert (await talk.rig.done()).detail == f"loss {number}"
    assert number > MAX_IN_A_ROW
    resumed = FRESH_IN_A_ROW - 1
    assert talk.rig.resumes == [None] + [HANDLE] * resumed + [None] * (number - 1 - resumed)


async def test_a_session_whose_resumptions_all_die_is_begun_anew(talk) -> None:
    session = await talk.up()
    await session.say(Transcript(Speaker.MODEL, "Hello."), speech(20), TurnComplete())
    for number in range(2, FRESH_IN_A_ROW + 2):
        session.fail(SessionUnavailable("1011 Internal error encountered."))
        session = await talk.next(number)
        session.resume = HANDLE
        await asyncio.sleep(0.5)
    assert talk.rig.resumes == [None, HANDLE, HANDLE, None]
    assert "Hello." in str(talk.rig.histories[-1])
    await session.say(speech(20), TurnComplete())
    await talk.end()


async def test_a_handle_that_comes_while_the_next_connection_is_made_is_the_one(talk) -> None:
    """It knows of the turn that has just ended (some families were measured to send one after each turn)."""
    session = await talk.up(handle=Resume("before the last turn"))
    await session.say(speech(20), TurnComplete())
    real = talk.rig.steps.take

    async def dials(step: str) -> None:
        await real(step)
        if step == "open_session":
            session.resume = Resume("with the last turn")

    talk.rig.steps.take = dials
    await session.say(GoAway(50.0))
    await talk.next()
    assert talk.rig.resumes == [None, Resume("with the last turn")]
    await talk.end()


# The caller speaks over what is left.


async def left_over(talk: Talk, **agent: object):
    """12 s of an answer have come, and 1 s of it was heard, when the session drops; it is resumed at once."""
    session = await talk.up(agent=Agent(greeting="", **agent))
    await talk.say(SILENCE * 50)
    await session.say(speech(12_000), GenerationComplete())
    await talk.say(SILENCE * 50)
    session.fail(SessionDropped("x"))
    return await talk.next()


async def test_he_interrupts_what_is_left_of_a_lost_session(talk) -> None:
    """No word that it was interrupted comes of it: on the new connection nothing is being said."""
    await left_over(talk)
    written = len(talk.rig.connection.written)
    await talk.say(tone(75) + SILENCE * 100)
    assert heard_for(talk, written) < 1.0
    await talk.end()


@pytest.mark.parametrize(
    ("says", "agent"),
    [
        (tone(12), {}),
        (tone(75), {"activity_detection": ActivityDetection(interruptions=False)}),
    ],
    ids=["in passing", "an agent that is not to be interrupted"],
)
async def test_he_does_not_interrupt_it(talk, says: bytes, agent: dict) -> None:
    await left_over(talk, **agent)
    written = len(talk.rig.connection.written)
    await talk.say(says + SILENCE * 700)
    assert heard_for(talk, written) > 9.0
    await talk.end()


async def test_once_the_new_session_speaks_the_provider_decides(talk) -> None:
    session = await left_over(talk)
    await session.say(speech(1000))
    written = len(talk.rig.connection.written)
    await talk.say(tone(75))
    assert heard_for(talk, written) == 1.5
    await session.say(Interrupted())
    await talk.say(SILENCE * 50)
    assert heard_for(talk, written) < 1.6
    await talk.end()


# What he said is no question.


@pytest.mark.parametrize("handle", [None, HANDLE], ids=["a new session", "a resumed one"])
async def test_a_cough_does_not_keep_the_model_from_going_on(talk, handle) -> None:
    session = await talk.up(handle=handle)
    await talk.say(SILENCE * 50)
    await session.say(speech(3000))
    await talk.say(SILENCE * 10 + COUGH + SILENCE * 30)
    began = talk.now()
    session.fail(SessionDropped("x"))
    session = await talk.next()
    async with quiet_room(talk):
        await until(lambda: session.texts)
    assert session.texts == [GO_ON]
    assert talk.now() - began < 4.0
    await talk.end()


async def test_who_speaks_on_is_let_finish(talk) -> None:
    session = await talk.up(handle=None)
    await talk.say(SILENCE * 50)
    await session.say(speech(3000))
    await talk.say(SILENCE * 10 + COUGH + SILENCE * 30)
    session.fail(SessionDropped("x"))
    session = await talk.next()
    await talk.say(tone(300))
    assert session.texts == [], "he is speaking"
    await session.say(speech(20), TurnComplete())
    await talk.say(SILENCE * 300)
    assert session.texts == [], "and was answered"
    await talk.end()


async def test_a_model_that_was_given_up_is_asked_on_the_next_connection(talk) -> None:
    """Though what the caller said is sent to it again: it has kept silent about that before."""
    session = await talk.up()
    await talk.say(SILENCE * 50 + tone(60) + SILENCE * 30)
    talk.rig.call.line.give_up("stall")
    session = await talk.next()
    async with quiet_room(talk):
        await until(lambda: session.texts)
    assert session.texts == [ANSWER]
    await session.say(speech(20), TurnComplete())
    await talk.end()
