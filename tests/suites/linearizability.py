"""Whether a recorded history of compare-and-set writes and reads is linearizable, and what it lost.

A document's revisions order its states by themselves, so no search is needed: each operation stands at a revision (a
write at the one that it made, a read at the one that it saw), and nothing may stand before what had ended before it
began. A write whose answer was lost may have happened or not: what others saw of it tells.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum


class End(Enum):
    """How an operation ended for whoever called it."""

    DONE = "done"
    CONFLICT = "conflict"
    UNKNOWN = "unknown"


@dataclass
class Operation:
    """A write (`expected` is given) or a read of one document. Times are places in the order of all events."""

    path: str
    begin: int
    expected: int | None = None
    value: bytes = b""
    end: int | None = None
    how: End = End.UNKNOWN
    revision: int = 0

    @property
    def is_write(self) -> bool:
        return self.expected is not None


@dataclass
class History:
    """What happened, as the callers saw it."""

    operations: list[Operation] = field(default_factory=list)
    _time: "itertools.count[int]" = field(default_factory=itertools.count)

    def begin(self, path: str, *, expected: int | None = None, value: bytes = b"") -> Operation:
        """Notes that somebody calls."""
        made = Operation(path, next(self._time), expected, value)
        self.operations.append(made)
        return made

    def end(self, operation: Operation, how: End, *, revision: int = 0, value: bytes | None = None) -> None:
        """Notes what came back."""
        operation.end, operation.how, operation.revision = next(self._time), how, revision
        if value is not None:
            operation.value = value

    def problems(self) -> list[str]:
        """What no order of the operations explains; empty for a linearizable history."""
        paths = sorted({one.path for one in self.operations})
        return [
            problem
            for path in paths
            for problem in _problems_of(path, [one for one in self.operations if one.path == path])
        ]


def _problems_of(path: str, operations: Sequence[Operation]) -> Iterable[str]:
    done = [one for one in operations if one.how is End.DONE]
    made: dict[int, Operation] = {}
    for one in (one for one in done if one.is_write):
        if one.revision != (one.expected or 0) + 1:
            yield f"{path}: a write over {one.expected} made {one.revision}"
        if one.revision in made:
            yield f"{path}: revision {one.revision} has two successors"
        made[one.revision] = one
    yield from _unexplained_reads(path, operations, made)
    yield from _unexplained_conflicts(path, operations)
    yield from _out_of_order(path, done)


def _unexplained_reads(path: str, operations: Sequence[Operation], made: dict[int, Operation]) -> Iterable[str]:
    """What a read saw was written by somebody who had begun: acknowledged, or by a write whose answer was lost."""
    lost = [one for one in operations if one.is_write and one.how is End.UNKNOWN]
    seen: dict[int, bytes] = {}
    for one in operations:
        if one.is_write or one.how is not End.DONE:
            continue
        if seen.setdefault(one.revision, one.value) != one.value:
            yield f"{path}: revision {one.revision} was read with two values"
        if one.revision == 0:
            continue
        by = made.get(one.revision)
        writers = [by] if by else [each for each in lost if (each.expected or 0) + 1 == one.revision]
        if not any(each.value == one.value and each.begin < (one.end or 0) for each in writers):
            yield f"{path}: revision {one.revision} was read with a value that nobody had written there"


def _unexplained_conflicts(path: str, operations: Sequence[Operation]) -> Iterable[str]:
    """A write is refused only where another one had, or may have, come first."""
    writes = [one for one in operations if one.is_write and one.how is not End.CONFLICT]
    for one in operations:
        if one.how is End.CONFLICT and not any(
            each.expected == one.expected and each.begin < (one.end or 0) for each in writes
        ):
            yield f"{path}: a write over {one.expected} was refused, and no other came first"


def _out_of_order(path: str, done: Sequence[Operation]) -> Iterable[str]:
    events = sorted(
        [(one.begin, 0, one) for one in done] + [(one.end or 0, 1, one) for one in done], key=lambda e: e[0]
    )
    newest = 0  # the newest revision that an operation that has ended stands at
    floor: dict[int, int] = {}
    for _, is_end, one in events:
        if not is_end:
            floor[id(one)] = newest
            continue
        least = floor[id(one)] + (1 if one.is_write else 0)
        if one.revision < least:
            kind = "write made" if one.is_write else "read saw"
            yield f"{path}: a {kind} revision {one.revision} after {floor[id(one)]} was known"
        newest = max(newest, one.revision)
