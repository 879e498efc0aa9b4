"""Applications, overrides, organizations, providers and models over gRPC: in force for the very next call."""

import json
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from keyswitch.router.v1 import (
    application_service_pb2 as applications,
)
from keyswitch.router.v1 import (
    configuration_pb2,
    model_service_pb2,
    payer_pb2,
    provider_service_pb2,
    resolution_pb2,
    route_policy_pb2,
    routing_service_pb2,
    settings_pb2,
)
from keyswitch.router.v1 import (
    organization_service_pb2 as organizations,
)
from keyswitch.router.v1 import (
    override_service_pb2 as overrides,
)

from router_service.core.database import SqliteDatabase
from tests.service.configuration_harness import Desk, desks
from tests.service.router_answers import Json, answer
from tests.service.router_harness import ADA, CHAT, DEMO, make_call, running_stack

TOOL = f"{DEMO}/applications/tool"
STORED = configuration_pb2.CONFIGURATION_SOURCE_STORED
FILE = configuration_pb2.CONFIGURATION_SOURCE_FILE
OVER_FILE = configuration_pb2.CONFIGURATION_SOURCE_STORED_OVER_FILE


def payer(number: int) -> Any:
    """A payer by its number, whether the contract has it or not."""
    return number


def mask(*paths: str) -> FieldMask:
    return FieldMask(paths=paths)


async def explain(desk: Desk, **call: Any) -> Any:
    return await desk(routing_service_pb2.ExplainRouteRequest(call=make_call(**call)))


async def first(desk: Desk, **call: Any) -> Any:
    return (await explain(desk, **call)).candidates[0].resolution


async def test_an_application_from_its_making_to_its_end(tmp_path: Any) -> None:
    async with running_stack(tmp_path) as stack:
        who = await desks(stack)
        admin = who["admin"]
        whole = applications.Application(
            display_name="A tool",
            payers=[payer_pb2.PAYER_ORGANIZATION_KEY, payer_pb2.PAYER_CREDITS],
            payer_failover_on=[payer_pb2.PAYER_FAILOVER_CAUSE_RATE_LIMITED],
            default_model="echo",
            allowed_models=["test/*"],
            native_provider="providers/first",
            is_byok_supported=True,
            provider_order=["providers/second"],
            fallbacks=[
                route_policy_pb2.ModelRoute(
                    model="test/both",
                    provider="providers/second",
                    settings=settings_pb2.GenerationSettings(
                        max_output_tokens=7,
                        sampling=settings_pb2.Sampling(temperature=0.5, stop_sequences=["x"]),
                        reasoning=settings_pb2.ReasoningConfig(effort=settings_pb2.REASONING_EFFORT_LOW),
                        provider_options=[
                            settings_pb2.ProviderOptions(namespace="openai", json='{"a":9007199254740993}')
                        ],
                        upstream_routing=settings_pb2.UpstreamRouting(
                            order=["Google"],
                            allow_fallbacks=False,
                            sort=settings_pb2.UPSTREAM_SORT_PRICE,
                            max_price=settings_pb2.UpstreamMaxPrice(input_usd_nanos_per_million_tokens=1_250_000_000),
                        ),
                    ),
                    on_context_too_long=True,
                )
            ],
            contexts=[
                applications.ApplicationContext(context="review", layers=[configuration_pb2.OVERRIDE_LAYER_USER])
            ],
            is_uncatalogued_allowed=True,
        )
        request = applications.CreateApplicationRequest(parent=DEMO, application_id="tool", application=whole)
        made = (await admin(request)).application
        assert (made.name, made.source) == (TOOL, STORED)
        back = applications.Application()
        back.CopyFrom(made)
        for name in ("name", "etag", "source"):
            back.ClearField(name)
        assert back == whole
        assert (await admin.refused(request)).reason == "RESOURCE_EXISTS"
        await stack.save_key("deployment/credentials/first")
        assert (await first(who["operator"], application=TOOL)).payer == payer_pb2.PAYER_CREDITS

        change = applications.UpdateApplicationRequest(
            application=applications.Application(name=TOOL, etag=made.etag, default_model="test/both"),
            update_mask=mask("default_model", "display_name"),
        )
        changed = (await admin(change)).application
        assert (changed.default_model, changed.display_name) == ("test/both", "")
        assert changed.fallbacks == whole.fallbacks
        assert changed.etag != made.etag
        assert (await admin.refused(change)).reason == "ETAG_MISMATCH"

        names = [one.name for one in (await admin(applications.ListApplicationsRequest(parent=DEMO))).applications]
        assert names == [CHAT, TOOL]
        await admin(applications.DeleteApplicationRequest(name=TOOL, etag=changed.etag))
        assert (await admin.refused(applications.GetApplicationRequest(name=TOOL))).reason == "RESOURCE_NOT_FOUND"
        gone = await who["operator"].refused(routing_service_pb2.ExplainRouteRequest(call=make_call(application=TOOL)))
        assert gone.reason == "RESOURCE_NOT_FOUND"


async def test_a_binding_counts_for_the_very_next_call(tmp_path: Any) -> None:
    async with running_stack(tmp_path) as stack:
        admin = (await desks(stack))["admin"]
        await stack.save_key(f"{DEMO}/credentials/alpha")
        await stack.save_key(f"{DEMO}/credentials/beta")

        async def used() -> str:
            stack.first.script(answer())
            done = await stack.member.stream(make_call())
            return done.receipt.attempts[0].credential_version.split("/")[3]

        assert await used() == "alpha"
        binding = applications.CredentialBinding(
            payer=payer_pb2.PAYER_ORGANIZATION_KEY, credential=f"{DEMO}/credentials/beta"
        )
        bind = applications.BindCredentialRequest(application=CHAT, binding=binding)
        assert (await admin.refused(bind)).reason == "RESOURCE_FIXED"
        assert await used() == "alpha"
        bind.override_file = True
        bound = (await admin(bind)).application
        assert (list(bound.bindings), bound.source) == ([binding], OVER_FILE)
        assert await used() == "beta"
        unbind = applications.UnbindCredentialRequest(application=CHAT, payer=payer_pb2.PAYER_ORGANIZATION_KEY)
        await admin(unbind)
        assert await used() == "alpha"
        assert (await admin.refused(unbind)).reason == "RESOURCE_NOT_FOUND"
        bind.binding.credential = f"{DEMO}/credentials/nothing"
        assert (await admin.refused(bind)).reason == "RESOURCE_NOT_FOUND"
        bind.binding.credential = "organizations/other/credentials/theirs"
        wrong = await admin.refused(bind)
        assert (wrong.reason, wrong.fields) == ("INVALID_REQUEST", ("bindings.ORGANIZATION_KEY",))
        await admin(applications.DeleteApplicationRequest(name=CHAT))
        assert (await admin(applications.GetApplicationRequest(name=CHAT))).application.source == FILE


async def test_overrides_and_their_gate(tmp_path: Any) -> None:
    async with running_stack(tmp_path) as stack:
        who = await desks(stack)
        admin, member, operator = who["admin"], who["member"], who["operator"]
        await stack.save_key("deployment/credentials/first")
        await stack.save_key("deployment/credentials/second", provider="second")
        mine = overrides.SetOverrideRequest(
            override=overrides.Override(name=f"{ADA}/overrides/root", model="test/other")
        )
        closed = await member.refused(mine)
        assert (closed.reason, closed.metadata["missingRole"]) == ("CALLER_NOT_ALLOWED", "admin")
        gate = organizations.SetOrganizationPolicyRequest(
            policy=organizations.OrganizationPolicy(name=f"{DEMO}/policy", is_personal_override_enabled=True),
            update_mask=mask("is_personal_override_enabled"),
        )
        assert (await admin.refused(gate)).reason == "RESOURCE_FIXED"
        gate.override_file = True
        assert (await admin(gate)).policy.is_personal_override_enabled
        made = (await member(mine)).override
        assert (made.model, made.source) == ("test/other", STORED)
        found = await first(member, context="root")
        assert (found.model, found.model_source) == ("test/other", resolution_pb2.MODEL_SOURCE_PERSONAL_OVERRIDE)
        for_all = overrides.Override(name=f"{CHAT}/overrides/title", model="test/both")
        await admin(overrides.SetOverrideRequest(override=for_all))
        assert (await first(member, context="title")).model == "test/both"
        listed = await member(overrides.ListOverridesRequest(parent=ADA))
        assert ([one.model for one in listed.overrides], listed.is_personal_enabled) == (["test/other"], True)
        assert (await admin(overrides.GetOverrideRequest(name=for_all.name))).override.model == "test/both"
        assert (await member.refused(overrides.SetOverrideRequest(override=for_all))).reason == "CALLER_NOT_ALLOWED"
        for name, model, reason in (
            (f"{DEMO}/overrides/root", "test/echo", "INVALID_REQUEST"),  # no administrator's context
            (f"{DEMO}/overrides/general", "test/ecko", "MODEL_NOT_FOUND"),
            (f"{CHAT}/overrides/general", "else/hidden", "MODEL_NOT_ALLOWED"),
            (f"{DEMO}/overrides/general", "free", "MODEL_NOT_FOUND"),
            (f"{DEMO}/overrides/General", "test/echo", "INVALID_REQUEST"),
            (f"{DEMO}/users/nobody/overrides/root", "test/echo", "RESOURCE_NOT_FOUND"),
            (f"{DEMO}/nonsense/x/overrides/root", "test/echo", "INVALID_REQUEST"),
        ):
            bad = overrides.SetOverrideRequest(override=overrides.Override(name=name, model=model))
            assert (await admin.refused(bad)).reason == reason, name
        entry = model_service_pb2.ModelEntry(name="deployment/models/test/other", is_enabled=False)
        switch = model_service_pb2.UpdateModelEntryRequest(
            model_entry=entry, update_mask=mask("is_enabled"), override_file=True
        )
        await operator(switch)
        told = await explain(member, context="root")
        assert told.candidates[0].resolution.model == "test/echo"
        assert [one.reason for one in told.skipped_choices] == [resolution_pb2.SKIP_REASON_MODEL_DISABLED]
        await member(overrides.ClearOverrideRequest(name=f"{ADA}/overrides/root"))
        assert not (await explain(member, context="root")).skipped_choices


async def test_a_stored_model_that_is_deleted_is_passed_over(tmp_path: Any) -> None:
    async with running_stack(tmp_path) as stack:
        who = await desks(stack)
        operator, admin = who["operator"], who["admin"]
        await stack.save_key("deployment/credentials/first")
        entry = model_service_pb2.ModelEntry(
            endpoints=[model_service_pb2.ModelEndpoint(provider="providers/first", upstream_model_id="new")],
            aliases=["newest"],
            price=model_service_pb2.ModelPrice(
                input_usd_nanos_per_million_tokens=0, output_usd_nanos_per_million_tokens=1_250_000_000
            ),
            context_limit_tokens=1000,
            compression_threshold_percent=70,
            defaults=settings_pb2.GenerationSettings(sampling=settings_pb2.Sampling(temperature=1)),
        )
        create = model_service_pb2.CreateModelEntryRequest(parent="deployment", model="test/new", model_entry=entry)
        made = (await operator(create)).model_entry
        assert (made.name, made.source, made.is_enabled) == ("deployment/models/test/new", STORED, True)
        entry.price.checked_date = made.price.checked_date  # the day of the change
        assert (made.price, made.defaults, made.endpoints) == (entry.price, entry.defaults, entry.endpoints)
        assert (await operator.refused(create)).reason == "RESOURCE_EXISTS"
        override = overrides.Override(name=f"{CHAT}/overrides/title", model="newest")
        await admin(overrides.SetOverrideRequest(override=override))
        assert (await first(who["member"], context="title")).model == "test/new"
        await operator(model_service_pb2.DeleteModelEntryRequest(name=made.name))
        told = await explain(who["member"], context="title")
        assert told.candidates[0].resolution.model == "test/echo"
        assert told.skipped_choices[0].reason == resolution_pb2.SKIP_REASON_MODEL_NOT_FOUND
        fixed = model_service_pb2.DeleteModelEntryRequest(name="deployment/models/test/echo")
        assert (await operator.refused(fixed)).reason == "RESOURCE_FIXED"


async def test_an_organization_configures_manually(tmp_path: Any) -> None:
    async with running_stack(tmp_path) as stack:
        who = await desks(stack)
        admin = who["admin"]
        lab = provider_service_pb2.Provider(
            dialect="openai_chat",
            base_url="https://lab.example/v1",
            auth="bearer",
            advanced_json='{"idle_timeout_seconds": 9}',
        )
        create = provider_service_pb2.CreateProviderRequest(parent=DEMO, provider_id="lab", provider=lab)
        made = (await admin(create)).provider
        assert (made.name, made.origin, made.source) == (f"{DEMO}/providers/lab", "https://lab.example", STORED)
        assert (made.base_url, json.loads(made.advanced_json)) == (lab.base_url, {"idle_timeout_seconds": 9})
        entry = model_service_pb2.ModelEntry(
            endpoints=[model_service_pb2.ModelEndpoint(provider=made.name, upstream_model_id="x-1")]
        )
        await admin(model_service_pb2.CreateModelEntryRequest(parent=DEMO, model="lab/x", model_entry=entry))
        allow = applications.UpdateApplicationRequest(
            application=applications.Application(name=CHAT, allowed_models=["lab/*", "test/*"]),
            update_mask=mask("allowed_models"),
            override_file=True,
        )
        await admin(allow)
        told = await explain(admin, application=CHAT, model="lab/x")
        assert {one.provider for one in told.skipped_candidates} == {made.name, ""} - {""}
        assert {one.reason for one in told.skipped_candidates} == {
            resolution_pb2.SKIP_REASON_NO_CREDENTIAL,
            resolution_pb2.SKIP_REASON_MODEL_NOT_ALLOWED,
        }
        unknown = await who["foreign"].refused(
            routing_service_pb2.ExplainRouteRequest(
                call=make_call(model="lab/x", application="organizations/other/applications/chat")
            )
        )
        assert unknown.reason == "MODEL_NOT_FOUND"
        assert (await who["foreign"].refused(provider_service_pb2.GetProviderRequest(name=made.name))).reason == (
            "RESOURCE_NOT_FOUND"
        )
        for url, field in (
            ("http://lab.example/v1", "base_url"),
            ("https://10.1.2.3/v1", "base_url"),
            ("https://127.0.0.1/v1", "base_url"),
            ("https://169.254.169.254/v1", "base_url"),
            ("no url", "base_url"),
        ):
            bad = provider_service_pb2.Provider(dialect="openai_chat", base_url=url, auth="bearer")
            request = provider_service_pb2.CreateProviderRequest(parent=DEMO, provider_id="bad", provider=bad)
            assert (await admin.refused(request)).fields == (field,), url
        opened = provider_service_pb2.Provider(
            dialect="openai_chat",
            base_url="https://10.1.2.3/v1",
            auth="bearer",
            allowed_private_networks=["10.0.0.0/8"],
        )
        request = provider_service_pb2.CreateProviderRequest(parent=DEMO, provider_id="bad", provider=opened)
        assert "allowed_private_networks" in (await admin.refused(request)).fields
        local = provider_service_pb2.Provider(template="ollama")
        request = provider_service_pb2.CreateProviderRequest(parent=DEMO, provider_id="bad", provider=local)
        assert "base_url" in (await admin.refused(request)).fields
        secret = provider_service_pb2.Provider(
            dialect="openai_chat", base_url="https://x.example", auth="bearer", advanced_json='{"api_key": "sk-1"}'
        )
        request = provider_service_pb2.CreateProviderRequest(parent=DEMO, provider_id="bad", provider=secret)
        refusal = await admin.refused(request)
        assert refusal.reason == "INVALID_REQUEST"
        assert "sk-1" not in str(refusal)
        deleted = await admin.refused(provider_service_pb2.DeleteProviderRequest(name=made.name))
        assert deleted.reason == "INVALID_REQUEST"  # a model of the organization is had there
        assert (await admin(provider_service_pb2.ListProvidersRequest(parent=DEMO))).providers[0].name == made.name
        await admin(model_service_pb2.DeleteModelEntryRequest(name=f"{DEMO}/models/lab/x"))
        await admin(provider_service_pb2.DeleteProviderRequest(name=made.name))


async def test_organizations_and_what_they_are_allowed(tmp_path: Any) -> None:
    async with running_stack(tmp_path) as stack:
        who = await desks(stack)
        operator, admin = who["operator"], who["admin"]
        create = organizations.CreateOrganizationRequest(
            organization_id="acme", organization=organizations.Organization(display_name="Acme", users=["eva"])
        )
        made = (await operator(create)).organization
        assert (made.name, list(made.users), made.source) == ("organizations/acme", ["eva"], STORED)
        names = [one.name for one in (await operator(organizations.ListOrganizationsRequest())).organizations]
        assert names == ["organizations/acme", DEMO, "organizations/other"]
        own = [one.name for one in (await admin(organizations.ListOrganizationsRequest())).organizations]
        assert own == [DEMO]
        policy = organizations.OrganizationPolicy(
            name=f"{DEMO}/policy", markup_basis_points=1250, allowed_payers=[payer_pb2.PAYER_CREDITS]
        )
        request = organizations.SetOrganizationPolicyRequest(policy=policy, override_file=True)
        assert (await admin.refused(request)).metadata["missingRole"] == "operator"
        await operator(request)
        found = (await who["member"](organizations.GetOrganizationPolicyRequest(name=f"{DEMO}/policy"))).policy
        assert (found.markup_basis_points, found.is_user_key_enabled) == (1250, True)
        await stack.save_key(f"{ADA}/credentials/mine")
        await stack.save_key("deployment/credentials/first")
        assert (await first(who["member"])).payer == payer_pb2.PAYER_CREDITS
        tool = applications.CreateApplicationRequest(parent="organizations/acme", application_id="app")
        await operator(tool)
        await operator(organizations.DeleteOrganizationRequest(name="organizations/acme"))
        assert (
            await operator.refused(applications.GetApplicationRequest(name="organizations/acme/applications/app"))
        ).reason == ("RESOURCE_NOT_FOUND")
        with_user = organizations.UpdateOrganizationRequest(
            organization=organizations.Organization(name=DEMO), update_mask=mask("users"), override_file=True
        )
        await admin(with_user)
        assert not (await admin(organizations.GetOrganizationRequest(name=DEMO))).organization.users


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"update_mask": mask("nonsense")}, "update_mask"),
        ({"update_mask": mask("name")}, "update_mask"),
        ({"application": applications.Application(name=CHAT, default_model="test/gone")}, "default_model"),
        ({"application": applications.Application(name=CHAT, allowed_models=["a b"])}, "allowed_models[0]"),
        ({"application": applications.Application(name=CHAT, display_name="x" * 101)}, "display_name"),
        ({"application": applications.Application(name=CHAT, payers=[payer(0)])}, "payers[0]"),
        ({"application": applications.Application(name=CHAT, payers=[payer(99)])}, "payers[0]"),
        ({"application": applications.Application(name=CHAT, payers=[payer(4)] * 2)}, "payers"),
        ({"application": applications.Application(name=CHAT, native_provider="first")}, "native_provider"),
        ({"application": applications.Application(name=CHAT, native_provider="providers/gone")}, "native_provider"),
        (
            {"application": applications.Application(name=CHAT, native_provider="organizations/other/providers/first")},
            "native_provider",
        ),
        (
            {
                "application": applications.Application(
                    name=CHAT, fallbacks=[route_policy_pb2.ModelRoute(model="test/echo")]
                )
            },
            "fallbacks[0]",
        ),
    ],
)
async def test_what_is_wrong_is_named_and_changes_nothing(tmp_path: Any, change: Json, field: str) -> None:
    async with running_stack(tmp_path) as stack:
        admin = (await desks(stack))["admin"]
        before = stack.router.configuration.current.revision
        request = applications.UpdateApplicationRequest(
            **{"application": applications.Application(name=CHAT), "override_file": True, **change}
        )
        refusal = await admin.refused(request)
        assert (refusal.reason, refusal.fields) == ("INVALID_REQUEST", (field,))
        assert stack.router.configuration.current.revision == before


async def test_pages_belong_to_their_list(tmp_path: Any) -> None:
    async with running_stack(tmp_path) as stack:
        who = await desks(stack)
        for number in range(3):
            create = applications.CreateApplicationRequest(parent=DEMO, application_id=f"app-{number}")
            await who["admin"](create)
        page = await who["admin"](applications.ListApplicationsRequest(parent=DEMO, page_size=2))
        token = page.next_page_token
        rest = await who["admin"](applications.ListApplicationsRequest(parent=DEMO, page_size=2, page_token=token))
        assert [one.name.rpartition("/")[2] for one in (*page.applications, *rest.applications)] == [
            "app-0", "app-1", "app-2", "chat",
        ]  # fmt: skip
        for request in (
            applications.ListApplicationsRequest(parent="organizations/other", page_token=token),
            provider_service_pb2.ListProvidersRequest(page_token=token),
            model_service_pb2.ListModelEntriesRequest(parent="deployment", page_token=token),
            overrides.ListOverridesRequest(parent=DEMO, page_token=token),
        ):
            assert (await who["operator"].refused(request)).fields == ("page_token",)


async def test_what_is_stored_outlives_the_router_and_a_changed_file(tmp_path: Any) -> None:
    async with running_stack(tmp_path) as stack:
        admin = (await desks(stack))["admin"]
        tool = applications.Application(native_provider="providers/claude")
        await admin(applications.CreateApplicationRequest(parent=DEMO, application_id="tool", application=tool))
        await admin(applications.CreateApplicationRequest(parent=DEMO, application_id="other"))

    def without_claude(configuration: Json) -> None:
        del configuration["providers"]["claude"], configuration["models"]["test/claude"]

    async with running_stack(tmp_path, configuration=without_claude) as stack:
        admin = (await desks(stack))["admin"]
        left_out = [problem.path for problem in stack.router.configuration.left_out]
        assert left_out == ["organizations.demo.applications.tool.native_provider"]
        names = set(stack.router.configuration.current.organizations["demo"].applications)
        assert names == {"chat", "other"}
        create = applications.CreateApplicationRequest(parent=DEMO, application_id="third")
        assert (await admin(create)).application.source == STORED  # what is left out stands in nobody's way
        await admin(applications.DeleteApplicationRequest(name=TOOL))
        assert stack.router.configuration.left_out == ()


async def test_a_store_that_is_away_is_said_so_and_serves_on(tmp_path: Any) -> None:
    async with running_stack(tmp_path) as stack:
        admin = (await desks(stack))["admin"]
        store = stack.router.config.configuration_store
        assert isinstance(store, SqliteDatabase)
        database = store.path
        before = stack.router.configuration.current.revision
        kept = database.read_bytes()
        database.write_bytes(b"this is no database, and it is long enough to be read as a header " * 40)
        create = applications.CreateApplicationRequest(parent=DEMO, application_id="tool")
        refusal = await admin.refused(create)
        assert (refusal.code.name, refusal.reason) == ("UNAVAILABLE", "CONFIGURATION_UNAVAILABLE")
        assert refusal.retry_seconds is not None
        assert stack.router.configuration.current.revision == before
        assert (await explain(admin, application=CHAT)).configuration_revision == before
        database.write_bytes(kept)
        await admin(create)
