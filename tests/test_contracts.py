"""The import contracts of pyproject.toml hold on a model of the tree, and each one names its trespass.

Whether they hold on the tree itself is for ``make lint`` to say; here it is shown that they are able to fail.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

MODEL = {
    "errors": "",
    "origin": "import ipaddress",
    "transport": "import websockets",
    "discreet": "import aiohttp",
    "audio.pcm": "from ari_gemini import errors\nimport numpy",
    "telemetry.timeline": "import dataclasses",
    "telemetry.logs": "import time",
    "realtime.events": "import dataclasses",
    "realtime.functions": "import dataclasses",
    "realtime.unconfirmed": "import collections",
    "realtime.session": "from ari_gemini.realtime import events\nfrom ari_gemini.audio import pcm",
    "ari.events": "from ari_gemini import errors",
    "ari.operations": "from ari_gemini import errors",
    "ari.client": "import asyncio\nfrom ari_gemini.ari import events",
    "audiosocket.protocol": "from ari_gemini.audio import pcm",
    "audiosocket.held": "import collections",
    "audiosocket.server": "import asyncio\nfrom ari_gemini.audiosocket import protocol",
    "gemini.protocol": "from ari_gemini.realtime import events\nimport pydantic",
    **{
        f"gemini.{name}": "from ari_gemini import errors"
        for name in (
            *("models", "functions", "setup_message", "decoder", "values", "closes", "trail"),
            *("token_lock", "rate"),
        )
    },
    "gemini.session": "import websockets\nfrom ari_gemini.gemini import protocol",
    "openai.protocol": "from ari_gemini.realtime import events",
    "tools.base": "from ari_gemini.realtime import events",
    **{
        f"tools.{name}": "from ari_gemini import errors"
        for name in ("destination", "schema", "address", "url", "url_template", "http_answer", "result")
    },
    "tools.http_client": "import aiohttp\nfrom ari_gemini.tools import url",
    "state.record": "from ari_gemini.realtime import session\nimport pydantic",
    "state.store": "import asyncio\nfrom ari_gemini.state import record",
    "call.agent": "from ari_gemini.realtime import session\nfrom ari_gemini.tools import destination",
    "call.digits": "import dataclasses",
    "call.caller_watch": "import dataclasses",
    "call.model_watch": "import dataclasses",
    "call.transcript": "from ari_gemini.realtime import session",
    "call.filler": "from ari_gemini.audio import pcm",
    "call.turn": "from ari_gemini.realtime import events",
    "call.call": "import asyncio\nfrom ari_gemini.call import turn\nfrom ari_gemini.ari import client",
    "web.server": "from ari_gemini.call import call",
    "simulator.gemini_live": "import websockets\nfrom ari_gemini.audio import pcm",
    "config": "from ari_gemini.gemini import session\nfrom ari_gemini.simulator import gemini_live",
    "app": "from ari_gemini import config\nfrom ari_gemini.call import call",
    "demo": "from ari_gemini import app\nfrom ari_gemini.simulator import gemini_live",
    "check": "from ari_gemini import config\nfrom ari_gemini.gemini import session",
    "cli": "from ari_gemini import app, check, demo",
    "__main__": "from ari_gemini import cli",
}

FLOORS = "imports only go down"
PURE = "pure rooms reach no loop, no socket, no clock"
VENDORS = "call and tools name no vendor"
WITNESS = "the simulated Gemini is an independent witness"
CIRCLES = "no circles inside a room"

TRESPASSES = {
    "upwards": ("audio.pcm", "from ari_gemini import config", {FLOORS, CIRCLES}),
    "neighbours": ("audiosocket.server", "from ari_gemini.ari import client", {FLOORS}),
    "a room without a floor": ("cellar.wine", "", {FLOORS}),
    "a clock in a pure module": ("audio.pcm", "import time", {PURE}),
    "a loop behind a helper": (
        "audiosocket.protocol",
        "from ari_gemini.audiosocket import server",
        {PURE, CIRCLES},
    ),
    "a clock through another room": ("gemini.protocol", "from ari_gemini.telemetry import logs", {PURE}),
    "the call names Gemini": ("call.call", "from ari_gemini.gemini import session", {VENDORS}),
    "the call names OpenAI": ("call.call", "from ari_gemini.openai import protocol", {VENDORS}),
    "a tool names a vendor": ("tools.base", "from ari_gemini.gemini import protocol", {FLOORS, VENDORS}),
    "a witness who was told": ("simulator.gemini_live", "from ari_gemini.gemini import protocol", {WITNESS}),
    "a circle": ("realtime.events", "from ari_gemini.realtime import session", {CIRCLES}),
}


def build(at: Path, modules: dict[str, str]) -> None:
    for name, source in modules.items():
        path = at.joinpath("ari_gemini", *name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source + "\n")
        for package in path.relative_to(at).parents[:-1]:
            (at / package / "__init__.py").touch()


def broken_contracts(at: Path) -> set[str]:
    """Names of the contracts that ``lint-imports`` calls broken for the tree under ``at``."""
    lint = "from importlinter.cli import lint_imports_command as run; run()"
    done = subprocess.run(
        [sys.executable, "-c", lint, "--config", str(ROOT / "pyproject.toml"), "--no-cache"],
        cwd=at,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    broken = set(re.findall(r"^(.+?) BROKEN", done.stdout, re.MULTILINE))
    assert "Contracts:" in done.stdout, done.stdout + done.stderr
    assert bool(broken) == bool(done.returncode)
    return broken


def test_the_model_of_the_whole_house_holds(tmp_path: Path) -> None:
    build(tmp_path, MODEL)
    assert broken_contracts(tmp_path) == set()


def test_rooms_to_come_may_be_missing(tmp_path: Path) -> None:
    build(tmp_path, {name: source for name, source in MODEL.items() if not re.match("openai|web", name)})
    assert broken_contracts(tmp_path) == set()


@pytest.mark.parametrize("trespass", TRESPASSES)
def test_a_trespass_is_named(tmp_path: Path, trespass: str) -> None:
    module, line, broken = TRESPASSES[trespass]
    build(tmp_path, {**MODEL, module: MODEL.get(module, "") + "\n" + line})
    assert broken <= broken_contracts(tmp_path)


def test_every_contract_has_a_trespass() -> None:
    shown = set().union(*(broken for _, _, broken in TRESPASSES.values()))
    assert shown == {FLOORS, PURE, VENDORS, WITNESS, CIRCLES}


VENDOR = re.compile(r"(?<!ari[_-])(?<!Ari)(gemini|openai)", re.IGNORECASE)


def words(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every name and every string of a module, docstrings aside, with its line."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value
        for field in ("id", "attr", "name", "arg"):
            if isinstance(word := getattr(node, field, None), str):
                yield getattr(node, "lineno", 0), word


def vendors_named(source: str) -> list[tuple[int, str]]:
    return [(line, word) for line, word in words(ast.parse(source)) if VENDOR.search(word)]


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("import ari_gemini.call", 0),
        ("'''Gemini in a docstring.'''", 0),
        ("LIMIT = 1\n'''What Gemini allows.'''", 0),
        ("variable = 'ARI_GEMINI_AGENT'; app = 'ari-gemini'", 0),
        ("x = settings.gemini", 1),
        ("def f(openai_key): return 'Gemini'", 2),
        ("class GeminiCall: ...", 1),
    ],
)
def test_vendor_words_are_found(source: str, named: int) -> None:
    assert len(vendors_named(source)) == named


def test_call_and_tools_speak_of_no_vendor() -> None:
    files = [path for room in ("call", "tools") for path in (ROOT / "ari_gemini" / room).rglob("*.py")]
    assert files
    named = {str(path.relative_to(ROOT)): vendors_named(path.read_text()) for path in files}
    assert {path: words for path, words in named.items() if words} == {}
