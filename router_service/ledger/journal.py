"""What is owed to the ledger, on this machine's disk: settlements and receipts, until the ledger has them.

Files of lines in one folder, each line a checksum and a debt. A process appends to files of its own, which it holds
locked; at its start it takes over those that nobody holds. `add` survives the end of the process, `sync` the end of the
machine. A debt is paid by an operation that does nothing the second time, so a file may be read again.
"""

import asyncio
import fcntl
import os
import secrets
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from router_service.core.receipt import Receipt

SEGMENT_BYTES = 8 * 1024 * 1024
KEPT_BYTES = 64 * 1024  # an empty file is cut back when it has grown beyond this
_SUFFIX = ".journal"
_DAMAGED = ".damaged"

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Settlement:
    """What an attempt is to be charged; `charged_nanos` is None where its reservation is only to be given back."""

    response_id: str
    attempt: int
    charged_nanos: int | None = None
    list_nanos: int | None = None

    @property
    def key(self) -> Key:
        """By which it is paid."""
        return self.response_id, self.attempt


Debt = Settlement | Receipt


class _Line(msgspec.Struct, omit_defaults=True):
    settlement: Settlement | None = None
    receipt: Receipt | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Line)


def key_of(debt: Debt) -> Key:
    """By which a debt is paid. Attempts begin at 1."""
    return debt.key if isinstance(debt, Settlement) else (debt.response_id, 0)


@dataclass(slots=True)
class _Segment:
    """One file."""

    path: Path
    number: int  # its descriptor
    size: int = 0
    debt_count: int = 0
    is_damaged: bool = False


class Journal:
    """Bound to one event loop. Raises OSError where the disk does not take it."""

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._open: dict[Key, _Segment] = {}
        self._syncing = asyncio.Lock()
        self._added = self._synced = 0
        self._unsynced: set[int] = set()
        self.damaged_count = 0  # lines that were found and could not be read
        self.found: list[Debt] = []  # in the order in which they were owed
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            self._take_over(path)
        self._current = self._create()

    def __len__(self) -> int:
        """How many debts there are."""
        return len(self._open)

    def add(self, debt: Debt) -> None:
        """Writes it down. One with the same key takes the place of the earlier one."""
        line = _encode(debt)
        if self._current.size and self._current.size + len(line) > self._segment_bytes:
            full, self._current = self._current, self._create()
            if not full.debt_count:
                self._remove(full)
        segment = self._current
        try:
            written = os.write(segment.number, line)
            if written != len(line):
                raise OSError("the disk took a part of a line")
        except OSError:
            os.ftruncate(segment.number, segment.size)
            raise
        segment.size += len(line)
        segment.debt_count += 1
        self._added += 1
        self._unsynced.add(segment.number)
        key = key_of(debt)
        earlier = self._open.get(key)
        self._open[key] = segment
        if earlier is not None:
            self._release(earlier)

    def probe(self) -> None:
        """Asks the disk whether it takes anything."""
        os.write(self._current.number, b"\n")
        os.fdatasync(self._current.number)
        os.ftruncate(self._current.number, self._current.size)

    def pay(self, key: Key) -> None:
        """The ledger has it."""
        segment = self._open.pop(key, None)
        if segment is not None:
            self._release(segment)

    async def sync(self) -> None:
        """Returns when everything that was added before is on the disk. Callers share the wait."""
        wanted = self._added
        async with self._syncing:
            if self._synced >= wanted:
                return
            reached, numbers = self._added, list(self._unsynced)
            twins = [os.dup(number) for number in numbers]  # a file may be done with, and closed, meanwhile
            await asyncio.shield(asyncio.to_thread(_sync, twins))
            self._synced = max(self._synced, reached)
            if self._added == reached:
                self._unsynced.clear()

    def close(self) -> None:
        """Lets go of the files. Those with debts stay."""
        for segment in {id(one): one for one in (*self._open.values(), self._current)}.values():
            if segment.debt_count:
                os.close(segment.number)
            else:
                self._remove(segment)
        self._open.clear()

    def _create(self) -> _Segment:
        while True:
            path = self._folder / f"{secrets.token_hex(8)}{_SUFFIX}"
            number = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
            if _lock(number, path):
                _sync([os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)])
                return _Segment(path, number)
            os.close(number)  # another process has taken it for one that was left behind

    def _take_over(self, path: Path) -> None:
        try:
            number = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        if not _lock(number, path):
            os.close(number)  # a process that lives has it
            return
        content = path.read_bytes()
        segment = _Segment(path, number, len(content))
        for debt in self._read(content, segment):
            key = key_of(debt)
            if key in self._open:
                self._open[key].debt_count -= 1
            self._open[key] = segment
            segment.debt_count += 1
            self.found.append(debt)
        if not segment.debt_count:
            self._remove(segment)

    def _read(self, content: bytes, segment: _Segment) -> Iterator[Debt]:
        for line in filter(None, content.split(b"\n")[:-1]):  # what a crash cut short was never acknowledged
            debt = _decode(line)
            if debt is None:
                segment.is_damaged = True
                self.damaged_count += 1
            else:
                yield debt

    def _release(self, segment: _Segment) -> None:
        segment.debt_count -= 1
        if segment.debt_count:
            return
        if segment is not self._current:
            self._remove(segment)
        elif segment.size > KEPT_BYTES:
            os.ftruncate(segment.number, 0)
            segment.size = 0

    def _remove(self, segment: _Segment) -> None:
        if segment.is_damaged:
            segment.path.rename(segment.path.with_suffix(_DAMAGED))
        else:
            segment.path.unlink(missing_ok=True)
        self._unsynced.discard(segment.number)
        os.close(segment.number)


def _encode(debt: Debt) -> bytes:
    line = _Line(settlement=debt) if isinstance(debt, Settlement) else _Line(receipt=debt)
    body = _encoder.encode(line)
    return b"%08x %b\n" % (zlib.crc32(body), body)


def _decode(line: bytes) -> Debt | None:
    checksum, _, body = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(body):
        return None
    try:
        found = _decoder.decode(body)
    except msgspec.MsgspecError:
        return None
    return found.settlement or found.receipt


def _lock(number: int, path: Path) -> bool:
    """Whether the file is ours now, and still the one of that name."""
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path.stat().st_ino == os.fstat(number).st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _sync(numbers: list[int]) -> None:
    """Waits for the disk, and closes the descriptors."""
    try:
        for number in numbers:
            os.fdatasync(number)
    finally:
        for number in numbers:
            os.close(number)
