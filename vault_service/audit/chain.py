"""The chain's files: numbered segments of lines, and where the chain stands after the last complete one.

A crash may leave the last line incomplete. No caller was answered on the strength of it, so it is cut when the chain
goes on, and the record of the start says so. Anything else that does not fit is not mended: the chain is not used.
"""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format

from vault_service.audit.checkpoint import Position
from vault_service.audit.record import FIRST_PREVIOUS_HASH, hash_line, number_of, parse_line

_DIGITS = 20
_SUFFIX = ".jsonl"
_TAIL_BYTES = 65_536


class ChainBroken(Exception):
    """The files of a chain are not what this service wrote; somebody must look at them before it goes on."""


@dataclass(frozen=True, slots=True)
class ChainState:
    """Where a chain stands. `cut_bytes` is how much of an incomplete last line was cut."""

    next_number: int = 1
    previous_hash: bytes = FIRST_PREVIOUS_HASH
    cut_bytes: int = 0


def segment_name(first_number: int) -> str:
    """Gives the name of the segment that begins with the record."""
    return f"{first_number:0{_DIGITS}d}{_SUFFIX}"


def segments(folder: Path) -> list[tuple[int, Path]]:
    """Gives the segments of a chain with the number of their first record, the oldest first."""
    found = [path for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdigit() and len(path.stem) == _DIGITS]
    return sorted((int(path.stem), path) for path in found)


def open_folder(root: Path, chain: str) -> Path:
    """Makes the chain's folder where there is none."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = root / chain
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def lock_folder(folder: Path) -> int:
    """Gives a file descriptor that keeps every other process off the chain until it is closed."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise ChainBroken(f"another process writes the audit chain {folder.name}; give each instance its own") from None
    return descriptor


def recover(folder: Path) -> ChainState:
    """Finds where the chain stands, and cuts an incomplete last line."""
    state = ChainState()
    for _, path in reversed(segments(folder)):
        cut_bytes = _cut_incomplete_line(path)
        state = ChainState(state.next_number, state.previous_hash, state.cut_bytes + cut_bytes)
        line = _last_line(path)
        if line is None:
            path.unlink()  # a segment that was begun and holds nothing
            continue
        try:
            number = number_of(parse_line(line))
        except (json_format.ParseError, ValueError):
            raise ChainBroken(f"the last line of {path} is no audit record; verify the chain {folder.name}") from None
        return ChainState(number + 1, hash_line(line), state.cut_bytes)
    return state


def sync_folder(folder: Path) -> None:
    """Returns when the names in the folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def last_position(path: Path) -> Position | None:
    """Gives number and hash of a segment's last whole record; None where it holds none."""
    line = _last_line(path)
    return None if line is None else Position(number_of(parse_line(line)), hash_line(line))


def first_time_seconds(path: Path) -> float | None:
    """Gives when a segment's first record was written."""
    with path.open("rb") as file:
        line = file.readline()
    return parse_line(line[:-1]).record_time.ToNanoseconds() / 1e9 if line.endswith(b"\n") else None


def _cut_incomplete_line(path: Path) -> int:
    size = path.stat().st_size
    with path.open("r+b") as file:
        end = size
        while end > 0:
            start = max(0, end - _TAIL_BYTES)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            file.truncate(end)
            os.fsync(file.fileno())
        return size - end


def _last_line(path: Path) -> bytes | None:
    size = path.stat().st_size
    if size == 0:
        return None
    with path.open("rb") as file:
        length = min(size, _TAIL_BYTES)
        while True:
            file.seek(size - length)
            tail = file.read(length)
            start = tail.rfind(b"\n", 0, len(tail) - 1)
            if start >= 0:
                return tail[start + 1 : -1]
            if length == size:
                return tail[:-1]
            length = min(size, length * 2)
