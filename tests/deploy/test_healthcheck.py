"""The container is healthy while the service lives: by its own word, or because it listens."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ari_gemini.web.health import HealthServer, HealthSettings, Readiness

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "healthcheck.py"


def ask(listen: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(SCRIPT)],
        env={**os.environ, "ARI_GEMINI__HEALTH__LISTEN": listen, "ARI_GEMINI__AUDIOSOCKET__LISTEN": "x:1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("wildcard", [False, True])
async def test_it_asks_whether_the_service_lives_not_whether_it_is_ready(wildcard: bool) -> None:
    state = Readiness(listening=True, ari_connected=False, draining=True, calls=1, max_calls=1)
    server = HealthServer(HealthSettings(listen="127.0.0.1:0"), lambda: state)
    await server.start()
    assert server.address is not None
    listen = f"0.0.0.0:{server.address.port}" if wildcard else str(server.address)
    done = await asyncio.to_thread(ask, listen)
    assert (done.returncode, done.stderr) == (0, "")
    await server.close()
    done = await asyncio.to_thread(ask, listen)
    assert (done.returncode, done.stderr) == (1, f"no answer at http://{listen}/live\n")


async def test_a_service_that_does_not_answer_is_not_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        listen = f"127.0.0.1:{silent.getsockname()[1]}"
        assert (await asyncio.to_thread(ask, listen)).returncode == 1


def check(port: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(SCRIPT)],
        env={**os.environ, "ARI_GEMINI__AUDIOSOCKET__LISTEN": f"0.0.0.0:{port}"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_bound_is_not_enough_listening_is(family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family) as listener:
        try:
            listener.bind((host, 0))
        except OSError:
            pytest.skip(f"this machine has no {host}")
        port = listener.getsockname()[1]

        before = check(port)
        assert before.returncode == 1
        assert before.stderr == f"nobody listens on port {port}\n"

        listener.listen()
        assert check(port).returncode == 0

        listener.setblocking(False)
        with pytest.raises(BlockingIOError):  # it has connected nowhere
            listener.accept()
