from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ari_gemini.tools.address import NOT_PUBLIC, embedded, is_public, may_contact, read_address

PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "168.63.129.15", "2606:4700::1111", "2a00:1450:4001::200e"]
REFUSED = {
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fd00::1", "fc00::1"],
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "link-local": ["169.254.0.1", "fe80::1", "fe80::1%eth0", "febf::1"],
    "carrier-grade NAT": ["100.64.0.1", "100.127.255.255"],
    "multicast": ["224.0.0.1", "239.255.255.250", "ff02::1", "ff0e::1"],
    "reserved": ["240.0.0.1", "255.255.255.255", "0.1.2.3", "5f00::1", "4000::1"],
    "unspecified": ["0.0.0.0", "::"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "benchmarks": ["198.18.0.1", "198.19.255.255", "2001:2::1"],
    "site-local": ["fec0::1"],
    "metadata": [
        *("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
        "fd20:ce::254",
    ],
    "mapped": ["::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:a00:1"],
    "compatible": ["::127.0.0.1", "::8.8.8.8"],
    "translated": ["::ffff:0:7f00:1"],
    "NAT64": ["64:ff9b::127.0.0.1", "64:ff9b::8.8.8.8", "64:ff9b:1::7f00:1"],
    "6to4": ["2002:7f00:1::1", "2002:808:808::1"],
    "Teredo": ["2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001::1"],
}


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses(text: str) -> None:
    assert may_contact(ip_address(text))


@pytest.mark.parametrize("text", [text for texts in REFUSED.values() for text in texts])
def test_refused_unless_listed(text: str) -> None:
    address = ip_address(text)
    assert not may_contact(address)
    assert not may_contact(address, [ip_network("192.0.2.99"), ip_network("2001:db8::99")])


@pytest.mark.parametrize(
    ("text", "network", "allowed"),
    [
        ("10.1.2.3", "10.1.0.0/16", True),
        ("10.2.2.3", "10.1.0.0/16", False),
        ("fd00::1", "fd00::/8", True),
        ("169.254.169.254", "169.254.169.254", True),
        ("fe80::1%eth0", "fe80::/10", False),
        # the form must be listed, and what it leads to must be allowed as well
        ("64:ff9b::8.8.8.8", "64:ff9b::/96", True),
        ("64:ff9b::127.0.0.1", "64:ff9b::/96", False),
        ("::ffff:127.0.0.1", "127.0.0.0/8", False),
        ("::ffff:127.0.0.1", "::ffff:0:0/96", False),
        ("::127.0.0.1", "::/96", False),
        ("2002:7f00:1::1", "2002::/16", False),
        ("2002:808:808::1", "2002::/16", True),
        # the client of Teredo stands there inverted
        ("2001:0:808:808:0:0:80ff:fffe", "2001::/32", False),
        ("2001:0:808:808:0:0:f7f7:f7f7", "2001::/32", True),
    ],
)
def test_listed_networks(text: str, network: str, allowed: bool) -> None:
    assert may_contact(ip_address(text), [ip_network(network)]) is allowed


def test_a_mapped_address_needs_both() -> None:
    networks = [ip_network("::ffff:0:0/96"), ip_network("127.0.0.0/8")]
    assert may_contact(ip_address("::ffff:127.0.0.1"), networks)
    assert list(embedded(ip_address("::ffff:127.0.0.1"))) == [IPv4Address("127.0.0.1")]


@pytest.mark.parametrize(
    "text", ["", "localhost", "127.1", "0177.0.0.1", "0x7f.0.0.1", "2130706433", "1.2.3.4 "]
)
def test_what_is_no_canonical_address(text: str) -> None:
    assert read_address(text) is None


# What ipaddress takes for global, depending on Python's version, and we do not.
STRICTER = [
    *(network for network in NOT_PUBLIC if network.version == 4),
    *map(ip_network, ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"]),
    ip_network("::/3"),
    *(IPv6Network((first << 125, 3)) for first in range(2, 8)),
]


@settings(deadline=None, max_examples=500)
@given(
    st.one_of(
        st.integers(0, 2**32 - 1).map(IPv4Address),
        st.integers(0, 2**128 - 1).map(IPv6Address),
        st.integers(0, 2**125 - 1).map(lambda low: IPv6Address(low | 1 << 125)),
        st.sampled_from(NOT_PUBLIC).flatmap(
            lambda network: st.integers(-2, network.num_addresses + 1).map(
                lambda offset: type(network.network_address)(
                    (int(network.network_address) + offset) % 2**network.max_prefixlen
                )
            )
        ),
    )
)
def test_never_laxer_than_ipaddress_and_stricter_only_where_stated(
    address: IPv4Address | IPv6Address,
) -> None:
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_reserved
        assert may_contact(address)
    elif address.is_global:
        assert any(address in network for network in STRICTER)
