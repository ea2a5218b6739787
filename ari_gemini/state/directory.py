"""Call states as files of one directory: outlives the process, needs nothing set up, serves one machine.

A record is written beside its place and renamed into it, so that it is there wholly or not at all, whenever
the process is killed. It is not flushed to the disk, for it is to outlive a process, not the machine: with
that its calls go, too, and what is left of a file then is found to be unreadable, or has expired.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ari_gemini.errors import StateError, StateUnavailable
from ari_gemini.state.record import MAX_BYTES, CallState, decode, encode
from ari_gemini.state.store import LIFETIME, TIMEOUT, key_of, within
from ari_gemini.state.workers import Workers

THREADS = 4
"""A write takes a tenth of a millisecond: enough for hundreds of calls that each write twice a second."""
TEMPORARY_LIFETIME = 60.0
"""Seconds until an unfinished file is swept: its writer was killed, for writing takes ``TIMEOUT`` at most."""

_OURS = re.compile(r"(?P<temporary>\.)?[0-9a-f]{64}\.json(?(temporary)\.[0-9a-f]{16})")
_CLOSE = os.O_CLOEXEC | os.O_NOFOLLOW

T = TypeVar("T")


class DirectoryStore:
    """A StateStore in ``directory``, which is made (mode 0700) when first written to.

    One that exists must belong to this user and be writable by nobody else. What else is in it is left alone,
    and no symbolic link is followed. ``clock`` gives UTC seconds.
    """

    def __init__(
        self,
        directory: Path,
        *,
        lifetime: float = LIFETIME,
        timeout: float = TIMEOUT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._lifetime = lifetime
        self._timeout = timeout
        self._clock = clock
        self._workers = Workers(THREADS)
        self._committing = threading.Lock()

    async def save(self, state: CallState) -> None:
        """See StateStore."""
        given_up = threading.Event()
        try:
            await self._run(self._write, _name(state.call_id), encode(state), given_up)
        finally:
            given_up.set()

    async def load(self, call_id: str) -> CallState | None:
        """See StateStore."""
        data = await self._run(self._read, _name(call_id))
        if data is None:
            return None
        state = decode(data)
        if state.call_id != call_id:
            raise StateError("the record is that of another call")
        return state

    async def delete(self, call_id: str) -> None:
        """See StateStore."""
        await self._run(self._remove, _name(call_id))

    async def sweep(self) -> None:
        """See StateStore. What cannot be removed does not keep the rest, and is for the next sweep.

        Without a time limit: on a disk that hangs the next sweep must not take another thread.
        """
        try:
            await self._workers.run(self._sweep)
        except OSError as error:
            raise self._unavailable(error) from error

    async def close(self) -> None:
        """See StateStore."""
        self._workers.close()

    async def _run(self, function: Callable[..., T], *args: object) -> T:
        try:
            async with within(self._timeout):
                return await self._workers.run(function, *args)
        except OSError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: OSError) -> StateUnavailable:
        return StateUnavailable(f"{self._directory}: {error.strerror or error}")

    # What follows runs in threads.

    def _write(self, name: str, data: bytes, given_up: threading.Event) -> None:
        directory = self._open(create=True)
        try:
            self._replace(directory, name, data, given_up)
        finally:
            os.close(directory)

    def _replace(self, directory: int, name: str, data: bytes, given_up: threading.Event) -> None:
        temporary = f".{name}.{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOSE
        now = self._clock()
        try:
            with open(os.open(temporary, flags, 0o600, dir_fd=directory), "wb") as file:
                file.write(data)
                file.flush()
                os.utime(file.fileno(), (now, now))
            with self._committing:
                # a write that was slow must not come after a younger one, nor after the record's removal
                if given_up.is_set():
                    raise TimeoutError(errno.ETIMEDOUT, "given up")
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=directory)
            raise

    def _read(self, name: str) -> bytes | None:
        try:
            directory = self._open()
            try:
                # a pipe in the place of the record must not hold the reader
                flags = os.O_RDONLY | os.O_NONBLOCK | _CLOSE
                with open(os.open(name, flags, dir_fd=directory), "rb") as file:
                    found = os.fstat(file.fileno())
                    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                        raise StateError("the record is no file of this user")
                    return None if self._age(found) > self._lifetime else file.read(MAX_BYTES + 1)
            finally:
                os.close(directory)
        except FileNotFoundError:
            return None

    def _remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            directory = self._open()
            try:
                with self._committing:
                    os.unlink(name, dir_fd=directory)
            finally:
                os.close(directory)

    def _open(self, *, create: bool = False) -> int:
        """A descriptor of the directory. Opened each time: an operator may have replaced it."""
        if create:
            self._directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._directory.mkdir(exist_ok=True, mode=0o700)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | _CLOSE)
        found = os.fstat(directory)
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            os.close(directory)
            raise PermissionError(errno.EPERM, "must belong to this user and be writable by nobody else")
        return directory

    def _age(self, found: os.stat_result) -> float:
        """Seconds since it was written; a clock that was set back makes nothing last longer."""
        return abs(self._clock() - found.st_mtime)

    def _sweep(self) -> None:
        failure: OSError | None = None
        with suppress(FileNotFoundError):
            directory = self._open()
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        try:
                            if self._has_expired(entry):
                                os.unlink(entry.name, dir_fd=directory)
                        except FileNotFoundError:
                            pass  # its call has ended, or another worker's sweep was faster
                        except OSError as error:
                            failure = failure or error
            finally:
                os.close(directory)
        if failure is not None:
            raise failure

    def _has_expired(self, entry: os.DirEntry[str]) -> bool:
        ours = _OURS.fullmatch(entry.name)
        if ours is None:
            return False
        found = entry.stat(follow_symlinks=False)
        lifetime = TEMPORARY_LIFETIME if ours["temporary"] else self._lifetime
        return stat.S_ISREG(found.st_mode) and self._age(found) > lifetime


def _name(call_id: str) -> str:
    return f"{key_of(call_id)}.json"
