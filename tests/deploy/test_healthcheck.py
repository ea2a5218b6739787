"""The container is healthy while something listens on the port that its environment names."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "healthcheck.py"


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
