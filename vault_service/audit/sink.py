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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from keyswitch.vault.v1 import audit_pb2

from vault_service.audit.chain import ChainState, lock_folder, open_folder, recover, segment_name, segments
from vault_service.audit.record import format_line, hash_line
from vault_service.core.faults import Fault, Reason
from vault_service.core.names import RecordName

MAX_BATCH_RECORDS = 256
SEGMENT_BYTES = 16 * 1024 * 1024
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
    ) -> None:
        self.chain = chain
        self.folder = open_folder(root, chain)
        self._clock = clock
        self._files = files or SystemFiles()
        self._segment_bytes = segment_bytes
        self._lock = lock_folder(self.folder)
        try:
            self._state = recover(self.folder)
        except BaseException:
            os.close(self._lock)
            raise
        self.cut_bytes = self._state.cut_bytes
        self._descriptor: int | None = None
        self._size = 0
        self._is_torn = False
        self._entries: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._closed_cause: str | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"audit-{chain}", daemon=True)
        self._thread.start()

    @property
    def closed_cause(self) -> str | None:
        """Why the door is closed; None while records can be made durable."""
        return self._closed_cause

    async def append(self, record: audit_pb2.AuditRecord) -> str:
        """Gives the record's name when it is durable. Raises AUDIT_FAILED."""
        if self._ended:
            raise _failed("closed")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[str] = loop.create_future()
        self._entries.put(_Entry(record, done, loop))
        return await done

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

    def _commit(self, entries: Sequence[_Entry]) -> None:
        state = self._state
        lines: list[bytes] = []
        names: list[str] = []
        for entry in entries:
            record = entry.record
            names.append(str(RecordName(self.chain, state.next_number)))
            record.name = names[-1]
            record.record_time.FromNanoseconds(int(self._clock() * 1e6) * 1000)
            record.previous_hash = state.previous_hash
            line = format_line(record)
            lines.append(line + b"\n")
            state = ChainState(state.next_number + 1, hash_line(line))
        data = b"".join(lines)
        try:
            self._write(data)
        except OSError as error:
            self._closed_cause = _CAUSES.get(error.errno or 0, "io")
            self._repair()
            fault_cause = self._closed_cause
            _resolve(entries, lambda done, _: done.set_exception(_failed(fault_cause)))
            return
        self._size += len(data)
        self._state = state
        self._closed_cause = None
        _resolve(entries, lambda done, i: done.set_result(names[i]))

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
        if self._descriptor is not None and self._size < self._segment_bytes:
            return self._descriptor
        self._close_segment()
        present = segments(self.folder)
        path = present[-1][1] if present else None
        if path is None or path.stat().st_size >= self._segment_bytes:
            path = self.folder / segment_name(self._state.next_number)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._descriptor, self._size = descriptor, os.fstat(descriptor).st_size
        _sync_folder(self.folder)
        return descriptor

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


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
