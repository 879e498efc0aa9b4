"""What a start does once: the operator's token, left in a file that only the service's user can read, and the keys
that the environment fixes.

That the token was issued is a document of the store, so that of several instances over one Vault only one issues it.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

from keyswitch.vault.v1 import audit_pb2

from vault_service.audit.recorder import SERVICE, Recorder
from vault_service.core.access import Role
from vault_service.core.fixed import FixedCredentials
from vault_service.core.issuance import Issuance
from vault_service.core.names import Owner
from vault_service.store.store import Store

PATH = "deployment/bootstrap"


async def issue_operator_token(
    store: Store,
    issuance: Issuance,
    recorder: Recorder,
    file: Path,
    *,
    lifetime_seconds: float,
    reissue: bool,
    clock: Callable[[], float],
) -> bool:
    """Issues it where none was issued, or again when asked to; whether it did."""
    document = await store.read(PATH)
    if document is not None and not reissue:
        return False
    token = issuance.draft(Owner(), "operator of the first start", frozenset({Role.OPERATOR}), lifetime_seconds)
    async with recorder.doing(SERVICE, audit_pb2.AUDIT_ACTION_ISSUE_TOKEN, str(token.name)):
        text = await issuance.issue(token)
        _write_private(file, text)
        record = json.dumps({"token": str(token.name), "time": clock()}).encode()
        await store.write(PATH, record, expected_revision=document.revision if document else 0)
    return True


async def take_fixed_credentials(fixed: FixedCredentials, recorder: Recorder) -> int:
    """Takes the values that were not taken before; gives how many. Raises OtherwiseStored."""
    taken = 0
    for one in fixed:
        if await fixed.is_taken(one):
            continue
        action = audit_pb2.AUDIT_ACTION_FIX_CREDENTIAL
        async with recorder.doing(SERVICE, action, str(one.name), note=one.variable) as act:
            act.resource = str(await fixed.take(one))
        taken += 1
    return taken


def _write_private(file: Path, text: str) -> None:
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(text + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(file)
