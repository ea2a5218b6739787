"""Calling others, and what caller and party hear. The sequences were seen on a real Asterisk 22.10.1."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ari_gemini.simulator.asterisk_media import FRAME_BYTES, RINGING_TONE, SILENCE, Phone
from ari_gemini.simulator.asterisk_party import USER_BUSY, Exchange, Party
from ari_gemini.simulator.asterisk_state import SimBridge, SimChannel
from ari_gemini.simulator.asterisk_switch import NO_ANSWER, Switch

SIP, LOCAL = "PJSIP/1002", "Local/1002@from-internal/n"


class Monotone:
    """Says one sound for ever and counts what is heard."""

    def __init__(self, sound: int) -> None:
        self.frame = bytes([sound]) * FRAME_BYTES
        self.heard: list[bytes] = []
        self.news = asyncio.Event()

    def next_frame(self) -> bytes:
        return self.frame

    def hear(self, frame: bytes, at: float) -> None:
        self.heard.append(frame)
        self.news.set()

    async def until_heard(self, frame: bytes, count: int = 3) -> None:
        """Wait until that was heard so often from now on."""
        self.heard.clear()
        while self.heard.count(frame) < count:
            self.news.clear()
            await self.news.wait()


class World:
    def __init__(self) -> None:
        self.told: list[str] = []
        self.listening = True
        self.switch = Switch(self.emit, lambda _: self.listening)
        self.exchange = Exchange(self.switch)
        self.ada, self.bob = Monotone(1), Monotone(2)
        self.bridge = SimBridge("b")
        self.switch.bridges["b"] = self.bridge

    def emit(self, app: str | None, kind: str, fields: Any) -> None:
        about = fields.get("channel") or fields.get("peer") or {}
        extra = ("cause", "dialstatus", "digit")
        words = [kind, about.get("id", ""), *(str(fields[name]) for name in extra if name in fields)]
        if not kind.startswith("ChannelVarset"):
            self.told.append(" ".join(words).strip())

    def call(self, endpoint: str = SIP, *, timeout: float = 5.0, **party: Any) -> SimChannel:
        if party:
            self.exchange.parties[endpoint] = Party(voice=self.bob, **party)
        channel = self.exchange.dial(endpoint, "party", "far", "app", "4711")
        self.exchange.go_on(endpoint, channel, "app", [], timeout)
        return channel

    def caller(self) -> SimChannel:
        channel = SimChannel("caller", "PJSIP/caller", phone=Phone(self.ada), dialplan_stays=True)
        self.switch.add(channel)
        self.switch.enter_stasis(channel, "app", [])
        self.switch.answer(channel)
        self.told.clear()
        return channel

    async def gone(self, channel: SimChannel) -> list[str]:
        await channel.gone.wait()
        assert not {"party", "far"} & self.switch.channels.keys()
        return self.told


@pytest.fixture
async def world():
    made = World()
    yield made
    await made.switch.wait_quiet()


RINGING = ["Dial party", "ChannelStateChange party", "Dial party RINGING"]


async def test_who_answers_enters_the_application(world: World) -> None:
    party = world.call(answers=0.0)
    await party.answered.wait()
    await asyncio.sleep(0)
    assert world.told == [*RINGING, "ChannelStateChange party", "Dial party ANSWER", "StasisStart party"]
    world.switch.hang_up(party, told=True)
    ended = ["ChannelHangupRequest party 16", "StasisEnd party", "ChannelDestroyed party 16"]
    assert world.told[-3:] == ended


@pytest.mark.parametrize(
    ("endpoint", "party", "ending"),
    [
        (SIP, {"answers": None}, ["ChannelDestroyed party 19"]),
        (LOCAL, {"answers": None}, ["ChannelDestroyed party 19", "ChannelDestroyed far 19"]),
        (
            SIP,
            {"answers": 0.0, "refuses": USER_BUSY},
            ["ChannelHangupRequest party 17", "Dial party BUSY", "ChannelDestroyed party 17"],
        ),
        (
            LOCAL,
            {"answers": 0.0, "refuses": USER_BUSY},
            [
                "ChannelHangupRequest party 17",
                "Dial party BUSY",
                "ChannelDestroyed party 0",
                "ChannelDestroyed far 17",
            ],
        ),
    ],
)
async def test_who_does_not_answer(
    world: World, endpoint: str, party: dict[str, Any], ending: list[str]
) -> None:
    channel = world.call(endpoint, timeout=0.01, **party)
    assert await world.gone(channel) == [*RINGING, *ending]
    assert channel.hangup_cause in (NO_ANSWER, USER_BUSY)


async def test_who_cannot_be_reached(world: World) -> None:
    with pytest.raises(LookupError):
        world.call(SIP)
    assert world.switch.channels == {}
    channel = world.call(LOCAL)
    assert set(world.switch.channels) == {"party", "far"}
    assert await world.gone(channel) == ["ChannelDestroyed party 0", "ChannelDestroyed far 0"]


@pytest.mark.parametrize("endpoint", [SIP, LOCAL])
async def test_a_call_given_up_while_it_rings(world: World, endpoint: str) -> None:
    channel = world.call(endpoint, answers=0.01)
    assert await world.exchange.called() is channel
    world.switch.hang_up(channel, requested=True)
    told = (await world.gone(channel))[len(RINGING) :]
    assert told[:3] == ["ChannelHangupRequest party 32", "Dial party NOANSWER", "ChannelDestroyed party 16"]
    await asyncio.sleep(0.02)
    assert channel.state == "Ringing", "nobody picks up any more"


async def test_a_call_given_up_before_it_rings(world: World) -> None:
    channel = world.call(answers=0.0)
    world.switch.hang_up(channel, requested=True)
    await asyncio.sleep(0.01)
    assert "Dial party RINGING" not in world.told


async def test_who_answers_when_the_application_is_away_is_gone(world: World) -> None:
    world.listening = False
    channel = world.call(answers=0.0)
    await world.gone(channel)
    assert "StasisStart party" not in world.told


@pytest.mark.parametrize("endpoint", [SIP, LOCAL])
async def test_caller_and_party_hear_each_other(world: World, endpoint: str) -> None:
    caller, party = world.caller(), world.call(endpoint, answers=0.0)
    await party.answered.wait()
    for channel in (caller, party):
        world.switch.join(world.bridge, channel)
    await asyncio.gather(world.ada.until_heard(world.bob.frame), world.bob.until_heard(world.ada.frame))
    world.switch.leave_bridge(caller)
    world.ada.heard.clear()
    world.bob.heard.clear()
    await asyncio.sleep(0.05)
    assert world.ada.heard == world.bob.heard == []


async def test_a_tone_for_who_waits(world: World) -> None:
    """It begins at once; nothing waits for its end."""
    caller = world.caller()
    world.switch.ring(caller)
    await world.ada.until_heard(RINGING_TONE)
    assert SILENCE not in world.ada.heard
    caller.ringing = False
    world.ada.heard.clear()
    await asyncio.sleep(0.05)
    assert world.ada.heard == []


async def test_no_tone_in_a_bridge(world: World) -> None:
    caller = world.caller()
    world.switch.join(world.bridge, caller)
    world.switch.ring(caller)
    assert not caller.ringing


@pytest.mark.parametrize(("endpoint", "goes_on"), [(SIP, True), (LOCAL, False)])
async def test_the_tone_goes_on_between_two_sip_channels(world: World, endpoint: str, goes_on: bool) -> None:
    """There Asterisk passes packets on without touching them, and so never ends the tone."""
    caller, party = world.caller(), world.call(endpoint, answers=0.0)
    await party.answered.wait()
    world.switch.ring(caller)
    for channel in (caller, party):
        world.switch.join(world.bridge, channel)
    await world.ada.until_heard(world.bob.frame)
    assert caller.ringing is goes_on
    assert (RINGING_TONE in world.ada.heard[3:]) is goes_on


async def test_while_a_digit_sounds_nothing_else_is_heard(world: World) -> None:
    caller, party = world.caller(), world.call(answers=0.0)
    await party.answered.wait()
    for channel in (caller, party):
        world.switch.join(world.bridge, channel)
    await world.ada.until_heard(world.bob.frame)
    now = asyncio.get_running_loop().time()
    world.switch.play_digits(caller, "5", [(now, now + 60)], now + 60)
    world.ada.heard.clear()
    await world.bob.until_heard(world.ada.frame)
    assert world.ada.heard == []
    caller.sounding.clear()
    await world.ada.until_heard(world.bob.frame)


async def test_the_partys_keys_are_told(world: World) -> None:
    party = world.call(answers=0.0)
    await party.answered.wait()
    await asyncio.sleep(0)
    world.switch.press(party, "7")
    assert world.told[-1] == "ChannelDtmfReceived party 7"
