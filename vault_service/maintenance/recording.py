"""The audit chain of maintenance: recorded, signed and witnessed as those of the instances are."""

import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from vault_service.audit.chain_name import keep_maintenance_name
from vault_service.audit.notary import Notary
from vault_service.audit.recorder import Recorder
from vault_service.audit.sink import Sink
from vault_service.store.store import MaintainedStore, StoreError


class NotSigned(StoreError):
    """It was done and recorded, and no checkpoint covers the record yet; the text says why."""


@asynccontextmanager
async def recording(folder: Path, store: MaintainedStore) -> AsyncIterator[Recorder]:
    """Gives what records; at its end a checkpoint covers it, with a copy in the store. Raises ChainBroken."""
    sink = Sink(folder, keep_maintenance_name(folder, lambda: secrets.token_hex(4)), clock=time.time)
    notary = Notary(sink, store, clock=time.time)
    try:
        await notary.check_local()
        await notary.check_witness()
        try:
            yield Recorder(sink, last_request_ids=store.last_request_ids)
        except BaseException:  # also an interrupt: what was done until then is signed
            with contextlib.suppress(StoreError, OSError, ValueError):  # what went wrong first is what must be said
                await notary.sign()
            raise
        try:
            await notary.sign()
        except (StoreError, OSError, ValueError) as error:
            raise NotSigned(
                f"done and recorded, but no checkpoint is signed ({error}); the next run signs it"
            ) from None
    finally:
        await sink.close()
