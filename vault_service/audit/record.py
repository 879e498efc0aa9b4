"""An audit record as the line that is kept and hashed, and read back from it.

The line is the record: one JSON object in the JSON mapping of proto3, holding every field but `hash`.
"""

import hashlib
import json

from google.protobuf import json_format
from keyswitch.vault.v1 import audit_pb2

FIRST_PREVIOUS_HASH = bytes(32)


def format_line(record: audit_pb2.AuditRecord) -> bytes:
    """Gives the line without its line feed. `hash` must not be set yet."""
    fields = json_format.MessageToDict(record)
    fields.pop("hash", None)
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


def hash_line(line: bytes) -> bytes:
    """Gives SHA-256 of the line, which the next record carries."""
    return hashlib.sha256(line).digest()


def parse_line(line: bytes) -> audit_pb2.AuditRecord:
    """Reads a record; names of enum values that a newer version wrote are left unset."""
    record = audit_pb2.AuditRecord()
    json_format.Parse(line, record, ignore_unknown_fields=True)
    record.hash = hash_line(line)
    return record


def number_of(record: audit_pb2.AuditRecord) -> int:
    """Gives which record of its chain it is."""
    return int(record.name.rpartition("/")[2])
