"""``ari-gemini`` as an operator runs it: a process of its own with a configuration file."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from ari_gemini.simulator.gemini_live import GeminiSimulator

from .asterisk import Asterisk

CONFIG = """
[ari]
url = "{ari}"
username = "{username}"
[audiosocket]
listen = "{media}"
[gemini]
base_url = "{gemini}"
[agents.default]
instructions = "You are a helpful assistant."
greeting = "Greet the caller."
{more}
"""
CONNECTED = re.compile(rb"= ari (connected|is back)")
"""The service's own word that callers reach it. What Asterisk lists may be an application that a former
service left."""


class Running:
    """A process whose output is read all the time, so that no full pipe stops it, and kept."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._said = bytearray()
        self._more = asyncio.Event()
        self._readers = [
            asyncio.create_task(self._read(stream)) for stream in (process.stdout, process.stderr) if stream
        ]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def said(self) -> bytes:
        """All of its output so far; after ``end`` all there is."""
        return bytes(self._said)

    async def says(self, words: bytes | re.Pattern[bytes], timeout: float = 20.0) -> None:
        """Wait until it has said ``words``. Raises AssertionError, with all it said, when it never does."""
        pattern = re.compile(re.escape(words)) if isinstance(words, bytes) else words
        try:
            async with asyncio.timeout(timeout):
                while not pattern.search(self._said):
                    if all(reader.done() for reader in self._readers):
                        raise AssertionError(f"ended without {pattern.pattern!r}: {self.said.decode()}")
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise AssertionError(f"no {pattern.pattern!r} in: {self.said.decode()}") from None

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def end(self, timeout: float = 30.0) -> int:
        """Wait for its end and all of its output; returns the exit code."""
        async with asyncio.timeout(timeout):
            await asyncio.gather(*self._readers)
            return await self._process.wait()

    async def kill(self) -> None:
        """``kill -9``, unless it has ended, and wait."""
        if self._process.returncode is None:
            self._process.kill()
        await self.end()

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(65536):
            self._said += data
            self._more.set()
        self._more.set()


class Command:
    """``ari-gemini`` with a configuration file for this Asterisk and this Gemini; ``more`` is added to it."""

    def __init__(
        self, directory: Path, asterisk: Asterisk, gemini: GeminiSimulator, *, more: str = ""
    ) -> None:
        with socket.create_server((asterisk.address, 0)) as probe:
            self.media = f"{asterisk.address}:{probe.getsockname()[1]}"
        self._file = directory / "ari-gemini.toml"
        self._file.write_text(
            CONFIG.format(
                ari=asterisk.ari_url,
                username=asterisk.username,
                media=self.media,
                gemini=gemini.url,
                more=more,
            )
        )
        self._environment = {**os.environ, "ARI_PASSWORD": asterisk.password, "GEMINI_API_KEY": "a-key"}

    async def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Running:
        """Start ``ari-gemini ARGUMENTS --config FILE``."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "ari_gemini",
            *arguments,
            "--config",
            str(self._file),
            env={**self._environment, **(environment or {})},
            stdout=PIPE,
            stderr=PIPE,
        )
        return Running(process)

    async def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Run it to its end: exit code and what it printed."""
        process = await self.start(*arguments, environment=environment)
        return await process.end(), process.said.decode()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Running]:
        """A service to which Asterisk hands its callers."""
        process = await self.start("serve")
        try:
            await process.says(CONNECTED)
            yield process
        finally:
            await process.kill()
