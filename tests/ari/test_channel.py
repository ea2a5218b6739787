"""Verbs named as ARI names them, each against what Asterisk does with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from ari_gemini.ari.channel import Bridge, Channel, find_audiosocket_channel
from ari_gemini.ari.events import ChannelInfo, StasisEnd, StasisStart
from ari_gemini.errors import AriConflict, AriError, AriNotFound, AriRejected
from ari_gemini.simulator.asterisk import Continuation, Refused, SimulatedAsterisk, SimulatedCall

CALL_ID = UUID("5ab32d72-dd59-4df7-aaea-4d145be1a835")


@pytest.fixture
async def call(asterisk: SimulatedAsterisk, ear: Any) -> SimulatedCall:
    """A caller who is in Stasis and stays in the dialplan when sent on."""
    placed = await asterisk.call(variables={"TARIFF": "gold"}, stays=True)
    await ear.event(StasisStart)
    return placed


@pytest.fixture
def channel(call: SimulatedCall, ear: Any) -> Channel:
    return Channel(ear.client, call.id)


async def enter_media(ear: Any, media_peer: str) -> Channel:
    """An external media channel that has entered the application."""
    media = Channel(ear.client, f"media-{uuid4()}")
    await ear.client.external_media(media.id, "ari-gemini", media_peer, uuid4())
    await ear.event(StasisStart, media.id)
    return media


async def test_ring_answer_hang_up(call: SimulatedCall, channel: Channel, ear: Any) -> None:
    await channel.ring()
    assert call.channel.ringing
    await channel.ring_stop()
    assert not call.channel.ringing
    await channel.answer()
    await channel.answer()
    assert (await channel.get()).state == "Up"
    await channel.hangup("busy")
    assert call.channel.hangup_cause == 17
    await ear.event(StasisEnd)


async def test_get(channel: Channel, call: SimulatedCall) -> None:
    info = await channel.get()
    assert (info.id, info.caller_number, info.called_number) == (call.id, "4711", "700")
    assert (info.app_name, info.app_data) == ("Stasis", "ari-gemini,default")


async def test_hanging_up_what_is_gone_is_success(call: SimulatedCall, channel: Channel) -> None:
    call.hang_up()
    await channel.hangup()
    await channel.hangup("normal")


async def test_hanging_up_can_fail_otherwise(
    asterisk: SimulatedAsterisk, channel: Channel, call: SimulatedCall
) -> None:
    def refuse(_method: str, _path: str) -> None:
        raise Refused(500)

    asterisk.on_request = refuse
    with pytest.raises(AriRejected):
        await channel.hangup()
    assert call.channel.hangup_cause is None


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, Continuation()),
        ({"context": "queue", "extension": "s", "priority": 1}, Continuation("queue", "s", 1)),
        ({"label": "human"}, Continuation(label="human")),
    ],
)
async def test_continue(
    call: SimulatedCall, channel: Channel, ear: Any, where: dict[str, Any], expected: Continuation
) -> None:
    await channel.continue_in_dialplan(**where)
    await ear.event(StasisEnd)
    assert call.continued == expected
    assert (await channel.get()).app_name != "Stasis"


async def test_variables(call: SimulatedCall, channel: Channel) -> None:
    assert await channel.get_variable("TARIFF") == "gold"
    assert await channel.get_variable("CALLERID(num)") == "4711"
    assert await channel.get_variable("NOBODY_SET_THIS") is None
    await channel.set_variable("ARI_GEMINI_CAUSE", "ä b&c=d+e%20/?#")
    assert call.variables["ARI_GEMINI_CAUSE"] == "ä b&c=d+e%20/?#"
    assert await channel.get_variable("ARI_GEMINI_CAUSE") == "ä b&c=d+e%20/?#"
    await channel.set_variable("EMPTY", "")
    assert await channel.get_variable("EMPTY") == ""


async def test_a_variable_of_a_channel_that_is_gone(call: SimulatedCall, channel: Channel) -> None:
    """Asterisk answers 404 to this as to an unset variable."""
    call.hang_up()
    with pytest.raises(AriNotFound, match="channel was not found"):
        await channel.get_variable("TARIFF")


async def test_digits(asterisk: SimulatedAsterisk, call: SimulatedCall, channel: Channel) -> None:
    await channel.send_dtmf("12#A", before_ms=0, between_ms=40, duration_ms=60, after_ms=0)
    assert call.channel.digits_heard == "12#A"
    assert asterisk.requests[-1].params == {
        "channelId": call.id,
        "dtmf": "12#A",
        "before": "0",
        "between": "40",
        "duration": "60",
        "after": "0",
    }


Verb = Callable[[Channel], Awaitable[object]]
STASIS_VERBS: dict[str, Verb] = {
    "ring": Channel.ring,
    "ring_stop": Channel.ring_stop,
    "answer": Channel.answer,
    "continue": Channel.continue_in_dialplan,
    "set_variable": lambda channel: channel.set_variable("a", "b"),
    "send_dtmf": lambda channel: channel.send_dtmf("1"),
}


@pytest.mark.parametrize("verb", STASIS_VERBS.values(), ids=STASIS_VERBS)
async def test_outside_stasis_these_are_conflicts(
    channel: Channel, call: SimulatedCall, ear: Any, verb: Verb
) -> None:
    await channel.continue_in_dialplan()
    await ear.event(StasisEnd)
    with pytest.raises(AriConflict, match="Channel not in Stasis application"):
        await verb(channel)
    assert await channel.get_variable("TARIFF") == "gold"
    await channel.hangup()
    assert call.channel.gone.is_set()


@pytest.mark.parametrize("verb", [*STASIS_VERBS.values(), Channel.get], ids=[*STASIS_VERBS, "get"])
async def test_nothing_can_be_done_with_what_is_gone(
    channel: Channel, call: SimulatedCall, verb: Verb
) -> None:
    call.hang_up()
    with pytest.raises(AriNotFound, match="Channel not found"):
        await verb(channel)


async def test_a_bridge_joins_caller_and_media(
    asterisk: SimulatedAsterisk, call: SimulatedCall, channel: Channel, ear: Any, media_peer: str
) -> None:
    media = await enter_media(ear, media_peer)
    bridge = Bridge(ear.client, str(uuid4()))
    made = await bridge.create(name="talk")
    assert (made.id, made.name, made.bridge_type, made.channels) == (bridge.id, "talk", "mixing", ())
    await bridge.add_channel(channel.id, media.id)
    assert (await bridge.get()).channels == (channel.id, media.id)
    await bridge.remove_channel(media.id)
    assert (await bridge.get()).channels == (channel.id,)
    assert [b.id for b in await ear.client.bridges()] == [bridge.id]
    await bridge.destroy()
    await bridge.destroy()
    assert asterisk.bridges == {}
    assert call.channel.bridge is None
    assert call.channel.stasis == "ari-gemini"


async def test_what_a_bridge_refuses(channel: Channel, call: SimulatedCall, ear: Any) -> None:
    bridge = Bridge(ear.client, "b")
    for missing in (bridge.get(), bridge.add_channel(channel.id), bridge.remove_channel(channel.id)):
        with pytest.raises(AriNotFound, match="Bridge not found"):
            await missing
    await bridge.create()
    with pytest.raises(AriConflict, match="already exists"):
        await bridge.create(name="again")
    await refused(400, bridge.add_channel(channel.id, "nobody"))
    await refused(422, bridge.remove_channel(channel.id))
    await channel.continue_in_dialplan()
    await ear.event(StasisEnd)
    await refused(422, bridge.add_channel(channel.id))
    call.hang_up()
    await refused(400, bridge.add_channel(channel.id))


async def refused(status: int, request: Awaitable[None]) -> None:
    with pytest.raises(AriError) as caught:
        await request
    assert (type(caught.value), caught.value.status) == (AriRejected, status)


def test_handles_say_what_they_name(ear: Any) -> None:
    assert repr(Channel(ear.client, "1.2")) == "Channel('1.2')"
    assert repr(Bridge(ear.client, "b")) == "Bridge('b')"


# -- way B --------


def in_app(name: str, data: str) -> ChannelInfo:
    return ChannelInfo(f"{name}/{data}", app_name=name, app_data=data)


@pytest.mark.parametrize(
    "data",
    [
        f"{CALL_ID},127.0.0.1:9092",
        f"{str(CALL_ID).upper()},pbx.example:9092",
        f" {CALL_ID} ,127.0.0.1:9092",
        f"{CALL_ID},127.0.0.1:9092,c(slin)",
        f"{CALL_ID}",
    ],
)
def test_the_audiosocket_channel_is_found(data: str) -> None:
    others = [in_app("AudioSocket", f"{uuid4()},h:1"), in_app("Stasis", data), ChannelInfo("x")]
    wanted = in_app("AudioSocket", data)
    assert find_audiosocket_channel([*others, wanted], CALL_ID) is wanted
    assert find_audiosocket_channel(others, CALL_ID) is None


@pytest.mark.parametrize("data", ["", ",h:1", f"x{CALL_ID},h:1", f"{CALL_ID}0,h:1", f"h:1,{CALL_ID}"])
def test_another_uuid_is_not_ours(data: str) -> None:
    assert find_audiosocket_channel([in_app("AudioSocket", data)], CALL_ID) is None


async def test_the_audiosocket_channel_of_a_call(
    asterisk: SimulatedAsterisk, ear: Any, media_peer: str
) -> None:
    await asterisk.call()
    placed = await asterisk.audiosocket_call(media_peer, CALL_ID, variables={"ARI_GEMINI_AGENT": "sales"})
    found = find_audiosocket_channel(await ear.client.channels(), CALL_ID)
    assert found is not None
    assert (found.id, found.state, found.called_number) == (placed.id, "Up", "701")
    channel = Channel(ear.client, found.id)
    assert await channel.get_variable("ARI_GEMINI_AGENT") == "sales"
    with pytest.raises(AriConflict):
        await channel.answer()
    await channel.hangup()
    assert placed.channel.gone.is_set()
