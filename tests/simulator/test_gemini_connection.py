from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from ari_gemini.errors import ConfigError
from ari_gemini.simulator import gemini_connection as subject
from ari_gemini.simulator.gemini_live import GeminiSimulator
from ari_gemini.simulator.phrases import phrase

LIVE = "models/gemini-3.8-live"


@pytest.fixture
async def sim() -> Any:
    async with GeminiSimulator("two_turns", speed=20) as running:
        yield running


async def test_a_spoken_turn_over_a_socket(sim: Any, dial: Any, kit: Any) -> None:
    async with dial(sim) as client:
        await client.setup()
        await client.say("ask_hours")
        await client.until("turnComplete")
        session = await sim.wait_session()
    assert b"".join(map(kit.sound, client.messages)) == phrase("opening_hours").pcm
    assert session.setup == {"model": LIVE, **kit.TRANSCRIBED}
    assert session.heard.pcm == phrase("ask_hours").pcm + bytes(16_000)
    [said] = session.said
    assert said.pcm == phrase("opening_hours").pcm
    assert (session.path, session.headers["X-Goog-Api-Key"]) == (kit.PATH, "a-key")
    assert await session.wait_closed() == (1000, "")
    assert session.closed == (1000, "")
    assert session.record.of("closed")[0].detail == {"code": 1000, "reason": "", "by": "client"}
    assert [message.kind for message in session.messages] == []


async def test_events_can_be_waited_for_before_and_after(sim: Any, dial: Any) -> None:
    async with dial(sim) as client:
        session = await sim.wait_session()
        waiting = asyncio.create_task(session.wait_for("turn_complete", count=2))
        following = asyncio.create_task(session.wait_next("setup_complete"))
        await client.setup()
        assert (await following).number == 1
        for _ in range(2):
            await client.send({"realtimeInput": {"text": "Hello."}})
            await client.until("turnComplete")
        assert (await waiting).number == 2
        assert (await session.wait_for("turn_complete")).number == 1
        first, second = session.record.of("turn_complete")
        assert first.at < second.at


async def test_waiting_has_an_end(sim: Any, dial: Any) -> None:
    async with dial(sim) as client:
        await client.setup()
        session = await sim.wait_session()
        with pytest.raises(TimeoutError, match=r"no interrupted \(1\) within 0 s; last: connected, setup, "):
            await session.wait_for("interrupted", timeout=0)
        waiting = asyncio.create_task(session.wait_for("interrupted"))
        await asyncio.sleep(0)
        session.disconnect(1011, "Gone.")
        with pytest.raises(
            subject.SessionGoneError, match=r"the session ended \(1011 Gone\.\) without interr"
        ):
            await waiting
        with pytest.raises(subject.SessionGoneError):
            await session.wait_next("audio")
        assert await client.end() == (1011, "Gone.")
        assert session.record.of("closed")[0].detail["by"] == "service"


async def test_steering(dial: Any) -> None:
    declared = [{"functionDeclarations": [{"name": "hangup_call"}]}]
    async with GeminiSimulator("greeting", speed=4) as sim, dial(sim) as client:
        await client.setup(tools=declared)
        session = await sim.wait_session()
        session.say("long_story")
        await client.until("audio")
        session.interrupt()
        await client.until("interrupted")
        await client.until("turnComplete")
        session.call_tool("hangup_call", {"why": "done"}, then=["goodbye"])
        call = (await client.until("toolCall"))["toolCall"]["functionCalls"][0]
        assert (call["name"], call["args"]) == ("hangup_call", {"why": "done"})
        session.cancel_tools()
        assert (await client.until("toolCallCancellation"))["toolCallCancellation"]["ids"] == [call["id"]]
        with pytest.raises(ConfigError, match="no recorded phrase"):
            session.say("sneeze")
        session.go_away(0.5)
        assert (await client.until("goAway"))["goAway"] == {"timeLeft": "0.500s"}
        code, reason = await client.end()
        assert (code, reason[:18]) == (1008, "Connection aborted")


async def test_cutting_the_line(sim: Any, dial: Any) -> None:
    async with dial(sim) as client:
        await client.setup()
        session = await sim.wait_session()
        session.cut()
        assert await client.end() == (1006, "")
        assert await session.wait_closed() == (1006, "")
        assert session.record.of("closed")[0].detail["by"] == "network"


async def test_a_client_may_close_with_1011(sim: Any, dial: Any) -> None:
    async with dial(sim) as client:
        await client.setup()
        await client.socket.close(1011, "cancelled")
        session = await sim.wait_session()
        assert await session.wait_closed() == (1011, "cancelled")


async def test_a_client_that_vanishes_is_the_networks_doing(sim: Any, dial: Any) -> None:
    async with dial(sim) as client:
        await client.setup()
        client.socket.transport.abort()
        session = await sim.wait_session()
        assert await session.wait_closed() == (1006, "")


async def test_the_tap_sees_every_frame(dial: Any) -> None:
    seen: list[tuple[int, str, str | bytes]] = []

    def tap(number: int, direction: str, frame: str | bytes) -> None:
        seen.append((number, direction, frame))

    async with GeminiSimulator("greeting", speed=20, tap=tap) as sim, dial(sim) as client:
        await client.setup()
    assert seen[0][:2] == (1, "<")
    assert json.loads(seen[0][2])["setup"]["model"] == LIVE
    assert seen[1] == (1, ">", b'{"setupComplete":{}}')


async def test_a_defect_of_the_simulator_is_not_hidden(dial: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sim = GeminiSimulator("greeting", speed=20)
    await sim.start()
    async with dial(sim) as client:
        await client.setup()
        session = await sim.wait_session()

        def broken(frame: object, now: float) -> None:
            raise ZeroDivisionError("oops")

        monkeypatch.setattr(session._conversation, "receive", broken)
        await client.send({"realtimeInput": {"text": "hi"}})
        assert await client.end() == (1011, "Internal error encountered.")
    with pytest.raises(ZeroDivisionError, match="oops"):
        await sim.stop()
    await sim.stop()
