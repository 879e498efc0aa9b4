"""Settings over their layers, and which options in a provider's own words apply where."""

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_service.core.faults import Fault, Reason
from router_service.core.request import (
    ProviderOptions,
    ReasoningEffort,
    ReasoningSettings,
    Sampling,
    Settings,
    UpstreamRouting,
)
from router_service.dialects.base import Quirks
from router_service.policy.settings import FAMILIES, MAX_OPTIONS_BYTES, merge_settings, parse_options, select_options
from tests.unit.policy.world import provider

SAMPLING = st.builds(
    Sampling,
    temperature=st.none() | st.sampled_from([0.0, 0.5]),
    top_p=st.none() | st.sampled_from([0.1, 1.0]),
    top_k=st.none() | st.integers(1, 3),
    presence_penalty=st.none() | st.sampled_from([0.0, -1.0]),
    frequency_penalty=st.none() | st.sampled_from([0.0, 1.0]),
    seed=st.none() | st.integers(0, 1),
    stop_sequences=st.sampled_from([(), ("a",), ("a", "b")]),
)
SETTINGS = st.builds(
    Settings,
    sampling=SAMPLING,
    max_output_tokens=st.none() | st.integers(1, 9),
    reasoning=st.none()
    | st.builds(
        ReasoningSettings, effort=st.sampled_from([None, ReasoningEffort.LOW]), budget_tokens=st.sampled_from([None, 0])
    ),
    provider_options=st.sampled_from([(), (ProviderOptions("", "{}"),)]),
    upstream_routing=st.none() | st.builds(UpstreamRouting, order=st.sampled_from([(), ("a",)])),
)


def options(namespace: str, text: str) -> ProviderOptions:
    """An entry."""
    return ProviderOptions(namespace, text)


def selected(namespace: str, text: str, *, family: str = "") -> tuple[object, ...]:
    """What of one entry goes to providers/one, which speaks openai_chat and has this family."""
    entry = options(namespace, text)
    at = replace(provider("one"), quirks=Quirks(options_family=family))
    return select_options([(entry, parse_options(entry, "options"))], at, at.dialect)


@given(layers=st.lists(SETTINGS, max_size=3))
def test_the_first_layer_that_sets_a_field_wins(layers: list[Settings]) -> None:
    merged = merge_settings(layers)
    for item in fields(Settings):
        if item.name != "sampling":
            unset = getattr(Settings(), item.name)
            given_values = [value for one in layers if (value := getattr(one, item.name)) != unset]
            assert getattr(merged, item.name) == (given_values[0] if given_values else unset)
    for item in fields(Sampling):
        unset = getattr(Sampling(), item.name)
        given_values = [value for one in layers if (value := getattr(one.sampling, item.name)) != unset]
        assert getattr(merged.sampling, item.name) == (given_values[0] if given_values else unset)


def test_sampling_is_merged_field_by_field_and_reasoning_is_taken_whole() -> None:
    route = Settings(sampling=Sampling(temperature=0.0), reasoning=ReasoningSettings(budget_tokens=0))
    call = Settings(
        sampling=Sampling(temperature=1.0, seed=0), reasoning=ReasoningSettings(effort=ReasoningEffort.HIGH)
    )
    merged = merge_settings((route, call, Settings(max_output_tokens=7)))
    assert merged == Settings(
        sampling=Sampling(temperature=0.0, seed=0), max_output_tokens=7, reasoning=ReasoningSettings(budget_tokens=0)
    )


@pytest.mark.parametrize("namespace", ["", "providers/one", "openai_chat", "openai"])
def test_a_namespace_names_a_provider_its_dialect_or_its_family(namespace: str) -> None:
    assert selected(namespace, '{"a": 1}', family="openai") == ({"a": 1},)


@pytest.mark.parametrize("namespace", ["one", "providers/two", "providers/on", "anthropic_messages", "google", "x"])
def test_what_names_another_is_not_sent(namespace: str) -> None:
    assert selected(namespace, '{"a": 1}', family="openai") == ()


def test_an_object_of_families_gives_each_its_own() -> None:
    text = '{"openai": {"a": 1}, "anthropic": {"b": 2}}'
    assert selected("", text, family="openai") == ({"a": 1},)
    assert selected("", text, family="anthropic") == ({"b": 2},)
    assert selected("", text) == ()


def test_under_a_namespace_a_family_is_a_key_as_any_other() -> None:
    assert selected("providers/one", '{"openai": {"a": 1}, "b": 2}') == ({"openai": {"a": 1}, "b": 2},)


def test_a_provider_without_a_family_is_not_named_by_nothing() -> None:
    assert selected("", '{"": {"a": 1}}') == ({"": {"a": 1}},)


def test_entries_keep_their_order() -> None:
    entries = [options("", '{"a": 1}'), options("openai_chat", '{"a": 2}'), options("google", '{"a": 3}')]
    parsed = [(entry, parse_options(entry, "options")) for entry in entries]
    assert select_options(parsed, provider("one"), "openai_chat") == ({"a": 1}, {"a": 2})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        "null",
        '"a"',
        "{",
        "{'a': 1}",
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
        '{"a": ' + "1" * 5000 + "}",
        '{"a": ' + "[" * 30_000 + "]" * 30_000 + "}",
        '{"openai": {}, "temperature": 1}',
        '{"openai": {}, "google": 1}',
        '{"openai": 1}',
    ],
)
def test_what_is_no_object_of_json_is_refused(text: str) -> None:
    with pytest.raises(Fault) as raised:
        parse_options(options("", text), "call.options[3]")
    assert raised.value.reason is Reason.INVALID_REQUEST
    assert raised.value.fields.keys() == {"call.options[3].json"}
    assert "1111" not in raised.value.message


def test_the_size_is_counted_in_bytes() -> None:
    frame = len(b'{"a":""}')
    text = "é" * ((MAX_OPTIONS_BYTES - frame) // 2)
    assert parse_options(options("", f'{{"a":"{text}"}}'), "x") == {"a": text}
    with pytest.raises(Fault, match="64 KiB"):
        parse_options(options("", f'{{"a":"{text}é"}}'), "x")


@given(families=st.sets(st.sampled_from(sorted(FAMILIES)), min_size=1), other=st.text(max_size=5))
def test_families_and_other_keys_do_not_mix(families: set[str], other: str) -> None:
    if other in FAMILIES:
        return
    mixed: dict[str, object] = {key: {} for key in [*sorted(families), other]}
    with pytest.raises(Fault):
        parse_options(options("", json.dumps(mixed)), "x")
    assert parse_options(options("google", json.dumps(mixed)), "x") == mixed


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"thinking": {"type": "enabled",}}', "line 1, column 33"),
        ('{"a": 1\n "b": 2}', "line 2, column 2"),
        ("", "line 1, column 1"),
        ("thinking: on", "line 1, column 1"),
    ],
)
def test_broken_json_is_refused_and_says_where(text: str, where: str) -> None:
    with pytest.raises(Fault) as raised:
        parse_options(options("", text), "call.options[0]")
    assert where in raised.value.message
    assert raised.value.metadata == {"field": "call.options[0].json"}
