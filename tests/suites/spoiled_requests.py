"""Right requests with one field spoiled, in every way that the field's type has."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

TEXTS: tuple[Callable[[str], str], ...] = (
    lambda text: f"{text}\n",
    lambda text: f"{text}\x00\x1b[2J",
    lambda text: f"{text}\u202e\u2066",
    lambda text: f"{text} ",
    lambda text: f"../{text}/..",
    lambda _: "x" * 5_000,
    lambda _: "",
)
NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32: (-1, 0, -(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-1, 0, -(2**63), 2**63 - 1, 10**18 + 1),
    FieldDescriptor.CPPTYPE_DOUBLE: (-1.0, float("nan"), float("inf"), 1e308),
    FieldDescriptor.CPPTYPE_ENUM: (0, 99, -1),
}
IGNORED = {"source", "text"}  # output only; what is said to the model


def spoiled(request: Message) -> Iterator[tuple[str, Message]]:
    """Every way to spoil one field of a request, with the field's name."""
    for place, change in _changes(request, ""):
        copy = type(request)()
        copy.CopyFrom(request)
        with contextlib.suppress(ValueError):  # a value that not even a message can hold
            change(copy)
            yield place, copy


def _changes(message: Message, path: str) -> Iterator[tuple[str, Callable[[Any], None]]]:
    for field in message.DESCRIPTOR.fields:
        name = f"{path}{field.name}"
        if field.name in IGNORED:
            continue
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if is_map:
            yield from _map_changes(message, field, name)
        elif field.is_repeated:
            yield from _list_changes(message, field, name)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            if message.HasField(field.name):
                for inner, change in _changes(getattr(message, field.name), f"{name}."):
                    yield inner, _within(field.name, change)
        elif field.containing_oneof is None or message.HasField(field.name) or field.has_presence:
            for value in _values(field, getattr(message, field.name)):
                yield name, _setting(field.name, value)


def _values(field: Any, given: Any) -> Iterator[Any]:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        yield from (change(given) for change in TEXTS)
    else:
        yield from NUMBERS.get(field.cpp_type, ())


def _list_changes(message: Message, field: Any, name: str) -> Iterator[tuple[str, Callable[[Any], None]]]:
    given = getattr(message, field.name)
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        for index, item in enumerate(given):
            for inner, change in _changes(item, f"{name}[{index}]."):
                yield inner, _within_item(field.name, index, change)
        yield name, lambda copy: getattr(copy, field.name).extend(list(given) * 600 or [_empty(copy, field.name)])
        return
    for value in _values(field, given[0] if given else ""):
        yield name, _extending(field.name, [value])
    if given:
        yield name, _extending(field.name, [given[0]] * 3000)


def _map_changes(message: Message, field: Any, name: str) -> Iterator[tuple[str, Callable[[Any], None]]]:
    value_field = field.message_type.fields_by_name["value"]
    sample: Any = "x" if value_field.cpp_type == FieldDescriptor.CPPTYPE_STRING else 1
    for key in (change("key") for change in TEXTS):
        yield name, _putting(field.name, {key: sample})
    for value in _values(value_field, sample):
        yield name, _putting(field.name, {"key": value})
    yield name, _putting(field.name, {f"key_{number}": sample for number in range(3000)})


def _empty(copy: Any, name: str) -> Any:
    return getattr(copy, name).add()


def _setting(name: str, value: Any) -> Callable[[Any], None]:
    return lambda copy: setattr(copy, name, value)


def _extending(name: str, values: list[Any]) -> Callable[[Any], None]:
    return lambda copy: getattr(copy, name).extend(values)


def _putting(name: str, values: dict[str, Any]) -> Callable[[Any], None]:
    return lambda copy: getattr(copy, name).update(values)


def _within(name: str, change: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda copy: change(getattr(copy, name))


def _within_item(name: str, index: int, change: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda copy: change(getattr(copy, name)[index])
