"""Real MCP servers, good and bad, over stdio and HTTP: kept up, used, cancelled, gone in the end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog
from mcp_types import Tool as ListedTool

from ari_gemini.errors import ConfigError, ToolError
from ari_gemini.gemini.functions import to_gemini_schema
from ari_gemini.tools import mcp_connection, mcp_server, mcp_stdio
from ari_gemini.tools.base import ToolContext
from ari_gemini.tools.mcp_server import McpServer
from ari_gemini.tools.mcp_settings import McpSettings
from ari_gemini.tools.schema import ArgumentCheck

pytestmark = pytest.mark.usefixtures("nothing_left_behind")

SERVERS = Path(__file__).parent / "mcp_servers"
SHOP = (sys.executable, str(SERVERS / "shop.py"))
PATIENCE = 30.0
SECRETS = {"PATH": "/usr/bin:/bin", "HOME": "/", "GEMINI_API_KEY": "AIza-secret", "SHOP_REGION": "south"}

Lines = list[MutableMapping[str, Any]]


def plain(how: str = "good") -> tuple[str, ...]:
    return (sys.executable, str(SERVERS / "plain.py"), how)


def settings(**values: Any) -> McpSettings:
    return McpSettings(**{"reconnect_min": 0.01, "reconnect_max": 0.05, **values})


@pytest.fixture
def lines() -> Iterator[Lines]:
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists are read again without a pause."""
    monkeypatch.setattr(mcp_connection, "LIST_PAUSE", 0.01)


def said(lines: Lines, event: str) -> Lines:
    return [line for line in lines if line["event"] == event]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in another process
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(configured: McpSettings, *, ready: bool = True) -> AsyncIterator[McpServer]:
    server = McpServer("shop", configured, SECRETS)
    task = asyncio.create_task(server.run())
    try:
        if ready:
            assert await server.wait_ready(PATIENCE), server.trouble
        yield server
    finally:
        task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others


def takes(server: McpServer) -> list[list[ListedTool]]:
    """Every list of tools that it takes over from now on, noted when that is done."""
    taken: list[list[ListedTool]] = []
    take = server._take

    async def noting(listed: list[ListedTool]) -> None:
        await take(listed)
        taken.append(listed)

    server._take = noting  # type: ignore[method-assign]
    return taken


async def use(server: McpServer, name: str, /, **args: Any) -> Any:
    """As the toolbox does it."""
    tool = server.tools()[f"shop.{name}"]
    ArgumentCheck(tool.declaration.parameters)(args)
    context = ToolContext(None, structlog.get_logger())  # type: ignore[arg-type]
    return await asyncio.wait_for(tool.run(args, context), PATIENCE)


async def call(server: McpServer, name: str, /, **args: Any) -> Any:
    """What the server offers without listing it."""
    return await asyncio.wait_for(server.call(name, args), PATIENCE)


# -- the SDK's own server, both transports -----------------------------------------------------------------


@asynccontextmanager
async def shop_over_http(port: int = 0, **env: str) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        *SHOP, "http", str(port), stdout=asyncio.subprocess.PIPE, env={"PATH": "/usr/bin:/bin", **env}
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
        yield f"http://127.0.0.1:{int(line)}/mcp"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture(params=["stdio", "http"])
async def shop(request: pytest.FixtureRequest) -> AsyncIterator[McpServer]:
    if request.param == "stdio":
        async with running(settings(command=SHOP)) as server:
            yield server
    else:
        async with shop_over_http() as url, running(settings(url=url)) as server:
            yield server


async def test_tools_are_declared_for_a_model_and_used(shop: McpServer) -> None:
    tools = shop.tools()
    assert {"shop.add", "shop.order", "shop.wait"} <= tools.keys()
    order = tools["shop.order"]
    assert order.declaration.description == "Order articles."
    parameters = order.declaration.parameters
    assert parameters is not None
    assert to_gemini_schema(parameters, "order")["properties"]["lines"]["items"]["type"] == "OBJECT"
    assert tools["shop.wait"].declaration.parameters is None
    assert await use(shop, "add", a=1, b=2) == 3
    assert await use(shop, "order", lines=[{"article": "nut", "count": 2}]) == {
        "articles": 2,
        "speed": "slow",
    }


async def test_calls_run_side_by_side(shop: McpServer) -> None:
    waiting = asyncio.create_task(use(shop, "wait"))
    assert await use(shop, "until", what="waiting") == "waiting"
    assert await asyncio.gather(*(use(shop, "add", a=1, b=b) for b in range(20))) == list(range(1, 21))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_cancelling_a_call_stops_it_in_the_server(shop: McpServer) -> None:
    waiting = asyncio.create_task(use(shop, "wait"))
    await use(shop, "until", what="waiting")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await use(shop, "until", what="cancelled") == "cancelled"


async def test_errors_pictures_and_strangers_patterns(shop: McpServer) -> None:
    with pytest.raises(ToolError, match=r"no order aaa$"):
        await use(shop, "find", number="aaa")
    assert await use(shop, "picture") == "look\n(image, image/gif, not shown)"
    parameters = shop.tools()["shop.find"].declaration.parameters
    assert parameters is not None
    assert "pattern" not in parameters["properties"]["number"]
    assert "(matches ^(a+)+$)" in parameters["properties"]["number"]["description"]
    ArgumentCheck(parameters)({"number": "a" * 40 + "!"})  # would take longer than the universe has lasted


@pytest.mark.usefixtures("busy")
async def test_tools_that_come_later_are_found(shop: McpServer) -> None:
    await use(shop, "learn", name="sing")
    await until(lambda: "shop.sing" in shop.tools())
    assert await use(shop, "sing") == "sing"


async def test_a_server_that_crashes_is_missed_and_comes_back(lines: Lines) -> None:
    async with running(settings(command=SHOP)) as server:
        with pytest.raises(ToolError):
            await use(server, "crash")
        await until(lambda: said(lines, "= mcp server is back"))
        assert await use(server, "add", a=1, b=2) == 3
    assert len(said(lines, "! mcp server unavailable, will keep trying")) == 1


async def test_an_http_server_that_is_restarted_is_found_again(lines: Lines) -> None:
    async with shop_over_http() as url, running(settings(url=url, refresh=0.05)) as server:
        with pytest.raises(ToolError):
            await use(server, "crash")
        await until(lambda: server.trouble)
        with pytest.raises(ToolError, match="shop cannot be reached at the moment"):
            await use(server, "add", a=1, b=2)
        async with shop_over_http(int(url.split(":")[2].split("/")[0])):
            await until(lambda: said(lines, "= mcp server is back"))
            assert await use(server, "add", a=1, b=2) == 3
            assert len(said(lines, "! mcp server unavailable, will keep trying")) == 1


async def test_the_environment_is_what_is_listed() -> None:
    configured = settings(command=SHOP, env={"SHOP_KEY": "k"}, pass_env=["SHOP_REGION", "NOT_THERE"])
    async with running(configured) as server:
        seen = await use(server, "environment")
    own = {"LC_CTYPE"}  # set by Python itself (PEP 538)
    assert set(seen) - own == {"PATH", "HOME", "SHOP_KEY", "SHOP_REGION"}
    assert seen["SHOP_KEY"] == "k"


async def test_the_header_is_sent_and_its_absence_reported(lines: Lines) -> None:
    async with shop_over_http(SHOP_TOKEN="t0ken") as url:
        async with running(settings(url=url, header="X-Shop", value="t0ken")) as server:
            assert await use(server, "add", a=1, b=2) == 3
        async with running(settings(url=url, header="X-Shop", value="wr0ng"), ready=False) as server:
            await until(lambda: server.trouble)
            assert server.trouble == "HTTP status 401"
    assert "wr0ng" not in str(lines)
    assert "t0ken" not in str(lines)


async def test_nobody_there_is_said_once(lines: Lines) -> None:
    async with running(settings(url="http://127.0.0.1:9/mcp"), ready=False) as server:
        await until(lambda: len(said(lines, "! mcp server still unavailable")) >= 3)
        assert not await server.wait_ready(0)
        assert server.tools() == {}
    (line,) = said(lines, "! mcp server unavailable, will keep trying")
    assert "ConnectError" in line["reason"]


# -- an older server -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("busy")
async def test_a_server_of_the_older_protocol_is_understood() -> None:
    async with running(settings(command=plain("banner"))) as server:
        assert await use(server, "echo", a=1) == '{"a": 1}'
        await call(server, "grow")
        await until(lambda: "shop.tool1" in server.tools())
    assert server.goes_to.startswith(f"MCP shop: {sys.executable}")


async def test_a_list_in_pages_is_read_whole() -> None:
    async with running(settings(command=plain("pages"))) as server:
        assert list(server.tools()) == ["shop.t0", "shop.t1", "shop.t2"]


async def test_changes_that_nobody_announces_are_seen_in_time() -> None:
    async with running(settings(command=plain(), refresh=0.02)) as server:
        taken = takes(server)
        await until(lambda: len(taken) >= 3)


async def test_a_flood_of_changes_is_looked_at_in_peace() -> None:
    async with running(settings(command=plain())) as server:
        taken = takes(server)
        for _ in range(5):
            await call(server, "flood")
        await until(lambda: taken)
        assert len(taken) <= 2


# -- what is made of a list ------------------------------------------------------------------------------


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the tools converted, each time that one is."""
    names: list[str] = []
    convert = mcp_server._declaration

    def noting(name: str, *rest: Any) -> Any:
        names.append(name)
        return convert(name, *rest)

    monkeypatch.setattr(mcp_server, "_declaration", noting)
    return names


def listing(*names: str, **said: Any) -> list[ListedTool]:
    schema = {"type": "object", "properties": {"a": {"type": "integer", "const": 1}}}
    return [ListedTool.model_validate({"name": name, "inputSchema": schema, **said}) for name in names]


def unconnected(*wanted: str) -> McpServer:
    return McpServer("shop", settings(command=["x"]), {}, wanted or None)


async def test_only_what_is_wanted_is_converted(converted: list[str], lines: Lines) -> None:
    server = unconnected("shop.b", "shop.d", "shop.absent", "other.a")
    await server._take([*listing("a", "b", "c", "d", "a"), *listing("e", inputSchema={"$ref": "#"})])
    assert converted == list(server.tools()) == ["shop.b", "shop.d"]
    assert lines == []  # neither about what is listed twice nor about what is no schema: nobody wants them


async def test_what_has_not_changed_is_not_converted_again(converted: list[str], lines: Lines) -> None:
    server = unconnected()
    bad = listing("bad", inputSchema={"type": "object", "properties": {"a": {"$ref": "#"}}})
    await server._take([*listing("a", "b"), *bad, *bad])
    before = server.tools()
    assert converted == ["shop.a", "shop.b", "shop.bad"]
    await server._take([*bad, *listing("b", "a"), *bad])
    assert len(converted) == 3
    assert all(server.tools()[name] is before[name] for name in ("shop.a", "shop.b"))
    assert [line["tool"] for line in said(lines, "! mcp tool left out")] == ["shop.bad"]


@pytest.mark.parametrize(
    "change",
    [
        {"description": "Another."},
        {"inputSchema": {"type": "object", "properties": {"a": {"type": "integer", "const": True}}}},
    ],
)
async def test_what_has_changed_is_converted_again(converted: list[str], change: dict[str, Any]) -> None:
    server = unconnected()
    await server._take(listing("a", "b"))
    before = server.tools()
    await server._take([*listing("a", **change), *listing("b")])
    assert converted == ["shop.a", "shop.b", "shop.a"]
    assert server.tools()["shop.a"] is not before["shop.a"]
    assert server.tools()["shop.b"] is before["shop.b"]
    await server._take(listing("b"))
    await server._take(listing("a", "b"))
    assert converted[3:] == ["shop.a"]  # what was gone is forgotten


async def test_others_run_between_two_tools_and_see_all_or_nothing(converted: list[str]) -> None:
    server = unconnected()
    taking = asyncio.create_task(server._take(listing(*"abcdefgh")))
    seen = []
    while not taking.done():
        await asyncio.sleep(0)
        seen.append((len(converted), len(server.tools())))
    assert [count for count, _ in dict(seen).items()] == list(range(1, 9))
    assert {known for _, known in seen} == {0, 8}


async def test_a_list_half_taken_changes_nothing(converted: list[str]) -> None:
    server = unconnected()
    await server._take(listing("a"))
    taking = asyncio.create_task(server._take(listing("b", "c")))
    await asyncio.sleep(0)  # it has converted the first of both, and lets others run
    assert converted == ["shop.a", "shop.b"]
    taking.cancel()
    await asyncio.wait([taking])
    assert taking.cancelled()
    assert list(server.tools()) == ["shop.a"]


# -- bad servers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("exit", "it closed its output: no licence found"),
        ("garbage", "what it writes is not MCP"),
        ("endless-line", "it sent more than 1048576 bytes at once"),
        ("hang", "it did not answer in time"),
        ("deaf", "it did not answer in time|it closed its input"),
        ("no-list", "ValidationError"),
    ],
)
async def test_a_bad_server_is_reported_and_harms_nobody(
    how: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_stdio, "GRACE", 0.1)  # none of them ends when asked
    impatient = 0.5 if reason.startswith("it did") else PATIENCE
    async with running(settings(command=plain(how), connect_timeout=impatient), ready=False) as server:
        await until(lambda: server.trouble)
        assert server.trouble is not None
        assert any(server.trouble.startswith(words) for words in reason.split("|")), server.trouble
        assert server.tools() == {}


async def test_a_program_that_is_not_there_is_reported() -> None:
    async with running(settings(command=["no-such-program"]), ready=False) as server:
        await until(lambda: server.trouble)
        assert "no-such-program" in str(server.trouble)


@pytest.mark.parametrize(("how", "count"), [("endless", 64), ("empty-pages", 0)])
async def test_a_list_without_end_is_ended(how: str, count: int) -> None:
    async with running(settings(command=plain(how))) as server:
        assert len(server.tools()) == count


async def test_tools_that_no_model_can_be_told_of_are_left_out_once(lines: Lines) -> None:
    async with running(settings(command=plain("odd-tools"), refresh=0.02)) as server:
        assert list(server.tools()) == ["shop.good", "shop.wordy"]
        assert server.tools()["shop.good"].declaration.description == "It is good"
        assert len(server.tools()["shop.wordy"].declaration.description) == 4096
        taken = takes(server)
        await until(lambda: len(taken) >= 2)
    reasons = {line["tool"]: line["reason"] for line in said(lines, "! mcp tool left out")}
    assert len(said(lines, "! mcp tool left out")) == len(reasons) == 6
    assert reasons["shop.good"] == "it is listed twice"
    assert reasons["shop.a/b"] == "no model could call it by this name"
    assert "contains itself" in reasons["shop.loop"]
    assert "stay in its schema" in reasons["shop.remote"]
    assert "prefixItems" in reasons["shop.tuple"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("die", "die failed: Connection closed"),
        ("long", "long failed: Connection closed"),
        ("nonsense", "answered against its own protocol"),
        ("mute", "^mute failed$"),
    ],
)
async def test_bad_answers_become_words(name: str, words: str) -> None:
    async with running(settings(command=plain())) as server:
        with pytest.raises(ToolError, match=words):
            await call(server, name)
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    assert await use(server, "echo", a=1) == '{"a": 1}'
                    break
                except ToolError:
                    await asyncio.sleep(0.005)


async def test_a_call_under_way_when_the_service_stops_ends() -> None:
    async with running(settings(command=SHOP)) as server:
        waiting = asyncio.create_task(use(server, "wait"))
        await use(server, "until", what="waiting")
    with pytest.raises(ToolError):
        await waiting


async def test_nobody_waits_for_a_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_stdio, "GRACE", 0.1)
    async with running(settings(command=plain())) as server:
        big = {"a": "x" * 1_000_000}  # more than a pipe holds: it is stuck in the middle of the question
        calls = [asyncio.create_task(server.call("stall", big)) for _ in range(3)]
        done, _ = await asyncio.wait(calls, timeout=0.1)
        assert not done
        for one in calls:
            one.cancel()
        await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 1.0)
        assert all(one.cancelled() for one in calls)


async def test_cancelling_while_it_connects_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_stdio, "GRACE", 0.1)
    server = McpServer("shop", settings(command=plain("hang")), SECRETS)
    others = set(psutil.Process().children())
    task = asyncio.create_task(server.run())
    await until(lambda: set(psutil.Process().children()) - others)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# -- what the operator may get wrong ---------------------------------------------------------------------


def test_without_the_sdk_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_server, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"tools\.mcp\.shop: .* pip install 'ari-gemini\[mcp\]'"):
        McpServer("shop", settings(command=["x"]), {})


@pytest.mark.parametrize("name", ["", "5shop", "a b", "a/b", "a.b", "x" * 33])
def test_a_name_that_cannot_begin_a_tools_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="must be a letter or _"):
        McpServer(name, settings(command=["x"]), {})
