"""What asterisk-entrypoint.sh writes, read back."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "deploy" / "asterisk-entrypoint.sh"


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """A configuration directory as the image has it: ``local`` points into what is empty at every start."""
    (tmp_path / "run").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "local").symlink_to(tmp_path / "run" / "local")
    hostname = tmp_path / "bin" / "hostname"
    hostname.parent.mkdir()
    hostname.write_text('#!/bin/sh\n[ "$*" = -I ] && echo "172.18.0.2 172.30.92.3 "\n')
    hostname.chmod(0o755)
    return tmp_path / "etc"


def start(etc: Path, given: str = "abc", **environ: str) -> subprocess.CompletedProcess[str]:
    file = etc.parent / "secret"
    file.write_text(given)
    return subprocess.run(
        ["sh", str(SCRIPT), "echo", "asterisk", "-f"],
        env={
            "PATH": f"{etc.parent / 'bin'}:{os.environ['PATH']}",
            "ASTERISK_ETC": str(etc),
            "ARI_PASSWORD_FILE": str(file),
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_it_becomes_the_command(etc: Path) -> None:
    done = start(etc)
    assert (done.returncode, done.stdout, done.stderr) == (0, "asterisk -f\n", "")


def test_every_file_that_includes_a_local_one_finds_it(etc: Path) -> None:
    start(etc)
    wanted = {
        name
        for path in ROOT.glob("asterisk/*.conf")
        for name in re.findall(r"^#tryinclude local/(\S+)", path.read_text(), re.M)
    }
    written = {path.name for path in (etc / "local").iterdir()}
    assert wanted
    assert written == wanted
    for name in written:
        assert f"\n#tryinclude site/{name}\n" in (etc / "local" / name).read_text()


def test_password_address_and_service(etc: Path) -> None:
    start(etc, "s3cret-._~+/=\n", AUDIOSOCKET="voice:9099")
    local = etc / "local"
    assert (local / "ari.conf").read_text().startswith("[gemini](+)\npassword = s3cret-._~+/=\n")
    assert stat.S_IMODE((local / "ari.conf").stat().st_mode) == 0o600
    assert "[globals](+)\nARI_GEMINI_AUDIOSOCKET = voice:9099\n" in (local / "extensions.conf").read_text()
    assert "bindaddr = 0.0.0.0" in (local / "http.conf").read_text()


def test_no_nat_no_external_address(etc: Path) -> None:
    start(etc, LOCAL_NET="10.0.0.0/8")
    assert (etc / "local" / "pjsip.conf").read_text() == "\n#tryinclude site/pjsip.conf\n"


def test_behind_nat_all_are_told_the_outer_address(etc: Path) -> None:
    start(etc, EXTERNAL_ADDRESS="203.0.113.7")
    assert (etc / "local" / "pjsip.conf").read_text() == (
        "[transport-udp](+)\nexternal_media_address = 203.0.113.7\nexternal_signaling_address = 203.0.113.7\n"
        "\n#tryinclude site/pjsip.conf\n"
    )


def test_local_networks_do_not_keep_the_outer_address_from_others(etc: Path) -> None:
    """Asterisk puts it into SDP only in the place of an address that is local itself
    (res_pjsip_session.c, session_outgoing_nat_hook): the container's own ones must be."""
    done = start(etc, EXTERNAL_ADDRESS="203.0.113.7", LOCAL_NET="10.0.0.0/8,192.168.0.0/16")
    assert done.returncode == 0, done.stderr
    assert (etc / "local" / "pjsip.conf").read_text().splitlines()[:7] == [
        "[transport-udp](+)",
        "external_media_address = 203.0.113.7",
        "external_signaling_address = 203.0.113.7",
        "local_net = 10.0.0.0/8",
        "local_net = 192.168.0.0/16",
        "local_net = 172.18.0.2",
        "local_net = 172.30.92.3",
    ]


@pytest.mark.parametrize(
    ("given", "first", "last"),
    [({}, "10000", "10199"), ({"RTP_START": "20000", "RTP_END": "20399"}, "20000", "20399")],
)
def test_the_ports_of_the_sound(etc: Path, given: dict[str, str], first: str, last: str) -> None:
    start(etc, **given)
    text = (etc / "local" / "rtp.conf").read_text()
    assert text.startswith(f"[general](+)\nrtpstart = {first}\nrtpend = {last}\n")


def test_a_second_start_begins_anew(etc: Path) -> None:
    start(etc, EXTERNAL_ADDRESS="203.0.113.7")
    assert start(etc).returncode == 0
    assert "203.0.113.7" not in (etc / "local" / "pjsip.conf").read_text()


@pytest.mark.parametrize("password", ["", "\n", "a;b", "a\nread_only = no", "a b", "#include x"])
def test_a_password_asterisk_would_misread_is_refused(etc: Path, password: str) -> None:
    done = start(etc, password)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert not (etc / "local").exists()
