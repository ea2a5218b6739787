"""Which addresses a request may go to: public ones, and what the operator lists. Pure.

Python's ``ipaddress.is_global`` is not asked: it changes with Python's version, takes multicast for global,
and does not look at the IPv4 address inside an IPv6 one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

NOT_PUBLIC: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        # IANA IPv4 Special-Purpose Address Registry (RFC 6890), without what is globally reachable
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private (RFC 1918)
        "100.64.0.0/10",  # shared by carrier-grade NAT (RFC 6598); Alibaba's metadata at 100.100.100.200
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local (RFC 3927); the clouds' metadata at 169.254.169.254
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata at 192.0.0.192
        "192.0.2.0/24",  # documentation (RFC 5737)
        "192.88.99.0/24",  # relays of 6to4 (RFC 7526)
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks (RFC 2544)
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast (RFC 5771)
        "240.0.0.0/4",  # reserved, and the limited broadcast
        "168.63.129.16/32",  # Azure's wire server, which is in no registry
        # IANA IPv6 Special-Purpose Address Registry, as far as it lies in GLOBAL_UNICAST
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID (RFC 2928)
        "2001:db8::/32",  # documentation (RFC 3849)
        "2002::/16",  # 6to4 (RFC 3056)
        "3fff::/20",  # documentation (RFC 9637)
    )
)

GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All that IANA has given out for it (RFC 4291, section 2.4). Mapped, compatible and translated addresses,
loopback, unique local (AWS's metadata at fd00:ec2::254), link-local and multicast lie outside."""

_LOW_32 = (
    IPv6Network("::/96"),  # IPv4-compatible (RFC 4291, section 2.5.5.1)
    IPv6Network("::ffff:0:0/96"),  # IPv4-mapped (section 2.5.5.2)
    IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated (RFC 2765, section 2.1)
    IPv6Network("64:ff9b::/96"),  # NAT64 (RFC 6052, section 2.1)
)
"""Prefixes whose last 32 bits are an IPv4 address."""


def may_contact(address: Address, networks: Iterable[Network] = ()) -> bool:
    """Whether ``address`` is public or in ``networks``, and so is every IPv4 address that is part of it.

    An IPv6 form of an IPv4 address is never public by itself: where NAT64 is in use, list ``64:ff9b::/96``;
    what it leads to must then be public or listed as well. An own NAT64 prefix of the network cannot be told
    from other addresses. An address with a zone (``fe80::1%eth0``) is always refused.
    """
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return False
    listed = tuple(networks)
    return all(is_public(part) or is_listed(part, listed) for part in (address, *embedded(address)))


def is_public(address: Address) -> bool:
    """Whether ``address`` itself is reachable from everywhere."""
    if isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST:
        return False
    return not is_listed(address, NOT_PUBLIC)


def is_listed(address: Address, networks: Iterable[Network]) -> bool:
    """Whether ``address`` is in one of ``networks``; those of the other version do not count."""
    return any(address in network for network in networks)


def embedded(address: Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses inside an IPv6 one, to which routers may translate or tunnel."""
    if isinstance(address, IPv4Address):
        return
    if any(address in network for network in _LOW_32):
        yield IPv4Address(address.packed[12:])
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:  # server and client (RFC 4380, section 4)
        yield from address.teredo


def read_address(text: str) -> Address | None:
    """The address that ``text`` spells canonically, as a resolver returns it, else None."""
    try:
        return ip_address(text)
    except ValueError:
        return None
