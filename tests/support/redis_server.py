"""A real Redis on a port of this machine, which tests may kill, freeze and start again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Self

import pytest

from support.ports import free_port


def program() -> str:
    """Where Redis is. Skips where it is not, fails where the tests on real parts must run.

    In Debian ``redis-server`` is another name of ``redis-check-rdb``, which comes without a service.
    """
    for name in ("redis-server", "redis-check-rdb"):
        if found := shutil.which(name):
            return found
    reason = "no Redis; tests/e2e/fetch installs it"
    if os.environ.get("ARI_GEMINI_REQUIRE_ASTERISK") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


class RedisServer:
    """Started on entry; ``args`` are further settings, such as ``--requirepass``. Nothing is kept on disk."""

    def __init__(self, directory: Path, *args: str, tls: bool = False) -> None:
        self.port = free_port()
        ports = ("--port", "0", "--tls-port", str(self.port)) if tls else ("--port", str(self.port))
        self._arguments = ["redis-server", *ports, "--bind", "127.0.0.1", "--save", "", *args]
        self._directory = directory
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns when it takes connections."""
        self._process = subprocess.Popen(
            self._arguments, executable=program(), cwd=self._directory, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        said = ""
        for line in self._process.stdout:
            said += line
            if "Ready to accept connections" in line:
                return
        raise AssertionError(f"Redis did not start: {said}")

    def kill(self) -> None:
        """As with kill -9: all it had is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def freeze(self) -> None:
        """It stays connected and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
