"""What a session leaves to the next one: its handle, its patience, and how much of what it sent arrived."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import SecretStr

from ari_gemini.errors import SessionDropped, SessionError, SessionUnavailable
from ari_gemini.gemini import session as session_module
from ari_gemini.gemini.session import GeminiSession, open_session
from ari_gemini.realtime.events import Speaker
from ari_gemini.realtime.session import HistoryTurn, Resume, SessionSettings

LONG = 30.0
HISTORY = [
    HistoryTurn(Speaker.MODEL, "Hello."),
    HistoryTurn(Speaker.CALLER, "My number"),
    HistoryTurn(Speaker.CALLER, "is 12."),
]
UPDATE = {"sessionResumptionUpdate": {"newHandle": "h-1", "resumable": True}}
RARELY: dict[str, Any] = {"ping_interval": LONG, "lost_after": LONG}
"""One ping at once, behind the setup, and no other."""
OFTEN: dict[str, Any] = {"ping_interval": 0.02, "lost_after": LONG}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits a whole second for a closing handshake that will not come."""
    monkeypatch.setattr(session_module, "CLOSE_TIMEOUT", 0.05)


async def opened(gemini: Any, given: dict[str, Any] | None = None, **arguments: Any) -> GeminiSession:
    async with asyncio.timeout(LONG):
        return await open_session(gemini.settings(**(given or {})), SessionSettings(), **arguments)


async def ending(session: GeminiSession) -> SessionError:
    async with asyncio.timeout(LONG):
        try:
            while True:
                await session.receive()
        except SessionError as error:
            return error


async def talks(wire: Any) -> None:
    """A service that takes whatever comes."""
    await wire.open()
    while True:
        await wire.next()


async def goes_silent(wire: Any) -> None:
    """A service that hands out a handle and is heard no more."""
    await wire.open()
    await wire.say(UPDATE)
    wire.websocket.transport.pause_reading()
    await wire.over()


# What arrived


async def test_a_pong_confirms_all_that_was_sent_before(gemini: Any, until: Any) -> None:
    gemini.script = talks
    session = await opened(gemini, OFTEN)
    assert session.sent == 1, "the setup"
    for number in range(3):
        await session.send_text(str(number))
        assert session.sent == 2 + number
    await until(lambda: session.confirmed == 4)
    await session.close()
    assert session.confirmed == session.sent == 4


async def test_what_was_sent_after_the_last_ping_is_not_confirmed(gemini: Any, until: Any) -> None:
    gemini.script = talks
    session = await opened(gemini, RARELY)
    await until(lambda: session.confirmed)
    for _ in range(3):
        await session.send_text("Hello")
    await until(lambda: len(gemini.received) == 4)
    assert (session.sent, session.confirmed) == (4, 1)
    await session.close()


async def test_a_clean_close_confirms_all(gemini: Any, until: Any) -> None:
    gemini.script = talks
    session = await opened(gemini, RARELY)
    await until(lambda: session.confirmed)
    for _ in range(3):
        await session.send_text("Hello")
    await session.close()
    assert (session.sent, session.confirmed) == (4, 4)
    with pytest.raises(SessionError):
        await session.send_text("too late")
    await session.close()
    assert (session.sent, session.confirmed) == (4, 4)


@pytest.mark.parametrize("how", ["aborted", "closed by the service"])
async def test_an_end_from_there_confirms_nothing_new(gemini: Any, until: Any, how: str) -> None:
    async def script(wire: Any) -> None:
        await wire.open()
        await wire.next()
        if how == "aborted":
            wire.websocket.transport.abort()
        else:
            await wire.websocket.close(1011, "Internal error encountered.")

    gemini.script = script
    session = await opened(gemini, RARELY)
    await until(lambda: session.confirmed)
    await session.send_text("Hello")
    await ending(session)
    await session.close()
    assert (session.sent, session.confirmed) == (2, 1)


async def test_a_close_that_is_not_answered_confirms_nothing_new(
    gemini: Any, until: Any, impatient: None
) -> None:
    deaf = asyncio.Event()

    async def script(wire: Any) -> None:
        await wire.open()
        await deaf.wait()
        wire.websocket.transport.pause_reading()
        deaf.clear()
        await wire.over()

    gemini.script = script
    session = await opened(gemini, RARELY)
    await until(lambda: session.confirmed)
    deaf.set()
    await until(lambda: not deaf.is_set())
    await session.send_text("Hello")
    async with asyncio.timeout(LONG):
        await session.close()
    assert (session.sent, session.confirmed) == (2, 1)
    gemini.over.set()


async def test_a_message_that_was_not_sent_is_not_counted(gemini: Any) -> None:
    async def script(wire: Any) -> None:
        await wire.open()
        wire.websocket.transport.abort()

    gemini.script = script
    session = await opened(gemini, RARELY)
    await ending(session)
    with pytest.raises(SessionDropped):
        await session.send_text("Hello")
    assert session.sent == 1
    await session.close()


async def test_without_pings_what_was_sent_counts_as_arrived(gemini: Any) -> None:
    gemini.script = talks
    session = await opened(gemini, {"ping_interval": None})
    await session.send_text("Hello")
    assert (session.sent, session.confirmed) == (2, 2)
    await session.close()


# What the next one goes on from


async def test_there_is_nothing_to_resume_before_the_first_handle(gemini: Any) -> None:
    async def script(wire: Any) -> None:
        await wire.open()
        await wire.next()
        await wire.say(UPDATE)

    gemini.script = script
    session = await opened(gemini, {"lost_after": 7.0})
    assert session.resume is None
    assert not session.resumed
    await session.send_text("Hello")
    async with asyncio.timeout(LONG):
        while not await session.receive():
            pass
    assert session.resume == Resume("h-1", None, 7.0)
    await session.close()
    assert session.resume == Resume("h-1", None, 7.0), "it outlives the session"


async def test_a_session_that_is_resumed(gemini: Any) -> None:
    session = await opened(gemini, resume=Resume("h-0", patience=0.5), history=HISTORY)
    assert session.resumed
    assert session.resume == Resume("h-0", None, 5.0), "no less patience than is set"
    assert gemini.received[0]["setup"]["sessionResumption"] == {"handle": "h-0"}
    assert session.sent == 1, "it knows the history"
    await session.close()


async def test_after_a_silent_loss_patience_is_doubled(gemini: Any, impatient: None) -> None:
    gemini.script = goes_silent
    given = {"ping_interval": 0.02, "lost_after": 0.1}
    resume = None
    for patience in (0.1, 0.2, 0.4):
        session = await opened(gemini, given, resume=resume)
        error = await ending(session)
        assert str(error) == f"nothing came from the model for {patience:g} s"
        await session.close()
        resume = session.resume
        assert resume == Resume("h-1", None, 2 * patience)
    gemini.over.set()


async def test_patience_has_an_end(gemini: Any, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert session_module.MAX_PATIENCE == 40.0
    monkeypatch.setattr(session_module, "MAX_PATIENCE", 0.15)
    gemini.script = goes_silent
    session = await opened(gemini, {"ping_interval": 0.02, "lost_after": 0.1})
    await ending(session)
    assert session.resume == Resume("h-1", None, 0.15)
    await session.close()
    gemini.over.set()


async def test_any_other_loss_leaves_patience_as_it_was(gemini: Any) -> None:
    async def script(wire: Any) -> None:
        await wire.open()
        await wire.say(UPDATE)
        await wire.websocket.close(1011, "Deadline expired before operation could complete.")

    gemini.script = script
    session = await opened(gemini, resume=Resume("h-0", patience=10.0))
    await ending(session)
    assert session.resume == Resume("h-1", None, 10.0)
    await session.close()


def test_what_is_needed_to_listen_in_stays_out_of_logs() -> None:
    resume = Resume("h-secret", SecretStr("t-secret"), 5.0)
    assert "secret" not in f"{resume} {resume!r} {[resume]}"


# What was said before


@pytest.mark.parametrize(
    ("model", "config", "complete"),
    [
        ("gemini-3.8-live", None, False),
        ("gemini-2.5-flash-native-audio-preview-12-2025", None, False),
        ("gemini-3.1-flash-live-preview", {"initialHistoryInClientContent": True}, True),
    ],
)
async def test_a_new_session_is_told_the_history_once_it_is_set_up(
    gemini: Any, until: Any, model: str, config: Any, complete: bool
) -> None:
    async def script(wire: Any) -> None:
        await wire.next()
        assert len(gemini.received) == 1
        await talks_on(wire)

    async def talks_on(wire: Any) -> None:
        await wire.say({"setupComplete": {}})
        while True:
            await wire.next()

    gemini.script = script
    session = await opened(gemini, {"model": model}, history=HISTORY)
    assert session.sent == 2
    assert not session.resumed
    await session.send_text("Hello")
    await until(lambda: len(gemini.received) == 3)
    setup, history, _ = gemini.received
    assert setup["setup"].get("historyConfig") == config
    assert history["clientContent"] == {
        "turns": [
            {"role": "model", "parts": [{"text": "Hello."}]},
            {"role": "user", "parts": [{"text": "My number"}, {"text": "is 12."}]},
        ],
        "turnComplete": complete,
    }
    await session.close()


async def test_what_was_said_stays_out_of_the_log(gemini: Any, logged: list[Any]) -> None:
    session = await opened(gemini, history=HISTORY)
    await session.close()
    assert "is 12" not in str(logged)


# Between connection and setup


async def test_before_setup_comes_after_the_connection_and_before_anything_is_sent(
    gemini: Any, until: Any
) -> None:
    connected, ended = asyncio.Event(), asyncio.Event()

    async def script(wire: Any) -> None:
        connected.set()
        await talks(wire)

    async def before_setup() -> None:
        await connected.wait()
        assert gemini.received == []
        await ended.wait()

    gemini.script = script
    opening = asyncio.create_task(opened(gemini, before_setup=before_setup))
    async with asyncio.timeout(LONG):
        await connected.wait()
    await until(lambda: gemini.requests)
    assert not opening.done()
    assert gemini.received == []
    ended.set()
    session = await opening
    await session.close()


async def test_a_handle_that_came_until_then_is_resumed_with(gemini: Any) -> None:
    old, new = Resume("old"), Resume("new")

    async def before_setup() -> Resume:
        return new

    gemini.script = talks
    session = await opened(gemini, resume=old, before_setup=before_setup)
    assert gemini.received[0]["setup"]["sessionResumption"] == {"handle": "new"}
    assert session.resume is not None
    assert session.resume.handle == "new"
    await session.close()


@pytest.mark.parametrize("error", [SessionUnavailable("no"), ValueError("no"), asyncio.CancelledError()])
async def test_when_that_fails_the_connection_is_closed(gemini: Any, error: BaseException) -> None:
    async def before_setup() -> None:
        raise error

    gemini.script = talks
    with pytest.raises(type(error)):
        await opened(gemini, before_setup=before_setup)
    async with asyncio.timeout(LONG):
        await gemini.ended.wait()
    assert gemini.received == []
    assert gemini.closes == [(1006, "")], "no close frame: nothing had begun"


async def test_without_a_connection_it_is_not_asked(gemini: Any) -> None:
    """The former session lives on, then."""
    asked = []

    async def before_setup() -> None:
        asked.append(True)

    with pytest.raises(SessionUnavailable):
        await opened(gemini, {"base_url": "ws://127.0.0.1:1"}, before_setup=before_setup)
    assert asked == []
