"""Model to caller: one frame per 20 ms, every sample of the model's, none of them after an interruption.

The test is the clock: nothing here waits.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.resample import Resampler
from ari_gemini.call.downlink import TIMER_SLACK, Downlink
from ari_gemini.errors import ToolError

SILENCE = bytes(320)


def speech(ms: int, rate: int = 24000) -> bytes:
    count = rate * ms // 1000
    return struct.pack(f"<{count}h", *((n * 37) % 16000 - 8000 for n in range(count)))


def resampled(pcm: bytes, source: int = 24000, target: int = 8000) -> bytes:
    resampler = Resampler(AudioFormat(source), AudioFormat(target))
    return resampler.process(pcm) + resampler.flush()


class Loop(asyncio.AbstractEventLoop):
    """A clock and timers that move only when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[asyncio.TimerHandle] = []

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self.timers.remove(handle)

    def call_at(self, when: float, callback: Callable, *args, context=None) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self)
        self.timers.append(handle)
        handle._scheduled = True
        return handle

    def advance(self, seconds: float, *, late: float = 0.0) -> None:
        """Let time pass; timers fire at their time, each ``late`` seconds after it."""
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.when() + late <= end + 1e-9]:
            timer = min(due, key=lambda handle: handle.when())
            self.timers.remove(timer)
            timer._scheduled = False
            self.now = max(self.now, timer.when() + late)
            timer._run()
        self.now = max(self.now, end)


class Line:
    """A downlink, its clock, its connection, and what it reported."""

    def __init__(self, connection, prebuffer_ms: int = 0) -> None:
        self.loop = Loop()
        self.connection = connection
        self.first_frames: list[float] = []
        self.played: list[tuple[float, float]] = []
        self.downlink = Downlink(
            on_first_frame=self.first_frames.append,
            on_turn_played=lambda at, heard_ms: self.played.append((at, heard_ms)),
            prebuffer_ms=prebuffer_ms,
            loop=self.loop,
        )

    @property
    def frames(self) -> list[bytes]:
        return [pcm for pcm, _ in self.connection.written]


@pytest.fixture
def line(connection) -> Line:
    return Line(connection)


def test_silence_from_the_first_moment_one_frame_every_20_ms(line: Line) -> None:
    line.downlink.start(line.connection)
    assert line.connection.written == [(SILENCE, 8000)]
    line.loop.advance(1.0)
    assert line.connection.written == [(SILENCE, 8000)] * 51
    assert len(line.loop.timers) == 1
    assert line.first_frames == line.played == []


def test_a_turn_is_played_to_its_last_sample(line: Line) -> None:
    line.downlink.start(line.connection)
    said = speech(70)
    assert line.downlink.play(said, 24000) is True
    line.downlink.end_turn()
    line.loop.advance(0.2)
    expected = resampled(said)
    padding = -len(expected) % 320
    assert b"".join(line.frames[1:]).rstrip(b"\0") == expected.rstrip(b"\0")
    assert {len(pcm) for pcm in line.frames} == {320}
    count = (len(expected) + padding) // 320
    assert line.frames[1 + count :] == [SILENCE] * (len(line.frames) - 1 - count)
    assert line.first_frames == [pytest.approx(1000.020)]
    assert line.played == [(pytest.approx(1000.020 * 1 + (count - 1) * 0.020), len(expected) / 16)]


def test_audio_is_the_same_however_it_came(line: Line) -> None:
    line.downlink.start(line.connection)
    said = speech(200)
    for at in range(0, len(said), 777):
        line.downlink.play(said[at : at + 777], 24000)
    line.downlink.end_turn()
    line.loop.advance(0.5)
    assert line.connection.speech.removeprefix(SILENCE).startswith(resampled(said))


@given(cuts=st.lists(st.integers(1, 4000), max_size=12), prebuffer=st.sampled_from([0, 40]))
@settings(max_examples=40, deadline=None)
def test_nothing_is_lost_whatever_the_pieces(cuts: list[int], prebuffer: int, make_connection) -> None:
    line = Line(make_connection(), prebuffer)
    line.downlink.start(line.connection)
    said = speech(1 + sum(cuts) // 48)[: 2 * (sum(cuts) // 2)]
    at = 0
    for cut in cuts:
        line.downlink.play(said[at : at + cut], 24000)
        at += cut
    line.downlink.end_turn()
    line.loop.advance(1.5)
    expected = resampled(said)
    assert line.connection.speech.strip(b"\0") == expected.strip(b"\0")
    assert sum(heard for _, heard in line.played) == len(expected) / 16


def test_a_frame_is_never_early_and_never_more_than_one_ahead(line: Line) -> None:
    line.downlink.start(line.connection)
    line.downlink.play(speech(1000), 24000)
    for n in range(1, 40):
        line.loop.advance(0.0199)
        assert len(line.frames) == n
        line.loop.advance(0.0001)
        assert len(line.frames) == n + 1


def test_a_timer_that_fires_early_within_the_clocks_resolution_writes_its_frame(line: Line) -> None:
    line.downlink.start(line.connection)
    line.loop.advance(0.2, late=-TIMER_SLACK / 2)
    assert len(line.frames) == 11
    assert len(line.loop.timers) == 1


def test_late_timers_do_not_add_up(line: Line) -> None:
    line.downlink.start(line.connection)
    line.loop.advance(1.015, late=0.015)
    assert len(line.frames) == 51


def test_a_stall_is_caught_up_by_two_frames_only(line: Line) -> None:
    line.downlink.start(line.connection)
    line.downlink.play(speech(1000), 24000)
    line.loop.now += 0.5
    line.loop.advance(0.0)
    assert len(line.frames) == 1 + 3
    line.loop.advance(0.1)
    assert len(line.frames) == 1 + 3 + 5


def test_an_interruption_silences_at_once_and_says_what_was_heard(line: Line) -> None:
    line.downlink.start(line.connection)
    line.downlink.play(speech(1000), 24000)
    line.loop.advance(0.110)
    assert line.frames[1:] != [SILENCE] * 5
    assert line.downlink.clear() == 100.0
    before = len(line.frames)
    line.loop.advance(0.2)
    assert line.frames[before:] == [SILENCE] * 10
    assert line.played == [], "it was not played to its end"


def test_what_the_filter_held_at_an_interruption_is_not_heard_in_the_next_turn(line: Line) -> None:
    line.downlink.start(line.connection)
    line.downlink.play(speech(100), 24000)
    line.downlink.clear()
    line.downlink.play(said := speech(60), 24000)
    line.downlink.end_turn()
    line.loop.advance(0.2)
    assert line.connection.speech.removeprefix(SILENCE).startswith(resampled(said))


def test_an_interruption_of_nobody_heard_nothing(line: Line) -> None:
    assert line.downlink.clear() == 0.0
    line.downlink.start(line.connection)
    assert line.downlink.clear() == 0.0
    line.downlink.play(speech(100), 24000)
    assert line.downlink.clear() == 0.0
    line.downlink.play(speech(20), 24000)
    line.downlink.end_turn()
    line.loop.advance(0.2)
    assert line.downlink.clear() == 0.0, "it was over"


def test_two_turns_behind_one_another_are_told_apart(line: Line) -> None:
    line.downlink.start(line.connection)
    for _ in range(2):
        line.downlink.play(speech(40), 24000)
        line.downlink.end_turn()
    line.loop.advance(0.3)
    assert len(line.first_frames) == len(line.played) == 2
    assert [heard for _, heard in line.played] == [len(resampled(speech(40))) / 16] * 2
    assert line.first_frames[0] < line.played[0][0] < line.first_frames[1] < line.played[1][0]


def test_a_turn_whose_end_is_told_after_its_last_frame(line: Line) -> None:
    line.downlink.start(line.connection)
    line.downlink.play(speech(40, 8000), 8000)
    line.loop.advance(0.1)
    assert line.played == []
    line.downlink.end_turn()
    assert line.played == [(line.loop.now, 40.0)]


def test_speech_waits_for_its_cushion(connection) -> None:
    line = Line(connection, prebuffer_ms=100)
    line.downlink.start(connection)
    line.downlink.play(speech(60, 8000), 8000)
    line.loop.advance(0.060)
    assert line.first_frames == []
    line.downlink.play(speech(60, 8000), 8000)
    line.loop.advance(0.020)
    assert line.first_frames == [pytest.approx(1000.080)]


def test_before_it_starts_nobody_hears_anything(line: Line) -> None:
    assert line.downlink.play(speech(100), 24000) is False
    line.downlink.end_turn()
    line.downlink.start(line.connection)
    line.loop.advance(0.2)
    assert set(line.frames) == {SILENCE}
    assert line.played == []


def test_beyond_the_bound_speech_is_refused(line: Line) -> None:
    line.downlink.start(line.connection)
    minute = bytes(2 * 8000 * 60)
    assert [line.downlink.play(minute, 8000) for _ in range(3)] == [True, True, False]


def test_a_rate_that_cannot_be(line: Line) -> None:
    line.downlink.start(line.connection)
    with pytest.raises(ValueError, match="11025"):
        line.downlink.play(b"\0\0", 11025)


def test_asterisk_speaks_wide_band_and_that_is_known_only_later(line: Line) -> None:
    line.downlink.start(line.connection)
    line.loop.advance(0.030)
    line.connection.rate = 16000
    line.loop.advance(0.005)
    line.downlink.play(said := speech(60), 24000)
    line.downlink.end_turn()
    line.loop.advance(0.205)
    rates = [rate for _, rate in line.connection.written]
    assert rates == [8000] * 2 + [16000] * 11, "the deadlines went on as they were"
    assert {len(pcm) for pcm, rate in line.connection.written if rate == 16000} == {640}
    wide = b"".join(pcm for pcm, rate in line.connection.written if rate == 16000)
    assert wide.startswith(resampled(said, 24000, 16000))
    assert [timer.when() for timer in line.loop.timers] == [pytest.approx(1000.260)]


def test_a_model_that_changes_its_rate_loses_no_sample(line: Line) -> None:
    line.downlink.start(line.connection)
    line.downlink.play(speech(60, 24000), 24000)
    line.downlink.play(speech(60, 16000), 16000)
    line.downlink.end_turn()
    line.loop.advance(0.4)
    expected = resampled(speech(60, 24000)) + resampled(speech(60, 16000), 16000)
    assert line.connection.speech.removeprefix(SILENCE).startswith(expected)


def test_stopping_ends_everything(line: Line) -> None:
    line.downlink.stop()
    line.downlink.start(line.connection)
    line.downlink.play(speech(100), 24000)
    line.downlink.stop()
    line.downlink.stop()
    assert line.loop.timers == []
    line.loop.advance(1.0)
    assert len(line.frames) == 1


async def test_it_runs_on_the_running_loop_unless_told(connection, until) -> None:
    downlink = Downlink(on_first_frame=print, on_turn_played=print, prebuffer_ms=0)
    downlink.start(connection)
    await until(lambda: len(connection.written) >= 3)
    downlink.stop()
    assert {rate for _, rate in connection.written} == {8000}


# --- tones of keys


def tone(frames: int, letter: bytes = b"T", rate: int = 8000) -> bytes:
    return letter * (rate // 25 * frames)


def letters(line: Line) -> str:
    """A letter a frame: that of a tone or a filler, - silence, s speech."""
    return "".join(
        "-" if not any(pcm) else chr(pcm[0]) if len(set(pcm)) == 1 else "s"
        for pcm, _ in line.connection.written
    )


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def play_all(line: Line, pcm: bytes) -> None:
    playing = await begin(line.downlink.play_tones(pcm))
    line.loop.advance(len(pcm) / 16000)
    await playing


async def begin(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    task = asyncio.create_task(coroutine)
    await settle()
    return task


async def test_tones_take_the_place_of_speech_which_goes_on_where_it_was(line: Line) -> None:
    line.downlink.start(line.connection)
    said = speech(200, 8000)
    line.downlink.play(said, 8000)
    line.downlink.end_turn()
    line.loop.advance(0.060)
    playing = await begin(line.downlink.play_tones(tone(4)))
    line.loop.advance(0.070)
    await settle()
    assert not playing.done()
    line.loop.advance(0.010)
    await settle()
    assert playing.done()
    line.loop.advance(0.200)
    assert letters(line) == "-sssTTTTsssssss---"
    spoken = [pcm for pcm, letter in zip(line.frames, letters(line), strict=True) if letter == "s"]
    assert b"".join(spoken) == said
    assert len(line.first_frames) == 1
    assert line.played == [(pytest.approx(1000.28), 200.0)], "tones are not heard of the model"
    assert line.downlink.buffer.counters.underruns == 0


async def test_tones_end_with_their_last_frame_however_short(line: Line) -> None:
    line.downlink.start(line.connection)
    playing = await begin(line.downlink.play_tones(b"TT" * 161))
    line.loop.advance(0.020)
    await settle()
    assert not playing.done()
    line.loop.advance(0.020)
    await settle()
    assert playing.done()
    assert line.frames[1:] == [b"T" * 320, b"TT" + bytes(318)]


async def test_no_tones_are_played_at_once(line: Line) -> None:
    line.downlink.start(line.connection)
    await line.downlink.play_tones(b"")
    with pytest.raises(ValueError, match="1 bytes"):
        await line.downlink.play_tones(b"T")
    line.downlink.play(speech(60, 8000), 8000)
    line.loop.advance(0.060)
    assert letters(line) == "-sss", "nothing was left held"


async def test_sequences_follow_one_another_without_speech_between(line: Line) -> None:
    line.downlink.start(line.connection)
    line.downlink.play(speech(60, 8000), 8000)
    ended = []
    for letter in (b"A", b"B", b"C"):
        task = await begin(line.downlink.play_tones(tone(2, letter)))
        task.add_done_callback(lambda _, letter=letter: ended.append((letter, letters(line))))
    for _ in range(9):
        line.loop.advance(0.020)
        await settle()
    assert letters(line) == "-AABBCCsss"
    assert ended == [(b"A", "-AA"), (b"B", "-AABB"), (b"C", "-AABBCC")]


async def test_a_late_timer_puts_no_silence_between_tones_and_speech(line: Line) -> None:
    line.downlink.start(line.connection)
    line.downlink.play(speech(100, 8000), 8000)
    playing = await begin(line.downlink.play_tones(tone(1)))
    line.loop.now += 0.060
    line.loop.advance(0.0)
    assert letters(line) == "-Tss", "three deadlines were caught up at once"
    await playing


async def test_cancelling_tones_ends_them_at_once(line: Line) -> None:
    line.downlink.start(line.connection)
    line.downlink.play(speech(60, 8000), 8000)
    first = await begin(line.downlink.play_tones(tone(50, b"A")))
    second = await begin(line.downlink.play_tones(tone(50, b"B")))
    third = await begin(line.downlink.play_tones(tone(2, b"C")))
    line.loop.advance(0.040)
    second.cancel()
    await settle()
    line.loop.advance(0.020)
    first.cancel()
    await settle()
    line.loop.advance(0.120)
    assert letters(line) == "-AAACCsss-"
    assert (first.cancelled(), second.cancelled()) == (True, True)
    await third


async def test_an_interruption_leaves_tones_alone(line: Line) -> None:
    line.downlink.start(line.connection)
    line.downlink.play(speech(60, 8000), 8000)
    line.loop.advance(0.020)
    playing = await begin(line.downlink.play_tones(tone(3)))
    line.loop.advance(0.020)
    assert line.downlink.clear() == 20.0
    line.loop.advance(0.080)
    assert letters(line) == "-sTTT--"
    await playing


async def test_whoever_plays_tones_learns_that_the_line_is_closed(line: Line) -> None:
    with pytest.raises(ToolError, match="not open"):
        await line.downlink.play_tones(tone(1))
    line.downlink.start(line.connection)
    playing = [await begin(line.downlink.play_tones(tone(9))) for _ in range(2)]
    line.loop.advance(0.040)
    line.downlink.stop()
    await settle()
    for task in playing:
        with pytest.raises(ToolError, match="closed"):
            task.result()
    with pytest.raises(ToolError, match="not open"):
        await line.downlink.play_tones(tone(1))
    assert letters(line) == "-TT"


async def test_tones_may_end_in_the_moment_they_are_cancelled(line: Line) -> None:
    line.downlink.start(line.connection)
    playing = await begin(line.downlink.play_tones(tone(1)))
    line.loop.advance(0.020)
    playing.cancel()
    await settle()
    assert playing.cancelled()
    line.downlink.play(speech(20, 8000), 8000)
    line.loop.advance(0.020)
    assert letters(line) == "-Ts"


def test_holds_nest(line: Line) -> None:
    line.downlink.hold()
    line.downlink.start(line.connection)
    line.downlink.play(speech(40, 8000), 8000)
    line.downlink.hold()
    line.loop.advance(0.040)
    line.downlink.release()
    line.loop.advance(0.040)
    line.downlink.release()
    line.loop.advance(0.040)
    assert letters(line) == "-----ss"
    with pytest.raises(RuntimeError, match="nothing is held"):
        line.downlink.release()


async def test_tones_within_a_hold_do_not_end_it(line: Line) -> None:
    line.downlink.start(line.connection)
    line.downlink.play(speech(40, 8000), 8000)
    line.downlink.hold()
    await play_all(line, tone(1))
    line.loop.advance(0.040)
    line.downlink.release()
    line.loop.advance(0.040)
    assert letters(line) == "-T--ss"


async def test_a_hold_outlasts_the_change_of_rate(line: Line) -> None:
    line.downlink.start(line.connection)
    line.downlink.hold()
    line.connection.rate = 16000
    line.downlink.play(speech(40, 16000), 16000)
    line.loop.advance(0.040)
    line.downlink.release()
    line.loop.advance(0.040)
    assert letters(line) == "---ss"


async def test_the_rate_is_the_lines_and_stays(line: Line) -> None:
    with pytest.raises(RuntimeError, match="not started"):
        _ = line.downlink.rate
    line.downlink.start(line.connection)
    line.connection.rate = 16000
    assert line.downlink.rate == 16000
    line.connection.rate = 8000
    assert line.downlink.rate == 16000
    playing = await begin(line.downlink.play_tones(tone(2, rate=16000)))
    line.downlink.play(speech(20), 24000)
    line.loop.advance(0.060)
    await playing
    assert [rate for _, rate in line.connection.written] == [8000, 16000, 16000, 16000]
    assert letters(line) == "-TTs"
    line.downlink.stop()
    assert line.downlink.rate == 16000


# --- the filler


def filled(line: Line, after: float = 0.040, prompt: int = 2, linger: float | None = None) -> None:
    line.downlink.fill(after, tone(prompt, b"P"), b"".join(tone(1, letter) for letter in (b"X", b"Y", b"Z")))
    if linger is not None:
        line.downlink.stop_filling(linger)


def test_a_long_silence_is_filled_until_the_model_speaks(line: Line) -> None:
    line.downlink.start(line.connection)
    filled(line)
    line.loop.advance(0.200)
    assert letters(line) == "---PPXYZXYZ"
    line.downlink.play(speech(40, 8000), 8000)
    line.loop.advance(0.120)
    assert letters(line) == "---PPXYZXYZss--XY"
    assert line.first_frames == [pytest.approx(1000.220)]
    line.downlink.end_turn()
    assert [heard for _, heard in line.played] == [40.0], "what filled the silence was not the model's"
    line.downlink.stop_filling()
    line.loop.advance(0.040)
    assert letters(line).endswith("XY--")


@given(at=st.integers(0, 12), ms=st.integers(1, 100), prebuffer=st.sampled_from([0, 40]))
@settings(max_examples=60, deadline=None)
def test_speech_is_neither_delayed_nor_changed_by_a_filler(
    at: int, ms: int, prebuffer: int, make_connection
) -> None:
    plain, full = Line(make_connection(), prebuffer), Line(make_connection(), prebuffer)
    for line in (plain, full):
        line.downlink.start(line.connection)
    filled(full, after=0.020)
    for line in (plain, full):
        line.loop.advance(at * 0.020)
        line.downlink.play(speech(ms, 8000), 8000)
        line.downlink.end_turn()
        line.loop.advance(0.300)
    assert (plain.first_frames, plain.played) == (full.first_frames, full.played)
    spoken = [number for number, letter in enumerate(letters(plain)) if letter == "s"]
    assert [full.frames[number] for number in spoken] == [plain.frames[number] for number in spoken]
    assert letters(full).count("s") == len(spoken)


def test_what_fills_may_linger_but_not_beyond_the_first_speech(line: Line) -> None:
    line.downlink.start(line.connection)
    filled(line, after=0.0, prompt=1, linger=5.0)
    line.loop.advance(0.060)
    line.downlink.play(speech(20, 8000), 8000)
    line.loop.advance(1.0)
    assert letters(line) == "-PXYs" + "-" * 49


def test_what_fills_lingers_no_longer_than_told(line: Line) -> None:
    line.downlink.start(line.connection)
    filled(line, after=0.0, prompt=1)
    line.loop.advance(0.040)
    line.downlink.stop_filling(linger_s=0.060)
    line.loop.advance(0.200)
    assert letters(line) == "-PXYZX" + "-" * 7
    line.downlink.stop_filling()
    line.downlink.quiet()
    filled(line, after=0.0, prompt=1)
    line.loop.advance(0.040)
    assert letters(line).endswith("-PX"), "a new one says its prompt"
    line.downlink.stop_filling(linger_s=0.020)
    line.downlink.fill_at_once(0.040, tone(1, b"x"))
    line.loop.advance(0.100)
    assert letters(line).endswith("-PXYZXYZ"), "unless it is to go on"


def test_the_caller_speaks(line: Line) -> None:
    line.downlink.start(line.connection)
    filled(line, prompt=9)
    line.loop.advance(0.080)
    line.downlink.quiet()
    line.loop.advance(0.080)
    assert letters(line) == "---PP--XY"


async def test_tones_and_holds_are_no_silence(line: Line) -> None:
    line.downlink.start(line.connection)
    filled(line, prompt=1)
    line.loop.advance(0.060)
    await play_all(line, tone(2))
    line.loop.advance(0.080)
    line.downlink.hold()
    line.loop.advance(0.080)
    line.downlink.release()
    line.loop.advance(0.080)
    assert letters(line) == "---PTT--XY----" + "--XY"


def test_nothing_is_filled_before_the_start_or_after_the_end(line: Line) -> None:
    filled(line)
    line.downlink.fill_at_once(0.040, tone(1))
    line.downlink.quiet()
    line.downlink.stop_filling()
    line.downlink.start(line.connection)
    line.loop.advance(0.200)
    assert set(letters(line)) == {"-"}
    filled(line)
    line.downlink.stop()
    assert line.downlink._filler is None
    filled(line)
    assert line.downlink._filler is None


# --- heard out


async def test_with_nothing_queued_it_is_drained_at_once(line: Line) -> None:
    assert await line.downlink.drained() is True
    line.downlink.start(line.connection)
    assert await line.downlink.drained() is True
    line.downlink.hold()
    assert await line.downlink.drained() is True


async def test_it_is_drained_with_the_last_frame(line: Line) -> None:
    line.downlink.start(line.connection)
    line.downlink.play(speech(50, 8000), 8000)
    line.downlink.end_turn()
    waiting = [await begin(line.downlink.drained()) for _ in range(3)]
    waiting.pop().cancel()
    line.loop.advance(0.059)
    await settle()
    assert [task.done() for task in waiting] == [False, False]
    assert letters(line) == "-ss"
    line.loop.advance(0.001)
    await settle()
    assert letters(line) == "-sss"
    assert [task.result() for task in waiting] == [True, True]


async def test_what_is_held_is_not_drained(line: Line) -> None:
    line.downlink.start(line.connection)
    line.downlink.play(speech(20, 8000), 8000)
    line.downlink.hold()
    waiting = await begin(line.downlink.drained())
    line.loop.advance(1.0)
    await settle()
    assert not waiting.done()
    line.downlink.release()
    line.loop.advance(0.020)
    await settle()
    assert waiting.result() is True, "though the turn is still open"
    assert line.played == []


@pytest.mark.parametrize("end", ["clear", "stop"])
async def test_whoever_waits_learns_that_the_rest_will_not_be_heard(line: Line, end: str) -> None:
    line.downlink.start(line.connection)
    line.downlink.play(speech(100, 8000), 8000)
    waiting = [await begin(line.downlink.drained()) for _ in range(2)]
    line.loop.advance(0.040)
    getattr(line.downlink, end)()
    await settle()
    assert [task.result() for task in waiting] == [False, False]
    assert await line.downlink.drained() is True


async def test_nothing_more_is_done_for_a_frame_when_nothing_more_is_wanted(line: Line) -> None:
    line.downlink.start(line.connection)
    line.downlink.play(speech(20, 8000), 8000)
    filled(line, after=0.0, linger=0.040)
    playing = await begin(line.downlink.play_tones(tone(1)))
    waiting = await begin(line.downlink.drained())
    line.loop.advance(0.020)
    assert line.downlink._busy
    line.loop.advance(0.060)
    await playing
    await waiting
    assert not line.downlink._busy
