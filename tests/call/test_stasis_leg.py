"""Way A, one caller: the order of the requests, and that nothing is left in Asterisk however a call ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest
import structlog

from ari_gemini.ari.events import ChannelInfo, parse_channel
from ari_gemini.audiosocket.connection import EndReason, MediaEnd
from ari_gemini.call import cleanup, stasis_leg
from ari_gemini.call.joined import Joined
from ari_gemini.call.leg import Identity
from ari_gemini.call.registry import Registry
from ari_gemini.call.stasis_leg import StasisLeg
from ari_gemini.errors import (
    AriConflict,
    AriError,
    AriNotFound,
    AriRejected,
    AriTimeout,
    AriUnavailable,
    CallEnded,
    Cause,
    ToolError,
)
from ari_gemini.tools.destination import Destination

CALLER = "1700000000.1"
MEDIA = f"ari-gemini-media-{CALLER}"
BRIDGE = f"ari-gemini-bridge-{CALLER}"
PARTY = f"ari-gemini-party-1-{CALLER}"
SENT_ON = ["setChannelVar", "continueInDialplan"]
UNMADE = ["destroy", "hangup"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "CLEANUP_DELAYS", (0.0, 0.0))
    monkeypatch.setattr(stasis_leg, "BRIDGE_PAUSES", (0.0, 0.0))


class Scene:
    """A leg whose Asterisk dials as soon as it is asked to, and lets the media in unless the test says no."""

    def __init__(self, ari, make_connection, caller: ChannelInfo, *, at_once: bool = False, **given) -> None:
        self.ari = ari
        self.registry = Registry(5)
        self.make_connection = make_connection
        self.connections: list = []
        self.media_enters = True
        self.kept: list[tuple[Joined, set[str]]] = []
        self.leg = StasisLeg(
            ari,
            self.registry,
            caller,
            agent="sales",
            answer_at_once=at_once,
            media_address="10.0.0.1:9092",
            keep=lambda pair, left: self.kept.append((pair, set(left))),
            **given,
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


async def test_before_he_has_entered_only_media_is_made_and_then_he_is_received(
    ari, make_connection, caller: ChannelInfo
) -> None:
    scene = Scene(ari, make_connection, caller, at_once=True, entered=False)
    await scene.leg.open_media()
    assert ari.asked == ["createWithId", "externalMedia"]
    settling = asyncio.create_task(scene.leg.settle_media())
    await asyncio.sleep(0)
    assert len(ari.asked) == 2
    scene.leg.caller_entered()
    await settling
    assert ari.asked[2:] == ["answer", "addChannel"]


@pytest.mark.parametrize("state", ["Up", "Ring"])
async def test_an_adopted_caller_is_received_unless_he_was_answered(
    ari, make_connection, caller: ChannelInfo, state: str
) -> None:
    scene = Scene(ari, make_connection, replace(caller, state=state), adopted=True)
    await scene.leg.open_media()
    assert ari.asked == ["ring"] * (state != "Up") + ["createWithId", "externalMedia"]
    await scene.leg.settle_media()
    await scene.leg.join()
    assert ari.asked[-2:] == ["answer", "addChannel"]


async def test_after_a_hand_over_nothing_is_asked_about_anybody(scene: Scene) -> None:
    await scene.live()
    assert await scene.release(Cause.HANDED_OVER) == []
    scene.leg.hand_over()
    with pytest.raises(CallEnded) as ended:
        await scene.leg.identify()
    assert ended.value.cause is Cause.HANDED_OVER


async def test_a_hand_over_hears_out_what_is_being_made(scene: Scene) -> None:
    scene.ari.held["externalMedia"] = asyncio.Event()
    opening = asyncio.create_task(scene.leg.open_media())
    await scene.ari.until("externalMedia")
    opening.cancel()
    await asyncio.wait([opening])
    releasing = asyncio.create_task(scene.leg.release(CallEnded(Cause.HANDED_OVER)))
    await asyncio.sleep(0)
    assert not releasing.done()
    scene.ari.held["externalMedia"].set()
    await releasing
    assert scene.ari.finished[-1] == "externalMedia"
    assert all(connection.end is not None for connection in scene.connections)
    assert scene.registry._expected == {}


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


async def test_the_name_of_a_bridge_that_is_being_destroyed_is_waited_for(scene: Scene) -> None:
    taken = AriConflict("Bridge with id already exists", 409)
    scene.ari.answers["createWithId"] = [taken, taken, {"id": BRIDGE}]
    await scene.live()
    assert scene.ari.asked.count("createWithId") == 3
    assert scene.ari.asked.count("destroy") == 2, "an empty one is found only so"
    assert "addChannel" in scene.ari.asked
    asked = await scene.release(Cause.CALLER_HANGUP)
    assert [asked.count(name) for name in UNMADE] == [1, 1], "a conflict leaves nothing open"


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
    leg = Scene(ari, None, caller).leg
    faults = {EndReason.ERROR, EndReason.PROTOCOL, EndReason.FLOOD, EndReason.DEFECT}
    expected = Cause.MEDIA_ERROR if reason in faults else Cause.MEDIA_LOST
    assert leg.media_ended(MediaEnd(reason)).cause is expected


# What tools want.


SUPPORT = Destination(context="support", extension="s", priority=3)
PERSON = Destination(context="in", extension="1002", attended=True)


async def test_the_model_hangs_up(scene: Scene) -> None:
    await scene.live()
    assert await scene.release(Cause.MODEL_HANGUP) == ["destroy", "hangup", "hangup"]
    assert set(scene.ari.about("hangup")) == {CALLER, MEDIA}


async def test_the_model_hangs_up_on_who_left_already(scene: Scene) -> None:
    await scene.live()
    scene.leg.caller_left()
    assert await scene.release(Cause.MODEL_HANGUP) == UNMADE


async def test_hanging_up_is_repeated(scene: Scene) -> None:
    await scene.live()
    scene.ari.answers["hangup"] = [AriTimeout("slow"), AriTimeout("slow"), None]
    await scene.release(Cause.MODEL_HANGUP)
    assert sorted(scene.ari.about("hangup")) == [CALLER] * 3 + [MEDIA]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What is slept, without the waiting."""
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return slept


async def test_digits_go_in_portions_and_each_is_waited_for(scene: Scene, pauses: list[float]) -> None:
    assert await scene.leg.send_digits("0123456789*#ABCDw1") is True
    sent = [params["dtmf"] for name, params in scene.ari.requests if name == "sendDTMF"]
    assert sent == ["01234567", "89*#ABCD", "1"]
    assert pauses == [1.38, 1.38, 0.5, 0.26]
    params = scene.ari.params["sendDTMF"]
    assert (params["channelId"], params["duration"], params["between"]) == (CALLER, 100, 60)


async def test_digits_cancelled_end_with_their_portion(scene: Scene) -> None:
    sending = asyncio.create_task(scene.leg.send_digits("1" * 32))
    await scene.ari.until("sendDTMF")
    sending.cancel()
    await asyncio.wait([sending])
    assert sending.cancelled()
    assert scene.ari.asked == ["sendDTMF"]


@pytest.mark.parametrize("error", [AriConflict("409", 409), AriNotFound("404", 404)])
async def test_digits_for_who_is_gone(scene: Scene, error: AriError, pauses: list[float]) -> None:
    scene.ari.answers["sendDTMF"] = [None, error]
    with pytest.raises(type(error)):
        await scene.leg.send_digits("1" * 32)
    assert scene.ari.asked == ["sendDTMF"] * 2


@pytest.mark.parametrize(
    ("answer", "exists"),
    [
        ({"value": "1"}, True),
        ({"value": "0"}, False),
        (AriRejected("500 Unable to read provided function", 500), True),
        (AriNotFound("404 Provided variable was not found", 404), True),
    ],
)
async def test_places_of_the_dialplan(scene: Scene, answer: object, exists: bool) -> None:
    scene.ari.answers["getChannelVar"] = [answer]
    assert await scene.leg.place_exists(SUPPORT) is exists
    assert scene.ari.params["getChannelVar"]["variable"] == "DIALPLAN_EXISTS(support,s,3)"


async def test_places_asked_for_by_who_is_gone(scene: Scene) -> None:
    scene.ari.answers["getChannelVar"] = [AriNotFound("404 Provided channel was not found", 404)]
    with pytest.raises(AriNotFound):
        await scene.leg.place_exists(SUPPORT)


@pytest.mark.parametrize("cause", [Cause.TRANSFERRED, Cause.MODEL_LOST])
async def test_a_blind_transfer_goes_there_and_nothing_else_does(scene: Scene, cause: Cause) -> None:
    await scene.live()
    scene.leg.go_on_at(SUPPORT)
    assert await scene.release(cause) == sorted(SENT_ON + UNMADE)
    assert scene.ari.params["setChannelVar"]["value"] == cause.value
    went = scene.ari.params["continueInDialplan"]
    place = (went["context"], went["extension"], went["priority"])
    assert place == (("support", "s", 3) if cause is Cause.TRANSFERRED else (None, None, None))


async def introduced(scene: Scene):
    """A party that has answered and hears the model."""
    consultation = scene.leg.consult(PERSON)
    ringing = asyncio.create_task(consultation.ring())
    await scene.ari.until("originate")
    consultation.entered()
    await ringing
    await consultation.introduce()
    return consultation


async def test_one_party_at_a_time(scene: Scene) -> None:
    first = scene.leg.consult(PERSON)
    with pytest.raises(ToolError, match="already"):
        scene.leg.consult(PERSON)
    await first.abandon()
    second = scene.leg.consult(PERSON)
    assert [one.party for one in scene.leg.consultations] == [PARTY, f"ari-gemini-party-2-{CALLER}"]
    assert scene.leg.consultation(PARTY) is first
    assert scene.leg.consultation("x") is None
    await second.abandon()
    assert scene.ari.asked == []


@pytest.mark.parametrize("cause", [Cause.TRANSFERRED, Cause.SHUTDOWN, Cause.CALLER_HANGUP])
async def test_two_who_are_joined_stay_so_and_only_the_media_goes(scene: Scene, cause: Cause) -> None:
    await scene.live()
    await (await introduced(scene)).join()
    before = len(scene.ari.requests)
    assert await scene.release(cause) == ["hangup", "setChannelVar"]
    assert scene.ari.about("hangup") == [MEDIA]
    noted = dict(scene.ari.requests[before:])["setChannelVar"]
    assert noted == {"channelId": CALLER, "variable": "ARI_GEMINI_PARTY", "value": PARTY}
    ((pair, left),) = scene.kept
    assert (pair.caller, pair.members, left) == (CALLER, {CALLER, PARTY}, set())


async def test_who_of_them_has_left_already_is_said(scene: Scene) -> None:
    await scene.live()
    consultation = await introduced(scene)
    await consultation.join()
    consultation.party_left(16)
    scene.leg.caller_left()
    await scene.release(Cause.CALLER_HANGUP)
    assert scene.kept[0][1] == {CALLER, PARTY}


async def test_a_join_that_is_under_way_when_the_call_ends_is_waited_for(scene: Scene) -> None:
    await scene.live()
    consultation = await introduced(scene)
    scene.ari.held["addChannel"] = gate = asyncio.Event()
    joining = asyncio.create_task(consultation.join())
    await scene.ari.until("addChannel", 3)
    joining.cancel()
    releasing = asyncio.create_task(scene.leg.release(CallEnded(Cause.SHUTDOWN)))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not set(SENT_ON) & set(scene.ari.asked)
    gate.set()
    await asyncio.wait([joining])
    await releasing
    assert len(scene.kept) == 1


@pytest.mark.parametrize("cause", [Cause.CALLER_HANGUP, Cause.MODEL_LOST, Cause.MODEL_HANGUP])
async def test_a_call_that_ends_meanwhile_takes_the_party_with_it(scene: Scene, cause: Cause) -> None:
    await scene.live()
    await introduced(scene)
    asked = await scene.release(cause)
    assert PARTY in scene.ari.about("hangup")
    assert "addChannel" not in asked, "he does not come back to a model that is gone"
    assert ("continueInDialplan" in asked) == (cause is not Cause.MODEL_HANGUP)
    assert scene.kept == []


async def test_a_party_asked_for_without_an_answer_is_looked_for_when_the_call_ends(scene: Scene) -> None:
    scene.ari.answers["originate"] = [AriTimeout("slow")]
    consultation = scene.leg.consult(PERSON)
    with pytest.raises(AriTimeout):
        await consultation.ring()
    await scene.release(Cause.MODEL_LOST)
    assert scene.ari.about("hangup") == [PARTY] * 3
