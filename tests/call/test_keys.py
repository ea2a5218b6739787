"""Keys: they silence the model at once, reach it as one text, and stay a secret where they shall."""

from __future__ import annotations

import asyncio
import struct

import pytest
import structlog

from ari_gemini.call.conversation import Conversation
from ari_gemini.call.digits import DigitSettings, Source
from ari_gemini.call.keys import NOT_SHOWN, TEXT, Keys
from ari_gemini.call.transcript import Transcript
from ari_gemini.realtime.events import AudioDelta
from ari_gemini.telemetry.timeline import Timeline

SIGNALLING, MEDIA = Source.SIGNALLING, Source.MEDIA
SPEECH = AudioDelta(struct.pack("<h", 9000) * 24000, 24000)  # a second


class Nobody:
    def transcript(self, *_: object) -> None: ...
    def turn(self, *_: object) -> None: ...


class Phone:
    """A caller with keys, and a model who speaks."""

    def __init__(self, connection, session) -> None:
        self.session = session
        self.conversation = Conversation(Timeline(), Nobody(), structlog.get_logger(), prebuffer_ms=0)
        self.conversation.downlink.start(connection)
        self.told: list[str] = []
        self.kept: list[str] = []
        self.transcript = Transcript()
        self.keys = Keys(self.conversation, self._tell, structlog.get_logger(), self.transcript)
        self.listening = asyncio.create_task(self.conversation.listen(session))

    def _tell(self, text: str, keep: str) -> None:
        self.told.append(text)
        self.kept.append(keep)

    @property
    def waiting_ms(self) -> float:
        return self.conversation.downlink.buffer.buffered_ms

    def type(self, keys: str) -> None:
        for key in keys:
            self.keys.pressed(key, SIGNALLING)
            self.keys.pressed(key, MEDIA)


@pytest.fixture
async def phone(clock, connection, make_session):
    phone = Phone(connection, make_session())
    yield phone
    phone.listening.cancel()
    await asyncio.gather(phone.listening, return_exceptions=True)
    phone.conversation.downlink.stop()
    phone.keys.stop()


async def test_what_is_typed_is_told_as_one_text_when_it_is_complete(phone: Phone) -> None:
    phone.type("4711")
    assert phone.told == []
    phone.type("#")
    assert phone.told == [TEXT.format("4711")]


async def test_without_a_terminator_it_is_complete_after_a_while(phone: Phone, clock) -> None:
    phone.keys.configure(DigitSettings(timeout=2.0), interrupts=True)
    phone.type("12")
    await asyncio.sleep(1.5)
    phone.type("3")
    await asyncio.sleep(1.99)
    assert phone.told == []
    await asyncio.sleep(0.02)
    assert phone.told == [TEXT.format("123")]
    await asyncio.sleep(10)
    assert len(phone.told) == 1


async def test_a_complete_entry_is_not_told_again_when_its_time_is_over(phone: Phone) -> None:
    phone.type("12#")
    await asyncio.sleep(10)
    assert phone.told == [TEXT.format("12")]


async def test_the_terminator_alone_is_told(phone: Phone) -> None:
    phone.type("#")
    assert phone.told == [TEXT.format("#")]


async def test_what_was_typed_before_the_agent_is_known_goes_on_as_the_agent_wants(phone: Phone) -> None:
    phone.type("1")
    phone.keys.configure(DigitSettings(terminator="*"), interrupts=True)
    phone.type("2*")
    assert phone.told == [TEXT.format("12")]


async def test_a_key_silences_the_model_at_once(phone: Phone) -> None:
    await phone.session.say(SPEECH)
    assert phone.waiting_ms > 0
    phone.keys.pressed("1", MEDIA)
    assert phone.waiting_ms == 0
    await phone.session.say(SPEECH)
    assert phone.waiting_ms == 0, "the rest of its turn"
    assert phone.conversation.caller_active.count == 1


async def test_the_second_report_of_a_key_does_nothing(phone: Phone) -> None:
    phone.keys.pressed("1", MEDIA)
    await phone.session.say(SPEECH)
    phone.keys.pressed("1", SIGNALLING)
    assert phone.waiting_ms > 0, "the model answers already"
    assert phone.conversation.caller_active.count == 1


async def test_a_model_that_must_not_be_interrupted_goes_on(phone: Phone) -> None:
    phone.keys.configure(DigitSettings(), interrupts=False)
    await phone.session.say(SPEECH)
    waiting = phone.waiting_ms
    phone.type("5#")
    assert phone.waiting_ms == waiting
    assert phone.told == [TEXT.format("5")]
    assert phone.conversation.caller_active.count == 2, "he makes himself heard all the same"


async def test_nothing_is_taken_once_it_is_stopped(phone: Phone) -> None:
    phone.type("12")
    phone.keys.stop()
    phone.keys.stop()
    await phone.session.say(SPEECH)
    waiting = phone.waiting_ms
    phone.type("3#4")
    assert phone.waiting_ms == waiting
    await asyncio.sleep(0.5)
    assert phone.keys._timer is None
    assert phone.told == []


@pytest.mark.parametrize(
    ("settings", "shown"),
    [(DigitSettings(), "4711"), (DigitSettings(sensitive=True), "****"), (None, "****")],
    ids=["plain", "sensitive", "not yet known"],
)
async def test_the_log_shows_them_unless_they_are_a_secret(phone: Phone, settings, shown: str) -> None:
    if settings is not None:
        phone.keys.configure(settings, interrupts=True)
    with structlog.testing.capture_logs() as logs:
        phone.type("4711#")
    assert [log["keys"] for log in logs if log["event"] == "call.keys"] == [shown]
    assert ("4711" in str(logs)) is (shown == "4711")
    assert phone.told == [TEXT.format("4711")]


@pytest.mark.parametrize("sensitive", [False, True])
async def test_a_later_session_is_told_of_them_unless_they_are_a_secret(phone: Phone, sensitive) -> None:
    phone.keys.configure(DigitSettings(sensitive=sensitive), interrupts=True)
    phone.transcript.told(lambda: "[The number is 4711.]")
    phone.type("4711#")
    assert phone.kept == [NOT_SHOWN if sensitive else f"[{TEXT.format('4711')}]"]
    assert phone.transcript.discreet is sensitive
    assert ("4711" in str(phone.transcript.turns())) is not sensitive, "no tool gives them away"
