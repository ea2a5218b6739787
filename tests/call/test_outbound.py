"""Callers who come on connections of their own: arrivals, adoptions, links that break, and hand-overs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from ari_gemini.ari.events import ChannelInfo, StasisEnd, StasisStart
from ari_gemini.ari.settings import AriSettings
from ari_gemini.audiosocket.connection import EndReason, MediaEnd
from ari_gemini.call import cleanup, outbound, stasis
from ari_gemini.call.names import bridge_of, media_of, party_of
from ari_gemini.call.outbound import OutboundLeg, OutboundWay
from ari_gemini.call.registry import Registry
from ari_gemini.errors import AriConflict, AriNotFound, AriRejected, AriUnavailable, CallEnded, Cause

CALLER = "1.1"
NAME = "PJSIP/1001-00000001"
APP = f"ari-gemini:{NAME}"
LONG = 20.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "CLEANUP_DELAYS", (0.0, 0.0))
    monkeypatch.setattr(stasis, "GONE_PAUSES", (0.0,) * 4)
    monkeypatch.setattr(outbound, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(outbound, "LEAVE_SECONDS", 0.0)


class Listed:
    def __init__(self, name: str) -> None:
        self.id = name
        self.ends: list[Cause] = []

    def end(self, cause: Cause, detail: str = "") -> None:
        self.ends.append(cause)

    def key_pressed(self, digit: str) -> None: ...


class Street:
    """An OutboundWay, the calls it starts, and what there is in Asterisk."""

    def __init__(self, ari_type: type, channel: Callable[..., dict]) -> None:
        street = self
        self.raw = channel
        self.registry = Registry(50)
        self.legs: list[OutboundLeg] = []
        self.spawned: list[asyncio.Task] = []
        self.way = OutboundWay(
            AriSettings(mode="outbound", username="gemini", password="geheim", link_timeout=0.05),
            self.registry,
            start_call=self.legs.append,
            answer_at_once=False,
            media_address="10.0.0.1:9092",
            spawn=lambda work: self.spawned.append(asyncio.ensure_future(work)),
        )
        self.channels = {CALLER: channel(CALLER, "Stasis", "ari-gemini,sales")}
        self.inside: set[str] = set()
        self.bridges: dict[str, list[str]] = {}
        self.party = ""
        self.asked: list[tuple[str, str]] = []
        self.unsubscribed: list[str] = []
        self.refuse = 0
        """So many looks at the application get no answer."""

        class Link(ari_type):
            """A link to that Asterisk."""

            def __init__(self) -> None:
                super().__init__()
                self.open = True
                self.on_event = self.on_closed = lambda *_: None

            app, channel_name = APP, NAME

            @property
            def connected(self) -> bool:
                return self.open

            async def request(self, resource: str, nickname: str, **params):
                if not self.open:
                    raise AriUnavailable("closed")
                street.asked.append((nickname, params.get("channelId") or params.get("bridgeId") or ""))
                return await super().request(resource, nickname, **params)

            async def ignore(self, kinds) -> None: ...

            unsubscribe = staticmethod(self.no_more_of)

            async def close(self) -> None:
                self.cut()

            def cut(self) -> None:
                if self.open:
                    self.open = False
                    self.on_closed()

            def _usual(self, resource: str, nickname: str, params: dict):
                return street.answer(resource, nickname, params)

        self.new_link = Link

    async def no_more_of(self, channel_id: str) -> None:
        self.unsubscribed.append(channel_id)
        if channel_id not in self.inside:
            raise AriRejected("422 Event source was not subscribed to", 422)
        self.inside.discard(channel_id)

    def answer(self, resource: str, nickname: str, params: dict):
        if resource == "applications":
            if self.refuse:
                self.refuse -= 1
                raise AriConflict("not now", 409)
            entered = sorted(name for name, channels in self.bridges.items() if channels)
            return {"name": APP, "channel_ids": sorted(self.inside), "bridge_ids": entered}
        if resource == "bridges":
            return self._bridge(nickname, params)
        name = params.get("channelId", "")
        if nickname == "getChannelVar" and params["variable"] == "UNIQUEID":
            if name == NAME and CALLER in self.channels:
                return {"value": CALLER}
            raise AriNotFound("404 Provided channel was not found", 404)
        if nickname == "externalMedia":
            return self.raw(name)
        if name not in self.channels:
            raise AriNotFound("404 Channel not found", 404)
        if nickname == "getChannelVar":
            return {"value": self.party}
        if nickname == "hangup":
            self.leave(name)
        return self.channels.get(name)

    def _bridge(self, nickname: str, params: dict):
        if nickname == "list":
            return [{"id": name, "channels": channels} for name, channels in self.bridges.items()]
        name = params["bridgeId"]
        if nickname == "createWithId":
            self.bridges[name] = []
        if name not in self.bridges:
            raise AriNotFound("404 Bridge not found", 404)
        described = {"id": name, "channels": self.bridges[name]}
        if nickname == "destroy":
            del self.bridges[name]
        return described

    def leave(self, name: str) -> None:
        self.channels.pop(name, None)
        self.inside.discard(name)

    def enter(self, name: str, data: str = "") -> None:
        """A channel is inside the application."""
        self.channels.setdefault(name, self.raw(name, "Stasis", data or APP))
        self.inside.add(name)

    async def link(self):
        """Asterisk connects; returns when the way has looked."""
        link = self.new_link()
        self.way.linked(link)
        await self.settle()
        return link

    async def settle(self) -> None:
        async with asyncio.timeout(LONG):
            while pending := [task for task in self.spawned if not task.done()]:
                await asyncio.wait(pending)
        for task in self.spawned:
            task.result()

    def call(self) -> Listed:
        """Let the call run."""
        self.registry.calls[CALLER] = listed = Listed(CALLER)
        return listed

    async def end(self, cause: Cause) -> None:
        """Clean the newest call up."""
        await self.legs[-1].release(CallEnded(cause))
        self.registry.calls.pop(CALLER, None)
        self.way.call_over(CALLER)
        await self.settle()

    def since(self, count: int) -> list[str]:
        return [nickname for nickname, _ in self.asked[count:]]


@pytest.fixture
async def street(ari, ari_channel) -> Street:
    return Street(type(ari), ari_channel)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONG):
        while not condition():  # noqa: ASYNC110  # what is waited for has no events
            await asyncio.sleep(0.001)


def start() -> StasisStart:
    return StasisStart(ChannelInfo(CALLER), ("sales",))


# Arrivals.


async def test_a_call_begins_before_its_caller_enters(street: Street) -> None:
    link = await street.link()
    (leg,) = street.legs
    assert (leg.id, leg.adopted, (await leg.identify()).agent) == (CALLER, False, "sales")
    street.asked.clear()
    opening = asyncio.create_task(leg.open_media())
    await until(lambda: "externalMedia" in street.since(0))
    assert street.since(0) == ["createWithId", "externalMedia"], "nothing that Asterisk would refuse"
    settling = asyncio.create_task(leg.settle_media())
    link.on_event(StasisStart(ChannelInfo(media_of(CALLER))))
    await asyncio.sleep(0)
    assert not settling.done()
    link.on_event(start())
    await settling
    assert street.since(2) == ["ring"]
    assert len(street.legs) == 1, "one caller, one call"
    opening.cancel()


async def test_what_is_made_enters_the_callers_own_application(street: Street) -> None:
    link = await street.link()
    opening = asyncio.create_task(street.legs[0].open_media())
    await link.until("externalMedia")
    assert link.params["externalMedia"]["app"] == APP
    opening.cancel()


async def test_of_a_media_channel_that_has_entered_no_more_is_told(street: Street) -> None:
    link = await street.link()
    media = media_of(CALLER)
    for there in (True, False):  # the second time it was done before, over a former link
        street.inside = {media} if there else set()
        link.on_event(StasisStart(ChannelInfo(media)))
        await street.settle()
    assert street.unsubscribed == [media, media]
    link.on_event(StasisStart(ChannelInfo(media_of("somebody else's"))))
    link.on_event(start())
    await street.settle()
    assert street.unsubscribed == [media, media]


async def test_a_caller_who_is_announced_before_he_was_found_is_no_adoption(street: Street) -> None:
    link = street.new_link()
    street.way.linked(link)
    street.enter(CALLER)
    link.on_event(start())
    await street.settle()
    assert [leg.adopted for leg in street.legs] == [False]


async def test_a_channel_that_is_gone_starts_nothing_and_leaves_nothing(street: Street) -> None:
    street.channels.clear()
    link = await street.link()
    assert street.legs == []
    link.cut()
    assert street.way._stays == {}


async def test_a_link_that_asterisk_has_forgotten_is_closed(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound, "IDLE_SECONDS", 0.0)
    street.channels.clear()
    link = await street.link()
    await until(lambda: not link.connected)
    assert street.way._stays == {}
    street.enter(CALLER, "ari-gemini,sales")
    link = await street.link()
    await asyncio.sleep(0.02)
    assert link.connected, "somebody is there"
    await street.end(Cause.TRANSFERRED)
    await asyncio.sleep(0.02)
    assert link.connected, "and goes on in the dialplan"
    street.leave(CALLER)
    await until(lambda: not link.connected)


async def test_the_time_for_that_counts_from_the_end_of_the_call(street: Street) -> None:
    """A link that is closed while its caller leaves is made anew, and he would be taken for one who comes."""
    now = asyncio.get_running_loop().time
    link = await street.link()
    (stay,) = street.way._stays.values()
    first = stay._idle.when()
    await asyncio.sleep(0.02)
    before = now()
    street.leave(CALLER)
    await street.end(Cause.CALLER_HANGUP)
    assert first < before + outbound.IDLE_SECONDS <= stay._idle.when()
    link.cut()
    assert stay._idle is None, "over"


async def test_a_caller_whom_the_dialplan_has_is_left_alone(street: Street) -> None:
    street.channels[CALLER] = street.raw(CALLER, "Wait", "60")
    await street.link()
    assert street.legs == []


async def test_looking_is_repeated_until_asterisk_has_said_it(street: Street) -> None:
    street.enter(CALLER, "ari-gemini,sales")
    street.refuse = 3
    await street.link()
    assert [leg.adopted for leg in street.legs] == [True]


async def test_a_call_that_ends_before_the_caller_enters_waits_to_send_him_on(street: Street) -> None:
    link = await street.link()
    releasing = asyncio.create_task(street.legs[0].release(CallEnded(Cause.NO_AGENT)))
    await asyncio.sleep(0)
    assert "continueInDialplan" not in street.since(0)
    link.on_event(start())
    await releasing
    assert street.since(0)[-2:] == ["setChannelVar", "continueInDialplan"]


async def test_who_never_enters_does_not_hold_the_clean_up(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound, "ENTER_SECONDS", 0.01)
    await street.link()
    await street.end(Cause.ARI_FAILED)
    assert "setChannelVar" in street.since(0)


# Adoptions.


@pytest.mark.parametrize("told", [True, False], ids=["subscribed", "unsubscribed"])
async def test_a_caller_who_is_inside_is_adopted_and_the_remains_are_cleared(
    street: Street, told: bool
) -> None:
    street.enter(CALLER, "ari-gemini,sales")
    street.enter(media_of(CALLER))
    if not told:
        street.inside.discard(media_of(CALLER))
    street.bridges[bridge_of(CALLER)] = [CALLER, media_of(CALLER)]
    await street.link()
    (leg,) = street.legs
    assert leg.adopted
    assert set(street.channels) == {CALLER}
    assert street.bridges == {}
    assert ("hangup", CALLER) not in street.asked


async def test_a_bridge_that_nobody_was_in_yet_is_cleared_too(street: Street) -> None:
    """The application does not list it: its worker was killed before the caller was joined."""
    street.enter(CALLER, "ari-gemini,sales")
    street.bridges[bridge_of(CALLER)] = []
    await street.link()
    assert street.bridges == {}
    assert street.legs[0].adopted


async def test_an_adopted_caller_who_was_talking_hears_no_ringing(street: Street) -> None:
    street.channels[CALLER]["state"] = "Up"
    street.enter(CALLER)
    await street.link()
    opening = asyncio.create_task(street.legs[0].open_media())
    await until(lambda: "externalMedia" in street.since(0))
    assert not {"ring", "answer"} & set(street.since(0))
    opening.cancel()


async def test_two_who_are_joined_get_no_bot_and_stay_joined(street: Street) -> None:
    party = party_of(CALLER, 1)
    street.enter(CALLER, "ari-gemini,sales")
    street.enter(party)
    street.bridges[bridge_of(CALLER)] = [CALLER, party]
    street.party = party
    link = await street.link()
    assert street.legs == []
    assert set(street.channels) == {CALLER, party}
    street.leave(party)
    link.on_event(StasisEnd(ChannelInfo(party)))
    await street.settle()
    assert street.channels == {}
    assert street.bridges == {}, "when one leaves the other is hung up"


async def test_a_party_that_nobody_asks_any_more_is_hung_up_and_the_caller_is_not(street: Street) -> None:
    street.enter(CALLER, "ari-gemini,sales")
    street.enter(party_of(CALLER, 1))
    street.bridges[bridge_of(CALLER)] = [party_of(CALLER, 1)]
    await street.link()
    assert set(street.channels) == {CALLER}
    assert [leg.adopted for leg in street.legs] == [True]


# Links that break.


async def test_a_call_goes_on_over_the_next_link(street: Street) -> None:
    first = await street.link()
    street.enter(CALLER)
    call = street.call()
    first.on_event(start())
    first.cut()
    with pytest.raises(AriUnavailable):
        await street.legs[0].variables(["A"])
    second = await street.link()
    await street.legs[0].variables(["A"])
    await asyncio.sleep(0.1)
    assert call.ends == [], "it waits no longer for a link"
    assert len(street.legs) == 1, "and no second call began"
    second.on_event(StasisEnd(ChannelInfo(CALLER)))
    assert call.ends == [Cause.CALLER_HANGUP]


async def test_what_happened_meanwhile_is_made_up_for(street: Street) -> None:
    first = await street.link()
    call = street.call()
    first.cut()
    street.leave(CALLER)
    await street.link()
    assert call.ends == [Cause.CALLER_HANGUP]


async def test_a_caller_who_entered_meanwhile_is_received(street: Street) -> None:
    (await street.link()).cut()
    street.enter(CALLER)
    await street.link()
    street.legs[0].media_entered()
    async with asyncio.timeout(LONG):
        await street.legs[0].settle_media()


async def test_a_newer_link_replaces_one_that_seems_to_be_up(street: Street) -> None:
    first = await street.link()
    street.call()
    second = await street.link()
    assert (first.open, second.open) == (False, True)
    assert len(street.way._stays) == 1


async def test_without_link_and_media_the_call_is_another_workers(street: Street) -> None:
    link = await street.link()
    street.enter(CALLER)
    street.call()
    leg = street.legs[0]
    end = MediaEnd(EndReason.EOF)
    assert leg.media_ended(end).cause is Cause.MEDIA_LOST
    link.cut()
    assert leg.media_ended(end).cause is Cause.HANDED_OVER
    # and should Asterisk come back here before that is cleaned up, the old call touches nothing
    street.asked.clear()
    again = await street.link()
    assert street.asked == []
    await street.end(Cause.HANDED_OVER)
    assert len(street.legs) == 2
    assert street.legs[1].adopted
    assert again.open


async def test_a_link_that_does_not_come_back_ends_the_call(street: Street) -> None:
    link = await street.link()
    call = street.call()
    link.cut()
    await until(lambda: bool(call.ends))
    assert call.ends == [Cause.ARI_FAILED]
    street.legs[0].caller_entered()
    await street.end(Cause.ARI_FAILED)
    assert street.way._stays == {}


async def test_a_link_that_comes_during_the_clean_up_serves_it(street: Street) -> None:
    first = await street.link()
    street.enter(CALLER)
    first.on_event(start())
    leg = street.legs[0]
    first.cut()
    leg._over = True  # its release is under way
    await street.link()
    await street.end(Cause.MODEL_HANGUP)
    assert street.channels == {}, "he was hung up over the new link"
    assert len(street.legs) == 1


async def test_a_clean_up_that_came_too_late_leaves_nobody_in_silence(street: Street) -> None:
    first = await street.link()
    street.enter(CALLER, "ari-gemini,sales")
    first.on_event(start())
    first.cut()
    street.legs[0]._over = True
    await street.link()
    street.way.call_over(CALLER)
    await street.settle()
    assert [leg.adopted for leg in street.legs] == [False, True]


async def test_the_link_of_a_call_that_is_over_is_asterisks_to_close(street: Street) -> None:
    link = await street.link()
    link.on_event(start())
    await street.end(Cause.MODEL_UNAVAILABLE)
    assert link.open, "closed from here, Asterisk would only connect again"
    link.cut()
    assert street.way._stays == {}


# Handing over.


async def test_handing_over_touches_no_channel_and_closes_the_links(street: Street) -> None:
    link = await street.link()
    street.enter(CALLER)
    call = street.call()
    street.asked.clear()
    handing = asyncio.create_task(street.way.hand_over())
    await asyncio.sleep(0)
    assert call.ends == [Cause.HANDED_OVER]
    assert link.open, "until the call is over"
    await street.end(Cause.HANDED_OVER)
    async with asyncio.timeout(LONG):
        await handing
    assert (link.open, street.asked, street.way._stays) == (False, [], {})
    assert not street.way.listener.accepting


async def test_a_call_that_does_not_run_yet_is_handed_over_too(street: Street) -> None:
    await street.link()
    handing = asyncio.create_task(street.way.hand_over())
    await asyncio.sleep(0)
    with pytest.raises(CallEnded) as ended:
        await street.legs[0].identify()
    assert ended.value.cause is Cause.HANDED_OVER
    await street.end(Cause.HANDED_OVER)
    await handing


async def test_pairs_and_idle_links_are_handed_over_at_once(street: Street) -> None:
    party = party_of(CALLER, 1)
    street.enter(CALLER, "ari-gemini,sales")
    street.enter(party)
    street.bridges[bridge_of(CALLER)] = [CALLER, party]
    link = await street.link()
    await street.way.hand_over()
    await street.settle()
    assert not link.open
    assert set(street.channels) == {CALLER, party}


async def test_a_pair_without_a_link_is_forgotten_in_time(street: Street) -> None:
    party = party_of(CALLER, 1)
    street.enter(CALLER, "ari-gemini,sales")
    street.enter(party)
    street.bridges[bridge_of(CALLER)] = [CALLER, party]
    street.party = party
    (await street.link()).cut()
    assert len(street.way._stays) == 1
    await until(lambda: not street.way._stays)
    assert set(street.channels) == {CALLER, party}


# What nobody had.


@pytest.mark.parametrize("app", ["Dial", "Stasis", None])
async def test_a_party_is_not_left_alone_when_its_caller_was_sent_on(street: Street, app: str | None) -> None:
    other, party = "2.2", party_of("2.2", 1)
    if app is not None:
        street.channels[other] = street.raw(other, app, "ari-gemini")
    street.channels[party] = street.raw(party)
    street.bridges[bridge_of(other)] = [party]
    await street.way.tidy_up(street.new_link())
    assert (party in street.channels) is (app == "Stasis")
    assert (bridge_of(other) in street.bridges) is (app is not None), "he may come back and need it"


@pytest.mark.parametrize("with_", [media_of("2.2"), "7.7", party_of("3.3", 1)])
async def test_a_party_that_talks_with_somebody_is_left_alone(street: Street, with_: str) -> None:
    """Its caller may have transferred it on to somebody."""
    party = party_of("2.2", 1)
    street.channels[party] = street.raw(party)
    street.bridges[bridge_of("2.2")] = [party, with_]
    street.bridges["conference"] = [party]
    await street.way.tidy_up(street.new_link())
    assert party in street.channels
    assert set(street.bridges) == {bridge_of("2.2"), "conference"}


async def test_only_bridges_of_callers_who_are_gone_are_removed(street: Street) -> None:
    street.channels["3.3"] = street.raw("3.3", "Dial", "x")
    for name in ("2.2", "3.3"):
        street.bridges[bridge_of(name)] = []
    await street.way.tidy_up(street.new_link())
    assert set(street.bridges) == {bridge_of("3.3")}
