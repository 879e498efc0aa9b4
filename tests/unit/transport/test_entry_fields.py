"""Nothing that the configuration file can say of an entry is lost on its way through a message and back."""

from functools import cache
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keyswitch.router.v1 import application_service_pb2, model_service_pb2, organization_service_pb2

from router_service.catalog.catalog import Model, Snapshot
from router_service.catalog.document import Document, parse_document
from router_service.catalog.loader import load_snapshot
from router_service.catalog.offers import ModelBuilder, Offers
from router_service.catalog.problems import Problem
from router_service.catalog.stored import CONTAINED
from router_service.catalog.yaml_text import write_yaml
from router_service.transport.application_servicer import application_fields
from router_service.transport.fields import Field, fill, merge
from router_service.transport.model_fields import model_fields
from router_service.transport.organization_servicer import FIELDS, POLICY_FIELDS
from tests.suites.schema_values import entries
from tests.unit.catalog.example import EXAMPLE

PATIENT = settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
TODAY = "2026-11-21"
ALL = FieldMask(paths=["*"])
PROVIDERS = st.sampled_from(["practice", "anthropic"])


@cache
def snapshot() -> Snapshot:
    return load_snapshot(EXAMPLE, source="example")


def build(raw: dict[str, Any]) -> tuple[Model | None, list[Problem]]:
    """What the router makes of an entry."""
    problems: list[Problem] = []
    offers = Offers(dict(snapshot().providers), {}, frozenset(snapshot().providers))
    raw_providers: dict[str, Any] = {name: {} for name in snapshot().providers}
    builder = ModelBuilder(Document("entry"), offers, raw_providers, None, problems)
    return builder.build("a/b", ("models", "a/b"), raw, tuple(raw.get("aliases", ()))), problems


def sent_back(message: Any, fields: tuple[Field, ...], raw: dict[str, Any]) -> dict[str, Any]:
    """An entry that was read and written, unchanged."""
    fill(message, fields, raw)
    return merge(message, ALL, fields, raw, message)


ENDPOINTS = st.lists(entries("endpoint", provider=PROVIDERS), min_size=1, max_size=3)


@PATIENT
@given(entries("model", endpoints=ENDPOINTS))
def test_a_model_is_whole_in_its_message(raw: dict[str, Any]) -> None:
    fields = model_fields(snapshot(), "", TODAY)
    raw["endpoints"] = raw.get("endpoints") or [{"provider": "practice", "upstream_model": "b"}]
    message = model_service_pb2.ModelEntry()
    assert sent_back(message, fields, raw) == raw
    written = merge(message, ALL, fields, {})
    if "tool_request_usd" in raw.get("price", {}):  # a map of protobuf has no order
        raw["price"]["tool_request_usd"] = dict(sorted(raw["price"]["tool_request_usd"].items()))
    assert build(written) == build(raw)
    assert written.get("price", {}).get("source", "") == raw.get("price", {}).get("source", "")


@PATIENT
@given(entries("application", provider=PROVIDERS, provider_order=st.just(["practice"]), native_provider=PROVIDERS))
def test_an_application_is_whole_in_its_message(raw: dict[str, Any]) -> None:
    fields = application_fields(snapshot(), "organizations/demo")
    message = application_service_pb2.Application()
    assert sent_back(message, fields, raw) == raw
    written = merge(message, ALL, fields, {})
    assert written.get("limits") == raw.get("limits")
    assert written.get("max_queue_wait_seconds") == pytest.approx(raw.get("max_queue_wait_seconds"), abs=1e-9)
    assert raw.keys() - written.keys() <= {"overrides", *(key for key, value in raw.items() if not value)}


@PATIENT
@given(entries("organization"))
def test_an_organization_keeps_what_its_messages_have_not(raw: dict[str, Any]) -> None:
    assert sent_back(organization_service_pb2.Organization(), FIELDS, raw) == raw
    policy = organization_service_pb2.OrganizationPolicy()
    assert sent_back(policy, POLICY_FIELDS, raw) == raw
    written = merge(policy, ALL, POLICY_FIELDS, {})
    for tier in ("limits", "user_limits", "token_limits"):
        assert written.get(tier) == raw.get(tier)
    assert raw.keys() <= {field.key for field in (*FIELDS, *POLICY_FIELDS)} | set(CONTAINED["organizations"])


@PATIENT
@given(entries("model") | entries("provider") | entries("application"))
def test_an_entry_is_the_same_after_it_was_written_as_yaml(raw: dict[str, Any]) -> None:
    assert parse_document(write_yaml(raw), "entry").value == raw
