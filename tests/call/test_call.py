"""One call: every way in, every way out, and nothing left behind."""

from __future__ import annotations

import asyncio
import struct

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ari_gemini.audio.pcm import AudioFormat
from ari_gemini.audio.resample import Resampler
from ari_gemini.audio.wav import prompt_pcm
from ari_gemini.audiosocket.connection import EndReason, MediaEnd
from ari_gemini.call import line as line_module
from ari_gemini.call.agent import APOLOGY, Agent
from ari_gemini.call.call import Call
from ari_gemini.call.settings import CallSettings
from ari_gemini.errors import (
    AriConflict,
    AriDenied,
    AriNotFound,
    AriRejected,
    AriTimeout,
    AriUnavailable,
    CallEnded,
    Cause,
    HandleRefused,
    KeyRefused,
    MalformedMessage,
    ModelRefused,
    QuotaExceeded,
    SessionDropped,
    SessionUnavailable,
    SetupRefused,
)
from ari_gemini.realtime import events
from ari_gemini.realtime.events import AudioDelta, Interrupted, Speaker

SETUP = ["identify", "variables", "open_media", "settle_media", "open_session", "join"]
TONE = struct.pack("<h", 9000) * 480  # 20 ms at 24 kHz


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_module, "SETUP_RETRY_DELAYS", (0.0,))


async def test_a_call_is_set_up_in_order_and_greets_only_when_it_is_joined(rig) -> None:
    await rig.up()
    assert sorted(rig.steps[:5]) == sorted(SETUP[:5])
    assert rig.steps[0] == "identify"
    assert rig.steps.index("open_media") < rig.steps.index("settle_media")
    assert rig.steps[5:] == ["join", "started", "greet Greet Ada {called_number}."]
    assert rig.registry.calls == {rig.call.id: rig.call}
    assert rig.connection.sink is rig.call
    rig.call.end(Cause.CALLER_HANGUP)
    assert (await rig.done()).cause is Cause.CALLER_HANGUP


async def test_media_is_brought_up_beside_the_model(rig, until) -> None:
    rig.steps.hang = {"identify", "settle_media"}
    rig.start()
    await rig.steps.until("settle_media")
    await until(lambda: rig.connection.written)
    assert rig.connection.written == [(bytes(320), 8000)], "silence from the first moment"
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


async def test_without_greeting_the_caller_speaks_first(rig) -> None:
    rig.agents = {"default": Agent()}
    await rig.up()
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()
    assert not [step for step in rig.steps if step.startswith("greet")]
    assert "variables" not in rig.steps


async def test_what_is_known_of_the_caller_reaches_the_instructions(rig) -> None:
    rig.agents = {
        "sales": Agent(
            instructions="{caller_number} {called_number} {ORDER} {ABSENT}|", variables=("ORDER", "ABSENT")
        )
    }
    rig.leg.agent = "sales"
    rig.leg.values = {"ORDER": "42"}
    rig.start()
    await rig.steps.until("started")
    assert rig.settings[0].instructions == "0301234 100 42 |"
    assert rig.leg.asked == ("ORDER", "ABSENT")
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


# Endings from outside.


@pytest.mark.parametrize("cause", [Cause.CALLER_HANGUP, Cause.SHUTDOWN, Cause.MEDIA_LOST])
@pytest.mark.parametrize("step", SETUP)
async def test_the_call_ends_at_any_step_of_the_set_up(rig, step: str, cause: Cause) -> None:
    rig.steps.hang = {step}
    rig.start()
    await rig.steps.until(step)
    rig.call.end(cause, "from outside")
    rig.call.end(Cause.INTERNAL_ERROR, "too late")
    outcome = await rig.done()
    assert (outcome.cause, outcome.detail) == (cause, "from outside")
    assert "started" not in rig.steps
    assert not [step for step in rig.steps if step.startswith("greet")]


@pytest.mark.parametrize("step", [*SETUP, "greet Greet Ada {called_number}."])
async def test_the_call_ends_from_within_any_step(rig, step: str) -> None:
    if step.startswith("greet"):
        await rig.up()
        rig.call.end(Cause.CALLER_HANGUP)
    else:
        rig.steps.on[step] = lambda: rig.call.end(Cause.CALLER_HANGUP)
        rig.start()
    assert (await rig.done()).cause is Cause.CALLER_HANGUP


async def test_a_call_that_is_over_before_it_begins_touches_nothing(rig) -> None:
    rig.start()
    rig.call.end(Cause.SHUTDOWN)
    assert (await rig.done()).cause is Cause.SHUTDOWN
    assert rig.steps == ["release", "released"]


async def test_ending_after_the_end_changes_nothing(rig) -> None:
    await rig.up()
    rig.call.end(Cause.CALLER_HANGUP)
    outcome = await rig.done()
    rig.call.end(Cause.SHUTDOWN)
    rig.call.ended(MediaEnd(EndReason.EOF))
    assert outcome.cause is Cause.CALLER_HANGUP
    assert len(rig.observer.outcomes) == 1


async def test_the_first_word_from_outside_beats_what_fails_because_of_it(rig) -> None:
    rig.steps.hang = {"join"}
    rig.steps.fail_on_cancel["join"] = AriTimeout("no answer")
    rig.start()
    await rig.steps.until("join")
    rig.call.end(Cause.CALLER_HANGUP)
    assert (await rig.done()).cause is Cause.CALLER_HANGUP


@pytest.mark.parametrize("reason", [EndReason.EOF, EndReason.ERROR])
async def test_the_end_of_the_media_ends_the_call_as_the_leg_says(rig, reason: EndReason) -> None:
    await rig.up()
    rig.connection.finish(MediaEnd(reason))
    outcome = await rig.done()
    assert (outcome.cause, outcome.detail) == (Cause.MEDIA_LOST, reason.value)


async def test_media_that_is_over_before_the_call_takes_it(rig) -> None:
    rig.connection.finish(MediaEnd(EndReason.EOF))
    rig.steps.hang = {"open_session"}
    rig.start()
    assert (await rig.done()).cause is Cause.MEDIA_LOST


# Refusals.


async def test_an_unknown_agent(rig) -> None:
    rig.leg.agent = "nobody"
    rig.start()
    outcome = await rig.done()
    assert outcome.cause is Cause.NO_AGENT
    assert "'nobody'" in outcome.detail
    assert "open_session" not in rig.steps


async def test_too_many_calls(rig) -> None:
    rig.registry.max_calls = 0
    rig.start()
    assert (await rig.done()).cause is Cause.OVERLOADED
    assert rig.steps == ["release", "released"]


async def test_an_unknown_caller(rig) -> None:
    rig.steps.fail["identify"] = CallEnded(Cause.UNKNOWN_CALL, "nobody")
    rig.start()
    assert (await rig.done()).cause is Cause.UNKNOWN_CALL


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (AriUnavailable("x"), Cause.ARI_FAILED),
        (AriTimeout("x"), Cause.ARI_FAILED),
        (AriDenied("x", 401), Cause.ARI_FAILED),
        (AriRejected("x", 500), Cause.ARI_FAILED),
        (AriNotFound("x", 404), Cause.CALLER_HANGUP),
        (AriConflict("x", 409), Cause.CALLER_HANGUP),
        (TimeoutError("a leg's own"), Cause.INTERNAL_ERROR),
        (ZeroDivisionError("defect"), Cause.INTERNAL_ERROR),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.value,
)
@pytest.mark.parametrize("step", ["identify", "variables", "open_media", "settle_media", "join"])
async def test_asterisk_fails_a_step(rig, step: str, error: Exception, cause: Cause) -> None:
    rig.steps.fail[step] = error
    rig.start()
    outcome = await rig.done()
    assert outcome.cause is cause
    assert str(error) in outcome.detail


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (KeyRefused("x"), Cause.MODEL_REFUSED),
        (ModelRefused("x"), Cause.MODEL_REFUSED),
        (SetupRefused("x"), Cause.MODEL_REFUSED),
        (QuotaExceeded("x"), Cause.MODEL_UNAVAILABLE),
        (HandleRefused("x"), Cause.MODEL_UNAVAILABLE),
        (OSError("x"), Cause.INTERNAL_ERROR),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.value,
)
async def test_the_model_refuses(rig, error: Exception, cause: Cause) -> None:
    rig.steps.fail["open_session"] = error
    rig.start()
    assert (await rig.done()).cause is cause
    assert len(rig.settings) == 1, "no second attempt"


@pytest.mark.parametrize(
    "error", [SessionUnavailable("busy"), SessionDropped("cut"), MalformedMessage("what?")]
)
async def test_the_model_is_asked_again_while_that_can_help(rig, error: Exception) -> None:
    rig.refusals = [error, error, error]
    await rig.up()
    assert len(rig.settings) == 4
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


async def test_hanging_up_while_the_model_is_asked_again(rig, until) -> None:
    rig.refusals = [SessionUnavailable("busy")] * 1000
    rig.start()
    await until(lambda: len(rig.settings) >= 5)
    rig.call.end(Cause.CALLER_HANGUP)
    assert (await rig.done()).cause is Cause.CALLER_HANGUP


# The patience of the set-up.


@pytest.mark.parametrize(
    ("step", "cause", "word"),
    [
        ("identify", Cause.ARI_FAILED, "no word of who calls within 0.01 s"),
        ("variables", Cause.ARI_FAILED, "no media within 0.01 s"),
        ("open_media", Cause.ARI_FAILED, "no media within 0.01 s"),
        ("settle_media", Cause.ARI_FAILED, "no media within 0.01 s"),
        ("open_session", Cause.MODEL_UNAVAILABLE, "no model within 0.01 s"),
    ],
)
async def test_a_set_up_that_takes_too_long(rig, step: str, cause: Cause, word: str) -> None:
    rig.steps.hang = {step}
    rig.start(setup_timeout=0.01)
    outcome = await rig.done()
    assert (outcome.cause, outcome.detail) == (cause, word)


async def test_a_model_that_never_comes_says_why(rig) -> None:
    rig.refusals = [SessionUnavailable("busy")]
    rig.steps.on["open_session"] = lambda: rig.steps.hang.update(
        {"open_session"} if len(rig.settings) > 1 else ()
    )
    rig.start(setup_timeout=0.05)
    outcome = await rig.done()
    assert outcome.cause is Cause.MODEL_UNAVAILABLE
    assert outcome.detail == "no model within 0.05 s: busy"


async def test_patience_ends_with_the_set_up(rig) -> None:
    """Joining has the limits of its own requests."""
    rig.steps.hang = {"join"}
    rig.start(setup_timeout=0.01)
    await rig.steps.until("join")
    await asyncio.sleep(0.02)  # no wait for anything to happen: for a timer that must not be there
    assert not rig.task.done()
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


async def test_a_session_that_ignores_being_cancelled_is_closed_all_the_same(rig) -> None:
    session_made = asyncio.Event()

    opens = rig.open_session

    async def stubborn(settings, **given):
        made = await opens(settings, **given)
        session_made.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return made

    rig.open_session = stubborn
    rig.start()
    await session_made.wait()
    rig.call.end(Cause.CALLER_HANGUP)
    assert (await rig.done()).cause is Cause.CALLER_HANGUP
    assert [session.closed for session in rig.sessions] == [1]


async def test_a_session_that_comes_when_the_call_ends_is_closed(rig) -> None:
    rig.steps.on["open_session"] = lambda: rig.call.end(Cause.CALLER_HANGUP)  # and opens without waiting
    rig.start()
    await rig.done()
    assert [session.closed for session in rig.sessions] == [1]


# In mid-call.


async def test_a_model_lost_for_good_ends_the_call_after_an_apology(rig, clock) -> None:
    rig.agents = {"default": Agent()}
    session = await rig.up()
    rig.refusals = [KeyRefused("expired")]
    played = len(rig.connection.speech)
    session.fail(SessionDropped("gone"))
    outcome = await rig.done()
    assert (outcome.cause, outcome.detail) == (Cause.MODEL_LOST, "expired")
    apology = prompt_pcm(APOLOGY, 8000)
    assert apology in rig.connection.speech[played:], "he has heard all of it"


async def test_no_apology_where_none_is_wanted(rig, clock) -> None:
    rig.agents = {"default": Agent(apology="none")}
    session = await rig.up()
    rig.refusals = [KeyRefused("expired")]
    session.fail(SessionDropped("gone"))
    assert (await rig.done()).cause is Cause.MODEL_LOST
    assert not any(rig.connection.speech)


async def test_a_caller_who_leaves_during_the_apology(rig, clock, until) -> None:
    rig.agents = {"default": Agent()}
    session = await rig.up()
    rig.refusals = [KeyRefused("expired")]
    session.fail(SessionDropped("gone"))
    await until(lambda: any(rig.connection.speech))
    rig.call.end(Cause.CALLER_HANGUP)
    assert (await rig.done()).cause is Cause.CALLER_HANGUP


async def test_audio_of_an_impossible_rate_from_asterisk(rig) -> None:
    await rig.up()
    rig.call.audio(b"\0\0", 44100)
    assert (await rig.done()).cause is Cause.MEDIA_ERROR


async def test_a_defect_is_logged_with_its_traceback(rig) -> None:
    with structlog.testing.capture_logs() as logs:
        session = await rig.up()
        session.fail(ZeroDivisionError("oh"))
        outcome = await rig.done()
    assert (outcome.cause, outcome.detail) == (Cause.INTERNAL_ERROR, "ZeroDivisionError('oh')")
    (defect,) = [line for line in logs if line["event"] == "call.defect"]
    assert isinstance(defect["exc_info"], ZeroDivisionError)


async def test_an_observer_that_raises_ends_its_call_only(rig) -> None:
    rig.observer.started = lambda call: 1 / 0
    rig.start()
    assert (await rig.done()).cause is Cause.INTERNAL_ERROR


async def test_two_failures_at_once_ours_is_told_before_a_defect(rig) -> None:
    rig.steps.hang = {"open_media"}
    rig.steps.fail_on_cancel["open_media"] = ZeroDivisionError("while cancelled")
    rig.steps.fail["open_session"] = KeyRefused("no")
    rig.start()
    assert (await rig.done()).cause is Cause.MODEL_REFUSED


# Cleaning up.


async def test_a_defect_of_the_leg_keeps_nothing_else_from_closing(rig) -> None:
    with structlog.testing.capture_logs() as logs:
        await rig.up()
        rig.steps.fail["release"] = ZeroDivisionError("oh")
        rig.call.end(Cause.CALLER_HANGUP)
        await rig.done()
    assert [line["event"] for line in logs].count("call.defect") == 1
    assert logs[-1]["event"] == "call.ended"


async def test_a_defect_of_the_session_keeps_nothing_else_from_closing(rig) -> None:
    session = await rig.up()
    session.close_error = ZeroDivisionError("oh")
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()
    assert "released" in rig.steps


async def test_nothing_is_written_once_the_call_is_over(rig) -> None:
    await rig.up()
    rig.leg.release_hangs = asyncio.Event()
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.steps.until("release")
    assert rig.call.downlink._timer is None
    assert "session closed" in rig.steps or not rig.task.done()
    rig.leg.release_hangs.set()
    await rig.done()


@pytest.mark.parametrize("step", [*SETUP, "up"])
async def test_cancelling_cleans_up_and_goes_on(rig, step: str) -> None:
    rig.steps.hang = {step}
    if step == "up":
        await rig.up()
    else:
        rig.start()
        await rig.steps.until(step)
    rig.task.cancel()
    outcome = await rig.done()
    assert rig.task.cancelled()
    assert (outcome.cause, outcome.detail) == (Cause.SHUTDOWN, "cancelled")


@pytest.mark.parametrize("step", ["open_media", "open_session", "join"])
async def test_cancelling_is_not_forgotten_when_a_step_fails_at_the_same_time(rig, step: str) -> None:
    rig.steps.hang = {step}
    rig.steps.fail_on_cancel[step] = AriTimeout("while cancelled")
    rig.start()
    await rig.steps.until(step)
    rig.task.cancel()
    assert (await rig.done()).cause is Cause.SHUTDOWN
    assert rig.task.cancelled()


async def test_cancelling_during_the_clean_up_lets_it_finish(rig) -> None:
    await rig.up()
    rig.leg.release_hangs = asyncio.Event()
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.steps.until("release")
    for _ in range(3):
        rig.task.cancel()
        await asyncio.sleep(0)
    assert not rig.task.done()
    rig.leg.release_hangs.set()
    assert (await rig.done()).cause is Cause.CALLER_HANGUP
    assert rig.task.cancelled()
    assert rig.steps[-1] == "released" or "released" in rig.steps


async def test_cancelling_a_call_that_has_ended_keeps_its_cause(rig) -> None:
    rig.steps.hang = {"open_session"}
    rig.start()
    await rig.steps.until("open_session")
    rig.call.end(Cause.CALLER_HANGUP)
    rig.task.cancel()
    assert (await rig.done()).cause is Cause.CALLER_HANGUP


async def test_a_task_that_was_cancelled_before_can_still_run_a_call(rig) -> None:
    """As when a cancelled task answers one last caller: that cancellation is not the call's."""
    rig.steps.fail["identify"] = AriTimeout("x")

    async def afterwards() -> CallEnded:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return await rig.make().run()
        raise AssertionError

    rig.task = asyncio.create_task(afterwards())
    await asyncio.sleep(0)
    rig.task.cancel()
    assert (await rig.done()).cause is Cause.ARI_FAILED
    assert not rig.task.cancelled()


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whenever_it_ends_nothing_is_left(data: st.DataObject, rig_type, until) -> None:
    """The end, or a cancellation, comes after any number of the event loop's rounds."""
    rounds = data.draw(st.integers(1, 40))
    how = data.draw(st.sampled_from(["end", "cancel", "both", "media", "session"]))
    refusals = data.draw(st.integers(0, 2))

    async def live() -> None:
        rig = rig_type()
        rig.refusals = [SessionUnavailable("busy")] * refusals
        rig.start()
        for _ in range(rounds):
            await asyncio.sleep(0)
        if how in ("end", "both"):
            rig.call.end(Cause.CALLER_HANGUP)
        if how in ("cancel", "both"):
            rig.task.cancel()
        if how == "media":
            rig.connection.finish(MediaEnd(EndReason.EOF))
        if how == "session":
            await until(lambda: rig.sessions)
            rig.lose_model()
        expected = {"media": Cause.MEDIA_LOST, "session": Cause.MODEL_LOST}.get(how, Cause.CALLER_HANGUP)
        if how == "cancel":
            expected = Cause.SHUTDOWN
        assert (await rig.done()).cause is expected

    with structlog.testing.capture_logs():
        asyncio.run(live())


# What is said.


async def test_what_the_caller_says_reaches_the_model(rig) -> None:
    session = await rig.up()
    frames = [struct.pack("<160h", *range(n, n + 160)) for n in range(5)]
    for frame in frames:
        rig.call.audio(frame, 8000)
    heard = await session.until_heard(5 * 640)
    assert heard == Resampler(AudioFormat(8000), AudioFormat(16000)).process(b"".join(frames))
    rig.call.digit("5")
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()


async def test_the_report_of_a_call_is_one_line(rig) -> None:
    with structlog.testing.capture_logs() as logs:
        await rig.up()
        rig.call.end(Cause.CALLER_HANGUP, "why")
        await rig.done()
    lines = [line for line in logs if line["event"] == "call.ended"]
    assert [(line["cause"], line["detail"], line["call"]) for line in lines] == [
        ("caller_hangup", "why", rig.leg.id)
    ]


async def test_the_report_tells_what_was_lost_and_nothing_that_was_not(rig) -> None:
    with structlog.testing.capture_logs() as logs:
        await rig.up()
        stats, counters = rig.connection.stats, rig.call.downlink.buffer.counters
        stats.unknown_in, stats.dropped_out = 3, 2
        counters.underruns, counters.skipped_deadlines = 1, 0
        rig.call._texts.dropped = 4
        rig.call.end(Cause.CALLER_HANGUP)
        await rig.done()
    (line,) = [line for line in logs if line["event"] == "call.ended"]
    usual = {"call", "log_level", "event", "cause", "detail", "seconds", "turns"}
    told = {name: count for name, count in line.items() if name not in usual}
    assert told == {
        "uplink_dropped": 0,
        "late_audio_ms": 0,
        "texts_dropped": 4,
        "media_unknown": 3,
        "media_dropped_out": 2,
        "underruns": 1,
    }


async def test_without_an_observer(rig, until) -> None:
    call = Call(
        rig.leg,
        settings=CallSettings(prebuffer_ms=0),
        agents=rig.agents,
        open_session=rig.open_session,
        registry=rig.registry,
        tools=rig.tools,
    )
    task = asyncio.create_task(call.run())
    await until(lambda: any(step.startswith("greet") for step in rig.steps))
    session = rig.sessions[0]
    await session.say(events.Transcript(Speaker.MODEL, "x"), AudioDelta(TONE, 24000), Interrupted())
    call.end(Cause.CALLER_HANGUP)
    assert (await task).cause is Cause.CALLER_HANGUP


@pytest.mark.parametrize(
    "wrong", [{"max_calls": 0}, {"setup_timeout": 0}, {"answer": "later"}, {"prebuffer_ms": -1}, {"nope": 1}]
)
def test_settings_that_make_no_sense(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CallSettings(**wrong)


async def test_a_key_at_the_first_sound_of_the_model_leaves_nobody_waiting(rig) -> None:
    """Between the sound's arrival and the first deadline: it is thrown away before it was played."""
    session = await rig.up()
    session.inbox.put_nowait((AudioDelta(b"\x00\x10" * 4800, 24000),))
    for _ in range(20):
        await asyncio.sleep(0)
        if rig.call._watchdogs.model.heard:
            break
    assert rig.call._watchdogs.model.heard
    rig.call.key_pressed("5")
    assert rig.call.downlink.buffer.empty
    assert not rig.call._watchdogs.model.heard
    rig.call.end(Cause.CALLER_HANGUP)
    await rig.done()
