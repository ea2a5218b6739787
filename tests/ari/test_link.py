"""One call's WebSocket: requests and answers, events in order, and messages that make no sense."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from outbound_support import APP, PATIENCE, door

from ari_gemini.ari.channel import Channel
from ari_gemini.ari.events import ChannelDtmfReceived, StasisStart
from ari_gemini.errors import AriConflict, AriDenied, AriNotFound, AriRejected, AriTimeout, AriUnavailable


async def test_requests_go_over_the_socket_and_answers_find_them_in_any_order() -> None:
    async with door() as at, at.linked() as (peer, link):
        assert (link.app, link.channel_name, link.connected) == (APP, "PJSIP/1001-00000001", True)
        info = asyncio.create_task(Channel(link, "1.1").get())
        first = await peer.asked()
        answer = asyncio.create_task(Channel(link, "1.1").answer())
        second = await peer.asked()
        assert (first["method"], first["uri"]) == ("GET", "channels/1.1")
        assert (second["method"], second["uri"]) == ("POST", "channels/1.1/answer")
        assert first["request_id"] != second["request_id"]
        await peer.answer(second, 204)
        await answer
        await peer.answer(first, 200, {"id": "1.1", "name": "PJSIP/1001-00000001"})
        assert (await info).name == "PJSIP/1001-00000001"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AriDenied),
        (403, AriDenied),
        (404, AriNotFound),
        (409, AriConflict),
        (412, AriConflict),
        (422, AriRejected),
        (500, AriRejected),
        (503, AriUnavailable),
    ],
)
async def test_statuses_become_the_errors_of_the_other_transport(status: int, kind: type) -> None:
    async with door() as at, at.linked() as (peer, link):
        asking = asyncio.create_task(Channel(link, "1.1").answer())
        await peer.answer(await peer.asked(), status, {"message": "Asterisk's words"})
        with pytest.raises(kind, match="Asterisk's words") as failed:
            await asking
        assert failed.value.status == status


async def test_no_answer_in_time() -> None:
    async with door(request_timeout=0.05) as at, at.linked() as (peer, link):
        with pytest.raises(AriTimeout):
            await Channel(link, "1.1").answer()
        await peer.answer(await peer.asked(), 204)  # too late
        await peer.event("StasisStart", channel={"id": "1.1"})
        await at.until(lambda: at.events)
        assert link.unmatched == 1


async def test_the_end_of_the_connection_fails_what_waits_and_what_comes() -> None:
    async with door() as at, at.linked() as (peer, link):
        asking = asyncio.create_task(Channel(link, "1.1").answer())
        await peer.asked()
        peer.connection.transport.abort()
        with pytest.raises(AriUnavailable):
            await asking
        with pytest.raises(AriUnavailable):
            await Channel(link, "1.1").answer()
        assert at.closed == [link]
        assert not link.connected


async def test_closing_it_passes_nothing_on_any_more() -> None:
    async with door() as at, at.linked() as (peer, link):
        asking = asyncio.create_task(Channel(link, "1.1").answer())
        await peer.asked()
        await asyncio.gather(link.close(), link.close())
        with pytest.raises(AriUnavailable):
            await asking
        async with asyncio.timeout(PATIENCE):
            await peer.connection.wait_closed()
        assert peer.connection.close_code == 1001
        assert (at.closed, at.events) == ([link], [])


async def test_events_come_in_order_and_nonsense_is_counted() -> None:
    async with door() as at, at.linked() as (peer, link):
        nonsense = [
            "garbage", "[]", "7", "null", "{", "[" * 5000, '{"type": 1}',
            '{"type": "RESTResponse"}',
            '{"type": "RESTResponse", "request_id": "1", "status_code": "204"}',
            '{"type": "RESTResponse", "request_id": "1", "status_code": true}',
            '{"type": "RESTResponse", "request_id": "1", "status_code": 200, "message_body": {}}',
            '{"type": "StasisStart"}',
            '{"type": "ApplicationRegistered", "application": "another"}',
        ]  # fmt: skip
        for message in nonsense:
            await peer.connection.send(message)
        await peer.connection.send(b"\x00\x01binary")
        await peer.event("ApplicationRegistered")  # said twice
        for number in ("99", None, 7, ["1"]):
            await peer.connection.send(
                json.dumps({"type": "RESTResponse", "request_id": number, "status_code": 200})
            )
        await peer.event("StasisStart", channel={"id": "1.1"}, args=["sales"])
        for digit in "123":
            await peer.event("ChannelDtmfReceived", channel={"id": "1.1"}, digit=digit)
        await at.until(lambda: len(at.events) == 4)
        assert isinstance(at.events[0], StasisStart)
        assert [e.digit for e in at.events[1:] if isinstance(e, ChannelDtmfReceived)] == ["1", "2", "3"]
        assert (link.parser.malformed, link.unmatched) == (len(nonsense) + 1, 4)
        assert link.connected


async def test_an_answer_that_is_not_json() -> None:
    async with door() as at, at.linked() as (peer, link):
        asking = asyncio.create_task(link.channels())
        await peer.answer(await peer.asked(), 200, "<html>")
        with pytest.raises(AriRejected):
            await asking


async def test_a_handler_that_fails_ends_nothing() -> None:
    async with door() as at, at.linked() as (peer, link):

        def defect(_event: object) -> None:
            raise RuntimeError("a defect")

        usual, link.on_event = link.on_event, defect
        await peer.event("StasisStart", channel={"id": "1.1"})
        asking = asyncio.create_task(link.channels())
        await peer.answer(await peer.asked(), 200, [])
        assert await asking == []
        assert link.handler_errors == 1
        link.on_event = usual
        await peer.event("StasisStart", channel={"id": "1.2"})
        await at.until(lambda: at.events)


async def test_a_message_too_long_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from ari_gemini.ari import outbound

    monkeypatch.setattr(outbound, "MAX_BODY", 1000)
    async with door() as at, at.linked() as (peer, link):
        await peer.connection.send("x" * 1001)
        await at.until(lambda: at.closed == [link])
        async with asyncio.timeout(PATIENCE):
            await peer.connection.wait_closed()
        assert peer.connection.close_code == 1009


async def test_a_media_channels_subscriptions_are_ended_in_one_request() -> None:
    async with door() as at, at.linked() as (peer, link):
        asking = asyncio.create_task(link.unsubscribe("ari-gemini-media-1.1"))
        request = await peer.asked()
        path, _, query = request["uri"].partition("?")
        assert (request["method"], path) == (
            "DELETE",
            "applications/ari-gemini%3APJSIP%2F1001-00000001/subscription",
        )
        assert query == "eventSource=channel%3Aari-gemini-media-1.1%2Cchannel%3Aari-gemini-media-1.1"
        await peer.answer(request, 422, {"message": "Event source was not subscribed to"})
        with pytest.raises(AriRejected):
            await asking


async def test_events_can_be_left_out() -> None:
    async with door() as at, at.linked() as (peer, link):
        asking = asyncio.create_task(link.ignore(("ChannelVarset",)))
        request = await peer.asked()
        assert (request["method"], request["uri"]) == (
            "PUT",
            "applications/ari-gemini%3APJSIP%2F1001-00000001/eventFilter",
        )
        assert json.loads(request["message_body"]) == {"disallowed": [{"type": "ChannelVarset"}]}
        await peer.answer(request, 200, {"name": link.app})
        await asking
        asking = asyncio.create_task(link.ignore(()))
        await peer.answer(await peer.asked(), 404, {"message": "Application not found"})
        with pytest.raises(AriNotFound):
            await asking
