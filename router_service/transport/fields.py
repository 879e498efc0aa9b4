"""Fields of configured resources: what protobuf calls them, what the configuration file calls them, and both ways."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from keyswitch.router.v1 import configuration_pb2, payer_pb2

from router_service.catalog.draft import Source
from router_service.core.faults import invalid

Raw = dict[str, Any]
_NANOS = 1_000_000_000
_YEAR_1, _YEAR_9999_END = -62_135_596_800, 253_402_300_799


@dataclass(frozen=True, slots=True)
class Field:
    """`read` gives the file's value of a message that has the field set; `write` puts the file's value into one."""

    name: str
    key: str
    read: Callable[[Any], Any]
    write: Callable[[Any, Any], None]


def plain(name: str, key: str = "") -> Field:
    """Texts, numbers and booleans, which both call the same."""
    return Field(name, key or name, lambda message: getattr(message, name), lambda m, value: setattr(m, name, value))


def whole(name: str) -> Field:
    """A whole number, which JSON Schema also takes as 3.0."""
    return Field(name, name, lambda message: getattr(message, name), lambda m, value: setattr(m, name, int(value)))


def texts(name: str, key: str = "") -> Field:
    """A list of texts."""
    return Field(name, key or name, lambda m: list(getattr(m, name)), lambda m, value: getattr(m, name).extend(value))


def limits(name: str) -> Field:
    """How much a minute may see; a bound that is not stated does not hold."""

    def read(message: Any) -> Raw:
        return {field.name: value for field, value in getattr(message, name).ListFields()}

    def write(message: Any, value: Raw) -> None:
        getattr(message, name).SetInParent()
        for bound, most in value.items():
            setattr(getattr(message, name), bound, int(most))

    return Field(name, name, read, write)


def duration(name: str, key: str) -> Field:
    """A time span, which the file has in seconds."""

    def read(message: Any) -> float:
        return duration_seconds(getattr(message, name), name)

    def write(message: Any, value: float) -> None:
        getattr(message, name).FromNanoseconds(round(value * _NANOS))

    return Field(name, key, read, write)


def duration_seconds(value: Duration, field: str) -> float:
    """How long a time span is. Raises Fault for one that is negative, or none by protobuf's own rules."""
    if value.seconds < 0 or not 0 <= value.nanos < _NANOS:
        raise invalid(field, "From 0; its nanos are from 0 to 999999999.")
    return value.seconds + value.nanos / _NANOS


def timestamp_seconds(value: Timestamp, field: str) -> float:
    """When, since 1970. Raises Fault for what is no time between the years 1 and 9999."""
    if not (_YEAR_1 <= value.seconds <= _YEAR_9999_END and 0 <= value.nanos < _NANOS):
        raise invalid(field, "A time between the years 1 and 9999.")
    return value.seconds + value.nanos / _NANOS


def enums(name: str, enum: Any, prefix: str, key: str = "") -> Field:
    """A list of an enum's values, by their short names in the file."""

    def read(message: Any) -> list[str]:
        return [enum_text(enum, prefix, number, f"{name}[{i}]") for i, number in enumerate(getattr(message, name))]

    def write(message: Any, value: Sequence[str]) -> None:
        getattr(message, name).extend(enum.Value(prefix + one) for one in value)

    return Field(name, key or name, read, write)


def enum_text(enum: Any, prefix: str, number: int, field: str) -> str:
    """The short name of a number. Raises Fault for one that this version does not know."""
    if not number or number not in enum.values():
        raise invalid(field, "This value is required, and must be one that this version knows.")
    return str(enum.Name(number)).removeprefix(prefix)


def payer_text(number: int, field: str) -> str:
    """The file's word for a payer."""
    return enum_text(payer_pb2.Payer, "PAYER_", number, field)


def is_set(message: Any, name: str) -> bool:
    """Whether a field has a value; for one without presence, whether it is not its default."""
    descriptor = message.DESCRIPTOR.fields_by_name[name]
    return bool(message.HasField(name)) if descriptor.has_presence else bool(getattr(message, name))


def merge(
    message: Any, mask: FieldMask, fields: Sequence[Field], raw: Mapping[str, Any], shown: Any | None = None
) -> Raw:
    """The file's entry with the masked fields of the message in it: one that is not set goes back to its default.

    A field that is as it is `shown` stays as it is written: else what was read and sent back unchanged would state
    what came from the built-in catalog, and write what the file says in other words.
    """
    by_name = {field.name: field for field in fields}
    paths = list(mask.paths) or [name for name in by_name if is_set(message, name)]
    if paths == ["*"]:
        paths = list(by_name)
    merged = dict(raw)
    for path in paths:
        field = by_name.get(path)
        if field is None:
            known = ", ".join(by_name)
            raise invalid("update_mask", f"A path is none of the fields that can be changed: {known}.")
        if shown is not None and _is_alike(message, shown, path):
            continue
        if is_set(message, path):
            merged[field.key] = field.read(message)
        else:
            merged.pop(field.key, None)
    return merged


def _is_alike(one: Any, other: Any, name: str) -> bool:
    return is_set(one, name) == is_set(other, name) and bool(getattr(one, name) == getattr(other, name))


def fill(message: Any, fields: Sequence[Field], raw: Mapping[str, Any]) -> None:
    """Puts the file's entry into a message."""
    for field in fields:
        if field.key in raw:
            field.write(message, raw[field.key])


def source_number(source: Source) -> "configuration_pb2.ConfigurationSource.ValueType":
    """The enum's number."""
    return configuration_pb2.ConfigurationSource.Value(f"CONFIGURATION_SOURCE_{source.value}")


def advanced(known: Sequence[str]) -> Field:
    """Every key that has no field of its own, as one JSON object. Its key is where `split` looks for them."""

    def read(message: Any) -> Raw:
        value = json_object(message.advanced_json, "advanced_json")
        doubled = sorted(value.keys() & set(known))
        if doubled:
            raise invalid("advanced_json", f"{', '.join(doubled)} have fields of their own.")
        return value

    def write(message: Any, value: Raw) -> None:
        message.advanced_json = json.dumps(value, ensure_ascii=False, sort_keys=True)

    return Field("advanced_json", ADVANCED, read, write)


def json_object(text: str, field: str) -> Raw:
    """A JSON object. Raises Fault."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise invalid(field, "This is no JSON; write one object.") from None
    if not isinstance(value, dict):
        raise invalid(field, "This is no JSON object.")
    return value


ADVANCED = "(advanced)"


def fold_advanced(raw: Mapping[str, Any], known: Sequence[str]) -> Raw:
    """An entry of the file with what has no field of its own put under ADVANCED."""
    rest = {key: value for key, value in raw.items() if key not in known}
    return {**{key: value for key, value in raw.items() if key in known}, **({ADVANCED: rest} if rest else {})}


def unfold_advanced(raw: Mapping[str, Any]) -> Raw:
    """The reverse of fold_advanced."""
    return {**raw.get(ADVANCED, {}), **{key: value for key, value in raw.items() if key != ADVANCED}}
