from __future__ import annotations

import asyncio
import contextlib
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


async def test_a_conversation_is_known_by_its_number_and_resumption_can_be_refused(
    sim: Any, dial: Any
) -> None:
    async def come_back(handle: str) -> Any:
        number = sim.connections + 1
        async with dial(sim) as client:
            await client.send({"setup": {"model": LIVE, "sessionResumption": {"handle": handle}}})
            session = await sim.wait_session(number)
            with contextlib.suppress(subject.SessionGoneError):
                await session.wait_for("setup_complete")
                session.cut()
            await session.wait_closed()
            return session

    async with dial(sim) as client:
        await client.setup()
        first = await sim.wait_session()
        assert first.address == client.socket.local_address[:2]
        update = await first.wait_for("resumption_update")
        first.cut()
        await first.wait_closed()
    assert (first.conversation, first.resumed) == (1, False)
    handle = update.detail["handle"]
    first.refuse_resumption(code=1008, reason="The operation was aborted.")
    assert (await come_back(handle)).closed == (1008, "The operation was aborted.")
    first.refuse_resumption(0.0)
    sim.scenario = sim.scenario.model_copy(update={"resume_hold": 0.0})
    again = await come_back(handle)
    assert (again.conversation, again.resumed) == (1, True)
    first.lose_handles()
    assert (await come_back(handle)).closed == (1008, "BidiGenerateContent session not found")


async def test_what_a_fresh_session_is_told_of_the_past_is_kept(sim: Any, dial: Any) -> None:
    turns = [
        {"role": "user", "parts": [{"text": "When are "}, {"text": "you open?"}]},
        {"role": "model", "parts": [{"text": "From nine to five."}]},
    ]
    async with dial(sim) as client:
        await client.setup()
        await client.send({"clientContent": {"turns": turns, "turnComplete": False}})
        session = await sim.wait_session()
        await session.wait_for("client_content")
        await client.say("ask_hours")
        await client.until("turnComplete")
        assert session.history == [("user", "When are you open?"), ("model", "From nine to five.")]
        assert session.record.count("turn_start") == 1


async def test_a_stall_on_demand(sim: Any, dial: Any) -> None:
    async with dial(sim) as client:
        await client.setup()
        session = await sim.wait_session()
        session.stall()
        await client.send({"realtimeInput": {"text": "Hello."}})
        await session.wait_for("stalled")
        await client.send({"realtimeInput": {"text": "Hello?"}})
        await client.until("turnComplete")
        assert [said.name for said in session.said] == ["greeting"]
