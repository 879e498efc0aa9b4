"""The law of credentials: what may become of one, as functions from value to value.

Nothing here reads a store or a clock; `time_seconds` is now. A function that finds nothing to change gives back the
very value it was given.
"""

from collections.abc import Callable
from dataclasses import replace

from vault_service.core.credential import PASSED, Credential, Draft, KeyTest, Request, Version
from vault_service.core.faults import Fault, Reason, invalid, unknown_credential
from vault_service.core.names import CredentialName, VersionName
from vault_service.core.states import Event, VersionState, may_lease, step
from vault_service.core.timestamps import format_time

MAX_VERSIONS = 1000
REQUEST_ID_SECONDS = 86_400.0


def require_live(credential: Credential | None, name: CredentialName) -> Credential:
    """Gives the credential where there is one that was not deleted."""
    if credential is None:
        raise unknown_credential(str(name))
    if credential.delete_time is not None:
        metadata = {"name": str(name), "deleteTime": format_time(credential.delete_time)}
        raise Fault(Reason.CREDENTIAL_DELETED, metadata)
    return credential


def require_version(credential: Credential, number: int) -> Version:
    """Gives a version by its number."""
    version = credential.version(number)
    if version is None:
        raise unknown_credential(str(VersionName(credential.name, number)))
    return version


def check_etag(credential: Credential, etag: str) -> None:
    """Raises when an etag was sent that is not the present one."""
    if etag and etag != credential.etag:
        raise Fault(Reason.VERSION_CONFLICT, {"name": str(credential.name)})


def create(
    before: Credential | None, name: CredentialName, draft: Draft, request_id: str, time_seconds: float
) -> Credential:
    """Creates, also over a tombstone. The same request within a day gives what stands."""
    if before is not None and before.delete_time is None:
        used = find_request(before, request_id, time_seconds)
        if used is None:
            raise Fault(Reason.CREDENTIAL_EXISTS, {"name": str(name)})
        if used.digest != draft.digest():
            raise reused(request_id)
        return before
    request = (Request(request_id, time_seconds, digest=draft.digest()),) if request_id else ()
    return Credential(
        name=name,
        draft=draft,
        create_time=time_seconds,
        update_time=time_seconds,
        next_number=before.next_number if before else 1,
        requests=request,
    )


def update(credential: Credential, change: Callable[[Draft], Draft], etag: str, time_seconds: float) -> Credential:
    """Changes what the owner may change."""
    check_etag(credential, etag)
    draft = change(credential.draft)
    return credential if draft == credential.draft else _changed(replace(credential, draft=draft), time_seconds)


def set_disabled(credential: Credential, is_disabled: bool, etag: str, time_seconds: float) -> Credential:
    """Switches it off or on."""
    check_etag(credential, etag)
    if credential.is_disabled == is_disabled:
        return credential
    return _changed(replace(credential, is_disabled=is_disabled), time_seconds)


def reserve_version(credential: Credential) -> Credential:
    """Takes the next number, so that two writers never put their bytes in one place."""
    if len(credential.versions) >= MAX_VERSIONS:
        raise invalid(
            "parent", f"has {MAX_VERSIONS} versions, which is the most; delete the credential and create it again"
        )
    return replace(credential, next_number=credential.next_number + 1)


def add_version(
    credential: Credential, number: int, fingerprint: str, request_id: str, time_seconds: float
) -> Credential:
    """Adds the version whose number was reserved, PENDING."""
    version = Version(number, VersionState.PENDING, fingerprint, time_seconds)
    versions = tuple(sorted((*credential.versions, version), key=lambda one: one.number))
    fresh = tuple(request for request in credential.requests if time_seconds - request.time < REQUEST_ID_SECONDS)
    added = (Request(request_id, time_seconds, number),) if request_id else ()
    return _changed(replace(credential, versions=versions, requests=(*fresh, *added)), time_seconds)


def activate(credential: Credential, number: int, etag: str, *, force: bool, time_seconds: float) -> Credential:
    """Makes the version the one that is leased. Needs a passed test, or force."""
    check_etag(credential, etag)
    version = require_version(credential, number)
    state = _step(credential, version, Event.ACTIVATED)
    outcome = version.last_test.outcome if version.last_test else "UNSPECIFIED"
    if outcome != PASSED and not force:
        metadata = {
            "name": str(VersionName(credential.name, number)),
            "outcome": f"CREDENTIAL_TEST_OUTCOME_{outcome}",
        }
        raise Fault(Reason.TEST_REQUIRED, metadata)
    if version.state is VersionState.ACTIVE:
        return credential
    former = credential.active
    if former is not None:
        superseded = _step(credential, former, Event.OTHER_ACTIVATED)
        credential = _with(credential, replace(former, state=superseded))
    return _changed(_with(credential, replace(version, state=state, activate_time=time_seconds)), time_seconds)


def disable_version(credential: Credential, number: int, etag: str, time_seconds: float) -> Credential:
    """Stops leasing the version."""
    check_etag(credential, etag)
    version = require_version(credential, number)
    state = _step(credential, version, Event.DISABLED)
    if state is version.state:
        return credential
    return _changed(_with(credential, replace(version, state=state)), time_seconds)


def mark_destroyed(credential: Credential, number: int, time_seconds: float) -> Credential:
    """Says that the bytes are gone; to be called when they are."""
    version = require_version(credential, number)
    state = _step(credential, version, Event.DESTROYED)
    if state is version.state:
        return credential
    return _changed(_with(credential, replace(version, state=state, destroy_time=time_seconds)), time_seconds)


def bury(credential: Credential, time_seconds: float) -> Credential:
    """Leaves a tombstone, which keeps the next number and nothing of the owner's words."""
    draft = Draft(provider=credential.draft.provider, kind=credential.draft.kind, allowed_origins=())
    return Credential(
        name=credential.name,
        draft=draft,
        create_time=credential.create_time,
        update_time=time_seconds,
        is_disabled=True,
        next_number=credential.next_number,
        changes=credential.changes + 1,
        delete_time=time_seconds,
    )


def record_test(credential: Credential, test: KeyTest) -> Credential:
    """Keeps a test's outcome with the version and the credential; an older one than is kept changes nothing."""
    version = require_version(credential, test.number)
    if version.last_test is None or version.last_test.time <= test.time:
        credential = _with(credential, replace(version, last_test=test))
    if credential.last_test is None or credential.last_test.time <= test.time:
        credential = replace(credential, last_test=test)
    return credential


def record_use(credential: Credential, number: int, time_seconds: float) -> Credential:
    """Keeps when a version was used last."""
    version = credential.version(number)
    if version is not None and (version.last_use_time or 0.0) < time_seconds:
        credential = _with(credential, replace(version, last_use_time=time_seconds))
    if (credential.last_use_time or 0.0) < time_seconds:
        credential = replace(credential, last_use_time=time_seconds)
    return credential


def choose_version(credential: Credential, number: int | None, *, is_trial: bool, time_seconds: float) -> Version:
    """Gives the version that a lease of `number` (None: the active one) may have, or raises why none may be had."""
    name = str(credential.name)
    if credential.is_disabled:
        raise Fault(Reason.CREDENTIAL_DISABLED, {"name": name, "cause": "disabled"})
    if credential.is_expired(time_seconds):
        raise Fault(Reason.CREDENTIAL_DISABLED, {"name": name, "cause": "expired"})
    version = credential.active if number is None else require_version(credential, number)
    version_name = str(VersionName(credential.name, number))
    if version is not None and version.state is VersionState.DESTROYED:
        raise Fault(Reason.CREDENTIAL_DESTROYED, {"name": version_name})
    if version is None or not may_lease(version.state, is_trial=is_trial):
        state = version.state.value if version else "UNSPECIFIED"
        metadata = {"name": version_name, "state": f"CREDENTIAL_VERSION_STATE_{state}"}
        raise Fault(Reason.VERSION_NOT_ACTIVE, metadata)
    return version


def find_request(credential: Credential, request_id: str, time_seconds: float) -> Request | None:
    """Gives the request that was made under the id within a day."""
    return next(
        (
            request
            for request in credential.requests
            if request_id and request.request_id == request_id and time_seconds - request.time < REQUEST_ID_SECONDS
        ),
        None,
    )


def reused(request_id: str) -> Fault:
    """Makes the fault of a request id that was used for something else."""
    return Fault(Reason.REQUEST_ID_REUSED, {"requestId": request_id})


def _step(credential: Credential, version: Version, event: Event) -> VersionState:
    state = step(version.state, event)
    if state is None:
        name = str(VersionName(credential.name, version.number))
        if version.state is VersionState.DESTROYED:
            raise Fault(Reason.CREDENTIAL_DESTROYED, {"name": name})
        metadata = {"name": name, "state": f"CREDENTIAL_VERSION_STATE_{version.state.value}"}
        raise Fault(Reason.VERSION_NOT_ACTIVE, metadata)
    return state


def _with(credential: Credential, version: Version) -> Credential:
    versions = tuple(version if one.number == version.number else one for one in credential.versions)
    return replace(credential, versions=versions)


def _changed(credential: Credential, time_seconds: float) -> Credential:
    return replace(credential, changes=credential.changes + 1, update_time=time_seconds)
