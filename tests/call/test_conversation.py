"""What the model says: heard, thrown away or told to whoever wants to know."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence

import pytest
import structlog

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.resample import Resampler
from ari_gemini.call.conversation import Conversation
from ari_gemini.errors import Cause, MalformedMessage, SessionDropped
from ari_gemini.realtime import events
from ari_gemini.realtime.events import AudioDelta, GenerationComplete, Interrupted, Speaker, TurnComplete
from ari_gemini.telemetry.timeline import Timeline

TONE = struct.pack("<h", 9000) * 480  # 20 ms at 24 kHz
SPEECH = AudioDelta(TONE, 24000)


class Listener:
    """Somebody who wants to know, and a toolbox."""

    def __init__(self) -> None:
        self.transcripts: list[str] = []
        self.turns: list = []
        self.called: list[str] = []
        self.taken_back: list[str] = []

    def transcript(self, speaker: Speaker, text: str) -> None:
        self.transcripts.append(text)

    def turn(self, turn) -> None:
        self.turns.append(turn)

    def call(self, calls: Sequence[events.FunctionCall]) -> None:
        self.called += [call.name for call in calls]

    def take_back(self, ids: Sequence[str]) -> None:
        self.taken_back += ids


class Line:
    """A conversation on a line that stands."""

    def __init__(self, connection, session) -> None:
        self.connection, self.session = connection, session
        self.listener = Listener()
        self.conversation = Conversation(Timeline(), self.listener, structlog.get_logger(), prebuffer_ms=0)
        self.conversation.downlink.start(connection)
        self.listening = asyncio.create_task(self.conversation.listen(session))

    @property
    def audible(self) -> int:
        """Frames written that were not silent."""
        return sum(any(pcm) for pcm, _ in self.connection.written)

    @property
    def waiting_ms(self) -> float:
        """Speech that is still to be played."""
        return self.conversation.downlink.buffer.buffered_ms


@pytest.fixture
async def line(clock, connection, make_session):
    line = Line(connection, make_session())
    yield line
    line.listening.cancel()
    await asyncio.gather(line.listening, return_exceptions=True)
    line.conversation.downlink.stop()


async def test_what_the_model_says_is_queued_and_the_turn_is_told_when_it_is_heard(rig, until) -> None:
    session = await rig.up()
    await session.say(AudioDelta(TONE, 24000), GenerationComplete(), TurnComplete())
    await until(lambda: rig.observer.turns)
    (turn,) = rig.observer.turns
    assert turn.number == 1
    assert turn.interrupted is None
    assert turn.heard_ms >= 20
    assert turn.first_frame is not None
    expected = Resampler(AudioFormat(24000), AudioFormat(8000))
    speech = expected.process(TONE) + expected.flush()
    assert speech in rig.connection.speech
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


async def test_an_interruption_clears_reports_and_keeps_late_audio_silent(rig) -> None:
    session = await rig.up(prebuffer_ms=1000)
    await session.say(AudioDelta(TONE * 10, 24000))
    assert rig.call.downlink.buffer.buffered_ms > 0
    await session.say(Interrupted())
    assert rig.call.downlink.buffer.buffered_ms == 0
    await session.say(AudioDelta(TONE, 24000))
    assert rig.call.downlink.buffer.buffered_ms == 0
    (turn,) = rig.observer.turns
    assert turn.interrupted is not None
    assert turn.heard_ms == 0.0
    await session.say(TurnComplete(), AudioDelta(TONE, 24000))
    assert rig.call.downlink.buffer.buffered_ms > 0, "the next turn is heard"
    assert rig.call.timeline.count == 2
    rig.call.end(Cause.CALLER_HANGUP)
    with structlog.testing.capture_logs() as logs:
        await rig.done()
    assert logs[-1]["late_audio_ms"] == 20


async def test_a_turn_that_comes_while_the_last_one_plays_is_a_turn_of_its_own(rig, until) -> None:
    session = await rig.up(prebuffer_ms=1000)
    for _ in range(3):
        await session.say(AudioDelta(TONE, 24000), TurnComplete())
    await until(lambda: len(rig.observer.turns) >= 3)
    assert [turn.number for turn in rig.observer.turns] == [1, 2, 3]
    assert all(turn.first_frame is not None and turn.heard_ms >= 20 for turn in rig.observer.turns)
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


async def test_an_interruption_of_nobody_is_no_turn(rig) -> None:
    session = await rig.up()
    await session.say(Interrupted(), TurnComplete())
    assert rig.observer.turns == []
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


async def test_transcripts_are_passed_on_but_not_the_interim_ones(rig) -> None:
    session = await rig.up()
    await session.say(
        events.Transcript(Speaker.CALLER, "Hel", replaces=True),
        events.Transcript(Speaker.CALLER, "Hello"),
        events.Transcript(Speaker.MODEL, "Good day"),
    )
    assert rig.observer.transcripts == [("caller", "Hello"), ("model", "Good day")]
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


async def test_events_that_need_nothing_done_do_nothing(rig) -> None:
    session = await rig.up()
    await session.say(
        events.GoAway(10.0),
        events.SpeechStarted(),
        events.SpeechStopped(),
        events.Usage(),
        events.WaitingForInput(),
        events.HandleUpdate("h", True),
    )
    await session.say()
    assert not rig.task.done()
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


# The moments that others wait for.


@pytest.mark.parametrize(
    ("event", "times"),
    [
        (events.SpeechStarted(), 1),
        (Interrupted(), 1),
        (events.SpeechStopped(), 0),
        (events.Transcript(Speaker.CALLER, "x"), 0),
        (SPEECH, 0),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_when_the_caller_makes_himself_heard(line: Line, event, times: int) -> None:
    await line.session.say(event)
    assert line.conversation.caller_active.count == times


async def test_the_filler_goes_when_the_caller_makes_himself_heard(line: Line, clock) -> None:
    line.conversation.downlink.fill(0.2, b"", struct.pack("<h", 500) * 160)
    await asyncio.sleep(0.5)
    assert line.audible > 10
    line.conversation.caller_began()
    heard = line.audible
    await asyncio.sleep(0.19)
    assert line.audible == heard, "as long a silence as before"
    await asyncio.sleep(0.1)
    assert line.audible > heard


async def test_audio_that_is_thrown_away_is_no_sign_of_life(line: Line) -> None:
    await line.session.say(SPEECH, Interrupted(), SPEECH)
    assert line.conversation.model_audio.count == 1
    await line.session.say(TurnComplete(), SPEECH)
    assert line.conversation.model_audio.count == 2
    assert line.conversation.discarded_ms == 20


async def test_audio_beyond_the_bound_is_no_sign_of_life(line: Line) -> None:
    await line.session.say(AudioDelta(bytes(48000) * 119, 24000), AudioDelta(bytes(48000) * 2, 24000))
    assert line.conversation.model_audio.count == 1
    assert line.conversation.downlink.buffer.counters.refused_bytes > 0


async def test_a_turn_is_played_when_its_last_frame_is_written_and_not_when_it_is_cut(
    line: Line, until
) -> None:
    await line.session.say(AudioDelta(TONE * 3, 24000))
    assert line.conversation.speaking
    await line.session.say(GenerationComplete())
    assert not line.conversation.speaking
    assert line.conversation.turn_played.count == 0
    await until(lambda: line.conversation.turn_played.count)
    await line.session.say(TurnComplete(), SPEECH, Interrupted(), TurnComplete())
    assert line.conversation.turn_played.count == 1
    assert [turn.interrupted is None for turn in line.listener.turns] == [True, False]


# Silencing it.


async def test_cut_off_the_rest_of_the_turn_is_thrown_away_and_the_next_one_heard_whole(
    line: Line, until
) -> None:
    await line.session.say(AudioDelta(TONE * 50, 24000))
    await until(lambda: line.audible == 5)
    line.conversation.cut_off()
    assert line.waiting_ms == 0
    await line.session.say(AudioDelta(TONE * 150, 24000))
    assert line.waiting_ms == 0
    await line.session.say(GenerationComplete(), TurnComplete())
    (turn,) = line.listener.turns
    assert turn.interrupted is not None
    assert turn.heard_ms == 100
    assert line.audible == 5
    written = len(line.connection.written)
    await line.session.say(SPEECH, GenerationComplete(), TurnComplete())
    await until(lambda: line.conversation.turn_played.count)
    resampler = Resampler(AudioFormat(24000), AudioFormat(8000))
    said = resampler.process(TONE) + resampler.flush()
    assert said in b"".join(pcm for pcm, _ in line.connection.written[written:])


async def test_cut_off_between_turns_nothing_is_thrown_away(line: Line) -> None:
    line.conversation.cut_off()
    await line.session.say(SPEECH, TurnComplete())
    assert line.waiting_ms > 0
    line.conversation.cut_off()
    assert line.waiting_ms == 0, "it was played out only"
    await line.session.say(SPEECH)
    assert line.waiting_ms > 0, "the next turn is not what was cut off"


async def test_dropping_what_was_not_heard_leaves_the_turn_open(line: Line) -> None:
    await line.session.say(AudioDelta(TONE * 50, 24000))
    line.conversation.drop_unplayed()
    assert line.waiting_ms == 0
    await line.session.say(SPEECH)
    assert line.waiting_ms > 0


async def test_dropping_all_that_was_left_is_no_turn_played_when_its_end_is_told(line: Line) -> None:
    await line.session.say(AudioDelta(TONE * 50, 24000))
    await asyncio.sleep(0.1)
    line.conversation.drop_unplayed()
    await line.session.say(GenerationComplete(), TurnComplete())
    await asyncio.sleep(0.5)
    assert line.conversation.turn_played.count == 0
    assert len(line.listener.turns) == 1


# Tools.


async def test_calls_of_tools_and_their_being_taken_back_go_to_the_toolbox(line: Line) -> None:
    asked = events.ToolCall((events.FunctionCall("1", "a"), events.FunctionCall("2", "b")))
    await line.session.say(asked, events.ToolCallCancelled(("1",)))
    assert not line.listening.done(), "there is no toolbox yet"
    line.conversation.toolbox = line.listener
    await line.session.say(asked, events.ToolCallCancelled(("2",)))
    assert line.listener.called == ["a", "b"]
    assert line.listener.taken_back == ["2"]


# How listening ends.


async def test_the_end_of_the_session_ends_it(line: Line) -> None:
    line.session.fail(SessionDropped("gone"))
    with pytest.raises(SessionDropped):
        await line.listening


async def test_audio_of_an_impossible_rate_ends_it(line: Line) -> None:
    line.session.inbox.put_nowait([AudioDelta(b"\0\0", 11025)])
    with pytest.raises(MalformedMessage, match="11025 Hz"):
        await line.listening


async def test_what_is_about_to_close_is_told(line: Line) -> None:
    told: list[float] = []
    line.conversation.on_go_away = told.append
    await line.session.say(events.GoAway(9.5))
    assert told == [9.5]
