"""Which base URLs and private networks a configuration may name. The address that is really dialled is checked again.

Metadata services hand out cloud credentials to whoever asks, so no configuration can open the way to one.
"""

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from router_service.catalog.catalog import Network
from router_service.core.endpoint import BaseUrl

_PRIVATE = tuple(
    ip_network(text)
    for text in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "::1/128", "fc00::/7")
)
# Link-local holds the metadata services of the large clouds; the single addresses are others' metadata services.
_FORBIDDEN = tuple(
    ip_network(text)
    for text in (
        "169.254.0.0/16",
        "fe80::/10",
        "0.0.0.0/8",
        "::/128",
        "224.0.0.0/4",
        "ff00::/8",
        "168.63.129.16/32",
        "100.100.100.200/32",
        "192.0.0.192/32",
        "fd00:ec2::254/128",
        "fd20:ce::254/128",
    )
)
_FORBIDDEN_NAMES = frozenset({"metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"})


# Resolvers read "2130706433" and "0x7f.1" as addresses.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


class NetworkError(ValueError):
    """A network is not one that may be allowed; the text says why."""


def parse_private_network(text: str) -> Network:
    """A private network in CIDR notation. Raises NetworkError."""
    try:
        network = ip_network(text)
    except ValueError:
        raise NetworkError("is not a network in CIDR notation such as 10.1.0.0/16 or 127.0.0.1/32") from None
    if any(_overlap(network, forbidden) for forbidden in _FORBIDDEN):
        raise NetworkError("reaches link-local or metadata addresses, which are never allowed; name a smaller network")
    if not any(_contains(private, network) for private in _PRIVATE):
        raise NetworkError("is not within the private ranges; public addresses need no entry, so remove it")
    return network


def find_faults(base_url: BaseUrl, allowed: Sequence[Network]) -> Iterator[str]:
    """What is wrong with where a base URL leads, as far as its text tells."""
    parts = urlsplit(base_url.origin)
    host = (parts.hostname or "").rstrip(".")
    address = _parse_address(host)
    if host in _FORBIDDEN_NAMES or (address is not None and any(address in network for network in _FORBIDDEN)):
        yield "leads to a link-local or metadata address, which is never allowed"
        return
    if address is None and _NUMBER.fullmatch(host.rpartition(".")[2]):
        yield "has a number for a host; write the address out, such as 10.1.2.3"
        return
    is_local_name = host == "localhost" or host.endswith(".localhost")
    is_private = address is not None and any(address in network for network in _PRIVATE)
    if is_private and not any(address in network for network in allowed):
        size = 32 if isinstance(address, IPv4Address) else 128
        yield f"leads to a private address; if it is yours, set allowed_private_networks: [{address}/{size}]"
    elif is_local_name and not allowed:
        yield "leads to this machine; if that is meant, set allowed_private_networks: [127.0.0.1/32]"
    elif parts.scheme == "http" and (not allowed or (address is not None and not is_private)):
        yield "would send keys unencrypted; use https (http is only for hosts in allowed_private_networks)"


def _parse_address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _contains(outer: Network, inner: Network) -> bool:
    return outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type] # the versions are equal
