"""The store in a directory: whole records, private ones, and whatever else may lie there."""

# ruff: noqa: ASYNC240  # nothing else waits for this loop

from __future__ import annotations

import asyncio
import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.states import state

from ari_gemini.errors import StateError, StateUnavailable
from ari_gemini.state.directory import TEMPORARY_LIFETIME, DirectoryStore
from ari_gemini.state.record import MAX_BYTES, decode, encode
from ari_gemini.state.store import key_of

ROOT = Path(__file__).resolve().parents[2]
CALL = "1700000000.1"


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def at(tmp_path: Path) -> Path:
    return tmp_path / "made" / "calls"


@pytest.fixture
def store(at: Path, clock: Clock) -> Iterator[DirectoryStore]:
    opened = DirectoryStore(at, lifetime=7200, timeout=10, clock=clock)
    yield opened
    opened._workers.close()


def record(at: Path, call: str = CALL) -> Path:
    return at / f"{key_of(call)}.json"


def names(at: Path) -> list[str]:
    return sorted(path.name for path in at.iterdir())


async def test_nothing_is_made_before_the_first_record(store: DirectoryStore, at: Path) -> None:
    assert await store.load(CALL) is None
    await store.delete(CALL)
    assert not at.parent.exists()


async def test_nobody_else_can_read(store: DirectoryStore, at: Path) -> None:
    before = os.umask(0)
    try:
        await store.save(state())
    finally:
        os.umask(before)
    assert stat.S_IMODE(at.stat().st_mode) == 0o700
    assert stat.S_IMODE(record(at).stat().st_mode) == 0o600
    assert names(at) == [record(at).name], "nothing unfinished is left"


async def test_another_process_reads_it(store: DirectoryStore, at: Path) -> None:
    await store.save(state())
    other = DirectoryStore(at, timeout=10, clock=store._clock)
    assert await other.load(CALL) == state()
    await other.close()


async def test_records_expire(store: DirectoryStore, clock: Clock) -> None:
    await store.save(state())
    clock.now += 7200
    assert await store.load(CALL) is not None
    clock.now += 1
    assert await store.load(CALL) is None
    clock.now -= 3 * 7200
    assert await store.load(CALL) is None, "a clock that was set back makes nothing last"


async def test_what_has_expired_is_swept_and_nothing_else(
    store: DirectoryStore, at: Path, clock: Clock
) -> None:
    await store.save(state("old"))
    key, digits = key_of("x"), "0" * 16
    foreign = [
        "README",
        f"{key}.json.bak",
        f".{key}.json",
        f"{key}.json.{digits}",
        f"x{key}.json",
        "..json",
        f"{key.upper()}X.json",
    ]
    unfinished = at / f".{key}.json.{digits}"
    for name in [*foreign, unfinished.name]:
        (at / name).write_text("mine")
        os.utime(at / name, (clock.now, clock.now))
    (at / f"{key}.json").mkdir()
    link = at / f"{key_of('link')}.json"
    link.symlink_to(at / "README")
    clock.now += TEMPORARY_LIFETIME
    await store.sweep()
    assert unfinished.exists(), "not so soon"
    clock.now += 1
    await store.sweep()
    assert not unfinished.exists()
    clock.now += 7200 - TEMPORARY_LIFETIME - 1
    await store.save(state())
    await store.sweep()
    assert record(at, "old").exists(), "it would still be loaded"
    clock.now += 1
    await store.sweep()
    assert names(at) == sorted([*foreign, f"{key}.json", link.name, record(at).name])


async def test_however_many_there_are(store: DirectoryStore, at: Path) -> None:
    """Those of calls that are up must not hide one that has expired, wherever in the listing it is."""
    await store.save(state())
    for number in range(5000):
        record(at, f"call {number}").touch()
        os.utime(record(at, f"call {number}"), (store._clock(), store._clock()))
    stale = [record(at, f"call {number}") for number in range(0, 5000, 10)]
    for path in stale:
        os.utime(path, (0, 0))
    await store.sweep()
    assert len(names(at)) == 5001 - len(stale)
    assert not any(path.exists() for path in stale)


async def test_nothing_to_sweep_makes_nothing(store: DirectoryStore, at: Path) -> None:
    await store.sweep()
    assert not at.parent.exists()


async def test_what_cannot_be_removed_keeps_nothing_else_and_is_said(
    store: DirectoryStore, at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.save(state())
    for name in "abc":
        record(at, name).touch()
        os.utime(record(at, name), (0, 0))
    unlink, gone = os.unlink, record(at, "b").name

    def stubborn(name: str, *, dir_fd: int) -> None:
        if name == record(at, "a").name:
            raise OSError(errno.EACCES, "Permission denied")
        unlink(name, dir_fd=dir_fd)
        if name == gone:
            raise FileNotFoundError  # somebody else was faster

    monkeypatch.setattr(os, "unlink", stubborn)
    with pytest.raises(StateUnavailable, match="Permission denied"):
        await store.sweep()
    assert names(at) == sorted([record(at).name, record(at, "a").name])
    monkeypatch.undo()
    await store.sweep()
    assert names(at) == [record(at).name]


async def test_a_sweep_that_hangs_holds_neither_loop_nor_calls(at: Path) -> None:
    hangs, let_go = threading.Event(), threading.Event()

    class Hanging(DirectoryStore):
        def _sweep(self) -> None:
            hangs.set()
            let_go.wait(10)

    store = Hanging(at, timeout=10)
    sweeping = asyncio.create_task(store.sweep())
    await until(hangs)
    await store.save(state())
    assert await store.load(CALL) == state()
    sweeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sweeping
    assert not let_go.is_set()
    let_go.set()
    await store.close()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\0" * 500, b"x" * (MAX_BYTES + 100), encode(state("another")), encode(state())[:-1]],
    ids=["empty", "torn", "zeros", "long", "of another call", "one short"],
)
async def test_what_is_no_record_of_the_call_is_a_state_error(
    store: DirectoryStore, at: Path, clock: Clock, content: bytes
) -> None:
    await store.save(state())
    record(at).write_bytes(content)
    os.utime(record(at), (clock.now, clock.now))
    with pytest.raises(StateError) as wrong:
        await store.load(CALL)
    assert not isinstance(wrong.value, StateUnavailable)
    await store.save(state())
    assert await store.load(CALL) == state(), "it is replaced"


async def test_a_link_in_the_place_of_a_record_is_not_followed(
    store: DirectoryStore, at: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(encode(state()))
    at.mkdir(parents=True)
    record(at).symlink_to(victim)
    with pytest.raises(StateError):
        await store.load(CALL)
    await store.save(state(greeted=False))
    assert victim.read_bytes() == encode(state())
    assert not record(at).is_symlink()
    record(at).unlink()
    record(at).symlink_to(victim)
    await store.delete(CALL)
    assert victim.exists()


async def test_a_pipe_in_the_place_of_a_record_holds_nobody(store: DirectoryStore, at: Path) -> None:
    at.mkdir(parents=True)
    os.mkfifo(record(at))
    with pytest.raises(StateError, match="no file of this user"):
        await store.load(CALL)


async def test_a_directory_that_is_a_link_is_refused(store: DirectoryStore, at: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    at.parent.mkdir()
    at.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateUnavailable):
        await store.save(state())
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
async def test_a_directory_that_others_write_to_is_refused(
    store: DirectoryStore, at: Path, mode: int
) -> None:
    at.mkdir(parents=True)
    at.chmod(mode)
    for operation in (store.save(state()), store.load(CALL), store.delete(CALL), store.sweep()):
        with pytest.raises(StateUnavailable, match="writable by nobody else"):
            await operation
    assert names(at) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
async def test_a_directory_of_another_user_is_refused(store: DirectoryStore, at: Path) -> None:
    at.mkdir(parents=True, mode=0o700)
    os.chown(at, 65534, 65534)
    with pytest.raises(StateUnavailable, match="must belong to this user"):
        await store.save(state())


async def test_a_file_in_the_place_of_the_directory(store: DirectoryStore, at: Path) -> None:
    at.parent.mkdir()
    at.write_text("")
    for operation in (store.save(state()), store.load(CALL), store.delete(CALL), store.sweep()):
        with pytest.raises(StateUnavailable):
            await operation


async def test_a_directory_that_vanished_is_made_again(store: DirectoryStore, at: Path) -> None:
    await store.save(state())
    record(at).unlink()
    at.rmdir()
    assert await store.load(CALL) is None
    await store.save(state())
    assert await store.load(CALL) == state()


async def test_descriptors_are_given_back(store: DirectoryStore, at: Path, clock: Clock) -> None:
    async def use() -> None:
        await store.save(state())
        await store.load(CALL)
        await store.load("none")
        await store.sweep()
        record(at).write_bytes(b"")
        os.utime(record(at), (clock.now, clock.now))
        with pytest.raises(StateError):
            await store.load(CALL)
        await store.delete(CALL)
        at.chmod(0o777)
        with pytest.raises(StateUnavailable):
            await store.load(CALL)
        at.chmod(0o700)

    await use()
    before = os.listdir("/proc/self/fd")
    for _ in range(5):
        await use()
    assert len(os.listdir("/proc/self/fd")) <= len(before)


def mounted(at: Path, options: str, script: str) -> subprocess.CompletedProcess[str]:
    """Run ``script`` in a mount namespace of its own, with a small file system on ``at``."""
    inside = textwrap.dedent(script)
    command = f'mount -t tmpfs -o {options} none "{at}" && exec "{sys.executable}" -c "$SCRIPT" "{at}"'
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", command],
        cwd=ROOT / "tests",
        env={**os.environ, "SCRIPT": inside, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def may_mount() -> bool:
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return os.geteuid() == 0 and tried.returncode == 0


COMMON = """
import asyncio, os, subprocess, sys
from pathlib import Path
from support.states import state
from ari_gemini.errors import StateUnavailable
from ari_gemini.state.directory import DirectoryStore

at = Path(sys.argv[1])
store = DirectoryStore(at / "calls", timeout=10)

async def fails(operation):
    try:
        await operation
    except StateUnavailable as error:
        return str(error)
    raise AssertionError("it worked")
"""


@pytest.mark.skipif(not may_mount(), reason="needs root and mount namespaces")
def test_a_full_disk_leaves_what_was(tmp_path: Path) -> None:
    done = mounted(
        tmp_path,
        "size=64k,mode=0700",
        COMMON
        + """
async def main():
    await store.save(state())
    with open(at / "ballast", "wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError:
            pass
    print(await fails(store.save(state(greeted=False))))
    assert await store.load("1700000000.1") == state()
    assert len(os.listdir(at / "calls")) == 1, os.listdir(at / "calls")
    os.unlink(at / "ballast")
    await store.save(state(greeted=False))
    assert await store.load("1700000000.1") == state(greeted=False)
asyncio.run(main())
""",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/calls: No space left on device\n"


@pytest.mark.skipif(not may_mount(), reason="needs root and mount namespaces")
def test_a_directory_that_became_read_only_is_still_read(tmp_path: Path) -> None:
    done = mounted(
        tmp_path,
        "mode=0700",
        COMMON
        + """
async def main():
    await store.save(state())
    subprocess.run(["mount", "-o", "remount,ro", str(at)], check=True)
    print(await fails(store.save(state(greeted=False))))
    print(await fails(store.delete("1700000000.1")))
    assert await store.load("1700000000.1") == state()
    print(await fails(DirectoryStore(at / "new", timeout=10).save(state())))
asyncio.run(main())
""",
    )
    assert done.returncode == 0, done.stderr
    assert [line.partition(": ")[2] for line in done.stdout.splitlines()] == ["Read-only file system"] * 3


WRITER = """
import asyncio, sys
from pathlib import Path
from support.states import state
from ari_gemini.state.directory import DirectoryStore

async def main():
    store = DirectoryStore(Path(sys.argv[1]), timeout=10)
    number = int(sys.argv[2])
    while True:
        text = str(number) * (20_000 // len(str(number)))
        await store.save(state(budgets={"n": number}, values={"a": text[:1000]}, fingerprint=text))
        print(number, flush=True)
        number += 1

asyncio.run(main())
"""


def test_kill_9_in_the_middle_leaves_the_old_or_the_new_record(at: Path) -> None:
    number = 0
    for attempt in range(12):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(at), str(number)],
            cwd=ROOT / "tests",
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        # each attempt strikes after another count of writes, wherever the writer is by then
        for _ in range(1 + attempt * 3):
            assert writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
        rest, _ = writer.communicate()
        found = decode(record(at).read_bytes())
        confirmed = number + attempt * 3 + len(rest.splitlines())
        assert found.budgets["n"] in (confirmed, confirmed + 1)
        assert found.fingerprint == str(found.budgets["n"]) * (20_000 // len(str(found.budgets["n"])))
        number = found.budgets["n"] + 1


async def until(happened: threading.Event) -> None:
    while not happened.is_set():  # noqa: ASYNC110  # it is a thread that sets it
        await asyncio.sleep(0.001)


class SlowDisk(DirectoryStore):
    """A disk on which the first record takes until it is let go."""

    def __init__(self, at: Path, timeout: float) -> None:
        super().__init__(at, timeout=timeout)
        self.begun, self.let_go, self.ended = threading.Event(), threading.Event(), threading.Event()

    def _replace(self, directory: int, name: str, data: bytes, given_up: threading.Event) -> None:
        if self.begun.is_set():
            super()._replace(directory, name, data, given_up)
            return
        self.begun.set()
        self.let_go.wait(10)
        try:
            super()._replace(directory, name, data, given_up)
        finally:
            self.ended.set()


@pytest.mark.parametrize("then", ["save", "delete"])
async def test_a_write_that_was_given_up_undoes_nothing_later(at: Path, then: str) -> None:
    store = SlowDisk(at, timeout=10)
    slow = asyncio.create_task(store.save(state(agent="slow")))
    await until(store.begun)
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    await store.save(state(agent="young"))
    if then == "delete":
        await store.delete(CALL)
    store.let_go.set()
    await until(store.ended)
    found = await store.load(CALL)
    assert (found and found.agent) == ("young" if then == "save" else None)
    assert names(at) == ([record(at).name] if then == "save" else [])
    await store.close()


async def test_a_disk_that_hangs_is_waited_for_so_long(at: Path) -> None:
    store = SlowDisk(at, timeout=0.01)
    with pytest.raises(StateUnavailable, match=r"no answer within 0\.01 s"):
        await store.save(state())
    store.let_go.set()
    await until(store.ended)
    assert names(at) == []
    await store.close()
