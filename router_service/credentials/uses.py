"""Every use of a secret on its way into the audit log: batched, repeated until the credential service has it."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum

from keyswitch.vault.v1 import lease_pb2

FLUSH_SECONDS = 1.0
BATCH = 1000
MOST_WAITING = 100_000
"""About 20 MB; beyond it the oldest are counted as lost, which is logged and shows as a gap in the audit."""

# Raises RefusedUses; any other exception means that the same batch may be sent again.
Send = Callable[[list[lease_pb2.CredentialUse]], Awaitable[None]]


class UseOutcome(Enum):
    """What became of the use of a secret."""

    SUCCEEDED = lease_pb2.CREDENTIAL_USE_OUTCOME_SUCCEEDED
    REJECTED = lease_pb2.CREDENTIAL_USE_OUTCOME_REJECTED
    FAILED = lease_pb2.CREDENTIAL_USE_OUTCOME_FAILED
    CANCELLED = lease_pb2.CREDENTIAL_USE_OUTCOME_CANCELLED
    KILLED = lease_pb2.CREDENTIAL_USE_OUTCOME_KILLED


class UsePurpose(Enum):
    """What a lease is taken for, and what a use of it was for."""

    COMPLETION = lease_pb2.LEASE_PURPOSE_COMPLETION
    EMBEDDING = lease_pb2.LEASE_PURPOSE_EMBEDDING
    TOKEN_COUNT = lease_pb2.LEASE_PURPOSE_TOKEN_COUNT
    TEST = lease_pb2.LEASE_PURPOSE_TEST
    DISCOVERY = lease_pb2.LEASE_PURPOSE_DISCOVERY


class RefusedUses(Exception):
    """The credential service will not take the batch, now or later."""


class Uses:
    """The queue. A report that is repeated does no harm, so a batch is taken out only when it has arrived."""

    def __init__(self, send: Send, on_lost: Callable[[int], None]) -> None:
        self._send = send
        self._on_lost = on_lost
        self._waiting: deque[lease_pb2.CredentialUse] = deque()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to report."""
        self._task = asyncio.create_task(self._run())

    def add(
        self,
        *,
        lease_id: str,
        request_id: str,
        attempt: int,
        principal: str,
        purpose: UsePurpose,
        outcome: UseOutcome,
        use_time: float,
    ) -> None:
        """Notes a use. `use_time` is seconds since 1970."""
        use = lease_pb2.CredentialUse(
            lease_id=lease_id,
            request_id=request_id,
            attempt=attempt,
            principal=principal,
            purpose=purpose.value,
            outcome=outcome.value,
        )
        use.use_time.FromNanoseconds(int(use_time * 1e9))
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
            self._on_lost(1)
        self._waiting.append(use)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            with suppress(Exception):  # reported again with the next flush; the watch says that the service is away
                await self.flush()

    async def flush(self) -> None:
        """Reports what is waiting. A use that is refused for itself must not keep the others back."""
        size = BATCH
        while self._waiting:
            batch = [self._waiting[number] for number in range(min(size, len(self._waiting)))]
            try:
                await self._send(batch)
            except RefusedUses:
                if len(batch) > 1:
                    size = 1
                    continue
                self._on_lost(1)
                size = BATCH
            for use in batch:
                if self._waiting and self._waiting[0] is use:  # else it was pushed out meanwhile
                    self._waiting.popleft()

    async def stop(self) -> None:
        """Reports what is left, once."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        with suppress(Exception):
            await self.flush()
        if self._waiting:
            self._on_lost(len(self._waiting))
