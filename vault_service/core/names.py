"""Resource names: text on the wire, values here.

Parsing is strict and is the only check of a name; whatever has been parsed can be put into a path of the store.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from vault_service.core.faults import invalid

_ID = re.compile(r"[a-z][a-z0-9-]{1,61}[a-z0-9]")
_CREDENTIAL_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_TOKEN_ID = re.compile(r"[A-Za-z0-9_-]{22}")
_CHAIN_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

_MAX_READ = 4096
"""How many names of a kind are kept as they were read: those of a lease come with every lease."""

DEPLOYMENT = "deployment"
ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class Owner:
    """The deployment (both empty), an organization (`user` empty) or a user of one."""

    organization: str = ""
    user: str = ""

    def __str__(self) -> str:
        if not self.organization:
            return DEPLOYMENT
        if not self.user:
            return f"organizations/{self.organization}"
        return f"organizations/{self.organization}/users/{self.user}"

    @property
    def is_deployment(self) -> bool:
        """Whether it is the deployment."""
        return not self.organization

    @property
    def is_user(self) -> bool:
        """Whether it is a user."""
        return bool(self.user)

    @property
    def tenant(self) -> str:
        """Under whose key its secrets are sealed: the deployment's or its organization's."""
        return str(self.parent)

    @property
    def parent(self) -> "Owner":
        """The organization of a user, else itself."""
        return Owner(self.organization)


@dataclass(frozen=True, slots=True)
class CredentialName:
    """The name of a credential, which is also its path in the store."""

    owner: Owner
    credential_id: str

    def __str__(self) -> str:
        return f"{self.owner}/credentials/{self.credential_id}"


@dataclass(frozen=True, slots=True)
class VersionName:
    """The name of a version; `number` None stands for the active one."""

    credential: CredentialName
    number: int | None

    def __str__(self) -> str:
        return f"{self.credential}/versions/{ACTIVE if self.number is None else self.number}"


@dataclass(frozen=True, slots=True)
class TokenName:
    """The name of a token of the deployment or an organization."""

    owner: Owner
    token_id: str

    def __str__(self) -> str:
        return f"{self.owner}/tokens/{self.token_id}"


@dataclass(frozen=True, slots=True)
class RecordName:
    """The name of an audit record."""

    chain: str
    number: int

    def __str__(self) -> str:
        return f"chains/{self.chain}/records/{self.number}"


def parse_owner(text: str, field: str = "parent") -> Owner:
    """Reads "deployment", "organizations/{o}" or "organizations/{o}/users/{u}"."""
    owner = _owner(text.split("/"))
    if owner is None:
        raise invalid(
            field, "must be deployment, organizations/{organization} or organizations/{organization}/users/{user}"
        )
    return owner


def parse_tenant(text: str, field: str = "parent") -> Owner:
    """Reads "deployment" or "organizations/{o}"."""
    owner = _owner(text.split("/"))
    if owner is None or owner.is_user:
        raise invalid(field, "must be deployment or organizations/{organization}")
    return owner


@lru_cache(maxsize=_MAX_READ)
def parse_user(text: str, field: str) -> Owner:
    """Reads "organizations/{o}/users/{u}"."""
    owner = _owner(text.split("/"))
    if owner is None or not owner.is_user:
        raise invalid(field, "must be organizations/{organization}/users/{user}")
    return owner


@lru_cache(maxsize=_MAX_READ)
def parse_application(text: str, field: str) -> Owner:
    """Reads "organizations/{o}/applications/{a}" and gives the organization."""
    parts = text.split("/")
    if len(parts) == 4 and parts[2] == "applications" and _ID.fullmatch(parts[3]):
        owner = _owner(parts[:2])
        if owner is not None:
            return owner
    raise invalid(field, "must be organizations/{organization}/applications/{application}")


def parse_credential(text: str, field: str = "name") -> CredentialName:
    """Reads the name of a credential."""
    parts = text.split("/")
    if len(parts) >= 3 and parts[-2] == "credentials" and _CREDENTIAL_ID.fullmatch(parts[-1]):
        owner = _owner(parts[:-2])
        if owner is not None:
            return CredentialName(owner, parts[-1])
    raise invalid(field, "must be {owner}/credentials/{credential}")


@lru_cache(maxsize=_MAX_READ)
def parse_version(text: str, field: str = "name", *, allow_active: bool = False) -> VersionName:
    """Reads the name of a version; "active" only where the request says that it may stand."""
    head, _, last = text.rpartition("/")
    credential, _, collection = head.rpartition("/")
    if collection == "versions" and (_NUMBER.fullmatch(last) or (allow_active and last == ACTIVE)):
        return VersionName(parse_credential(credential, field), None if last == ACTIVE else int(last))
    raise invalid(field, "must be {owner}/credentials/{credential}/versions/{version}")


def parse_token(text: str, field: str = "name") -> TokenName:
    """Reads the name of a token."""
    parts = text.split("/")
    if len(parts) >= 3 and parts[-2] == "tokens" and _TOKEN_ID.fullmatch(parts[-1]):
        owner = _owner(parts[:-2])
        if owner is not None and not owner.is_user:
            return TokenName(owner, parts[-1])
    raise invalid(field, "must be deployment/tokens/{token} or organizations/{organization}/tokens/{token}")


def parse_policy(text: str, field: str = "name") -> Owner:
    """Reads ".../credentialPolicy" and gives its owner."""
    head, _, last = text.rpartition("/")
    owner = _owner(head.split("/")) if last == "credentialPolicy" else None
    if owner is None or owner.is_user:
        raise invalid(field, "must be deployment/credentialPolicy or organizations/{organization}/credentialPolicy")
    return owner


def parse_chain(text: str, field: str = "parent") -> str:
    """Reads "chains/{chain}" and gives the chain, "-" for all."""
    head, _, last = text.rpartition("/")
    if head == "chains" and (last == "-" or _CHAIN_ID.fullmatch(last)):
        return last
    raise invalid(field, "must be chains/{chain}")


def parse_record(text: str, field: str = "name") -> RecordName:
    """Reads "chains/{chain}/records/{record}"."""
    parts = text.split("/")
    if (
        len(parts) == 4
        and parts[0] == "chains"
        and parts[2] == "records"
        and _CHAIN_ID.fullmatch(parts[1])
        and _NUMBER.fullmatch(parts[3])
    ):
        return RecordName(parts[1], int(parts[3]))
    raise invalid(field, "must be chains/{chain}/records/{record}")


def parse_principal(text: str, field: str = "principal") -> Owner:
    """Reads who is served, a user or an application, and gives the user or the application's organization."""
    if "/applications/" in text:
        return parse_application(text, field)
    return parse_user(text, field)


def check_provider(text: str, owner: Owner, field: str = "credential.provider") -> str:
    """Reads "providers/{p}" or "organizations/{o}/providers/{p}"; an organization's own only for its own keys."""
    parts = text.split("/")
    if len(parts) >= 2 and parts[-2] == "providers" and _CREDENTIAL_ID.fullmatch(parts[-1]):
        head = parts[:-2]
        if not head or (len(head) == 2 and _owner(head) == Owner(owner.organization) and not owner.is_deployment):
            return text
    raise invalid(
        field, "must be providers/{provider} or organizations/{organization}/providers/{provider} of the owner"
    )


def check_credential_id(text: str, field: str = "credential_id") -> str:
    """Reads the id of a credential."""
    if not _CREDENTIAL_ID.fullmatch(text):
        raise invalid(field, "must match [a-z]([a-z0-9-]{0,61}[a-z0-9])?")
    return text


def check_request_id(text: str, field: str = "request_id") -> str:
    """Reads an optional UUID4."""
    lowered = text.lower()
    if text and not _UUID4.fullmatch(lowered):
        raise invalid(field, "must be a UUID4")
    return lowered


def is_chain_id(text: str) -> bool:
    """Whether it can name a chain."""
    return _CHAIN_ID.fullmatch(text) is not None


def is_within(resource: str, owner: Owner) -> bool:
    """Whether a resource's name is the owner's or below it."""
    prefix = str(owner)
    return resource == prefix or resource.startswith(prefix + "/")


def _owner(parts: list[str]) -> Owner | None:
    match parts:
        case ["deployment"]:
            return Owner()
        case ["organizations", organization] if _ID.fullmatch(organization):
            return Owner(organization)
        case ["organizations", organization, "users", user] if _ID.fullmatch(organization) and _ID.fullmatch(user):
            return Owner(organization, user)
        case _:
            return None
