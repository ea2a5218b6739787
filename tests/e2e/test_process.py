"""The commands as an operator runs them, ``ari-gemini serve`` and ``check``, beside the real Asterisk."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from bot import WAY_A
from harness.asterisk import Asterisk
from harness.phone import PhoneMaker
from harness.tap import Way

from ari_gemini.simulator.gemini_live import GeminiSimulator

pytestmark = pytest.mark.asterisk

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
"""


class Command:
    """``ari-gemini`` with a configuration file for this Asterisk and this Gemini."""

    def __init__(self, directory: Path, asterisk: Asterisk, gemini: GeminiSimulator) -> None:
        with socket.create_server((asterisk.address, 0)) as probe:
            self.media = f"{asterisk.address}:{probe.getsockname()[1]}"
        self._file = directory / "ari-gemini.toml"
        self._file.write_text(
            CONFIG.format(
                ari=asterisk.ari_url, username=asterisk.username, media=self.media, gemini=gemini.url
            )
        )
        self._environment = {**os.environ, "ARI_PASSWORD": asterisk.password, "GEMINI_API_KEY": "a-key"}

    async def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Process:
        """Start ``ari-gemini ARGUMENTS --config FILE``."""
        return await asyncio.create_subprocess_exec(
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

    async def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Run it to its end: exit code and what it printed."""
        process = await self.start(*arguments, environment=environment)
        async with asyncio.timeout(30):
            out, err = await process.communicate()
        return process.returncode or 0, out.decode() + err.decode()

    @asynccontextmanager
    async def serving(self, asterisk: Asterisk) -> AsyncIterator[Process]:
        """A service that Asterisk knows."""
        process = await self.start("serve")
        try:
            async with asyncio.timeout(20):
                while not await asterisk.ari("GET", "applications"):  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.05)
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def test_sigterm_sends_the_callers_on_and_ends_well(
    asterisk: Asterisk, phone: PhoneMaker, tmp_path: Path
) -> None:
    alice = await phone("1001")
    async with GeminiSimulator("two_turns") as gemini:
        async with Command(tmp_path, asterisk, gemini).serving(asterisk) as process:
            await alice.dial(WAY_A)
            await alice.established()
            await (await gemini.wait_session()).wait_for("turn_start")
            await alice.tap.wait_loud(Way.TO_PHONE)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                _, log = await process.communicate()
            assert process.returncode == 0
            assert b"cause=shutdown" in log
            assert asterisk.password.encode() not in log
            assert b"a-key" not in log
        await alice.tap.wait_loud(Way.TO_PHONE)  # the fallback's congestion tone
        await alice.hang_up()
        await alice.closed()
    await asterisk.empty()


async def test_check_finds_nothing_wrong_and_disturbs_no_call(
    asterisk: Asterisk, phone: PhoneMaker, tmp_path: Path
) -> None:
    alice = await phone("1001")
    async with GeminiSimulator("two_turns") as gemini:
        command = Command(tmp_path, asterisk, gemini)
        code, said = await command.run("check", "--before-start")
        assert (code, said.splitlines()[-1]) == (0, "all is well"), said
        async with command.serving(asterisk):
            await alice.dial(WAY_A)
            await alice.established()
            code, said = await command.run("check")
            assert (code, said.splitlines()[-1]) == (0, "all is well"), said
            assert len(await asterisk.bridges()) == 1
            await alice.tap.wait(lambda packet: packet.way is Way.TO_PHONE)
            await alice.hang_up()
            await alice.closed()
            await asterisk.empty()


async def test_check_says_what_is_wrong(asterisk: Asterisk, tmp_path: Path) -> None:
    async with GeminiSimulator("two_turns") as gemini:
        command = Command(tmp_path, asterisk, gemini)
        code, said = await command.run("check")
        assert code == 1
        assert "FAIL  nobody is connected for Stasis(ari-gemini)" in said
        code, said = await command.run("check", environment={"ARI_PASSWORD": "wrong"})
        assert code == 1
        assert f"refuses user '{asterisk.username}'" in said
        nobody = {"ARI_GEMINI__AUDIOSOCKET__ADVERTISE": f"{asterisk.address}:9"}
        code, said = await command.run("check", "--before-start", environment=nobody)
        assert code == 1
        assert f"cannot connect to audiosocket.advertise {asterisk.address}:9" in said
    await asterisk.empty()
