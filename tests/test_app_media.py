"""Strange peers at the AudioSocket door: each is turned away, and a call beside it is unharmed."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.world import FRAME, LONG, Mouthpiece, World, until

from ari_gemini.errors import Cause

TURNED_AWAY = "! audiosocket turned away"


def message(kind: int, payload: bytes = b"") -> bytes:
    return bytes((kind,)) + len(payload).to_bytes(2, "big") + payload


def uuid_message() -> bytes:
    return message(0x01, uuid4().bytes)


AUDIO = message(0x10, bytes(FRAME))


class Peer:
    """Somebody who connects to the media port and sends bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def is_shown_out(self) -> None:
        """Wait until the service has closed the connection."""
        async with asyncio.timeout(LONG):
            try:
                while await self.reader.read(65536):
                    pass
            except ConnectionError:
                return

    async def floods(self, data: bytes, count: int) -> None:
        """Send as fast as the socket takes it, until the service closes."""
        try:
            for _ in range(count):
                self.writer.write(data)
                await self.writer.drain()
        except ConnectionError:
            return


@asynccontextmanager
async def peer_of(world: World) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection(*world.service.media.address)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def beside_a_call(**settings: object) -> AsyncIterator[World]:
    """A world with a call in it, which goes on as if nothing were, before, during and after."""
    async with World(audiosocket=settings) as world:
        call = await world.talks()
        session = world.gemini.sessions[0]
        voice = call.voice
        assert isinstance(voice, Mouthpiece)
        yield world
        await world.hears_it_all(call, session)
        gaps = [later - earlier for earlier, later in zip(voice.times, voice.times[1:], strict=False)]
        assert len(gaps) > 30
        assert len(voice.heard) == FRAME * len(voice.times), "whole frames and nothing else"
        assert session.heard.rate == 16000
        ended = len(world.outcomes)
        call.hang_up()
        assert (await world.over(ended + 1)).cause is Cause.CALLER_HANGUP
        await world.nothing_left()
        await world.another_works()


def reasons(world: World) -> list[str]:
    return [line["reason"] for line in world.log_lines(TURNED_AWAY)]


async def test_a_uuid_that_no_channel_has() -> None:
    async with beside_a_call() as world, peer_of(world) as peer:
        sessions = world.gemini.connections
        peer.writer.write(uuid_message() + AUDIO)
        outcome = await world.over()
        assert outcome.cause is Cause.UNKNOWN_CALL
        await peer.is_shown_out()
        assert world.gemini.connections == sessions, "nobody pays for a stranger"
        assert world.log_lines("call.ended")[0]["cause"] == "unknown_call"


async def test_the_uuid_of_a_call_that_is_up() -> None:
    async with beside_a_call() as world:
        taken = uuid4()
        call = await world.dial(taken)
        await world.up(2)
        async with peer_of(world) as peer:
            peer.writer.write(message(0x01, taken.bytes))
            assert (await world.over()).cause is Cause.UNKNOWN_CALL
            await peer.is_shown_out()
        await world.hears_it_all(call, world.gemini.sessions[1])
        call.hang_up()
        assert (await world.over(2)).cause is Cause.CALLER_HANGUP


@pytest.mark.parametrize(
    "said",
    [
        AUDIO,
        message(0x00),
        message(0x01, b"short"),
        message(0x01, bytes(17)),
        message(0xFF, b"x"),
        message(0x03, b"1"),
    ],
    ids=["sound", "hangup", "short uuid", "long uuid", "error", "digit"],
)
async def test_no_uuid_comes_first(said: bytes) -> None:
    async with beside_a_call() as world, peer_of(world) as peer:
        peer.writer.write(said)
        await peer.is_shown_out()
        await until(lambda: world.service.media.connections == 1)
        assert world.service.media.stats.unidentified == 1
        assert len(reasons(world)) == 1
        assert world.outcomes == []


@pytest.mark.parametrize("seed", range(5))
async def test_garbage(seed: int) -> None:
    async with beside_a_call() as world, peer_of(world) as peer:
        # the first byte is no UUID's, or chance would once find one
        peer.writer.write(b"\x7f" + random.Random(seed).randbytes(5000))
        await peer.is_shown_out()
        await until(lambda: world.service.media.connections == 1)
        assert world.service.media.stats.unidentified == 1
        assert len(reasons(world)) == 1


async def test_http_and_tls_are_garbage_too() -> None:
    async with beside_a_call() as world:
        for greeting in (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        ):
            async with peer_of(world) as peer:
                peer.writer.write(greeting)
                await peer.is_shown_out()
        assert world.service.media.stats.unidentified == 2


async def test_a_peer_that_connects_and_says_nothing() -> None:
    async with beside_a_call(uuid_timeout=2.0) as world, peer_of(world) as peer:
        begun = asyncio.get_running_loop().time()
        await peer.is_shown_out()
        assert 2.0 <= asyncio.get_running_loop().time() - begun < 3.5
        assert reasons(world) == ["no_uuid"]


async def test_a_peer_that_says_half_a_uuid() -> None:
    async with beside_a_call() as world, peer_of(world) as peer:
        peer.writer.write(uuid_message()[:10])
        await peer.is_shown_out()
        assert reasons(world) == ["no_uuid"]


async def test_a_crowd_that_says_nothing_does_not_keep_callers_out() -> None:
    async with beside_a_call(max_unidentified=4, uuid_timeout=1.0) as world:
        crowd = [await asyncio.open_connection(*world.service.media.address) for _ in range(10)]
        for reader, _ in crowd:
            async with asyncio.timeout(LONG):
                await reader.read()
        for _, writer in crowd:
            writer.close()
        assert world.service.media.stats.refused == 6
        assert world.service.media.stats.unidentified == 4


async def test_a_peer_that_floods_before_it_says_who_it_is() -> None:
    async with beside_a_call() as world, peer_of(world) as peer:
        await peer.floods(AUDIO * 100, 200)
        await peer.is_shown_out()
        assert world.service.media.stats.unidentified == 1


@pytest.mark.parametrize(
    "flood", [AUDIO * 50, message(0x10) * 500, message(0x42, b"?") * 500], ids=["sound", "empty", "unknown"]
)
async def test_a_caller_whose_media_floods_loses_his_call_alone(flood: bytes) -> None:
    """Way B, with a peer in Asterisk's place that sends far more than real time has room for."""
    async with beside_a_call() as world:
        call = await world.dial()
        await world.up(2)
        leg = call.channel.leg
        assert leg is not None
        transport = leg._transport
        for _ in range(1000):
            if transport.is_closing() or world.outcomes:
                break
            transport.write(flood)
            await asyncio.sleep(0)
        outcome = await world.over()
        assert outcome.cause is Cause.MEDIA_ERROR
        assert outcome.detail.startswith("flood")
        call.hang_up()


async def test_asterisk_reports_an_error_on_the_media_connection() -> None:
    async with beside_a_call() as world:
        call = await world.dial()
        await world.up(2)
        assert call.channel.leg is not None
        call.channel.leg._send(0xFF, b"\x04")
        outcome = await world.over()
        assert outcome.cause is Cause.MEDIA_ERROR
        await call.wait_left()
        call.hang_up()


async def test_the_media_of_way_a_breaks_and_the_caller_is_sent_on() -> None:
    async with World() as world:
        call = await world.talks()
        (media,) = (channel for channel in world.asterisk.channels.values() if channel.is_media)
        assert media.leg is not None
        media.leg._transport.abort()
        assert (await world.over()).cause is Cause.MEDIA_LOST
        await call.wait_left()
        assert call.variables["ARI_GEMINI_CAUSE"] == "media_lost"
        await world.nothing_left(call)
        await world.another_works(call)


async def test_bytes_are_not_taken_for_sound_of_a_rate_nobody_offers() -> None:
    """A peer that changes to a rate the service cannot resample ends its call, and says why."""
    async with beside_a_call() as world:
        call = await world.dial()
        await world.up(2)
        assert call.channel.leg is not None
        call.channel.leg._send(0x18, bytes(FRAME))  # 192 kHz
        outcome = await world.over()
        assert outcome.cause is Cause.MEDIA_ERROR
        assert "192000 Hz" in outcome.detail
        await call.wait_left()
        call.hang_up()
