"""The check of a file against schema.json, and the words for what it finds."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from router_service.catalog.document import Document
from router_service.catalog.problems import Path, Problem, suggest

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

_KINDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}
_PLAIN = re.compile(r"true|false|-?[0-9]+(\.[0-9]+)?")
_KEY_WORDS = ("key", "secret", "token", "password")
_KEY_HINT = "; keys are never in this file: store them through CredentialService"


@cache
def load_schema() -> Mapping[str, Any]:
    """The schema as JSON values."""
    text = files("router_service.catalog").joinpath("schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def _validator() -> "Draft202012Validator":
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    # The library gives no types for what it makes.
    made: type[Draft202012Validator] = extend(Draft202012Validator, {"pattern": _check_pattern})  # type: ignore[no-untyped-call]
    return made(load_schema())


def _check_pattern(_: object, pattern: str, instance: Any, __: object) -> "Iterator[ValidationError]":
    """As in JSON Schema; Python's own `$` would let a line feed at the end pass."""
    from jsonschema.exceptions import ValidationError

    if isinstance(instance, str) and re.fullmatch(pattern, instance) is None:
        yield ValidationError("does not match")


@dataclass(frozen=True, slots=True)
class SchemaFault:
    """A difference from the schema. `path` is what cannot be used because of it."""

    path: Path
    problem: Problem
    is_unknown_key: bool = False


def check_schema(document: Document) -> list[SchemaFault]:
    """Every difference from the schema."""
    found: list[SchemaFault] = []
    for error in _validator().iter_errors(document.value):
        found.extend(_explain(error, document))
    return found


def _explain(error: "ValidationError", document: Document) -> Iterator[SchemaFault]:
    path: Path = tuple(error.absolute_path)
    schema: Any = error.schema
    instance: Any = error.instance
    if error.validator == "additionalProperties":
        known = schema["properties"]
        for key in instance:
            if key not in known:
                yield _name_unknown_key((*path, key), known, document)
        return
    if "propertyNames" in error.absolute_schema_path:
        path = (*path, error.instance) if isinstance(error.instance, str) else path
        yield SchemaFault(path, document.problem(path, _word(error), of_key=True))
        return
    yield SchemaFault(path, document.problem(path, _word(error), of_key=error.validator == "required"))


def _name_unknown_key(path: Path, known: Mapping[str, Any], document: Document) -> SchemaFault:
    key = str(path[-1])
    message = f"there is no such key here; {suggest(key, known)}"
    if any(word in key.lower() for word in _KEY_WORDS):
        message += _KEY_HINT
    return SchemaFault(path, document.problem(path, message, of_key=True), is_unknown_key=True)


def _word(error: "ValidationError") -> str:
    rule: Any = error.validator_value
    schema: Any = error.schema
    instance: Any = error.instance
    match error.validator:
        case "type":
            return f"must be {_KINDS[str(rule)]}, not {_name_kind(instance, rule)}{_quote_hint(error)}"
        case "enum":
            shown = [value or '""' for value in rule]
            near = suggest(instance, shown, cutoff=0.75) if isinstance(instance, str) else ""
            choice = f"must be one of {', '.join(shown)}"
            return f"{choice}; {near}" if near.startswith("did you mean") else choice
        case "pattern":
            return f"is not well formed: {schema.get('x-help', 'see docs/configuration.md')}"
        case "required":
            return f"must have {' and '.join(key for key in rule if key not in instance)}"
        case "uniqueItems":
            return "names something twice; keep one of them"
        case "minItems" | "minLength":
            return "must not be empty"
        case "maxItems" | "maxLength" | "maxProperties":
            return f"is too long: at most {rule}"
        case "minimum":
            return f"must be at least {rule}"
        case "maximum":
            return f"must be at most {rule}"
        case "exclusiveMinimum":
            return f"must be more than {rule}"
        case _:
            return "does not fit the schema; see docs/configuration.md"


def _name_kind(value: object, wanted: str) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a fraction" if wanted == "integer" else "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case _:
            return "a mapping"


def _quote_hint(error: "ValidationError") -> str:
    if error.validator_value == "string" and isinstance(error.instance, int | float):
        return ": put it in quotes"
    if isinstance(error.instance, str) and _PLAIN.fullmatch(error.instance):
        return ": write it without quotes"
    return ""
