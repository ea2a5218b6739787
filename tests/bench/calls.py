"""What a call costs: frame gaps and CPU at 20, 60 and 100 fully talking calls on one core, beside ``bare``.

``+ tool`` is the service while in every call a tool is at work all the time: an HTTP request that is answered
after 5 s, and again.

The bridge has a core of its own; callers and model share the other one. Both directions talk all the time.
Prints a table; asserts nothing. These numbers hold for the machine they were made on: compare within one run.

    python tests/bench/calls.py [--calls 20,60,100] [--seconds 15]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import psutil

HERE = Path(__file__).parent
WARMUP = 4.0
DRAIN = 2.0

CONFIG = """
[audiosocket]
listen = "127.0.0.1:{port}"
verify = "none"
[gemini]
base_url = "ws://127.0.0.1:{model}"
[calls]
max_calls = 1000
[log]
level = "error"
"""
TOOL = """
[tools.named.slow]
description = "Takes five seconds."
url = "http://127.0.0.1:{api}/slow"
[agents.default]
tools = ["slow"]
filler = "none"
"""


class Ports(NamedTuple):
    """Where the bridge takes media, where the model and the HTTP server stand."""

    media: int
    model: int
    api: int


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def start(core: int, *arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509  # one thread, before exec
    )


def read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise SystemExit(f"{process.args} ended early")
    return line


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.wait(20)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def wait_port(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nobody listens on {port}")


def run_bridge(kind: str, ports: Ports, core: int, directory: Path) -> subprocess.Popen[str]:
    if kind == "bare":
        bridge = start(core, str(HERE / "bare.py"), str(ports.media), f"ws://127.0.0.1:{ports.model}/ws/bare")
        read(bridge)
    else:
        config = directory / "bench.toml"
        text = CONFIG.format(port=ports.media, model=ports.model)
        config.write_text(text + TOOL.format(api=ports.api) if kind == "+ tool" else text)
        bridge = start(
            core, "-m", "ari_gemini", "serve", "--config", str(config), env={"GEMINI_API_KEY": "bench"}
        )
        wait_port(ports.media)
    return bridge


def measure(kind: str, calls: int, seconds: float) -> dict[str, float]:
    """One run; figures by name."""
    cores = sorted(os.sched_getaffinity(0))
    ports = Ports(free_port(), free_port(), free_port())
    tool = ["slow", str(ports.api)] if kind == "+ tool" else []
    with TemporaryDirectory() as directory:
        model = start(cores[-1], str(HERE / "model_sink.py"), str(ports.model), *tool)
        read(model)
        bridge = run_bridge(kind, ports, cores[0], Path(directory))
        usage = psutil.Process(bridge.pid)
        callers = start(
            cores[-1], str(HERE / "callers.py"), str(ports.media), str(calls), str(WARMUP), str(seconds)
        )
        read(callers)
        before, began = usage.cpu_times(), time.monotonic()
        read(callers)
        after, ended = usage.cpu_times(), time.monotonic()
        tell(model, "hush")
        time.sleep(DRAIN)
        tell(callers, "done")
        heard = json.loads(read(callers))
        tell(model, "report")
        said = json.loads(read(model))
        memory = usage.memory_info().rss / 2**20
        callers.wait(20)
        for process in (callers, bridge, model):
            stop(process)
    cpu = (after.user + after.system) - (before.user + before.system)
    return {
        **heard,
        "cpu_percent": cpu / (ended - began) * 100,
        "cpu_ms": cpu * 1000 / (ended - began) / calls,
        "rss": memory,
        "tools": said["tools_answered"],
        "lost_up": heard["sent_frames"] - said["heard_bytes"] // 640,
        "lost_down": max(0, said["said_ms"] // 20 - heard["speech_frames"]),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", default="20,60,100")
    parser.add_argument("--seconds", type=float, default=15.0)
    arguments = parser.parse_args(argv)
    print(
        f"{'calls':>5} {'bridge':<8} {'core %':>6} {'CPU ms/call-s':>13} {'x bare':>6} "
        f"{'gap p50':>8} {'p99':>6} {'p99.9':>6} {'max ms':>7} {'lost up':>8} {'down':>5} {'RSS MB':>7} "
        f"{'tools':>6}"
    )
    for calls in (int(text) for text in arguments.calls.split(",")):
        bare = measure("bare", calls, arguments.seconds)
        rows = ((kind, measure(kind, calls, arguments.seconds)) for kind in ("service", "+ tool"))
        for kind, row in (("bare", bare), *rows):
            print(
                f"{calls:>5} {kind:<8} {row['cpu_percent']:>6.0f} {row['cpu_ms']:>13.2f} "
                f"{row['cpu_ms'] / bare['cpu_ms']:>6.2f} {row['gap_p50']:>8.1f} {row['gap_p99']:>6.1f} "
                f"{row['gap_p999']:>6.1f} {row['gap_max']:>7.1f} {row['lost_up']:>8} {row['lost_down']:>5} "
                f"{row['rss']:>7.0f} {row['tools']:>6}",
                flush=True,
            )


if __name__ == "__main__":
    main()
