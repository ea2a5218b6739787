"""Way B: the connection is there, and Asterisk says who it is."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from ari_gemini.audiosocket.connection import EndReason, MediaEnd
from ari_gemini.call import dialplan
from ari_gemini.call.dialplan import AGENT_VARIABLE, DialplanLeg, SharedListing
from ari_gemini.call.leg import Identity
from ari_gemini.errors import AriNotFound, AriTimeout, AriUnavailable, CallEnded, Cause, ToolError
from ari_gemini.tools.destination import Destination

UUID_TEXT = "00112233-4455-6677-8899-aabbccddeeff"
NO_VARIABLE = AriNotFound("404 Provided variable was not found", 404)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialplan, "LOOKUP_PAUSES", (0.0, 0.0, 0.0))


@pytest.fixture
def media(make_connection):
    return make_connection(uuid=UUID(UUID_TEXT))


@pytest.fixture
def mine(ari_channel) -> dict:
    return ari_channel("c1", "AudioSocket", f"{UUID_TEXT.upper()},10.0.0.1:9092")


async def test_the_caller_is_found_by_his_uuid_and_brings_his_agent(ari, media, mine, ari_channel) -> None:
    others = [ari_channel("c0", "AudioSocket", "x,y"), ari_channel("c2", data=UUID_TEXT)]
    ari.answers["list"] = [[*others, mine]]
    ari.answers["getChannelVar"] = [{"value": "sales"}]
    leg = DialplanLeg(media, ari, verify=True)
    assert leg.id == UUID_TEXT
    assert await leg.identify() == Identity("sales", "0301234", "Ada", "100")
    assert ari.params["getChannelVar"] == {"channelId": "c1", "variable": AGENT_VARIABLE}


@pytest.mark.parametrize("answer", [NO_VARIABLE, {"value": ""}])
async def test_without_the_variable_the_default_agent_answers(ari, media, mine, answer) -> None:
    ari.answers["list"] = [[mine]]
    ari.answers["getChannelVar"] = [answer]
    assert (await DialplanLeg(media, ari, verify=True).identify()).agent == "default"


@pytest.mark.parametrize("verify", [True, False])
async def test_who_asks_too_early_asks_again(ari, media, mine, verify: bool) -> None:
    ari.answers["list"] = [[], [], [], [mine]]
    ari.answers["getChannelVar"] = [{"value": "sales"}]
    assert (await DialplanLeg(media, ari, verify=verify).identify()).agent == "sales"
    assert ari.asked.count("list") == 4


async def test_a_uuid_that_no_channel_has_is_refused(ari, media) -> None:
    with pytest.raises(CallEnded) as ended:
        await DialplanLeg(media, ari, verify=True).identify()
    assert ended.value.cause is Cause.UNKNOWN_CALL
    assert ari.asked == ["list"] * 4


async def test_what_is_known_is_not_asked_again(ari, media, mine) -> None:
    ari.answers["list"] = [[mine]]
    ari.answers["getChannelVar"] = [{"value": "sales"}]
    leg = DialplanLeg(media, ari, verify=True)
    assert await leg.look_up(30.0) is None
    assert (await leg.identify()).agent == "sales"
    assert ari.asked == ["list", "getChannelVar"]


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ([], Cause.UNKNOWN_CALL),
        (AriUnavailable("gone"), Cause.ARI_FAILED),
        (AriTimeout("slow"), Cause.ARI_FAILED),
        (AriNotFound("404 Channel not found", 404), Cause.CALLER_HANGUP),
    ],
)
async def test_what_is_not_known_is_not_asked_again_either(ari, media, answer, cause) -> None:
    ari.answers["list"] = [answer]
    leg = DialplanLeg(media, ari, verify=True)
    ended = await leg.look_up(30.0)
    assert ended is not None
    assert ended.cause is cause
    asked = len(ari.asked)
    with pytest.raises(CallEnded) as said:
        await leg.identify()
    assert said.value is ended
    assert len(ari.asked) == asked


class Slow:
    """Asterisk's channels when the test lets them be told."""

    def __init__(self) -> None:
        self.answers: list[asyncio.Future] = []

    async def channels(self):
        self.answers.append(asyncio.get_running_loop().create_future())
        return await self.answers[-1]

    async def asked(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.answers) < count:  # noqa: ASYNC110  # a moment of the loop
                await asyncio.sleep(0)


async def test_whom_nobody_knows_in_time_is_not_known(media) -> None:
    leg = DialplanLeg(media, Slow(), verify=True)
    ended = await leg.look_up(0.01)
    assert ended is not None
    assert (ended.cause, ended.detail) == (Cause.ARI_FAILED, "no word of who calls within 0.01 s")


async def test_whoever_asks_while_a_request_runs_shares_the_next() -> None:
    slow = Slow()
    listing = SharedListing(slow)
    first = asyncio.create_task(listing.channels())
    await slow.asked(1)
    others = [asyncio.create_task(listing.channels()) for _ in range(100)]
    await asyncio.sleep(0)
    # what the first request finds may be older than their question
    slow.answers[0].set_result(["old"])
    assert await first == ["old"]
    await slow.asked(2)
    slow.answers[1].set_result(["new"])
    assert await asyncio.gather(*others) == [["new"]] * 100
    assert len(slow.answers) == 2


async def test_a_shared_request_fails_for_all_and_the_next_one_works() -> None:
    slow = Slow()
    listing = SharedListing(slow)
    asking = [asyncio.create_task(listing.channels()) for _ in range(3)]
    await slow.asked(1)
    asking[0].cancel()
    slow.answers[0].set_exception(AriUnavailable("gone"))
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, AriUnavailable, AriUnavailable]
    again = asyncio.create_task(listing.channels())
    await slow.asked(2)
    slow.answers[1].set_result([])
    assert await again == []


async def test_without_verification_it_is_the_default_agents(ari, media) -> None:
    leg = DialplanLeg(media, ari, verify=False)
    assert await leg.identify() == Identity("default")
    assert await leg.variables(("A",)) == {}


@pytest.mark.parametrize("error", [AriTimeout("slow"), AriUnavailable("gone")])
async def test_an_asterisk_that_cannot_be_asked(ari, media, error) -> None:
    ari.answers["list"] = [error]
    with pytest.raises(type(error)):
        await DialplanLeg(media, ari, verify=True).identify()
    assert await DialplanLeg(media, ari, verify=False).identify() == Identity("default")
    assert ari.asked == ["list"] * 2


async def test_an_agent_that_cannot_be_read_is_not_guessed(ari, media, mine) -> None:
    ari.answers["list"] = [[mine]]
    ari.answers["getChannelVar"] = [AriTimeout("slow")]
    with pytest.raises(AriTimeout):
        await DialplanLeg(media, ari, verify=False).identify()


async def test_without_ari_nobody_is_asked(media) -> None:
    leg = DialplanLeg(media, None, verify=False)
    assert await leg.identify() == Identity("default")
    assert await leg.variables(("A",)) == {}


async def test_variables_are_read_from_the_channel(ari, media, mine) -> None:
    ari.answers["list"] = [[mine]]
    ari.answers["getChannelVar"] = [NO_VARIABLE, {"value": "42"}]
    leg = DialplanLeg(media, ari, verify=True)
    await leg.identify()
    assert await leg.variables(("ORDER",)) == {"ORDER": "42"}
    assert ari.params["getChannelVar"] == {"channelId": "c1", "variable": "ORDER"}


async def test_the_media_is_there_from_the_beginning(ari, media) -> None:
    leg = DialplanLeg(media, ari, verify=True)
    assert await leg.open_media() is media
    await leg.settle_media()
    await leg.join()
    assert ari.asked == []


@pytest.mark.parametrize("held", ["list", "getChannelVar"])
async def test_cancelling_leaves_nothing(ari, media, mine, held: str) -> None:
    ari.answers["list"] = [[mine]]
    ari.held[held] = asyncio.Event()
    leg = DialplanLeg(media, ari, verify=True)
    asking = asyncio.create_task(leg.identify())
    await ari.until(held)
    asking.cancel()
    await asyncio.wait((asking,))
    await leg.release(CallEnded(Cause.SHUTDOWN))
    assert media.farewell == "hangup"
    assert asyncio.all_tasks() == {asyncio.current_task()}


PLACE = Destination(context="in", extension="1002")


async def test_what_the_dialplan_keeps_for_itself(ari, media) -> None:
    leg = DialplanLeg(media, ari, verify=True)
    assert await leg.send_digits("123") is False
    assert await leg.place_exists(PLACE) is True
    for ask in (leg.go_on_at, leg.consult):
        with pytest.raises(ToolError, match="the dialplan keeps control of it"):
            ask(PLACE)
    assert ari.asked == []


@pytest.mark.parametrize(
    ("answer", "farewell"),
    [(None, "close"), (AriNotFound("404", 404), "close"), (AriTimeout("slow"), "hangup")],
)
async def test_the_model_hangs_up_through_ari(ari, media, mine, answer, farewell: str) -> None:
    ari.answers["list"] = [[mine]]
    leg = DialplanLeg(media, ari, verify=True)
    await leg.identify()
    ari.answers["hangup"] = [answer]
    await leg.release(CallEnded(Cause.MODEL_HANGUP))
    assert ari.about("hangup") == ["c1"]
    assert media.farewell == farewell


async def test_the_model_hangs_up_on_a_channel_that_was_not_found(ari, media) -> None:
    leg = DialplanLeg(media, ari, verify=False)
    await leg.identify()
    await leg.release(CallEnded(Cause.MODEL_HANGUP))
    assert "hangup" not in ari.asked
    assert media.farewell == "hangup"


@pytest.mark.parametrize("cause", Cause)
async def test_the_dialplan_goes_on_unless_the_caller_hung_up(media, cause: Cause) -> None:
    await DialplanLeg(media, None, verify=False).release(CallEnded(cause))
    assert media.farewell == ("close" if cause is Cause.CALLER_HANGUP else "hangup")


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (MediaEnd(EndReason.HANGUP), Cause.CALLER_HANGUP),
        (MediaEnd(EndReason.EOF), Cause.CALLER_HANGUP),
        (MediaEnd(EndReason.RESET), Cause.CALLER_HANGUP),
        (MediaEnd(EndReason.CLOSED_BY_US), Cause.CALLER_HANGUP),
        (MediaEnd(EndReason.ERROR, "hung up", 0x01), Cause.CALLER_HANGUP),
        (MediaEnd(EndReason.ERROR, "memory", 0x04), Cause.MEDIA_ERROR),
        (MediaEnd(EndReason.ERROR), Cause.MEDIA_ERROR),
        (MediaEnd(EndReason.PROTOCOL), Cause.MEDIA_ERROR),
        (MediaEnd(EndReason.FLOOD), Cause.MEDIA_ERROR),
        (MediaEnd(EndReason.DEFECT), Cause.MEDIA_ERROR),
    ],
    ids=str,
)
def test_the_end_of_the_media_is_the_end_of_the_call(media, end: MediaEnd, cause: Cause) -> None:
    assert DialplanLeg(media, None, verify=False).media_ended(end).cause is cause
