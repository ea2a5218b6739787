"""The systemd units: understood by systemd, locked down, and in step with what they start."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ari_gemini import app, cli
from ari_gemini.ari.settings import AriSettings
from ari_gemini.call.drain import DrainSettings
from ari_gemini.config import SECRETS
from ari_gemini.gemini import broker
from ari_gemini.state.settings import default_directory

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SERVICE, BROKER = UNITS = (DEPLOY / "ari-gemini.service", DEPLOY / "ari-gemini-broker.service")
EXPOSURE = 15
"""``systemd-analyze security``, in tenths: 0 is locked in, 96 has no protection at all."""
NEEDED = {
    SERVICE: {secret for secret in SECRETS if not secret.optional},
    BROKER: {secret for secret in SECRETS if secret.section == "gemini"},
}
"""Secrets without which it cannot do what it is for; no other is loaded, for its file may be missing."""

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
every_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)


def settings(unit: Path) -> dict[str, list[str]]:
    """The unit's keys, each with its values in order; systemd allows a key many times."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if line and line[0] not in "#[":
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


def environment(unit: Path) -> dict[str, str]:
    return dict(word.split("=", 1) for value in settings(unit)["Environment"] for word in value.split())


@pytest.mark.parametrize(("unit", "command"), [(SERVICE, cli._serve), (BROKER, cli._token_serve)])
def test_it_starts_what_it_is_for(unit: Path, command: object) -> None:
    program, *arguments = settings(unit)["ExecStart"][0].split()
    assert Path(program).name == "ari-gemini"
    parsed = cli._parser().parse_args(arguments)
    assert parsed.run is command
    assert parsed.config.is_absolute()


@every_unit
def test_every_secret_it_needs_is_a_credential_and_none_is_in_the_unit(unit: Path) -> None:
    credentials = {value.split(":")[0] for value in settings(unit)["LoadCredential"]}
    files = {name: value for name, value in environment(unit).items() if name.endswith("_FILE")}
    assert set(files) == {secret.env_file for secret in NEEDED[unit]}
    assert set(files.values()) == {f"%d/{name}" for name in credentials}
    assert not environment(unit).keys() & {secret.env for secret in SECRETS}


@every_unit
def test_a_wrong_configuration_is_not_tried_again(unit: Path) -> None:
    assert settings(unit)["RestartPreventExitStatus"] == [str(cli.USAGE)]


def test_it_waits_for_calls_to_end() -> None:
    patience = int(settings(SERVICE)["TimeoutStopSec"][0].removesuffix("s"))
    assert patience >= DrainSettings().timeout + app.STOP_SECONDS + app.SPARE_SECONDS


def test_the_broker_is_given_time_to_answer() -> None:
    assert int(settings(BROKER)["TimeoutStopSec"][0].removesuffix("s")) > broker.STOP_SECONDS


def test_it_waits_for_the_service_to_say_that_it_is_ready() -> None:
    assert settings(SERVICE)["Type"] == ["notify"]
    assert settings(SERVICE).get("NotifyAccess", ["main"]) == ["main"]
    assert any("AF_UNIX" in value for value in settings(SERVICE)["RestrictAddressFamilies"])


def test_states_outlive_the_process_and_are_nobody_elses() -> None:
    found = settings(SERVICE)
    assert (found["StateDirectory"], found["StateDirectoryMode"]) == (["ari-gemini"], ["0700"])
    assert found["User"] == ["ari-gemini"]  # whoever is started from a copy of it finds its own records
    given = {"STATE_DIRECTORY": "/var/lib/ari-gemini"}  # systemd.exec(5)
    assert default_directory(given) == Path(given["STATE_DIRECTORY"])


@pytest.mark.parametrize("count", [range(1, 10), range(10, 100)], ids=["1 to 9", "10 to 99"])
def test_no_worker_of_the_readme_takes_anothers_port(count: range) -> None:
    text = (DEPLOY / "README.md").read_text()
    (block,) = (
        block for block in re.findall(r"^```ini\n(.*?)^```", text, re.M | re.S) if "MODE=outbound" in block
    )
    if count[-1] > 9:
        for new, old in re.findall(r"`(\d+%i)` for\s+`(\d+%i)`", text):
            block = block.replace(old, new)
    audio, advertised, health = re.findall(r"127\.0\.0\.1:(\S*%i)", block)
    assert audio == advertised
    ports = [int(port.replace("%i", str(worker))) for port in (audio, health) for worker in count]
    taken = {AriSettings(username="gemini").listen_address[1], 8088}  # Asterisk's own: asterisk/http.conf
    assert len(set(ports) - taken) == 2 * len(count)
    # Above 32767 the kernel gives ports to whoever connects.
    assert all(1024 <= port < 32768 for port in ports)


@every_unit
@needs_systemd
def test_systemd_understands_it(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/ari-gemini/bin/ari-gemini", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60, check=False
    )
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []


@every_unit
@needs_systemd
def test_it_is_locked_in(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze looks at running units only")
    assert done.returncode == 0, re.findall(r".*Overall exposure.*", done.stdout) or done.stderr
