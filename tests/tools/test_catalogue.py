"""Every tool by its name: found, refused, and only what is wanted is loaded or started."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ari_gemini.errors import ConfigError
from ari_gemini.tools import catalogue as module
from ari_gemini.tools.catalogue import OWN, Catalogue
from ari_gemini.tools.destination import Destination
from ari_gemini.tools.settings import ToolsSettings

PLUGIN = Path(__file__).parent / "plugin"
SERVER = Path(__file__).parent / "mcp_servers" / "shop.py"
NAMED = {"description": "Looks up an order.", "url": "https://api.example.com/orders/"}
SALES = {"sales": Destination(context="internal", extension="200")}


def settings(**given: Any) -> ToolsSettings:
    return ToolsSettings(**{"named": {"order_status": NAMED}, **given})


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, EntryPoint]:
    """The entry points that the tests say there are."""
    points: dict[str, EntryPoint] = {}
    monkeypatch.setattr(module, "find_python_tools", lambda: points)
    return points


def offer(
    installed: dict[str, EntryPoint], name: str, value: str = "phone_plugin.shop:opening_hours"
) -> None:
    installed[name] = EntryPoint(name, value, "ari_gemini.tools")


def test_each_kind_is_found_by_its_name(
    installed: dict[str, EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(PLUGIN))
    offer(installed, "opening_hours")
    wanted = ["hangup_call", "send_dtmf", "api_call", "transfer_call", "order_status", "opening_hours"]
    allowed = settings(api_call={"allow": ["https://api.example.com/"]})
    tools = Catalogue(allowed, wanted).pick(wanted, SALES)
    assert [tool.name for tool in tools] == wanted
    assert [tool.goes_to for tool in tools] == [
        "Asterisk: hangs up on the caller",
        "Asterisk: keys to the caller's phone (RFC 4733), or tones in the audio",
        "GET, POST https://api.example.com/",
        "sales = internal,200,1",
        "GET https://api.example.com/orders/",
        "Python ?: phone_plugin.shop:opening_hours",
    ]


def test_an_agent_gets_what_it_may_use_and_nothing_else() -> None:
    catalogue = Catalogue(settings(), ["hangup_call", "order_status"])
    assert [tool.name for tool in catalogue.pick(["hangup_call"], {})] == ["hangup_call"]
    assert catalogue.pick([], {}) == []


@pytest.mark.parametrize("name", ["nonsense", "shop.find", "order_status.x", "", "HANGUP_CALL"])
def test_a_name_that_nothing_stands_for(name: str, installed: Mapping[str, EntryPoint]) -> None:
    with pytest.raises(ConfigError) as wrong:
        Catalogue(settings(), [name])
    assert str(wrong.value) == f"there is no tool {name!r}; there are: {', '.join([*OWN, 'order_status'])}"


def test_api_call_that_may_go_nowhere() -> None:
    with pytest.raises(ConfigError, match="allow"):
        Catalogue(settings(), ["api_call"])


def test_two_tools_of_one_name(installed: dict[str, EntryPoint]) -> None:
    with pytest.raises(ConfigError, match=r"tools\.named\.hangup_call: another tool has this name"):
        Catalogue(settings(named={"hangup_call": NAMED}), [])
    offer(installed, "order_status")
    with pytest.raises(ConfigError, match=r"tools\.named\.order_status: another tool has this name"):
        Catalogue(settings(), [])
    installed.clear()
    offer(installed, "send_dtmf")
    with pytest.raises(ConfigError, match=r"entry point send_dtmf .*: another tool has this name"):
        Catalogue(settings(), [])
    installed.clear()
    offer(installed, "shop.find")
    with pytest.raises(ConfigError, match=r"entry point shop\.find .*: another tool has this name"):
        Catalogue(settings(mcp={"shop": {"command": ["server"]}}), [])


def test_only_what_is_wanted_is_imported(installed: dict[str, EntryPoint]) -> None:
    offer(installed, "broken", "no_such_module:function")
    Catalogue(settings(), ["hangup_call"])
    with pytest.raises(ConfigError, match="broken"):
        Catalogue(settings(), ["broken"])


def test_only_servers_that_are_wanted_are_started() -> None:
    both = settings(mcp={"shop": {"command": ["a"]}, "other": {"command": ["b"]}})
    assert list(Catalogue(both, ["shop.find", "shop.order"]).servers) == ["shop"]


def test_a_tool_whose_server_is_down_is_left_out_and_logged() -> None:
    catalogue = Catalogue(settings(mcp={"shop": {"command": ["a"]}}), ["shop.find", "hangup_call"])
    with capture_logs() as logs:
        picked = catalogue.pick(["shop.find", "hangup_call"], {})
    assert [tool.name for tool in picked] == ["hangup_call"]
    assert [(line["event"], line["tool"]) for line in logs] == [("tool.missing", "shop.find")]
    assert [tool.name for tool in catalogue.fixed(["shop.find", "hangup_call"], {})] == ["hangup_call"]


async def test_run_keeps_the_servers_up_until_it_is_cancelled() -> None:
    mcp = {"shop": {"command": [sys.executable, str(SERVER)]}}
    catalogue = Catalogue(settings(mcp=mcp), ["shop.find"], {})
    running = asyncio.create_task(catalogue.run())
    assert await catalogue.servers["shop"].wait_ready(30)
    offered = list(catalogue.servers["shop"].tools())
    assert offered == ["shop.find"]  # of all that it lists
    assert [tool.name for tool in catalogue.pick(offered, {})] == offered
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


async def test_without_servers_there_is_nothing_to_run() -> None:
    await Catalogue(settings(), ["hangup_call"]).run()
