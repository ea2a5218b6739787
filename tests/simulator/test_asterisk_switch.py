"""What happens to channels and bridges, and which events tell of it.

The expected sequences were seen on a real Asterisk 22.10.1.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest

from ari_gemini.simulator.asterisk_media import Phone, SilentVoice
from ari_gemini.simulator.asterisk_state import Continuation, Json, SimBridge, SimChannel
from ari_gemini.simulator.asterisk_switch import Switch

CALL_ID = UUID("5ab32d72-dd59-4df7-aaea-4d145be1a835")


class World:
    """A switch, what it told, and a service it can dial."""

    def __init__(self) -> None:
        self.switch = Switch(self.emit, lambda app: app == "ari-gemini")
        self.told: list[str] = []
        self.events: list[Json] = []
        self.address = ""
        self.writers: list[asyncio.StreamWriter] = []
        self._accepted = asyncio.Event()

    def emit(self, app: str | None, kind: str, fields: Any) -> None:
        if app != "ari-gemini":
            return
        about = fields.get("channel") or fields.get("peer") or {}
        extra = ("cause", "variable", "value", "digit", "dialstatus")
        words = [kind, about.get("id", ""), *(str(fields[name]) for name in extra if name in fields)]
        if "bridge" in fields:
            words.append("+".join(fields["bridge"]["channels"]))
        self.told.append(" ".join(filter(None, words)))
        self.events.append({"type": kind, **fields})

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self._accepted.set()
        while await reader.read(4096):
            pass

    async def accepted(self) -> asyncio.StreamWriter:
        await self._accepted.wait()
        return self.writers[-1]

    def caller(self, channel_id: str = "caller", *, stays: bool = False) -> SimChannel:
        channel = SimChannel(channel_id, f"PJSIP/{channel_id}", caller_number="4711", dialplan_stays=stays)
        channel.phone = Phone(SilentVoice())
        self.switch.add(channel)
        self.switch.enter_stasis(channel, "ari-gemini", ["default"])
        return channel

    async def media(self) -> SimChannel:
        made = await self.switch.external_media("media", "ari-gemini", self.address, CALL_ID, "slin")
        self.switch.bring_up(made, "ari-gemini", [str(CALL_ID)])
        return made

    def bridge(self, *channels: SimChannel) -> SimBridge:
        made = self.switch.bridges["b"] = SimBridge("b")
        for channel in channels:
            self.switch.join(made, channel)
        return made

    def took(self) -> list[str]:
        """What was told since the last time."""
        told, self.told = self.told, []
        return told


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    server = await asyncio.start_server(made.accept, "127.0.0.1", 0)
    made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    await made.switch.wait_quiet()
    server.close()
    for writer in made.writers:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for writer in made.writers), return_exceptions=True)


MEDIA_COMES = [
    "Dial media",
    "ChannelStateChange media",
    "Dial media ANSWER",
    "ChannelVarset media STASISSTATUS",
    "StasisStart media",
]


async def test_a_call_comes_talks_and_hangs_up(world: World) -> None:
    caller = world.caller()
    assert world.took() == ["StasisStart caller"]
    media = await world.media()
    assert world.took() == MEDIA_COMES
    world.switch.answer(caller)
    world.switch.answer(caller)
    assert world.took() == ["ChannelStateChange caller"]
    bridge = world.bridge(caller, media)
    assert world.took() == [
        "ChannelEnteredBridge caller caller",
        "ChannelEnteredBridge media caller+media",
        f"ChannelVarset caller BRIDGEPEER {media.name}",
        "ChannelVarset media BRIDGEPEER PJSIP/caller",
        "ChannelConnectedLine media",
    ]
    world.switch.press(caller, "5")
    assert world.took() == ["ChannelDtmfReceived caller 5"]
    world.switch.hang_up(caller, told=True)
    assert world.took() == [
        "ChannelHangupRequest caller 16",
        "ChannelVarset caller BRIDGEPEER",
        "ChannelLeftBridge caller media",
        "StasisEnd caller",
    ]
    assert set(world.switch.channels) == {"media"}
    world.switch.hang_up(media, requested=True)
    assert world.took() == [
        "ChannelHangupRequest media 32",
        "ChannelVarset media BRIDGEPEER",
        "ChannelLeftBridge media",
        "StasisEnd media",
        "ChannelVarset media STASISSTATUS SUCCESS",
        "ChannelDestroyed media 16",
    ]
    world.switch.destroy(bridge)
    assert world.took() == ["BridgeDestroyed"]
    assert (world.switch.channels, world.switch.bridges) == ({}, {})


async def test_the_service_closes_the_audiosocket(world: World) -> None:
    caller, media = world.caller(), await world.media()
    world.bridge(caller, media)
    writer = await world.accepted()
    world.took()
    writer.close()
    await media.gone.wait()
    assert world.took() == [
        "ChannelVarset media BRIDGEPEER",
        "ChannelLeftBridge media caller",
        "StasisEnd media",
        "ChannelVarset media STASISSTATUS SUCCESS",
        "ChannelDestroyed media 16",
    ]
    assert caller.stasis == "ari-gemini"


async def test_a_bridge_is_destroyed_under_its_channels(world: World) -> None:
    caller, media = world.caller(), await world.media()
    bridge = world.bridge(caller, media)
    world.took()
    world.switch.destroy(bridge)
    assert world.took() == [
        "ChannelVarset caller BRIDGEPEER",
        "ChannelLeftBridge caller media",
        "ChannelVarset media BRIDGEPEER",
        "ChannelLeftBridge media",
        "BridgeDestroyed",
    ]
    assert (caller.stasis, media.stasis) == ("ari-gemini", "ari-gemini")
    assert media.leg is not None
    assert media.leg.open


async def test_a_second_bridge_takes_the_channel_out_of_the_first(world: World) -> None:
    caller = world.caller()
    first = world.bridge(caller)
    second = world.switch.bridges["c"] = SimBridge("c")
    world.took()
    world.switch.join(second, caller)
    assert world.took() == [
        "ChannelVarset caller BRIDGEPEER",
        "ChannelLeftBridge caller",
        "ChannelEnteredBridge caller caller",
    ]
    assert (first.channels, second.channels) == ([], [caller])


async def test_sent_on_in_the_dialplan(world: World) -> None:
    caller = world.caller(stays=True)
    world.bridge(caller)
    world.took()
    world.switch.continue_in_dialplan(caller, Continuation("queue", "s", 7))
    assert world.took() == [
        "ChannelVarset caller BRIDGEPEER",
        "ChannelLeftBridge caller",
        "StasisEnd caller",
    ]
    assert (caller.context, caller.exten, caller.priority, caller.app_name) == ("queue", "s", 7, "Wait")
    assert (caller.variables["STASISSTATUS"], caller.stasis) == ("SUCCESS", None)
    assert caller.left.is_set()
    assert not caller.gone.is_set()
    world.switch.continue_in_dialplan(caller, Continuation("elsewhere"))
    assert caller.continued == Continuation("queue", "s", 7)
    world.switch.hang_up(caller, told=True)
    assert world.took() == []
    assert caller.gone.is_set()


async def test_the_dialplan_ends_where_nothing_was_said(world: World) -> None:
    caller = world.caller()
    world.switch.continue_in_dialplan(caller, Continuation())
    assert (caller.continued, caller.hangup_cause, caller.priority) == (Continuation(), 16, 2)
    assert world.switch.channels == {}


async def test_nobody_is_connected_for_the_application(world: World) -> None:
    caller = SimChannel("caller", "PJSIP/caller", dialplan_stays=True)
    world.switch.add(caller)
    world.switch.enter_stasis(caller, "other", [])
    assert (caller.variables["STASISSTATUS"], caller.stasis) == ("FAILED", None)
    assert caller.left.is_set()
    media = await world.switch.external_media("media", "other", world.address, CALL_ID, "slin")
    world.switch.bring_up(media, "other", [str(CALL_ID)])
    assert media.gone.is_set()
    assert world.took() == []


async def test_external_media_that_cannot_be_had(world: World) -> None:
    dial = world.switch.external_media
    with pytest.raises(OSError, match="Connect call failed"):
        await dial("media", "ari-gemini", "127.0.0.1:1", CALL_ID, "slin")
    with pytest.raises(KeyError):
        await dial("media", "ari-gemini", world.address, CALL_ID, "opus")
    assert world.writers == []
    first = await dial("media", "ari-gemini", world.address, CALL_ID, "slin")
    with pytest.raises(KeyError):
        await dial("media", "ari-gemini", world.address, CALL_ID, "slin")
    assert world.switch.channels == {"media": first}
    assert world.took() == []


async def test_media_that_was_hung_up_before_it_came_up(world: World) -> None:
    media = await world.switch.external_media("media", "ari-gemini", world.address, CALL_ID, "slin")
    world.switch.hang_up(media, requested=True)
    world.took()
    world.switch.bring_up(media, "ari-gemini", [str(CALL_ID)])
    assert world.took() == []


@pytest.mark.parametrize("orderly", [True, False])
async def test_the_audiosocket_application(world: World, orderly: bool) -> None:
    """After a hangup message the dialplan goes on; after something worse the channel is gone."""
    caller = SimChannel("caller", "PJSIP/caller", dialplan_stays=True)
    caller.phone = Phone(SilentVoice())
    world.switch.add(caller)
    world.switch.answer(caller)
    await world.switch.audiosocket_app(caller, world.address, CALL_ID)
    assert (caller.app_name, caller.app_data) == ("AudioSocket", f"{CALL_ID},{world.address}")
    writer = await world.accepted()
    writer.write(b"\x00\x00\x00" if orderly else b"\x03\x00\x015")
    await caller.left.wait()
    assert caller.gone.is_set() is not orderly
    assert (caller.continued == Continuation()) is orderly


async def test_the_audiosocket_application_finds_nobody(world: World) -> None:
    caller = SimChannel("caller", "PJSIP/caller", dialplan_stays=True)
    world.switch.add(caller)
    with pytest.raises(OSError, match="Connect call failed"):
        await world.switch.audiosocket_app(caller, "127.0.0.1:1", CALL_ID)
    assert caller.gone.is_set()
    assert world.switch.channels == {}


async def test_the_caller_leaves_while_the_audiosocket_is_dialled(world: World) -> None:
    caller = SimChannel("caller", "PJSIP/caller")
    world.switch.add(caller)
    dialling = asyncio.create_task(world.switch.audiosocket_app(caller, world.address, CALL_ID))
    await asyncio.sleep(0)
    world.switch.hang_up(caller, told=True)
    await dialling
    assert caller.leg is not None
    await caller.leg.wait_closed()
    assert caller.continued is None


async def test_a_channel_is_hung_up_once(world: World) -> None:
    caller = world.caller()
    world.switch.hang_up(caller, 17, requested=True)
    world.took()
    world.switch.hang_up(caller, 16, told=True)
    assert (world.took(), caller.hangup_cause) == ([], 17)
    with pytest.raises(KeyError):
        world.switch.add(world.caller("twin"))


async def test_quiet_leaves_nothing(world: World) -> None:
    caller, media = world.caller(), await world.media()
    world.bridge(caller, media)
    await world.switch.wait_quiet()
    assert (world.switch.channels, world.switch.bridges) == ({}, {})
    assert media.leg is not None
    assert not media.leg.open
