"""Values that fit a part of the configuration's schema, whatever keys it will have: nothing is listed by hand."""

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from router_service.catalog.schema import load_schema

_LARGEST = 10**15  # what the file's parser lets through
_CHARACTERS = st.characters(codec="utf-8")
_TEXT = st.text(_CHARACTERS, max_size=20)


def entries(name: str, **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Instances of a definition; `fixed` gives the values of keys that must name something there is."""
    return _instances(load_schema()["$defs"][name], fixed)


def _instances(schema: Mapping[str, Any], fixed: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return _instances(load_schema()["$defs"][schema["$ref"].rpartition("/")[2]], fixed)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "object":
            return _objects(schema, fixed)
        case "array":
            items = _instances(schema["items"], fixed)
            most = min(schema.get("maxItems", 3), 3)
            unique = repr if schema.get("uniqueItems") else None
            return st.lists(items, min_size=schema.get("minItems", 0), max_size=most, unique_by=unique)
        case "boolean":
            return st.booleans()
        case "integer":
            low, high = schema.get("minimum", -_LARGEST), schema.get("maximum", _LARGEST)
            return st.integers(low, high) | st.integers(low, high).filter(lambda n: abs(n) < 10**9).map(float)
        case "number":
            low = schema.get("minimum", schema.get("exclusiveMinimum", -_LARGEST))
            high = schema.get("maximum", _LARGEST)
            return st.floats(low, high, exclude_min="exclusiveMinimum" in schema) | st.just(int(high))
        case _:
            if "pattern" in schema:
                return st.from_regex(
                    schema["pattern"].removeprefix("^").removesuffix("$"), fullmatch=True, alphabet=_CHARACTERS
                )
            return st.text(_CHARACTERS, min_size=schema.get("minLength", 0), max_size=20)


def _objects(schema: Mapping[str, Any], fixed: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    if "properties" not in schema:
        inner = schema.get("additionalProperties", True)
        keys = _instances(schema["propertyNames"], fixed) if "propertyNames" in schema else _TEXT
        values = _json() if inner is True else _instances(inner, fixed)
        return st.dictionaries(keys, values, max_size=min(schema.get("maxProperties", 3), 3))
    made = {key: fixed.get(key, _instances(inner, fixed)) for key, inner in schema["properties"].items()}
    required = set(schema.get("required", ()))
    return st.fixed_dictionaries(
        {key: made[key] for key in made if key in required},
        optional={key: made[key] for key in made if key not in required},
    )


def _json() -> st.SearchStrategy[Any]:
    leaves = st.booleans() | st.integers(-_LARGEST, _LARGEST) | _TEXT
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_TEXT, inner, max_size=2))
