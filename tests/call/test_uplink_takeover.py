"""Caller to model over several sessions: what one did not get, or has not answered, the next one hears."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.resample import Resampler
from ari_gemini.audio.vad import HANGOVER_MS
from ari_gemini.call.agent import Agent
from ari_gemini.call.uplink import BATCH_FRAMES, KEPT_MS, LEAD_FRAMES, MAX_MESSAGES, WARM_UP, Uplink
from ari_gemini.errors import SessionDropped
from ari_gemini.realtime.events import AudioDelta, GenerationComplete, GoAway, TurnComplete
from ari_gemini.realtime.session import Resume
from ari_gemini.telemetry.timeline import Timeline

FRAMES_KEPT = KEPT_MS // 20
ONSET_FRAMES = 3
"""Our detector is sure after 60 ms of voice."""


def soft(number: int, rate: int = 8000) -> bytes:
    """A frame like no other, too soft for speech."""
    samples = rate // 50
    return struct.pack(f"<{samples}h", *((number * 7 + n * n) % 33 - 16 for n in range(samples)))


def loud(number: int) -> bytes:
    return struct.pack("<160h", *((number * 977 + n * 4001) % 20000 - 10000 for n in range(160)))


def noise(count: int) -> list[bytes]:
    """A television in the caller's room, -39 dBFS with pauses of 100 ms: endless speech to our detector."""
    return [
        struct.pack("<160h", *((i * 977 + n * 4001) % 1280 - 640 for n in range(160)))
        if i % 15 < 10
        else soft(i)
        for i in range(count)
    ]


def resampled(frames: list[bytes], source: int = 8000, target: int = 16000) -> bytes:
    return Resampler(AudioFormat(source), AudioFormat(target)).process(b"".join(frames))


class Talk:
    """An uplink whose sessions follow one another; each frame is a message unless it has waited."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.uplink = Uplink(self.timeline, lambda: 0.0)
        self.task: asyncio.Task | None = None
        self.session = None

    async def begin(self, session):
        self.session = session
        self.task = asyncio.create_task(self.uplink.run(session))
        await asyncio.sleep(0)
        return session

    async def speak(self, *frames: bytes, rate: int = 8000) -> None:
        for pcm in frames:
            self.uplink.audio(pcm, rate)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def model_begins(self) -> None:
        """A turn of the model."""
        self.timeline.model_audio(0.0)
        self.uplink.answered()

    def model_ends(self) -> None:
        """The turn was heard to its end."""
        self.timeline.turn_received()
        self.timeline.turn_played(0.0, 1000.0)

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])

    async def change(self, session, confirmed: int | None = None):
        """The session is lost; the next one takes over and gets all there is for it."""
        await self.stop()
        self.uplink.recover(self.session.confirmed if confirmed is None else confirmed)
        await self.begin(session)
        for _ in range(3 * self.uplink.frames):  # more rounds than it has messages
            await asyncio.sleep(0)
        return session


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    talk = Talk()
    yield talk
    await talk.stop()


def heard(*sessions) -> bytes:
    return b"".join(pcm for session in sessions for pcm in session.heard)


@pytest.mark.parametrize("target", [8000, 16000, 24000])
@pytest.mark.parametrize("source", [8000, 12000, 16000, 48000])
async def test_the_next_session_goes_on_at_the_very_sample(
    talk: Talk, make_session, source: int, target: int
) -> None:
    frames = [soft(n, source) for n in range(60)]
    first = await talk.begin(make_session(input_rate=target))
    await talk.speak(*frames[:30], rate=source)
    second = await talk.change(make_session(input_rate=target))
    await talk.speak(*frames[30:50], rate=source)
    third = await talk.change(make_session(input_rate=target))
    await talk.speak(*frames[50:], rate=source)
    assert heard(first, second, third) == resampled(frames, source, target)
    assert (talk.uplink.repeated, talk.uplink.dropped) == (0, 0)


async def test_what_comes_in_between_two_sessions_is_the_first_that_the_next_one_hears(
    talk: Talk, make_session
) -> None:
    frames = [soft(n) for n in range(40)]
    first = await talk.begin(make_session())
    await talk.speak(*frames[:10])
    await talk.stop()
    await talk.speak(*frames[10:])
    second = await talk.change(make_session())
    assert heard(first, second) == resampled(frames)
    assert talk.uplink.repeated == 0


@pytest.mark.parametrize("lost", [1, 5, 30])
async def test_exactly_what_did_not_arrive_is_repeated(talk: Talk, make_session, lost: int) -> None:
    frames = [soft(n) for n in range(80)]
    first = await talk.begin(make_session())
    await talk.speak(*frames[: 60 - lost])
    first.dead = True
    await talk.speak(*frames[60 - lost : 60])
    assert heard(first) == resampled(frames[:60])
    second = await talk.change(make_session())
    await talk.speak(*frames[60:])
    assert heard(second) == resampled(frames)[(60 - lost) * 640 :]
    assert (talk.uplink.repeated, talk.uplink.dropped) == (lost, 0)


@pytest.mark.parametrize("confirmed", [0, 1, 2, 3])
async def test_a_message_of_many_frames_is_repeated_whole(talk: Talk, make_session, confirmed: int) -> None:
    frames = [soft(n) for n in range(2 * BATCH_FRAMES + 5)]
    for pcm in frames:
        talk.uplink.audio(pcm, 8000)
    first = make_session()
    first.dead = True
    await talk.begin(first)
    assert len(first.heard) == 3
    second = await talk.change(make_session(), confirmed)
    arrived = min(confirmed * BATCH_FRAMES, len(frames))
    assert heard(second) == resampled(frames)[arrived * 640 :]
    assert talk.uplink.repeated == len(frames) - arrived


async def test_what_is_lost_twice_is_sent_a_third_time(talk: Talk, make_session) -> None:
    frames = [soft(n) for n in range(20)]
    first = await talk.begin(make_session())
    first.dead = True
    await talk.speak(*frames)
    for _ in range(2):
        session = make_session()
        session.dead = True
        await talk.change(session)
        assert heard(session) == resampled(frames)
    last = await talk.change(make_session())
    assert heard(last) == resampled(frames)
    assert talk.uplink.repeated == 60
    talk.uplink.recover(last.confirmed)
    talk.uplink.recover(last.confirmed)
    assert talk.uplink.repeated == 60


# What the model has not answered.

QUESTION = [*(soft(n) for n in range(40)), *(loud(n) for n in range(20)), *(soft(n) for n in range(40))]
BEGAN = 40 + ONSET_FRAMES - LEAD_FRAMES


async def test_unanswered_words_are_repeated_from_where_they_began(talk: Talk, make_session) -> None:
    """However often sessions are lost before the answer comes."""
    await talk.begin(make_session())
    await talk.speak(*QUESTION)
    assert talk.uplink.unanswered
    assert BEGAN < 40
    for times in (1, 2):
        session = await talk.change(make_session())
        assert heard(session) == resampled(QUESTION)[BEGAN * 640 :]
        assert talk.uplink.repeated == times * (len(QUESTION) - BEGAN)
    talk.uplink.answered()
    assert not talk.uplink.unanswered
    assert (await talk.change(make_session())).heard == []


async def test_answered_words_are_not_repeated(talk: Talk, make_session) -> None:
    first = await talk.begin(make_session())
    await talk.speak(*QUESTION)
    talk.uplink.answered()
    second = await talk.change(make_session())
    await talk.speak(soft(1), soft(2))
    assert heard(first, second) == resampled([*QUESTION, soft(1), soft(2)])
    assert talk.uplink.repeated == 0


async def test_an_answer_while_he_speaks_on_leaves_all_of_it_unanswered(talk: Talk, make_session) -> None:
    await talk.begin(make_session())
    await talk.speak(*QUESTION[:50])
    assert talk.uplink.speaking
    talk.uplink.answered()
    await talk.speak(*QUESTION[50:])
    session = await talk.change(make_session())
    assert heard(session) == resampled(QUESTION)[BEGAN * 640 :]


async def test_of_two_questions_both_are_repeated(talk: Talk, make_session) -> None:
    await talk.begin(make_session())
    await talk.speak(*QUESTION, *QUESTION)
    session = await talk.change(make_session())
    assert heard(session) == resampled(QUESTION * 2)[BEGAN * 640 :]


async def test_what_did_not_arrive_before_the_words_is_repeated_too(talk: Talk, make_session) -> None:
    first = await talk.begin(make_session())
    first.dead = True
    await talk.speak(*QUESTION)
    assert heard(await talk.change(make_session())) == resampled(QUESTION)


async def test_words_of_long_ago_want_no_answer_any_more(talk: Talk, make_session) -> None:
    await talk.begin(make_session())
    await talk.speak(*QUESTION)
    await talk.speak(*(soft(n) for n in range(FRAMES_KEPT - len(QUESTION) + BEGAN)))
    assert talk.uplink.unanswered
    assert len(talk.uplink._kept) == FRAMES_KEPT
    await talk.speak(soft(0))
    assert not talk.uplink.unanswered
    assert (await talk.change(make_session())).heard == []


async def test_of_words_without_end_the_last_half_minute_is_repeated(talk: Talk, make_session) -> None:
    await talk.begin(make_session())
    frames = [loud(n) for n in range(FRAMES_KEPT + 100)]
    await talk.speak(*frames)
    assert talk.uplink.unanswered
    session = await talk.change(make_session())
    assert heard(session) == resampled(frames[-FRAMES_KEPT:])
    assert (talk.uplink.repeated, talk.uplink.dropped) == (FRAMES_KEPT, 0)


async def test_how_long_the_caller_has_been_silent(talk: Talk) -> None:
    await talk.speak(*QUESTION[:40])
    assert talk.uplink.quiet_ms == 40 * 20
    await talk.speak(*QUESTION[40:60])
    assert talk.uplink.quiet_ms == 0
    await talk.speak(*QUESTION[60:74])
    assert talk.uplink.quiet_ms == 0
    await talk.speak(*QUESTION[74:])
    assert talk.uplink.quiet_ms == HANGOVER_MS + 25 * 20 == 40 * 20


# A noisy line, on which our detector hears speech all the time.

NOISY = [*(soft(n) for n in range(40)), *noise(60), *(loud(n) for n in range(40)), *noise(60)]
"""A question, and what is heard until the answer begins."""
NOISE_BEGAN = BEGAN


async def noisy_question(talk: Talk, session) -> None:
    await talk.begin(session)
    await talk.speak(*NOISY)
    assert talk.uplink.speaking
    talk.model_begins()


async def test_on_a_noisy_line_an_answer_heard_to_its_end_answers_what_came_before_it(
    talk: Talk, make_session
) -> None:
    """From a moment before the answer on everything is heard again; the question is not."""
    await noisy_question(talk, make_session())
    stop = [loud(n) for n in range(5)]  # he speaks while it answers
    await talk.speak(*stop, *noise(100))
    talk.model_ends()
    await talk.speak(*noise(500))
    assert talk.uplink.speaking
    assert talk.uplink.unanswered
    since = len(NOISY) - LEAD_FRAMES
    for times in (1, 2):
        session = await talk.change(make_session())
        assert heard(session) == resampled([*NOISY, *stop, *noise(100), *noise(500)])[since * 640 :]
        assert talk.uplink.repeated == times * (LEAD_FRAMES + 605)


async def test_each_answer_answers_what_came_before_it(talk: Talk, make_session) -> None:
    await noisy_question(talk, make_session())
    await talk.speak(*noise(100))
    talk.model_ends()
    talk.model_begins()  # before another frame has come
    await talk.speak(*noise(50))
    talk.timeline.interrupted(0.0, 500.0)
    await talk.speak(*NOISY[40:])
    await talk.change(make_session())
    first = LEAD_FRAMES + 150 + len(NOISY[40:])
    assert talk.uplink.repeated == first
    talk.model_begins()
    await talk.speak(*noise(100))
    talk.model_ends()
    await talk.speak(*noise(10))
    await talk.change(make_session())
    assert talk.uplink.repeated == first + LEAD_FRAMES + 110


async def test_an_answer_that_he_interrupts_leaves_all_of_it_unanswered(talk: Talk, make_session) -> None:
    await noisy_question(talk, make_session())
    await talk.speak(*noise(100))
    talk.timeline.interrupted(0.0, 2000.0)
    await talk.speak(*noise(100))
    session = await talk.change(make_session())
    assert heard(session) == resampled([*NOISY, *noise(100), *noise(100)])[NOISE_BEGAN * 640 :]


async def test_an_answer_cut_off_by_the_loss_leaves_all_of_it_unanswered(talk: Talk, make_session) -> None:
    """Though what has come of it is played to its end, while the next session lives already."""
    await noisy_question(talk, make_session())
    await talk.speak(*noise(50))
    for _ in range(2):
        session = await talk.change(make_session())
        assert heard(session) == resampled([*NOISY, *noise(50)])[NOISE_BEGAN * 640 :]
        talk.uplink.answered()  # the next one calls a tool
        talk.model_ends()
    talk.model_begins()
    await talk.speak(*noise(50))
    talk.model_ends()
    await talk.change(make_session())
    assert talk.uplink.repeated == 2 * (len(NOISY) + 50 - NOISE_BEGAN) + LEAD_FRAMES + 50


async def test_words_while_the_model_speaks_are_not_answered_by_a_call_of_a_tool(
    talk: Talk, make_session
) -> None:
    """It is the beginning of a turn that counts."""
    await noisy_question(talk, make_session())
    await talk.speak(*noise(30))
    talk.uplink.answered()
    await talk.speak(*noise(30))
    talk.model_ends()
    await talk.speak(*noise(30))
    await talk.change(make_session())
    assert talk.uplink.repeated == LEAD_FRAMES + 90


async def test_what_begins_after_the_answer_has_begun_is_kept_from_its_beginning(
    talk: Talk, make_session
) -> None:
    """An echo of the answer perhaps, and perhaps an interruption."""
    await talk.begin(make_session())
    await talk.speak(*QUESTION)
    talk.model_begins()
    assert not talk.uplink.unanswered
    await talk.speak(*QUESTION)
    talk.uplink.answered()  # a tool is called
    await talk.speak(*QUESTION[:50])
    talk.uplink.answered()  # and another
    talk.model_ends()
    await talk.speak(*QUESTION[50:])
    session = await talk.change(make_session())
    assert heard(session) == resampled(QUESTION * 3)[(2 * len(QUESTION) + BEGAN) * 640 :]


async def test_what_is_said_during_an_answer_that_came_quickly_is_kept_from_its_beginning(
    talk: Talk, make_session
) -> None:
    """The answer began before our detector was sure of the end of the question."""
    await talk.begin(make_session())
    await talk.speak(*QUESTION[:70])
    assert talk.uplink.speaking
    talk.model_begins()
    await talk.speak(*QUESTION[70:], *QUESTION)
    talk.model_ends()
    await talk.speak(soft(0))
    session = await talk.change(make_session())
    assert heard(session) == resampled([*QUESTION * 2, soft(0)])[(len(QUESTION) + BEGAN) * 640 :]


async def test_words_begun_just_before_the_answer_are_kept_from_their_beginning(
    talk: Talk, make_session
) -> None:
    """He goes on after a pause that the model took for the end, and it does not let itself be interrupted."""
    await talk.begin(make_session())
    await talk.speak(*QUESTION, *QUESTION[:60])
    talk.model_begins()
    await talk.speak(*[loud(n) for n in range(50)])
    talk.model_ends()
    await talk.speak(*[soft(n) for n in range(40)])
    assert not talk.uplink.speaking
    assert talk.uplink.unanswered
    session = await talk.change(make_session())
    everything = [*QUESTION, *QUESTION[:60], *(loud(n) for n in range(50)), *(soft(n) for n in range(40))]
    assert heard(session) == resampled(everything)[(len(QUESTION) + BEGAN) * 640 :]


async def test_what_the_model_was_not_sent_is_not_answered(talk: Talk, make_session) -> None:
    await talk.begin(make_session())
    await talk.speak(*NOISY)
    talk.uplink.hold(True)
    await talk.speak(*noise(100))
    talk.model_begins()
    await talk.speak(*noise(50))
    talk.uplink.hold(False)
    await talk.speak(*noise(50))
    talk.model_ends()
    await talk.speak(*noise(50))
    await talk.change(make_session())
    assert talk.uplink.repeated == LEAD_FRAMES + 250


@pytest.mark.parametrize("planned", [False, True])
async def test_an_answered_question_is_not_heard_again_after_a_loss_on_a_noisy_line(
    rig, clock, until, planned: bool
) -> None:
    async def speak(*frames: bytes) -> None:
        for pcm in frames:
            rig.call.audio(pcm, 8000)
            await asyncio.sleep(0.02)

    rig.agents = {"default": Agent(greeting="")}
    first = await rig.up()
    first.resume = Resume("h-1")
    await speak(*NOISY)
    told = [asyncio.create_task(speak(*noise(2000)))]
    if planned:
        told.append(asyncio.create_task(first.say(GoAway(25.0))))
    await first.say(AudioDelta(struct.pack("<h", 4000) * 24 * 3000, 24000), GenerationComplete())
    await asyncio.sleep(3.2)
    await first.say(TurnComplete())
    if not planned:
        await asyncio.sleep(12.0)
        first.fail(SessionDropped("x"))
    await until(lambda: len(rig.sessions) == 2)
    repeated = rig.call.uplink.repeated
    second = rig.sessions[1]
    await second.until_heard(repeated * 640)
    question = resampled([loud(n) for n in range(40)])[640:-640]
    assert question in heard(first)
    assert question not in heard(second)
    assert repeated >= 15 * 50, "all that came since"
    for task in told:
        task.cancel()
    await asyncio.wait(told)
    rig.leg.connection.hangup()
    await rig.done()


# Bounds, and what else may happen in between.


async def test_little_is_kept_while_all_is_well(talk: Talk, make_session) -> None:
    class Lagging(make_session):
        @property
        def confirmed(self) -> int:
            return max(0, self.sent - 50)

    await talk.begin(make_session())
    for n in range(300):
        await talk.speak(soft(n))
        assert len(talk.uplink._kept) <= LEAD_FRAMES + WARM_UP + 1
    await talk.speak(*QUESTION)
    talk.uplink.answered()
    await talk.speak(soft(0))
    assert len(talk.uplink._kept) <= LEAD_FRAMES + WARM_UP + 1
    await talk.change(Lagging())
    for n in range(300):
        await talk.speak(soft(n))
        assert len(talk.uplink._kept) <= 50 + WARM_UP + 2
        assert len(talk.uplink._on_its_way) <= 51
        assert talk.uplink._kept_bytes == sum(map(len, talk.uplink._kept))


async def test_without_any_confirmation_what_is_kept_has_its_bound(talk: Talk, make_session) -> None:
    first = await talk.begin(make_session())
    first.dead = True
    frames = [soft(n) for n in range(FRAMES_KEPT + 200)]
    await talk.speak(*frames)
    assert len(talk.uplink._kept) == FRAMES_KEPT
    assert len(talk.uplink._on_its_way) == MAX_MESSAGES
    assert talk.uplink.dropped == 0
    session = await talk.change(make_session())
    assert heard(session) == resampled(frames[-FRAMES_KEPT:])


async def test_while_held_nothing_is_repeated(talk: Talk, make_session) -> None:
    first = await talk.begin(make_session())
    first.dead = True
    frames = [soft(n) for n in range(30)]
    await talk.speak(*frames[:10])
    talk.uplink.hold(True)
    second = await talk.change(make_session())
    await talk.speak(*frames[10:])
    assert second.heard == []
    talk.uplink.hold(False)
    assert await second.until_heard(30 * 640) == resampled(frames)


async def test_what_is_forgotten_is_not_repeated(talk: Talk, make_session) -> None:
    first = await talk.begin(make_session())
    first.dead = True
    await talk.speak(*QUESTION)
    talk.uplink.forget()
    assert not talk.uplink.unanswered
    second = await talk.change(make_session())
    assert second.heard == []
    await talk.speak(soft(1))
    assert heard(second) == resampled([soft(1)])
    assert (talk.uplink.repeated, talk.uplink.dropped) == (0, 0)


async def test_what_was_being_sent_when_all_was_forgotten_is_not_repeated(talk: Talk, make_session) -> None:
    first = await talk.begin(make_session())
    first.taking.clear()
    await talk.speak(*(soft(n) for n in range(5)))
    talk.uplink.forget()
    assert talk.uplink.dropped == 4, "the one on its way was taken"
    first.taking.set()
    await talk.speak(soft(5), soft(6))
    second = await talk.change(make_session())
    await talk.speak(soft(7))
    # three messages: the one on its way, and what came after
    assert heard(first)[-1280:] == resampled([soft(0), soft(5), soft(6)])[-1280:]
    assert len(heard(first)) == 3 * 640
    assert heard(second) == resampled([soft(5), soft(6), soft(7)])[-640:]
    assert talk.uplink.repeated == 0


async def test_another_rate_in_between_leaves_only_what_came_at_that_rate(talk: Talk, make_session) -> None:
    first = await talk.begin(make_session())
    first.dead = True
    await talk.speak(*QUESTION)
    new = [soft(n, 16000) for n in range(10)]
    await talk.speak(*new, rate=16000)
    second = await talk.change(make_session())
    assert heard(second) == b"".join(new)
    assert (talk.uplink.repeated, talk.uplink.dropped) == (10, 0)


# Any order of events. Sessions take 8 kHz, so that frames go through as they are.

SMALL = 24
"""Frames kept at most, in half of the stories."""

EVENTS = st.one_of(
    st.tuples(st.just("audio"), st.integers(1, 25)),
    st.tuples(st.just("speech"), st.integers(1, 25)),
    st.tuples(st.just("step"), st.integers(1, 4)),
    st.tuples(
        st.sampled_from(
            ["die", "change", "answered", "hold", "release", "stop", "model", "heard", "interrupted"]
        ),
        st.just(0),
    ),
)


def numbered(number: int, *, voiced: bool) -> bytes:
    return struct.pack("<160h", number, *((n * 4001 % 20000 - 10000) * voiced for n in range(159)))


def numbers(session, count: int | None = None) -> list[int]:
    """Of the frames in the first ``count`` messages."""
    pcm = b"".join(session.heard[:count])
    return [struct.unpack_from("<h", pcm, start)[0] for start in range(0, len(pcm), 320)]


async def play(talk: Talk, make_session, events: list[tuple[str, int]]) -> list:
    """Returns the sessions; the last one lives until it has had everything.

    While our detector hears speech, what came since it began or the model last did anything is repeated.
    """
    sessions = [await talk.begin(make_session(input_rate=8000))]
    began = done = 0  # frames by then: the speech that lasts, and what the model did last
    happens = {
        "hold": lambda: talk.uplink.hold(True),
        "release": lambda: talk.uplink.hold(False),
        "answered": talk.uplink.answered,
        "model": talk.model_begins,
        "heard": talk.model_ends,
        "interrupted": lambda: talk.timeline.interrupted(0.0, 0.0),
    }
    for event, count in [*events, ("release", 0), ("change", 0)]:
        if event in ("audio", "speech"):
            for _ in range(count):
                spoke = talk.uplink.speaking
                talk.uplink.audio(numbered(talk.uplink.frames, voiced=event == "speech"), 8000)
                began = began if spoke else talk.uplink.frames
        elif event == "step":
            for _ in range(count):
                await asyncio.sleep(0)
        elif event == "die":
            sessions[-1].dead = True
        elif event == "change":
            sessions.append(await talk.change(make_session(input_rate=8000)))
            if talk.uplink.speaking and not talk.uplink._held:
                assert numbers(sessions[-1])[0] <= max(began, done, talk.uplink._first)
        elif event == "stop":
            await talk.stop()
        else:
            happens[event]()
            done = talk.uplink.frames if event in ("answered", "model") else done
    await talk.stop()
    return sessions


@given(events=st.lists(EVENTS, max_size=40), small=st.booleans())
@settings(max_examples=150, deadline=None)
def test_every_frame_is_heard_in_order_or_counted(
    events: list[tuple[str, int]], small: bool, make_session
) -> None:
    async def main() -> None:
        talk = Talk()
        if small:
            talk.uplink._limit = SMALL * 320
        sessions = await play(talk, make_session, events)
        sent = [numbers(session) for session in sessions]
        for one in sent:
            assert one == sorted(set(one)), "in order, none twice in one session"
        everything = set(range(talk.uplink.frames))
        missing = everything - set().union(*sent)
        again = sum(map(len, sent)) - len(everything - missing)
        assert len(missing) <= talk.uplink.dropped
        assert again <= talk.uplink.repeated
        if not small:
            arrived = set().union(*(numbers(session, session.confirmed) for session in sessions))
            assert arrived == everything
            assert talk.uplink.dropped == 0
            assert again == talk.uplink.repeated
            assert all(one == list(range(one[0], one[-1] + 1)) for one in sent if one), "without a gap"

    asyncio.run(main())


@pytest.mark.parametrize(("pause", "repeated"), [(5, False), (0, True)])
async def test_an_answer_that_begins_before_our_detector_has_heard_the_end(
    talk: Talk, make_session, pause: int, repeated: bool
) -> None:
    """Words are answered when the model begins within our detector's hangover, but not while they last."""
    await talk.begin(make_session())
    await talk.speak(*[bytes(320)] * 50, *[loud(n) for n in range(40)], *[bytes(320)] * pause)
    talk.uplink.answered()
    await talk.speak(*[loud(n) for n in range(0 if pause else 20)], *[bytes(320)] * 30)
    assert talk.uplink.unanswered is repeated
