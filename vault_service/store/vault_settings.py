"""What the operator says about the Vault server. Light: reading the configuration must not import the Vault client."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class AppRoleFiles:
    """An AppRole login whose two halves are mounted files; they are read anew at each login, so they may be rotated."""

    role_id_file: Path
    secret_id_file: Path
    mount: str = "approle"


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A token that something else (an agent beside this service) keeps fresh in a file."""

    token_file: Path


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """Where Vault is and how to log in. `ca_file` replaces the system's trust, for servers with a certificate of a CA
    of one's own."""

    url: str
    login: AppRoleFiles | TokenFile
    ca_file: Path | None = None
    kv_mount: str = "keyswitch"
    transit_mount: str = "keyswitch-transit"
    signing_key: str = "keyswitch-signing"
    threads: int = 16
    connect_timeout_seconds: float = 2.0
    read_timeout_seconds: float = 5.0
    call_timeout_seconds: float = 8.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
            raise ValueError("vault.url must look like https://vault.example:8200")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise ValueError("vault.url must be https: over http the token and every secret would cross in clear")
        if self.signing_key.startswith("tenant-"):
            raise ValueError("vault.signing_key must not begin with 'tenant-': those are the tenants' keys")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
