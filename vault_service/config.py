"""Every default and every setting of the service, and the one loader that reads them from the environment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vault_service.core.fixed import FixedCredential
from vault_service.core.names import is_chain_id
from vault_service.fixed_settings import FixedSettingsError, read_fixed
from vault_service.minting.endpoints import TokenEndpoints
from vault_service.store.vault_settings import (
    APPROLE_MOUNT,
    KUBERNETES_MOUNT,
    KV_MOUNT,
    SERVICE_ACCOUNT_TOKEN_FILE,
    TRANSIT_MOUNT,
    AgentListener,
    AppRoleFiles,
    KubernetesRole,
    Login,
    TokenFile,
    VaultSettings,
)

STORE_KINDS = ("embedded", "memory", "hashicorp")
PREFIX = "KEYSWITCH_VAULT_"


class ConfigError(Exception):
    """The environment says something that cannot be; the text names the variable and what it may be."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the certificates are; relative ones were made absolute by the loader."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class LeaseConfig:
    """What is settled about leases and the change feed."""

    ttl_seconds: int = 300
    require_caller_proof: bool = True
    heartbeat_seconds: float = 0.5
    change_poll_seconds: float = 0.25
    change_fresh_seconds: float = 1.0
    remember_seconds: int = 300
    allowed_identities: frozenset[str] = frozenset({"spiffe://keyswitch/router"})


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """What is settled about the audit log. Without `retention_seconds` everything is kept."""

    checkpoint_seconds: float = 60.0
    segment_bytes: int = 16 * 1024 * 1024
    segment_seconds: float = 86_400.0
    retention_seconds: float | None = None
    rotate_key: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """One running instance. An empty `http_address` serves no HTTP; an empty `chain` is named once, and kept."""

    home: Path
    tls: TlsFiles
    deployment: str = "keyswitch"
    management_address: str = "127.0.0.1:8770"
    lease_address: str = "127.0.0.1:8771"
    http_address: str = "127.0.0.1:8772"
    store: str = "embedded"
    hashicorp: VaultSettings | None = None  # where `store` is "hashicorp"
    chain: str = ""
    audit: AuditConfig = field(default_factory=AuditConfig)
    user_credentials_enabled: bool = True
    token_endpoints: frozenset[str] = frozenset()  # origins; where tokens may be fetched from
    fixed: tuple[FixedCredential, ...] = ()  # the deployment's credentials that the environment fixes
    leases: LeaseConfig = field(default_factory=LeaseConfig)
    max_message_bytes: int = 1024 * 1024
    health_interval_seconds: float = 0.25
    denial_retry_seconds: float = 0.5
    drain_seconds: float = 10.0
    max_connection_age_seconds: float = 3600.0
    operator_token_seconds: float = 365 * 86_400.0
    reissue_operator_token: bool = False
    issuers_file: Path | None = None
    workloads_file: Path | None = None
    certificate_address: str = ""  # of the management plane, for callers with certificates; empty: none

    @property
    def audit_folder(self) -> Path:
        """Where the audit chains are."""
        return self.home / "audit"

    @property
    def store_folder(self) -> Path:
        """Where the embedded store is."""
        return self.home / "vault"

    @property
    def operator_token_file(self) -> Path:
        """Where the first start leaves the operator's token."""
        return self.home / "operator.token"


def make_config(home: Path, **changes: object) -> Config:
    """Gives the defaults over a home folder, with some of the fields changed."""
    tls = TlsFiles(ca=home / "ca.pem", certificate=home / "vault.pem", key=home / "vault-key.pem")
    return Config(**{"home": home, "tls": tls, **changes})  # type: ignore[arg-type] # the caller names fields of Config


def load_config(environment: Mapping[str, str]) -> Config:
    """Reads the environment. Raises ConfigError; a name with our prefix that is not known is one, too."""
    reader = _Reader(environment)
    home = Path(environment.get("KEYSWITCH_HOME") or "./.keyswitch").absolute()
    chain = reader.text("AUDIT_CHAIN", "")
    if chain and not is_chain_id(chain):
        raise ConfigError(f"{PREFIX}AUDIT_CHAIN must match [a-z]([a-z0-9-]{{0,61}}[a-z0-9])?")
    store = reader.text("STORE", "embedded")
    if store not in STORE_KINDS:
        raise ConfigError(f"{PREFIX}STORE must be one of {', '.join(STORE_KINDS)}")
    defaults = LeaseConfig()
    token_endpoints = _read_token_endpoints(reader)
    config = Config(
        home=home,
        tls=TlsFiles(
            ca=reader.path("TLS_CA", home / "ca.pem"),
            certificate=reader.path("TLS_CERTIFICATE", home / "vault.pem"),
            key=reader.path("TLS_KEY", home / "vault-key.pem"),
        ),
        deployment=reader.text("DEPLOYMENT", "keyswitch"),
        management_address=reader.text("MANAGEMENT_ADDRESS", "127.0.0.1:8770"),
        lease_address=reader.text("LEASE_ADDRESS", "127.0.0.1:8771"),
        http_address=reader.text("HTTP_ADDRESS", "127.0.0.1:8772"),
        store=store,
        hashicorp=_read_hashicorp(reader, is_used=store == "hashicorp"),
        chain=chain,
        audit=_read_audit(reader),
        user_credentials_enabled=reader.switch("USER_CREDENTIALS_ENABLED", True),
        token_endpoints=token_endpoints,
        fixed=_read_fixed(reader, token_endpoints),
        leases=LeaseConfig(
            ttl_seconds=reader.whole("LEASE_TTL_SECONDS", defaults.ttl_seconds, 1, 3600),
            remember_seconds=reader.whole("REMEMBER_SECONDS", defaults.remember_seconds, 0, 3600),
            require_caller_proof=reader.switch("REQUIRE_CALLER_PROOF", defaults.require_caller_proof),
            allowed_identities=frozenset(
                reader.text("ALLOWED_IDENTITIES", ",".join(defaults.allowed_identities)).split(",")
            ),
        ),
        drain_seconds=float(reader.whole("DRAIN_SECONDS", 10, 0, 600)),
        reissue_operator_token=reader.switch("REISSUE_OPERATOR_TOKEN", False),
        issuers_file=reader.optional_path("ISSUERS_FILE"),
        workloads_file=reader.optional_path("WORKLOADS_FILE"),
        certificate_address=reader.text("CERTIFICATE_ADDRESS", ""),
    )
    reader.refuse_unknown()
    if config.certificate_address and config.workloads_file is None:
        raise ConfigError(f"{PREFIX}CERTIFICATE_ADDRESS needs {PREFIX}WORKLOADS_FILE, which says who may come")
    return config


class _Reader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._values = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
        self._known: set[str] = set()

    def text(self, name: str, default: str) -> str:
        self._known.add(PREFIX + name)
        return self._values.get(PREFIX + name) or default

    def path(self, name: str, default: Path) -> Path:
        return Path(self.text(name, str(default))).absolute()

    def optional_path(self, name: str) -> Path | None:
        value = self.text(name, "")
        return Path(value).absolute() if value else None

    def switch(self, name: str, default: bool) -> bool:
        value = self.text(name, "true" if default else "false").lower()
        if value not in ("true", "false"):
            raise ConfigError(f"{PREFIX}{name} must be true or false")
        return value == "true"

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        value = self.text(name, str(default))
        if not value.isdecimal() or not least <= int(value) <= most:
            raise ConfigError(f"{PREFIX}{name} must be a whole number from {least} to {most}")
        return int(value)

    def refuse_unknown(self) -> None:
        unknown = sorted(set(self._values) - self._known)
        if unknown:
            raise ConfigError(f"{unknown[0]} is no setting of this service; known are {', '.join(sorted(self._known))}")


def _read_audit(reader: _Reader) -> AuditConfig:
    days = reader.whole("AUDIT_RETENTION_DAYS", 0, 0, 36_500)
    return AuditConfig(
        checkpoint_seconds=float(reader.whole("AUDIT_CHECKPOINT_SECONDS", 60, 1, 86_400)),
        segment_bytes=reader.whole("AUDIT_SEGMENT_MIB", 16, 1, 1024) << 20,
        segment_seconds=reader.whole("AUDIT_SEGMENT_HOURS", 24, 1, 8760) * 3600.0,
        retention_seconds=days * 86_400.0 if days else None,
        rotate_key=reader.switch("ROTATE_AUDIT_KEY", False),
    )


def _read_hashicorp(reader: _Reader, *, is_used: bool) -> VaultSettings | None:
    url = reader.text("HASHICORP_URL", "")
    ca_file = reader.optional_path("HASHICORP_CA_FILE")
    namespace = reader.text("HASHICORP_NAMESPACE", "")
    kv_mount = reader.text("HASHICORP_KV_MOUNT", KV_MOUNT)
    transit_mount = reader.text("HASHICORP_TRANSIT_MOUNT", TRANSIT_MOUNT)
    logins = _read_logins(reader)
    if not is_used:
        return None
    if not url:
        raise ConfigError(f"{PREFIX}STORE=hashicorp needs {PREFIX}HASHICORP_URL")
    if len(logins) != 1:
        raise ConfigError(
            f"{PREFIX}STORE=hashicorp needs one way to log in, not {len(logins)}: {PREFIX}HASHICORP_ROLE_ID_FILE with "
            "one of _SECRET_ID_FILE and _WRAPPED_SECRET_ID_FILE, or _KUBERNETES_ROLE, or _TOKEN_FILE, or _AGENT=true"
        )
    try:
        return VaultSettings(
            url, logins[0], ca_file=ca_file, namespace=namespace, kv_mount=kv_mount, transit_mount=transit_mount
        )
    except ValueError as error:
        raise ConfigError(f"{PREFIX}HASHICORP_*: {error}") from None


def _read_token_endpoints(reader: _Reader) -> frozenset[str]:
    origins = frozenset(origin for origin in reader.text("TOKEN_ENDPOINTS", "").split(",") if origin)
    try:
        TokenEndpoints(origins)
    except ValueError as error:
        raise ConfigError(f"{PREFIX}TOKEN_ENDPOINTS: {error}") from None
    return origins


def _read_fixed(reader: _Reader, token_endpoints: frozenset[str]) -> tuple[FixedCredential, ...]:
    try:
        return read_fixed(reader.text, PREFIX, TokenEndpoints(token_endpoints))
    except FixedSettingsError as error:
        raise ConfigError(str(error)) from None


def _read_logins(reader: _Reader) -> list[Login]:
    logins: list[Login] = []
    role_id_file = reader.optional_path("HASHICORP_ROLE_ID_FILE")
    role_mount = reader.text("HASHICORP_APPROLE_MOUNT", APPROLE_MOUNT)
    plain = reader.optional_path("HASHICORP_SECRET_ID_FILE")
    wrapped = reader.optional_path("HASHICORP_WRAPPED_SECRET_ID_FILE")
    for secret_id_file, is_wrapped in ((plain, False), (wrapped, True)):
        if role_id_file is not None and secret_id_file is not None:
            logins.append(AppRoleFiles(role_id_file, secret_id_file, is_wrapped, role_mount))
    role = reader.text("HASHICORP_KUBERNETES_ROLE", "")
    account = reader.path("HASHICORP_KUBERNETES_TOKEN_FILE", SERVICE_ACCOUNT_TOKEN_FILE)
    kubernetes_mount = reader.text("HASHICORP_KUBERNETES_MOUNT", KUBERNETES_MOUNT)
    if role:
        logins.append(KubernetesRole(role, account, kubernetes_mount))
    token_file = reader.optional_path("HASHICORP_TOKEN_FILE")
    if token_file is not None:
        logins.append(TokenFile(token_file))
    if reader.switch("HASHICORP_AGENT", False):
        logins.append(AgentListener())
    return logins
