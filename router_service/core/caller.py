"""Who is calling, as proven by a signed token, and what the tenant's owners have in the credential service."""

from dataclasses import dataclass, field

from router_service.core.secret import Secret


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified identity. `organization`, `user` and `application` are resource names or empty.

    `proof` is the token itself: it travels with lease requests and nowhere else.
    """

    token_id: str
    organization: str
    user: str
    application: str
    roles: frozenset[str]
    scopes: frozenset[str]
    expire_time: float
    proof: Secret = field(repr=False)

    @property
    def principal(self) -> str:
        """Whom a call serves, for audit records: the user, else the application, else the token itself."""
        return self.user or self.application or f"{self.organization or 'deployment'}/tokens/{self.token_id}"

    def has_role(self, *roles: str) -> bool:
        """Whether it has any of the roles."""
        return not self.roles.isdisjoint(roles)

    def allows(self, scope: str) -> bool:
        """Whether its scopes leave this open. No scopes leave all open but acting on behalf of others."""
        return scope in self.scopes or (not self.scopes and scope != "act_on_behalf")


@dataclass(frozen=True, slots=True)
class KeyTest:
    """What became of trying a version: `outcome` is CredentialTestOutcome's number, the time seconds since 1970."""

    credential_version: str
    outcome: int
    time: float


@dataclass(frozen=True, slots=True)
class Credential:
    """What the router knows of a credential: everything but the secret."""

    name: str
    provider: str
    plan: str
    allowed_origins: tuple[str, ...]
    is_enabled: bool
    active_version: str
    expire_time: float | None
    last_test: KeyTest | None = None
    max_concurrent_requests: int | None = None


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the owners that matter for a call have, each by name."""

    user: tuple[Credential, ...] = ()
    organization: tuple[Credential, ...] = ()
    deployment: tuple[Credential, ...] = ()
    user_credentials_enabled: bool = True
