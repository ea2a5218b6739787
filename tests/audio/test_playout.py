"""Deadlines, turns, stalls, barge-in, and a random model: no byte is lost, doubled or out of order."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.playout import Heard, PlayoutBuffer, PlayoutFrame

FORMAT = AudioFormat(8000)
FRAME = FORMAT.frame_bytes
MS = FRAME // 20
SILENCE = bytes(FRAME)
START = 1000.0


def speech(ms: float, first: int = 1) -> bytes:
    """Samples that count from ``first``, never zero, so that each tells where it came from."""
    numbers = np.arange(first, first + int(8 * ms))
    return (numbers % 32767 + 1).astype("<i2").tobytes()


@dataclass
class Clock:
    """Asks the buffer at each deadline, exactly then."""

    buffer: PlayoutBuffer
    now: float = START

    def __post_init__(self) -> None:
        self.buffer.start(self.now)

    def tick(self, count: int = 1) -> list[PlayoutFrame]:
        frames = []
        for _ in range(count):
            self.now = self.buffer.next_at()
            frame = self.buffer.due(self.now)
            assert frame is not None
            frames.append(frame)
        return frames

    def burst(self, now: float) -> list[PlayoutFrame]:
        """All that is due at ``now``."""
        self.now = now
        frames = []
        while (frame := self.buffer.due(now)) is not None:
            frames.append(frame)
        return frames


def make(prebuffer_ms: int = 40, limit_s: float = 120.0) -> Clock:
    return Clock(PlayoutBuffer(FORMAT, prebuffer_ms=prebuffer_ms, limit_s=limit_s))


def audible(frames: list[PlayoutFrame]) -> str:
    """One letter a frame: - silence, s start, e end, x both, a any other speech."""
    marks = {(False, False): "a", (True, False): "s", (False, True): "e", (True, True): "x"}
    return "".join(marks[frame.starts_turn, frame.ends_turn] if frame.audible else "-" for frame in frames)


def sound(frames: list[PlayoutFrame]) -> bytes:
    return b"".join(frame.pcm for frame in frames if frame.audible)


# --- deadlines


def test_nothing_is_due_before_the_start() -> None:
    buffer = PlayoutBuffer(FORMAT)
    assert buffer.next_at() == math.inf
    assert buffer.due(1e9) is None
    assert buffer.counters.frames == 0


def test_deadlines_are_absolute_and_do_not_drift() -> None:
    clock = make()
    for n in range(100_000):
        assert clock.buffer.next_at() == START + n * 0.020
        clock.tick()


def test_lateness_of_one_frame_does_not_move_the_next() -> None:
    clock = make()
    clock.burst(START + 0.019)
    assert clock.buffer.next_at() == START + 0.020
    clock.burst(START + 0.0399)
    assert clock.buffer.next_at() == START + 2 * 0.020


def test_never_more_than_one_frame_ahead() -> None:
    clock = make()
    clock.buffer.push(speech(1000))
    assert len(clock.burst(START)) == 1
    assert clock.burst(START + 0.0199) == []
    assert len(clock.burst(START + 0.020)) == 1


def test_silence_is_one_and_the_same_object() -> None:
    frames = make().tick(3)
    assert frames[0] is frames[1] is frames[2]
    assert frames[0] == PlayoutFrame(SILENCE, audible=False, starts_turn=False, ends_turn=False)


@pytest.mark.parametrize("missed", [1, 2])
def test_a_short_stall_is_caught_up(missed: int) -> None:
    clock = make()
    clock.buffer.push(speech(1000))
    clock.tick()
    frames = clock.burst(START + (missed + 1) * 0.020)
    assert audible(frames) == "a" * (missed + 1)
    assert clock.buffer.counters.skipped_deadlines == 0
    assert clock.buffer.next_at() == START + (missed + 2) * 0.020


@pytest.mark.parametrize("missed", [3, 4, 10, 500, 123_456])
def test_a_longer_stall_delays_speech_and_loses_none(missed: int) -> None:
    clock = make()
    said = speech(1000)
    clock.buffer.push(said)
    clock.buffer.end_turn()
    frames = clock.tick()
    late = clock.burst(START + (missed + 1) * 0.020)
    assert audible(late) == "aaa"  # two that were missed and the one that is due
    assert clock.buffer.counters.skipped_deadlines == missed - 2
    assert clock.buffer.next_at() == START + (missed + 2) * 0.020  # still on the grid of the start
    frames += late + clock.tick(60)
    assert sound(frames) == said


def test_silence_after_a_stall_is_not_caught_up_either() -> None:
    clock = make()
    clock.tick()
    assert audible(clock.burst(START + 1.0)) == "---"
    assert clock.buffer.counters.skipped_deadlines == 47


def test_a_second_start_counts_deadlines_anew() -> None:
    clock = make()
    clock.buffer.push(speech(100))
    clock.tick(2)
    clock.buffer.start(2000.5)
    assert clock.buffer.next_at() == 2000.5
    assert audible(clock.tick(4)) == "aaa-"
    assert clock.buffer.counters.skipped_deadlines == 0


# --- a turn


def test_a_turn_is_played_whole_with_its_marks() -> None:
    clock = make()
    said = speech(100)
    assert clock.buffer.push(said)
    assert clock.buffer.end_turn() is False
    frames = clock.tick(7)
    assert audible(frames) == "saaae--"
    assert sound(frames) == said
    assert clock.buffer.counters.silence_frames == 2
    assert clock.buffer.counters.underruns == 0


def test_the_last_partial_frame_is_padded_and_played() -> None:
    clock = make()
    said = speech(53)
    clock.buffer.push(said)
    clock.buffer.end_turn()
    frames = clock.tick(4)
    assert audible(frames) == "sae-"
    assert sound(frames) == said + bytes(7 * MS)
    assert {len(frame.pcm) for frame in frames} == {FRAME}
    assert clock.buffer.heard_ms == 53


def test_the_next_turn_never_shares_a_frame() -> None:
    clock = make()
    one, two = speech(25), speech(25, first=5000)
    clock.buffer.push(one)
    clock.buffer.end_turn()
    clock.buffer.push(two)
    clock.buffer.end_turn()
    frames = clock.tick(5)
    assert audible(frames) == "sese-"
    assert sound(frames) == one + bytes(15 * MS) + two + bytes(15 * MS)


def test_state_can_be_read_at_any_time() -> None:
    clock = make()
    buffer = clock.buffer
    assert (buffer.playing, buffer.buffered_ms, buffer.heard_ms) == (False, 0, 0)
    buffer.push(speech(60))
    assert (buffer.playing, buffer.buffered_ms, buffer.heard_ms) == (False, 60, 0)
    clock.tick()
    assert (buffer.playing, buffer.buffered_ms, buffer.heard_ms) == (True, 40, 20)
    clock.tick(5)
    assert (buffer.playing, buffer.buffered_ms, buffer.heard_ms) == (True, 0, 60)
    assert buffer.end_turn() is True
    assert (buffer.playing, buffer.buffered_ms, buffer.heard_ms) == (False, 0, 60)
    assert buffer.format is FORMAT


# --- the cushion


@pytest.mark.parametrize(("prebuffer_ms", "waits"), [(0, 2), (20, 2), (40, 2), (60, 3), (200, 10)])
def test_a_lone_blip_is_played_when_its_time_is_over(prebuffer_ms: int, waits: int) -> None:
    clock = make(prebuffer_ms)
    clock.buffer.push(speech(5))
    frames = clock.tick(waits + 2)
    assert audible(frames) == "-" * waits + "s-"
    assert frames[waits].pcm == speech(5) + bytes(15 * MS)


@pytest.mark.parametrize(("prebuffer_ms", "limit_s"), [(-1, 1.0), (1000, 1.0), (0, 0.0)])
def test_an_impossible_cushion_is_refused(prebuffer_ms: int, limit_s: float) -> None:
    with pytest.raises(ValueError, match="prebuffer_ms"):
        PlayoutBuffer(FORMAT, prebuffer_ms=prebuffer_ms, limit_s=limit_s)


# --- turns, cushion and underruns, as scripts: pN pushes N ms, tN lets N deadlines pass, c clears,
# e ends the turn, E does so and finds it all played, h holds, r releases

SCRIPTS = {
    "one frame can be a whole turn": (40, "p1 e t2", "x-", 0),
    "an end after the last frame says once that it is over": (40, "p40 t3 E e t2", "sa---", 0),
    "an end without a turn is nothing": (40, "e p10 t2 e t1", "--x", 0),
    "an end said twice ends one turn": (40, "p40 e e p40 t6", "sesa--", 0),
    "a turn waits for its own cushion behind another": (40, "p40 e p20 t3 p20 t2", "se-sa", 0),
    "each turn has a cushion again": (40, "p40 e t2 p39 t1 p1 t1", "se-s", 0),
    "a turn starts when the cushion is full": (60, "p30 t2 p30 t3", "--saa", 0),
    "an ended turn needs no cushion": (200, "p20 t1 e t1", "-x", 0),
    "the cushion's time counts from the first push": (100, "p2 t1 p2 t1 p2 t1 p2 t1 p2 t1 t1", "-----s", 0),
    "without a cushion a frame is played at once": (0, "p20 t1", "s", 0),
    "an underrun counts once, and speech goes on at once": (40, "p40 t5 p40 t2", "sa---aa", 1),
    "nothing more may mean that the turn is over": (40, "p40 t5 E", "sa---", 0),
    "a partial frame is held for its rest": (40, "p50 t4 p10 t2", "sa--a-", 1),
    "a partial frame is held for two deadlines": (40, "p50 t6", "sa--a-", 1),
    "a partial frame padded in mid-turn is a gap": (40, "p50 t5 p20 t1", "sa--aa", 2),
    "a held partial frame is played when the turn ends": (40, "p50 t3 e t2", "sa-e-", 1),
    "a pause between turns is no underrun": (40, "p40 e t4 p40 e t4 p40 e t3", "se--se--se-", 0),
    "the turn after clear has a cushion again": (40, "p100 t2 c p39 t1 e t1", "sa-s", 0),
    "the turn after clear has the cushion's whole time": (40, "p5 t2 c p5 t3", "----s", 0),
    "clear in an underrun leaves no underrun behind": (40, "p40 t4 c p40 t2", "sa--sa", 0),
    "a hold is no underrun": (40, "p100 t2 h t3 r t3", "sa---aaa", 0),
    "a hold leaves an underrun an underrun": (40, "p40 t3 h t2 p40 r t2", "sa---aa", 1),
    "an underrun after a hold is one": (40, "p60 t2 h t2 r t2 p20 t1", "sa--a-a", 1),
    "a turn may begin and end in a hold": (40, "h p40 e t3 r t3", "---se-", 0),
    "a turn whose all was played ends in a hold": (40, "p40 t2 h E t2 r t1", "sa---", 0),
    "a turn ended in a hold is played to its end": (40, "p60 t1 h e t2 r t3", "s--ae-", 0),
    "a cushion neither fills nor waits in a hold": (60, "p30 t1 h t9 r t3", "-" * 10 + "--s", 0),
    "a partial frame waits for its rest after a hold": (40, "p50 t2 h t5 r t3", "sa-------a", 1),
    "clear in a hold leaves nothing": (40, "p100 t1 h t1 c r t2 p40 e t2", "s---se", 0),
    "what is said after clear waits for the release": (40, "p100 t1 h c p40 e t2 r t2", "s--se", 0),
    "held twice is held once": (40, "h h p40 t1 r t2", "-sa", 0),
    "a release without a hold is nothing": (40, "r p40 t2", "sa", 0),
}


@pytest.mark.parametrize(("prebuffer_ms", "script", "heard", "underruns"), SCRIPTS.values(), ids=SCRIPTS)
def test_script(prebuffer_ms: int, script: str, heard: str, underruns: int) -> None:
    clock = make(prebuffer_ms)
    frames: list[PlayoutFrame] = []
    for step in script.split():
        if step[0] == "p":
            clock.buffer.push(speech(int(step[1:])))
        elif step[0] == "t":
            frames += clock.tick(int(step[1:]))
        elif step == "c":
            clock.buffer.clear()
        elif step in "hr":
            clock.buffer.hold() if step == "h" else clock.buffer.release()
        else:
            assert clock.buffer.end_turn() is (step == "E")
    assert audible(frames) == heard
    assert clock.buffer.counters.underruns == underruns


# --- barge-in


def test_clear_tells_what_was_heard_and_what_was_not() -> None:
    clock = make()
    clock.buffer.push(speech(1000))
    clock.tick(7)
    assert clock.buffer.clear() == Heard(played_ms=140, dropped_ms=860)
    assert (clock.buffer.playing, clock.buffer.buffered_ms) == (False, 0)
    assert audible(clock.tick(3)) == "---"
    assert clock.buffer.clear() == Heard(0, 0)


def test_silence_and_padding_are_not_heard() -> None:
    clock = make()
    clock.buffer.push(speech(50))
    clock.tick(8)
    assert clock.buffer.clear() == Heard(played_ms=50, dropped_ms=0)


def test_clear_before_the_first_frame() -> None:
    clock = make()
    clock.buffer.push(speech(30))
    clock.tick()
    assert clock.buffer.clear() == Heard(played_ms=0, dropped_ms=30)


def test_clear_between_turns_interrupts_nothing() -> None:
    clock = make()
    clock.buffer.push(speech(40))
    clock.buffer.end_turn()
    clock.tick(3)
    assert clock.buffer.clear() == Heard(0, 0)


def test_clear_takes_the_turns_behind_with_it() -> None:
    clock = make()
    for _ in range(3):
        clock.buffer.push(speech(40))
        clock.buffer.end_turn()
    clock.tick()
    assert clock.buffer.clear() == Heard(played_ms=20, dropped_ms=100)
    clock.buffer.push(speech(60, first=7000))
    frames = clock.tick(4)
    assert audible(frames) == "saa-"  # none of the old ends cuts the new turn
    assert sound(frames) == speech(60, first=7000)


# --- a hold


def test_a_hold_loses_nothing_and_delays_no_deadline() -> None:
    clock = make()
    said = speech(200)
    clock.buffer.push(said[: 150 * MS])
    frames = clock.tick(3)
    clock.buffer.hold()
    clock.buffer.push(said[150 * MS :])
    clock.buffer.end_turn()
    assert (clock.buffer.held, clock.buffer.playing, clock.buffer.heard_ms) == (True, True, 60)
    held = clock.tick(50)
    assert {frame.pcm for frame in held} == {SILENCE}
    assert audible(held) == "-" * 50
    assert (clock.buffer.held, clock.buffer.playing, clock.buffer.buffered_ms) == (True, True, 140)
    clock.buffer.release()
    frames += clock.tick(7)
    assert audible(frames) == "saaaaaaaae"
    assert sound(frames) == said
    assert clock.now == pytest.approx(START + 59 * 0.020)
    assert clock.buffer.counters.underruns == 0
    assert clock.buffer.counters.silence_frames == 50


def test_clear_in_a_hold_tells_what_was_heard_before() -> None:
    clock = make()
    clock.buffer.push(speech(100))
    clock.tick(2)
    clock.buffer.hold()
    clock.tick(10)
    assert clock.buffer.clear() == Heard(played_ms=40, dropped_ms=60)
    assert clock.buffer.clear() == Heard(0, 0)


def test_empty_means_that_nothing_waits() -> None:
    clock = make()
    assert clock.buffer.empty
    clock.buffer.push(speech(40))
    clock.tick()
    assert not clock.buffer.empty
    clock.tick()
    assert clock.buffer.empty
    clock.buffer.push(speech(10))
    clock.buffer.clear()
    assert clock.buffer.empty


# --- the bound


def test_beyond_the_bound_the_newest_is_refused_and_counted() -> None:
    clock = make(limit_s=1.0)
    assert clock.buffer.push(speech(990))
    assert not clock.buffer.push(speech(11, first=9000))
    assert clock.buffer.push(speech(10, first=7920 + 1))
    assert clock.buffer.counters.refused_bytes == 11 * MS
    clock.buffer.end_turn()
    assert sound(clock.tick(51)) == speech(1000)  # and the oldest is whole
    assert clock.buffer.push(speech(1000))


def test_the_bound_is_two_minutes_unless_told() -> None:
    buffer = PlayoutBuffer(FORMAT)
    minute = bytes(60_000 * MS)
    assert [buffer.push(minute) for _ in range(3)] == [True, True, False]
    assert buffer.buffered_ms == 120_000


def test_half_samples_are_refused() -> None:
    buffer = PlayoutBuffer(FORMAT)
    with pytest.raises(ValueError, match="3 bytes"):
        buffer.push(b"abc")
    assert buffer.buffered_ms == 0


# --- a model of it all


@dataclass
class Model:
    """Says what must come out: the accepted bytes of each turn, in order, each of them once."""

    cushion: int
    turns: list[bytearray] = field(default_factory=lambda: [bytearray()])
    """Unplayed bytes; the last turn is open."""
    begun: bool = False
    heard: int = 0
    held: bool = False
    gap: bool = False
    underruns: int = 0

    def push(self, pcm: bytes) -> None:
        self.turns[-1] += pcm

    def end(self) -> bool:
        over = len(self.turns) == 1 and self.begun and not self.turns[0]
        if over:
            self.begun = False
        elif self.turns[-1]:
            self.turns.append(bytearray())
        return over

    def clear(self) -> Heard:
        heard = Heard(self.heard / MS if self.begun else 0, sum(map(len, self.turns)) / MS)
        self.turns = [bytearray()]
        self.begun = False
        return heard

    def check(self, frame: PlayoutFrame) -> None:
        assert len(frame.pcm) == FRAME
        turn = self.turns[0]
        if self.held:
            assert frame == PlayoutFrame(SILENCE, audible=False, starts_turn=False, ends_turn=False)
            return
        if not frame.audible:
            self.gap = True
            assert frame.pcm == SILENCE
            assert len(self.turns) == 1, "an ended turn waits for nothing"
            assert len(turn) < (FRAME if self.begun else self.cushion), "enough is there to be played"
            return
        size = min(FRAME, len(turn))
        assert size
        assert frame.pcm == bytes(turn[:size]).ljust(FRAME, b"\0")
        del turn[:size]
        self.underruns += self.gap and self.begun
        self.gap = size < FRAME
        assert frame.starts_turn is not self.begun
        self.heard = size if frame.starts_turn else self.heard + size
        self.begun = True
        assert frame.ends_turn is (len(self.turns) > 1 and not turn)
        if frame.ends_turn:
            self.begun = False
            self.turns.pop(0)


PUSH = st.tuples(st.just("push"), st.one_of(st.integers(0, 40), st.integers(0, 3000)))
STEPS = st.lists(
    st.one_of(
        PUSH,
        PUSH,
        st.tuples(st.just("tick"), st.integers(1, 12)),
        st.tuples(st.just("stall"), st.integers(0, 300)),
        st.tuples(st.just("end"), st.just(0)),
        st.tuples(st.sampled_from(["clear", "hold", "release"]), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, prebuffer_ms=st.sampled_from([0, 20, 40, 50, 100]), limit_s=st.sampled_from([0.5, 120.0]))
def test_every_byte_is_played_once_in_order_or_accounted_for(
    steps: list[tuple[str, int]], prebuffer_ms: int, limit_s: float
) -> None:
    clock, model = make(prebuffer_ms, limit_s), Model(cushion=max(FRAME, prebuffer_ms * MS))
    buffer = clock.buffer
    pushed = refused = played = cleared = asked = 0

    def take(frames: list[PlayoutFrame]) -> None:
        nonlocal played, asked
        asked += len(frames)
        for frame in frames:
            left = sum(map(len, model.turns))
            model.check(frame)
            played += left - sum(map(len, model.turns))

    for step, value in [*steps, ("end", 0), ("release", 0), ("drain", 0)]:
        if step == "push":
            pcm = speech(value / 8, first=pushed // 2)
            pushed += len(pcm)
            if buffer.push(pcm):
                model.push(pcm)
            else:
                refused += len(pcm)
        elif step in {"tick", "drain"}:
            frames = clock.tick(value or sum(-(-len(turn) // FRAME) for turn in model.turns))
            assert step == "tick" or all(frame.audible for frame in frames)
            take(frames)
        elif step == "stall":
            late = clock.now + value / 1000
            frames = clock.burst(late)
            assert len(frames) <= 3
            assert late < buffer.next_at() <= late + 0.020 + 1e-9
            take(frames)
        elif step == "end":
            assert buffer.end_turn() is model.end()
        elif step in {"hold", "release"}:
            getattr(buffer, step)()
            model.held = step == "hold"
        else:
            heard = buffer.clear()
            assert heard == model.clear()
            cleared += int(heard.dropped_ms * MS)
        assert buffer.buffered_ms * MS == sum(map(len, model.turns)) <= limit_s * 1000 * MS
        assert buffer.empty is not any(model.turns)
        assert (buffer.playing, buffer.held) == (model.begun, model.held)
        assert buffer.counters.underruns == model.underruns
        grid = round((buffer.next_at() - START) / 0.020)
        assert buffer.next_at() == START + grid * 0.020
        assert grid == asked + buffer.counters.skipped_deadlines

    assert pushed - refused == played + cleared
    assert buffer.buffered_ms == 0
    assert buffer.counters.refused_bytes == refused
    assert buffer.counters.frames == asked
