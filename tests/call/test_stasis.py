"""Way A: events become calls, and after an outage nobody is forgotten, answered twice, or left alone."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from ari_gemini.ari.events import (
    ChannelDestroyed,
    ChannelDtmfReceived,
    ChannelInfo,
    ChannelStateChange,
    Dial,
    StasisEnd,
    StasisStart,
)
from ari_gemini.call import cleanup, stasis
from ari_gemini.call.names import bridge_of, media_of, party_of
from ari_gemini.call.registry import Registry
from ari_gemini.call.stasis import StasisWay
from ari_gemini.call.stasis_leg import StasisLeg
from ari_gemini.errors import AriError, AriNotFound, AriTimeout, AriUnavailable, CallEnded, Cause, ToolError
from ari_gemini.tools.destination import Destination


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "CLEANUP_DELAYS", (0.0, 0.0))


class Listed:
    def __init__(self, name: str) -> None:
        self.id = name
        self.ends: list[tuple[Cause, str]] = []

        self.keys = ""

    def end(self, cause: Cause, detail: str = "") -> None:
        self.ends.append((cause, detail))

    def key_pressed(self, digit: str) -> None:
        self.keys += digit


class Street:
    """A StasisWay and the calls it starts."""

    def __init__(self, ari) -> None:
        self.ari = ari
        self.registry = Registry(50)
        self.legs: list[StasisLeg] = []
        self.spawned: list[asyncio.Task] = []
        self.way = StasisWay(
            ari,
            self.registry,
            start_call=self.legs.append,
            answer_at_once=False,
            media_address="10.0.0.1:9092",
            spawn=lambda work: self.spawned.append(asyncio.ensure_future(work)),
        )

    def call(self, name: str) -> Listed:
        """Let the call of that caller run."""
        self.registry.calls[name] = listed = Listed(name)
        return listed

    async def settle(self) -> None:
        await asyncio.gather(*self.spawned)


@pytest.fixture
async def street(ari) -> Street:
    return Street(ari)


def start(name: str, *args: str) -> StasisStart:
    return StasisStart(ChannelInfo(name), args)


async def test_who_enters_gets_a_call_with_the_agent_he_asks_for(street: Street) -> None:
    street.way.on_event(start("a", "sales", "more"))
    street.way.on_event(start("b"))
    street.way.on_event(start("c", ""))
    assert [(leg.id, (await leg.identify()).agent) for leg in street.legs] == [
        ("a", "sales"),
        ("b", "default"),
        ("c", "default"),
    ]


async def test_who_is_here_already_gets_no_second_call_until_the_first_is_over(street: Street) -> None:
    for _ in range(2):
        street.way.on_event(start("a"))
    assert len(street.legs) == 1
    street.way.call_over("a")
    street.way.call_over("a")
    street.way.on_event(start("a"))
    assert len(street.legs) == 2


@pytest.mark.parametrize("stays", [True, False])
async def test_who_comes_back_while_his_call_is_cleaned_up_is_served_after_it(
    street: Street, stays: bool
) -> None:
    street.way.on_event(start("a"))
    await street.legs[0].release(CallEnded(Cause.TRANSFERRED))
    street.way.on_event(StasisEnd(ChannelInfo("a")))
    street.way.on_event(start("a", "sales"))
    if not stays:
        street.way.on_event(StasisEnd(ChannelInfo("a")))
    assert len(street.legs) == 1
    street.way.call_over("a")
    assert [(await leg.identify()).agent for leg in street.legs[1:]] == ["sales"] * stays
    assert (street.way._again, set(street.way._legs)) == ({}, {"a"} if stays else set())


@pytest.mark.parametrize("event", [StasisEnd, ChannelDestroyed])
async def test_who_leaves_ends_his_call_and_no_other(street: Street, event: type) -> None:
    for name in "ab":
        street.way.on_event(start(name))
    calls = [street.call(name) for name in "ab"]
    street.way.on_event(event(ChannelInfo("a")))
    street.way.on_event(event(ChannelInfo("stranger")))
    assert [call.ends for call in calls] == [[(Cause.CALLER_HANGUP, "")], []]
    assert [leg._gone for leg in street.legs] == [True, False]


async def test_who_leaves_before_his_call_runs_is_not_served(street: Street) -> None:
    street.way.on_event(start("a"))
    street.way.on_event(StasisEnd(ChannelInfo("a")))
    with pytest.raises(CallEnded) as ended:
        await street.legs[0].identify()
    assert ended.value.cause is Cause.CALLER_HANGUP


async def test_a_call_by_audiosocket_is_none_of_its_business(street: Street) -> None:
    other = street.call("0b0f2d9e-0000-4000-8000-000000000000")
    street.way.on_event(StasisEnd(ChannelInfo(other.id)))
    assert other.ends == []


async def test_media_enters_its_leg(street: Street) -> None:
    street.way.on_event(start("a"))
    assert not street.legs[0]._media_entered.is_set()
    street.way.on_event(start("ari-gemini-media-a"))
    assert street.legs[0]._media_entered.is_set()
    assert len(street.legs) == 1
    assert street.spawned == []


async def test_media_that_leaves_ends_its_call(street: Street) -> None:
    street.way.on_event(start("a"))
    call = street.call("a")
    street.way.on_event(StasisEnd(ChannelInfo("ari-gemini-media-a")))
    assert call.ends == [(Cause.MEDIA_LOST, "the media channel left")]


async def test_media_that_leaves_when_its_call_is_over(street: Street) -> None:
    street.way.on_event(start("a"))
    street.way.on_event(StasisEnd(ChannelInfo("ari-gemini-media-a")))
    street.way.call_over("a")
    street.way.on_event(ChannelDestroyed(ChannelInfo("ari-gemini-media-a")))
    assert not street.legs[0]._gone


@pytest.mark.parametrize("error", [None, AriNotFound("404", 404), AriTimeout("slow")])
async def test_media_of_nobody_is_hung_up(street: Street, error: AriError | None) -> None:
    street.ari.answers["hangup"] = [error]
    with structlog.testing.capture_logs() as logs:
        street.way.on_event(start("ari-gemini-media-x"))
        await street.settle()
    assert street.ari.params["hangup"]["channelId"] == "ari-gemini-media-x"
    assert street.legs == []
    expected = ["stasis.orphaned_channel"] + (
        ["stasis.orphan_stays"] if isinstance(error, AriTimeout) else []
    )
    assert [line["event"] for line in logs] == expected


async def test_other_events_mean_nothing_to_it(street: Street) -> None:
    street.way.on_event(start("a"))
    call = street.call("a")
    street.way.on_event(ChannelStateChange(ChannelInfo("a")))
    street.way.on_event(Dial(ChannelInfo(media_of("a")), "ANSWER"))
    street.way.on_event(Dial(ChannelInfo("5.5"), "CANCEL", ChannelInfo("7.7")))
    assert (call.ends, street.spawned) == ([], [])


async def test_the_callers_keys_reach_his_call_and_nobody_elses(street: Street) -> None:
    for name in "ab":
        street.way.on_event(start(name))
    calls = [street.call(name) for name in "ab"]
    other = street.call("0b0f2d9e-0000-4000-8000-000000000000")
    for name in ("a", "b", "a", media_of("a"), party_of("a", 1), "stranger", other.id):
        street.way.on_event(ChannelDtmfReceived(ChannelInfo(name), "5"))
    assert [call.keys for call in (*calls, other)] == ["55", "5", ""]


async def test_a_key_before_the_call_is_listed_is_lost_without_harm(street: Street) -> None:
    street.way.on_event(start("a"))
    street.way.on_event(ChannelDtmfReceived(ChannelInfo("a"), "5"))


def asterisk_has(ari, channels: list, bridges: list = ()) -> None:
    answers = {"channels": list(channels), "bridges": list(bridges)}
    usual = ari._usual
    ari._usual = lambda resource, nickname, params: (
        answers[resource] if nickname == "list" else usual(resource, nickname, params)
    )


async def test_after_an_outage_who_left_is_let_go_and_who_came_is_served(street: Street, ari_channel) -> None:
    for name in ("stays", "leaves", "elsewhere"):
        street.way.on_event(start(name))
    calls = {name: street.call(name) for name in ("stays", "leaves", "elsewhere")}
    asterisk_has(
        street.ari,
        [
            ari_channel("stays"),
            ari_channel("elsewhere", "Dial", "PJSIP/x"),
            ari_channel("comes", data="ari-gemini,support,x"),
            ari_channel("plain", data="ari-gemini"),
            ari_channel("stranger", data="other-app,sales"),
            ari_channel("longer", data="ari-gemini-2,sales"),
            ari_channel("audio", "AudioSocket", "uuid,host:1"),
        ],
    )
    await street.way.reconcile()
    assert {name: [cause for cause, _ in call.ends] for name, call in calls.items()} == {
        "stays": [],
        "leaves": [Cause.CALLER_HANGUP],
        "elsewhere": [Cause.CALLER_HANGUP],
    }
    assert [(leg.id, leg._agent) for leg in street.legs[3:]] == [("comes", "support"), ("plain", "default")]


async def test_who_was_found_is_adopted_and_who_is_announced_is_not(street: Street, ari_channel) -> None:
    street.way.on_event(start("announced"))
    asterisk_has(street.ari, [ari_channel("announced"), ari_channel("found", data="ari-gemini,sales")])
    await street.way.reconcile()
    assert {leg.id: leg.adopted for leg in street.legs} == {"announced": False, "found": True}


async def test_media_that_a_former_life_left_is_gone_before_its_caller_is_served(
    street: Street, ari_channel
) -> None:
    asterisk_has(
        street.ari,
        [ari_channel("a", data="ari-gemini"), ari_channel("ari-gemini-media-a", data="ari-gemini,uuid")],
    )
    order: list[str] = []
    gone = AriNotFound("404 Channel not found", 404)
    street.ari.answers["get"] = [ari_channel("ari-gemini-media-a"), gone]
    for nickname in ("hangup", "get"):
        street.ari.on[nickname] = lambda nickname=nickname: order.append(nickname)
    street.way._start_call = lambda leg: order.append(f"call {leg.id}")
    await street.way.reconcile()
    assert order == ["hangup", "get", "get", "call a"]
    assert street.ari.about("hangup") == ["ari-gemini-media-a"]


async def test_media_whose_entry_was_missed_is_seen_after_all(street: Street, ari_channel) -> None:
    street.way.on_event(start("a"))
    asterisk_has(street.ari, [ari_channel("a"), ari_channel("ari-gemini-media-a", data="ari-gemini,uuid")])
    await street.way.reconcile()
    assert street.legs[0]._media_entered.is_set()
    assert len(street.legs) == 1


PARTY = party_of("a", 1)


async def asking(street: Street) -> asyncio.Task:
    """The call of ``a`` rings a party."""
    street.way.on_event(start("a"))
    street.call("a")
    street.consultation = street.legs[0].consult(
        Destination(context="in", extension="1002", attended=True, ring_seconds=60)
    )
    ringing = asyncio.create_task(street.consultation.ring())
    await street.ari.until("originate")
    await asyncio.sleep(0)
    return ringing


async def introducing(street: Street) -> None:
    """The party of ``a`` has answered and hears the model."""
    ringing = await asking(street)
    street.way.on_event(start(PARTY))
    await ringing
    await street.consultation.introduce()


async def joined(street: Street) -> None:
    """The call of ``a`` has joined him with a party and is over."""
    await introducing(street)
    await street.consultation.join()
    await street.legs[0].release(CallEnded(Cause.TRANSFERRED))
    del street.registry.calls["a"]
    street.way.call_over("a")
    assert list(street.way._joined) == ["a"]
    street.ari.requests.clear()
    street.ari.asked.clear()


async def test_a_party_that_answers_is_told_to_its_call(street: Street) -> None:
    ringing = await asking(street)
    street.way.on_event(start(PARTY))
    await ringing
    assert len(street.legs) == 1
    assert street.spawned == []


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([Dial(ChannelInfo(PARTY), "BUSY"), ChannelDestroyed(ChannelInfo(PARTY))], "busy"),
        ([ChannelDestroyed(ChannelInfo(PARTY), 19)], "nobody answered"),
        ([ChannelDestroyed(ChannelInfo(PARTY))], "cannot be reached"),
        ([StasisStart(ChannelInfo(PARTY)), StasisEnd(ChannelInfo(PARTY))], "has hung up"),
    ],
)
async def test_a_party_that_is_lost_is_told_to_its_call(street: Street, events: list, words: str) -> None:
    ringing = await asking(street)
    for event in events:
        street.way.on_event(event)
    with pytest.raises(ToolError, match=words):
        await ringing
    assert street.registry.calls["a"].ends == [], "the caller is there still"


async def test_what_happens_to_another_party_is_not_told(street: Street) -> None:
    ringing = await asking(street)
    for name in (party_of("a", 2), party_of("b", 1)):
        street.way.on_event(Dial(ChannelInfo(name), "BUSY"))
        street.way.on_event(ChannelDestroyed(ChannelInfo(name), 17))
    await asyncio.sleep(0)
    assert not ringing.done()
    street.way.on_event(start(PARTY))
    await ringing


@pytest.mark.parametrize("name", [party_of("x", 1), party_of("a", 2)])
async def test_a_party_of_nobody_is_hung_up(street: Street, name: str) -> None:
    street.way.on_event(start("a"))
    street.way.on_event(start(name))
    await street.settle()
    assert street.ari.about("hangup") == [name]
    assert len(street.legs) == 1


@pytest.mark.parametrize("gone", ["a", PARTY])
@pytest.mark.parametrize("event", [StasisEnd, ChannelDestroyed])
async def test_when_one_of_two_joined_leaves_the_other_is_hung_up(
    street: Street, gone: str, event: type
) -> None:
    await joined(street)
    for kind in (event, ChannelDestroyed):
        street.way.on_event(kind(ChannelInfo(gone)))
    await street.settle()
    assert street.ari.about("hangup") == [PARTY if gone == "a" else "a"]
    assert street.ari.about("destroy") == [bridge_of("a")]
    assert street.way._joined == {}


@pytest.mark.parametrize("gone", ["a", PARTY])
async def test_who_leaves_before_his_call_is_over_parts_them_too(street: Street, gone: str) -> None:
    await introducing(street)
    await street.consultation.join()
    street.way.on_event(StasisEnd(ChannelInfo(gone)))
    await street.legs[0].release(CallEnded(Cause.TRANSFERRED))
    await street.settle()
    assert (PARTY if gone == "a" else "a") in street.ari.about("hangup")
    assert street.ari.about("destroy") == [bridge_of("a")]
    assert street.way._joined == {}


async def test_two_joined_are_left_alone_while_they_talk(street: Street, ari_channel, ari_bridge) -> None:
    await joined(street)
    channels = [ari_channel("a"), ari_channel(PARTY)]
    asterisk_has(street.ari, channels, [ari_bridge(bridge_of("a"), "a", PARTY)])
    await street.way.reconcile()
    street.way.on_event(start("a"))
    await street.settle()
    assert set(street.ari.asked) == {"list"}
    assert len(street.legs) == 1


@pytest.mark.parametrize("there", [["a"], [PARTY], []])
async def test_who_was_left_by_the_other_during_an_outage_is_hung_up(
    street: Street, ari_channel, ari_bridge, there: list[str]
) -> None:
    await joined(street)
    asterisk_has(street.ari, [ari_channel(name) for name in there], [ari_bridge(bridge_of("a"), *there)])
    await street.way.reconcile()
    await street.settle()
    assert street.ari.about("hangup") == there
    assert street.ari.about("destroy") == [bridge_of("a")]
    assert street.way._joined == {}
    assert len(street.legs) == 1, "nobody who was joined is answered by a model"


async def test_two_who_could_not_be_parted_are_parted_later(street: Street, ari_channel, ari_bridge) -> None:
    await joined(street)
    street.ari.answers["hangup"] = [AriUnavailable("gone")]
    street.way.on_event(StasisEnd(ChannelInfo("a")))
    await street.settle()
    assert list(street.way._joined) == ["a"]
    street.ari.answers["hangup"] = [None]
    street.ari.requests.clear()
    asterisk_has(street.ari, [ari_channel(PARTY)], [ari_bridge(bridge_of("a"), PARTY)])
    await street.way.reconcile()
    await street.settle()
    assert street.ari.about("hangup") == [PARTY]
    assert street.way._joined == {}


@pytest.mark.parametrize(("old", "stays"), [(PARTY, "a"), ("a", PARTY)])
@pytest.mark.parametrize("gone", ["new", "the other"])
async def test_one_of_two_joined_transfers_the_other_on(
    street: Street, old: str, stays: str, gone: str
) -> None:
    await joined(street)
    calls = len(street.legs)
    street.way.on_event(StasisStart(ChannelInfo("7.7"), replace=ChannelInfo(old)))
    street.way.on_event(StasisEnd(ChannelInfo(old)))
    street.way.on_event(ChannelDestroyed(ChannelInfo(old)))
    await street.settle()
    assert street.ari.about("hangup") == [], "they talk"
    assert len(street.legs) == calls, "and need no model"
    noted = [street.ari.params["setChannelVar"]] if "setChannelVar" in street.ari.asked else []
    assert noted == (
        [{"channelId": "a", "variable": "ARI_GEMINI_PARTY", "value": "7.7"}] if old == PARTY else []
    )
    street.way.on_event(StasisEnd(ChannelInfo("7.7" if gone == "new" else stays)))
    await street.settle()
    assert street.ari.about("hangup") == [stays if gone == "new" else "7.7"]
    assert street.ari.about("destroy") == [bridge_of("a")]
    assert street.way._joined == {}


async def test_who_takes_the_place_of_a_caller_gets_a_call_of_his_own(street: Street) -> None:
    street.way.on_event(StasisStart(ChannelInfo("a")))
    street.way.on_event(StasisStart(ChannelInfo("b"), replace=ChannelInfo("a")))
    assert [leg.id for leg in street.legs] == ["a", "b"]


async def test_a_party_transfers_the_call_on_before_it_is_joined(
    street: Street, ari_channel, ari_bridge
) -> None:
    await introducing(street)
    street.way.on_event(StasisStart(ChannelInfo("7.7"), replace=ChannelInfo(PARTY)))
    for kind in (StasisEnd, ChannelDestroyed):
        street.way.on_event(kind(ChannelInfo(PARTY)))
    channels = [ari_channel(name) for name in ("a", "7.7", media_of("a"))]
    asterisk_has(street.ari, channels, [ari_bridge(bridge_of("a"), "7.7", media_of("a"))])
    await street.way.reconcile()
    await street.settle()
    assert [leg.id for leg in street.legs] == ["a"], "whom it was transferred to is no caller"
    assert not street.consultation.gone
    assert street.ari.about("hangup") == []
    street.way.on_event(StasisEnd(ChannelInfo("7.7")))
    assert street.consultation.gone


async def test_a_party_that_has_transferred_the_call_on_is_joined_as_another(street: Street) -> None:
    await introducing(street)
    street.way.on_event(StasisStart(ChannelInfo("7.7"), replace=ChannelInfo(PARTY)))
    await street.consultation.join()
    await street.legs[0].release(CallEnded(Cause.TRANSFERRED))
    assert street.way._joined["a"].members == {"a", "7.7"}
    assert street.ari.params["setChannelVar"]["value"] == "7.7"


async def test_who_takes_the_place_of_a_party_too_late_is_hung_up(street: Street, ari_channel) -> None:
    await introducing(street)
    await street.consultation.abandon()
    street.ari.requests.clear()
    street.way.on_event(StasisStart(ChannelInfo("7.7"), replace=ChannelInfo(PARTY)))
    await street.settle()
    assert street.ari.about("hangup") == ["7.7"]
    asterisk_has(street.ari, [ari_channel("a"), ari_channel("7.7")])
    await street.way.reconcile()
    assert len(street.legs) == 1


@pytest.mark.parametrize("known", [True, False])
async def test_where_a_party_forwards_the_call_nobody_is_called(street: Street, known: bool) -> None:
    ringing = await asking(street)
    if not known:
        street.way.call_over("a")
    street.way.on_event(Dial(ChannelInfo(PARTY), "CANCEL", ChannelInfo("7.7")))
    await street.settle()
    assert street.ari.about("hangup") == ["7.7"]
    if known:  # it was picked up all the same
        street.way.on_event(start("7.7"))
        street.way.on_event(ChannelDestroyed(ChannelInfo(PARTY), 19))
        with pytest.raises(ToolError, match="cannot be reached"):
            await ringing
        await street.settle()
        assert street.ari.about("hangup") == ["7.7", "7.7"]
        assert len(street.legs) == 1, "no bot greets it"
    ringing.cancel()


async def test_after_a_restart_a_caller_who_was_transferred_on_is_left_alone(
    street: Street, ari_channel, ari_bridge
) -> None:
    street.ari.answers["getChannelVar"] = [{"value": "7.7"}]
    channels = [ari_channel("a"), ari_channel("7.7")]
    asterisk_has(street.ari, channels, [ari_bridge(bridge_of("a"), "a", "7.7")])
    await street.way.reconcile()
    await street.settle()
    assert street.legs == []
    assert street.ari.about("destroy") == []
    street.way.on_event(StasisEnd(ChannelInfo("7.7")))
    await street.settle()
    assert street.ari.about("hangup") == ["a"]


async def test_after_a_restart_two_who_are_joined_are_known_by_their_names(
    street: Street, ari_channel, ari_bridge
) -> None:
    others = [ari_channel("ari-gemini-far-half-of-" + PARTY, "Dial", "PJSIP/1002")]
    channels = [ari_channel("a"), ari_channel(PARTY), *others]
    asterisk_has(street.ari, channels, [ari_bridge(bridge_of("a"), "a", PARTY)])
    await street.way.reconcile()
    assert street.legs == []
    assert street.ari.asked == ["list", "list"]
    street.way.on_event(StasisEnd(ChannelInfo(PARTY)))
    await street.settle()
    assert street.ari.about("hangup") == ["a"]


@pytest.mark.parametrize("app", ["Stasis", "AppDial2"])
@pytest.mark.parametrize("inside", [(), (PARTY,), (PARTY, media_of("a"))])
async def test_after_a_restart_a_party_without_its_caller_is_hung_up_and_he_is_served(
    street: Street, ari_channel, ari_bridge, app: str, inside: tuple[str, ...]
) -> None:
    street.ari.answers["getChannelVar"] = [AriNotFound("404 Provided variable was not found", 404)]
    channels = [ari_channel("a"), ari_channel(PARTY, app)]
    asterisk_has(street.ari, channels, [ari_bridge(bridge_of("a"), *inside)])
    await street.way.reconcile()
    await street.settle()
    assert street.ari.about("hangup") == [PARTY]
    assert street.ari.about("destroy") == [bridge_of("a")], "its name is wanted for the new call"
    assert [leg.id for leg in street.legs] == ["a"]


@pytest.mark.parametrize("error", [None, AriTimeout("slow")])
async def test_after_a_restart_a_caller_whose_party_has_left_is_not_answered(
    street: Street, ari_channel, ari_bridge, error: AriError | None
) -> None:
    """Only when Asterisk does not say what he was does he get a call, rather than be hung up by mistake."""
    street.ari.answers["getChannelVar"] = [error or {"value": PARTY}]
    asterisk_has(street.ari, [ari_channel("a")], [ari_bridge(bridge_of("a"), "a")])
    await street.way.reconcile()
    await street.settle()
    assert street.ari.params["getChannelVar"] == {"channelId": "a", "variable": "ARI_GEMINI_PARTY"}
    assert street.ari.about("hangup") == ([] if error else ["a"])
    assert [leg.id for leg in street.legs] == (["a"] if error else [])
    assert street.ari.about("destroy") == [bridge_of("a")]


async def test_a_party_that_answered_during_an_outage(street: Street, ari_channel) -> None:
    ringing = await asking(street)
    asterisk_has(street.ari, [ari_channel("a"), ari_channel(PARTY)])
    await street.way.reconcile()
    await ringing
    assert street.ari.about("hangup") == []


async def test_a_party_that_answers_too_late_is_hung_up(street: Street) -> None:
    ringing = await asking(street)
    street.ari.answers["hangup"] = [AriUnavailable("closed")]
    ringing.cancel()
    await street.consultation.abandon()
    street.ari.requests.clear()
    street.way.on_event(start(PARTY))
    await street.settle()
    assert street.ari.about("hangup") == [PARTY]


@pytest.mark.parametrize("later", [True, False])
async def test_after_an_outage_a_party_is_dismissed_and_the_caller_comes_back(
    street: Street, ari_channel, later: bool
) -> None:
    await introducing(street)
    for name in ("hangup", "addChannel"):
        street.ari.answers[name] = [AriUnavailable("closed")]
    await street.consultation.abandon()
    street.ari.answers.clear()
    if later:  # he is with the next party meanwhile
        following = street.legs[0].consult(Destination(context="in", extension="1003", attended=True))
        ringing = asyncio.create_task(following.ring())
        await street.ari.until("originate", 2)
        street.way.on_event(start(party_of("a", 2)))
        await ringing
        await following.introduce()
    street.ari.requests.clear()
    asterisk_has(street.ari, [ari_channel(name) for name in ("a", PARTY, party_of("a", 2), media_of("a"))])
    await street.way.reconcile()
    await street.settle()
    await street.way.reconcile()
    await street.settle()
    assert street.ari.about("hangup") == [PARTY], "once is enough"
    assert street.ari.about("addChannel") == ([] if later else [bridge_of("a")])


async def test_a_party_that_is_replaced_while_asterisk_is_asked_is_not_taken_for_lost(
    street: Street, ari_channel
) -> None:
    await introducing(street)
    asterisk_has(street.ari, [ari_channel("a")])
    street.ari.held["list"] = gate = asyncio.Event()
    looking = asyncio.create_task(street.way.reconcile())
    await street.ari.until("list")
    street.way.on_event(StasisStart(ChannelInfo("7.7"), replace=ChannelInfo(PARTY)))
    gate.set()
    await looking
    assert not street.consultation.gone


async def test_a_party_that_rings_on_during_an_outage(street: Street, ari_channel) -> None:
    ringing = await asking(street)
    asterisk_has(street.ari, [ari_channel("a"), ari_channel(PARTY, "AppDial2", "(Outgoing Line)")])
    await street.way.reconcile()
    await asyncio.sleep(0)
    assert not ringing.done()
    street.way.on_event(start(PARTY))
    await ringing


async def test_a_party_that_was_lost_during_an_outage(street: Street, ari_channel) -> None:
    ringing = await asking(street)
    asterisk_has(street.ari, [ari_channel("a")])
    await street.way.reconcile()
    with pytest.raises(ToolError, match="cannot be reached"):
        await ringing


async def test_a_party_that_is_called_while_asterisk_is_asked_is_not_taken_for_lost(street: Street) -> None:
    street.way.on_event(start("a"))
    street.ari.held["list"] = gate = asyncio.Event()
    looking = asyncio.create_task(street.way.reconcile())
    await street.ari.until("list")
    ringing = await asking(street)
    gate.set()
    await looking
    await asyncio.sleep(0)
    assert not ringing.done()
    street.way.on_event(start(PARTY))
    await ringing


async def test_while_no_events_flow_those_joined_are_looked_after(
    street: Street, ari_channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stasis, "WATCH_SECONDS", 0.0)
    await joined(street)
    asterisk_has(street.ari, [ari_channel(PARTY)])
    watching = asyncio.create_task(street.way.watch())
    await street.ari.until("hangup")
    watching.cancel()
    await street.settle()
    assert street.ari.about("hangup") == [PARTY]


async def test_bridges_whose_caller_is_gone_are_destroyed_and_no_others(
    street: Street, ari_channel, ari_bridge
) -> None:
    street.way.on_event(start("ours"))
    names = ["ari-gemini-bridge-gone", "ari-gemini-bridge-theirs", "ari-gemini-bridge-ours", "conference"]
    asterisk_has(street.ari, [ari_channel("theirs", data="other,x")], [ari_bridge(name) for name in names])
    await street.way.reconcile()
    await street.settle()
    assert [name for name in street.ari.asked if name != "list"] == ["destroy"]
    assert street.ari.params["destroy"] == {"bridgeId": "ari-gemini-bridge-gone"}


async def test_who_comes_while_asterisk_is_asked_is_not_taken_for_gone(street: Street) -> None:
    street.ari.held["list"] = gate = asyncio.Event()
    asking = asyncio.create_task(street.way.reconcile())
    await street.ari.until("list")
    street.way.on_event(start("a"))
    call = street.call("a")
    gate.set()
    await asking
    assert call.ends == []


async def test_when_asterisk_cannot_be_asked_nobody_is_ended(street: Street) -> None:
    street.way.on_event(start("a"))
    call = street.call("a")
    street.ari.answers["list"] = [AriUnavailable("gone")]
    await street.way.reconcile()
    assert call.ends == []
