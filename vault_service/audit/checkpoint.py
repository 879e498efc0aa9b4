"""Checkpoints: signed statements of how far a chain goes, as lines of a file beside its segments.

They are appended when the chain has grown for a while, for the end of each closed segment, and at the stop. Every one
covers all records before it, because each record holds the hash of the one before.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format
from keyswitch.vault.v1 import audit_pb2

FILE = "checkpoints.jsonl"
_LABEL = "keyswitch.vault.v1.AuditCheckpoint"


@dataclass(frozen=True, slots=True)
class Position:
    """How far a chain goes: the number of a record, 0 before the first, and its hash."""

    number: int
    hash: bytes


def make_statement(checkpoint: audit_pb2.AuditCheckpoint) -> bytes:
    """Gives the bytes that are signed; see AuditCheckpoint.signature."""
    return b"".join(
        (
            _with_length(_LABEL.encode()),
            _with_length(checkpoint.chain.encode()),
            checkpoint.last_record.to_bytes(8, "big"),
            _with_length(checkpoint.last_hash),
            checkpoint.sign_time.seconds.to_bytes(8, "big"),
        )
    )


def format_checkpoint(checkpoint: audit_pb2.AuditCheckpoint) -> bytes:
    """Gives its line, without the line feed."""
    return json.dumps(json_format.MessageToDict(checkpoint), separators=(",", ":")).encode()


def parse_checkpoint(line: bytes) -> audit_pb2.AuditCheckpoint:
    """Reads a line. Raises ValueError."""
    checkpoint = audit_pb2.AuditCheckpoint()
    try:
        json_format.Parse(line, checkpoint, ignore_unknown_fields=True)
    except json_format.ParseError:
        raise ValueError("is no checkpoint") from None
    return checkpoint


def read_checkpoints(folder: Path) -> list[audit_pb2.AuditCheckpoint]:
    """Gives the checkpoints of a chain, the oldest first. A last line without its end was never finished."""
    return [parse_checkpoint(line) for line in _whole_lines(folder / FILE)]


def append_checkpoint(folder: Path, checkpoint: audit_pb2.AuditCheckpoint) -> None:
    """Appends one; it is on the disk when this returns."""
    path = folder / FILE
    whole = sum(len(line) + 1 for line in _whole_lines(path))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.truncate(whole)  # what a crash or a full disk left of an earlier one
        file.seek(whole)
        file.write(format_checkpoint(checkpoint) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _whole_lines(path: Path) -> Iterator[bytes]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line[:-1]


def _with_length(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value
