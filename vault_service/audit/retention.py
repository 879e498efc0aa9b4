"""Removes old segments, whole ones only, and leaves what proves that the rest still is the chain's.

A segment may go when its last record is older than the retention, a checkpoint exists for its very end, and a newer
checkpoint covers the record that says that it goes. That record is durable before the first file is removed, so a gap
that nobody announced is told from one that was meant.
"""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from keyswitch.vault.v1 import audit_pb2

from vault_service.audit.chain import first_time_seconds, segments, sync_folder
from vault_service.audit.checkpoint import read_checkpoints
from vault_service.audit.notary import Notary
from vault_service.audit.recorder import SERVICE, Recorder
from vault_service.audit.sink import Sink
from vault_service.core.faults import Fault
from vault_service.core.names import RecordName
from vault_service.store.store import StoreError

INTERVAL_SECONDS = 3600.0


class Retention:
    """How long one chain is kept."""

    def __init__(
        self, sink: Sink, recorder: Recorder, notary: Notary, *, keep_seconds: float, clock: Callable[[], float]
    ) -> None:
        self._sink = sink
        self._recorder = recorder
        self._notary = notary
        self._keep_seconds = keep_seconds
        self._clock = clock

    async def remove_old(self) -> int:
        """Gives how many segments were removed. Raises what keeps it from removing any."""
        folder = self._sink.folder
        old = await asyncio.to_thread(find_old, folder, self._clock() - self._keep_seconds)
        if not old:
            return 0
        last_record, _ = old[-1]
        resource = str(RecordName(self._sink.chain, last_record))
        await self._recorder.note(SERVICE, audit_pb2.AUDIT_ACTION_REMOVE_RECORDS, resource)
        await self._notary.sign()
        await asyncio.to_thread(_remove, folder, [path for _, path in old])
        return len(old)

    async def run(self, on_error: Callable[[Exception], None]) -> None:
        """Removes until it is cancelled."""
        while True:
            try:
                await self.remove_old()
            except (StoreError, Fault, OSError, ValueError) as error:
                on_error(error)
            await asyncio.sleep(INTERVAL_SECONDS)


def find_old(folder: Path, before_seconds: float) -> list[tuple[int, Path]]:
    """Gives the segments that may go, each with its last record: those at the beginning of the chain, without a gap."""
    signed = {one.last_record for one in read_checkpoints(folder)}
    old: list[tuple[int, Path]] = []
    for (_, path), (following, next_path) in pairwise(segments(folder)):
        # The next segment began after the last record of this one.
        end_seconds = first_time_seconds(next_path)
        if end_seconds is None or end_seconds >= before_seconds or following - 1 not in signed:
            break
        old.append((following - 1, path))
    return old


def _remove(folder: Path, paths: list[Path]) -> None:
    for path in paths:  # the oldest first: a crash in between leaves a beginning that is missing, and never a hole
        path.unlink()
    sync_folder(folder)
