"""Reading the chains back: the newest first, filtered, in pages.

Reads go over the files from their end and stop when a page is full; they run in a thread, beside the writer, and see
only complete lines.
"""

import heapq
import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keyswitch.vault.v1 import audit_pb2

from vault_service.audit.chain import segments
from vault_service.audit.record import number_of, parse_line
from vault_service.core.names import Owner, is_chain_id, is_within


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """Which records; every field that is set must match. `owner` bounds what may be seen; None does not."""

    owner: Owner | None = None
    resource: str = ""
    subject: str = ""
    actions: frozenset[int] = field(default_factory=frozenset)
    outcomes: frozenset[int] = field(default_factory=frozenset)
    request_id: str = ""
    lease_id: str = ""
    start_seconds: float | None = None
    end_seconds: float | None = None

    def matches(self, record: audit_pb2.AuditRecord) -> bool:
        """Whether the record is wanted and may be seen."""
        if self.owner is not None and not is_within(record.resource, self.owner):
            return False
        if self.resource and record.resource != self.resource and not record.resource.startswith(self.resource + "/"):
            return False
        if self.actions and record.action not in self.actions:
            return False
        if self.outcomes and record.outcome not in self.outcomes:
            return False
        if not self._matches_texts(record):
            return False
        seconds = record.record_time.ToNanoseconds() / 1e9
        return (self.start_seconds is None or seconds >= self.start_seconds) and (
            self.end_seconds is None or seconds < self.end_seconds
        )

    def _matches_texts(self, record: audit_pb2.AuditRecord) -> bool:
        wanted = (
            (self.subject, record.identity.subject),
            (self.request_id, record.request_id),
            (self.lease_id, record.lease_id),
        )
        return all(not text or text == found for text, found in wanted)


def chains(root: Path) -> list[str]:
    """Gives the chains that stand below the folder."""
    if not root.is_dir():
        return []
    return sorted(path.name for path in root.iterdir() if path.is_dir() and is_chain_id(path.name))


def get_record(root: Path, chain: str, number: int) -> audit_pb2.AuditRecord | None:
    """Gives one record."""
    holding = [path for first, path in segments(root / chain) if first <= number]
    if not holding:
        return None
    with holding[-1].open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                record = parse_line(line[:-1])
                if number_of(record) == number:
                    return record
    return None


def list_records(
    root: Path, names: Sequence[str], wanted: RecordFilter, limit: int, before: Callable[[str], int | None]
) -> list[audit_pb2.AuditRecord]:
    """Gives at most `limit` records of the chains, merged by time, the newest first.

    `before(chain)` is the number from which on (and upwards) records are left out; None leaves out nothing.
    """
    streams = [_newest_first(root / name, before(name)) for name in names]
    merged = heapq.merge(*streams, key=lambda record: -record.record_time.ToNanoseconds())
    page: list[audit_pb2.AuditRecord] = []
    for record in merged:
        if wanted.start_seconds is not None and record.record_time.ToNanoseconds() / 1e9 < wanted.start_seconds - 60:
            break  # a chain's times may run back a little with the clock, not by minutes
        if wanted.matches(record):
            page.append(record)
            if len(page) >= limit:
                break
    return page


class Cursor:
    """Reads a chain's lines from a record on, in order; what is appended meanwhile comes with a later read.

    It remembers its place in the file, so a tail does not read a segment again for each batch.
    """

    def __init__(self, folder: Path, next_number: int) -> None:
        self._folder = folder
        self._path: Path | None = None
        self._offset = 0
        self.next_number = next_number

    def read(self, max_lines: int, max_bytes: int) -> list[bytes]:
        """Gives at most so many lines, without line feeds; none where there are no further ones yet."""
        lines: list[bytes] = []
        while len(lines) < max_lines and sum(map(len, lines)) < max_bytes:
            if self._path is None and not self._find_segment():
                break
            found = self._read_on(max_lines - len(lines), max_bytes - sum(map(len, lines)))
            lines += found
            if not found:
                if not self._has_following():
                    break
                self._path = None
        return lines

    def _find_segment(self) -> bool:
        holding = [(first, path) for first, path in segments(self._folder) if first <= self.next_number]
        if not holding:
            return False
        first, self._path = holding[-1]
        self._offset = 0
        with self._path.open("rb") as file:
            for _ in range(self.next_number - first):
                line = file.readline()
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
        return True

    def _read_on(self, max_lines: int, max_bytes: int) -> list[bytes]:
        lines: list[bytes] = []
        size = 0
        if self._path is None:
            return lines
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                while len(lines) < max_lines and size < max_bytes:
                    line = file.readline()
                    if not line.endswith(b"\n"):
                        break  # the end, or a line that is being written
                    lines.append(line[:-1])
                    size += len(line)
        except FileNotFoundError:  # removed meanwhile, as old
            return []
        self._offset += size
        self.next_number += len(lines)
        return lines

    def _has_following(self) -> bool:
        """Whether a later segment holds the next record: only then is the end of this one the end of its file."""
        path = self._path
        return path is not None and any(
            first == self.next_number and each != path for first, each in segments(self._folder)
        )


def first_number(folder: Path) -> int:
    """Gives the oldest record that is kept; 1 where there is none yet."""
    found = segments(folder)
    return found[0][0] if found else 1


def last_number(folder: Path) -> int:
    """Gives the newest record; 0 where there is none."""
    for _, path in reversed(segments(folder)):
        for line in _lines_backwards(path):
            return number_of(parse_line(line))
    return 0


def _newest_first(folder: Path, before: int | None) -> Iterator[audit_pb2.AuditRecord]:
    for first, path in reversed(segments(folder)):
        if before is not None and first >= before:
            continue
        for line in _lines_backwards(path):
            record = parse_line(line)
            if before is None or number_of(record) < before:
                yield record


def _lines_backwards(path: Path) -> Iterator[bytes]:
    if path.stat().st_size == 0:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end = content.rfind(b"\n")
        while end >= 0:
            start = content.rfind(b"\n", 0, end)
            yield content[start + 1 : end]
            end = start
