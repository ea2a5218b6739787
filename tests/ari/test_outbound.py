"""Who is let in as an Asterisk's connection, and who is not."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

sys.path.insert(0, str(Path(__file__).parent))

from outbound_support import APP, PATIENCE, Door, Peer, door

from ari_gemini.ari import outbound
from ari_gemini.ari.outbound import OutboundListener
from ari_gemini.ari.settings import AriSettings
from ari_gemini.errors import ConfigError


@pytest.mark.parametrize(
    ("dial", "status"),
    [
        ({"path": "/"}, 404),
        ({"path": "/ari/events"}, 404),
        ({"login": None}, 401),
        ({"login": "gemini:wrong"}, 401),
        ({"login": "gemini"}, 401),
        ({"login": "other:geheim"}, 401),
        ({"login": "gemini:geheim\u00e9"}, 401),
        ({"protocol": None}, 400),
        ({"protocol": "media"}, 400),
    ],
)
async def test_who_is_not_asterisk_is_refused(dial: dict, status: int) -> None:
    async with door() as at:
        with pytest.raises(InvalidStatus) as refused:
            async with at.dial(**dial):
                pass
        assert refused.value.response.status_code == status
        assert ("WWW-Authenticate" in refused.value.response.headers) == (status == 401)
        assert (at.listener.refused.total(), at.links) == (1, [])
        await at.gone()


async def test_while_draining_asterisk_is_sent_elsewhere_and_links_stay() -> None:
    async with door() as at, at.linked() as (peer, link):
        at.listener.accepting = False
        with pytest.raises(InvalidStatus) as refused:
            async with at.dial():
                pass
        assert refused.value.response.status_code == 503
        port = at.listener.port
        at.listener.stop_accepting()
        at.listener.stop_accepting()
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", port)):
            pass
        asking = asyncio.create_task(link.channels())
        await peer.answer(await peer.asked(), 200, [])
        assert await asking == []


async def test_two_processes_share_a_port() -> None:
    async with door() as one, door(listen=f"127.0.0.1:{one.listener.port}") as other:
        assert one.listener.port == other.listener.port
        one.listener.stop_accepting()
        await asyncio.sleep(0)
        async with other.linked():
            assert one.links == []


@pytest.mark.parametrize(
    "first",
    [
        "garbage",
        b"binary",
        "{}",
        json.dumps({"type": "ApplicationRegistered"}),
        json.dumps({"type": "ApplicationRegistered", "application": 7}),
        json.dumps({"type": "ApplicationRegistered", "application": "ari-gemini"}),
        json.dumps({"type": "ApplicationRegistered", "application": "ari-gemini:"}),
        json.dumps({"type": "ApplicationRegistered", "application": "another:PJSIP/1"}),
    ],
)
async def test_who_names_no_call_of_ours_is_sent_away(first: str | bytes) -> None:
    async with door() as at, at.dial() as connection:
        await connection.send(first)
        async with asyncio.timeout(PATIENCE):
            await connection.wait_closed()
        assert connection.close_code == 1008
        assert at.links == []


async def test_events_that_waited_for_the_connection_come_first() -> None:
    async with door() as at, at.dial() as connection:
        peer = Peer(connection, APP)
        await peer.event("StasisEnd", channel={"id": "media"})
        await peer.event("ApplicationRegistered")
        await peer.event("StasisStart", channel={"id": "1.1"})
        await at.until(lambda: len(at.events) == 2)
        assert [type(event).__name__ for event in at.events] == ["StasisEnd", "StasisStart"]
        assert [link.app for link in at.links] == [APP]


async def test_who_says_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "REGISTER_SECONDS", 0.05)
    monkeypatch.setattr(outbound, "OPEN_SECONDS", 0.05)
    async with door() as at:
        async with at.dial() as connection, asyncio.timeout(PATIENCE):
            await connection.wait_closed()
        _reader, writer = await asyncio.open_connection("127.0.0.1", at.listener.port)
        async with asyncio.timeout(PATIENCE):
            await _reader.read()
        writer.close()
        await at.gone()
        assert at.links == []


async def test_connections_are_bounded_in_all() -> None:
    async with door(max_connections=2) as at, at.linked("ari-gemini:A/1"), at.linked("ari-gemini:A/2"):
        reader, writer = await asyncio.open_connection("127.0.0.1", at.listener.port)
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
        writer.close()
        assert at.listener.refused["too many connections"] == 1
        assert len(at.links) == 2


async def test_strangers_are_bounded_by_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "STRANGERS_PER_ADDRESS", 2)
    async with door() as at, at.linked("ari-gemini:A/1"):  # whoever has named a call is none
        silent = [await asyncio.open_connection("127.0.0.1", at.listener.port) for _ in range(3)]
        async with asyncio.timeout(PATIENCE):
            assert await silent[2][0].read() == b""
        assert at.listener.refused["too many connections"] == 1
        for _, writer in silent:
            writer.close()


async def test_an_address_that_cannot_be_had() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        made = Door(listen=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ConfigError, match="listen"):
            await made.listener.start()


async def test_no_password_no_listener() -> None:
    with pytest.raises(ConfigError, match="password"):
        OutboundListener(AriSettings(mode="outbound", username="gemini"), lambda link: None)
