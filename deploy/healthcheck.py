"""Exit code 0 while the service lives.

With ``ARI_GEMINI__HEALTH__LISTEN`` in the environment it asks ``GET /live`` there. Not ``/ready``: a service
without its Asterisk, or one that is stopping, is not mended by starting it anew.

Without, something in this network namespace must listen on the AudioSocket port. It asks the kernel
(proc_pid_net(5), ``tcp`` and ``tcp6``) and connects nowhere: a connection that never says its UUID would be
turned away and logged as a fault, four times a minute.
"""

import http.client
import os
import sys
from collections.abc import Iterator
from pathlib import Path

LISTEN = "0A"
"""TCP_LISTEN in the kernel's include/net/tcp_states.h."""


ANSWER_SECONDS = 2.0
"""Less than the container's own patience with this script."""


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


def lives(listen: str) -> bool:
    """Whether the health endpoint at ``host:port`` answers 200, within 2 s."""
    host, _, port = listen.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104  # not bound
    connection = http.client.HTTPConnection(host, int(port), timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/live")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main() -> int:
    """0: healthy. 1: not."""
    health = os.environ.get("ARI_GEMINI__HEALTH__LISTEN", "")
    if health:
        if lives(health):
            return 0
        print(f"no answer at http://{health}/live", file=sys.stderr)
        return 1
    port = int(os.environ.get("ARI_GEMINI__AUDIOSOCKET__LISTEN", "127.0.0.1:9092").rpartition(":")[2])
    if port in listening(tables()):
        return 0
    print(f"nobody listens on port {port}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
