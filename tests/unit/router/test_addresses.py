"""The table of addresses that a provider may and may not have."""

from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_service.upstream.addresses import choose, refusal, resolve_with_system
from router_service.upstream.client import AddressRefused

EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))
OWN = {("127.0.0.1", 8760), ("0.0.0.0", 8761), ("::", 8771)}

PUBLIC = ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001::1"]

REFUSED = [
    ("127.0.0.1", "loopback"),
    ("127.9.9.9", "loopback"),
    ("::1", "loopback"),
    ("0.0.0.0", "unspecified"),
    ("::", "unspecified"),
    ("10.1.2.3", "private"),
    ("172.16.0.1", "private"),
    ("192.168.1.1", "private"),
    ("198.18.0.1", "private"),
    ("192.0.2.1", "private"),
    ("fd12::1", "private"),
    ("fec0::1", "private"),
    ("169.254.1.1", "link-local"),
    ("fe80::1", "link-local"),
    ("fe80::1%eth0", "link-local"),
    ("100.64.0.1", "CGNAT"),
    ("100.127.255.255", "CGNAT"),
    ("224.0.0.1", "multicast"),
    ("ff02::1", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "reserved"),
    ("::ffff:10.0.0.1", "inside an IPv6"),
    ("::ffff:8.8.8.8", "inside an IPv6"),
    ("::127.0.0.1", "inside an IPv6"),
    ("64:ff9b::a00:1", "inside an IPv6"),
    ("64:ff9b:1::a00:1", "inside an IPv6"),
    ("2002:a00:1::", "inside an IPv6"),
    ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "inside an IPv6"),
]

METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "fd00:ec2::254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::",
]


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_may_be_called(text: str) -> None:
    assert refusal(ip_address(text), 443, (), OWN) is None


@pytest.mark.parametrize(("text", "rule"), REFUSED)
def test_what_is_not_public_is_refused_by_its_rule(text: str, rule: str) -> None:
    reason = refusal(ip_address(text), 443, (), ())
    assert reason is not None
    assert rule in reason
    assert "allowed_private_networks" in reason
    assert refusal(ip_address(text), 443, EVERYTHING, ()) is None


@pytest.mark.parametrize("text", METADATA)
def test_a_metadata_address_is_refused_whatever_is_allowed(text: str) -> None:
    reason = refusal(ip_address(text), 80, EVERYTHING, ())
    assert reason is not None
    assert "metadata" in reason


@pytest.mark.parametrize(
    ("text", "port", "is_refused"),
    [
        ("127.0.0.1", 8760, True),
        ("::ffff:127.0.0.1", 8760, True),
        ("127.0.0.1", 8780, False),
        ("10.0.0.5", 8760, False),
        ("10.0.0.5", 8761, True),  # listens on every address
        ("::1", 8761, True),
        ("10.0.0.5", 8771, True),
        ("0.0.0.0", 8760, True),  # connecting to it reaches loopback
        ("8.8.8.8", 8761, False),
    ],
)
def test_the_own_listeners_are_refused_whatever_is_allowed(text: str, port: int, is_refused: bool) -> None:
    reason = refusal(ip_address(text), port, EVERYTHING, OWN)
    assert (reason is not None and "own listeners" in reason) is is_refused


def test_an_allowance_is_for_its_network_only() -> None:
    allowed = (ip_network("10.1.0.0/16"), ip_network("fd00::/8"))
    assert refusal(ip_address("10.1.9.9"), 443, allowed, ()) is None
    assert refusal(ip_address("::ffff:10.1.9.9"), 443, allowed, ()) is None
    assert refusal(ip_address("10.2.0.1"), 443, allowed, ()) is not None
    assert refusal(ip_address("fd12::1"), 443, allowed, ()) is None
    assert refusal(ip_address("fe80::1"), 443, allowed, ()) is not None


@given(st.ip_addresses())
def test_what_is_not_global_is_never_reached_without_an_allowance(address: object) -> None:
    parsed = ip_address(str(address))
    if refusal(parsed, 443, (), ()) is None:
        assert parsed.is_global
        assert not parsed.is_multicast


@given(st.ip_addresses(v=4))
def test_an_embedded_address_is_never_freer_than_itself(address: IPv4Address) -> None:
    for text in (f"::ffff:{address}", f"64:ff9b::{address}"):
        assert refusal(ip_address(text), 443, (), ()) is not None


def test_refused_addresses_are_passed_over() -> None:
    assert choose(["10.0.0.1", "8.8.8.8", "::1"], 443, (), ()) == ["8.8.8.8"]


def test_only_refused_addresses_are_a_refusal() -> None:
    with pytest.raises(AddressRefused) as caught:
        choose(["10.0.0.1", "::1"], 443, (), ())
    assert "private" in caught.value.rule


@pytest.mark.parametrize("text", ["2130706433", "0x7f.1", "127.1", "017700000001"])
async def test_odd_ways_to_write_loopback_are_read_as_connecting_would(text: str) -> None:
    addresses = await resolve_with_system(text, 80)
    assert list(addresses) == ["127.0.0.1"]
