"""``ari-gemini serve`` as a process of its own, in real time on its real event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
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
        file.write_text(CONFIG.format(ari=asterisk.url, gemini=gemini.url))
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


async def test_it_starts_and_stops_without_asterisk(tmp_path: Path) -> None:
    file = tmp_path / "ari-gemini.toml"
    # nobody listens at port 9 of loopback
    file.write_text(CONFIG.format(ari="http://127.0.0.1:9", gemini="ws://127.0.0.1:9"))
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
        text = CONFIG.format(ari=asterisk.url, gemini="ws://127.0.0.1:9").replace("127.0.0.1:0", taken)
        file.write_text(text)
        async with serving(file) as process:
            code, _, err = await ended(process)
        assert code == 2
        assert err.splitlines()[-1].startswith("ari-gemini: audiosocket.listen: cannot listen on ")
        assert "Traceback" not in err
        assert asterisk.operations() == [], "nothing was opened before"


async def test_no_process_is_left() -> None:
    children = psutil.Process().children(recursive=True)
    assert [child for child in children if "ari_gemini" in child.cmdline()] == []
