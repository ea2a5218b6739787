"""The page on tools is true: its configuration loads, and the example of each kind works."""

from __future__ import annotations

import asyncio
import re
import sys
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import structlog
from pydantic import BaseModel

from ari_gemini.call.digits import DigitSettings
from ari_gemini.config import Config, load_config
from ari_gemini.tools.base import Tool, ToolContext
from ari_gemini.tools.destination import Destination
from ari_gemini.tools.settings import ToolsSettings

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "ari_gemini" / "tools" / "README.md").read_text()
SERVER = ROOT / "tests" / "tools" / "mcp_servers" / "shop.py"
ENVIRON = {
    "GEMINI_API_KEY": "key",
    "ARI_PASSWORD": "password",
    "ORDERS_AUTHORIZATION": "Bearer of-the-orders",
}

TOML = "\n".join(re.findall(r"^<!-- test: tools -->\n```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of the page, installed."""
    site = tmp_path / "site"
    (site / "my_shop").mkdir(parents=True)
    (site / "my_shop" / "__init__.py").touch()
    (site / "my_shop" / "phone.py").write_text(block("python"))
    points = tomllib.loads(block("ini"))["project"]["entry-points"]["ari_gemini.tools"]
    info = site / "my_shop-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-shop\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[ari_gemini.tools]", *lines, ""]))
    monkeypatch.syspath_prepend(str(site))
    for name in [name for name in sys.modules if name.split(".")[0] == "my_shop"]:
        monkeypatch.delitem(sys.modules, name)
    assert [point.name for point in metadata.entry_points(group="ari_gemini.tools", name="opening_hours")]


def load(tmp_path: Path, text: str) -> Config:
    """The page's configuration; the secret that it has in a file lies in one of this test's."""
    (tmp_path / "crm").write_text("Bearer of-the-crm")
    file = tmp_path / "ari-gemini.toml"
    file.write_text(text.replace("/run/secrets/crm", str(tmp_path / "crm")))
    return load_config(file, ENVIRON)


class Call:
    """As much of a call as these tools ask for."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def farewell(self) -> None:
        self.done.append("farewell")

    def hang_up(self) -> None:
        self.done.append("hang_up")

    async def send_digits(self, digits: str) -> None:
        self.done.append(f"send_digits {digits}")

    async def transfer(self, destination: Destination) -> None:
        self.done.append(f"transfer {destination}")

    async def consult(self, destination: Destination) -> None:
        self.done.append(f"consult {destination}")


async def use(tool: Tool, args: Mapping[str, Any], call: Call | None = None) -> Any:
    context = ToolContext(call or Call(), structlog.get_logger())  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        return await tool.run(args, context)


@asynccontextmanager
async def http_server(body: bytes) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that answers everything with ``body``; its address, and the requests it got."""
    requests: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", requests


@pytest.mark.usefixtures("shop")
def test_the_whole_configuration_loads(tmp_path: Path) -> None:
    config = load(tmp_path, TOML)
    agent = config.agents["default"]
    names = [tool.name for tool in config.catalogue({}).fixed(agent.tools, agent.transfer)]
    assert names == [name for name in agent.tools if "." not in name]
    assert agent.digits.sensitive
    assert list(config.tools.mcp) == ["stock", "crm"]


@pytest.mark.usefixtures("shop")
def test_what_check_prints(tmp_path: Path) -> None:
    agent = load(tmp_path, TOML).agents["default"]
    tools = {
        tool.name: tool for tool in load(tmp_path, TOML).catalogue({}).fixed(agent.tools, agent.transfer)
    }
    shown = re.findall(r"^ok    agent 'default' may use (\w+): (.*)$", PAGE, re.MULTILINE)
    assert len(shown) == 3
    assert {name: tools[name].goes_to for name, _ in shown} == dict(shown)


@pytest.mark.usefixtures("shop")
async def test_every_example_works(tmp_path: Path) -> None:
    async with http_server(b'{"status": {"text": "on its way"}}') as (address, requests):
        text = TOML.replace("https://api.example.com", address)
        text = text.replace('["stock-server", "--read-only"]', f'["{sys.executable}", "{SERVER}"]')
        text = text.replace('"stock.find"', '"stock.add"')  # the tests' own server counts
        config = load(tmp_path, text)
        catalogue = config.catalogue({})
        running = asyncio.create_task(catalogue.run())
        assert await catalogue.servers["stock"].wait_ready(30)
        agent = config.agents["default"]
        tools = {tool.name: tool for tool in catalogue.pick(agent.tools, agent.transfer)}
        call = Call()

        assert await use(tools["order_status"], {"order": "4711"}) == {"status": 200, "body": "on its way"}
        uri = f"{address}/stock/7?exact=yes"
        answer = await use(tools["api_call"], {"method": "GET", "uri": uri})
        assert answer["body"] == {"status": {"text": "on its way"}}
        assert await use(tools["opening_hours"], {"day": "2026-11-25"}) == "from nine to six"
        assert "5" in str(await use(tools["stock.add"], {"a": 2, "b": 3}))
        await use(tools["hangup_call"], {}, call)
        await use(tools["send_dtmf"], {"digits": "12w#"}, call)
        await use(tools["transfer_call"], {"destination": "sales"}, call)
        await use(tools["transfer_call"], {"destination": "boss", "summary": "Ada calls."}, call)
        running.cancel()
        await asyncio.wait([running])

    assert [request.split(" HTTP/")[0] for request in requests] == [
        "GET /orders/4711",
        "GET /stock/7?exact=yes",
    ]
    assert all("authorization: bearer of-the-orders" in request.lower() for request in requests)
    assert call.done == [
        "farewell",
        "hang_up",
        "send_digits 12w#",
        "transfer from-internal,200,1",
        "consult Local/201@from-internal/n, attended",
    ]


# The tables.


def keys(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Every key of the settings as the page writes it: tables by a name of one's own as NAME."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        annotation: Any = field.annotation
        if get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
            inner = f"{prefix}{name}.NAME."
        else:
            inner = f"{prefix}{name}."
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found |= keys(annotation, inner)
        else:
            found.add(prefix + name)
    return found


def test_every_key_is_in_the_table_and_no_other() -> None:
    written: set[str] = set()
    for line in PAGE.split("## All keys")[1].splitlines():
        if line.startswith("| `"):
            names = re.findall(r"`([^`]+)`", line.split("|")[1])
            parent = names[0].rpartition(".")[0]
            written |= {parent + name if name.startswith(".") else name for name in names}
    read_by_config = {"credentials.NAME.value_env", "credentials.NAME.value_file"}
    assert written == keys(ToolsSettings) | read_by_config


def test_every_key_of_a_destination_and_of_the_keypad_is_named() -> None:
    assert [name for name in Destination.model_fields if f"`{name}`" not in PAGE] == []
    digits = tomllib.loads(TOML)["agents"]["default"]["digits"]
    assert set(digits) == set(DigitSettings.model_fields)
