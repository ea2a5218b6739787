"""Status codes and words, which are those of a real Asterisk 22.10.1."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ari_gemini.simulator.asterisk_docs import OPERATIONS
from ari_gemini.simulator.asterisk_party import Party
from ari_gemini.simulator.asterisk_rest import INTERNAL_ERROR, MODULES, Ask, Refused, Rest
from ari_gemini.simulator.asterisk_state import Continuation, SimChannel
from ari_gemini.simulator.asterisk_switch import Switch

CALL_ID = "5ab32d72-dd59-4df7-aaea-4d145be1a835"


class Desk:
    """Asks without HTTP."""

    def __init__(self) -> None:
        self.switch = Switch(lambda *_: None, lambda app: app == "ari-gemini")
        self.rest = Rest(self.switch, lambda: {"ari-gemini"})
        self.address = ""

    def caller(self, channel_id: str = "caller") -> SimChannel:
        channel = SimChannel(channel_id, f"PJSIP/{channel_id}", caller_number="4711", dialplan_stays=True)
        self.switch.add(channel)
        self.switch.enter_stasis(channel, "ari-gemini", ["default"])
        return channel

    async def ask(self, operation: str, **params: str) -> Any:
        return await self.rest.handler(*operation.split("."))(Ask(params))

    async def refused(self, operation: str, **params: str) -> tuple[int, str]:
        with pytest.raises(Refused) as caught:
            await self.ask(operation, **params)
        return caught.value.status, caught.value.message

    async def media(self, **changes: str) -> Any:
        given = {
            "channelId": "media",
            "app": "ari-gemini",
            "external_host": self.address,
            "encapsulation": "audiosocket",
            "transport": "tcp",
            "format": "slin",
            "data": CALL_ID,
        }
        return await self.ask("channels.externalMedia", **given | changes)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            pass
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    await made.switch.wait_quiet()
    server.close()


def test_every_operation_has_its_method() -> None:
    rest = Rest(Switch(lambda *_: None, lambda _: False), set)
    for operation in OPERATIONS:
        assert operation.websocket or callable(rest.handler(operation.resource, operation.nickname))


CHANNEL_GONE = (404, "Channel not found")
NOT_IN_STASIS = (409, "Channel not in Stasis application")
VERBS: dict[str, dict[str, str]] = {
    "channels.answer": {},
    "channels.ring": {},
    "channels.ringStop": {},
    "channels.continueInDialplan": {},
    "channels.setChannelVar": {"variable": "X", "value": "1"},
    "channels.sendDTMF": {"dtmf": "1"},
}


@pytest.mark.parametrize("verb", VERBS)
async def test_who_is_gone_and_who_is_elsewhere(desk: Desk, verb: str) -> None:
    assert await desk.refused(verb, channelId="nobody", **VERBS[verb]) == CHANNEL_GONE
    desk.caller()
    await desk.ask("channels.continueInDialplan", channelId="caller")
    assert await desk.refused(verb, channelId="caller", **VERBS[verb]) == NOT_IN_STASIS


async def test_channels(desk: Desk) -> None:
    assert await desk.ask("channels.list") == []
    caller = desk.caller()
    assert await desk.ask("channels.list") == [caller.to_json()]
    assert await desk.ask("channels.get", channelId="caller") == caller.to_json()
    assert await desk.refused("channels.get", channelId="nobody") == CHANNEL_GONE
    assert await desk.ask("channels.ring", channelId="caller") is None
    assert caller.ringing
    assert await desk.ask("channels.answer", channelId="caller") is None
    assert (caller.state, caller.ringing) == ("Up", False)
    refusal = (400, "Invalid reason for hangup reason provided")
    assert await desk.refused("channels.hangup", channelId="caller", reason="nonsense") == refusal
    assert await desk.ask("channels.hangup", channelId="caller", reason="busy") is None
    assert caller.hangup_cause == 17
    assert await desk.refused("channels.hangup", channelId="caller") == CHANNEL_GONE


async def test_variables(desk: Desk) -> None:
    desk.caller()
    get = "channels.getChannelVar"
    unset = (404, "Provided variable was not found")
    assert await desk.refused(get, channelId="caller", variable="X") == unset
    gone = (404, "Provided channel was not found")
    assert await desk.refused(get, channelId="nobody", variable="X") == gone
    assert await desk.ask("channels.setChannelVar", channelId="caller", variable="X", value="a b") is None
    assert await desk.ask(get, channelId="caller", variable="X") == {"value": "a b"}
    assert await desk.ask(get, channelId="caller", variable="CALLERID(num)") == {"value": "4711"}


async def test_digits_keep_the_channel_busy(desk: Desk) -> None:
    """Asterisk does one thing after another; hanging up comes first all the same."""
    caller = desk.caller()
    loop = asyncio.get_running_loop()
    before = loop.time()
    await desk.ask("channels.sendDTMF", channelId="caller", dtmf="12", between="20", duration="30")
    await desk.ask("channels.sendDTMF", channelId="caller", dtmf="3", duration="0", between="0", after="50")
    assert caller.digits_heard == "123"
    lasts = 0.1 + 2 * (0.1 + 0.02) + 0.1 + 0.1 + 0.05
    assert before + lasts <= caller.busy_until <= loop.time() + lasts
    await desk.ask("channels.getChannelVar", channelId="caller", variable="CALLERID(num)")
    assert loop.time() < caller.busy_until, "reading does not wait"
    await desk.ask("channels.answer", channelId="caller")
    assert loop.time() >= before + lasts
    await desk.ask("channels.sendDTMF", channelId="caller", dtmf="1" * 1000)
    await desk.ask("channels.continueInDialplan", channelId="caller")
    waiting = asyncio.create_task(desk.ask("channels.answer", channelId="caller"))
    await asyncio.sleep(0)
    assert caller.stasis == "ari-gemini"
    await desk.ask("channels.hangup", channelId="caller")
    with pytest.raises(Refused, match="404"):
        await waiting


async def test_when_digits_sound(desk: Desk) -> None:
    """As measured: 100 ms before the first, each its length (100 ms at least) and its gap, a w 500 ms."""
    caller = desk.caller()
    await desk.ask("channels.sendDTMF", channelId="caller", dtmf="1w2", duration="120", between="60")
    assert caller.digits_heard == "12"
    begin = caller.sounding[0][0]
    spans = [(round(a - begin, 6), round(b - begin, 6)) for a, b in caller.sounding]
    assert spans == [(0.0, 0.12), (0.68, 0.8)]
    assert round(caller.busy_until - begin, 6) == 0.86
    await desk.ask("channels.sendDTMF", channelId="caller", dtmf="3", duration="1", between="0")
    assert round(caller.sounding[2][0] - begin, 6) == 0.96, "one request after another"
    assert round(caller.sounding[2][1] - caller.sounding[2][0], 6) == 0.1


@pytest.mark.parametrize(
    ("params", "refusal"),
    [
        ({}, (400, "DTMF is required")),
        ({"dtmf": "1", "duration": "long"}, (400, "duration must be a number")),
    ],
)
async def test_bad_digits(desk: Desk, params: dict[str, str], refusal: tuple[int, str]) -> None:
    desk.caller()
    assert await desk.refused("channels.sendDTMF", channelId="caller", **params) == refusal


async def test_external_media(desk: Desk) -> None:
    answer = await desk.media()
    assert (answer["id"], answer["state"]) == ("media", "Down")
    assert answer["name"] == f"AudioSocket/{desk.address}-{CALL_ID}"
    assert answer["channelvars"] == {"AUDIOSOCKET_SERVICE": desk.address, "AUDIOSOCKET_UUID": CALL_ID}
    await asyncio.sleep(0)
    channel = desk.switch.channels["media"]
    assert (channel.state, channel.stasis) == ("Up", "ari-gemini")
    named = await desk.media(channelId="")
    assert named["id"] in desk.switch.channels


async def test_what_the_dialplan_has(desk: Desk) -> None:
    desk.caller()
    get = "channels.getChannelVar"
    asked = {"channelId": "caller", "variable": "DIALPLAN_EXISTS(a,600,1)"}
    assert await desk.ask(get, **asked) == {"value": "1"}
    desk.switch.places = {"a,601,1"}
    assert await desk.ask(get, **asked) == {"value": "0"}
    desk.switch.places |= {"a,600,1"}
    assert await desk.ask(get, **asked) == {"value": "1"}


@pytest.mark.parametrize("known", [True, False])
async def test_who_goes_on_where_nothing_is_is_hung_up(desk: Desk, known: bool) -> None:
    caller = desk.caller()
    desk.switch.places = {"a,600,1"} if known else set()
    where = {"context": "a", "extension": "600", "priority": "1"}
    await desk.ask("channels.continueInDialplan", channelId="caller", **where)
    assert caller.continued == Continuation("a", "600", 1)
    assert ("caller" in desk.switch.channels) is known


PARTY = {"endpoint": "PJSIP/1002", "app": "ari-gemini", "channelId": "party", "timeout": "5"}


async def test_calling_somebody(desk: Desk) -> None:
    desk.caller()
    desk.rest.exchange.parties["PJSIP/1002"] = Party(answers=0.0)
    answer = await desk.ask(
        "channels.originate", **PARTY, originator="caller", callerId='"Ada L" <4711>', appArgs="a,b"
    )
    assert (answer["id"], answer["state"]) == ("party", "Down")
    assert answer["caller"] == {"name": "Ada L", "number": "4711"}
    party = await desk.rest.exchange.called()
    assert party.state == "Ringing"
    await party.answered.wait()
    assert (party.stasis, party.app_data) == ("ari-gemini", "ari-gemini,a,b")


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"endpoint": "PJSIP/9999"}, (500, "Allocation failed")),
        ({"originator": "nobody"}, (400, "Provided originator channel was not found")),
        ({"channelId": "caller"}, (409, "Channel with given unique ID already exists")),
        ({"otherChannelId": "caller"}, (409, "Channel with given unique ID already exists")),
        ({"timeout": "long"}, (400, "timeout must be a number")),
        ({"endpoint": ""}, (400, "endpoint can not be empty")),
    ],
)
async def test_calls_that_cannot_be_made(
    desk: Desk, changes: dict[str, str], refusal: tuple[int, str]
) -> None:
    desk.caller()
    desk.rest.exchange.parties["PJSIP/1002"] = Party()
    assert await desk.refused("channels.originate", **PARTY | changes) == refusal
    assert list(desk.switch.channels) == ["caller"]


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"external_host": "127.0.0.1:1"}, (500, INTERNAL_ERROR)),
        ({"data": "nouuid"}, (500, INTERNAL_ERROR)),
        ({"format": "xslin"}, (500, INTERNAL_ERROR)),
        ({"data": ""}, (400, "data can not be empty")),
        (
            {"external_host": "127.0.0.1"},
            (400, "external_host must be <host>:<port> for all transports other than websocket"),
        ),
        (
            {"external_host": ""},
            (400, "external_host is required for all but websocket server connections"),
        ),
        ({"encapsulation": "rtp"}, (501, "The simulated Asterisk does AudioSocket over TCP only")),
    ],
)
async def test_external_media_refused(desk: Desk, changes: dict[str, str], refusal: tuple[int, str]) -> None:
    with pytest.raises(Refused) as caught:
        await desk.media(**changes)
    assert (caught.value.status, caught.value.message) == refusal
    assert desk.switch.channels == {}


async def test_an_id_can_be_had_once(desk: Desk) -> None:
    await desk.media()
    with pytest.raises(Refused, match="500"):
        await desk.media()
    assert list(desk.switch.channels) == ["media"]


async def test_bridges(desk: Desk) -> None:
    caller = desk.caller()
    made = await desk.ask("bridges.createWithId", bridgeId="b", type="mixing", name="talk")
    assert (made["id"], made["name"], made["channels"]) == ("b", "talk", [])
    exists = (409, "Bridge with id 'b' already exists")
    assert await desk.refused("bridges.createWithId", bridgeId="b") == exists
    assert await desk.refused("bridges.create", bridgeId="b") == exists
    other = await desk.ask("bridges.create")
    assert [b["id"] for b in await desk.ask("bridges.list")] == ["b", other["id"]]
    assert await desk.ask("bridges.addChannel", bridgeId="b", channel="caller,") is None
    assert (await desk.ask("bridges.get", bridgeId="b"))["channels"] == ["caller"]
    outside = (422, "Channel not in this bridge")
    assert await desk.refused("bridges.removeChannel", bridgeId=other["id"], channel="caller") == outside
    assert await desk.ask("bridges.removeChannel", bridgeId="b", channel="caller") is None
    unknown = (400, "Channel not found")
    assert await desk.refused("bridges.addChannel", bridgeId="b", channel="caller,nobody") == unknown
    assert caller.bridge is None
    await desk.ask("channels.continueInDialplan", channelId="caller")
    elsewhere = (422, "Channel not in Stasis application")
    assert await desk.refused("bridges.addChannel", bridgeId="b", channel="caller") == elsewhere
    assert await desk.ask("bridges.destroy", bridgeId="b") is None
    assert (await desk.ask("bridges.createWithId", bridgeId="b"))["channels"] == []
    await desk.ask("bridges.destroy", bridgeId="b")
    gone = (404, "Bridge not found")
    assert await desk.refused("bridges.destroy", bridgeId="b") == gone
    assert await desk.refused("bridges.get", bridgeId="b") == gone
    assert await desk.refused("bridges.addChannel", bridgeId="b", channel="caller") == gone


async def test_a_channel_that_leaves_while_it_plays_digits_is_not_bridged(desk: Desk) -> None:
    caller = desk.caller()
    await desk.ask("bridges.createWithId", bridgeId="b")
    await desk.ask("channels.sendDTMF", channelId="caller", dtmf="1" * 1000)
    adding = asyncio.create_task(desk.ask("bridges.addChannel", bridgeId="b", channel="caller"))
    await asyncio.sleep(0)
    desk.switch.hang_up(caller, told=True)
    await adding
    assert desk.switch.bridges["b"].channels == []


async def test_applications(desk: Desk) -> None:
    caller = desk.caller()
    await desk.ask("bridges.createWithId", bridgeId="b")
    await desk.ask("bridges.addChannel", bridgeId="b", channel="caller")
    caller.stasis = "abandoned"
    names = [application["name"] for application in await desk.ask("applications.list")]
    assert names == ["abandoned", "ari-gemini"]
    mine = await desk.ask("applications.get", applicationName="ari-gemini")
    assert (mine["channel_ids"], mine["bridge_ids"]) == ([], ["b"])
    abandoned = await desk.ask("applications.get", applicationName="abandoned")
    assert abandoned["channel_ids"] == ["caller"]
    unknown = (404, "Application not found")
    assert await desk.refused("applications.get", applicationName="nobody") == unknown


async def test_a_bridges_name_is_free_when_its_channels_have_left(desk: Desk) -> None:
    desk.caller()
    await desk.ask("bridges.createWithId", bridgeId="b")
    await desk.ask("bridges.addChannel", bridgeId="b", channel="caller")
    await desk.ask("bridges.destroy", bridgeId="b")
    assert await desk.refused("bridges.get", bridgeId="b") == (404, "Bridge not found")
    exists = (409, "Bridge with id 'b' already exists")
    assert await desk.refused("bridges.createWithId", bridgeId="b") == exists
    async with asyncio.timeout(5):
        while desk.rest._dissolving:  # noqa: ASYNC110 - a timer of its own
            await asyncio.sleep(0.01)
    assert await desk.ask("bridges.createWithId", bridgeId="b")


async def test_a_channel_that_is_unsubscribed_from_is_told_of_no_more_but_for_its_end(desk: Desk) -> None:
    told: list[str] = []
    desk.switch._emit = lambda _app, kind, _fields: told.append(kind)
    await desk.media()
    await asyncio.sleep(0)
    assert "StasisStart" in told
    once = {"applicationName": "ari-gemini", "eventSource": "channel:media"}
    assert (await desk.ask("applications.unsubscribe", **once))["channel_ids"] == ["media"]
    twice = await desk.ask("applications.unsubscribe", **once)
    assert twice["channel_ids"] == []
    told.clear()
    await desk.ask("channels.hangup", channelId="media")
    assert told == ["StasisEnd"]
    assert "media" not in desk.switch.channels


async def test_unsubscribing_from_what_nobody_subscribed_to_is_refused(desk: Desk) -> None:
    desk.caller()
    name = {"applicationName": "ari-gemini"}
    both = {"eventSource": "channel:caller,channel:caller"}
    missing = (422, "Event source was not subscribed to")
    assert await desk.refused("applications.unsubscribe", **name, **both) == missing, "the first time counted"
    assert (await desk.ask("applications.get", **name))["channel_ids"] == []
    endpoint = {"eventSource": "endpoint:PJSIP"}
    assert (await desk.refused("applications.unsubscribe", **name, **endpoint))[0] == 400
    assert (await desk.refused("applications.unsubscribe", **name))[0] == 400
    unknown = await desk.refused("applications.unsubscribe", applicationName="nobody", **both)
    assert unknown == (404, "Application not found")


async def test_asterisk_itself(desk: Desk) -> None:
    assert (await desk.ask("asterisk.getInfo"))["system"]["version"].startswith("22.")
    assert (await desk.ask("asterisk.ping"))["ping"] == "pong"
    modules = await desk.ask("asterisk.listModules")
    assert [module["name"] for module in modules] == list(MODULES)
    assert {module["status"] for module in modules} == {"Running"}
