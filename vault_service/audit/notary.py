"""Signs how far the chain goes, and leaves a copy with the store, which the disk of the chain cannot change.

At the start the chain is held against both: one that ends before its newest checkpoint, or goes on differently, was
changed behind the service's back, and is not written any further.
"""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from google.protobuf import timestamp_pb2
from keyswitch.vault.v1 import audit_pb2

from vault_service.audit.chain import ChainBroken, last_position, segments
from vault_service.audit.checkpoint import (
    Position,
    append_checkpoint,
    format_checkpoint,
    make_statement,
    parse_checkpoint,
    read_checkpoints,
)
from vault_service.audit.reader import get_record
from vault_service.audit.sink import Sink
from vault_service.store.store import Conflict, Purpose, Store, StoreError

WITNESSES = "audit/"
"""Below this the store keeps the newest checkpoint of each chain."""
_ADVICE = (
    "Keep its folder, look at it with `keyswitch audit verify`, and go on with a new name (KEYSWITCH_VAULT_AUDIT_CHAIN)"
)


class Notary:
    """The checkpoints of the chain that this instance writes."""

    def __init__(
        self, sink: Sink, store: Store, *, clock: Callable[[], float], on_signed: Callable[[int], None] = lambda _: None
    ) -> None:
        self._sink = sink
        self._store = store
        self._clock = clock
        self._on_signed = on_signed
        self._turn = asyncio.Lock()
        self._last = 0
        self._ends: set[int] = set()

    @property
    def last_record(self) -> int:
        """The newest record that a checkpoint of this process covers; 0 before the first."""
        return self._last

    async def check_local(self) -> None:
        """Raises ChainBroken where the chain does not reach its own newest checkpoint."""
        found = await asyncio.to_thread(_read_or_raise, self._sink.folder)
        self._ends = {one.last_record for one in found}
        if found:
            self._last = found[-1].last_record
            await asyncio.to_thread(_compare, self._sink, found[-1], "the checkpoint beside it")

    async def check_witness(self) -> None:
        """Raises ChainBroken where the store has seen the chain go further, or differently; StoreError."""
        document = await self._store.read(WITNESSES + self._sink.chain)
        if document is None:
            return
        try:
            seen = parse_checkpoint(document.value)
        except ValueError:
            raise ChainBroken("the store's copy of the newest audit checkpoint is no checkpoint") from None
        await asyncio.to_thread(_compare, self._sink, seen, "the checkpoint in the store")

    async def sign(self) -> None:
        """Signs for the segments that were closed and for the newest durable record, where that is new."""
        async with self._turn:
            for end in await asyncio.to_thread(self._unsigned_ends):
                await self._sign(end)
            position = self._sink.position
            if position.number > self._last:
                checkpoint = await self._sign(position)
                await self._leave_witness(checkpoint)

    async def run(self, interval_seconds: float, on_error: Callable[[Exception], None]) -> None:
        """Signs until it is cancelled: after each interval, and as soon as a segment is closed."""
        while True:
            await self._sink.wait_for_segment(interval_seconds)
            try:
                await self.sign()
            except (StoreError, OSError, ValueError) as error:
                on_error(error)

    def _unsigned_ends(self) -> list[Position]:
        """Each closed segment gets a checkpoint for its very end: what is left when it is removed one day."""
        found = segments(self._sink.folder)
        unsigned: list[Position] = []
        for (_, path), (following, _) in pairwise(found):
            if following - 1 not in self._ends:
                position = last_position(path)
                if position is not None and position.number == following - 1:
                    unsigned.append(position)
        return unsigned

    async def _sign(self, position: Position) -> audit_pb2.AuditCheckpoint:
        checkpoint = audit_pb2.AuditCheckpoint(
            chain=f"chains/{self._sink.chain}",
            last_record=position.number,
            last_hash=position.hash,
            sign_time=timestamp_pb2.Timestamp(seconds=int(self._clock())),
        )
        statement = make_statement(checkpoint)
        checkpoint.key_id, checkpoint.signature = await self._store.sign(statement, purpose=Purpose.AUDIT)
        await asyncio.to_thread(append_checkpoint, self._sink.folder, checkpoint)
        self._ends.add(position.number)
        self._last = max(self._last, position.number)
        self._on_signed(self._last)
        return checkpoint

    async def _leave_witness(self, checkpoint: audit_pb2.AuditCheckpoint) -> None:
        path = WITNESSES + self._sink.chain
        document = await self._store.read(path)
        if document is not None and parse_checkpoint(document.value).last_record > checkpoint.last_record:
            self._sink.refuse("witnessed")
            raise Conflict("the store has seen this chain go further; another instance may use its name")
        await self._store.write(
            path, format_checkpoint(checkpoint), expected_revision=document.revision if document else 0
        )


def _read_or_raise(folder: Path) -> list[audit_pb2.AuditCheckpoint]:
    try:
        return read_checkpoints(folder)
    except ValueError:
        raise ChainBroken(f"{folder.name}: a line of checkpoints.jsonl is no checkpoint") from None


def _compare(sink: Sink, checkpoint: audit_pb2.AuditCheckpoint, where: str) -> None:
    """Runs in a thread."""
    position = sink.position
    number = checkpoint.last_record
    if number > position.number:
        raise ChainBroken(
            f"the audit chain {sink.chain} ends at record {position.number}, but {where} covers {number}: it was cut, "
            f"or another instance uses its name. {_ADVICE}"
        )
    record = get_record(sink.folder.parent, sink.chain, number)
    if record is None or record.hash != checkpoint.last_hash:
        raise ChainBroken(
            f"record {number} of the audit chain {sink.chain} is not the one of {where}: it was changed. {_ADVICE}"
        )
