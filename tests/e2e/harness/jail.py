"""Programs of the fetched Debian tree, each in namespaces of its own.

A program sees the tree read-only, fresh /run and /tmp, and whatever directories are bound over the tree.
Mounts exist only inside its mount namespace and vanish with it. A ``Network`` is a network namespace joined
to this machine by a veth pair with addresses of its own; it vanishes with the small process that holds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

FETCH = Path(__file__).parent.parent / "fetch"

# The parent's death is the child's: nothing survives a killed test run.
_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")

# Asterisk and the phones are instruments here: on a busy machine their own lateness must not be measured.
# Where it is not allowed, `nice` says so and goes on.
_PRIORITY = ("nice", "-n", "-15")

_ENTER_TREE = """
tree=$1; log=$2; shift 2
mount --bind "$tree" "$tree"
mount -o remount,bind,ro "$tree"
mount --rbind /dev "$tree/dev"
mount -t proc proc "$tree/proc"
mount -t tmpfs tmpfs "$tree/run"
mount -t tmpfs tmpfs "$tree/tmp"
while [ "$1" != -- ]; do
  case "$2" in /run/*|/tmp/*) mkdir -p "$tree$2";; esac
  mount --bind "$1" "$tree$2"
  shift 2
done
shift
echo ready
exec >"$log" 2>&1
exec chroot "$tree" "$@"
"""


class JailError(Exception):
    """A program could not be started in the tree; the message says what the shell or ``ip`` said."""


def tree() -> Path:
    """Where ``fetch`` keeps the Debian tree."""
    return Path(_output([str(FETCH), "--where"]).strip())


def reason_not_to_run() -> str | None:
    """Why the tests of the real Asterisk cannot run here; None when they can."""
    done = subprocess.run([str(FETCH), "--check"], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr.strip().removeprefix("fetch: ")


class Network:
    """A network namespace with one interface, ``sip0``; ``host`` and ``peer`` are the two ends' addresses.

    Addresses come from 10.231.0.0/16, four for each network. The interface's name on this machine holds
    the number, and creating an interface fails when its name is taken: that is the lock between test runs.
    """

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            [*_DIE_WITH_PARENT, "unshare", "--net", "sh", "-c", "echo ready; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        _expect_ready(self._holder)
        self.number = self._plug_in()
        base = self.number * 4
        prefix = f"10.231.{base >> 8}."
        self.host, self.peer = f"{prefix}{(base & 255) + 1}", f"{prefix}{(base & 255) + 2}"
        self.interface = _interface(self.number)
        _ip(
            f"addr add {self.host}/30 dev {self.interface}",
            f"link set {self.interface} addrgenmode none up",
        )
        _ip(
            "link set lo up",
            f"addr add {self.peer}/30 dev sip0",
            "link set sip0 addrgenmode none up",
            f"route add default via {self.host}",
            inside=self.pid,
        )

    @property
    def pid(self) -> int:
        """The process that holds the namespace."""
        return self._holder.pid

    def _plug_in(self) -> int:
        for number in random.sample(range(1 << 14), 64):
            with contextlib.suppress(JailError):
                _ip(f"link add {_interface(number)} type veth peer name sip0 netns {self.pid}")
                return number
        raise JailError("no free network: is `ip link add ... type veth` allowed here?")

    def close(self) -> None:
        """End the namespace; the interface goes with it."""
        # The namespace is dismantled some time after its last process; the name shall be free at once.
        with contextlib.suppress(JailError):
            _ip(f"link del {self.interface}")
        _stop(self._holder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Jail:
    """One program of the tree. Start it from the main thread: it dies with the thread that started it."""

    def __init__(
        self, argv: Sequence[str], *, log: Path, binds: Mapping[str, Path], network: Network | None = None
    ) -> None:
        """``binds`` maps a path inside the tree to the directory that shall be seen there."""
        enter = ("nsenter", f"--net=/proc/{network.pid}/ns/net") if network else ()
        pairs = [part for inside, outside in binds.items() for part in (str(outside), inside)]
        self.log = log
        self._process = subprocess.Popen(
            [
                *_DIE_WITH_PARENT,
                *_PRIORITY,
                *enter,
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-e",
                "-c",
                _ENTER_TREE,
                "jail",
                str(tree()),
                str(log),
                *pairs,
                "--",
                *argv,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        _expect_ready(self._process)
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        """The program's own process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the program has not ended yet."""
        return self._process.poll() is None

    def command(self, *argv: str) -> list[str]:
        """The command line that runs ``argv`` beside the program, with the same view of the file system."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--root", "--wd", *argv]

    async def run(self, *argv: str) -> str:
        """Run ``argv`` beside the program and return what it printed."""
        return await asyncio.to_thread(_output, self.command(*argv))

    def kill(self) -> None:
        """End the program at once, by its own process id, and wait for its end."""
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> None:
        """Ask the program to end; kill it when it does not within 10 s."""
        _stop(self._process)


def _interface(number: int) -> str:
    return f"ariphone{number}"


def _ip(*commands: str, inside: int | None = None) -> None:
    enter = ["nsenter", f"--target={inside}", "--net"] if inside else []
    batch = "\n".join(commands) + "\n"
    done = subprocess.run(
        [*enter, "ip", "-batch", "-"], input=batch, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise JailError(f"ip: {done.stderr.strip()}")


def _output(argv: Sequence[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode != 0:
        raise JailError(
            f"{argv[0]}: exit code {done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
        )
    return done.stdout


def _expect_ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    if line != b"ready\n":
        rest = process.stdout.read()
        process.stdout.close()
        process.wait(10)
        raise JailError((line + rest).decode(errors="replace").strip() or "the program never started")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None and not pipe.closed:
            pipe.close()
