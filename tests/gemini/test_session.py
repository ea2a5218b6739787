from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
from typing import Any

import pytest

from ari_gemini.errors import (
    HandleRefused,
    KeyRefused,
    MalformedMessage,
    ModelRefused,
    QuotaExceeded,
    Retry,
    SessionDropped,
    SessionError,
    SessionUnavailable,
    SetupRefused,
)
from ari_gemini.gemini import session as session_module
from ari_gemini.gemini.session import GeminiSession, open_session
from ari_gemini.realtime.events import AudioDelta, Event, HandleUpdate, Speaker, Transcript
from ari_gemini.realtime.functions import FunctionDeclaration, FunctionResult
from ari_gemini.realtime.session import RealtimeSession, Resume, SessionSettings

LONG = 30.0
KEY = "AIza-test-key"
PCM = bytes(range(640 // 4)) * 4
INVALID = "Request contains an invalid argument."


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits a whole second for a closing handshake that will not come."""
    assert session_module.CLOSE_TIMEOUT == 1.0, "the bound that close() promises"
    monkeypatch.setattr(session_module, "CLOSE_TIMEOUT", 0.05)


async def opened(gemini: Any, session: SessionSettings | None = None, **given: Any) -> GeminiSession:
    names = ("resume", "history", "before_setup")
    arguments = {name: given.pop(name) for name in names if name in given}
    async with asyncio.timeout(LONG):
        return await open_session(gemini.settings(**given), session or SessionSettings(), **arguments)


async def received(session: GeminiSession, count: int) -> list[Event]:
    """The next events, until there are ``count``."""
    events: list[Event] = []
    async with asyncio.timeout(LONG):
        while len(events) < count:
            events += await session.receive()
    return events


async def ending(session: GeminiSession) -> SessionError:
    """The error that ends the session, once everything before it was received."""
    async with asyncio.timeout(LONG):
        try:
            while True:
                await session.receive()
        except SessionError as error:
            return error


async def deafen(wire: Any) -> None:
    """A service that stops reading: no pong, no close frame."""
    await wire.open()
    wire.websocket.transport.pause_reading()
    await wire.over()


async def talk_for_ever(session: GeminiSession) -> None:
    async with asyncio.timeout(LONG):
        while True:
            await session.send_audio(bytes(32_000))


def words(text: str) -> dict[str, Any]:
    return {"serverContent": {"outputTranscription": {"text": text}}}


def own_tasks() -> list[str]:
    coroutines = [task.get_coro() for task in asyncio.all_tasks()]
    names = [getattr(coroutine, "__qualname__", "") for coroutine in coroutines]
    return [name for name in names if "GeminiSession" in name or "Connect" in name]


# Opening


@pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])
async def test_setup_first_and_nothing_before_it_is_confirmed(gemini: Any, until: Any, text: bool) -> None:
    async def script(wire: Any) -> None:
        await wire.next()
        for message in ({}, {"serverContent": {}}, {"setupComplete": {}}):
            assert len(gemini.received) == 1
            await wire.say(message, text=text)
        await wire.next()

    gemini.script = script
    session = await opened(gemini, SessionSettings(instructions="Be brief."))
    await session.send_text("Hello")
    await until(lambda: len(gemini.received) == 2)
    await session.close()
    setup, hello = gemini.received
    assert setup["setup"]["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert hello == {"realtimeInput": {"text": "Hello"}}


async def test_it_is_a_realtime_session_with_these_capabilities(gemini: Any) -> None:
    session: RealtimeSession = await opened(gemini)
    assert session.capabilities.input_format.rate == 16000
    assert session.capabilities.output_format.rate == 24000
    assert session.capabilities.resumption
    assert not session.capabilities.truncation
    assert session.capabilities.audio_during_tools
    await session.close()


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ({"model": "gemini-3.8-live"}, True),
        ({"model": "gemini-3.8-live", "audio_during_tools": False}, False),
        ({"model": "gemini-3.1-flash-live-preview"}, False),
        ({"model": "gemini-3.1-flash-live-preview", "audio_during_tools": True}, True),
    ],
)
async def test_audio_during_tools(gemini: Any, given: dict[str, Any], allowed: bool) -> None:
    session = await opened(gemini, **given)
    assert session.capabilities.audio_during_tools is allowed
    await session.close()


async def test_settings_the_model_refuses_open_nothing(gemini: Any) -> None:
    with pytest.raises(SetupRefused, match="takes no thinking setting"):
        await opened(gemini, SessionSettings(thinking="low"))
    assert gemini.requests == []


async def test_events_that_come_early_are_not_lost(gemini: Any) -> None:
    async def script(wire: Any) -> None:
        await wire.next()
        await wire.say(words("early"))
        await wire.say({"setupComplete": {}, **words("beside")})
        await wire.say(words("late"))

    gemini.script = script
    session = await opened(gemini)
    texts = [event.text for event in await received(session, 3) if isinstance(event, Transcript)]
    assert texts == ["early", "beside", "late"]
    await session.close()


async def test_a_server_that_only_talks_is_no_gemini(gemini: Any) -> None:
    async def script(wire: Any) -> None:
        await wire.next()
        for _ in range(65):
            await wire.say(words("blah"))

    gemini.script = script
    with pytest.raises(MalformedMessage, match="without having confirmed the setup"):
        await opened(gemini)


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (1007, "API key not valid. Please pass a valid API key.", KeyRefused),
        (1008, "Method doesn't allow unregistered callers (callers without established", KeyRefused),
        (1008, "models/x is not found for API version v1beta, or is not supported for", ModelRefused),
        (1007, "Thinking level is not supported for this model", SetupRefused),
        (1007, INVALID, SetupRefused),
        (1011, "You exceeded your current quota, please check your plan", QuotaExceeded),
        (1011, "Internal error encountered.", SessionUnavailable),
        (1000, "", SessionUnavailable),
    ],
)
async def test_closed_in_answer_to_the_setup(gemini: Any, code: int, reason: str, error: type) -> None:
    async def script(wire: Any) -> None:
        await wire.next()
        await wire.websocket.close(code, reason)

    gemini.script = script
    with pytest.raises(SessionError) as caught:
        await opened(gemini)
    assert type(caught.value) is error
    assert caught.value.code == code
    assert own_tasks() == []


async def test_closed_before_the_setup_was_read(gemini: Any) -> None:
    async def script(wire: Any) -> None:
        await wire.websocket.close(1008, "Method doesn't allow unregistered callers")

    gemini.script = script
    with pytest.raises(KeyRefused):
        await opened(gemini, api_key=None)


async def test_broken_off_before_the_setup_was_confirmed(gemini: Any) -> None:
    async def script(wire: Any) -> None:
        await wire.next()
        wire.websocket.transport.abort()

    gemini.script = script
    with pytest.raises(SessionUnavailable) as caught:
        await opened(gemini)
    assert caught.value.code == 1006


@pytest.mark.parametrize(("resume", "error"), [(None, SetupRefused), (Resume("h-1"), HandleRefused)])
async def test_a_handle_that_is_refused(gemini: Any, resume: Resume | None, error: type) -> None:
    async def script(wire: Any) -> None:
        await wire.next()
        await wire.websocket.close(1007, INVALID)

    gemini.script = script
    with pytest.raises(error):
        await opened(gemini, resume=resume)


@pytest.mark.parametrize("data", [b"nonsense", b"[]", "{", b"\xff"])
async def test_malformed_instead_of_confirmed(gemini: Any, data: bytes | str) -> None:
    async def script(wire: Any) -> None:
        await wire.next()
        await wire.websocket.send(data)
        await wire.gone()

    gemini.script = script
    with pytest.raises(MalformedMessage):
        await opened(gemini)
    async with asyncio.timeout(LONG):
        await gemini.ended.wait()


async def test_a_setup_that_is_never_confirmed(gemini: Any, logged: list[Any]) -> None:
    async def script(wire: Any) -> None:
        await wire.next()
        await wire.say({})
        await wire.gone()

    gemini.script = script
    with pytest.raises(SessionUnavailable, match=r"did not confirm the setup within 0\.3 s"):
        await opened(gemini, setup_timeout=0.3)
    async with asyncio.timeout(LONG):
        await gemini.ended.wait()
    assert own_tasks() == []
    (line,) = [line for line in logged if line["log_level"] == "warning"]
    assert "> setup" in line["last"][0]


async def test_cancelling_the_setup_leaves_nothing(gemini: Any) -> None:
    asked = asyncio.Event()

    async def script(wire: Any) -> None:
        await wire.next()
        asked.set()
        await wire.gone()

    gemini.script = script
    opening = asyncio.create_task(opened(gemini))
    async with asyncio.timeout(LONG):
        await asked.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await gemini.ended.wait()
    assert own_tasks() == []


# Sending


async def test_all_that_can_be_sent(gemini: Any) -> None:
    async def script(wire: Any) -> None:
        await wire.open()
        for _ in range(6):
            await wire.next()
        await wire.say(words("done"))

    gemini.script = script
    tools = (FunctionDeclaration("do", "Do it.", blocking=False),)
    session = await opened(gemini, SessionSettings(tools=tools), resume=Resume("h-0"))
    await session.greet("Greet the caller.")
    await session.send_audio(PCM)
    await session.send_text("Hello")
    await session.send_tool_results([FunctionResult("c1", "do", {"output": 1}, "silent")])
    await session.send_audio_end()
    await session.send_audio(b"")
    await received(session, 1)
    await session.close()
    setup, *rest = gemini.received
    assert setup["setup"]["sessionResumption"] == {"handle": "h-0"}
    assert setup["setup"]["tools"] == [
        {"functionDeclarations": [{"name": "do", "description": "Do it.", "behavior": "NON_BLOCKING"}]}
    ]
    audio = {"mimeType": "audio/pcm;rate=16000", "data": base64.b64encode(PCM).decode()}
    answer = {"response": {"output": 1, "scheduling": "SILENT"}, "scheduling": "SILENT"}
    assert rest == [
        {"realtimeInput": {"text": "Greet the caller."}},
        {"realtimeInput": {"audio": audio}},
        {"realtimeInput": {"text": "Hello"}},
        {"toolResponse": {"functionResponses": [{"id": "c1", "name": "do", **answer}]}},
        {"realtimeInput": {"audioStreamEnd": True}},
        {"realtimeInput": {"audio": {"mimeType": "audio/pcm;rate=16000", "data": ""}}},
    ]
    assert gemini.closes == [(1000, "")]


async def test_greeting_by_content_and_audio_at_8_khz(gemini: Any) -> None:
    async def script(wire: Any) -> None:
        await wire.open()
        await wire.next()
        await wire.next()
        await wire.say(words("done"))

    gemini.script = script
    session = await opened(gemini, greeting_via="client_content", input_rate=8000)
    assert session.capabilities.input_format.rate == 8000
    await session.greet("Greet the caller.")
    await session.send_audio(b"\1\0")
    await received(session, 1)
    await session.close()
    _, greeting, audio = gemini.received
    turn = {"role": "user", "parts": [{"text": "Greet the caller."}]}
    assert greeting == {"clientContent": {"turns": [turn], "turnComplete": True}}
    assert audio["realtimeInput"]["audio"]["mimeType"] == "audio/pcm;rate=8000"


async def test_a_cancelled_sender_leaves_whole_messages(gemini: Any) -> None:
    """The service stops reading until a sender waits; that one is cancelled; then all is read."""
    reading = asyncio.Event()
    texts: list[str] = []

    async def script(wire: Any) -> None:
        await wire.open()
        wire.websocket.transport.pause_reading()
        await reading.wait()
        wire.websocket.transport.resume_reading()
        while "last" not in texts[-1:]:
            message = await wire.next()
            audio = message["realtimeInput"].get("audio")
            data = base64.b64decode(audio["data"]) if audio else b""
            texts.append(message["realtimeInput"].get("text") or data[:8].decode())
        await wire.say(words("done"))

    gemini.script = script
    session = await opened(gemini)
    sent = 0
    for number in range(4000):
        sending = asyncio.create_task(session.send_audio(b"%08d" % number + bytes(32_000)))
        await asyncio.wait([sending], timeout=0.3)
        if not sending.done():
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            break
        sent = number + 1
    else:
        pytest.fail("a peer that does not read must make the sender wait")
    reading.set()
    async with asyncio.timeout(LONG):
        await session.send_text("last")
    await received(session, 1)
    assert texts[:-1] in ([f"{n:08d}" for n in range(sent)], [f"{n:08d}" for n in range(sent + 1)])
    await session.close()


# Receiving


async def test_events_come_in_order_whatever_the_frames(gemini: Any) -> None:
    audio = {"serverContent": {"modelTurn": {"parts": [{"inlineData": {"data": "AQA="}}]}}}

    async def script(wire: Any) -> None:
        await wire.open()
        await wire.say(audio)
        await wire.say(words("one"), text=True)
        data = json.dumps(words("two")).encode()
        await wire.websocket.send(data[start : start + 5] for start in range(0, len(data), 5))
        await wire.say({"sessionResumptionUpdate": {"newHandle": "h-1", "resumable": True}})

    gemini.script = script
    session = await opened(gemini, resume=Resume("h-0"))
    assert session.resume is not None
    assert session.resume.handle == "h-0"
    assert await received(session, 4) == [
        AudioDelta(b"\1\0", 24000),
        Transcript(Speaker.MODEL, "one"),
        Transcript(Speaker.MODEL, "two"),
        HandleUpdate("h-1", True),
    ]
    assert session.resume.handle == "h-1"
    assert session.counts.frames == 5
    await session.close()
    assert session.resume.handle == "h-1", "it outlives the session"


async def test_cancelling_receive_loses_nothing(gemini: Any) -> None:
    total = 300

    async def script(wire: Any) -> None:
        await wire.open()
        for number in range(total):
            await wire.say(words(str(number)))
            await asyncio.sleep(0)

    gemini.script = script
    session = await opened(gemini)
    dice = random.Random(7)
    texts: list[str] = []
    cancelled = 0
    async with asyncio.timeout(LONG):
        while len(texts) < total:
            receiving = asyncio.create_task(session.receive())
            for _ in range(dice.randrange(6)):
                await asyncio.sleep(0)
            receiving.cancel()
            try:
                texts += [event.text for event in await receiving if isinstance(event, Transcript)]
            except asyncio.CancelledError:
                cancelled += 1
    assert texts == [str(number) for number in range(total)]
    assert cancelled > 10
    await session.close()


async def test_an_unknown_message_is_told_once(gemini: Any, logged: list[Any]) -> None:
    async def script(wire: Any) -> None:
        await wire.open()
        for _ in range(3):
            await wire.say({"brandNew": {"x": 1}})
        await wire.say(words("on we go"))

    gemini.script = script
    session = await opened(gemini)
    assert await received(session, 1) == [Transcript(Speaker.MODEL, "on we go")]
    await session.close()
    assert session.counts.unknown == 3
    assert [line["keys"] for line in logged if "keys" in line] == [["brandNew"]]


async def test_base64_that_does_not_decode_costs_one_part(gemini: Any, logged: list[Any]) -> None:
    parts = [{"inlineData": {"data": data}} for data in ("AQA=", "***", "AgA=")]

    async def script(wire: Any) -> None:
        await wire.open()
        await wire.say({"serverContent": {"modelTurn": {"parts": parts}}})

    gemini.script = script
    session = await opened(gemini)
    assert await received(session, 2) == [AudioDelta(b"\1\0", 24000), AudioDelta(b"\2\0", 24000)]
    assert session.counts.malformed == 1
    counts = [line["count"] for line in logged if "malformed" in line["event"]]
    assert counts == [1], "and a line in the log"
    await session.close()


# Endings


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (1000, "", SessionError),
        (1008, "The operation was aborted.", SessionDropped),
        (1011, "Internal error encountered.", SessionUnavailable),
        (1011, "Deadline expired before operation could complete.", SessionDropped),
        (1007, INVALID, HandleRefused),
        (1011, "RESOURCE_EXHAUSTED", QuotaExceeded),
    ],
)
async def test_closed_by_the_service(
    gemini: Any, logged: list[Any], code: int, reason: str, error: type[SessionError]
) -> None:
    async def script(wire: Any) -> None:
        await wire.open()
        await wire.next()
        await wire.say(words("last words"))
        await wire.websocket.close(code, reason)

    gemini.script = script
    session = await opened(gemini)
    await session.send_text("Hello")
    assert await received(session, 1) == [Transcript(Speaker.MODEL, "last words")]
    first = await ending(session)
    assert type(first) is error
    assert first.code == code
    assert type(await ending(session)) is error, "it stays so"
    for send in (
        session.send_audio(PCM),
        session.send_text("x"),
        session.greet("x"),
        session.send_tool_results([]),
        session.send_audio_end(),
    ):
        with pytest.raises(error):
            await send
    await session.close()
    assert own_tasks() == []
    (line,) = [line for line in logged if line["log_level"] == "warning"]
    assert line["event"] == "! session lost"
    assert line["code"] == code
    assert line["retry"] == error.retry.value
    kinds = [entry.split(" (")[0].split(" ", 1)[1] for entry in line["last"]]
    assert [kind.split(" ")[:2] for kind in kinds] == [
        [">", "setup"],
        ["<", "nothing"],
        [">", "text"],
        ["<", "Transcript"],
        ["="],
    ]
    assert "last words" not in str(line), "no content in the log"


async def test_broken_off_by_the_network(gemini: Any) -> None:
    async def script(wire: Any) -> None:
        await wire.open()
        wire.websocket.transport.abort()

    gemini.script = script
    session = await opened(gemini)
    error = await ending(session)
    assert type(error) is SessionDropped
    assert error.code == 1006
    await session.close()


@pytest.mark.parametrize("data", [b"nonsense", b"[]", b"\xff", b'{"a":' * 5000])
async def test_malformed_in_mid_session(gemini: Any, logged: list[Any], data: bytes) -> None:
    async def script(wire: Any) -> None:
        await wire.open()
        await wire.websocket.send(data)

    gemini.script = script
    session = await opened(gemini)
    error = await ending(session)
    assert type(error) is MalformedMessage
    assert error.retry is Retry.RESUME
    assert len([line for line in logged if line["log_level"] == "warning"]) == 1
    await session.close()


async def test_the_websocket_protocol_broken(gemini: Any) -> None:
    async def script(wire: Any) -> None:
        await wire.open()
        wire.websocket.transport.write(b"\xff" * 100)  # reserved bits and opcode
        await wire.gone()

    gemini.script = script
    session = await opened(gemini)
    error = await ending(session)
    assert type(error) is MalformedMessage
    assert "broke the WebSocket protocol" in str(error)
    await session.close()


async def test_a_message_too_big(gemini: Any) -> None:
    async def script(wire: Any) -> None:
        await wire.open()
        await wire.websocket.send(b" " * (8 * 2**20 + 1))
        await wire.gone()

    gemini.script = script
    session = await opened(gemini)
    error = await ending(session)
    assert type(error) is MalformedMessage
    assert error.code == 1009
    await session.close()


async def test_secrets_stay_out_of_messages_and_logs(
    gemini: Any, logged: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ari_gemini")

    async def script(wire: Any) -> None:
        await wire.open()
        await wire.next()
        await wire.websocket.close(1007, f"API key {KEY} not valid")

    gemini.script = script
    session = await opened(gemini, SessionSettings(instructions="the secret recipe"))
    await session.send_text("my account number")
    error = await ending(session)
    assert "API key [secret] not valid" in str(error)
    await session.close()
    everything = f"{error!r} {logged} {caplog.text} {session!r}"
    for secret in (KEY, "recipe", "account"):
        assert secret not in everything


# Closing


async def test_close_is_idempotent_and_ends_everything(gemini: Any, logged: list[Any]) -> None:
    session = await opened(gemini)
    receiving = asyncio.create_task(session.receive())
    await asyncio.sleep(0)
    async with asyncio.timeout(LONG):
        await asyncio.gather(session.close(), session.close())
        await session.close()
        with pytest.raises(SessionError, match="closed from here") as caught:
            await receiving
    assert caught.value.retry is Retry.NO
    with pytest.raises(SessionError, match="closed from here"):
        await session.send_audio(PCM)
    assert own_tasks() == []
    async with asyncio.timeout(LONG):
        await gemini.ended.wait()
    assert gemini.closes == [(1000, "")]
    assert [line for line in logged if line["log_level"] == "warning"] == []


async def test_close_does_not_wait_for_a_peer_that_is_deaf(gemini: Any, impatient: None) -> None:
    gemini.script = deafen
    session = await opened(gemini)
    async with asyncio.timeout(LONG):
        await session.close()
    assert own_tasks() == []
    assert session._websocket.state.name == "CLOSED"
    gemini.over.set()


async def test_cancelling_close_still_closes(gemini: Any, until: Any) -> None:
    gemini.script = deafen
    session = await opened(gemini)
    closing = asyncio.create_task(session.close())
    await asyncio.sleep(0)
    closing.cancel()
    async with asyncio.timeout(LONG):
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert type(await ending(session)) is SessionError
    await until(lambda: own_tasks() == [])
    gemini.over.set()


# Keepalive


async def test_a_peer_that_has_gone_silent_is_given_up(
    gemini: Any, logged: list[Any], impatient: None
) -> None:
    gemini.script = deafen
    session = await opened(gemini, ping_interval=0.02, lost_after=0.1)
    error = await ending(session)
    assert type(error) is SessionDropped
    assert str(error) == "nothing came from the model for 0.1 s"
    assert len([line for line in logged if line["log_level"] == "warning"]) == 1
    await session.close()
    assert own_tasks() == []
    gemini.over.set()


async def test_a_silent_peer_is_given_up_while_we_send(gemini: Any, impatient: None) -> None:
    """Pings and the close frame wait behind a full socket."""
    gemini.script = deafen
    session = await opened(gemini, ping_interval=0.05, lost_after=0.3)
    with pytest.raises(SessionDropped, match="nothing came"):
        await talk_for_ever(session)
    await session.close()
    gemini.over.set()


async def test_a_session_that_delivers_lives_without_a_pong(gemini: Any, impatient: None) -> None:
    async def script(wire: Any) -> None:
        await wire.open()
        wire.websocket.transport.pause_reading()
        for number in range(40):
            await wire.say(words(str(number)))
            await asyncio.sleep(0.01)
        await wire.over()

    gemini.script = script
    session = await opened(gemini, ping_interval=0.01, lost_after=0.2)
    assert len(await received(session, 40)) == 40
    gemini.over.set()
    await session.close()


async def test_without_pings_there_is_no_keepalive(gemini: Any) -> None:
    session = await opened(gemini, ping_interval=None)
    assert own_tasks() == []
    await session.close()
    session = await opened(gemini)
    assert own_tasks() == ["GeminiSession._guard"]
    await session.close()
    assert own_tasks() == []
