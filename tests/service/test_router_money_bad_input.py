"""Bad input over every method that takes money or configuration: a typed error, and what was stored is as it was.

Each request below is right. Every field of it, at any depth, is then spoiled in every way that its type has, one at a
time: the answer is either right or an error with its reason, and of a wrong field with the field's name.
"""

import contextlib
import random
import uuid
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from keyswitch.router.v1 import application_service_pb2 as applications
from keyswitch.router.v1 import budget_service_pb2 as budgets
from keyswitch.router.v1 import (
    budget_service_pb2_grpc,
    completion_service_pb2_grpc,
    configuration_pb2,
    payer_pb2,
    route_policy_pb2,
    settings_pb2,
    usage_service_pb2_grpc,
)
from keyswitch.router.v1 import completion_service_pb2 as completions
from keyswitch.router.v1 import configuration_service_pb2 as interchange
from keyswitch.router.v1 import model_service_pb2 as models
from keyswitch.router.v1 import organization_service_pb2 as organizations
from keyswitch.router.v1 import override_service_pb2 as overrides
from keyswitch.router.v1 import provider_service_pb2 as providers
from keyswitch.router.v1 import routing_service_pb2 as routing
from keyswitch.router.v1 import usage_service_pb2 as usage

from router_service.transport.pages import write_cursor
from tests.security.promises import count, is_thorough
from tests.service import configuration_harness
from tests.service.configuration_harness import Desk, desks
from tests.service.router_harness import CHAT, DEMO, Refused, Stack, make_call, running_stack
from tests.suites.spoiled_requests import spoiled

pytestmark = pytest.mark.timeout(count(300, 1800))

STUBS = (
    *configuration_harness.STUBS,
    budget_service_pb2_grpc.BudgetServiceStub,
    usage_service_pb2_grpc.UsageServiceStub,
    completion_service_pb2_grpc.CompletionServiceStub,
)
TYPED = {
    "INVALID_REQUEST",
    "REQUEST_ID_REUSED",
    "RESOURCE_NOT_FOUND",
    "RESOURCE_EXISTS",
    "RESOURCE_FIXED",
    "ETAG_MISMATCH",
    "CALLER_NOT_ALLOWED",
    "MODEL_NOT_FOUND",
    "MODEL_NOT_ALLOWED",
    "NO_USABLE_CREDENTIAL",
    "PRICE_UNKNOWN",
    "CREDIT_EXHAUSTED",
    "BUDGET_EXHAUSTED",
    "CAPABILITY_UNSUPPORTED",
}
MOST = 30  # for each service, chosen by its name; at length all of them


def chosen(service: str) -> list[tuple[str, Message]]:
    """The spoiled requests of a service that are made in this run."""
    every = [one for request in right_requests()[service] for one in spoiled(request)]
    return every if is_thorough() or len(every) < MOST else random.Random(service).sample(every, MOST)


# --- right requests -------------------------------------------------------------------------------------------------

LIMITS = configuration_pb2.RateLimits(requests_per_minute=600, tokens_per_minute=10**6)
SETTINGS = settings_pb2.GenerationSettings(
    sampling=settings_pb2.Sampling(temperature=0.5, top_p=0.5, top_k=3, seed=4, stop_sequences=["end"]),
    max_output_tokens=100,
    reasoning=settings_pb2.ReasoningConfig(budget_tokens=100),
    provider_options=[settings_pb2.ProviderOptions(namespace="openai", json='{"a": 1}')],
    upstream_routing=settings_pb2.UpstreamRouting(
        order=["x"], max_price=settings_pb2.UpstreamMaxPrice(input_usd_nanos_per_million_tokens=5, request_usd_nanos=1)
    ),
)
ROUTE = route_policy_pb2.ModelRoute(model="test/both", provider="providers/second", settings=SETTINGS, weight=3)
TOOL = f"{DEMO}/applications/tool"
ENTRY = models.ModelEntry(
    endpoints=[models.ModelEndpoint(provider="providers/first", upstream_model_id="x", weight=3)],
    price=models.ModelPrice(
        input_usd_nanos_per_million_tokens=100, output_usd_nanos_per_million_tokens=400, checked_date="2026-11-21",
        tool_request_usd_nanos={"web_search": 10},
    ),
    display_name="X", aliases=["x-alias"], context_limit_tokens=1000, defaults=SETTINGS,
)  # fmt: skip


def whole_application(**fields: Any) -> applications.Application:
    made = applications.Application(
        display_name="Tool",
        payers=[payer_pb2.PAYER_ORGANIZATION_KEY, payer_pb2.PAYER_CREDITS],
        payer_failover_on=[payer_pb2.PAYER_FAILOVER_CAUSE_RATE_LIMITED],
        default_model="test/echo",
        allowed_models=["test/*"],
        native_provider="providers/first",
        bindings=[
            applications.CredentialBinding(
                payer=payer_pb2.PAYER_ORGANIZATION_KEY, credential=f"{DEMO}/credentials/first"
            )
        ],
        provider_order=["providers/second"],
        fallbacks=[ROUTE],
        contexts=[applications.ApplicationContext(context="review", layers=[configuration_pb2.OVERRIDE_LAYER_USER])],
        limits=LIMITS,
        **fields,
    )
    made.max_queue_wait.seconds = 1
    return made


def budget(**fields: Any) -> budgets.Budget:
    made = budgets.Budget(
        subject=CHAT,
        period=budgets.BUDGET_PERIOD_DAY,
        basis=budgets.BUDGET_BASIS_CHARGED,
        limit_usd_nanos=10**9,
        **fields,
    )
    made.expire_time.seconds = 4_000_000_000
    return made


def usage_filter() -> usage.UsageFilter:
    made = usage.UsageFilter(
        organization=DEMO, application=CHAT, model="test/echo", provider="providers/first",
        payer=payer_pb2.PAYER_CREDITS,
    )  # fmt: skip
    made.start_time.seconds, made.end_time.seconds = 1_700_000_000, 4_000_000_000
    return made


def call() -> Any:
    policy = route_policy_pb2.RoutePolicy(
        fallbacks=[ROUTE], provider_order=["providers/first"], payers=[payer_pb2.PAYER_ORGANIZATION_KEY],
        max_attempts=2, payer_failover_on=route_policy_pb2.PayerFailover(causes=[]),
    )  # fmt: skip
    policy.max_queue_wait.seconds = policy.idle_timeout.seconds = policy.first_content_timeout.seconds = 1
    made = make_call(model="test/echo", application=CHAT, route_policy=policy, caller_labels={"team": "red"})
    made.spec.settings.CopyFrom(SETTINGS)
    return made


def right_requests() -> dict[str, tuple[Message, ...]]:
    """By service, with a stranger to nothing: the operator may make all of them."""
    named, org = f"{DEMO}/applications/tool", f"{DEMO}/policy"
    stored = "organizations/acme"
    return {
        "applications": (
            applications.GetApplicationRequest(name=named),
            applications.ListApplicationsRequest(parent=DEMO, page_size=1),
            applications.CreateApplicationRequest(parent=DEMO, application_id="other", application=whole_application()),
            applications.UpdateApplicationRequest(application=whole_application(name=named), override_file=True),
            applications.BindCredentialRequest(
                application=named,
                binding=applications.CredentialBinding(
                    payer=payer_pb2.PAYER_CREDITS, credential="deployment/credentials/first"
                ),
            ),
            applications.UnbindCredentialRequest(application=named, payer=payer_pb2.PAYER_ORGANIZATION_KEY),
            applications.DeleteApplicationRequest(name=named),
        ),
        "organizations": (
            organizations.GetOrganizationRequest(name=stored),
            organizations.ListOrganizationsRequest(page_size=1),
            organizations.CreateOrganizationRequest(
                organization_id="newcomer",
                organization=organizations.Organization(display_name="New", users=["eve"], default_model="test/echo"),
            ),
            organizations.UpdateOrganizationRequest(
                organization=organizations.Organization(name=stored, users=["eve"], display_name="x"),
            ),
            organizations.GetOrganizationPolicyRequest(name=org),
            organizations.SetOrganizationPolicyRequest(
                policy=organizations.OrganizationPolicy(
                    name=f"{stored}/policy",
                    markup_basis_points=100,
                    allowed_payers=[payer_pb2.PAYER_CREDITS],
                    limits=LIMITS,
                    user_limits=LIMITS,
                    token_limits=LIMITS,
                )
            ),
            organizations.DeleteOrganizationRequest(name=stored),
        ),
        "overrides": (
            overrides.SetOverrideRequest(
                override=overrides.Override(name=f"{named}/overrides/title", model="test/both")
            ),
            overrides.GetOverrideRequest(name=f"{named}/overrides/title"),
            overrides.ListOverridesRequest(parent=named, page_size=1),
            overrides.ClearOverrideRequest(name=f"{named}/overrides/title"),
            interchange.ExportConfigurationRequest(parent=DEMO),
            interchange.ImportConfigurationRequest(
                parent=DEMO, yaml="organizations: {demo: {applications: {tool: {limits: {requests_per_minute: 3}}}}}"
            ),
        ),
        "models": (
            models.GetModelEntryRequest(name="deployment/models/test/own"),
            models.ListModelEntriesRequest(parent="deployment", page_size=1),
            models.CreateModelEntryRequest(parent="deployment", model="test/new", model_entry=ENTRY),
            models.UpdateModelEntryRequest(
                model_entry=models.ModelEntry(
                    name="deployment/models/test/own", price=ENTRY.price, endpoints=ENTRY.endpoints
                )
            ),
            models.DeleteModelEntryRequest(name="deployment/models/test/own"),
            models.ListModelsRequest(application=CHAT, page_size=1),
            models.DescribeOptionsRequest(provider="providers/first", model="test/echo"),
        ),
        "providers": (
            providers.GetProviderRequest(name="providers/lab"),
            providers.ListProvidersRequest(page_size=1),
            providers.CreateProviderRequest(
                parent="deployment",
                provider_id="newlab",
                provider=providers.Provider(
                    dialect="openai_chat",
                    base_url="https://lab.example/v1",
                    auth="bearer",
                    display_name="Lab",
                    advanced_json='{"idle_timeout_seconds": 9}',
                ),
            ),
            providers.UpdateProviderRequest(
                provider=providers.Provider(name="providers/lab", base_url="https://lab.example/v2", display_name="Lab")
            ),
            providers.DeleteProviderRequest(name="providers/lab"),
        ),
        "budgets": (
            budgets.GetBalanceRequest(organization=DEMO),
            budgets.AddCreditsRequest(organization=DEMO, amount_usd_nanos=5, request_id=str(uuid.uuid4()), note="gift"),
            budgets.SetLowBalanceRequest(organization=DEMO, low_balance_usd_nanos=5),
            budgets.ListEntriesRequest(organization=DEMO, page_size=1),
            budgets.CreateBudgetRequest(organization=DEMO, budget_id="new", budget=budget()),
            budgets.GetBudgetRequest(name=f"{DEMO}/budgets/cap"),
            budgets.ListBudgetsRequest(organization=DEMO, page_size=1),
            budgets.UpdateBudgetRequest(
                budget=budget(name=f"{DEMO}/budgets/cap"),
                update_mask=FieldMask(paths=["limit_usd_nanos", "expire_time"]),
            ),
            budgets.DeleteBudgetRequest(name=f"{DEMO}/budgets/gone"),
        ),
        "usage": (
            usage.GetReceiptRequest(request_id=str(uuid.uuid4())),
            usage.ListReceiptsRequest(filter=usage_filter(), page_size=1),
            usage.SummarizeRequest(filter=usage_filter(), group_by=[usage.USAGE_DIMENSION_MODEL]),
        ),
        "calls": (
            routing.ExplainRouteRequest(call=call()),
            routing.EstimateCostRequest(call=call()),
            routing.ListRestsRequest(parent=DEMO, page_size=1),
            completions.CountTokensRequest(call=call()),
        ),
    }


SERVICES = tuple(right_requests())
EXPORT = interchange.ExportConfigurationRequest(parent="deployment")


async def furnish(stack: Stack, operator: Desk) -> None:
    """What the requests speak of, stored."""
    await stack.save_key(f"{DEMO}/credentials/first")
    await stack.save_key("deployment/credentials/first")
    await operator(applications.CreateApplicationRequest(
        parent=DEMO, application_id="tool", application=whole_application()))  # fmt: skip
    await operator(organizations.CreateOrganizationRequest(organization_id="acme"))
    await operator(models.CreateModelEntryRequest(
        parent="deployment", model="test/own", model_entry=models.ModelEntry(endpoints=ENTRY.endpoints)))  # fmt: skip
    lab = providers.Provider(dialect="openai_chat", base_url="https://lab.example/v1", auth="bearer")
    await operator(providers.CreateProviderRequest(parent="deployment", provider_id="lab", provider=lab))
    await operator(overrides.SetOverrideRequest(
        override=overrides.Override(name=f"{TOOL}/overrides/title", model="test/echo")))  # fmt: skip
    await operator(budgets.CreateBudgetRequest(organization=DEMO, budget_id="cap", budget=budget()))


async def restore(stack: Stack, operator: Desk, service: str, kept: str) -> tuple[Any, ...]:
    """After a spoiled request that was right all the same: what is stored is as it was. Gives it."""
    if service == "budgets":
        with contextlib.suppress(Refused):
            await operator(budgets.DeleteBudgetRequest(name=f"{DEMO}/budgets/new"))
    elif (await operator(EXPORT)).yaml != kept:
        await operator(interchange.ImportConfigurationRequest(
            parent="deployment", yaml=kept, is_rest_removed=True, override_file=True))  # fmt: skip
    return await read_back(stack, operator, service)


async def read_back(stack: Stack, operator: Desk, service: str) -> tuple[Any, ...]:
    """Everything that a request of the service could have changed."""
    documents = stack.router.configuration.documents
    if service != "budgets":
        return (documents,)
    return (
        documents,
        await operator(budgets.GetBalanceRequest(organization=DEMO)),
        await operator(budgets.ListEntriesRequest(organization=DEMO, page_size=1000)),
        await operator(budgets.ListBudgetsRequest(organization=DEMO, page_size=1000)),
    )


@pytest.fixture(autouse=True)
def _every_stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration_harness, "STUBS", STUBS)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_spoiled_field_is_a_typed_error_and_changes_nothing(tmp_path: Path, service: str) -> None:
    async with running_stack(tmp_path) as stack:
        operator = (await desks(stack))["operator"]
        await furnish(stack, operator)
        kept = (await operator(EXPORT)).yaml
        before, refusals, answers = await read_back(stack, operator, service), 0, 0
        for place, wrong in chosen(service):
            what = f"{type(wrong).__name__}.{place}: {str(wrong)[:200]!r}"
            try:
                await operator(wrong)
            except Refused as refusal:
                refusals += 1
                assert refusal.reason in TYPED, (what, refusal)  # noqa: PT017 # a refusal is what is tested
                assert bool(refusal.fields) == (refusal.reason == "INVALID_REQUEST"), (what, refusal)  # noqa: PT017
                assert await read_back(stack, operator, service) == before, what
            else:
                answers += 1
                before = await restore(stack, operator, service, kept)
        assert refusals > 5
        print(f"{service}: {refusals} refused, {answers} answered")


async def test_what_was_found_is_refused_by_name(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        operator = (await desks(stack))["operator"]
        before = stack.router.configuration.documents
        for text in ("New\n", "New\x00", "New\x1b[2J", "New\u202e", "New\u2066", "x" * 101):
            named = organizations.Organization(display_name=text)
            request = organizations.CreateOrganizationRequest(organization_id="acme", organization=named)
            refusal = await operator.refused(request)
            assert (refusal.reason, refusal.fields) == ("INVALID_REQUEST", ("display_name",)), text
        for users in (["eve\n"], ["eve", "../eve"], ["Eve"]):
            request = organizations.CreateOrganizationRequest(
                organization_id="acme", organization=organizations.Organization(users=users)
            )
            assert (await operator.refused(request)).reason == "INVALID_REQUEST", users
        assert stack.router.configuration.documents is before
        for seconds, nanos in ((1, 0), (-(2**62), 0), (2**62, 0), (4_000_000_000, -1), (4_000_000_000, 10**9)):
            late = budget()
            late.expire_time.seconds, late.expire_time.nanos = seconds, nanos
            refusal = await operator.refused(
                budgets.CreateBudgetRequest(organization=DEMO, budget_id="new", budget=late)
            )
            assert refusal.fields == ("budget.expire_time",), (seconds, nanos)
            asked = usage.SummarizeRequest(filter=usage_filter())
            asked.filter.start_time.CopyFrom(late.expire_time)
            if seconds != 1:
                field = "filter.start_time"
                assert (await operator.refused(asked)).fields == (field,), (seconds, nanos)
        assert not (await operator(budgets.ListBudgetsRequest(organization=DEMO))).budgets


async def test_the_most_that_the_books_hold_is_not_exceeded(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        operator = (await desks(stack))["operator"]

        def adding(amount: int) -> budgets.AddCreditsRequest:
            return budgets.AddCreditsRequest(organization=DEMO, amount_usd_nanos=amount, request_id=str(uuid.uuid4()))

        for amount in (10**18 + 1, 2**63 - 1, -(2**63), 0):
            refusal = await operator.refused(adding(amount))
            assert (refusal.reason, refusal.fields) == ("INVALID_REQUEST", ("amount_usd_nanos",)), amount
        added = 0
        while added < 10:  # beyond what 64 bits hold
            try:
                await operator(adding(10**18))
            except Refused as refusal:
                assert refusal.fields == ("amount_usd_nanos",)  # noqa: PT017 # a refusal is what is tested
                break
            added += 1
        held = (await operator(budgets.GetBalanceRequest(organization=DEMO))).balance
        assert held.balance_usd_nanos == added * 10**18 < 2**63
        assert len((await operator(budgets.ListEntriesRequest(organization=DEMO))).entries) == added
        assert (await operator(budgets.VerifyLedgerRequest())).is_right


def forged(arguments: list[str], cursor: str) -> str:
    """A token that somebody made who knows how they are made."""
    return write_cursor(cursor, arguments)


async def test_page_tokens_of_another_query_and_forged_ones(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        operator = (await desks(stack))["operator"]
        lists: tuple[Any, ...] = (
            applications.ListApplicationsRequest(parent=DEMO, page_size=1),
            organizations.ListOrganizationsRequest(page_size=1),
            models.ListModelEntriesRequest(parent="deployment", page_size=1),
            providers.ListProvidersRequest(page_size=1),
            models.ListModelsRequest(application=CHAT, page_size=1),
        )
        tokens = [(await operator(one)).next_page_token for one in lists]
        assert sum(map(bool, tokens)) > 2
        others: tuple[Any, ...] = (
            *lists,
            budgets.ListEntriesRequest(organization=DEMO),
            budgets.ListBudgetsRequest(organization=DEMO),
            usage.ListReceiptsRequest(),
        )
        for number, request in enumerate(others):
            for other, token in enumerate(tokens):
                if token and number != other:
                    request.page_token = token
                    assert (await operator.refused(request)).fields == ("page_token",), (number, other)
        for cursor in ("9" * 19, "9" * 5000, "-1", "\u0663", "1e3", "x"):
            request = budgets.ListEntriesRequest(organization=DEMO, page_token=forged(["ListEntries", "demo"], cursor))
            assert (await operator.refused(request)).fields == ("page_token",), cursor[:20]
        mine = applications.ListApplicationsRequest(parent=DEMO, page_token=forged(["applications", DEMO], "9" * 5000))
        assert (await operator.refused(mine)).fields == ("page_token",)


async def test_labels_by_the_thousand_and_hostile_ones_are_refused(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        for labels in (
            {f"l{number}": "x" for number in range(3000)},
            {"a\n": "x"},
            {"a": "\x00"},
            {"a": "\u202e"},
            {"a": "x" * 5000},
            {"": "x"},
        ):
            found = await stack.member.stream(make_call(model="test/echo", caller_labels=labels))
            assert (found.refused.reason, found.refused.fields) == ("INVALID_REQUEST", ("call.caller_labels",)), labels
        assert not stack.first.received
