"""Settings, addresses, and the listening door on both event loops."""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import ip_network
from uuid import UUID

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from ari_gemini.audiosocket import connection as media
from ari_gemini.audiosocket import server as server_module
from ari_gemini.audiosocket.connection import EndReason
from ari_gemini.audiosocket.server import (
    LOOPBACK,
    Address,
    AudioSocketServer,
    AudioSocketSettings,
    Throttle,
    parse_address,
)
from ari_gemini.errors import ConfigError

CALL = UUID("00112233-4455-6677-8899-aabbccddeeff")
IDENTIFY = b"\x01\x00\x10" + CALL.bytes
FRAME = b"\x10\x01\x40" + b"\x07\x00" * 160


# Addresses and settings.


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9092", ("127.0.0.1", 9092)),
        ("[::1]:9092", ("::1", 9092)),
        ("[fe80::1%eth0]:0", ("fe80::1%eth0", 0)),
        ("localhost:65535", ("localhost", 65535)),
        ("media_1.example-net.org:9092", ("media_1.example-net.org", 9092)),
        (" 10.0.0.1:1 ", ("10.0.0.1", 1)),
    ],
)
def test_addresses(text, address):
    assert parse_address(text) == address
    assert parse_address(str(parse_address(text))) == address


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not host:port"),
        ("9092", "is not host:port"),
        (":9092", "is not host:port"),
        ("127.0.0.1", "is not host:port"),
        ("127.0.0.1:", "'' is not a port"),
        ("127.0.0.1:65536", "'65536' is not a port"),
        ("127.0.0.1:-1", "'-1' is not a port"),
        ("127.0.0.1:http", "'http' is not a port"),
        ("127.0.0.1:٣", "is not a port"),
        ("127.0.0.256:9092", "'127.0.0.256' is not an IPv4 address"),
        ("127.1:9092", "'127.1' is not an IPv4 address"),
        ("::1:9092", "stands in brackets"),
        ("[127.0.0.1]:9092", "is not an IPv6 address"),
        ("[::1:9092", "stands in brackets"),
        ("tcp://asterisk:9092", "stands in brackets"),
        ("my host:9092", "'my host' is not a host name"),
        ("-:9092", "is not a host name"),
        ("a..b:9092", "'a..b' is not a host name"),
        ("a" * 254 + ":1", "is not a host name"),
    ],
)
def test_wrong_addresses_are_named_in_one_line(text, says):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as raised:
        parse_address(text)
    assert says in str(raised.value)


def test_defaults():
    settings = AudioSocketSettings()
    assert settings.listen == settings.advertise == "127.0.0.1:9092"
    assert settings.listen_address == settings.advertise_address == Address("127.0.0.1", 9092)
    assert (settings.verify, settings.allow_from, settings.uuid_timeout) == ("ari", None, 2.0)


def test_advertise_follows_listen_unless_given():
    assert AudioSocketSettings(listen="[::1]:9000").advertise == "[::1]:9000"
    settings = AudioSocketSettings(listen="0.0.0.0:9092", advertise="media.example.org:9092")
    assert settings.advertise_address == ("media.example.org", 9092)


def test_allow_from():
    assert AudioSocketSettings(verify="none").allow_from == LOOPBACK
    for verify in ("ari", "none"):
        settings = AudioSocketSettings(verify=verify, allow_from=["10.0.0.0/8", "::1", "192.168.1.7"])
        assert settings.allow_from == tuple(map(ip_network, ("10.0.0.0/8", "::1/128", "192.168.1.7/32")))
    assert AudioSocketSettings.model_validate(settings.model_dump()) == settings


@pytest.mark.parametrize(
    ("section", "key", "says"),
    [
        ({"listen": "9092"}, "listen", "'9092' is not host:port"),
        ({"listen": 9092}, "listen", "string"),
        ({"listen": "0.0.0.0:9092"}, "advertise", "must be given, because listen is '0.0.0.0:9092'"),
        ({"listen": "[::]:9092"}, "advertise", "must be given, because listen is '[::]:9092'"),
        ({"advertise": "0.0.0.0:9092"}, "advertise", "is every address"),
        ({"advertise": "media"}, "advertise", "'media' is not host:port"),
        ({"advertise": "media:0"}, "advertise", "port 0 cannot be dialled"),
        ({"verify": "maybe"}, "verify", "'ari' or 'none'"),
        ({"allow_from": "127.0.0.1"}, "allow_from", "takes a list of networks"),
        ({"allow_from": []}, "allow_from", "nobody could connect"),
        ({"allow_from": ["10.0.0.1/8"]}, "allow_from", "10.0.0.1/8 has host bits set"),
        ({"allow_from": ["asterisk"]}, "allow_from", "'asterisk' does not appear to be"),
        ({"allow_from": [1]}, "allow_from", "1 is not a network"),
        ({"uuid_timeout": 0}, "uuid_timeout", "greater than 0"),
        ({"max_unidentified": 0}, "max_unidentified", "greater than or equal to 1"),
        ({"listne": "x"}, "listne", "not permitted"),
    ],
)
def test_one_line_per_mistake(section, key, says):
    with pytest.raises(ValidationError) as raised:
        AudioSocketSettings.model_validate(section)
    [error] = raised.value.errors()
    assert error["loc"][0] == key
    assert "\n" not in error["msg"]
    assert says in error["msg"]


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        AudioSocketSettings().listen = "127.0.0.1:1"


def test_throttle_lets_one_through_and_counts_the_rest():
    throttle = Throttle(1.0)
    assert throttle.ask(100.0) == 0
    assert [throttle.ask(100.0 + i / 10) for i in range(1, 10)] == [None] * 9
    assert throttle.ask(101.0) == 9
    assert throttle.ask(101.5) is None
    assert throttle.ask(200.0) == 1
    assert throttle.ask(300.0) == 0


# Listening.


@pytest.fixture(autouse=True)
def _brief_farewells(monkeypatch):
    """Peers that do not close are cut sooner than in earnest."""
    monkeypatch.setattr(media, "LINGER_SECONDS", 0.05)


class Desk:
    """A server, and the connections that it has handed over. ``knows``: each is a call's."""

    def __init__(self, *, knows=True, **section):
        section = {"listen": "127.0.0.1:0", "uuid_timeout": 30.0, **section}
        self.knows = knows
        self.arrived = asyncio.Queue()
        self.server = AudioSocketServer(AudioSocketSettings(**section), self._identified)

    def _identified(self, connection):
        if self.knows:
            self.server.recognise(connection)
        self.arrived.put_nowait(connection)

    async def __aenter__(self):
        await self.server.start()
        return self

    async def __aexit__(self, *exc):
        await self.server.close()

    async def next(self):
        async with asyncio.timeout(30):
            return await self.arrived.get()

    async def until(self, condition):
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110  # counters raise no event
                await asyncio.sleep(0.001)


async def test_connections_are_handed_over_with_their_uuid(dialler):
    async with Desk() as desk:
        peers = [await dialler(desk.server.port) for _ in range(3)]
        uuids = [UUID(int=number) for number in range(3)]
        for peer, uuid in zip(peers, uuids, strict=True):
            peer.identify(uuid)
        connections = [await desk.next() for _ in peers]
        assert {connection.uuid for connection in connections} == set(uuids)
        assert desk.server.connections == 3
        assert (desk.server.stats.accepted, desk.server.stats.identified) == (3, 3)
        await peers[0].close()
        await desk.until(lambda: desk.server.connections == 2)
    assert desk.server.connections == 0
    assert (desk.server.stats.refused, desk.server.stats.unidentified) == (0, 0)


async def test_the_real_port_is_known(dialler):
    async with Desk() as desk:
        port = desk.server.port
        assert port > 0
        assert desk.server.address == desk.server.advertised == Address("127.0.0.1", port)
    with pytest.raises(RuntimeError, match="does not listen"):
        _ = desk.server.port
    async with Desk(advertise="media.example.org:9092") as desk:
        assert str(desk.server.advertised) == "media.example.org:9092"


async def test_ipv6(dialler):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    async with Desk(listen="[::1]:0", allow_from=["::1"]) as desk:
        peer = await dialler(desk.server.port, "::1")
        peer.identify()
        connection = await desk.next()
        assert connection.peer_host == "::1"
        assert connection.peer.startswith("[::1]:")
        assert str(desk.server.advertised) == f"[::1]:{desk.server.port}"


async def test_an_address_that_cannot_be_had_is_a_mistake_of_configuration():
    async with Desk() as desk:
        taken = f"127.0.0.1:{desk.server.port}"
        other = AudioSocketServer(AudioSocketSettings(listen=taken), lambda connection: None)
        with pytest.raises(ConfigError, match=f"^audiosocket.listen: cannot listen on {taken}: [^\n]+$"):
            await other.start()
        await other.close()


@pytest.mark.parametrize("verify", ["ari", "none"])
async def test_peers_that_may_not_come(dialler, verify):
    async with Desk(verify=verify, allow_from=["10.0.0.0/8", "::1"]) as desk:
        with capture_logs() as logs:
            peers = [await dialler(desk.server.port) for _ in range(4)]
            for peer in peers:
                peer.identify()
                assert await peer.receive_to_the_end() == b""
            await desk.until(lambda: desk.server.stats.refused == 4)
        assert desk.server.connections == 0
        assert desk.arrived.empty()
        assert (desk.server.stats.accepted, desk.server.stats.identified) == (0, 0)
    turned = [entry for entry in logs if "turned away" in entry["event"]]
    assert len(turned) < 4
    assert (turned[0]["reason"], turned[0]["detail"]) == ("refused", "not in allow_from")
    assert turned[0]["peer"].startswith("127.0.0.1:")


async def test_without_verification_this_machine_may_come(dialler):
    async with Desk(verify="none") as desk:
        (await dialler(desk.server.port)).identify()
        assert (await desk.next()).uuid == CALL


async def test_connect_and_say_nothing(dialler):
    async with Desk(uuid_timeout=0.05) as desk:
        with capture_logs() as logs:
            peer = await dialler(desk.server.port)
            assert await peer.receive_to_the_end() == b""
            await desk.until(lambda: desk.server.connections == 0)
        assert desk.server.stats.unidentified == 1
    [entry] = [entry for entry in logs if "turned away" in entry["event"]]
    assert (entry["reason"], entry["log_level"], entry["uuid"]) == ("no_uuid", "warning", None)


async def test_garbage_is_named_in_the_log(dialler):
    async with Desk() as desk:
        with capture_logs() as logs:
            peer = await dialler(desk.server.port)
            peer.send(b"GET / HTTP/1.1\r\n\r\n")
            assert await peer.receive_to_the_end() == b""
            await desk.until(lambda: desk.server.connections == 0)
    [entry] = [entry for entry in logs if "turned away" in entry["event"]]
    assert (entry["reason"], "0x47" in entry["detail"]) == ("protocol", True)


async def test_too_many_that_say_nothing_keep_nobody_out_who_came_before(dialler):
    async with Desk(max_unidentified=3) as desk:
        early = await dialler(desk.server.port)
        early.identify()
        known = await desk.next()
        silent = [await dialler(desk.server.port) for _ in range(3)]
        await desk.until(lambda: desk.server.connections == 4)
        late = await dialler(desk.server.port)
        assert await late.receive_to_the_end() == b""
        await desk.until(lambda: desk.server.stats.refused == 1)
        assert known.end is None
        await silent[0].close()
        await desk.until(lambda: desk.server.connections == 3)
        again = await dialler(desk.server.port)
        again.identify()
        await desk.next()
        silent[1].identify()
        await desk.next()
        assert desk.server.stats.unidentified == 1


# Crowds. The whole of 127.0.0.0/8 is this machine: peers can come from many addresses.


async def shown_out(peer):
    """Whether the peer is cut off at once, without a word."""
    return await peer.receive_to_the_end() == b""


async def test_a_crowd_from_one_address_keeps_nobody_else_out(dialler):
    async with Desk(max_unidentified_per_address=5) as desk:
        crowd = [await dialler(desk.server.port, source="127.0.0.2") for _ in range(50)]
        await desk.until(lambda: desk.server.stats.crowded == 45)
        (await dialler(desk.server.port)).identify()
        known = await desk.next()
        assert known.end is None
        assert (desk.server.stats.accepted, desk.server.unrecognised) == (6, 5)
        # one of them leaves: there is room for exactly one more
        crowd[0].reset()
        await desk.until(lambda: desk.server.unrecognised == 4)
        await dialler(desk.server.port, source="127.0.0.2")
        await desk.until(lambda: desk.server.unrecognised == 5)
        assert await shown_out(await dialler(desk.server.port, source="127.0.0.2"))
        assert known.end is None


async def test_made_up_uuids_are_a_crowd_too(dialler):
    """Saying a UUID is not enough: until somebody recognises it, it is a stranger's."""
    async with Desk(knows=False, max_unidentified_per_address=3) as desk:
        for number in range(3):
            (await dialler(desk.server.port, source="127.0.0.2")).identify(UUID(int=number))
        strangers = [await desk.next() for _ in range(3)]
        assert await shown_out(await dialler(desk.server.port, source="127.0.0.2"))
        desk.server.recognise(strangers[0])
        desk.server.recognise(strangers[0])
        assert desk.server.unrecognised == 2
        (await dialler(desk.server.port, source="127.0.0.2")).identify(UUID(int=4))
        await desk.next()
        # those refused keep their place until they are gone
        strangers[1].refuse("no call has this UUID")
        assert desk.server.unrecognised == 3
        await desk.until(lambda: desk.server.unrecognised == 2)


async def test_crowds_from_many_addresses_are_bounded_together(dialler):
    async with Desk(max_unidentified=6, max_unidentified_per_address=3) as desk:
        for host in range(2, 6):
            for _ in range(3):
                await dialler(desk.server.port, source=f"127.0.0.{host}")
        await desk.until(lambda: desk.server.stats.crowded == 6)
        assert desk.server.unrecognised == 6


async def test_calls_are_not_counted_by_address_but_all_together(dialler):
    async with Desk(max_unidentified_per_address=2, max_connections=10) as desk:
        for number in range(10):
            (await dialler(desk.server.port)).identify(UUID(int=number))
            await desk.next()
        with capture_logs() as logs:
            assert await shown_out(await dialler(desk.server.port, source="127.0.0.2"))
            await desk.until(lambda: desk.server.stats.refused == 1)
        assert desk.server.connections == 10
        assert desk.server.stats.crowded == 1
    assert [line["detail"] for line in logs if "turned away" in line["event"]] == ["10 connections are open"]


async def test_those_turned_away_take_no_place(dialler):
    """A flood at one moment: nobody of those turned away counts against who comes next."""
    async with Desk(max_unidentified_per_address=2, max_connections=4) as desk:
        await asyncio.gather(*(dialler(desk.server.port, source="127.0.0.2") for _ in range(100)))
        (await dialler(desk.server.port)).identify()
        assert (await desk.next()).end is None
        await desk.until(lambda: desk.server.connections == 3)
        assert desk.server.stats.crowded == 98
        assert not desk.server._crowds.keys() - {"127.0.0.2"}


async def test_a_crowd_is_forgotten_when_it_has_gone(dialler):
    async with Desk(knows=False) as desk:
        peers = [await dialler(desk.server.port, source=f"127.0.0.{host}") for host in (2, 2, 3, 4)]
        peers[0].identify()
        await desk.next()
        await desk.until(lambda: desk.server.unrecognised == 4)
        for peer in peers:
            peer.reset()
        await desk.until(lambda: desk.server.connections == 0)
        assert desk.server.unrecognised == 0
        assert not desk.server._crowds
        assert not desk.server._let_in


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("", "None"),
    ],
)
def test_what_counts_as_one_address(host, place):
    assert server_module.network(str(server_module.origin_of(host))) == place


async def test_a_call_that_nobody_expects(dialler):
    async with Desk() as desk:
        with capture_logs() as logs:
            peer = await dialler(desk.server.port)
            peer.identify()
            (await desk.next()).refuse("no call has this UUID")
            assert await peer.receive_to_the_end() == b"\x00\x00\x00"
            await peer.close()
            await desk.until(lambda: desk.server.connections == 0)
        assert desk.server.stats.refused == 1
    [entry] = [entry for entry in logs if "turned away" in entry["event"]]
    assert (entry["detail"], entry["uuid"]) == ("no call has this UUID", str(CALL))


async def test_a_proper_call_is_not_logged_as_turned_away(dialler):
    async with Desk() as desk:
        with capture_logs() as logs:
            peer = await dialler(desk.server.port)
            peer.send(IDENTIFY + FRAME + b"\x00\x00\x00")
            connection = await desk.next()
            await desk.until(lambda: desk.server.connections == 0)
        assert connection.end.reason is EndReason.HANGUP
    assert [entry["log_level"] for entry in logs] == ["debug"]


async def test_closing_hangs_up_on_everybody(dialler):
    desk = Desk()
    await desk.server.start()
    port = desk.server.port
    peers = [await dialler(port) for _ in range(3)]
    peers[0].identify()
    connection = await desk.next()
    await desk.until(lambda: desk.server.connections == 3)
    with capture_logs() as logs:
        closing = asyncio.ensure_future(desk.server.close())
        for peer in peers:
            assert await peer.receive_to_the_end() == b"\x00\x00\x00"
            await peer.close()
        await closing
    assert not logs
    assert connection.end.reason is EndReason.CLOSED_BY_US
    assert desk.server.connections == 0
    with pytest.raises(OSError):  # noqa: PT011  # refused or reset, as the kernel likes
        await dialler(port)
    await desk.server.close()


async def test_closing_does_not_wait_for_a_peer_that_does_nothing(dialler):
    desk = Desk()
    await desk.server.start()
    await dialler(desk.server.port)
    await desk.until(lambda: desk.server.connections == 1)
    async with asyncio.timeout(30):
        await desk.server.close()
    assert desk.server.connections == 0


async def test_cancelled_closing_cuts(dialler):
    desk = Desk()
    await desk.server.start()
    peer = await dialler(desk.server.port)
    peer.identify()
    connection = await desk.next()
    closing = asyncio.ensure_future(desk.server.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await connection.wait_closed()
    assert desk.server.connections == 0


async def test_started_again_after_closing(dialler):
    desk = Desk()
    for _ in range(2):
        await desk.server.start()
        peer = await dialler(desk.server.port)
        peer.identify()
        await desk.next()
        peer.reset()
        await desk.server.close()


async def test_a_hundred_calls_at_once(dialler):
    async with Desk() as desk:

        async def call(number):
            peer = await dialler(desk.server.port)
            peer.identify(UUID(int=number))
            peer.send(struct.pack(">BH", 0x10, 320) + struct.pack("<h", number) * 160)

        await asyncio.gather(*(call(number) for number in range(100)))
        connections = [await desk.next() for _ in range(100)]
        assert sorted(connection.uuid.int for connection in connections) == list(range(100))
        await desk.until(lambda: all(connection.stats.audio_bytes_in == 320 for connection in connections))
