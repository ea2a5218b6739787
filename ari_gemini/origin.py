"""Where a peer comes from: whoever counts peers by address counts these."""

from __future__ import annotations

import ipaddress


def network(address: str) -> str:
    """Whom an address stands for: an IPv6 host has a whole /64 to itself (RFC 4291, section 2.5.4).

    What is no IP address stands for itself.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))
