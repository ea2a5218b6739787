"""File descriptors in processes of their own, whose limits are low; the door when they run out."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from ari_gemini.audiosocket.descriptors import BASE_DESCRIPTORS, PER_CALL, needed, raise_limit

LIMITS = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
from ari_gemini.audiosocket.descriptors import room_for
print(*room_for({calls}, {connections}), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""

SERVE = """
import asyncio, resource, sys, uvloop
from ari_gemini.audiosocket.server import AudioSocketServer, AudioSocketSettings
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

async def main():
    settings = AudioSocketSettings(
        listen="127.0.0.1:0", uuid_timeout=60, max_unidentified={most}, max_unidentified_per_address={most}
    )
    server = AudioSocketServer(settings, lambda connection: connection.close())
    await server.start()
    print(server.port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

{run}(main())
"""


def run(code: str) -> tuple[list[str], str]:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    *log, last = done.stdout.splitlines()
    return last.split(), "\n".join(log) + done.stderr


def test_the_soft_limit_is_raised_as_far_as_it_takes() -> None:
    (room, limit), log = run(LIMITS.format(soft=256, hard=4096, calls=10, connections=500))
    assert int(room) == 500
    assert int(limit) == needed(10, 500) == BASE_DESCRIPTORS + 10 * PER_CALL + 500
    assert log == ""


def test_it_is_never_lowered() -> None:
    (room, limit), log = run(LIMITS.format(soft=1500, hard=4096, calls=10, connections=500))
    assert (int(room), int(limit), log) == (500, 1500, "")


def test_a_hard_limit_leaves_room_for_fewer_and_says_so() -> None:
    (room, limit), log = run(LIMITS.format(soft=256, hard=512, calls=100, connections=500))
    assert int(limit) == 512
    assert int(room) == 512 - BASE_DESCRIPTORS - 100 * PER_CALL
    assert "file descriptors are few" in log
    assert f"calls={room}" in log, "no more than media connections"


def test_every_door_is_counted() -> None:
    (*rooms, limit), log = run(LIMITS.format(soft=256, hard=4096, calls=10, connections="500, 1024, 512"))
    assert rooms == ["500", "1024", "512"]
    assert int(limit) == needed(10, 500, 1024, 512) == BASE_DESCRIPTORS + 10 * PER_CALL + 500 + 1024 + 512
    assert log == ""


def test_a_hard_limit_is_shared_by_the_doors() -> None:
    (*rooms, limit), log = run(LIMITS.format(soft=256, hard=1024, calls=50, connections="600, 1024, 512"))
    assert int(limit) == 1024
    left = 1024 - BASE_DESCRIPTORS - 50 * PER_CALL
    assert [int(room) for room in rooms] == [left * door // (600 + 1024 + 512) for door in (600, 1024, 512)]
    assert needed(50, *map(int, rooms)) <= 1024
    assert "calls=50" in log


def test_a_limit_that_fits_nothing_leaves_one() -> None:
    (room, _), log = run(LIMITS.format(soft=64, hard=64, calls=100, connections=500))
    assert int(room) == 1
    assert "calls=0" in log


def test_enough_stays_as_it_is() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert raise_limit(1) >= 1
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


@contextmanager
def door(run: str, most: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server in a process that may have 64 descriptors, and its port."""
    code = SERVE.format(run=run, most=most)
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # asyncio fills it
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            while not (line := process.stdout.readline().strip()).isdigit():
                assert line, "the server has ended"
            yield process, int(line)
        finally:
            process.kill()


def crowd(stack: ExitStack, port: int, count: int) -> list[socket.socket]:
    """So many peers from 127.0.0.2 who say nothing."""
    return [
        stack.enter_context(socket.create_connection(("127.0.0.1", port), 30, ("127.0.0.2", 0)))
        for _ in range(count)
    ]


def is_taken(port: int) -> bool:
    """Whether a peer from 127.0.0.1 is let in and listened to: what it says is closed in a proper way."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as peer:
        try:
            peer.sendall(b"\x01\x00\x10" + bytes(16))
            return peer.recv(1) == b""
        except ConnectionError:
            return False


@pytest.mark.parametrize("run", ["asyncio.run", "uvloop.run"])
def test_a_bound_below_the_limit_keeps_the_door_open(run: str) -> None:
    with door(run, most=20) as (process, port), ExitStack() as stack:
        crowd(stack, port, 200)
        assert not process.poll()


@pytest.mark.parametrize("run", ["asyncio.run", "uvloop.run"])
def test_a_door_out_of_descriptors_is_as_good_as_new_when_there_are_some(run: str) -> None:
    with door(run, most=1000) as (process, port):
        with ExitStack() as stack:
            crowd(stack, port, 200)
        for _ in range(100):
            if is_taken(port):
                break
        else:
            pytest.fail("the door stays shut")
        assert process.poll() is None
