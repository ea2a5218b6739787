"""An installed package's functions as tools: found without import, declared, checked, run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable, Mapping
from datetime import date
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import pytest
import structlog
from pydantic import BaseModel, Field

from ari_gemini.errors import ConfigError, ToolError
from ari_gemini.gemini.functions import to_gemini_schema
from ari_gemini.tools.base import ToolContext
from ari_gemini.tools.python_tool import PythonTool, find_python_tools, load_python_tool, tool
from ari_gemini.tools.schema import ArgumentCheck

PLUGIN = Path(__file__).parent / "plugin"
PATIENCE = 20.0


class Call:
    """As much of a call as the plugin asks for."""

    id = "c1"
    caller_number = "0731"
    called_number = ""


def context() -> ToolContext:
    return ToolContext(Call(), structlog.get_logger())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the plugin is installed: its wheel, built by its own backend and unpacked."""
    wheels = tmp_path_factory.mktemp("wheels")
    build = f"import hatchling.build as b; print(b.build_wheel({str(wheels)!r}))"
    subprocess.run([sys.executable, "-c", build], cwd=PLUGIN, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, EntryPoint]:
    monkeypatch.syspath_prepend(str(site))
    for name in [name for name in sys.modules if name.startswith("phone_plugin")]:
        monkeypatch.delitem(sys.modules, name)
    return find_python_tools()


# -- an installed package --------------------------------------------------------------------------------


def test_tools_are_found_by_name_and_nothing_is_imported(installed: Mapping[str, EntryPoint]) -> None:
    assert {"opening_hours", "order", "wait", "broken"} <= set(installed)
    assert [name for name in sys.modules if name.startswith("phone_plugin")] == []


def test_a_signature_becomes_a_declaration(installed: Mapping[str, EntryPoint]) -> None:
    order = load_python_tool(installed["order"])
    assert order.name == "order"
    assert order.goes_to == "Python phone-plugin: phone_plugin.shop:order"
    assert (order.time_limit, order.undoable) == (5, False)
    assert order.declaration.description == "Order articles.\n\nAsk for each article and how many."
    parameters = order.declaration.parameters
    assert parameters is not None
    assert list(parameters["properties"]) == ["lines", "size", "speed", "note"]
    assert parameters["required"] == ["lines"]
    assert parameters["additionalProperties"] is False
    assert parameters["properties"]["lines"]["items"]["properties"]["count"]["maximum"] == 9
    said = to_gemini_schema(parameters, "order")
    assert said["properties"]["size"]["enum"] == ["small", "large"]
    assert said["properties"]["speed"]["enum"] == ["slow", "fast"]
    assert said["properties"]["note"]["nullable"] is True
    assert said["properties"]["note"]["description"] == "for the packer"


async def test_a_function_gets_what_its_annotations_say(installed: Mapping[str, EntryPoint]) -> None:
    order = load_python_tool(installed["order"])
    args = {"lines": [{"article": "nut", "count": 2.0}], "size": "large"}
    ArgumentCheck(order.declaration.parameters)(args)
    assert await order.run(args, context()) == {
        "lines": [{"article": "nut", "count": 2}],
        "size": "large",
        "speed": "slow",
        "note": None,
        "caller": "0731",
    }


async def test_a_dataclass_is_json_and_a_tool_error_goes_through(installed: Mapping[str, EntryPoint]) -> None:
    hours = load_python_tool(installed["opening_hours"])
    assert (hours.time_limit, hours.undoable) == (None, True)
    result = await hours.run({"day": "2026-02-02"}, context())
    assert result == {"day": "2026-02-02", "opens": "09:00", "closes": "18:00"}
    with pytest.raises(ToolError, match="closed on Sundays"):
        await hours.run({"day": "2026-02-01"}, context())


async def test_cancelling_cancels_the_function(installed: Mapping[str, EntryPoint]) -> None:
    wait = load_python_tool(installed["wait"])
    assert wait.declaration.parameters is None
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wait.run({}, context()), 0.01)


def test_a_module_that_fails_is_named_with_its_reason(installed: Mapping[str, EntryPoint]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_python_tool(installed["broken"])
    assert str(caught.value) == (
        "tool broken (phone_plugin.broken:never): cannot be imported: RuntimeError: no licence found"
    )


def test_another_process_finds_and_runs_it(site: Path) -> None:
    program = """
        import asyncio, sys
        from ari_gemini.tools.python_tool import find_python_tools, load_python_tool
        found = find_python_tools()
        assert "phone_plugin" not in sys.modules
        hours = load_python_tool(found["opening_hours"])
        print(asyncio.run(hours.run({"day": "2026-02-02"}, None))["opens"])
    """
    root = Path(__file__).resolve().parents[2]
    environment = {"PYTHONPATH": f"{root}:{site}"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout == "09:00\n"
    assert done.stderr == ""


def test_two_packages_with_one_name_are_refused(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "rival-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[ari_gemini.tools]\norder = rival:order\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        ConfigError, match="two packages offer the tool order: rival: rival:order and phone-plugin"
    ):
        find_python_tools()


# -- one function ------------------------------------------------------------------------------------------


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PythonTool]:
    """Load a function as if it were a package's."""

    def load(function: object, name: str = "f") -> PythonTool:
        module = ModuleType("offered")
        module.f = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "offered", module)
        return load_python_tool(EntryPoint(name, "offered:f", "ari_gemini.tools"))

    return load


def synchronous(a: int) -> int:
    """Not async."""
    return a


async def no_docstring(a: int) -> int:
    return a


async def long_docstring() -> None: ...


long_docstring.__doc__ = "x" * 5000


async def star(*args: int) -> None:
    """Positional."""


async def double_star(**more: int) -> None:
    """Keywords."""


async def positional(a: int, /) -> None:
    """Positional only."""


async def untyped(a) -> None:  # type: ignore[no-untyped-def]
    """No annotation."""


async def hidden(_a: int) -> None:
    """Underscore."""


async def unknown_name(a: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
    """An annotation that is not there."""


async def strange_type(a: ModuleType) -> None:
    """A type without a schema."""


async def no_json_schema(a: Callable[[int], int]) -> None:
    """A type that JSON does not have."""


async def pair(a: tuple[int, str]) -> None:
    """A type that no declaration can say."""


async def two_contexts(a: ToolContext, b: ToolContext) -> None:
    """Too much of it."""


class Tree(BaseModel):
    branches: list[Tree] = []


async def recursive(tree: Tree) -> None:
    """A type that contains itself."""


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (synchronous, "not an async function"),
        (no_docstring, "no docstring"),
        (long_docstring, "more than 4096 characters"),
        (star, "parameter args takes any number"),
        (double_star, "parameter more takes any number"),
        (positional, "parameter a is positional-only"),
        (untyped, "parameter a has no annotation"),
        (hidden, "parameter _a begins with _"),
        (unknown_name, "annotations cannot be read: name 'Nowhere' is not defined"),
        (strange_type, "a type that pydantic does not know"),
        (no_json_schema, "no JSON Schema"),
        (pair, "properties.a|a: prefixItems cannot be said"),
        (two_contexts, "parameter b is a second ToolContext"),
        (recursive, "contains itself"),
        (5, "not an async function"),
    ],
)
def test_what_cannot_be_a_tool_is_refused(
    offered: Callable[..., PythonTool], function: object, reason: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^tool f \(offered:f\): .*({reason})") as caught:
        offered(function)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "5x", "a b", "a/b", "x" * 129])
def test_names_that_no_model_can_call_are_refused(offered: Callable[..., PythonTool], name: str) -> None:
    with pytest.raises(ConfigError, match="the name must be"):
        offered(no_docstring, name)


async def test_wrong_arguments_are_named_and_not_repeated(offered: Callable[..., PythonTool]) -> None:
    async def f(day: date, count: Annotated[int, Field(le=9)] = 1) -> str:
        """Say it."""
        return f"{day} {count}"

    loaded = offered(f)
    assert await loaded.run({"day": "2026-02-01"}, context()) == "2026-02-01 1"
    with pytest.raises(ToolError) as caught:
        await loaded.run({"day": "4242-tomorrow", "count": 4242, "x": 4242}, context())
    text = str(caught.value)
    assert text.startswith("wrong arguments: day: ")
    assert "; count: Input should be less than or equal to 9; x: " in text
    assert "4242" not in text


async def test_parameters_may_have_any_name(offered: Callable[..., PythonTool]) -> None:
    async def f(copy: str, json: int, model_id: str = "m", self: str = "s") -> list[Any]:
        """Names that pydantic uses itself."""
        return [copy, json, model_id, self]

    assert await offered(f).run({"copy": "c", "json": 1}, context()) == ["c", 1, "m", "s"]


async def test_a_default_that_json_cannot_hold_stays_the_default(offered: Callable[..., PythonTool]) -> None:
    marker = ModuleType("m")

    async def f(limit: float = marker) -> bool:  # type: ignore[assignment]
        """Take a default."""
        return limit is marker

    assert await offered(f).run({}, context()) is True


@pytest.mark.parametrize("result", [object(), b"\xff", ModuleType("m")])
async def test_a_result_that_is_not_json_is_a_defect(
    offered: Callable[..., PythonTool], result: object
) -> None:
    async def f() -> object:
        """Return it."""
        return result

    with pytest.raises(TypeError, match=f"^f returned a {type(result).__name__}, which is not JSON"):
        await offered(f).run({}, context())


@pytest.mark.parametrize("limit", [0, -1, 601, float("nan")])
def test_time_limits_have_limits(limit: float) -> None:
    with pytest.raises(ValueError, match="time_limit"):
        tool(time_limit=limit)
