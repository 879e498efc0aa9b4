"""The writer of an audit chain: one thread, many callers, nobody answered before the disk has the line.

Callers that come while the disk is busy share the next write (group commit). When a write fails, everything that was
in it is refused, the file is cut back to its last durable line, and the door stays closed until a write succeeds.
"""

import asyncio
import contextlib
import errno
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from keyswitch.vault.v1 import audit_pb2

from vault_service.audit.chain import (
    ChainState,
    first_time_seconds,
    lock_folder,
    open_folder,
    recover,
    segment_name,
    segments,
    sync_folder,
)
from vault_service.audit.checkpoint import Position
from vault_service.audit.record import format_line, hash_line
from vault_service.core.faults import Fault, Reason
from vault_service.core.names import RecordName

MAX_BATCH_RECORDS = 256
SEGMENT_BYTES = 16 * 1024 * 1024
SEGMENT_SECONDS = 86_400.0
SLOW_SECONDS = 0.75
"""How long one write may take before the door is closed: health must say so within a second."""
MAX_WAITING = 50_000
_PROBE_SECONDS = 0.25
_PROBE_BYTES = 4096
_CAUSES = {errno.ENOSPC: "no_space", errno.EDQUOT: "no_space", errno.EROFS: "read_only", errno.EIO: "io"}


class Files(Protocol):
    """What the sink asks of the file system; tests put failures here."""

    def write(self, descriptor: int, data: bytes) -> int:
        """Writes some of the data and gives how much."""
        ...

    def datasync(self, descriptor: int) -> None:
        """Returns when the data is on the disk."""
        ...


class SystemFiles:
    """The file system itself."""

    def write(self, descriptor: int, data: bytes) -> int:
        return os.write(descriptor, data)

    def datasync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)


class Growth:
    """Set by the writer when there is a new record, or a new segment; whoever waits clears it."""

    def __init__(self) -> None:
        self.record = asyncio.Event()
        self.segment = asyncio.Event()


@dataclass(slots=True)
class _Entry:
    record: audit_pb2.AuditRecord
    done: "asyncio.Future[str]"
    loop: asyncio.AbstractEventLoop


class Sink:
    """An open chain. `append` returns when the record is durable."""

    def __init__(
        self,
        root: Path,
        chain: str,
        *,
        clock: Callable[[], float],
        files: Files | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        segment_seconds: float = SEGMENT_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.chain = chain
        self.folder = open_folder(root, chain)
        self._clock = clock
        self._files = files or SystemFiles()
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._monotonic = monotonic
        self._lock = lock_folder(self.folder)
        try:
            self._state = recover(self.folder)
        except BaseException:  # whatever it was, nobody else could open the chain while the lock is held
            os.close(self._lock)
            raise
        self.cut_bytes = self._state.cut_bytes
        self._descriptor: int | None = None
        self._size = 0
        self._is_torn = False
        self._entries: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._segment_time: float | None = None
        self._time = 0.0
        self._closed_cause: str | None = None
        self._refused_cause: str | None = None
        self._busy_since: float | None = None
        self._waiting: dict[asyncio.AbstractEventLoop, set[asyncio.Future[str]]] = {}
        self._growth: dict[Growth, asyncio.AbstractEventLoop] = {}
        self._ended = False
        self._is_draining = False
        self._thread = threading.Thread(target=self._run, name=f"audit-{chain}", daemon=True)
        self._thread.start()

    @property
    def closed_cause(self) -> str | None:
        """Why the door is closed; None while records can be made durable."""
        if self._refused_cause is not None:
            return self._refused_cause
        since = self._busy_since
        is_slow = since is not None and self._monotonic() - since > SLOW_SECONDS
        return self._closed_cause or ("slow" if is_slow else None)

    @property
    def position(self) -> Position:
        """The newest durable record."""
        state = self._state
        return Position(state.next_number - 1, state.previous_hash)

    def refuse(self, cause: str) -> None:
        """Closes the door until somebody has looked at the chain: it is not what it was, and is written no further."""
        self._refused_cause = cause

    async def append(self, record: audit_pb2.AuditRecord) -> str:
        """Gives the record's name when it is durable. Raises AUDIT_FAILED.

        A disk that takes too long counts as one that fails. The record may still get there, which does no harm: what
        it speaks of was not done, or not given out.
        """
        cause = "closed" if self._ended else self._refused_cause or self._slow_cause()
        if cause is not None:
            raise _failed(cause)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[str] = loop.create_future()
        waiting = self._waiting.get(loop)
        if waiting is None:
            waiting = self._waiting[loop] = set()
            loop.call_later(SLOW_SECONDS / 2, self._look, loop)
        waiting.add(done)
        self._entries.put(_Entry(record, done, loop))
        try:
            return await done
        finally:
            waiting.discard(done)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Gives up what waits when the disk has become slow; looks again for as long as anything waits."""
        waiting = self._waiting[loop]
        if not waiting:
            del self._waiting[loop]
            return
        if self._slow_cause() is not None:
            for done in waiting:
                if not done.done():
                    done.set_exception(_failed("slow"))
        loop.call_later(SLOW_SECONDS / 2, self._look, loop)

    def _slow_cause(self) -> str | None:
        since = self._busy_since
        if self._entries.qsize() > MAX_WAITING or (since is not None and self._monotonic() - since > SLOW_SECONDS):
            return "slow"
        return None

    @contextlib.contextmanager
    def watching(self) -> "Iterator[Growth]":
        """Gives what tells this event loop that the chain has grown, or has begun a new segment."""
        growth = Growth()
        self._growth[growth] = asyncio.get_running_loop()
        try:
            yield growth
        finally:
            del self._growth[growth]

    @property
    def is_draining(self) -> bool:
        """Whether those who watch the chain are to stop."""
        return self._is_draining

    def drain(self) -> None:
        """Asks those who watch the chain to stop. Records are still taken."""
        self._is_draining = True
        self._tell_growth("record")

    async def wait_for_segment(self, timeout_seconds: float) -> None:
        """Returns when a segment is closed, at the latest after the timeout."""
        with self.watching() as growth, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await growth.segment.wait()

    async def close(self) -> None:
        """Writes what is waiting and lets go of the files."""
        if self._ended:
            return
        self._ended = True
        self._entries.put(None)
        await asyncio.to_thread(self._thread.join)
        self._close_segment()
        os.close(self._lock)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            entries, is_last = self._take()
            if entries:
                try:
                    self._commit(entries)
                except Exception:  # noqa: BLE001 - the thread must outlive any record, or the door would never open again
                    self._closed_cause = "writer"
                    _resolve(entries, lambda done, _: done.set_exception(_failed("writer")))
            elif self._closed_cause is not None and not is_last:
                self._probe()

    def _take(self) -> tuple[list[_Entry], bool]:
        timeout = None if self._closed_cause is None else _PROBE_SECONDS
        entries: list[_Entry] = []
        try:
            entry = self._entries.get(timeout=timeout)
            while entry is not None:
                entries.append(entry)
                if len(entries) >= MAX_BATCH_RECORDS:
                    return entries, False
                entry = self._entries.get_nowait()
        except queue.Empty:
            return entries, False
        return entries, True

    def _tell_growth(self, name: str) -> None:
        for growth, loop in list(self._growth.items()):
            with contextlib.suppress(RuntimeError):  # a loop that has ended
                loop.call_soon_threadsafe(getattr(growth, name).set)

    def _commit(self, entries: Sequence[_Entry]) -> None:
        state = self._state
        lines: list[bytes] = []
        names: list[str] = []
        for entry in entries:
            record = entry.record
            names.append(str(RecordName(self.chain, state.next_number)))
            record.name = names[-1]
            self._time = self._clock()
            record.record_time.FromNanoseconds(int(self._time * 1e6) * 1000)
            record.previous_hash = state.previous_hash
            line = format_line(record)
            lines.append(line + b"\n")
            state = ChainState(state.next_number + 1, hash_line(line))
        data = b"".join(lines)
        try:
            self._busy_since = self._monotonic()
            self._write(data)
        except OSError as error:
            self._closed_cause = _CAUSES.get(error.errno or 0, "io")
            self._repair()
            fault_cause = self._closed_cause
            _resolve(entries, lambda done, _: done.set_exception(_failed(fault_cause)))
            return
        finally:
            self._busy_since = None
        self._size += len(data)
        self._state = state
        self._closed_cause = None
        _resolve(entries, lambda done, i: done.set_result(names[i]))
        self._tell_growth("record")

    def _write(self, data: bytes) -> None:
        descriptor = self._segment()
        if self._is_torn:
            os.ftruncate(descriptor, self._size)
            self._is_torn = False
        view = data
        while view:
            view = view[self._files.write(descriptor, view) :]
        self._files.datasync(descriptor)

    def _segment(self) -> int:
        if self._descriptor is not None and not self._is_full(self._size, self._segment_time):
            return self._descriptor
        self._close_segment()
        present = segments(self.folder)
        path = present[-1][1] if present else None
        self._segment_time = first_time_seconds(path) if path is not None else None
        if path is None or self._is_full(path.stat().st_size, self._segment_time):
            path = self.folder / segment_name(self._state.next_number)
            self._segment_time = self._time
            self._tell_growth("segment")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._descriptor, self._size = descriptor, os.fstat(descriptor).st_size
        sync_folder(self.folder)
        return descriptor

    def _is_full(self, size_bytes: int, first_time: float | None) -> bool:
        if size_bytes == 0:
            return False
        is_old = first_time is not None and self._time - first_time >= self._segment_seconds
        return is_old or size_bytes >= self._segment_bytes

    def _repair(self) -> None:
        """Cuts what a failed write left. Where even that fails, the next attempt begins with it."""
        if self._descriptor is None:
            return
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError:
            self._is_torn = True
            return
        # After a failed sync the kernel may have dropped the pages: nothing of this descriptor is trusted again.
        self._close_segment()

    def _probe(self) -> None:
        """Opens the door again when the disk takes a block, so that health recovers without a caller's attempt."""
        path = self.folder / "probe"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                self._files.write(descriptor, bytes(_PROBE_BYTES))
                self._files.datasync(descriptor)
            finally:
                os.close(descriptor)
                path.unlink(missing_ok=True)
        except OSError:
            return
        self._closed_cause = None

    def _close_segment(self) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


def _resolve(entries: Sequence[_Entry], settle: Callable[["asyncio.Future[str]", int], None]) -> None:
    loops = {id(entry.loop): entry.loop for entry in entries}

    def settle_all(loop: asyncio.AbstractEventLoop) -> None:
        for i, entry in enumerate(entries):
            if entry.loop is loop and not entry.done.done():
                settle(entry.done, i)

    for loop in loops.values():
        with contextlib.suppress(RuntimeError):  # the loop of a caller that is gone
            loop.call_soon_threadsafe(settle_all, loop)


def _failed(cause: str) -> Fault:
    return Fault(Reason.AUDIT_FAILED, {"cause": cause})
