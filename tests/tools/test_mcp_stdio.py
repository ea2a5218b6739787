"""A child process: started with what it may know, read within bounds, and gone in the end."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

import anyio
import psutil
import pytest
import uvloop
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from ari_gemini.tools import mcp_stdio
from ari_gemini.tools.mcp_stdio import Child, child

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

PLAIN = str(Path(__file__).parent / "mcp_servers" / "plain.py")
ENV = {"PATH": "/usr/bin:/bin"}
PATIENCE = 30.0


@pytest.fixture(scope="module", autouse=True)
def uvloop_opened_its_own_descriptors() -> None:
    """It keeps two for good, from the first loop on."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.sleep(0))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_stdio, "GRACE", 0.1)


def plain(how: str = "good") -> list[str]:
    return [sys.executable, PLAIN, how]


async def ask(it: Child, method: str) -> SessionMessage | Exception:
    read, write = it.streams
    async with asyncio.timeout(PATIENCE):
        await write.send(SessionMessage(JSONRPCRequest(jsonrpc="2.0", id=1, method=method)))
        return await read.receive()


def pids(it: Child) -> set[int]:
    process = psutil.Process(it.process.pid)
    return {process.pid, *(one.pid for one in process.children(recursive=True))}


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_messages_go_both_ways_and_it_ends_when_its_input_does() -> None:
    lost: list[str] = []
    async with child(plain(), ENV, None, lost.append) as it:
        await it.streams[1].send(SessionMessage(JSONRPCNotification(jsonrpc="2.0", method="notifications/x")))
        answer = await ask(it, "tools/list")
    assert isinstance(answer, SessionMessage)
    assert isinstance(answer.message, JSONRPCResponse)
    assert answer.message.result["tools"][0]["name"] == "echo"
    assert it.process.returncode == 0


async def test_lines_that_are_no_message_are_passed_over() -> None:
    async with child(plain("banner"), ENV, None, lambda _: None) as it:
        assert isinstance(await ask(it, "tools/list"), SessionMessage)


async def test_a_talkative_standard_error_never_stops_it() -> None:
    async with child(plain("noisy"), ENV, None, lambda _: None) as it:
        assert isinstance(await ask(it, "tools/list"), SessionMessage)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("exit", "it closed its output"),
        ("garbage", "what it writes is not MCP"),
        ("endless-line", "it sent more than 1048576 bytes at once"),
    ],
)
async def test_why_it_is_lost_is_told_once(how: str, why: str) -> None:
    lost: asyncio.Queue[str] = asyncio.Queue()
    async with child(plain(how), ENV, None, lost.put_nowait) as it:
        assert await asyncio.wait_for(lost.get(), PATIENCE) == why
        if how == "exit":
            assert await it.last_words() == "it closed its output: no licence found"
    assert lost.empty()


@pytest.mark.usefixtures("hasty")
async def test_closing_its_input_is_noticed_when_something_is_said() -> None:
    lost: asyncio.Queue[str] = asyncio.Queue()
    message = SessionMessage(JSONRPCNotification(jsonrpc="2.0", method="x" * 100_000))
    async with child(plain("deaf"), ENV, None, lost.put_nowait) as it, asyncio.timeout(PATIENCE):
        with suppress(anyio.BrokenResourceError):
            while True:
                await it.streams[1].send(message)
        assert await lost.get() == "it closed its input"


@pytest.mark.usefixtures("hasty")
async def test_one_that_will_not_go_is_killed() -> None:
    async with child(plain("stubborn"), ENV, None, lambda _: None) as it:
        await ask(it, "tools/list")
    assert it.process.returncode == -9


async def test_what_it_has_started_goes_with_it() -> None:
    async with child(plain("family"), ENV, None, lambda _: None) as it:
        await ask(it, "tools/list")
        family = pids(it)
        assert len(family) == 2
    async with asyncio.timeout(PATIENCE):  # whoever adopted the grandchild has yet to bury it
        while any(alive(pid) for pid in family):  # noqa: ASYNC110  # another process's doing
            await asyncio.sleep(0.005)


async def test_cancelled_again_it_is_killed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_stdio, "GRACE", PATIENCE)
    started: asyncio.Queue[Child] = asyncio.Queue()

    async def live() -> None:
        async with child(plain("stubborn"), ENV, None, lambda _: None) as it:
            await ask(it, "tools/list")
            started.put_nowait(it)
            await asyncio.Event().wait()

    task = asyncio.create_task(live())
    it = await asyncio.wait_for(started.get(), PATIENCE)
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=0.05)
    assert not done
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE / 2)
    assert it.process.returncode == -9


async def test_a_program_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no-such-program"):
        async with child(["no-such-program"], ENV, None, lambda _: None):
            pass
    with pytest.raises(OSError, match="nowhere"):
        async with child(plain(), ENV, tmp_path / "nowhere", lambda _: None):
            pass


async def test_it_runs_where_it_is_told_with_nothing_but_its_environment(tmp_path: Path) -> None:
    lost: asyncio.Queue[str] = asyncio.Queue()
    script = "import os, sys; sys.exit(os.getcwd() + str(sorted(set(os.environ) - {'LC_CTYPE'})))"
    async with child([sys.executable, "-c", script], {"A": "1"}, tmp_path, lost.put_nowait) as it:
        await asyncio.wait_for(lost.get(), PATIENCE)
        assert (await it.last_words()).endswith(f"{tmp_path}['A']")


@pytest.mark.usefixtures("hasty")
def test_under_uvloop_too() -> None:
    async def main() -> list[int | None]:
        ends = []
        for how in ("good", "stubborn"):
            async with child(plain(how), ENV, None, lambda _: None) as it:
                assert isinstance(await ask(it, "tools/list"), SessionMessage)
            ends.append(it.process.returncode)
        return ends

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) == [0, -9]
