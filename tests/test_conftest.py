"""ARI_GEMINI_REQUIRE_ASTERISK=1 turns a run red when the tests on a real Asterisk were left out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")

REAL = "import pytest\n@pytest.mark.asterisk\ndef test_real(): {body}\n"
OTHER = "import pytest\ndef test_other(): pass\ndef test_skipped(): pytest.skip('not here')\n"


def run(at: Path, source: str, *args: str, required: bool = True) -> subprocess.CompletedProcess[str]:
    shutil.copy(CONFTEST, at / "conftest.py")
    (at / "pytest.ini").write_text("[pytest]\nmarkers =\n    asterisk: real\n")
    (at / "test_it.py").write_text(source)
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "ARI_GEMINI"))
    }
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args],
        cwd=at,
        env={**environ, "ARI_GEMINI_REQUIRE_ASTERISK": "1" if required else "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_green_when_they_ran_and_others_were_skipped(tmp_path: Path) -> None:
    done = run(tmp_path, REAL.format(body="pass") + OTHER)
    assert done.returncode == 0, done.stdout
    assert "REQUIRE_ASTERISK" not in done.stdout


@pytest.mark.parametrize(
    ("source", "args", "said"),
    [
        (OTHER, (), "no test on a real Asterisk was selected"),
        (REAL.format(body="pass") + OTHER, ("-m", "not asterisk"), "no test on a real Asterisk was selected"),
        (REAL.format(body="pytest.skip('absent')"), (), "1 of 1 tests on a real Asterisk did not run"),
        (REAL.format(body="pytest.xfail('known')"), (), "1 of 1 tests on a real Asterisk did not run"),
    ],
    ids=["none exists", "deselected", "skipped", "expected to fail"],
)
def test_red_when_they_were_left_out(tmp_path: Path, source: str, args: tuple[str, ...], said: str) -> None:
    done = run(tmp_path, source, *args)
    assert done.returncode == 1, done.stdout
    assert said in done.stdout
    # the summary line stays the last thing one sees
    assert "in " in done.stdout.strip().splitlines()[-1]


def test_red_stays_red(tmp_path: Path) -> None:
    assert run(tmp_path, REAL.format(body="assert False")).returncode == 1


def test_not_required_means_not_watched(tmp_path: Path) -> None:
    done = run(tmp_path, OTHER, required=False)
    assert done.returncode == 0, done.stdout
