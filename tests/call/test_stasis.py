"""Way A: the order of the requests, and that nothing is left in Asterisk however a call ends."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
import structlog

from ari_gemini.ari.events import (
    ChannelDestroyed,
    ChannelDtmfReceived,
    ChannelInfo,
    StasisEnd,
    StasisStart,
    parse_channel,
)
from ari_gemini.audiosocket.connection import EndReason, MediaEnd
from ari_gemini.call import stasis
from ari_gemini.call.leg import Identity
from ari_gemini.call.registry import Registry
from ari_gemini.call.stasis import StasisLeg, StasisWay
from ari_gemini.errors import (
    AriConflict,
    AriError,
    AriNotFound,
    AriRejected,
    AriTimeout,
    AriUnavailable,
    CallEnded,
    Cause,
)

CALLER = "1700000000.1"
MEDIA = f"ari-gemini-media-{CALLER}"
BRIDGE = f"ari-gemini-bridge-{CALLER}"
SENT_ON = ["setChannelVar", "continueInDialplan"]
UNMADE = ["destroy", "hangup"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stasis, "CLEANUP_DELAYS", (0.0, 0.0))


class Scene:
    """A leg whose Asterisk dials as soon as it is asked to, and lets the media in unless the test says no."""

    def __init__(self, ari, make_connection, caller: ChannelInfo, *, at_once: bool = False) -> None:
        self.ari = ari
        self.registry = Registry(5)
        self.make_connection = make_connection
        self.connections: list = []
        self.media_enters = True
        self.leg = StasisLeg(
            ari, self.registry, caller, agent="sales", answer_at_once=at_once, media_address="10.0.0.1:9092"
        )
        ari.on["externalMedia"] = self.dial

    def dial(self) -> None:
        connection = self.make_connection(uuid=UUID(self.ari.params["externalMedia"]["data"]))
        self.connections.append(connection)
        self.delivered = self.registry.deliver(connection)
        if self.media_enters:
            self.leg.media_entered()

    async def live(self) -> None:
        await self.leg.identify()
        await self.leg.open_media()
        await self.leg.settle_media()
        await self.leg.join()

    async def release(self, cause: Cause = Cause.MODEL_LOST) -> list[str]:
        """Release the leg; return the requests that took, in alphabetical order."""
        before = len(self.ari.asked)
        await self.leg.release(CallEnded(cause))
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert self.registry._expected == {}
        assert all(connection.end is not None for connection in self.connections)
        return sorted(self.ari.asked[before:])


@pytest.fixture
def caller(ari_channel) -> ChannelInfo:
    return parse_channel(ari_channel(CALLER))


@pytest.fixture
def scene(ari, make_connection, caller) -> Scene:
    return Scene(ari, make_connection, caller)


@pytest.fixture
def scene_at_once(ari, make_connection, caller) -> Scene:
    return Scene(ari, make_connection, caller, at_once=True)


# The leg.


async def test_who_calls(scene: Scene) -> None:
    assert await scene.leg.identify() == Identity("sales", "0301234", "Ada", "100")
    assert scene.ari.asked == []


async def test_when_ready_the_caller_hears_ringing_until_he_is_joined(scene: Scene) -> None:
    connection = await scene.leg.open_media()
    assert scene.ari.asked == ["ring", "createWithId", "externalMedia"]
    assert [connection] == scene.connections
    await scene.leg.settle_media()
    assert len(scene.ari.asked) == 3
    await scene.leg.join()
    assert scene.ari.asked[3:] == ["answer", "addChannel"]


async def test_immediately_he_is_answered_first_and_bridged_with_silence(scene_at_once: Scene) -> None:
    await scene_at_once.leg.open_media()
    await scene_at_once.leg.settle_media()
    assert scene_at_once.ari.asked == ["answer", "createWithId", "externalMedia", "addChannel"]
    await scene_at_once.leg.join()
    assert len(scene_at_once.ari.asked) == 4


async def test_ids_are_made_from_the_callers_and_the_uuid_is_nobodys_guess(scene: Scene) -> None:
    await scene.live()
    params = scene.ari.params
    assert params["ring"] == params["answer"] == {"channelId": CALLER}
    assert params["createWithId"] == {"bridgeId": BRIDGE, "type": "mixing", "name": CALLER}
    assert params["addChannel"] == {"bridgeId": BRIDGE, "channel": f"{CALLER},{MEDIA}"}
    media = params["externalMedia"]
    assert UUID(media.pop("data")).version == 4
    assert media == {
        "channelId": MEDIA,
        "app": "ari-gemini",
        "external_host": "10.0.0.1:9092",
        "encapsulation": "audiosocket",
        "transport": "tcp",
        "connection_type": "client",
        "format": "slin",
    }


async def test_the_uuid_is_expected_before_asterisk_is_asked_to_dial(scene: Scene) -> None:
    await scene.leg.open_media()
    assert scene.delivered is True


async def test_both_are_bridged_only_when_the_media_is_in(scene_at_once: Scene) -> None:
    scene_at_once.media_enters = False
    await scene_at_once.leg.open_media()
    settling = asyncio.create_task(scene_at_once.leg.settle_media())
    for _ in range(5):
        await asyncio.sleep(0)
    assert "addChannel" not in scene_at_once.ari.asked
    scene_at_once.leg.media_entered()
    await settling
    assert scene_at_once.ari.asked[-1] == "addChannel"


async def test_variables(scene: Scene) -> None:
    scene.ari.answers["getChannelVar"] = [{"value": "42"}]
    assert await scene.leg.variables(("ORDER",)) == {"ORDER": "42"}
    assert scene.ari.params["getChannelVar"] == {"channelId": CALLER, "variable": "ORDER"}


async def test_the_caller_goes_on_and_everything_is_destroyed(scene: Scene) -> None:
    await scene.live()
    assert await scene.release(Cause.MODEL_LOST) == sorted(SENT_ON + UNMADE)
    asked = scene.ari.asked
    assert asked.index("setChannelVar") < asked.index("continueInDialplan")
    params = scene.ari.params
    assert params["setChannelVar"] == {
        "channelId": CALLER,
        "variable": "ARI_GEMINI_CAUSE",
        "value": "model_lost",
    }
    assert params["continueInDialplan"]["channelId"] == CALLER
    assert params["hangup"]["channelId"] == MEDIA
    assert params["destroy"] == {"bridgeId": BRIDGE}


async def test_a_caller_who_left_is_sent_nowhere(scene: Scene) -> None:
    await scene.live()
    scene.leg.caller_left()
    assert await scene.release(Cause.CALLER_HANGUP) == UNMADE


async def test_a_caller_who_only_seems_to_have_left_is_sent_on(scene: Scene) -> None:
    """A 404 of some request says that he is gone, but if that were a mistake he would wait for ever."""
    await scene.live()
    assert await scene.release(Cause.CALLER_HANGUP) == sorted(SENT_ON + UNMADE)


@pytest.mark.parametrize(
    "gone", [AriNotFound("404 Channel not found", 404), AriConflict("not in Stasis", 409)]
)
@pytest.mark.parametrize("request_", SENT_ON)
async def test_a_caller_who_is_gone_already_is_no_trouble(
    scene: Scene, request_: str, gone: AriError
) -> None:
    await scene.live()
    scene.ari.answers[request_] = [gone]
    for name in UNMADE:
        scene.ari.answers[name] = [AriNotFound("404", 404)]
    with structlog.testing.capture_logs() as logs:
        await scene.release()
    assert logs == []


async def test_nothing_made_nothing_destroyed(scene: Scene) -> None:
    assert await scene.release(Cause.OVERLOADED) == sorted(SENT_ON)


async def test_a_leg_whose_caller_left_before_it_began(scene: Scene) -> None:
    scene.leg.caller_left()
    for step in (scene.leg.identify(), scene.leg.open_media()):
        with pytest.raises(CallEnded) as ended:
            await step
        assert ended.value.cause is Cause.CALLER_HANGUP
    assert scene.ari.asked == []
    assert await scene.release(Cause.CALLER_HANGUP) == []


STEPS = ["ring", "createWithId", "externalMedia", "answer", "addChannel"]


@pytest.mark.parametrize(
    ("step", "at_once"),
    [(step, False) for step in STEPS] + [(step, True) for step in STEPS if step != "ring"],
)
async def test_cancelled_at_any_request_nothing_is_left(
    ari, make_connection, caller, step: str, at_once: bool
) -> None:
    scene = Scene(ari, make_connection, caller, at_once=at_once)
    ari.held[step] = gate = asyncio.Event()
    living = asyncio.create_task(scene.live())
    await ari.until(step)
    living.cancel()
    releasing = asyncio.create_task(scene.leg.release(CallEnded(Cause.MODEL_REFUSED)))
    for _ in range(10):
        await asyncio.sleep(0)
    assert living.cancelled()
    made = [name for name in ("createWithId", "externalMedia") if name in ari.asked]
    if step in made:
        assert not releasing.done(), "what makes something is heard out"
        assert not set(UNMADE) & set(ari.asked)
    gate.set()
    await releasing
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert set(SENT_ON) <= set(ari.asked)
    for name in UNMADE:
        assert (name in ari.asked) == bool(made)
        if made:
            assert ari.asked.index(name) > max(ari.asked.index(one) for one in made)
    assert all(connection.end is not None for connection in scene.connections)
    assert scene.registry._expected == {}


async def test_media_that_comes_after_the_call_is_over_is_refused(scene: Scene) -> None:
    scene.ari.held["externalMedia"] = gate = asyncio.Event()
    living = asyncio.create_task(scene.leg.open_media())
    await scene.ari.until("externalMedia")
    living.cancel()
    releasing = asyncio.create_task(scene.leg.release(CallEnded(Cause.CALLER_HANGUP)))
    await asyncio.sleep(0)
    gate.set()
    await releasing
    assert scene.delivered is True, "nobody else may take it for a call"
    assert [connection.farewell for connection in scene.connections] == ["refuse"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", [AriRejected("500", 500), AriTimeout("slow"), AriUnavailable("gone")])
async def test_a_request_that_fails_leaves_nothing(scene: Scene, step: str, error: AriError) -> None:
    scene.ari.answers[step] = [error]
    with pytest.raises(type(error)):
        await scene.live()
    asked = await scene.release(Cause.ARI_FAILED)
    assert set(SENT_ON) <= set(asked)
    assert (set(UNMADE) <= set(asked)) == (step != "ring")


async def test_media_that_never_comes_is_not_expected_for_ever(scene: Scene) -> None:
    scene.ari.on.clear()
    scene.ari.answers["externalMedia"] = [AriRejected("nobody listens there", 500)]
    with pytest.raises(AriRejected):
        await scene.live()
    assert scene.connections == []
    await scene.release(Cause.ARI_FAILED)  # looks for it


async def test_media_that_comes_after_its_request_timed_out_is_refused(scene: Scene) -> None:
    scene.ari.on.clear()
    scene.ari.answers["externalMedia"] = [AriTimeout("slow")]
    with pytest.raises(AriTimeout):
        await scene.live()
    scene.ari.on["hangup"] = lambda: scene.connections or scene.dial()
    await scene.release(Cause.ARI_FAILED)
    assert scene.delivered is True, "nobody else may take it for a call"
    assert [connection.farewell for connection in scene.connections] == ["refuse"]


@pytest.mark.parametrize("step", ["createWithId", "externalMedia"])
async def test_what_was_asked_for_without_an_answer_is_looked_for_again(scene: Scene, step: str) -> None:
    """Asterisk may make it only when it has come to itself."""
    scene.ari.answers[step] = [AriTimeout("slow")]
    with pytest.raises(AriTimeout):
        await scene.live()
    asked = await scene.release(Cause.ARI_FAILED)
    assert [asked.count(name) for name in UNMADE] == [3, 3]


@pytest.mark.parametrize("step", ["createWithId", "externalMedia"])
@pytest.mark.parametrize("error", [AriConflict("in use", 409), AriNotFound("no", 404)])
async def test_what_is_in_the_way_of_ours_is_not_a_caller_who_left(
    scene: Scene, step: str, error: AriError
) -> None:
    scene.ari.answers[step] = [error]
    with pytest.raises(AriRejected) as refused:
        await scene.live()
    assert refused.value.status == error.status


async def test_a_caller_who_leaves_just_before_he_is_bridged(scene: Scene) -> None:
    scene.ari.answers["addChannel"] = [AriRejected("Channel not found", 400)]
    scene.ari.answers["get"] = [AriNotFound("404 Channel not found", 404)]
    with pytest.raises(AriNotFound):
        await scene.live()


async def test_a_bridge_that_refuses_a_caller_who_is_there(scene: Scene) -> None:
    scene.ari.answers["addChannel"] = [AriRejected("no", 422)]
    with pytest.raises(AriRejected):
        await scene.live()


@pytest.mark.parametrize("request_", [*UNMADE, "continueInDialplan"])
async def test_clean_up_that_fails_is_repeated(scene: Scene, request_: str) -> None:
    await scene.live()
    scene.ari.answers[request_] = [AriTimeout("slow"), AriUnavailable("gone"), None]
    with structlog.testing.capture_logs() as logs:
        asked = await scene.release()
    assert asked.count(request_) == 3
    assert logs == []


@pytest.mark.parametrize("request_", [*UNMADE, "continueInDialplan"])
async def test_clean_up_gives_up_in_the_end_and_says_so(scene: Scene, request_: str) -> None:
    await scene.live()
    scene.ari.answers[request_] = [AriTimeout("slow")]
    with structlog.testing.capture_logs() as logs:
        asked = await scene.release()
    assert asked.count(request_) == 3
    assert [line["event"] for line in logs] == ["call.not_cleaned_up"]


async def test_a_refused_clean_up_is_not_repeated(scene: Scene) -> None:
    await scene.live()
    scene.ari.answers["destroy"] = [AriRejected("no", 500)]
    with structlog.testing.capture_logs() as logs:
        asked = await scene.release()
    assert asked.count("destroy") == 1
    assert len(logs) == 1


async def test_a_caller_who_cannot_be_sent_on_is_not_left_in_silence(scene: Scene) -> None:
    scene.ari.answers["continueInDialplan"] = [AriRejected("no", 500)]
    assert await scene.release() == ["continueInDialplan", "hangup", "setChannelVar"]
    assert scene.ari.params["hangup"]["channelId"] == CALLER


async def test_a_cause_that_cannot_be_set_does_not_keep_him(scene: Scene) -> None:
    scene.ari.answers["setChannelVar"] = [AriTimeout("slow")]
    with structlog.testing.capture_logs() as logs:
        assert await scene.release() == sorted(SENT_ON)
    assert [line["event"] for line in logs] == ["call.cause_not_set"]


@pytest.mark.parametrize("reason", EndReason)
def test_the_end_of_the_media(ari, caller, reason: EndReason) -> None:
    leg = StasisLeg(ari, Registry(1), caller, agent="a", answer_at_once=False, media_address="x:1")
    faults = {EndReason.ERROR, EndReason.PROTOCOL, EndReason.FLOOD, EndReason.DEFECT}
    expected = Cause.MEDIA_ERROR if reason in faults else Cause.MEDIA_LOST
    assert leg.media_ended(MediaEnd(reason)).cause is expected


# The way.


class Listed:
    def __init__(self, name: str) -> None:
        self.id = name
        self.ends: list[tuple[Cause, str]] = []

    def end(self, cause: Cause, detail: str = "") -> None:
        self.ends.append((cause, detail))


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
    expected = ["stasis.orphaned_media"] + (["stasis.orphan_stays"] if isinstance(error, AriTimeout) else [])
    assert [line["event"] for line in logs] == expected


async def test_other_events_mean_nothing_to_it(street: Street) -> None:
    street.way.on_event(start("a"))
    call = street.call("a")
    street.way.on_event(ChannelDtmfReceived(ChannelInfo("a"), "5"))
    assert call.ends == []


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


async def test_media_whose_entry_was_missed_is_seen_after_all(street: Street, ari_channel) -> None:
    street.way.on_event(start("a"))
    asterisk_has(street.ari, [ari_channel("a"), ari_channel("ari-gemini-media-a", data="ari-gemini,uuid")])
    await street.way.reconcile()
    assert street.legs[0]._media_entered.is_set()
    assert len(street.legs) == 1


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
