"""The two streams of AuditService: records as they come, and a chain as text.

Both read the files from a place that only moves on when the caller has taken what came before: a slow caller costs no
memory, and is given every record. A write that is blocked when the call ends raises a private error of grpc, which
passes through here.
"""

import asyncio
import base64
import binascii
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from keyswitch.vault.v1 import audit_service_pb2 as pb

from vault_service.audit import reader
from vault_service.audit.checkpoint import read_checkpoints
from vault_service.audit.record import parse_line
from vault_service.audit.sink import Sink
from vault_service.core.faults import invalid

MAX_BATCH_RECORDS = 500
MAX_BATCH_BYTES = 512 * 1024
HEARTBEAT_SECONDS = 15.0
_OTHER_CHAINS_SECONDS = 1.0
"""How often chains are looked at that another process writes into the same folder."""


class Tail:
    """One caller's view of the chains from a point on."""

    def __init__(
        self,
        root: Path,
        sink: Sink,
        wanted: reader.RecordFilter,
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root
        self._sink = sink
        self._wanted = wanted
        self._heartbeat_seconds = heartbeat_seconds
        self._monotonic = monotonic
        self._cursors: dict[str, reader.Cursor] = {}

    def begin(self, chains: Mapping[str, int]) -> None:
        """Begins with these records. Runs in a thread."""
        for chain, number in chains.items():
            folder = self._root / chain
            self._cursors[chain] = reader.Cursor(folder, max(number, reader.first_number(folder)))

    async def run(self, context: Any) -> None:
        """Sends until the call ends."""
        last = self._monotonic()
        with self._sink.watching() as growth:
            await context.write(self._message([]))  # tells where it stands, and that it has begun
            while not self._sink.is_draining:
                growth.record.clear()
                is_complete = await self._send_new(context)
                if is_complete is not None:
                    last = self._monotonic()
                if is_complete is False:
                    continue
                if self._monotonic() - last >= self._heartbeat_seconds:
                    await context.write(self._message([]))
                    last = self._monotonic()
                await _wait(growth.record, min(self._heartbeat_seconds, _OTHER_CHAINS_SECONDS))

    async def _send_new(self, context: Any) -> bool | None:
        """Sends one batch of each chain. None: nothing was sent; False: there may be more at once."""
        sent: bool | None = None
        for cursor in self._cursors.values():
            lines = await asyncio.to_thread(cursor.read, MAX_BATCH_RECORDS, MAX_BATCH_BYTES)
            found = [record for record in map(parse_line, lines) if self._wanted.matches(record)]
            if found:
                await context.write(self._message(found))
            if lines:
                sent = False
        return sent

    def _message(self, records: list[Any]) -> pb.TailAuditRecordsResponse:
        places = {chain: cursor.next_number for chain, cursor in self._cursors.items()}
        return pb.TailAuditRecordsResponse(audit_records=records, resume_token=encode_places(places))


async def export(root: Path, chain: str, first: int, last: int, context: Any) -> None:
    """Sends the lines of a chain, and then its checkpoints."""
    folder = root / chain
    oldest = await asyncio.to_thread(reader.first_number, folder)
    newest = await asyncio.to_thread(reader.last_number, folder)
    cursor = reader.Cursor(folder, max(first, oldest))
    end = min(last or newest, newest)
    while cursor.next_number <= end:
        wanted = min(MAX_BATCH_RECORDS, end - cursor.next_number + 1)
        lines = await asyncio.to_thread(cursor.read, wanted, MAX_BATCH_BYTES)
        if not lines:
            break
        await context.write(pb.ExportAuditRecordsResponse(lines=b"".join(line + b"\n" for line in lines)))
    for checkpoint in await asyncio.to_thread(read_checkpoints, folder):
        if checkpoint.last_record <= end:
            await context.write(pb.ExportAuditRecordsResponse(checkpoint=checkpoint))


def encode_places(places: Mapping[str, int]) -> str:
    """Gives a token that names, per chain, the record to go on with."""
    return base64.urlsafe_b64encode(json.dumps(places).encode()).decode()


def decode_places(token: str, field: str) -> dict[str, int]:
    """Reads such a token; an empty one names nothing."""
    if not token:
        return {}
    try:
        places = json.loads(base64.urlsafe_b64decode(token.encode()))
        return {str(chain): int(number) for chain, number in places.items()}
    except (ValueError, TypeError, AttributeError, binascii.Error):
        raise invalid(field, "is not one of this service") from None


async def _wait(event: asyncio.Event, timeout_seconds: float) -> None:
    try:
        async with asyncio.timeout(timeout_seconds):
            await event.wait()
    except TimeoutError:
        return
