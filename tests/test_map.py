"""One finds one's way: module-to-test map, sizes, reasons given, and what must not stand in any file."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ari_gemini"

WITHOUT_TEST = {
    "__main__.py": "two lines that call cli.main",
    "realtime/events.py": "frozen dataclasses without a method",
    "realtime/functions.py": "frozen dataclasses without a method",
}
"""Modules that need no test file of their own, with the reason. ``__init__.py`` holds no logic anywhere."""

WITHOUT_MODULE = {
    "test_map.py": "the whole tree",
    "test_contracts.py": "pyproject.toml",
    "test_conftest.py": "tests/conftest.py",
    "test_packaging.py": "the wheel and the lock files",
    "test_readme.py": "the READMEs",
    "test_readme_tools.py": "the page on tools",
    "test_app_setup.py": "app.py: a caller who hangs up during the set-up",
    "test_app_faults.py": "app.py: Gemini and Asterisk fail",
    "test_app_media.py": "app.py: strange media peers",
    "test_app_tools.py": "app.py: tools in a conversation",
    "test_app_tokens.py": "app.py: ephemeral tokens and their broker",
    "test_app_process.py": "app.py: the service as a process",
    "test_app_drain.py": "app.py: how it stops, and whether it is ready",
    "test_app_crowd.py": "app.py: more callers, and more strangers, than there is room for",
    "test_app_outage.py": "app.py: the connection to Asterisk fails and calls go on",
    "test_app_outbound.py": "app.py: Asterisk connects to the service",
    "call/test_call_tools.py": "call/call.py: keys and tools",
    "call/test_line_losses.py": "call/line.py: losses in a row, and what is left of a lost session",
    "call/test_uplink_takeover.py": "call/uplink.py: sessions that follow one another",
    "gemini/test_session_resume.py": "gemini/session.py: what a session leaves to the next one",
    "e2e": "the service on a real Asterisk",
    "bench": "the benchmarks",
    "support": "what tests share",
    "deploy": "the files of deploy/ and asterisk/",
    "tools/test_toolbox_sessions.py": "tools/toolbox.py: sessions that are lost",
    "tools/test_toolbox_stubborn.py": "tools/toolbox.py: a tool that will not be cancelled",
}
"""Test files, or directories of them, that belong to no module, with what they test instead."""

LONGEST_FILE = {"ari_gemini": 500, "deploy": 500, "tests": 700}
"""Lines. A test file follows its one module and cannot be split by subject, so it may be longer."""
LONG_FUNCTION = 40
"""Lines that nine functions of ten stay within, docstring aside."""


def tracked() -> list[Path]:
    """Every file of the repository: what git knows or would take, else what lies around."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0 and listed.stdout:
        files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        hidden = re.compile(r"/(\.(?!ci/)|__pycache__|build/|dist/)")
        files = [
            path for path in ROOT.rglob("*") if not hidden.search(f"/{path.relative_to(ROOT).as_posix()}")
        ]
    return [path for path in files if path.is_file()]


def modules() -> Iterator[Path]:
    return (path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def test_every_module_has_its_test() -> None:
    missing = [
        f"ari_gemini/{path} wants tests/{path.parent / f'test_{path.name}'}"
        for path in (module.relative_to(PACKAGE) for module in modules())
        if path.as_posix() not in WITHOUT_TEST
        if not (ROOT / "tests" / path.parent / f"test_{path.name}").exists()
    ]
    assert missing == []


def test_every_test_has_its_module() -> None:
    orphans = [
        f"tests/{path} tests no ari_gemini/{path.parent / path.name.removeprefix('test_')}"
        for path in (test.relative_to(ROOT / "tests") for test in (ROOT / "tests").rglob("test_*.py"))
        if path.as_posix() not in WITHOUT_MODULE and path.parts[0] not in WITHOUT_MODULE
        if not (PACKAGE / path.parent / path.name.removeprefix("test_")).exists()
    ]
    assert orphans == []


def test_exceptions_from_the_map_are_still_needed() -> None:
    assert [name for name in WITHOUT_TEST if not (PACKAGE / name).exists()] == []
    assert [name for name in WITHOUT_MODULE if not (ROOT / "tests" / name).exists()] == []


def test_no_file_is_too_long() -> None:
    too_long = {
        path.relative_to(ROOT).as_posix(): lines
        for top, longest in LONGEST_FILE.items()
        for path in (ROOT / top).rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > longest
    }
    assert too_long == {}


def function_lengths(source: str) -> list[int]:
    """Lines of each function, without its docstring."""
    lengths = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = ast.get_docstring(node, clean=False) is not None and len(node.body) > 1
            first = node.body[1].lineno if documented else node.lineno
            lengths.append((node.end_lineno or first) - first + 1)
    return lengths


def test_function_lengths_leave_the_docstring_out() -> None:
    assert function_lengths('def f():\n  """\n  Long.\n  """\n  a = 1\n  return a\n') == [2]
    assert function_lengths("async def f():\n  return (\n    1\n  )\n") == [4]


def test_nine_functions_of_ten_are_short() -> None:
    lengths = sorted(
        length for path in PACKAGE.rglob("*.py") for length in function_lengths(path.read_text())
    )
    assert lengths[len(lengths) * 9 // 10] <= LONG_FUNCTION


def unexplained_catches(source: str) -> list[int]:
    """Lines that catch everything without a comment on that line, the one before or the one after.

    A handler that ends in a bare ``raise`` only cleans up: it catches nothing.
    """
    lines = source.splitlines()
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        if isinstance(last := node.body[-1], ast.Raise) and last.exc is None:
            continue
        caught = (
            {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)}
            if node.type
            else {"Exception"}
        )
        beside = [
            re.sub(r"# (noqa|type|pragma)\b.*?(?=#|$)", "", line)
            for line in lines[node.lineno - 2 : node.lineno + 1]
        ]
        if caught & {"Exception", "BaseException"} and not any(re.search(r"#\s*\w", line) for line in beside):
            found.append(node.lineno)
    return found


@pytest.mark.parametrize(
    ("clause", "unexplained"),
    [
        ("except Exception:\n    pass", True),
        ("except:\n    pass", True),
        ("except (OSError, BaseException):\n    pass", True),
        ("except Exception:  # noqa: BLE001\n    pass", True),
        ("except Exception:  # noqa: BLE001  # one bad call must not end the others\n    pass", False),
        ("except Exception:  # one bad call must not end the others\n    pass", False),
        ("except Exception:\n    # one bad call must not end the others\n    pass", False),
        ("except OSError:\n    pass", False),
        ("except BaseException:\n    close()\n    raise", False),
        ("except BaseException:\n    raise OSError", True),
    ],
)
def test_catching_everything_needs_words(clause: str, unexplained: bool) -> None:
    assert bool(unexplained_catches(f"try:\n    f()\n{clause}\n")) is unexplained


def test_whoever_catches_everything_says_why() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): unexplained_catches(path.read_text())
        for path in PACKAGE.rglob("*.py")
    }
    assert {name: lines for name, lines in found.items() if lines} == {}


# Written with a bracket each, so that this file does not hold what it looks for.
FOREIGN = re.compile(
    r"(deb|security|snapshot|ftp)\.debia[n]\."
    r"|pyp[i]\.(or[g]|io)|pythonhoste[d]\."
    r"|npmj[s]\.|crate[s]\.io|rubygem[s]\.|(index|registry)\.docke[r]\.|archive\.ubunt[u]\."
    r"|(?<![\w.~])/(wor[k]|far[m]|roo[t]|home/[a-z]+)/"
)


@pytest.mark.parametrize(
    ("text", "foreign"),
    [
        ("fetched from deb" + ".debian.org", True),
        ("--index-url https://py" + "pi.org/simple", True),
        ("see /ro" + "ot/venv/bin", True),
        ("./wo" + "rk/notes and the path framework/x", False),
        ("FROM debian:testing-slim", False),
    ],
)
def test_foreign_words_are_found(text: str, foreign: bool) -> None:
    assert bool(FOREIGN.search(text)) is foreign


def test_no_file_names_a_registry_or_the_machine_it_was_written_on() -> None:
    found = []
    for path in tracked():
        content = path.read_bytes()
        if b"\0" in content[:8192]:
            continue
        for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
            if FOREIGN.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_file_names_are_plain() -> None:
    names = [PurePosixPath(path.relative_to(ROOT).as_posix()) for path in tracked()]
    assert [str(name) for name in names if not re.fullmatch(r"[A-Za-z0-9_.+/-]+", str(name))] == []


def test_modules_are_named_for_imports() -> None:
    odd = [
        path.name for path in PACKAGE.rglob("*.py") if not re.fullmatch(r"[a-z_][a-z0-9_]*\.py", path.name)
    ]
    assert odd == []


def test_every_room_is_a_package() -> None:
    rooms = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [str(room) for room in rooms if not (room / "__init__.py").exists()] == []
