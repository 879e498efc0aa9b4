"""An audit record as the line that is kept and hashed, and read back from it.

The line is the record: one JSON object in the JSON mapping of proto3, holding every field but `hash`.
"""

import base64
import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from google.protobuf import json_format, timestamp_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from keyswitch.vault.v1 import audit_pb2

FIRST_PREVIOUS_HASH = bytes(32)
_TIMESTAMP = "google.protobuf.Timestamp"
_encode = msgspec.json.Encoder().encode

_Convert = Callable[[Any], Any]
_Fields = Mapping[int, tuple[str, _Convert]]


def format_line(record: audit_pb2.AuditRecord) -> bytes:
    """Gives the line without its line feed. `hash` must not be set yet.

    What `json_format` would write, which asks each field anew what it is: two lines of each lease are written here.
    """
    return _encode(_to_json(record, _FIELDS))


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


def _to_json(message: Message, fields: _Fields) -> dict[str, Any]:
    found = {}
    for field, value in message.ListFields():
        known = fields.get(field.number)
        if known is not None:
            found[known[0]] = known[1](value)
    return found


def _fields_of(descriptor: Descriptor, *, without: str = "") -> _Fields:
    return {
        field.number: (field.json_name, _conversion_of(field)) for field in descriptor.fields if field.name != without
    }


def _conversion_of(field: FieldDescriptor) -> _Convert:
    one = _single_conversion_of(field)
    return one if not field.is_repeated else lambda values: [one(value) for value in values]


def _single_conversion_of(field: FieldDescriptor) -> _Convert:
    """Rule: https://protobuf.dev/programming-guides/json"""
    kind, enum = field.message_type, field.enum_type
    match field.type:
        case FieldDescriptor.TYPE_STRING | FieldDescriptor.TYPE_INT32 | FieldDescriptor.TYPE_BOOL:
            return lambda value: value
        case FieldDescriptor.TYPE_INT64:
            return str
        case FieldDescriptor.TYPE_BYTES:
            return lambda value: base64.b64encode(value).decode()
        case FieldDescriptor.TYPE_ENUM if enum is not None:
            names = {number: value.name for number, value in enum.values_by_number.items()}
            return lambda number: names.get(number, number)
        case FieldDescriptor.TYPE_MESSAGE if kind is not None and kind.full_name == _TIMESTAMP:
            return _format_time
        case FieldDescriptor.TYPE_MESSAGE if kind is not None:
            inner = _fields_of(kind)
            return lambda message: _to_json(message, inner)
        case _:
            raise TypeError(f"{field.full_name} is of a kind that no audit record had so far; add its JSON here")


def _format_time(time: timestamp_pb2.Timestamp) -> str:
    """As `ToJsonString` does, which formats the same second again and again."""
    second, nanos = _format_second(time.seconds), time.nanos
    if nanos == 0:
        return f"{second}Z"
    if nanos % 1_000_000 == 0:
        return f"{second}.{nanos // 1_000_000:03d}Z"
    return f"{second}.{nanos // 1000:06d}Z" if nanos % 1000 == 0 else f"{second}.{nanos:09d}Z"


@lru_cache(maxsize=8)
def _format_second(seconds: int) -> str:
    return timestamp_pb2.Timestamp(seconds=seconds).ToJsonString().removesuffix("Z")


_FIELDS = _fields_of(audit_pb2.AuditRecord.DESCRIPTOR, without="hash")
