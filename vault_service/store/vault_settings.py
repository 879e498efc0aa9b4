"""What the operator says about the Vault server. Light: reading the configuration must not import the Vault client."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vault_service.store.store import Purpose

APPROLE_MOUNT = "approle"
KUBERNETES_MOUNT = "kubernetes"
KV_MOUNT = "keyswitch"
TRANSIT_MOUNT = "keyswitch-transit"
SERVICE_ACCOUNT_TOKEN_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_NAMESPACE = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*/?")


@dataclass(frozen=True, slots=True)
class AppRoleFiles:
    """An AppRole login whose two halves are mounted files; they are read anew at each login, so they may be rotated.

    `is_wrapped`: the second file holds a wrapping token, which is opened once and then worthless to whoever copies it.
    """

    role_id_file: Path
    secret_id_file: Path
    is_wrapped: bool = False
    mount: str = APPROLE_MOUNT


@dataclass(frozen=True, slots=True)
class KubernetesRole:
    """A login by the pod's service account token, which the kubelet keeps fresh in its file."""

    role: str
    token_file: Path = SERVICE_ACCOUNT_TOKEN_FILE
    mount: str = KUBERNETES_MOUNT


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A token that something else (an agent beside this service) keeps fresh in a file."""

    token_file: Path


@dataclass(frozen=True, slots=True)
class AgentListener:
    """No token of this service's own: the URL is that of a Vault Agent or Proxy on this machine, which adds its own."""


Login = AppRoleFiles | KubernetesRole | TokenFile | AgentListener


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """Where Vault is and how to log in. `ca_file` replaces the system's trust, for servers with a certificate of a CA
    of one's own. An empty `namespace` is the root one."""

    url: str
    login: Login
    ca_file: Path | None = None
    namespace: str = ""
    kv_mount: str = KV_MOUNT
    transit_mount: str = TRANSIT_MOUNT
    signing_key: str = "keyswitch-signing"
    audit_key: str = "keyswitch-audit"
    threads: int = 16
    connect_timeout_seconds: float = 2.0
    read_timeout_seconds: float = 5.0
    call_timeout_seconds: float = 8.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
            raise ValueError("the URL must look like https://vault.example:8200")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise ValueError("the URL must be https: over http the token and every secret would cross in clear")
        if isinstance(self.login, AgentListener) and not _is_loopback(parts.hostname):
            raise ValueError("the URL must be on this machine: whoever reaches an agent's listener has its rights")
        if self.namespace and _NAMESPACE.fullmatch(self.namespace) is None:
            raise ValueError("the namespace must look like team or team/part")
        if self.signing_key.startswith("tenant-") or self.audit_key.startswith("tenant-"):
            raise ValueError("the signing keys in Vault must not begin with 'tenant-': those are the tenants' keys")

    def signing_key_of(self, purpose: Purpose) -> str:
        """Gives the name of the transit key that signs for the purpose."""
        return self.audit_key if purpose is Purpose.AUDIT else self.signing_key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
