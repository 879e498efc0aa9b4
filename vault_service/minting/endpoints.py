"""Where this service may fetch tokens: the operator's list of origins, empty by default."""

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from vault_service.core.faults import invalid


class TokenEndpoints:
    """The list. Only what is on it is ever connected to, whatever a credential says."""

    def __init__(self, origins: Iterable[str] = ()) -> None:
        """Raises ValueError for an origin that is not https, or http on this machine."""
        self._origins = frozenset(_origin_of(origin) for origin in origins if origin)

    def allows(self, url: str) -> bool:
        """Whether a URL is below one of the origins."""
        try:
            return _origin_of(url) in self._origins
        except ValueError:
            return False

    def require(self, url: str, field: str) -> str:
        """Gives the URL back. Raises INVALID_REQUEST for one that is not allowed."""
        if not self.allows(url):
            raise invalid(field, "must be an https URL whose origin is among the deployment's token endpoints")
        return url


def _origin_of(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.username is not None or parts.password is not None or parts.fragment or not host:
        raise ValueError("a token endpoint must look like https://auth.example")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise ValueError("a token endpoint must be https: secrets are sent to it")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{host.lower()}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
