"""The wheel holds all the package needs and runs without the repository; the locks answer pyproject.toml."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ("3.11", "3.12", "3.13")


def pip(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", *arguments],
        env={**os.environ, "PIP_NO_INDEX": "1"},
        check=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(ROOT))
    (built,) = directory.iterdir()
    return built


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_it_is_one_wheel_for_every_machine(wheel: Path) -> None:
    assert wheel.name == f"ari_gemini-{PROJECT['version']}-py3-none-any.whl"


def test_it_holds_the_whole_package(contents: set[str]) -> None:
    tree = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "ari_gemini").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert tree - contents == set()


def test_it_holds_nothing_else(contents: set[str]) -> None:
    assert {PurePosixPath(name).parts[0] for name in contents} == {
        "ari_gemini",
        f"ari_gemini-{PROJECT['version']}.dist-info",
    }
    assert not [name for name in contents if name.endswith((".pyc", ".orig", "~"))]


def test_it_holds_types_speech_scenarios_and_licence(contents: set[str]) -> None:
    def inside(directory: str) -> list[str]:
        return [name for name in contents if name.startswith(f"ari_gemini/simulator/{directory}/")]

    assert "ari_gemini/py.typed" in contents
    assert [name for name in inside("speech") if name.endswith(".wav")]
    assert inside("scenarios")
    assert [name for name in contents if name.endswith(".dist-info/licenses/LICENSE")]


def test_it_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < 5_000_000


def test_the_command_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    # Dependencies come from this environment. Its own editable install does not: a path named in a .pth file
    # is not searched for further .pth files.
    site = next(home.glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(str(python), "-c", "import ari_gemini; print(ari_gemini.__file__)")
    assert Path(where.strip()).is_relative_to(home)
    assert run(str(home / "bin" / "ari-gemini"), "--version") == f"ari-gemini {PROJECT['version']}\n"
    for command in ("serve", "demo", "check", "simulate"):
        assert command in run(str(home / "bin" / "ari-gemini"), "--help")
    assert "--scenario" in run(str(python), "-m", "ari_gemini", "simulate", "gemini", "--help")


def pins(lock: str) -> dict[str, list[Requirement]]:
    """Every pinned requirement of a lock by name; one with several versions has a marker on each."""
    found: dict[str, list[Requirement]] = {}
    for line in (ROOT / "requirements" / lock).read_text().splitlines():
        if re.match(r"[a-z0-9]", line):
            requirement = Requirement(line.rstrip("\\ "))
            found.setdefault(requirement.name, []).append(requirement)
    return found


def holds(marker: Marker | None, python: str) -> bool:
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    return marker is None or marker.evaluate(environment)


def unmet(requirements: list[str], lock: str, python: str) -> list[str]:
    """Requirements that no pin of the lock meets on that Python."""
    locked = pins(lock)
    wanted = [Requirement(text) for text in requirements]
    return [
        str(requirement)
        for requirement in wanted
        if holds(requirement.marker, python)
        if not any(
            holds(pin.marker, python)
            and all(requirement.specifier.contains(s.version) for s in pin.specifier)
            for pin in locked.get(requirement.name, [])
        )
    ]


@pytest.mark.parametrize("python", PYTHONS)
def test_the_locks_answer_pyproject(python: str) -> None:
    extras = PROJECT["optional-dependencies"]
    build = [line for line in (ROOT / "requirements/build.in").read_text().splitlines() if line[0] != "#"]
    assert unmet(PROJECT["dependencies"], "runtime.lock", python) == []
    assert (
        unmet([*PROJECT["dependencies"], *extras["test"], *extras["lint"], *build], "test.lock", python) == []
    )
    for extra in ("mcp", "redis"):
        assert unmet([*PROJECT["dependencies"], *extras[extra]], f"{extra}.lock", python) == []
    assert unmet(build, "build.lock", python) == []


def test_a_requirement_without_a_pin_is_found() -> None:
    assert unmet(["aioari>=99", "no-such-thing", "numpy>=1.26"], "runtime.lock", "3.11") == [
        "aioari>=99",
        "no-such-thing",
    ]


@pytest.mark.parametrize("lock", ["build.lock", "runtime.lock", "mcp.lock", "redis.lock"])
def test_the_smaller_locks_are_cut_from_the_largest(lock: str) -> None:
    def versions(name: str) -> dict[str, set[str]]:
        return {package: {str(pin.specifier) for pin in found} for package, found in pins(name).items()}

    largest = versions("test.lock")
    assert {
        package: found for package, found in versions(lock).items() if found != largest.get(package)
    } == {}


@pytest.mark.parametrize("lock", ["build.lock", "runtime.lock", "mcp.lock", "redis.lock", "test.lock"])
def test_locks_are_exact_hashed_and_name_no_place(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert entries
    exact = re.compile(r"[a-z0-9.-]+(\[[a-z,-]+\])?==[^ ]+ ")
    assert [entry.split()[0] for entry in entries if not exact.match(entry)] == []
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert re.findall(r"://|^-|--(?!hash=)[a-z-]+|file:|/[a-z]+/", text, flags=re.MULTILINE) == []
