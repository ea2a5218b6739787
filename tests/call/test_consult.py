"""Another party is asked: who is in the bridge at each step, and that no step leaves anybody behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import structlog

from ari_gemini.ari.events import ChannelInfo
from ari_gemini.call import cleanup, consult
from ari_gemini.call.consult import StasisConsultation, caller_id
from ari_gemini.errors import (
    AriConflict,
    AriError,
    AriNotFound,
    AriRejected,
    AriTimeout,
    AriUnavailable,
    ToolError,
)
from ari_gemini.tools.destination import Destination

CALLER = "1700000000.1"
MEDIA = f"ari-gemini-media-{CALLER}"
BRIDGE = f"ari-gemini-bridge-{CALLER}"
PARTY = f"ari-gemini-party-1-{CALLER}"
PERSON = Destination(context="in", extension="1002", attended=True, ring_seconds=12.5)
PHONE = Destination(context="in", extension="1002", attended=True, endpoint="PJSIP/1002")
GONE = AriRejected("400 Channel not found", 400)
ELSEWHERE = AriRejected("422 Channel not in Stasis application", 422)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "CLEANUP_DELAYS", (0.0, 0.0))


class Scene:
    """A consultation, and who is where according to the requests that went well."""

    def __init__(self, ari, destination: Destination = PERSON) -> None:
        self.ari = ari
        self.inside = {CALLER, MEDIA}
        self.ringing = False
        self.one = StasisConsultation(ari, ChannelInfo(CALLER, caller_number="0301234"), destination, 1)
        ari.on |= {
            "addChannel": lambda: self.moved(self.inside.update, "addChannel"),
            "removeChannel": lambda: self.moved(self.inside.difference_update, "removeChannel"),
            "hangup": lambda: self.inside.discard(ari.params["hangup"]["channelId"]),
            "ring": lambda: self.tone(True),
            "ringStop": lambda: self.tone(False),
        }

    def moved(self, move: Callable[[list[str]], None], name: str) -> None:
        if not isinstance((self.ari.answers.get(name) or [None])[0], Exception):
            move(self.ari.params[name]["channel"].split(","))

    def tone(self, on: bool) -> None:
        self.ringing = on

    async def answered(self) -> None:
        ringing = asyncio.create_task(self.one.ring())
        await self.ari.until("originate")
        self.one.entered()
        await ringing

    async def introduced(self) -> None:
        await self.answered()
        await self.one.introduce()

    async def over(self) -> None:
        """Nothing runs on, and the caller is with the model, or with nobody's party."""
        assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
async def scene(ari) -> Scene:
    return Scene(ari)


async def test_the_party_is_called_in_the_callers_name(ari) -> None:
    scene = Scene(ari, PHONE)
    await scene.answered()
    assert ari.params["originate"] == {
        "endpoint": "PJSIP/1002",
        "app": "ari-gemini",
        "channelId": PARTY,
        "otherChannelId": None,
        "callerId": "0301234",
        "originator": CALLER,
        "timeout": 25,
    }
    assert scene.inside == {CALLER, MEDIA}, "he goes on talking with the model while it rings"


async def test_both_halves_of_a_local_channel_have_names(scene: Scene) -> None:
    await scene.answered()
    params = scene.ari.params["originate"]
    assert params["endpoint"] == "Local/1002@in/n"
    assert params["otherChannelId"] == f"ari-gemini-far-half-of-{PARTY}"
    assert params["timeout"] == 13


@pytest.mark.parametrize(
    ("caller", "written"),
    [
        (ChannelInfo("c", caller_number="0301", caller_name="Ada L"), '"Ada L" <0301>'),
        (ChannelInfo("c", caller_number="+49301"), "+49301"),
        (ChannelInfo("c", caller_name="Ada"), None),
        (ChannelInfo("c"), None),
        (ChannelInfo("c", caller_number="1", caller_name='A"d\\a <99>\r\nX'), '"Ada 99X" <1>'),
        (ChannelInfo("c", caller_number='1> "x" <2', caller_name=""), "1 x 2"),
        (ChannelInfo("c", caller_number="1", caller_name=' "" '), "1"),
    ],
)
def test_name_and_number(caller: ChannelInfo, written: str | None) -> None:
    assert caller_id(caller) == written


# Who does not answer.


@pytest.mark.parametrize(
    ("status", "cause", "words"),
    [
        ("RINGING", 19, "nobody answered"),
        ("", 18, "nobody answered"),
        ("NOANSWER", 0, "nobody answered"),
        ("CANCEL", 0, "nobody answered"),
        ("BUSY", 17, "line is busy"),
        ("BUSY", 0, "line is busy"),
        ("", 21, "declined"),
        ("BUSY", 21, "declined"),
        ("CONGESTION", 0, "cannot be reached"),
        ("", 0, "cannot be reached"),
        ("", 1, "cannot be reached"),
    ],
)
async def test_why_nobody_answers(scene: Scene, status: str, cause: int, words: str) -> None:
    ringing = asyncio.create_task(scene.one.ring())
    await scene.ari.until("originate")
    scene.one.dialled(status)
    scene.one.dialled("")
    scene.one.party_left()
    scene.one.party_left(cause)
    with pytest.raises(ToolError, match=words):
        await ringing
    await scene.one.abandon()
    assert scene.ari.asked == ["originate"], "there is nothing to hang up"
    await scene.over()


async def test_a_party_lost_before_asterisk_has_answered(scene: Scene) -> None:
    """Events may overtake the answer to the request."""
    scene.ari.on["originate"] = lambda: scene.one.party_left(17)
    with pytest.raises(ToolError, match="busy"):
        await scene.one.ring()
    await scene.one.abandon()
    await scene.over()


async def test_a_party_that_hangs_up_as_it_answers(scene: Scene) -> None:
    ringing = asyncio.create_task(scene.one.ring())
    await scene.ari.until("originate")
    scene.one.entered()
    scene.one.party_left(16)
    with pytest.raises(ToolError, match="has hung up"):
        await ringing
    await scene.one.abandon()
    await scene.over()


async def test_when_asterisks_word_is_lost_it_is_no_answer(ari, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consult, "RING_GRACE", -PERSON.ring_seconds)
    scene = Scene(ari)
    with pytest.raises(ToolError, match="nobody answered"):
        await scene.one.ring()
    await scene.one.abandon()
    assert ari.about("hangup") == [PARTY]
    await scene.over()


@pytest.mark.parametrize(
    "error", [AriRejected("500 Allocation failed", 500), AriConflict("409", 409), AriNotFound("404", 404)]
)
async def test_an_endpoint_that_does_not_exist(scene: Scene, error: AriError) -> None:
    scene.ari.answers["originate"] = [error]
    with pytest.raises(ToolError, match="cannot be reached"):
        await scene.one.ring()
    await scene.one.abandon()
    assert not scene.one.asked
    await scene.over()


async def test_a_caller_who_left_while_the_party_was_called(scene: Scene) -> None:
    scene.ari.answers["originate"] = [AriRejected("400 Provided originator channel was not found", 400)]
    scene.ari.answers["get"] = [AriNotFound("404 Channel not found", 404)]
    with pytest.raises(AriNotFound):
        await scene.one.ring()
    await scene.one.abandon()
    await scene.over()


# The steps.


async def test_from_hand_to_hand(scene: Scene) -> None:
    await scene.answered()
    assert (scene.inside, scene.ringing) == ({CALLER, MEDIA}, False)
    await scene.one.introduce()
    assert (scene.inside, scene.ringing) == ({PARTY, MEDIA}, True)
    await scene.one.join()
    assert (scene.inside, scene.ringing) == ({CALLER, PARTY}, False)
    assert scene.ari.asked[-3:] == ["removeChannel", "ringStop", "addChannel"], "never three in it"
    before = len(scene.ari.asked)
    await scene.one.abandon()
    assert len(scene.ari.asked) == before
    assert await scene.one.settled() is True
    await scene.over()


async def test_abandoned_the_caller_comes_back(scene: Scene) -> None:
    await scene.introduced()
    await scene.one.abandon()
    assert scene.inside == {CALLER, MEDIA}
    assert scene.ari.about("hangup") == [PARTY]
    before = len(scene.ari.asked)
    await scene.one.abandon()
    assert len(scene.ari.asked) == before
    assert scene.one.over
    await scene.over()


async def test_abandoned_before_it_began(scene: Scene) -> None:
    await scene.one.abandon()
    assert scene.ari.asked == []
    assert await scene.one.settled() is False


async def test_the_party_hangs_up_after_its_introduction(scene: Scene) -> None:
    await scene.introduced()
    leaving = asyncio.create_task(scene.one.left())
    await asyncio.sleep(0)
    assert not leaving.done()
    scene.one.party_left(16)
    await leaving
    await scene.one.left()
    with pytest.raises(ToolError, match="has hung up"):
        await scene.one.join()
    await scene.one.abandon()
    assert scene.ari.about("hangup") == []
    assert scene.inside >= {CALLER, MEDIA}
    await scene.over()


@pytest.mark.parametrize("known", [True, False])
async def test_the_party_hangs_up_before_its_introduction(scene: Scene, known: bool) -> None:
    await scene.answered()
    if known:
        scene.one.party_left(16)
    else:
        scene.ari.answers["addChannel"] = [ELSEWHERE, None]
    with pytest.raises(ToolError, match="has hung up"):
        await scene.one.introduce()
    await scene.one.abandon()
    assert scene.inside == {CALLER, MEDIA}
    await scene.over()


@pytest.mark.parametrize("error", [AriNotFound("404", 404), AriConflict("409", 409)])
async def test_a_caller_who_leaves_when_he_is_to_wait(scene: Scene, error: AriError) -> None:
    await scene.answered()
    scene.ari.answers["removeChannel"] = [GONE]
    scene.ari.answers["ring"] = [error]
    with pytest.raises(type(error)):
        await scene.one.introduce()
    await scene.one.dismiss()
    assert scene.ari.about("hangup") == [PARTY]
    await scene.over()


@pytest.mark.parametrize("error", [GONE, ELSEWHERE])
async def test_a_caller_who_leaves_when_he_is_to_be_joined(scene: Scene, error: AriError) -> None:
    await scene.introduced()
    scene.ari.answers["addChannel"] = [error]
    with pytest.raises(AriNotFound):
        await scene.one.join()
    assert await scene.one.settled() is False
    await scene.one.dismiss()
    assert scene.ari.about("hangup") == [PARTY]
    await scene.over()


@pytest.mark.parametrize("request_", ["removeChannel", "ringStop", "addChannel"])
async def test_the_party_hangs_up_while_they_are_joined(scene: Scene, request_: str) -> None:
    await scene.introduced()
    usual = scene.ari.on[request_]
    scene.ari.on[request_] = lambda: (usual(), scene.one.party_left(16))
    with pytest.raises(ToolError, match="has hung up"):
        await scene.one.join()
    assert await scene.one.settled() is False, "else he would be hung up as the one who stayed"
    await scene.one.abandon()
    assert scene.inside >= {CALLER, MEDIA}
    await scene.over()


async def test_media_that_is_gone_does_not_keep_them_apart(scene: Scene) -> None:
    await scene.introduced()
    scene.ari.answers["removeChannel"] = [GONE]
    await scene.one.join()
    assert await scene.one.settled() is True


@pytest.mark.parametrize("step", ["introduce", "join"])
@pytest.mark.parametrize("request_", ["addChannel", "removeChannel"])
async def test_a_bridge_that_is_gone_is_not_a_caller_who_left(scene: Scene, step: str, request_: str) -> None:
    await (scene.answered() if step == "introduce" else scene.introduced())
    scene.ari.answers[request_] = [AriNotFound("404 Bridge not found", 404)]
    with pytest.raises(AriRejected):
        await getattr(scene.one, step)()
    await scene.one.abandon()
    await scene.over()


# Faults.


Begin = Callable[[Scene], Awaitable[None]]
STEPS: dict[str, tuple[Begin, tuple[str, ...]]] = {
    "introduce": (Scene.answered, ("removeChannel", "ring", "addChannel")),
    "join": (Scene.introduced, ("removeChannel", "ringStop", "addChannel")),
}
REQUESTS = [(step, request) for step, (_, requests) in STEPS.items() for request in requests]


@pytest.mark.parametrize(("step", "request_"), REQUESTS)
@pytest.mark.parametrize("error", [AriTimeout("slow"), AriRejected("500", 500)])
async def test_a_request_that_fails_brings_the_caller_back(
    scene: Scene, step: str, request_: str, error: AriError
) -> None:
    await STEPS[step][0](scene)
    scene.ari.answers[request_] = [error, None]
    with pytest.raises(type(error)):
        await getattr(scene.one, step)()
    await scene.one.abandon()
    assert scene.inside == {CALLER, MEDIA}
    again = 3 if isinstance(error, AriTimeout) else 1  # it may be carried out when Asterisk comes to itself
    assert scene.ari.about("hangup") == [PARTY] * again
    assert await scene.one.settled() is False
    await scene.over()


@pytest.mark.parametrize(("step", "request_"), REQUESTS)
async def test_cancelled_at_any_request_it_is_heard_out(scene: Scene, step: str, request_: str) -> None:
    await STEPS[step][0](scene)
    count = scene.ari.asked.count(request_)
    scene.ari.held[request_] = gate = asyncio.Event()
    doing = asyncio.create_task(getattr(scene.one, step)())
    await scene.ari.until(request_, count + 1)
    doing.cancel()
    ending = asyncio.create_task(scene.one.abandon())
    for _ in range(10):
        await asyncio.sleep(0)
    assert doing.cancelled()
    assert scene.ari.about("hangup") == []
    gate.set()
    await ending
    joined = await scene.one.settled()
    assert joined is (step == "join")
    assert scene.inside == ({CALLER, PARTY} if joined else {CALLER, MEDIA})
    await scene.over()


async def test_cancelled_while_it_is_called_it_does_not_ring_on(scene: Scene) -> None:
    scene.ari.held["originate"] = gate = asyncio.Event()
    ringing = asyncio.create_task(scene.one.ring())
    await scene.ari.until("originate")
    ringing.cancel()
    await asyncio.wait([ringing])
    assert "hangup" not in scene.ari.asked
    gate.set()
    await scene.one.abandon()
    assert scene.ari.about("hangup") == [PARTY]
    await scene.over()


async def test_cancelled_while_it_rings(scene: Scene) -> None:
    ringing = asyncio.create_task(scene.one.ring())
    await scene.ari.until("originate")
    await asyncio.sleep(0)
    ringing.cancel()
    await asyncio.wait([ringing])
    await scene.ari.until("hangup")  # by itself, whoever forgets to abandon it
    await scene.one.abandon()
    assert scene.ari.about("hangup") == [PARTY]
    await scene.over()


def lose(scene: Scene) -> None:
    """Nothing that is asked of Asterisk gets there any more."""
    for name in ("addChannel", "removeChannel", "hangup", "ring", "ringStop"):
        scene.ari.answers[name] = [AriUnavailable("closed")]
    scene.usual, scene.ari.on = scene.ari.on, {}


def find(scene: Scene) -> None:
    """It does again."""
    scene.ari.answers.clear()
    scene.ari.on = scene.usual
    scene.ari.requests.clear()


@pytest.mark.parametrize("step", STEPS)
async def test_what_could_not_be_undone_is_undone_later(scene: Scene, step: str) -> None:
    await STEPS[step][0](scene)
    lose(scene)
    with pytest.raises(AriUnavailable):
        await getattr(scene.one, step)()
    await scene.one.abandon()
    assert scene.one.owed
    find(scene)
    scene.inside -= {CALLER}
    await scene.one.abandon()
    assert scene.inside == {CALLER, MEDIA}
    assert scene.ari.about("hangup") == [PARTY], "once is enough"
    assert not scene.one.owed
    before = len(scene.ari.asked)
    await scene.one.abandon()
    await scene.one.dismiss()
    assert len(scene.ari.asked) == before
    await scene.over()


async def test_what_could_not_be_undone_is_undone_when_the_call_ends(scene: Scene) -> None:
    await scene.introduced()
    lose(scene)
    await scene.one.abandon()
    find(scene)
    await scene.one.dismiss()
    assert scene.ari.about("hangup") == [PARTY]
    assert CALLER not in scene.inside, "he goes elsewhere"
    await scene.over()


async def test_what_asterisk_refuses_to_undo_is_not_owed(scene: Scene) -> None:
    await scene.introduced()
    scene.ari.answers["hangup"] = [AriRejected("500", 500)]
    await scene.one.abandon()
    assert not scene.one.owed


async def test_who_has_the_caller(scene: Scene) -> None:
    await scene.answered()
    assert not scene.one.has_caller
    await scene.one.introduce()
    assert scene.one.has_caller
    await scene.one.join()
    await scene.one.abandon()
    assert scene.one.has_caller
    other = Scene(scene.ari)
    await other.introduced()
    await other.one.abandon()
    assert not other.one.has_caller


# Whom the party puts in its place.


async def test_a_phone_that_forwards_cannot_be_reached(scene: Scene) -> None:
    ringing = asyncio.create_task(scene.one.ring())
    await scene.ari.until("originate")
    scene.one.dialled("CANCEL")
    scene.one.forwarded("7.7")
    scene.one.party_left(18)
    with pytest.raises(ToolError, match="cannot be reached"):
        await ringing
    await scene.one.abandon()
    assert scene.one.strays == {"7.7"}
    assert scene.ari.about("hangup") == []
    await scene.over()


@pytest.mark.parametrize("joined", [True, False])
async def test_whom_the_party_transfers_the_call_to_takes_its_place(scene: Scene, joined: bool) -> None:
    await scene.introduced()
    scene.inside = {"7.7", MEDIA}
    assert scene.one.replaced("7.7")
    assert scene.one.party == "7.7"
    if joined:
        await scene.one.join()
        assert scene.inside == {CALLER, "7.7"}
        await scene.one.abandon()
        assert scene.one.replaced("8.8"), "they are joined still"
        return
    await scene.one.abandon()
    assert scene.ari.about("hangup") == ["7.7"]
    assert scene.inside == {CALLER, MEDIA}


@pytest.mark.parametrize("why", ["gone", "over"])
async def test_nobody_takes_the_place_of_a_party_that_is_not_asked_any_more(scene: Scene, why: str) -> None:
    await scene.introduced()
    if why == "gone":
        scene.one.party_left()
    else:
        await scene.one.abandon()
    assert not scene.one.replaced("7.7")
    assert (scene.one.party, scene.one.strays) == (PARTY, {"7.7"})


async def test_cancelling_the_end_ends_only_the_waiting(scene: Scene) -> None:
    await scene.introduced()
    scene.ari.held["hangup"] = gate = asyncio.Event()
    ending = asyncio.create_task(scene.one.abandon())
    await scene.ari.until("hangup")
    ending.cancel()
    await asyncio.wait([ending])
    gate.set()
    await scene.one.abandon()
    assert scene.inside == {CALLER, MEDIA}
    assert scene.ari.about("hangup") == [PARTY]
    await scene.over()


async def test_what_cannot_be_undone_is_said(scene: Scene) -> None:
    await scene.introduced()
    scene.ari.answers["hangup"] = [AriTimeout("slow")]
    with structlog.testing.capture_logs() as logs:
        await scene.one.abandon()
    assert [line["event"] for line in logs] == ["consult.not_undone"]
    assert scene.inside >= {CALLER, MEDIA}, "that he comes back does not wait for it"
