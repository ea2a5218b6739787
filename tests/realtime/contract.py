"""What every provider's session must do: the promises of ``realtime.session.RealtimeSession``.

A provider's test subclasses ``SessionContract`` and gives ``open``: a session against a simulated provider
that answers a greeting with speech, and what it is told next with a call of ``LOOK_UP``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

import pytest

from ari_gemini.errors import SessionError
from ari_gemini.realtime.events import (
    AudioDelta,
    Event,
    GenerationComplete,
    ToolCall,
    Transcript,
    TurnComplete,
)
from ari_gemini.realtime.functions import FunctionDeclaration, FunctionResult
from ari_gemini.realtime.session import RealtimeSession

LOOK_UP = FunctionDeclaration(
    "look_up",
    "Looks an order up.",
    {"type": "object", "properties": {"order": {"type": "integer"}}, "required": ["order"]},
)
ARGS = {"order": 7}
"""What the model calls it with."""


async def events_until(session: RealtimeSession, kind: type[Event]) -> list[Event]:
    """Everything up to the first event of ``kind``."""
    events: list[Event] = []
    async with asyncio.timeout(20):
        while not any(isinstance(event, kind) for event in events):
            events += await session.receive()
    return events


async def _received(session: RealtimeSession) -> Sequence[Event]:
    return await session.receive()


async def _receive_for_ever(session: RealtimeSession, receiving: asyncio.Task[Sequence[Event]]) -> None:
    while True:
        await receiving
        receiving = asyncio.create_task(_received(session))


class SessionContract:
    """To be subclassed as ``Test...`` with ``open``."""

    def open(self) -> AbstractAsyncContextManager[RealtimeSession]:
        """A session, set up with LOOK_UP, whose model says something when greeted.

        Told anything then, it calls LOOK_UP twice in one message, and speaks once it has both answers.
        """
        raise NotImplementedError

    @pytest.fixture
    async def session(self) -> AsyncIterator[RealtimeSession]:
        async with self.open() as session:
            yield session
            await session.close()

    async def test_a_greeting_is_answered_with_sound_in_the_promised_format(
        self, session: RealtimeSession
    ) -> None:
        await session.greet("Greet the caller.")
        events = await events_until(session, TurnComplete)
        sound = [event for event in events if isinstance(event, AudioDelta)]
        assert {event.rate for event in sound} == {session.capabilities.output_format.rate}
        assert all(len(event.pcm) % 2 == 0 for event in sound)
        assert "".join(event.text for event in events if isinstance(event, Transcript))

    async def test_sound_comes_before_the_end_of_its_turn(self, session: RealtimeSession) -> None:
        await session.greet("Greet the caller.")
        events = await events_until(session, TurnComplete)
        kinds = [type(event) for event in events]
        last_sound = len(kinds) - 1 - kinds[::-1].index(AudioDelta)
        assert last_sound < kinds.index(GenerationComplete) < kinds.index(TurnComplete)

    async def test_audio_and_text_are_taken_at_any_time(self, session: RealtimeSession) -> None:
        frame = bytes(session.capabilities.input_format.frame_bytes)
        await session.send_audio(frame)
        await session.send_text("Hello.")
        await session.send_audio(frame)
        assert await events_until(session, TurnComplete)

    async def test_function_calls_are_answered_by_their_ids(self, session: RealtimeSession) -> None:
        await session.greet("Greet the caller.")
        await events_until(session, TurnComplete)
        await session.send_text("Where are my orders?")
        events = await events_until(session, ToolCall)
        calls = [call for event in events if isinstance(event, ToolCall) for call in event.calls]
        assert [(call.name, call.args) for call in calls] == [("look_up", ARGS)] * 2
        assert len({call.id for call in calls}) == 2
        first, second = (FunctionResult(call.id, call.name, {"result": "sent"}) for call in calls)
        await session.send_tool_results([second])
        await session.send_tool_results([first])
        assert await events_until(session, AudioDelta)

    async def test_several_answers_may_go_together_and_some_be_errors(self, session: RealtimeSession) -> None:
        await session.greet("Greet the caller.")
        await events_until(session, TurnComplete)
        await session.send_text("Where are my orders?")
        events = await events_until(session, ToolCall)
        calls = [call for event in events if isinstance(event, ToolCall) for call in event.calls]
        responses = {"result": [1, None, "ä\ud800"]}, {"error": "no such order"}
        await session.send_tool_results(
            [
                FunctionResult(call.id, call.name, response)
                for call, response in zip(calls, responses, strict=True)
            ]
        )
        assert await events_until(session, AudioDelta)

    async def test_cancelling_receive_loses_nothing(self, session: RealtimeSession) -> None:
        await session.greet("Greet the caller.")
        events: list[Event] = []
        async with asyncio.timeout(20):
            while not any(isinstance(event, TurnComplete) for event in events):
                receiving = asyncio.create_task(_received(session))
                await asyncio.sleep(0)
                if receiving.cancel():
                    await asyncio.wait([receiving])
                if not receiving.cancelled():
                    events += receiving.result()
                events += await session.receive()
        kinds = {type(event) for event in events}
        assert {AudioDelta, GenerationComplete, TurnComplete} <= kinds

    async def test_what_was_sent_is_counted_and_a_clean_close_confirms_it(
        self, session: RealtimeSession
    ) -> None:
        assert not session.resumed
        before = session.sent
        assert session.confirmed <= before
        await session.greet("Greet the caller.")
        assert session.sent == before + 1
        await session.close()
        assert session.confirmed == session.sent == before + 1

    async def test_closing_twice_is_closing_once(self, session: RealtimeSession) -> None:
        await session.close()
        await session.close()

    async def test_a_closed_session_says_so_to_whoever_uses_it(self, session: RealtimeSession) -> None:
        receiving = asyncio.create_task(_received(session))
        await session.close()
        with pytest.raises(SessionError):
            await _receive_for_ever(session, receiving)
        with pytest.raises(SessionError):
            await session.send_audio(bytes(session.capabilities.input_format.frame_bytes))
        with pytest.raises(SessionError):
            await session.send_text("Hello.")
        with pytest.raises(SessionError):
            await session.greet("Hello.")
        with pytest.raises(SessionError):
            await session.send_tool_results([FunctionResult("1", LOOK_UP.name, {"result": "sent"})])
