"""Exit code 0 while something in this network namespace listens on the AudioSocket port.

It asks the kernel (proc_pid_net(5), ``tcp`` and ``tcp6``) and connects nowhere: a connection that never says
its UUID would be turned away and logged as a fault, four times a minute.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

LISTEN = "0A"
"""TCP_LISTEN in the kernel's include/net/tcp_states.h."""


def listening(tables: Iterator[str]) -> set[int]:
    """Ports in state LISTEN. Each table's first line is its heading."""
    ports = set()
    for table in tables:
        for line in table.splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == LISTEN:
                ports.add(int(local.rpartition(":")[2], 16))
    return ports


def tables() -> Iterator[str]:
    """What the kernel says of IPv4 and, where it is built in, of IPv6."""
    for name in ("tcp", "tcp6"):
        path = Path("/proc/self/net", name)
        if path.exists():
            yield path.read_text()


def main() -> int:
    """0: healthy. 1: nobody listens."""
    port = int(os.environ.get("ARI_GEMINI__AUDIOSOCKET__LISTEN", "127.0.0.1:9092").rpartition(":")[2])
    if port in listening(tables()):
        return 0
    print(f"nobody listens on port {port}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
