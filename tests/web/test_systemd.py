"""What systemd is told, through a real socket of the kind it gives."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ari_gemini.web.systemd import VARIABLE, notify, stopping


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket and its name as it stands in the environment."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@ari-gemini-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name[1:] if name[0] == "@" else name)
        sock.settimeout(30)
        yield sock, name


def test_the_manager_is_told(manager: tuple[socket.socket, str]) -> None:
    sock, name = manager
    assert notify({VARIABLE: name}, "READY=1")
    assert sock.recv(4096) == b"READY=1"
    assert notify({VARIABLE: name}, *stopping(55.0))
    assert sock.recv(4096) == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=55000000"


@pytest.mark.parametrize("environ", [{}, {VARIABLE: ""}, {VARIABLE: "vsock:2:3"}])
def test_nobody_is_told_where_nobody_asks(environ: dict[str, str]) -> None:
    assert not notify(environ, "READY=1")


def test_a_manager_that_is_gone_does_no_harm(tmp_path: Path) -> None:
    assert not notify({VARIABLE: str(tmp_path / "gone")}, "READY=1")


def test_a_manager_that_does_not_read_is_not_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        told = [notify({VARIABLE: str(tmp_path / "notify")}, "READY=1") for _ in range(5000)]
    assert told[0]
    assert not told[-1]
