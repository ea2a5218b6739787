"""What systemd is told, through a real socket of the kind it gives."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ari_gemini.web.systemd import VARIABLE, notify, stay_alive, stopping, watchdog_period


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


@pytest.mark.parametrize(
    ("environ", "period"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_how_often_it_wants_to_hear_that_we_live(environ: dict[str, str], period: float | None) -> None:
    assert watchdog_period(environ) == period


async def test_signs_of_life_until_cancelled(manager: tuple[socket.socket, str]) -> None:
    sock, name = manager
    task = asyncio.create_task(stay_alive({VARIABLE: name, "WATCHDOG_USEC": "2000"}))
    for _ in range(3):
        assert await asyncio.to_thread(sock.recv, 4096) == b"WATCHDOG=1"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_no_signs_of_life_where_nobody_asks(manager: tuple[socket.socket, str]) -> None:
    sock, name = manager
    await stay_alive({VARIABLE: name})
    await stay_alive({"WATCHDOG_USEC": "2000"})
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        sock.recv(4096)
