"""Ports for servers that are started later."""

from __future__ import annotations

import random
import socket

BELOW_EPHEMERAL = range(20_000, 32_000)
"""Linux hands out 32768 and up (``ip_local_port_range``): a port from there, found free and given back, may
be somebody else's a moment later."""


def free_port(host: str = "127.0.0.1") -> int:
    """One that nobody listens at, and that the kernel gives to nobody by itself."""
    for port in random.SystemRandom().sample(BELOW_EPHEMERAL, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port on {host}")
