"""The watchdogs at work: one timer, few of them, and nothing out of it that could hurt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from ari_gemini.call.caller_watch import CallerLimits
from ari_gemini.call.model_watch import SECOND_THOUGHT, Fault, StallSettings
from ari_gemini.call.watch import Watch
from ari_gemini.errors import Cause

BEGIN = 1000.0
LOUD = b"\x00\x40" * 480  # 20 ms at 24 kHz
SILENT = b"\x01\x00" * 480
STALL = StallSettings(stall_after=8, nudge="speak")
LIMITS = CallerLimits(
    no_input_after=15,
    no_input_prompts=("there?",),
    no_input_goodbye="bye",
    max_duration=600,
    duration_warning="soon",
    duration_goodbye="late",
    max_silence=120,
)


class Loop(asyncio.AbstractEventLoop):
    """A clock and timers that move only when the test says so."""

    def __init__(self) -> None:
        self.now = BEGIN
        self.timers: list[asyncio.TimerHandle] = []
        self.made = 0

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self.timers.remove(handle)

    def call_at(self, when: float, callback: Callable, *args, context=None) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self)
        handle._scheduled = True
        self.timers.append(handle)
        self.made += 1
        return handle

    def advance(self, seconds: float, *, early: float = 0.0) -> None:
        """Let time pass; timers fire ``early`` seconds before their time."""
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.when() - early <= end]:
            timer = min(due, key=lambda handle: handle.when())
            self.timers.remove(timer)
            timer._scheduled = False
            self.now = max(self.now, timer.when() - early)
            timer._run()
            early = 0.0
        self.now = end


class Call:
    """A watch, its clock, and what it had done."""

    def __init__(self, stall: StallSettings = STALL, limits: CallerLimits = LIMITS) -> None:
        self.loop = Loop()
        self.done: list[tuple] = []
        self.comforted: list[tuple[float, bool]] = []
        self.watch = Watch(self, structlog.get_logger(), loop=self.loop)
        self.settings = stall, limits

    def begin(self) -> None:
        self.watch.begin(*self.settings)

    def note(self, *what: object) -> None:
        self.done.append((self.loop.now - BEGIN, *what))

    def nudge(self, text: str, fault: Fault) -> None:
        self.note("nudge", text, fault)

    def comfort(self, on: bool) -> None:
        self.comforted.append((self.loop.now - BEGIN, on))

    def reconnect(self, reason: str) -> None:
        self.note("reconnect", reason)

    def give_up(self, cause: Cause, detail: str) -> None:
        self.note("give_up", cause, detail)

    def tell(self, text: str) -> None:
        self.note("tell", text)

    def end(self, cause: Cause, detail: str) -> None:
        self.note("end", cause, detail)

    def took(self) -> list[tuple]:
        done, self.done = self.done, []
        return done


@pytest.fixture
def call() -> Call:
    return Call()


def say(call: Call, seconds: float = 1.0) -> None:
    call.watch.caller_started()
    call.loop.advance(seconds)
    call.watch.caller_stopped()


def answer(call: Call, seconds: float = 1.0) -> None:
    call.watch.model_audio(LOUD, 24000)
    call.watch.generation_complete()
    call.loop.advance(seconds)
    call.watch.played_out()
    call.watch.turn_complete(None)


def test_what_the_model_did_not_do_is_counted(call: Call) -> None:
    call.begin()
    assert not any(call.watch.counted().values())
    say(call)
    call.loop.advance(20)
    call.watch.turn_complete("RESPONSE_REJECTED")
    counted = {name: count for name, count in call.watch.counted().items() if count}
    assert counted == {"model_stall": 2, "model_rejected": 1, "model_nudge": 1, "model_reconnect": 1}


NO_ANSWER = "the model does not answer: stall"


def test_a_model_that_never_answers(call: Call) -> None:
    call.begin()
    say(call)
    with capture_logs() as logs:
        call.loop.advance(100)
    assert call.took() == [
        (9.0, "nudge", "speak", Fault.STALL),
        (17.0, "reconnect", NO_ANSWER),
        (25.0, "give_up", Cause.MODEL_STALLED, NO_ANSWER),
        (40.0, "tell", "there?"),
        (55.0, "tell", "bye"),
        (75.0, "end", Cause.NO_INPUT, "no word from the caller"),
    ]
    assert [(log["event"], log["remedy"]) for log in logs] == [
        ("call.model_fault", remedy) for remedy in ("nudge", "reconnect", "give_up")
    ]
    assert call.loop.timers == []


def test_a_good_talk(call: Call) -> None:
    call.begin()
    for _ in range(20):
        say(call, 3)
        call.loop.advance(1.5)
        answer(call, 4)
        call.loop.advance(2)
    assert call.took() == []
    assert len(call.loop.timers) == 1


def test_a_silent_caller_and_a_model_that_does_as_it_is_told(call: Call) -> None:
    call.begin()
    call.watch.asked()
    call.loop.advance(1)
    answer(call)
    call.loop.advance(15)
    assert call.took() == [(17.0, "tell", "there?")]
    call.loop.advance(1)
    answer(call)
    call.loop.advance(15)
    assert call.took() == [(34.0, "tell", "bye")]
    call.loop.advance(1)
    answer(call)
    call.loop.advance(100)
    assert call.took() == [(37.0, "end", Cause.NO_INPUT, "no word from the caller")]


def test_a_prompt_wants_an_answer_too(call: Call) -> None:
    call.begin()
    call.loop.advance(23)
    assert call.took() == [(15.0, "tell", "there?"), (23.0, "nudge", "speak", Fault.STALL)]


def test_during_a_goodbye_the_model_is_left_alone() -> None:
    call = Call(limits=LIMITS.model_copy(update={"no_input_prompts": ()}))
    call.begin()
    call.loop.advance(34.5)
    assert call.took() == [(15.0, "tell", "bye")]
    call.watch.caller_active()
    call.loop.advance(0.25)
    assert call.took() == [(34.5, "nudge", "speak", Fault.STALL)]


def test_no_input_waits_until_the_model_has_answered_or_wants_to_be_silent(call: Call) -> None:
    call.begin()
    say(call)
    call.loop.advance(5)
    call.watch.waiting_for_input()
    call.loop.advance(14.9)
    assert call.took() == []
    call.loop.advance(0.1)
    assert call.took() == [(21.0, "tell", "there?")]


def test_an_empty_turn(call: Call) -> None:
    call.begin()
    say(call)
    call.watch.turn_complete("RESPONSE_REJECTED")
    call.loop.advance(1)
    assert call.took() == [(1 + SECOND_THOUGHT, "nudge", "speak", Fault.REJECTED)]


def test_silent_audio(call: Call) -> None:
    call.begin()
    say(call)
    for _ in range(50):
        call.watch.model_audio(SILENT, 24000)
    call.watch.generation_complete()
    call.loop.advance(1)
    assert call.took() == [(1 + SECOND_THOUGHT, "nudge", "speak", Fault.SILENT_AUDIO)]


def test_every_word_reaches_both(call: Call) -> None:
    watch, loop = call.watch, call.loop
    call.begin()
    for begin, end in (
        (lambda: watch.tools_busy(True), lambda: watch.tools_busy(False)),
        (lambda: watch.away(True), lambda: watch.away(False)),
    ):
        watch.asked()
        begin()
        loop.advance(200)
        assert call.took() == []
        end()
        loop.advance(7.9)
        assert call.took() == []
        answer(call, 0.1)
    watch.asked()
    watch.session_lost()
    loop.advance(50)
    watch.session_changed()
    loop.advance(7.9)
    assert call.took() == []
    watch.interrupted()
    loop.advance(8)
    assert [done[1] for done in call.took()] == ["nudge"]


def test_a_tool_s_silent_turn(call: Call) -> None:
    call.begin()
    say(call)
    call.watch.tool_called()
    call.watch.turn_complete(None)
    call.loop.advance(1)
    assert call.took() == []


def test_the_limits_run_only_from_the_beginning(call: Call) -> None:
    call.loop.advance(500)
    assert call.took() == []
    assert call.loop.timers == []


def test_the_longest_call(call: Call) -> None:
    call.begin()
    while call.loop.now < BEGIN + 700 and not any("end" in done for done in call.done):
        say(call, 3)
        call.loop.advance(2)
        answer(call, 2)
    told = [done[1:] for done in call.took()]
    assert told == [("tell", "soon"), ("tell", "late"), ("end", Cause.MAX_DURATION, "600 s are over")]
    assert call.loop.timers == []


# The timer.


def test_a_deadline_that_moves_away_costs_no_timer(call: Call) -> None:
    call.begin()
    call.watch.asked()
    made = call.loop.made
    for _ in range(1000):
        call.watch.asked()
        call.loop.advance(0.002)
    assert call.loop.made == made
    call.loop.advance(8)
    assert call.loop.made <= made + 3, "one that found a later deadline, one for the tone, one for the nudge"
    assert [done[1] for done in call.took()] == ["nudge"]


def test_a_caller_who_waits_hears_that_the_line_lives(call: Call) -> None:
    call.begin()
    say(call, 1.0)
    call.loop.advance(4.0)
    call.watch.model_audio(LOUD, 24000)
    call.loop.advance(1.0)
    call.watch.played_out()
    call.loop.advance(3.0)
    call.watch.caller_started()
    call.loop.advance(1.0)
    call.watch.caller_stopped()
    call.loop.advance(2.4)
    answer(call)
    call.loop.advance(5.0)
    assert call.comforted == [
        (3.5, True),  # after his sentence
        (5.0, False),  # the model speaks
        (7.0, True),  # its sound ran dry in mid-turn
        (9.0, False),  # he speaks himself
    ]
    assert call.took() == []


def test_the_sign_of_life_goes_on_through_nudges_and_ends_with_the_session(call: Call) -> None:
    call.begin()
    call.watch.asked()
    call.loop.advance(15.0)
    call.watch.session_lost()
    call.loop.advance(15.0)
    call.watch.session_changed()
    call.loop.advance(3.0)
    call.watch.tools_busy(True)
    assert call.comforted == [(2.5, True), (15.0, False), (30.0, True), (33.0, False)]


def test_an_answer_may_come_behind_words_that_are_still_heard(call: Call) -> None:
    """A model says that it will look, a tool answers at once, and the same turn goes on."""
    call.begin()
    say(call)
    call.watch.model_audio(LOUD, 24000)
    call.watch.tools_busy(True)
    call.watch.tools_busy(False)
    call.watch.asked()
    call.watch.model_audio(LOUD, 24000)
    assert not call.watch.model.owes
    call.watch.generation_complete()
    call.loop.advance(3.0)
    call.watch.played_out()
    call.watch.turn_complete(None)
    call.loop.advance(14.0)
    assert (call.comforted, call.took()) == ([], [])
    call.loop.advance(1.1)
    assert [done[1] for done in call.took()] == ["tell"], "it is the caller's turn, and that is known"


def test_what_was_cut_off_is_not_waited_for(call: Call) -> None:
    call.begin()
    say(call)
    call.watch.model_audio(LOUD, 24000)
    call.watch.cut_off()
    call.watch.played_out()
    call.loop.advance(10.0)
    call.watch.turn_complete(None)
    assert (call.comforted, call.took()) == ([], [])


@pytest.mark.parametrize("after", [4.0, 5.0, 300.0])
def test_a_nudge_is_no_answer(call: Call, after: float) -> None:
    call.settings = StallSettings(stall_after=4, comfort_after=after), LIMITS
    call.begin()
    call.watch.asked()
    call.loop.advance(5.0)
    assert call.comforted == [(4.0, True)]


def test_without_a_sign_of_life(call: Call) -> None:
    call.settings = StallSettings(comfort_after=0), LIMITS
    call.begin()
    call.watch.asked()
    call.loop.advance(30.0)
    assert call.comforted == []
    assert len(call.took()) == 3


def test_audio_costs_no_timer_and_no_measuring(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    call.begin()
    say(call)
    call.watch.model_audio(LOUD, 24000)
    made = call.loop.made
    monkeypatch.setattr("ari_gemini.call.watch.level_dbfs", lambda _: pytest.fail("measured"))
    for _ in range(1000):
        call.watch.model_audio(LOUD, 24000)
    assert call.loop.made == made


def test_a_timer_that_fires_early_does_nothing_too_early(call: Call) -> None:
    call.begin()
    call.watch.asked()
    call.loop.advance(7.9999, early=0.0005)
    assert call.took() == []
    call.loop.advance(0.0001)
    assert [done[1] for done in call.took()] == ["nudge"]


def test_stop(call: Call) -> None:
    call.begin()
    call.watch.asked()
    call.watch.stop()
    call.watch.stop()
    assert call.loop.timers == []
    say(call)
    call.watch.turn_complete(None)
    call.loop.advance(1000)
    assert call.took() == []
    assert call.loop.timers == []


def test_whoever_stops_it_from_inside(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "tell", lambda text: call.watch.stop())
    call.begin()
    call.loop.advance(1000)
    assert call.took() == []
    assert call.loop.timers == []


def test_whoever_tells_it_things_from_inside(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def reconnect(_: str) -> None:
        call.note("reconnect")
        call.watch.session_lost()
        call.watch.session_changed()
        call.watch.asked()

    monkeypatch.setattr(call, "reconnect", reconnect)
    call.begin()
    say(call)
    call.loop.advance(26)
    assert [done[:2] for done in call.took()] == [(9.0, "nudge"), (17.0, "reconnect"), (25.0, "give_up")]
    assert len(call.loop.timers) == 1


def test_a_helper_with_a_defect_is_logged_and_the_rest_goes_on(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nudge(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(call, "nudge", nudge)
    call.begin()
    say(call)
    with capture_logs() as logs:
        call.loop.advance(20)
    assert [log["event"] for log in logs] == ["call.model_fault", "call.defect", "call.model_fault"]
    assert [done[1] for done in call.took()] == ["reconnect"]


WORDS = ("caller_started", "caller_stopped", "caller_active", "asked", "tool_called", "played_out")
WORDS += ("interrupted", "generation_complete", "waiting_for_input", "session_lost", "session_changed")
EVENTS = [(word, ()) for word in WORDS]
EVENTS += [(word, (is_so,)) for word in ("away", "tools_busy") for is_so in (True, False)]
EVENTS += [("turn_complete", (reason,)) for reason in (None, "RESPONSE_REJECTED")]
EVENTS += [("model_audio", (pcm, 24000)) for pcm in (LOUD, SILENT)]


@given(st.lists(st.tuples(st.floats(0, 30), st.sampled_from(EVENTS)), max_size=40))
def test_there_is_never_more_than_one_timer_and_never_too_late_a_one(story: list) -> None:
    call = Call()
    call.begin()
    for pause, (name, args) in story:
        call.loop.advance(pause)
        getattr(call.watch, name)(*args)
        due = call.watch._due_at()
        assert len(call.loop.timers) <= 1
        if due is not None and not any(done[1] == "end" for done in call.done):
            assert call.loop.timers[0].when() <= due
    ends = [done for done in call.done if done[1] == "end"]
    assert len(ends) <= 1
    assert not ends or call.done[-1] is ends[0], "nothing after the end"
    assert sum(done[1] == "nudge" for done in call.done) <= STALL.max_nudges
    assert sum(done[1] == "reconnect" for done in call.done) <= STALL.max_reconnects
    assert sum(done[1] == "give_up" for done in call.done) <= 1
