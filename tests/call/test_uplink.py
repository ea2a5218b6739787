"""Caller to model: every sample, in order, or the oldest gone and counted."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.resample import Resampler
from ari_gemini.call.uplink import BATCH_FRAMES, KEPT_MS, Uplink
from ari_gemini.errors import SessionDropped
from ari_gemini.telemetry.timeline import Timeline

FRAMES_OF_BACKLOG = KEPT_MS // 20


def frame(number: int, samples: int = 160) -> bytes:
    return struct.pack(f"<{samples}h", *((number * 977 + n * 31) % 20000 - 10000 for n in range(samples)))


def resampled(pcm: bytes, source: int = 8000, target: int = 16000) -> bytes:
    return Resampler(AudioFormat(source), AudioFormat(target)).process(pcm)


class Line:
    """An uplink with a clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timeline = Timeline()
        self.uplink = Uplink(self.timeline, lambda: self.now)
        self.tasks: list[asyncio.Task] = []

    def run(self, session) -> asyncio.Task:
        task = asyncio.create_task(self.uplink.run(session))
        self.tasks.append(task)
        return task


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    line = Line()
    yield line
    for task in line.tasks:
        task.cancel()
    await asyncio.gather(*line.tasks, return_exceptions=True)


async def test_the_very_samples_arrive(line: Line, make_session) -> None:
    session = make_session()
    line.run(session)
    frames = [frame(n) for n in range(30)]
    for n, pcm in enumerate(frames):
        line.uplink.audio(pcm, 8000)
        if n % 3:
            await asyncio.sleep(0)
    assert await session.until_heard(30 * 640) == resampled(b"".join(frames))
    assert (line.uplink.frames, line.uplink.dropped) == (30, 0)


async def test_what_came_before_the_session_is_sent_first(line: Line, make_session) -> None:
    session = make_session()
    for n in range(5):
        line.uplink.audio(frame(n), 8000)
    line.run(session)
    line.uplink.audio(frame(5), 8000)
    assert await session.until_heard(6 * 640) == resampled(b"".join(frame(n) for n in range(6)))


async def test_a_model_that_takes_eight_kilohertz_gets_them_untouched(line: Line, make_session) -> None:
    session = make_session(input_rate=8000)
    line.run(session)
    line.uplink.audio(frame(1), 8000)
    assert await session.until_heard(320) == frame(1)


async def test_one_frame_is_one_message(line: Line, make_session) -> None:
    session = make_session()
    line.run(session)
    for n in range(3):
        line.uplink.audio(frame(n), 8000)
        await session.until_heard((n + 1) * 640)
    assert [len(pcm) for pcm in session.heard] == [640] * 3


async def test_a_backlog_leaves_in_batches(line: Line, make_session) -> None:
    session = make_session()
    for n in range(2 * BATCH_FRAMES + 1):
        line.uplink.audio(frame(n), 8000)
    line.run(session)
    await session.until_heard((2 * BATCH_FRAMES + 1) * 640)
    assert [len(pcm) for pcm in session.heard] == [BATCH_FRAMES * 640, BATCH_FRAMES * 640, 640]


async def test_the_oldest_goes_first_when_the_session_takes_nothing(line: Line, make_session) -> None:
    for n in range(FRAMES_OF_BACKLOG + 7):
        line.uplink.audio(frame(n), 8000)
    assert line.uplink.dropped == 7
    session = make_session()
    line.run(session)
    kept = b"".join(frame(n) for n in range(7, FRAMES_OF_BACKLOG + 7))
    assert await session.until_heard(FRAMES_OF_BACKLOG * 640) == resampled(kept)


async def test_a_session_that_stalls_costs_only_what_is_too_old(line: Line, make_session) -> None:
    session = make_session()
    line.run(session)
    session.taking.clear()
    line.uplink.audio(frame(0), 8000)
    await session.until_heard(640)
    for n in range(1, FRAMES_OF_BACKLOG + 3):
        line.uplink.audio(frame(n), 8000)
    assert line.uplink.dropped == 2
    session.taking.set()
    kept = frame(0) + b"".join(frame(n) for n in range(3, FRAMES_OF_BACKLOG + 3))
    assert await session.until_heard(len(kept) * 2) == resampled(kept)


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
async def test_the_bound_is_in_time_whatever_the_rate(line: Line, rate: int) -> None:
    samples = rate // 50
    for n in range(FRAMES_OF_BACKLOG + 1):
        line.uplink.audio(frame(n, samples), rate)
    assert line.uplink.dropped == 1


async def test_the_longest_message_there_is_fits(line: Line, make_session) -> None:
    session = make_session()
    line.run(session)
    await asyncio.sleep(0)
    line.uplink.audio(b"\1\0" * 32767, 8000)
    await session.until_heard(4 * 32767)
    assert (line.uplink.frames, line.uplink.dropped) == (1, 0)


async def test_another_rate_begins_anew(line: Line, make_session) -> None:
    """The queue's old audio cannot be told from the new, so it goes."""
    session = make_session()
    line.uplink.audio(frame(0), 8000)
    line.uplink.audio(frame(1), 8000)
    line.uplink.audio(frame(2, 480), 24000)
    assert line.uplink.dropped == 2
    line.run(session)
    assert await session.until_heard(640) == resampled(frame(2, 480), 24000)


async def test_another_rate_while_it_runs(line: Line, make_session) -> None:
    session = make_session()
    line.run(session)
    line.uplink.audio(frame(0), 8000)
    await session.until_heard(640)
    line.uplink.audio(frame(1, 320), 16000)
    assert await session.until_heard(1280) == resampled(frame(0)) + frame(1, 320)


async def test_chunks_too_small_for_a_sample_of_the_target_are_not_sent_empty(
    line: Line, make_session
) -> None:
    session = make_session()
    line.run(session)
    await asyncio.sleep(0)
    for n in range(3):  # one sample of 48 kHz each: a third of one at 16 kHz
        line.uplink.audio(frame(n, 1), 48000)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await session.until_heard(2)
    assert [len(pcm) for pcm in session.heard] == [2]


async def test_the_end_of_the_session_ends_it(line: Line, make_session) -> None:
    class Gone(make_session):
        async def send_audio(self, pcm: bytes) -> None:
            raise SessionDropped("gone")

    task = line.run(Gone())
    line.uplink.audio(frame(0), 8000)
    with pytest.raises(SessionDropped):
        await task


@pytest.mark.parametrize("busy", [False, True])
async def test_cancelling_stops_it_and_more_audio_does_no_harm(line: Line, make_session, busy: bool) -> None:
    session = make_session()
    task = line.run(session)
    if busy:
        session.taking.clear()
        line.uplink.audio(frame(0), 8000)
        await session.until_heard(640)
    else:
        await asyncio.sleep(0)
    task.cancel()
    line.uplink.audio(frame(1), 8000)
    with pytest.raises(asyncio.CancelledError):
        await task
    heard = list(session.heard)
    for n in range(FRAMES_OF_BACKLOG + 2):
        line.uplink.audio(frame(n), 8000)
    assert session.heard == heard
    assert line.uplink.dropped == 3


async def test_the_callers_speech_reaches_the_timeline(line: Line) -> None:
    tone = (8000 * np.sin(np.arange(160) * 0.3)).astype("<i2").tobytes()
    silence = bytes(320)
    for pcm in [silence] * 10 + [tone] * 20 + [silence] * 30:
        line.now += 0.020
        line.uplink.audio(pcm, 8000)
    line.timeline.model_audio(line.now)
    (turn,) = line.timeline.turns
    assert turn.caller_stopped == pytest.approx(30 * 0.020)


async def test_who_wants_to_know_is_told_whenever_the_caller_begins_to_speak() -> None:
    told = []
    uplink = Uplink(Timeline(), lambda: 0.0, lambda: told.append(uplink.frames))
    tone = (8000 * np.sin(np.arange(160) * 0.3)).astype("<i2").tobytes()
    silence = bytes(320)
    for pcm in [silence] * 10 + [tone] * 20 + [silence] * 30 + [tone] * 20:
        uplink.audio(pcm, 8000)
    assert told == [27, 77], "300 ms of clear voice from the beginning that is found, once"


@pytest.mark.parametrize(("level", "frames"), [(8000, 10), (200, 60)], ids=["a bump", "an echo"])
async def test_what_is_short_or_soft_is_not_the_caller_making_himself_heard(level: int, frames: int) -> None:
    told = []
    uplink = Uplink(Timeline(), lambda: 0.0, lambda: told.append(uplink.frames))
    tone = (level * np.sin(np.arange(160) * 0.3)).astype("<i2").tobytes()
    silence = bytes(320)
    for pcm in ([silence] * 30 + [tone] * frames) * 5:
        uplink.audio(pcm, 8000)
    assert told == []


async def test_what_is_forgotten_is_never_sent(line: Line, make_session) -> None:
    session = make_session()
    line.uplink.hold(True)
    line.run(session)
    for n in range(5):
        line.uplink.audio(frame(n), 8000)
    line.uplink.forget()
    line.uplink.audio(frame(5), 8000)
    line.uplink.hold(False)
    assert await session.until_heard(640) == resampled(frame(5))
    assert line.uplink.dropped == 5


async def test_nothing_is_sent_while_held_and_it_goes_on_in_order(line: Line, make_session) -> None:
    session = make_session()
    line.run(session)
    line.uplink.audio(frame(0), 8000)
    await session.until_heard(640)
    line.uplink.hold(True)
    for n in range(1, 30):
        line.uplink.audio(frame(n), 8000)
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(session.heard) == 1
    line.uplink.hold(False)
    assert await session.until_heard(30 * 640) == resampled(b"".join(frame(n) for n in range(30)))
    assert line.uplink.dropped == 0


async def test_what_waits_while_held_stays_within_its_bound(line: Line, make_session) -> None:
    session = make_session()
    line.uplink.hold(True)
    line.run(session)
    for n in range(FRAMES_OF_BACKLOG + 7):
        line.uplink.audio(frame(n), 8000)
        await asyncio.sleep(0)
    assert line.uplink.dropped == 7
    assert session.heard == []
    line.uplink.hold(False)
    kept = b"".join(frame(n) for n in range(7, FRAMES_OF_BACKLOG + 7))
    assert await session.until_heard(FRAMES_OF_BACKLOG * 640) == resampled(kept)


async def test_a_hold_in_the_same_moment_as_audio_holds_it(line: Line, make_session) -> None:
    session = make_session()
    line.run(session)
    await asyncio.sleep(0)
    line.uplink.audio(frame(0), 8000)
    line.uplink.hold(True)
    for _ in range(3):
        await asyncio.sleep(0)
    assert session.heard == []
    line.uplink.hold(False)
    assert await session.until_heard(640) == resampled(frame(0))


async def test_speech_is_noticed_while_held() -> None:
    told = []
    uplink = Uplink(Timeline(), lambda: 0.0, lambda: told.append(True))
    uplink.hold(True)
    tone = (8000 * np.sin(np.arange(160) * 0.3)).astype("<i2").tobytes()
    for _ in range(20):
        uplink.audio(tone, 8000)
    assert told == [True]


@given(
    cuts=st.lists(st.tuples(st.integers(1, 400), st.booleans()), min_size=1, max_size=60),
    source=st.sampled_from([8000, 16000, 24000, 48000]),
)
@settings(max_examples=40, deadline=None)
def test_whatever_the_pieces_nothing_is_lost(cuts: list[tuple[int, bool]], source: int, make_session) -> None:
    async def live() -> None:
        session = make_session()
        uplink = Uplink(Timeline(), lambda: 0.0)
        task = asyncio.create_task(uplink.run(session))
        sent = b""
        for n, (samples, pause) in enumerate(cuts):
            pcm = frame(n, samples)
            uplink.audio(pcm, source)
            sent += pcm
            if pause:
                await asyncio.sleep(0)
        expected = resampled(sent, source)
        heard = await session.until_heard(len(expected))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if uplink.dropped == 0:
            assert heard == expected

    asyncio.run(live())


async def test_silence_is_put_where_nothing_comes(clock, make_session) -> None:
    """A phone that is muted in mid-word: the model and our own detector hear the end of it."""
    uplink, session = Uplink(Timeline(), asyncio.get_running_loop().time), make_session()
    tasks = [asyncio.create_task(uplink.run(session)), asyncio.create_task(uplink.mind_gaps())]
    tone = (8000 * np.sin(np.arange(160) * 0.3)).astype("<i2").tobytes()
    for _ in range(100):
        uplink.audio(tone, 8000)
        await asyncio.sleep(0.02)
    assert uplink.speaking
    assert uplink.filled == 0
    await asyncio.sleep(3.5)
    assert not uplink.speaking
    assert uplink.filled in (100, 150)
    heard = await session.until_heard((100 + uplink.filled) * 640)
    assert heard == resampled(tone * 100 + bytes(320) * uplink.filled)
    for _ in range(200):
        filled = uplink.filled
        uplink.audio(tone, 8000)
        await asyncio.sleep(0.02)
    assert uplink.filled == filled
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
