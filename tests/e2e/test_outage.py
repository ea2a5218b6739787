"""The event connection to the real Asterisk fails, or Asterisk itself, while a phone talks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from bot import WAY_A, running
from harness.asterisk import PHONES, Asterisk
from harness.phone import PhoneMaker
from harness.restart import kill_and_call_again
from harness.tap import Way

from ari_gemini.errors import Cause

pytestmark = pytest.mark.asterisk

OUTAGE_SECONDS = 10.0
PACKET_SECONDS = 0.020


class Proxy:
    """TCP between the service and Asterisk's HTTP server, that can be cut."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def start(self) -> None:
        """Let connections through; the port is the same every time."""
        self._server = await asyncio.start_server(self._join, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Break every connection and take no more, until ``start``."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back}
        try:
            await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        finally:
            self._writers -= {writer, back}
            for one in (writer, back):
                one.close()
                with contextlib.suppress(OSError):
                    await one.wait_closed()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def proxy_to(asterisk: Asterisk) -> AsyncIterator[Proxy]:
    proxy = Proxy(asterisk.address, int(asterisk.ari_url.rpartition(":")[2]))
    await proxy.start()
    try:
        yield proxy
    finally:
        proxy.cut()


async def test_without_events_for_a_while_the_phone_talks_on(asterisk: Asterisk, phone: PhoneMaker) -> None:
    """One goes on all the time, another hangs up while nothing can be heard of it."""
    alice, bob, carol = await phone("1001"), await phone("1002"), await phone("1003")
    async with proxy_to(asterisk) as proxy:
        environ = {"ARI_GEMINI__ARI__URL": f"http://127.0.0.1:{proxy.port}"}
        async with running(asterisk, "two_turns", environ=environ) as bot:
            client = bot.service.client
            assert client is not None
            for one in (alice, bob):
                await one.dial(WAY_A)
                await one.established()
            session = await bot.session(1)
            await session.wait_for("turn_complete")
            proxy.cut()
            await asyncio.wait_for(_down(client), 10)
            await bob.hang_up()
            await bob.closed()
            session.say("long_story")
            heard, begun = session.heard.messages, asyncio.get_running_loop().time()
            await alice.tap.wait_loud(Way.TO_PHONE)
            await asyncio.sleep(OUTAGE_SECONDS)
            packets = alice.tap.packets(Way.TO_PHONE, since=begun)
            assert len(packets) > 0.9 * OUTAGE_SECONDS / PACKET_SECONDS
            assert session.heard.messages > heard, "the caller is heard all the time"
            assert not client.connected
            await proxy.start()
            await asyncio.wait_for(client.wait_connected(), 20)
            await bot.watcher.wait_outcomes(1)
            assert bot.watcher.outcomes[0].cause in {Cause.CALLER_HANGUP, Cause.MEDIA_LOST}
            async with asyncio.timeout(10):
                while bot.service.calls > 1:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.01)
            assert bot.service.calls == 1
            assert len(await asterisk.bridges()) == 1
            await carol.dial(WAY_A)
            await carol.established()
            await (await bot.session(3)).wait_for("turn_start")
            for one in (alice, carol):
                await one.hang_up()
                await one.closed()
            await bot.watcher.wait_outcomes(3)
            await bot.idle()
            await asterisk.empty()


async def _down(client: object) -> None:
    while client.connected:  # type: ignore[attr-defined]  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)


async def test_asterisk_is_killed_and_started_anew(asterisk: Asterisk, phone: PhoneMaker) -> None:
    """Both ways at once: all calls end with a cause, nothing is left of them, and the next ones work."""
    phones = [await phone(number) for number in PHONES[:4]]
    went = await kill_and_call_again(asterisk, phones[:2], phones[2:])
    print(f"\n{went}")
    assert set(went.causes) <= {Cause.MEDIA_LOST, Cause.CALLER_HANGUP}
    assert len(went.greeted) == 2
