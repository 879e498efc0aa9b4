"""The configuration as a document over gRPC: given out, taken in as one change, refused with line and column."""

from pathlib import Path
from typing import Any

import pytest
from keyswitch.router.v1 import application_service_pb2 as applications
from keyswitch.router.v1 import configuration_service_pb2 as pb

from tests.service.configuration_harness import desks
from tests.service.router_harness import CHAT, DEMO, Stack, running_stack
from tests.service.test_router_configuration import first

LAB = """
providers:
  lab: {dialect: openai_chat, base_url: "https://lab.example/v1", auth: bearer, idle_timeout_seconds: 9}
models:
  lab/x:
    endpoints: [{provider: lab, upstream_model: x-1, weight: 3, quirks: {supports_seed: false}}]
    price: {input_usd_per_million: "0.10", input_audio_usd_per_million: "1", checked: 2026-11-21}
organizations:
  acme:
    users: [eva]
    applications:
      tool: {allowed_models: ["lab/*"], limits: {requests_per_minute: 7}, overrides: {title: lab/x}}
    personal_overrides: {eva: {root: lab/x}}
deployment: {default_model: lab/x}
deployment_credentials:
  lab: {provider: lab, payers: [SHARED_KEY]}
"""


def taking(yaml: str, parent: str = "deployment", **fields: Any) -> pb.ImportConfigurationRequest:
    return pb.ImportConfigurationRequest(parent=parent, yaml=yaml, **fields)


def revision(stack: Stack) -> int:
    return stack.router.configuration.documents.revision


async def test_an_import_is_one_change_and_goes_round(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        operator = (await desks(stack))["operator"]
        before = await operator(pb.ExportConfigurationRequest(parent="deployment"))
        told = await operator(taking(LAB, validate_only=True, override_file=True))
        assert revision(stack) == 0
        done = await operator(taking(LAB, etag=before.etag, override_file=True))
        assert (done.changes, revision(stack)) == (told.changes, 1)
        assert [(one.path, one.kind) for one in done.changes][:3] == [
            ("deployment", pb.CONFIGURATION_CHANGE_KIND_CHANGED),
            ("deployment_credentials.lab", pb.CONFIGURATION_CHANGE_KIND_ADDED),
            ("models.lab/x", pb.CONFIGURATION_CHANGE_KIND_ADDED),
        ]
        current = stack.router.configuration.current
        assert (current.default_model, current.deployment) == ("lab/x", "keyswitch")
        assert current.organizations["acme"].applications["tool"].overrides == {"title": "lab/x"}
        after = await operator(pb.ExportConfigurationRequest(parent="deployment"))
        assert after.etag == done.etag != before.etag
        again = await operator(taking(after.yaml, etag=after.etag))
        assert (list(again.changes), again.etag, revision(stack)) == ([], after.etag, 1)
        assert (await operator.refused(taking(LAB, etag=before.etag))).reason == "ETAG_MISMATCH"

        ended = await operator(taking("", is_rest_removed=True))
        assert {one.kind for one in ended.changes} == {pb.CONFIGURATION_CHANGE_KIND_REMOVED}
        assert not stack.router.configuration.documents.entries
        assert (await operator(pb.ExportConfigurationRequest(parent="deployment"))).yaml == before.yaml


async def test_what_is_exported_makes_a_fresh_deployment_the_same(tmp_path: Path) -> None:
    async with running_stack(tmp_path / "one") as stack:
        operator = (await desks(stack))["operator"]
        await operator(taking(LAB, override_file=True))
        exported = await operator(pb.ExportConfigurationRequest(parent="deployment"))
    async with running_stack(tmp_path / "two", configuration=lambda raw: raw.clear()) as stack:
        operator = (await desks(stack))["operator"]
        await operator(taking(exported.yaml))
        assert (await operator(pb.ExportConfigurationRequest(parent="deployment"))).yaml == exported.yaml
        await stack.save_key("deployment/credentials/first")
        assert (await first(operator, application=CHAT, model="test/echo")).provider == "providers/first"


async def test_what_the_file_fixes_needs_to_be_said(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        operator = (await desks(stack))["operator"]
        text = "organizations: {demo: {applications: {chat: {payers: [CREDITS]}, new: {}}}}"
        refusal = await operator.refused(taking(text))
        assert (refusal.reason, refusal.metadata["name"]) == ("RESOURCE_FIXED", "organizations.demo.applications.chat")
        assert revision(stack) == 0
        told = await operator(taking(text, validate_only=True))
        assert [(one.path.rpartition(".")[2], one.is_fixed) for one in told.changes] == [("chat", True), ("new", False)]
        assert "payers:\n- CREDITS\n" in told.changes[0].after_yaml
        await operator(taking(text, override_file=True))
        assert stack.router.configuration.current.organizations["demo"].users  # nothing was said of the organization


@pytest.mark.parametrize(
    ("yaml", "field", "text"),
    [
        ("models: {a/b: [", "yaml", "line 1, column 16: this is not YAML"),
        ("models:\n  a/b: &x {}\n", "models", "line 2, column 8: anchors"),
        ("models:\n  a/b:\n    prize: {}\n", "models.a/b.prize", "line 3, column 5: there is no such key here"),
        (
            "models:\n  a/b:\n    endpoints: [{provider: nowhere, upstream_model: b}]\n",
            "models.a/b.endpoints[0].provider",
            "line 3, column 28: there is no provider nowhere",
        ),
        ("models:\n  a/b: {}\n", "models.a/b", "line 2, column 8: must have endpoints"),
        (
            'models:\n  test/echo:\n    price: {input_usd_per_million: "-1", checked: 2026-01-01}\n',
            "models.test/echo.price.input_usd_per_million",
            "line 3, column 36: is not well formed: a price is",
        ),
        (
            "organizations: {demo: {applications: {loop: {default_model: echo, fallbacks: [{model: test/echo}]}}}}",
            "organizations.demo.applications.loop.fallbacks[0]",
            "line 1, column 79: is the same route as the default model itself",
        ),
        ("deployment: {name: other}", "deployment.name", "line 1, column 20: is in every caller's token"),
        ("providers: {openai: {api_key: sk-1}}", "providers.openai.api_key", "line 1, column 22: there is no such key"),
        ("[]", "yaml", "line 1, column 1: the file is a mapping of sections"),
    ],
)
async def test_what_is_wrong_has_its_place_and_changes_nothing(
    tmp_path: Path, yaml: str, field: str, text: str
) -> None:
    async with running_stack(tmp_path) as stack:
        operator = (await desks(stack))["operator"]
        good = "organizations: {demo: {applications: {other: {}}}}\n"
        for request in (taking(yaml, override_file=True), taking(yaml, validate_only=True)):
            refusal = await operator.refused(request)
            assert (refusal.reason, refusal.fields[0]) == ("INVALID_REQUEST", field)
            assert f"{field}: {text}" in refusal.message
            assert "sk-1" not in str(refusal)
        assert revision(stack) == 0
        await operator(taking(good))


async def test_administrators_move_what_is_theirs(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        who = await desks(stack)
        admin = who["admin"]
        own = """
organizations:
  demo:
    providers: {lab: {dialect: openai_chat, base_url: "https://lab.example/v1", auth: bearer}}
    models: {lab/x: {endpoints: [{provider: lab, upstream_model: x}]}}
    applications: {tool: {default_model: lab/x}}
"""
        await admin(taking(own, DEMO))
        made = await admin(applications.GetApplicationRequest(name=f"{DEMO}/applications/tool"))
        assert made.application.default_model == "lab/x"
        exported = await admin(pb.ExportConfigurationRequest(parent=DEMO))
        assert "other" not in exported.yaml
        for yaml, reason in (
            ("organizations: {demo: {markup_basis_points: 0, users: [ada]}}", "CALLER_NOT_ALLOWED"),
            ("organizations: {demo: {limits: {requests_per_minute: 9}, users: [ada]}}", "CALLER_NOT_ALLOWED"),
            ("organizations: {other: {applications: {x-1: {}}}}", "INVALID_REQUEST"),
            ("providers: {lab: {is_enabled: false}}", "INVALID_REQUEST"),
            ("organizations: {demo: {providers: {local: {template: ollama}}}}", "INVALID_REQUEST"),
        ):
            assert (await admin.refused(taking(yaml, DEMO, override_file=True))).reason == reason, yaml
        whole = pb.ExportConfigurationRequest(parent="deployment")
        for desk in (admin, who["member"], who["auditor"]):
            assert (await desk.refused(whole)).reason == "CALLER_NOT_ALLOWED"
            assert (await desk.refused(taking(own))).reason == "CALLER_NOT_ALLOWED"
        assert (await who["member"].refused(pb.ExportConfigurationRequest(parent=DEMO))).reason == "CALLER_NOT_ALLOWED"
        assert (await who["foreign"].refused(taking(own, DEMO))).reason == "RESOURCE_NOT_FOUND"
        for parent in ("", "nowhere", "organizations/a/b"):
            assert (await admin.refused(taking("", parent))).fields == ("parent",)


async def test_the_next_call_goes_by_what_was_imported(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        who = await desks(stack)
        await stack.save_key("deployment/credentials/first")
        overriding = "organizations: {demo: {applications: {chat: {overrides: {title: test/both}}}}}"
        await who["admin"](taking(overriding, DEMO))
        assert (await first(who["member"], context="title")).model == "test/both"
