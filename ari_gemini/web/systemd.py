"""What systemd wants to know of a service of ``Type=notify`` (sd_notify(3)): a datagram to its socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from typing import Final

import structlog

VARIABLE: Final = "NOTIFY_SOCKET"
"""Environment variable that names the socket; who is not started by systemd does not have it."""
WATCHDOG_USEC: Final = "WATCHDOG_USEC"
"""Environment variable: within so many microseconds systemd wants to hear that the service lives."""
WATCHDOG_PID: Final = "WATCHDOG_PID"
"""Environment variable: the process that this is meant for."""

log = structlog.get_logger(__name__)


def notify(environ: Mapping[str, str], *assignments: str) -> bool:
    """Tell systemd, as in ``READY=1``. Never waits and never raises; False: nobody was told."""
    address = environ.get(VARIABLE, "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):  # the abstract namespace, unix(7)
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(assignments).encode(), address)
    except OSError as error:
        log.warning("! systemd was not told", error=error.strerror or str(error))
        return False
    return True


def stopping(seconds: float) -> tuple[str, str]:
    """The service is stopping and may take so long, whatever ``TimeoutStopSec`` says."""
    return "STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}"


def watchdog_period(environ: Mapping[str, str]) -> float | None:
    """Seconds between two signs of life: half of what systemd waits for, as sd_watchdog_enabled(3) advises.
    None: it does not watch this process."""
    wanted, process = environ.get(WATCHDOG_USEC, ""), environ.get(WATCHDOG_PID, "")
    if not (wanted.isascii() and wanted.isdecimal() and int(wanted)) or process not in {"", str(os.getpid())}:
        return None
    return int(wanted) / 1e6 / 2


async def stay_alive(environ: Mapping[str, str]) -> None:
    """Give signs of life until cancelled, if systemd wants any: an event loop that hangs gives none."""
    period = watchdog_period(environ)
    if period is None or not environ.get(VARIABLE):
        return
    while True:
        notify(environ, "WATCHDOG=1")
        await asyncio.sleep(period)
