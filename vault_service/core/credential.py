"""A credential and its versions as one value, and as the JSON document that keeps it. Holds no secret.

After a deletion the document stays as a tombstone, so that a version's number is never given twice.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from vault_service.core.names import CredentialName, VersionName, parse_credential
from vault_service.core.states import VersionState

PASSED = "PASSED"


@dataclass(frozen=True, slots=True)
class KeyTest:
    """What became of trying a version; `outcome` is a CredentialTestOutcome without its prefix."""

    number: int
    outcome: str
    time: float


@dataclass(frozen=True, slots=True)
class Version:
    """One value of a credential, without the value."""

    number: int
    state: VersionState
    fingerprint: str
    create_time: float
    last_test: KeyTest | None = None
    last_use_time: float | None = None
    activate_time: float | None = None
    destroy_time: float | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """What an owner says of a credential at its creation; `kind` is a CredentialKind without its prefix."""

    provider: str
    kind: str
    allowed_origins: tuple[str, ...]
    display_name: str = ""
    plan: str = ""
    max_concurrent_requests: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    expire_time: float | None = None

    def digest(self) -> str:
        """Gives what tells two drafts apart."""
        parts = [
            self.provider,
            self.kind,
            list(self.allowed_origins),
            self.display_name,
            self.plan,
            self.max_concurrent_requests,
            sorted(self.labels.items()),
            self.expire_time,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Request:
    """A request id that was used: for the creation (`number` 0, with the draft's digest) or for a version."""

    request_id: str
    time: float
    number: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Credential:
    """The whole document. `changes` counts what changes the etag."""

    name: CredentialName
    draft: Draft
    create_time: float
    update_time: float
    is_disabled: bool = False
    versions: tuple[Version, ...] = ()
    next_number: int = 1
    changes: int = 1
    last_test: KeyTest | None = None
    last_use_time: float | None = None
    requests: tuple[Request, ...] = ()
    delete_time: float | None = None

    @property
    def active(self) -> Version | None:
        """The version that is leased."""
        return next((version for version in self.versions if version.state is VersionState.ACTIVE), None)

    @property
    def active_name(self) -> str:
        """Its name; empty where there is none."""
        return str(VersionName(self.name, self.active.number)) if self.active else ""

    @property
    def leasable_name(self) -> str:
        """The name of the version that may be leased now as far as its owner's switches go; empty when none may."""
        return "" if self.is_disabled or self.delete_time is not None else self.active_name

    @property
    def etag(self) -> str:
        """Changes with every change but tests and uses."""
        seed = f"{self.name}|{self.create_time}|{self.changes}"
        return hashlib.sha256(seed.encode()).hexdigest()[:16]

    def version(self, number: int) -> Version | None:
        """Gives a version by its number."""
        return next((version for version in self.versions if version.number == number), None)

    def is_expired(self, time_seconds: float) -> bool:
        """Whether nothing is leased any longer because its time is up."""
        return self.draft.expire_time is not None and self.draft.expire_time <= time_seconds


def material_path(name: CredentialName, number: int) -> str:
    """Gives where the sealed bytes of a version stand; its name is also what they are sealed for."""
    return f"{name}/versions/{number}/material"


def encode(credential: Credential) -> bytes:
    """Gives the document."""
    draft = credential.draft
    document = {
        "name": str(credential.name),
        "provider": draft.provider,
        "kind": draft.kind,
        "allowed_origins": list(draft.allowed_origins),
        "display_name": draft.display_name,
        "plan": draft.plan,
        "max_concurrent_requests": draft.max_concurrent_requests,
        "labels": dict(draft.labels),
        "expire_time": draft.expire_time,
        "create_time": credential.create_time,
        "update_time": credential.update_time,
        "is_disabled": credential.is_disabled,
        "versions": [_version_to_json(version) for version in credential.versions],
        "next_number": credential.next_number,
        "changes": credential.changes,
        "last_test": _test_to_json(credential.last_test),
        "last_use_time": credential.last_use_time,
        "requests": [[r.request_id, r.time, r.number, r.digest] for r in credential.requests],
        "delete_time": credential.delete_time,
    }
    return json.dumps(document, separators=(",", ":")).encode()


@lru_cache(maxsize=4096)
def decode(value: bytes) -> Credential:
    """Reads the document. The same bytes are the same value, which nobody changes: they are read once."""
    document = json.loads(value)
    draft = Draft(
        provider=document["provider"],
        kind=document["kind"],
        allowed_origins=tuple(document["allowed_origins"]),
        display_name=document["display_name"],
        plan=document["plan"],
        max_concurrent_requests=document["max_concurrent_requests"],
        labels=document["labels"],
        expire_time=document["expire_time"],
    )
    return Credential(
        name=parse_credential(document["name"]),
        draft=draft,
        create_time=document["create_time"],
        update_time=document["update_time"],
        is_disabled=document["is_disabled"],
        versions=tuple(_version_from_json(entry) for entry in document["versions"]),
        next_number=document["next_number"],
        changes=document["changes"],
        last_test=_test_from_json(document["last_test"]),
        last_use_time=document["last_use_time"],
        requests=tuple(Request(*entry) for entry in document["requests"]),
        delete_time=document["delete_time"],
    )


def _version_to_json(version: Version) -> dict[str, Any]:
    return {
        "number": version.number,
        "state": version.state.value,
        "fingerprint": version.fingerprint,
        "create_time": version.create_time,
        "last_test": _test_to_json(version.last_test),
        "last_use_time": version.last_use_time,
        "activate_time": version.activate_time,
        "destroy_time": version.destroy_time,
    }


def _version_from_json(entry: Mapping[str, Any]) -> Version:
    return Version(
        number=entry["number"],
        state=VersionState(entry["state"]),
        fingerprint=entry["fingerprint"],
        create_time=entry["create_time"],
        last_test=_test_from_json(entry["last_test"]),
        last_use_time=entry["last_use_time"],
        activate_time=entry["activate_time"],
        destroy_time=entry["destroy_time"],
    )


def _test_to_json(test: KeyTest | None) -> list[Any] | None:
    return [test.number, test.outcome, test.time] if test else None


def _test_from_json(entry: list[Any] | None) -> KeyTest | None:
    return KeyTest(*entry) if entry else None
