"""``ari-gemini serve`` as a process of its own, in real time on its real event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.world import MODEL, TELEPHONE, Mouthpiece, quick, resampled, until

from ari_gemini.simulator.asterisk import SimulatedAsterisk
from ari_gemini.simulator.gemini_live import GeminiSimulator
from ari_gemini.simulator.phrases import phrase

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 30.0
"""Only a process that hangs gets there."""

CONFIG = """
[ari]
url = "{ari}"
username = "gemini"
[audiosocket]
listen = "127.0.0.1:0"
[gemini]
base_url = "{gemini}"
[drain]
timeout = {drain}
[log]
format = "json"
[agents.default]
greeting = "Greet the caller."
"""
SECRETS = {"GEMINI_API_KEY": "a-s3cret-key", "ARI_PASSWORD": "simulated"}


def environment(more: Mapping[str, str]) -> dict[str, str]:
    ours = ("ARI_", "GEMINI_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | dict(more)


@asynccontextmanager
async def serving(
    config: Path, secrets: Mapping[str, str] = SECRETS
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "ari_gemini", "serve", "--config", str(config)),
        cwd=ROOT,
        env=environment(secrets),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    async with asyncio.timeout(SECONDS):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_sends_the_caller_on_and_ends_it_with_0(
    number: signal.Signals, tmp_path: Path
) -> None:
    file = tmp_path / "ari-gemini.toml"
    async with SimulatedAsterisk() as asterisk, GeminiSimulator(quick()) as gemini:
        file.write_text(CONFIG.format(ari=asterisk.url, gemini=gemini.url, drain=0))
        async with serving(file) as process:
            async with asyncio.timeout(SECONDS):
                await asterisk.wait_connected()
            voice = Mouthpiece()
            call = await asterisk.call(voice=voice, stays=True)
            wanted = resampled(phrase("done").pcm, MODEL, TELEPHONE)
            # in real time a busy machine may tear a sentence, but it does not lose its end
            await until(lambda: wanted[-3200:-320] in voice.heard, "the greeting is not heard")
            process.send_signal(number)
            code, out, err = await ended(process)
        assert code == 0, err
        assert out == ""
        assert call.continued is not None
        assert call.variables["ARI_GEMINI_CAUSE"] == "shutdown"
        assert set(asterisk.channels) == {call.id}
        assert dict(asterisk.bridges) == {}
        await gemini.sessions[0].wait_closed()
    assert '"cause": "shutdown"' in err
    assert "Traceback" not in err
    assert "s3cret" not in err


async def test_the_first_signal_waits_for_calls_and_the_second_does_not(tmp_path: Path) -> None:
    file = tmp_path / "ari-gemini.toml"
    async with SimulatedAsterisk() as asterisk, GeminiSimulator(quick()) as gemini:
        file.write_text(CONFIG.format(ari=asterisk.url, gemini=gemini.url, drain=86400))
        async with serving(file) as process:
            async with asyncio.timeout(SECONDS):
                await asterisk.wait_connected()
            voice = Mouthpiece()
            call = await asterisk.call(voice=voice, stays=True)
            await until(lambda: any(voice.heard), "the greeting is not heard")
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            seen = b""
            async with asyncio.timeout(SECONDS):
                while b"= draining" not in seen:
                    seen += await process.stderr.readline()
            late = await asterisk.call(stays=True)
            async with asyncio.timeout(SECONDS):
                await late.wait_left()
            assert late.variables["ARI_GEMINI_CAUSE"] == "draining"
            assert call.continued is None
            heard = len(voice.heard)
            await until(lambda: len(voice.heard) > heard + 10 * 320, "the call does not go on")
            process.send_signal(signal.SIGTERM)
            code, _, err = await ended(process)
        assert code == 0, err
        assert call.continued is not None
        assert call.variables["ARI_GEMINI_CAUSE"] == "shutdown"
        assert set(asterisk.channels) == {call.id, late.id}
        assert dict(asterisk.bridges) == {}


async def test_systemd_is_told_when_it_is_ready_and_how_long_stopping_may_take(tmp_path: Path) -> None:
    file = tmp_path / "ari-gemini.toml"
    file.write_text(CONFIG.format(ari="http://127.0.0.1:9", gemini="ws://127.0.0.1:9", drain=100))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        told = partial(asyncio.get_running_loop().sock_recv, manager, 4096)
        systemd = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000000"}
        async with serving(file, {**SECRETS, **systemd}) as process:
            async with asyncio.timeout(SECONDS):
                assert await told() == b"READY=1"
                assert await told() == b"WATCHDOG=1"
                process.send_signal(signal.SIGTERM)
                assert await told() == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=125000000"
            code, _, err = await ended(process)
    assert code == 0, err


async def test_it_starts_and_stops_without_asterisk(tmp_path: Path) -> None:
    file = tmp_path / "ari-gemini.toml"
    # nobody listens at port 9 of loopback
    file.write_text(CONFIG.format(ari="http://127.0.0.1:9", gemini="ws://127.0.0.1:9", drain=60))
    async with serving(file) as process:
        assert process.stderr is not None
        seen = b""
        async with asyncio.timeout(SECONDS):
            while b"ari unavailable, will keep trying" not in seen:
                seen += await process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        code, _, err = await ended(process)
    assert code == 0
    assert "Traceback" not in seen.decode() + err


@pytest.mark.parametrize(
    ("text", "secrets", "said"),
    [
        ('[ari]\nusername = "gemini"\ncolour = "red"\n', SECRETS, "ari.colour: unknown key"),
        ('[ari]\nusername = "gemini"\n', {"ARI_PASSWORD": "x"}, "gemini.api_key: missing"),
        ('[ari]\nusername = "gemini"\n', {"GEMINI_API_KEY": "x"}, "ari.password: missing"),
        ('[ari]\nusername = "gemini"\n[audiosocket]\nlisten = "nowhere"\n', SECRETS, "audiosocket.listen"),
        ("[ari\n", SECRETS, "not TOML"),
    ],
    ids=["unknown key", "no key", "no password", "bad address", "no TOML"],
)
async def test_a_mistake_is_one_line_and_exit_code_2(
    text: str, secrets: Mapping[str, str], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "ari-gemini.toml"
    file.write_text(text)
    async with serving(file, secrets) as process:
        code, out, err = await ended(process)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"ari-gemini: {file}: ")
    assert said in err


async def test_an_address_that_is_taken_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    file = tmp_path / "ari-gemini.toml"
    other = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with other, SimulatedAsterisk() as asterisk:
        taken = f"127.0.0.1:{other.sockets[0].getsockname()[1]}"
        text = CONFIG.format(ari=asterisk.url, gemini="ws://127.0.0.1:9", drain=60)
        file.write_text(text.replace("127.0.0.1:0", taken))
        async with serving(file) as process:
            code, _, err = await ended(process)
        assert code == 2
        assert err.splitlines()[-1].startswith("ari-gemini: audiosocket.listen: cannot listen on ")
        assert "Traceback" not in err
        assert asterisk.operations() == [], "nothing was opened before"


async def test_no_process_is_left() -> None:
    children = psutil.Process().children(recursive=True)
    assert [child for child in children if "ari_gemini" in child.cmdline()] == []
