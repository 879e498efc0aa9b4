"""A right request for every method of the router that is not a completion: configuration, money, usage, plans."""

import json
import uuid
from collections.abc import Iterator

from google.protobuf import field_mask_pb2
from keyswitch.router.v1 import (
    application_service_pb2,
    budget_service_pb2,
    completion_service_pb2,
    configuration_pb2,
    configuration_service_pb2,
    embedding_service_pb2,
    model_service_pb2,
    organization_service_pb2,
    override_service_pb2,
    payer_pb2,
    provider_service_pb2,
    routing_service_pb2,
    usage_service_pb2,
)

from deploy.local.stack import APPLICATION, ORGANIZATION
from tests.fakes.scripted_upstream import respond
from tests.security import canary_upstream as answers
from tests.security.canary_deployment import CHAT, EMBED, Watched
from tests.security.canary_requests import OWN, Step

EXTRA = f"{ORGANIZATION}/applications/extra"
TITLE = f"{APPLICATION}/overrides/title"
LAB = f"{ORGANIZATION}/providers/lab"
MODEL = f"{ORGANIZATION}/models/lab/x"
CAP = f"{ORGANIZATION}/budgets/cap"
NEW = "organizations/newcomer"
VECTORS = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.25, 0.5, 0.75]}],
    "model": "embed",
    "usage": {"prompt_tokens": 3, "total_tokens": 3},
}


def mask(*paths: str) -> field_mask_pb2.FieldMask:
    return field_mask_pb2.FieldMask(paths=paths)


def configuration_steps(watched: Watched) -> Iterator[Step]:
    """What is kept over the file."""
    yield from _organization_steps()
    yield from _application_steps()
    pb = override_service_pb2
    yield Step("SetOverride", pb.SetOverrideRequest(override=pb.Override(name=TITLE, model=CHAT)))
    yield Step("GetOverride", pb.GetOverrideRequest(name=TITLE))
    yield Step("ListOverrides", pb.ListOverridesRequest(parent=APPLICATION))
    yield from _provider_and_model_steps()
    moved = configuration_service_pb2
    yield Step("ExportConfiguration", moved.ExportConfigurationRequest(parent=ORGANIZATION))
    yield Step("ImportConfiguration", moved.ImportConfigurationRequest(
        parent=ORGANIZATION, yaml=f"organizations: {{demo: {{overrides: {{explore: {CHAT}}}}}}}"))  # fmt: skip


def configuration_ends() -> Iterator[Step]:
    """What takes it away again, last."""
    yield Step("ClearOverride", override_service_pb2.ClearOverrideRequest(name=TITLE))
    yield Step("DeleteModelEntry", model_service_pb2.DeleteModelEntryRequest(name=MODEL))
    yield Step("DeleteProvider", provider_service_pb2.DeleteProviderRequest(name=LAB))
    yield Step("DeleteApplication", application_service_pb2.DeleteApplicationRequest(name=EXTRA))
    yield Step("DeleteOrganization", organization_service_pb2.DeleteOrganizationRequest(name=NEW), "operator")
    yield Step("DeleteBudget", budget_service_pb2.DeleteBudgetRequest(name=CAP))


def _organization_steps() -> Iterator[Step]:
    pb = organization_service_pb2
    new = pb.Organization(display_name="Newcomer", users=["eve"])
    yield Step("CreateOrganization", pb.CreateOrganizationRequest(
        organization_id="newcomer", organization=new), "operator")  # fmt: skip
    yield Step("GetOrganization", pb.GetOrganizationRequest(name=ORGANIZATION))
    yield Step("ListOrganizations", pb.ListOrganizationsRequest(), "operator")
    changed = pb.Organization(name=NEW, users=["eve", "bob"])
    yield Step("UpdateOrganization", pb.UpdateOrganizationRequest(
        organization=changed, update_mask=mask("users")), "operator")  # fmt: skip
    yield Step("GetOrganizationPolicy", pb.GetOrganizationPolicyRequest(name=f"{ORGANIZATION}/policy"))
    limits = configuration_pb2.RateLimits(requests_per_minute=600, tokens_per_minute=10**6)
    policy = pb.OrganizationPolicy(name=f"{NEW}/policy", markup_basis_points=100, limits=limits)
    yield Step("SetOrganizationPolicy", pb.SetOrganizationPolicyRequest(
        policy=policy, update_mask=mask("markup_basis_points", "limits")), "operator")  # fmt: skip


def _application_steps() -> Iterator[Step]:
    pb = application_service_pb2
    extra = pb.Application(payers=[payer_pb2.PAYER_USER_KEY], default_model=CHAT, allowed_models=["*"])
    yield Step("CreateApplication", pb.CreateApplicationRequest(
        parent=ORGANIZATION, application_id="extra", application=extra))  # fmt: skip
    yield Step("GetApplication", pb.GetApplicationRequest(name=EXTRA))
    yield Step("ListApplications", pb.ListApplicationsRequest(parent=ORGANIZATION))
    yield Step("UpdateApplication", pb.UpdateApplicationRequest(
        application=pb.Application(name=EXTRA, default_model=CHAT), update_mask=mask("default_model")))  # fmt: skip
    binding = pb.CredentialBinding(
        payer=payer_pb2.PAYER_ORGANIZATION_KEY, credential=f"{ORGANIZATION}/credentials/claude"
    )
    yield Step("BindCredential", pb.BindCredentialRequest(application=EXTRA, binding=binding))
    yield Step("UnbindCredential", pb.UnbindCredentialRequest(
        application=EXTRA, payer=payer_pb2.PAYER_ORGANIZATION_KEY))  # fmt: skip


def _provider_and_model_steps() -> Iterator[Step]:
    pb = provider_service_pb2
    lab = pb.Provider(dialect="openai_chat", base_url="https://lab.example/v1", auth="bearer")
    yield Step("CreateProvider", pb.CreateProviderRequest(parent=ORGANIZATION, provider_id="lab", provider=lab))
    yield Step("GetProvider", pb.GetProviderRequest(name=LAB))
    yield Step("UpdateProvider", pb.UpdateProviderRequest(
        provider=pb.Provider(name=LAB, base_url="https://lab.example/v2"), update_mask=mask("base_url")))  # fmt: skip
    yield Step(
        "ProbeProvider", pb.ProbeProviderRequest(name="providers/scripted"), "operator", (answers.model_list("chat"),)
    )
    models = model_service_pb2
    entry = models.ModelEntry(endpoints=[models.ModelEndpoint(provider=LAB, upstream_model_id="x")])
    yield Step("CreateModelEntry", models.CreateModelEntryRequest(
        parent=ORGANIZATION, model="lab/x", model_entry=entry))  # fmt: skip
    yield Step("GetModelEntry", models.GetModelEntryRequest(name=MODEL))
    yield Step("ListModelEntries", models.ListModelEntriesRequest(parent=ORGANIZATION))
    yield Step("UpdateModelEntry", models.UpdateModelEntryRequest(
        model_entry=models.ModelEntry(name=MODEL, aliases=["labx"]), update_mask=mask("aliases")))  # fmt: skip
    yield Step("DescribeOptions", models.DescribeOptionsRequest(provider="providers/scripted", model=CHAT), "member")
    yield Step("DiscoverUpstreamModels", models.DiscoverUpstreamModelsRequest(
        credential_version=f"{OWN}/versions/1"), "member", (answers.model_list("chat"),))  # fmt: skip


def money_steps() -> Iterator[Step]:
    """Budgets, entries and what was used."""
    pb = budget_service_pb2
    budget = pb.Budget(
        subject=ORGANIZATION, period=pb.BUDGET_PERIOD_DAY, basis=pb.BUDGET_BASIS_CHARGED, limit_usd_nanos=10**12
    )
    yield Step("CreateBudget", pb.CreateBudgetRequest(organization=ORGANIZATION, budget_id="cap", budget=budget))
    yield Step("GetBudget", pb.GetBudgetRequest(name=CAP))
    yield Step("ListBudgets", pb.ListBudgetsRequest(organization=ORGANIZATION))
    yield Step("UpdateBudget", pb.UpdateBudgetRequest(
        budget=pb.Budget(name=CAP, limit_usd_nanos=10**13), update_mask=mask("limit_usd_nanos")))  # fmt: skip
    yield Step("SetLowBalance", pb.SetLowBalanceRequest(organization=ORGANIZATION, low_balance_usd_nanos=5), "operator")
    yield Step("ListEntries", pb.ListEntriesRequest(organization=ORGANIZATION))
    yield Step("VerifyLedger", pb.VerifyLedgerRequest(), "operator")
    usage = usage_service_pb2
    wanted = usage.UsageFilter(organization=ORGANIZATION)
    yield Step("ListReceipts", usage.ListReceiptsRequest(filter=wanted))
    yield Step("Summarize", usage.SummarizeRequest(filter=wanted, group_by=[usage.USAGE_DIMENSION_MODEL]))


def plan_steps(watched: Watched) -> Iterator[Step]:
    """What is decided without sending, and what is sent for something else than an answer."""
    pb, call = routing_service_pb2, watched.call_for()
    yield Step("ExplainRoute", pb.ExplainRouteRequest(call=call), "member")
    yield Step("EstimateCost", pb.EstimateCostRequest(call=call), "member")
    yield Step("ListRests", pb.ListRestsRequest(parent=ORGANIZATION))
    yield Step("CountTokens", completion_service_pb2.CountTokensRequest(call=call), "member")
    spec = embedding_service_pb2.EmbeddingSpec(model=EMBED)
    spec.inputs.add(text="Hello.")
    embed = embedding_service_pb2.EmbedRequest(spec=spec, application=APPLICATION, request_id=str(uuid.uuid4()))
    yield Step("Embed", embed, "member", (respond(json.dumps(VECTORS).encode()),))
