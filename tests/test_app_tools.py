"""The whole service in one process: what the model does in a conversation, and what the caller notices."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.world import LONG, MODEL, TELEPHONE, Mouthpiece, World, quick, resampled, until

from ari_gemini.call.agent import Agent
from ari_gemini.errors import Cause
from ari_gemini.simulator.asterisk import SimulatedCall
from ari_gemini.simulator.gemini_live import SimulatedSession
from ari_gemini.simulator.phrases import phrase
from ari_gemini.simulator.scenario import ScriptedCall, ScriptTurn
from ari_gemini.tools.toolbox import Outcome

PLUGIN = Path(__file__).parent / "tools" / "plugin"
SHOP = Path(__file__).parent / "tools" / "mcp_servers" / "shop.py"
ASK = ScriptTurn(expect="ask_order")


def spoken(name: str) -> bytes:
    """What a caller hears of a phrase, 8 kHz."""
    return resampled(phrase(name).pcm, MODEL, TELEPHONE)


def agent(*tools: str, **given: Any) -> Mapping[str, Agent]:
    return {"default": Agent(tools=tools, greeting="Greet the caller.", **given)}


def voice_of(call: SimulatedCall) -> Mouthpiece:
    assert isinstance(call.voice, Mouthpiece)
    return call.voice


async def conversation(world: World, way: str = "A") -> tuple[SimulatedCall, SimulatedSession]:
    """A call that is up and has been greeted."""
    call = await (world.call() if way == "A" else world.dial())
    await world.up()
    session = await world.gemini.wait_session()
    await session.wait_for("turn_complete", timeout=LONG)
    return call, session


async def answers(session: SimulatedSession, count: int) -> dict[str, Mapping[str, Any]]:
    """The first ``count`` results that the model got, by the tool's name."""
    await session.wait_for("tool_response", count=count, timeout=LONG)
    return {one.detail["name"]: one.detail["response"] for one in session.record.of("tool_response")[:count]}


class Slow:
    """An HTTP server that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.left = asyncio.Event()
        self.go = asyncio.Event()
        self.requests = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[dict[str, Any]]:
        """``[tools]`` with the function ``slow`` that leads here."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        try:
            yield {"named": {"slow": {"description": "Takes long.", "url": address}}, "http": {"timeout": 60}}
        finally:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        self.asked.set()
        gone = asyncio.ensure_future(reader.read())
        told = asyncio.ensure_future(self.go.wait())
        await asyncio.wait((gone, told), return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            self.left.set()
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        for task in (gone, told):
            task.cancel()
        writer.close()


# Every kind, called in a conversation.


async def test_a_python_tool_and_a_real_mcp_server_are_called_in_a_conversation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    info = tmp_path / "phone_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: phone-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[ari_gemini.tools]\nopening_hours = phone_plugin.shop:opening_hours\n"
    )
    monkeypatch.syspath_prepend(str(PLUGIN))
    monkeypatch.syspath_prepend(str(tmp_path))
    asked = (
        ScriptedCall(name="opening_hours", args={"day": "2026-11-25"}),
        ScriptedCall(name="shop.add", args={"a": 2, "b": 3}),
        ScriptedCall(name="opening_hours", args={"day": "2026-11-29"}),
    )
    turn = ASK.model_copy(update={"calls": asked, "say": ("opening_hours",)})
    tools = {"mcp": {"shop": {"command": [sys.executable, str(SHOP)]}}}
    # in real time: the server is a process of its own
    world = World(
        quick(turn), agents=agent("opening_hours", "shop.add"), tools=tools, connect=False, hurry=False
    )
    async with world:
        assert await world.service.catalogue.servers["shop"].wait_ready(LONG)
        assert world.service.client is not None
        await world.service.client.wait_connected()
        call, session = await conversation(world)
        voice_of(call).say(phrase("ask_order").pcm)
        await session.wait_for("tool_response", count=3, timeout=LONG)
        got = [one.detail["response"] for one in session.record.of("tool_response")]
        assert {"result": {"day": "2026-11-25", "opens": "09:00", "closes": "18:00"}} in got
        assert {"error": "closed on Sundays"} in got
        assert any("5" in str(response.get("result")) for response in got)
        await until(lambda: spoken("opening_hours") in voice_of(call).heard, "the answer is not heard")
        call.hang_up()
        await world.over()
        assert sorted(use.outcome.value for use in world.uses) == ["done", "done", "error"]


# Ways to end.


@pytest.mark.parametrize(("way", "with_ari"), [("A", True), ("B", True), ("B", False)])
async def test_the_model_hangs_up_when_the_farewell_was_heard(way: str, with_ari: bool) -> None:
    goodbye = ScriptTurn(expect="say_goodbye", first=("goodbye",), calls=(ScriptedCall(name="hangup_call"),))
    audiosocket = {} if with_ari else {"verify": "none"}
    world = World(quick(goodbye), agents=agent("hangup_call"), with_ari=with_ari, audiosocket=audiosocket)
    async with world:
        call, _ = await conversation(world, way)
        voice_of(call).say(phrase("say_goodbye").pcm)
        assert (await world.over()).cause is Cause.MODEL_HANGUP
        assert spoken("goodbye") in voice_of(call).heard
        deletes = [one for one in world.asterisk.requests if one.operation == "channels.hangup"]
        assert any(call.id in str(one) for one in deletes) == with_ari
        # without ARI the dialplan goes on, as after any end
        await world.nothing_left(*([] if with_ari else [call]))


async def test_a_caller_who_hangs_up_ends_the_tool() -> None:
    slow = Slow()
    async with slow.serving() as tools, World(agents=agent("slow"), tools=tools) as world:
        call, session = await conversation(world)
        session.call_tool("slow")
        await slow.asked.wait()
        call.hang_up()
        assert (await world.over()).cause is Cause.CALLER_HANGUP
        await slow.left.wait()
        assert [use.outcome for use in world.uses] == [Outcome.CANCELLED]
        await world.nothing_left()
        await world.another_works()


async def test_a_call_that_the_model_takes_back_is_never_answered() -> None:
    slow = Slow()
    async with slow.serving() as tools, World(agents=agent("slow"), tools=tools) as world:
        call, session = await conversation(world)
        session.call_tool("slow")
        await slow.asked.wait()
        session.cancel_tools()
        await slow.left.wait()
        await world.hears_it_all(call, session)
        assert session.record.count("tool_response") + session.record.count("stray_tool_response") == 0
        assert [use.outcome for use in world.uses] == [Outcome.CANCELLED]
        call.hang_up()
        await world.over()
        await world.nothing_left()


# Beside the sound.


async def test_a_slow_tool_costs_no_frame_in_either_direction() -> None:
    slow = Slow()
    agents = agent("slow", filler="none")
    async with slow.serving() as tools, World(quick(pace=(3.0, 3.0)), agents=agents, tools=tools) as world:
        call, session = await conversation(world)
        voice = voice_of(call)
        session.call_tool("slow", then=("done",))
        await slow.asked.wait()
        begin, heard = len(voice.heard), session.heard.messages
        session.say("long_story")
        await until(lambda: spoken("long_story") in voice.heard[begin:], "the sound is torn")
        await until(lambda: session.heard.messages >= heard + 250, "five seconds of the caller's sound")
        slow.go.set()
        assert (await answers(session, 1))["slow"] == {"result": {"status": 200, "body": {}}}
        await until(lambda: spoken("done") in voice.heard[begin:], "the answer is not heard")
        call.hang_up()
        await world.over()
        (ended,) = world.log_lines("call.ended")
        counted = ("underruns", "refused_bytes", "media_dropped_out", "media_dropped_in")
        assert [name for name in counted if name in ended] == []
        assert ended["uplink_dropped"] == 0


async def test_the_wait_is_filled_until_the_model_speaks() -> None:
    slow = Slow()
    async with slow.serving() as tools, World(agents=agent("slow", filler_after=1.0), tools=tools) as world:
        call, session = await conversation(world)
        voice = voice_of(call)
        await until(lambda: spoken("done") in voice.heard)
        session.call_tool("slow", then=("opening_hours",))
        await slow.asked.wait()
        begin = len(voice.heard)
        await until(lambda: any(voice.heard[begin:]), "dead air")
        silence = next(at for at, byte in enumerate(voice.heard[begin:]) if byte) / 16
        assert silence >= 1000 - 40, "not before the silence has lasted that long"
        slow.go.set()
        await until(
            lambda: spoken("opening_hours") in voice.heard[begin:], "the tone is mixed into the speech"
        )
        end = len(voice.heard)
        await until(lambda: len(voice.heard) >= end + 16 * 8000, "eight seconds more")
        assert not any(voice.heard[end + 640 :]), "and the line is quiet again"
        call.hang_up()
        await world.over()


# The model is told.


async def test_what_an_agent_may_not_use_does_not_exist_for_it() -> None:
    tools = {"named": {"order_status": {"description": "x", "url": "https://api.example.com/"}}}
    async with World(agents=agent("hangup_call"), tools=tools) as world:
        call, session = await conversation(world)
        assert session.setup is not None
        (declared,) = session.setup["tools"]
        assert [one["name"] for one in declared["functionDeclarations"]] == ["hangup_call"]
        call.hang_up()
        await world.over()


@pytest.mark.parametrize(("way", "sensitive"), [("A", False), ("A", True), ("B", True)])
async def test_keys_reach_the_model_once_and_no_log_if_they_are_a_secret(way: str, sensitive: bool) -> None:
    agents = agent(digits={"sensitive": sensitive})
    async with World(agents=agents) as world:
        call, session = await conversation(world, way)
        call.press("9182736450#")
        told = await session.wait_for("client_text", count=2, timeout=LONG)
        assert told.detail["text"].endswith(": 9182736450")
        await world.hears_it_all(call, session)
        assert session.record.count("client_text") == 2
        call.hang_up()
        await world.over()
        shown = [line for line in world.logs if "9182736450" in str(line)]
        assert bool(shown) is not sensitive
