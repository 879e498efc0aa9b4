"""Whatever a file holds, it loads or is refused in the one way that says what to do."""

import json

from hypothesis import given
from hypothesis import strategies as st

from router_service.catalog.document import parse_document
from router_service.catalog.loader import ConfigurationError, load_snapshot
from router_service.catalog.problems import Mark, Problem
from tests.unit.catalog.example import EXAMPLE

# How long an example takes says how busy the machine is, and nothing about the loader.

_WORDS = st.sampled_from(
    [
        *("deployment", "organizations", "providers", "models", "deployment_credentials", "applications", "users"),
        *("demo", "payers", "aliases", "endpoints", "provider", "upstream_model", "price", "checked", "2026-11-21"),
        *("a/b", "quirks", "practice", "dialect", "openai_chat", "auth", "none", "base_url", "https://x.example"),
        *("echo", "bindings", "CREDITS", "default_model", "fallbacks", "model", "settings", "headers", "10.0.0.0/8"),
        *("allowed_private_networks", "is_enabled", "defaults", "reasoning", "effort", "practice/echo"),
    ]
)
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _WORDS
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_WORDS | st.text(max_size=5), inner, max_size=5),
    max_leaves=30,
)


_BREAKS = "\n\r\x85\u2028\u2029"


def _load(text: str) -> None:
    problems: tuple[Problem, ...] = ()
    try:
        load_snapshot(text, source="f")
    except ConfigurationError as error:
        problems = error.problems or (Problem("f", Mark(0, 0), "", ""),)
    last = sum(text.count(character) for character in _BREAKS) + 2
    assert all(1 <= problem.mark.line <= last and problem.message for problem in problems)


@given(st.dictionaries(_WORDS, _VALUES, max_size=6))
def test_any_values(value: dict[str, object]) -> None:
    _load(json.dumps(value))


@given(st.text(alphabet="ab:-?[]{},&*!|>'\"%@`#~<=\\ \n\t\r\x00\x85\ufeff\ud800.0e1é", max_size=60))
def test_any_text(text: str) -> None:
    _load(text)


@given(st.integers(0, len(EXAMPLE)), st.integers(0, 40), st.text(alphabet="[]{}:-, \n\"'&*!#x0", max_size=4))
def test_any_damage_to_a_sound_file(start: int, length: int, insert: str) -> None:
    _load(EXAMPLE[:start] + insert + EXAMPLE[start + length :])


@given(st.dictionaries(st.text(max_size=5), _VALUES, max_size=5))
def test_json_is_read_as_it_is(value: dict[str, object]) -> None:
    text = json.dumps(value)
    try:
        read = parse_document(text, "f").value
    except ConfigurationError:
        return
    assert read == json.loads(text)
