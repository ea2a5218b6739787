"""TLS towards a service: whose certificates are believed."""

from __future__ import annotations

import asyncio
import functools
import ssl
from pathlib import Path

from ari_gemini.errors import SessionRefused


async def client_tls(ca_file: Path | None) -> ssl.SSLContext:
    """A context that trusts the authorities in ``ca_file`` (PEM) and no others; None: those of the system.

    Raises SessionRefused when the file cannot be read. Cancelling leaves nothing behind.
    """
    try:
        # Reading the certificate authorities takes 20 ms: in a thread, lest every call hear it, and once.
        return await asyncio.to_thread(_context, str(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as exc:
        raise SessionRefused(f"cannot read certificates from {ca_file}: {exc}") from exc


@functools.lru_cache(maxsize=8)  # one for each ca_file in use
def _context(ca_file: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)
