"""Who is let in as an Asterisk's connection, and who is not."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidHandshake, InvalidStatus

sys.path.insert(0, str(Path(__file__).parent))

from outbound_support import APP, PATIENCE, Door, Peer, door

from ari_gemini.ari import outbound
from ari_gemini.ari.outbound import OutboundListener, Strangers
from ari_gemini.ari.settings import AriSettings
from ari_gemini.errors import ConfigError

REQUEST = b"""\
GET /ari HTTP/1.1\r
Host: 127.0.0.1\r
Upgrade: websocket\r
Connection: Upgrade\r
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
Sec-WebSocket-Version: 13\r
Sec-WebSocket-Protocol: ari\r
Authorization: Basic Z2VtaW5pOmdlaGVpbQ==\r
\r
"""
"""What Asterisk sends."""


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


async def test_links_are_bounded_and_strangers_are_none_of_them() -> None:
    async with door(max_connections=2) as at, AsyncExitStack() as stack:
        await silent(at, stack, "127.0.0.1", 5)
        await stack.enter_async_context(at.linked("ari-gemini:A/1"))
        async with at.linked("ari-gemini:A/2"):
            with pytest.raises(InvalidHandshake):
                async with at.dial():
                    pass
            assert at.listener.refused == {"too many connections": 1}
            assert at.listener.connections == 7
        await at.until(lambda: at.closed)
        async with at.linked("ari-gemini:A/3"):
            assert len(at.listener.links) == 2


async def test_one_stranger_too_many_is_taken_in_and_the_oldest_cut_off() -> None:
    async with door() as at, AsyncExitStack() as stack:
        at.listener.max_strangers = 3
        at.listener.max_connections = 1
        first, second, *_ = await silent(at, stack, "127.0.0.1", 4)
        await cut_off(first)
        assert at.listener.refused == {"too many strangers": 1}
        async with at.linked():  # a stranger for a moment: that costs the next one his place
            await cut_off(second)
            assert at.listener.refused == {"too many strangers": 2}
            assert at.listener.connections == 3


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize(
    ("sources", "known"),
    [
        pytest.param([f"127.0.0.{host}" for host in (2, 3, 4, 5)], False, id="four addresses"),
        pytest.param([f"127.0.1.{host}" for host in range(1, 121)], True, id="more addresses than places"),
    ],
)
def test_a_flood_of_strangers_keeps_no_asterisk_out(
    run: Callable[[Coroutine[Any, Any, None]], None], sources: list[str], known: bool
) -> None:
    """120 silent peers, each there again as soon as he is cut off; there is room for 100."""

    async def flood() -> None:
        async with door(max_connections=10) as at:
            at.listener.max_strangers = 100
            if known:
                async with at.linked():
                    pass
            port = at.listener.port
            nagging = [asyncio.create_task(nag(sources[n % len(sources)], port)) for n in range(120)]
            try:
                async with asyncio.timeout(PATIENCE):
                    while at.listener.refused.total() < 20:  # noqa: ASYNC110 - has no event
                        await asyncio.sleep(0.005)
                for number in range(20):
                    async with at.linked(f"ari-gemini:A/{number}"):
                        assert at.listener.refused.keys() == {"too many strangers"}
                        assert len(at.listener.links) >= 1
            finally:
                for task in nagging:
                    task.cancel()
                await asyncio.gather(*nagging, return_exceptions=True)
            await at.gone()

    run(flood())


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_nor_do_strangers_at_asterisks_own_address(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def crowd() -> None:
        async with door(max_connections=10) as at, AsyncExitStack() as stack:
            at.listener.max_strangers = 100
            await silent(at, stack, "127.0.0.1", 300)
            for number in range(20):
                async with at.linked(f"ari-gemini:A/{number}"):
                    pass
                await silent(at, stack, "127.0.0.1", 1)
            assert at.listener.refused == {"too many strangers": 200 + 20}

    run(crowd())


async def test_who_has_gone_since_he_asked_leaves_nothing() -> None:
    async with door() as at:
        peer = socket.create_connection(("127.0.0.1", at.listener.port))
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.sendall(REQUEST)
        peer.close()  # with a reset
        async with at.linked():
            assert at.listener.connections >= 1
        await at.gone()
        assert not at.listener._guests
        assert not at.listener._strangers


def test_the_greatest_crowd_loses_its_oldest() -> None:
    strangers = crowds({"192.0.2.1": "ab", "192.0.2.2": "cde", "192.0.2.3": "f"})
    assert [strangers.evict() for _ in range(4)] == ["c", "a", "d", "b"]
    assert len(strangers) == 2
    assert ("e" in strangers, "c" in strangers) == (True, False)


def test_an_ipv6_network_is_one_crowd() -> None:
    strangers = crowds({"2001:db8:0:1::1": "a", "192.0.2.1": "bc", "::ffff:192.0.2.2": "d", "192.0.2.2": "e"})
    for number in range(3):
        strangers.add(f"v{number}", f"2001:db8::{number}:0:0:1")
    assert strangers.evict() == "v0"
    assert [strangers.evict() for _ in range(3)] == ["b", "d", "v1"]


def test_half_are_kept_for_known_places_in_equal_parts() -> None:
    strangers = crowds(
        {"192.0.2.1": "abcd", "192.0.2.2": "v", **{f"198.51.100.{n}": str(n) for n in range(4)}}
    )
    strangers.trust("v")
    assert strangers.evict() == "a", "of nine it has four, which are a known place's part, but is not known"
    strangers.add("x", "192.0.2.1")
    strangers.add("w", "192.0.2.1")
    strangers.trust("w")
    strangers.add("y", "192.0.2.9")
    assert strangers.evict() == "b", "two places are known: the part of each is two"


def test_known_places_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "KNOWN_PLACES", 2)
    strangers: Strangers[str] = Strangers()
    for host in (1, 2, 1, 3):
        strangers.add("asterisk", f"192.0.2.{host}")
        strangers.trust("asterisk")
    assert list(strangers._known) == ["192.0.2.1", "192.0.2.3"]


@given(
    most=st.integers(1, 12),
    moves=st.lists(
        st.tuples(st.sampled_from(["come", "come", "trust", "go"]), st.integers(0, 9), st.integers(0, 20)),
        max_size=120,
    ),
)
def test_never_the_newest_never_too_many_and_nothing_is_left(
    most: int, moves: list[tuple[str, int, int]]
) -> None:
    strangers: Strangers[int] = Strangers()
    there: dict[int, str] = {}
    for number, (move, host, which) in enumerate(moves):
        one = list(there)[which % len(there)] if there else None
        if move == "come":
            there[number] = place = f"192.0.2.{host}"
            strangers.add(number, place)
            if len(strangers) > most:
                few = [
                    p for p in strangers._known if 0 < crowd(there, p) <= most // 2 // len(strangers._known)
                ]
                gone = strangers.evict()
                assert gone != number
                assert there[gone] not in few
                assert gone == min(other for other in there if there[other] == there[gone])
                assert crowd(there, there[gone]) == max(
                    crowd(there, p) for p in there.values() if p not in few
                )
                del there[gone]
        elif one is not None:
            del there[one]
            strangers.trust(one) if move == "trust" else strangers.discard(one)
        assert len(strangers) == len(there) <= most
        assert {one: strangers._place_of[one] for one in there} == there
    for one in there:
        strangers.discard(one)
        strangers.discard(one)
    assert not strangers._crowds


def crowd(there: dict[int, str], place: str) -> int:
    return list(there.values()).count(place)


def crowds(by_address: dict[str, str]) -> Strangers[str]:
    """A stranger for each letter."""
    strangers: Strangers[str] = Strangers()
    for address, names in by_address.items():
        for name in names:
            strangers.add(name, address)
    return strangers


async def silent(at: Door, stack: AsyncExitStack, source: str, count: int) -> list[socket.socket]:
    """So many peers from there who say nothing, and whom the door has seen come in this order."""
    loop, peers = asyncio.get_running_loop(), []
    for _ in range(count):
        peer = stack.enter_context(socket.socket())
        peer.setblocking(False)
        peer.bind((source, 0))
        await loop.sock_connect(peer, ("127.0.0.1", at.listener.port))
        peers.append(peer)
    return peers


async def cut_off(peer: socket.socket) -> None:
    """Wait until the door ends the connection, without a word."""
    async with asyncio.timeout(PATIENCE):
        with suppress(ConnectionError):
            assert await asyncio.get_running_loop().sock_recv(peer, 1) == b""


async def nag(source: str, port: int) -> None:
    """Connect from there, say nothing, and do it again when that is over."""
    loop = asyncio.get_running_loop()
    while True:
        with socket.socket() as peer, suppress(ConnectionError):
            peer.setblocking(False)
            peer.bind((source, 0))
            await loop.sock_connect(peer, ("127.0.0.1", port))
            await loop.sock_recv(peer, 1)


async def test_an_address_that_cannot_be_had() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        made = Door(listen=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ConfigError, match="listen"):
            await made.listener.start()


async def test_no_password_no_listener() -> None:
    with pytest.raises(ConfigError, match="password"):
        OutboundListener(AriSettings(mode="outbound", username="gemini"), lambda link: None)
