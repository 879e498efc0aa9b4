"""Who may do what to the configuration: one row for each method, and unknown things look like other tenants'."""

from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from keyswitch.router.v1 import application_service_pb2 as applications
from keyswitch.router.v1 import configuration_service_pb2 as configuration
from keyswitch.router.v1 import model_service_pb2 as models
from keyswitch.router.v1 import organization_service_pb2 as organizations
from keyswitch.router.v1 import override_service_pb2 as overrides
from keyswitch.router.v1 import payer_pb2
from keyswitch.router.v1 import provider_service_pb2 as providers

from tests.service.configuration_harness import Desk, desks
from tests.service.router_harness import DEMO, Refused, running_stack

ROLES = ("member", "admin", "auditor", "operator", "foreign")
NOTHING = f"{DEMO}/applications/nothing"
BINDING = applications.CredentialBinding(
    payer=payer_pb2.PAYER_ORGANIZATION_KEY, credential=f"{DEMO}/credentials/nothing"
)

READS, ADMINISTRATORS, OPERATORS = "read", "administrators", "operator"

TABLE: tuple[tuple[Any, str], ...] = (
    (applications.GetApplicationRequest(name=NOTHING), READS),
    (applications.ListApplicationsRequest(parent=DEMO), READS),
    (applications.CreateApplicationRequest(parent=DEMO, application_id="x"), ADMINISTRATORS),
    (applications.UpdateApplicationRequest(application=applications.Application(name=NOTHING)), ADMINISTRATORS),
    (applications.DeleteApplicationRequest(name=NOTHING), ADMINISTRATORS),
    (applications.BindCredentialRequest(application=NOTHING, binding=BINDING), ADMINISTRATORS),
    (applications.UnbindCredentialRequest(application=NOTHING, payer=payer_pb2.PAYER_CREDITS), ADMINISTRATORS),
    (organizations.GetOrganizationRequest(name=DEMO), READS),
    (organizations.UpdateOrganizationRequest(organization=organizations.Organization(name=DEMO)), ADMINISTRATORS),
    (organizations.DeleteOrganizationRequest(name=DEMO), OPERATORS),
    (organizations.GetOrganizationPolicyRequest(name=f"{DEMO}/policy"), READS),
    (
        organizations.SetOrganizationPolicyRequest(
            policy=organizations.OrganizationPolicy(name=f"{DEMO}/policy"),
            update_mask=FieldMask(paths=["is_personal_override_enabled"]),
        ),
        ADMINISTRATORS,
    ),
    (
        organizations.SetOrganizationPolicyRequest(
            policy=organizations.OrganizationPolicy(name=f"{DEMO}/policy"),
            update_mask=FieldMask(paths=["markup_basis_points"]),
        ),
        OPERATORS,
    ),
    (overrides.GetOverrideRequest(name=f"{DEMO}/overrides/title"), READS),
    (overrides.ListOverridesRequest(parent=DEMO), READS),
    (overrides.ClearOverrideRequest(name=f"{DEMO}/overrides/title"), ADMINISTRATORS),
    (
        overrides.SetOverrideRequest(override=overrides.Override(name=f"{DEMO}/overrides/root", model="test/echo")),
        ADMINISTRATORS,
    ),
    (providers.GetProviderRequest(name=f"{DEMO}/providers/nothing"), READS),
    (providers.CreateProviderRequest(parent=DEMO, provider_id="lab"), ADMINISTRATORS),
    (providers.UpdateProviderRequest(provider=providers.Provider(name=f"{DEMO}/providers/nothing")), ADMINISTRATORS),
    (providers.DeleteProviderRequest(name=f"{DEMO}/providers/nothing"), ADMINISTRATORS),
    (models.GetModelEntryRequest(name=f"{DEMO}/models/a/b"), READS),
    (models.ListModelEntriesRequest(parent=DEMO), READS),
    (models.CreateModelEntryRequest(parent=DEMO, model="a/b"), ADMINISTRATORS),
    (models.UpdateModelEntryRequest(model_entry=models.ModelEntry(name=f"{DEMO}/models/a/b")), ADMINISTRATORS),
    (models.DeleteModelEntryRequest(name=f"{DEMO}/models/a/b"), ADMINISTRATORS),
    (configuration.ExportConfigurationRequest(parent=DEMO), ADMINISTRATORS),
    (configuration.ImportConfigurationRequest(parent=DEMO, validate_only=True), ADMINISTRATORS),
)

DEPLOYMENTS = (
    organizations.CreateOrganizationRequest(organization_id="x"),
    providers.CreateProviderRequest(parent="deployment", provider_id="x"),
    providers.UpdateProviderRequest(provider=providers.Provider(name="providers/nothing")),
    providers.DeleteProviderRequest(name="providers/nothing"),
    models.CreateModelEntryRequest(parent="deployment", model="x"),
    models.UpdateModelEntryRequest(model_entry=models.ModelEntry(name="deployment/models/a/b")),
    models.DeleteModelEntryRequest(name="deployment/models/a/b"),
    configuration.ExportConfigurationRequest(parent="deployment"),
    configuration.ImportConfigurationRequest(parent="deployment", yaml="providers: {}", is_rest_removed=True),
)

MAY = {
    READS: {"member", "admin", "auditor", "operator"},
    ADMINISTRATORS: {"admin", "operator"},
    OPERATORS: {"operator"},
}


async def ask(desk: Desk, request: Any) -> Refused | None:
    """What became of a request."""
    try:
        await desk(request)
    except Refused as refusal:
        return refusal
    return None


async def test_every_method_asks_for_its_role(tmp_path: Any) -> None:
    async with running_stack(tmp_path) as stack:
        who = await desks(stack)
        for request, right in TABLE:
            told = {role: await ask(who[role], request) for role in ROLES}
            what = type(request).__name__
            barred = {role for role, refusal in told.items() if refusal and refusal.reason == "CALLER_NOT_ALLOWED"}
            assert barred == set(ROLES) - MAY[right] - {"foreign"}, what
            assert told["foreign"] is not None, what
            assert told["foreign"].reason == "RESOURCE_NOT_FOUND", what
        for request in DEPLOYMENTS:
            told = {role: await ask(who[role], request) for role in ROLES}
            barred = {role for role, refusal in told.items() if refusal and refusal.reason == "CALLER_NOT_ALLOWED"}
            assert barred == set(ROLES) - {"operator"}, type(request).__name__
        assert stack.router.configuration.documents.revision == 0


async def test_what_is_unknown_looks_like_what_is_not_yours(tmp_path: Any) -> None:
    async with running_stack(tmp_path) as stack:
        foreign = (await desks(stack))["foreign"]
        for there, nowhere in (
            (f"{DEMO}/applications/chat", "organizations/nowhere/applications/chat"),
            (f"{DEMO}/applications/chat", f"{DEMO}/applications/nothing"),
        ):
            one = await foreign.refused(applications.GetApplicationRequest(name=there))
            two = await foreign.refused(applications.GetApplicationRequest(name=nowhere))
            assert (one.code, one.reason, one.message, one.fields) == (two.code, two.reason, two.message, two.fields)


async def test_a_narrowed_token_needs_the_scope(tmp_path: Any) -> None:
    async with running_stack(tmp_path) as stack:
        narrow = await stack.issue("ADMIN", parent=DEMO, scopes=["COMPLETE"])
        desk = Desk(narrow, stack.channel)
        assert await ask(desk, applications.ListApplicationsRequest(parent=DEMO)) is None
        refusal = await desk.refused(applications.CreateApplicationRequest(parent=DEMO, application_id="tool"))
        assert refusal.metadata["missingScope"] == "manage_routing"
