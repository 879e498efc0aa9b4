"""Which addresses a provider may have. Checked where a connection is opened, on the address that is then connected to.

A name is resolved once and its address pinned: checking a name and letting the client resolve it again would let a
second answer of the name server pass. Metadata addresses and the router's own listeners are refused whatever is
allowed.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from router_service.upstream.client import AddressRefused, IpNetwork

IpAddress = IPv4Address | IPv6Address
Listener = tuple[str, int]  # an address and a port; "0.0.0.0" and "::" stand for every address of the machine
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

# Where clouds hand credentials to whoever asks from inside.
_METADATA = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, Azure, Google Cloud, Oracle, DigitalOcean
        "169.254.170.2",  # AWS container credentials
        "169.254.170.23",  # AWS EKS pod identity
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS EKS pod identity
        "fd20:ce::254",  # Google Cloud
        "100.100.100.200",  # Alibaba Cloud
        "192.0.0.192",  # Oracle, early
        "168.63.129.16",  # Azure's host; a public address that is not
        "169.254.0.23",  # Tencent Cloud
    )
)
_NAT64 = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))
_SIX_TO_FOUR = ip_network("2002::/16")
_TEREDO = ip_network("2001::/32")
_COMPATIBLE = ip_network("::/96")
_CARRIER = ip_network("100.64.0.0/10")
_HINT = "The operator may list its network under the provider's allowed_private_networks."


def refusal(address: IpAddress, port: int, allowed: Collection[IpNetwork], own: Collection[Listener]) -> str | None:
    """Why an address must not be connected to, as a sentence; None when it may."""
    inner = _embedded(address)
    if address in _METADATA or inner in _METADATA:
        return "it is a cloud's metadata address, which is never called."
    if any(_is_own(candidate, port, own) for candidate in (address, inner) if candidate is not None):
        return "it is one of the router's own listeners, which is never called."
    rule = _rule(address, inner)
    if rule is None or _is_in(address, allowed) or (inner is not None and _is_in(inner, allowed)):
        return None
    return f"it is {rule}. {_HINT}"


def choose(addresses: Sequence[str], port: int, allowed: Collection[IpNetwork], own: Collection[Listener]) -> list[str]:
    """The addresses that may be connected to, in their order. Raises AddressRefused when there are only others."""
    chosen: list[str] = []
    rule = ""
    for text in addresses:
        reason = refusal(ip_address(text), port, allowed, own)
        if reason is None:
            chosen.append(text)
        else:
            rule = rule or reason
    if not chosen and rule:
        raise AddressRefused(rule)
    return chosen


async def resolve_with_system(host: str, port: int) -> Sequence[str]:
    """Asks the system's resolver. Understands every way to write an address that connecting would understand."""
    loop = asyncio.get_running_loop()
    answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def is_literal(host: str) -> bool:
    """Whether a host is an address already."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _rule(address: IpAddress, inner: IpAddress | None) -> str | None:
    if inner is not None:
        return "an IPv4 address inside an IPv6 one"
    if address.is_unspecified:
        return "the unspecified address"
    if address.is_loopback:
        return "a loopback address"
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast:
        return "a multicast address"
    if _is_in(address, (_CARRIER,)):
        return "an address of a carrier's network (CGNAT)"
    if isinstance(address, IPv6Address) and address.is_site_local:
        return "a private address"
    if address.is_reserved:
        return "a reserved address"
    if address.is_private or not address.is_global:
        return "a private address"
    return None


def _embedded(address: IpAddress) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one leads to."""
    if isinstance(address, IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if any(address in network for network in _NAT64):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _SIX_TO_FOUR:
        return address.sixtofour
    if address in _TEREDO and address.teredo is not None:
        return address.teredo[1]
    if address in _COMPATIBLE and int(address) > 0xFFFF:
        return IPv4Address(int(address))
    return None


def _is_in(address: IpAddress, networks: Collection[IpNetwork]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _is_own(address: IpAddress, port: int, own: Collection[Listener]) -> bool:
    for host, own_port in own:
        if own_port != port:
            continue
        listener = ip_address(host)
        # A listener on every address is reached through any address of this machine; those that are not public may be.
        if address == listener or (listener.is_unspecified and not address.is_global) or address.is_unspecified:
            return True
    return False
