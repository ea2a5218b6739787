"""The systemd unit: understood by systemd, locked down, and in step with the service it starts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ari_gemini import app, cli
from ari_gemini.call.drain import DrainSettings
from ari_gemini.config import SECRETS

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "ari-gemini.service"
EXPOSURE = 15
"""``systemd-analyze security``, in tenths: 0 is locked in, 96 has no protection at all."""

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")


def settings() -> dict[str, list[str]]:
    """The unit's keys, each with its values in order; systemd allows a key many times."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[":
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


def test_it_starts_the_service() -> None:
    program, *arguments = settings()["ExecStart"][0].split()
    assert Path(program).name == "ari-gemini"
    assert cli._parser().parse_args(arguments).config.is_absolute()


def test_every_secret_is_a_credential_and_none_is_in_the_unit() -> None:
    found = settings()
    credentials = {value.split(":")[0] for value in found["LoadCredential"]}
    environment = dict(word.split("=", 1) for value in found["Environment"] for word in value.split())
    assert {environment[f"{secret.env}_FILE"] for secret in SECRETS} == {f"%d/{name}" for name in credentials}
    assert not environment.keys() & {secret.env for secret in SECRETS}


def test_a_wrong_configuration_is_not_tried_again() -> None:
    assert settings()["RestartPreventExitStatus"] == [str(cli.USAGE)]


def test_it_waits_for_calls_to_end() -> None:
    patience = int(settings()["TimeoutStopSec"][0].removesuffix("s"))
    assert patience >= DrainSettings().timeout + app.STOP_SECONDS + app.SPARE_SECONDS


def test_it_waits_for_the_service_to_say_that_it_is_ready() -> None:
    assert settings()["Type"] == ["notify"]
    assert settings().get("NotifyAccess", ["main"]) == ["main"]
    assert any("AF_UNIX" in value for value in settings()["RestrictAddressFamilies"])


@needs_systemd
def test_systemd_understands_it(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/ari-gemini/bin/ari-gemini", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == []


@needs_systemd
def test_it_is_locked_in() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", str(UNIT)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze looks at running units only")
    assert done.returncode == 0, re.findall(r".*Overall exposure.*", done.stdout) or done.stderr
