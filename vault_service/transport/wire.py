"""Credentials between the wire and the core. Whatever has come through here is well formed."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from google.protobuf import timestamp_pb2
from keyswitch.vault.v1 import credential_pb2, credential_service_pb2, credential_test_pb2

from vault_service.core.credential import Credential, Draft, KeyTest, Version
from vault_service.core.credentials import Revocation
from vault_service.core.faults import invalid
from vault_service.core.names import Owner, VersionName, check_provider
from vault_service.core.origins import check_origin
from vault_service.core.policies import Policy

MAX_ORIGINS = 16
MAX_LABELS = 64
MAX_DISPLAY_NAME_CHARACTERS = 63
MAX_NOTE_CHARACTERS = 512
UPDATABLE = ("display_name", "max_concurrent_requests", "labels", "expire_time")

_PLAN = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_MIN_TIMESTAMP_SECONDS, _MAX_TIMESTAMP_SECONDS = -62135596800, 253402300799


def make_timestamp(time_seconds: float) -> timestamp_pb2.Timestamp:
    """Gives the time with microseconds."""
    stamp = timestamp_pb2.Timestamp()
    stamp.FromMicroseconds(round(time_seconds * 1e6))
    return stamp


def read_timestamp(stamp: timestamp_pb2.Timestamp, field: str) -> float:
    """Gives the seconds of a time that RFC 3339 can write."""
    if not (_MIN_TIMESTAMP_SECONDS <= stamp.seconds <= _MAX_TIMESTAMP_SECONDS and 0 <= stamp.nanos < 1_000_000_000):
        raise invalid(field, "is no time between the years 1 and 9999")
    return stamp.seconds + stamp.nanos / 1e9


def read_draft(credential: credential_pb2.Credential, owner: Owner) -> Draft:
    """Reads what an owner says of a new credential."""
    kind = credential_pb2.CredentialKind
    if credential.kind not in kind.values() or credential.kind == 0:
        raise invalid("credential.kind", "must be one of CredentialKind")
    if not 1 <= len(credential.allowed_origins) <= MAX_ORIGINS:
        raise invalid("credential.allowed_origins", f"must hold from 1 to {MAX_ORIGINS} origins")
    origins = tuple(
        check_origin(origin, f"credential.allowed_origins[{i}]") for i, origin in enumerate(credential.allowed_origins)
    )
    if credential.plan and not _PLAN.fullmatch(credential.plan):
        raise invalid("credential.plan", "must match [a-z0-9][a-z0-9_-]{0,62}")
    draft = Draft(
        provider=check_provider(credential.provider, owner),
        kind=kind.Name(credential.kind).removeprefix("CREDENTIAL_KIND_"),
        allowed_origins=tuple(dict.fromkeys(origins)),
        plan=credential.plan,
    )
    return read_update(credential, UPDATABLE)(draft)


def read_update(credential: credential_pb2.Credential, paths: Sequence[str]) -> Callable[[Draft], Draft]:
    """Reads the fields named, and gives the change that they make."""
    changes: dict[str, object] = {}
    for path in paths:
        match path:
            case "display_name":
                if len(credential.display_name) > MAX_DISPLAY_NAME_CHARACTERS:
                    raise invalid("credential.display_name", f"is longer than {MAX_DISPLAY_NAME_CHARACTERS} characters")
                changes[path] = credential.display_name
            case "max_concurrent_requests":
                changes[path] = _read_max_concurrent(credential)
            case "labels":
                changes[path] = _read_labels(credential)
            case "expire_time":
                has_time = credential.HasField("expire_time")
                changes[path] = read_timestamp(credential.expire_time, "credential.expire_time") if has_time else None
            case _:
                raise invalid("update_mask", f"may only name {', '.join(UPDATABLE)}")
    return lambda draft: replace(draft, **changes)  # type: ignore[arg-type] # the fields' types are those checked above


def read_mask(request: credential_service_pb2.UpdateCredentialRequest) -> list[str]:
    """Gives which fields to change: those of the mask, or without one those that are set."""
    if request.HasField("update_mask"):
        return list(request.update_mask.paths)
    set_fields = {descriptor.name for descriptor, _ in request.credential.ListFields()}
    return [path for path in UPDATABLE if path in set_fields]


def read_revocation(revocation: credential_service_pb2.Revocation) -> Revocation:
    """Reads how a revocation is carried out."""
    check_note(revocation.note, "revocation.note")
    return Revocation(kill_in_flight=revocation.kill_in_flight)


def check_note(note: str, field: str) -> str:
    """Reads the caller's words for the audit log."""
    if len(note) > MAX_NOTE_CHARACTERS:
        raise invalid(field, f"is longer than {MAX_NOTE_CHARACTERS} characters")
    return note


def build_credential(
    credential: Credential, last_use_seconds: float | None = None, *, source: str = "UNSPECIFIED"
) -> credential_pb2.Credential:
    """Builds a credential. `last_use_seconds` is a later use than is stored, if there is one."""
    draft = credential.draft
    state = "DISABLED" if credential.is_disabled else "ENABLED"
    message = credential_pb2.Credential(
        name=str(credential.name),
        display_name=draft.display_name,
        provider=draft.provider,
        kind=credential_pb2.CredentialKind.Value(f"CREDENTIAL_KIND_{draft.kind}"),
        plan=draft.plan,
        allowed_origins=draft.allowed_origins,
        max_concurrent_requests=draft.max_concurrent_requests,
        labels=draft.labels,
        state=credential_pb2.CredentialState.Value(f"CREDENTIAL_STATE_{state}"),
        active_version=credential.active_name,
        fingerprint=credential.active.fingerprint if credential.active else "",
        create_time=make_timestamp(credential.create_time),
        update_time=make_timestamp(credential.update_time),
        etag=credential.etag,
        source=credential_pb2.CredentialSource.Value(f"CREDENTIAL_SOURCE_{source}"),
    )
    if draft.expire_time is not None:
        message.expire_time.CopyFrom(make_timestamp(draft.expire_time))
    if credential.last_test is not None:
        message.last_test.CopyFrom(build_test(credential, credential.last_test))
    last_use = _later(credential.last_use_time, last_use_seconds)
    if last_use is not None:
        message.last_use_time.CopyFrom(make_timestamp(last_use))
    return message


def build_version(
    credential: Credential, version: Version, last_use_seconds: float | None = None
) -> credential_pb2.CredentialVersion:
    """Builds a version."""
    message = credential_pb2.CredentialVersion(
        name=str(VersionName(credential.name, version.number)),
        state=credential_pb2.CredentialVersionState.Value(f"CREDENTIAL_VERSION_STATE_{version.state.value}"),
        fingerprint=version.fingerprint,
        create_time=make_timestamp(version.create_time),
    )
    if version.last_test is not None:
        message.last_test.CopyFrom(build_test(credential, version.last_test))
    last_use = _later(version.last_use_time, last_use_seconds)
    if last_use is not None:
        message.last_use_time.CopyFrom(make_timestamp(last_use))
    if version.activate_time is not None:
        message.activate_time.CopyFrom(make_timestamp(version.activate_time))
    if version.destroy_time is not None:
        message.destroy_time.CopyFrom(make_timestamp(version.destroy_time))
    return message


def build_test(credential: Credential, test: KeyTest) -> credential_test_pb2.CredentialTest:
    """Builds the outcome of a test."""
    return credential_test_pb2.CredentialTest(
        credential_version=str(VersionName(credential.name, test.number)),
        outcome=credential_test_pb2.CredentialTestOutcome.Value(f"CREDENTIAL_TEST_OUTCOME_{test.outcome}"),
        test_time=make_timestamp(test.time),
    )


def build_policy(policy: Policy) -> credential_service_pb2.CredentialPolicy:
    """Builds a policy."""
    return credential_service_pb2.CredentialPolicy(
        name=policy.name, user_credentials_enabled=policy.user_credentials_enabled, etag=policy.etag
    )


def _read_max_concurrent(credential: credential_pb2.Credential) -> int | None:
    if not credential.HasField("max_concurrent_requests"):
        return None
    if credential.max_concurrent_requests < 1:
        raise invalid("credential.max_concurrent_requests", "must be at least 1")
    return credential.max_concurrent_requests


def _read_labels(credential: credential_pb2.Credential) -> dict[str, str]:
    if len(credential.labels) > MAX_LABELS:
        raise invalid("credential.labels", f"holds more than {MAX_LABELS}")
    for key, value in credential.labels.items():
        if not (_LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(value)):
            raise invalid("credential.labels", "keys match [a-z][a-z0-9_-]{0,62}, values [a-z0-9_-]{0,63}")
    return dict(credential.labels)


def _later(one: float | None, other: float | None) -> float | None:
    return max((time for time in (one, other) if time is not None), default=None)
