"""OrganizationService: tenants and what they are allowed."""

from collections.abc import Callable
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from keyswitch.router.v1 import organization_service_pb2, organization_service_pb2_grpc, payer_pb2

from router_service.catalog.catalog import Snapshot
from router_service.catalog.draft import Draft
from router_service.catalog.problems import Path
from router_service.core.caller import Caller
from router_service.core.faults import Fault, Reason
from router_service.credentials.client import Credentials
from router_service.transport.access import (
    changeable_organization,
    demand_operator,
    demand_reader,
    named_organization,
    readable_organization,
    require_id,
)
from router_service.transport.editor import Editor
from router_service.transport.fields import Raw, enums, fill, is_set, limits, merge, plain, source_number, texts, whole
from router_service.transport.interceptors.identity import caller
from router_service.transport.pages import page
from router_service.transport.request import not_found

_LIMITS = ("limits", "user_limits", "token_limits")
FIELDS = (plain("display_name"), plain("default_model"), texts("users"))
POLICY_FIELDS = (
    whole("markup_basis_points"),
    enums("allowed_payers", payer_pb2.Payer, "PAYER_"),
    plain("is_personal_override_enabled", "personal_overrides_enabled"),
    *map(limits, _LIMITS),
)
_OPERATORS_FIELDS = frozenset({"markup_basis_points", "allowed_payers", *_LIMITS})


class OrganizationServicer(organization_service_pb2_grpc.OrganizationServiceServicer):
    """Reads and changes organizations."""

    def __init__(self, snapshot: Callable[[], Snapshot], editor: Editor, credentials: Credentials) -> None:
        self._snapshot = snapshot
        self._editor = editor
        self._credentials = credentials

    async def GetOrganization(  # noqa: N802 # gRPC's name
        self, request: organization_service_pb2.GetOrganizationRequest, context: Any
    ) -> organization_service_pb2.GetOrganizationResponse:
        """One, as it is in force."""
        found = readable_organization(request.name, caller(), self._snapshot(), "name")
        return organization_service_pb2.GetOrganizationResponse(organization=_show(self._editor.view(), found.id))

    async def ListOrganizations(  # noqa: N802 # gRPC's name
        self, request: organization_service_pb2.ListOrganizationsRequest, context: Any
    ) -> organization_service_pb2.ListOrganizationsResponse:
        """Those that the caller may see."""
        who = caller()
        demand_reader(who)
        ids = [
            key for key in sorted(self._snapshot().organizations) if who.organization in ("", f"organizations/{key}")
        ]
        shown, following = page(ids, request.page_size, request.page_token, ["organizations"])
        draft = self._editor.view()
        return organization_service_pb2.ListOrganizationsResponse(
            organizations=[_show(draft, one) for one in shown], next_page_token=following
        )

    async def CreateOrganization(  # noqa: N802 # gRPC's name
        self, request: organization_service_pb2.CreateOrganizationRequest, context: Any
    ) -> organization_service_pb2.CreateOrganizationResponse:
        """Makes one."""
        demand_operator(caller())
        path = _path(require_id(request.organization_id, "organization_id"))
        name = f"organizations/{request.organization_id}"

        def edit(draft: Draft) -> None:
            if draft.exists(path):
                message = f"{name} is there already; update it, or choose another id."
                raise Fault(Reason.RESOURCE_EXISTS, message, metadata={"name": name})
            draft.put(path, merge(request.organization, FieldMask(), FIELDS, {}), name)

        draft = await self._editor.change(edit, path)
        shown = _show(draft, request.organization_id)
        return organization_service_pb2.CreateOrganizationResponse(organization=shown)

    async def UpdateOrganization(  # noqa: N802 # gRPC's name
        self, request: organization_service_pb2.UpdateOrganizationRequest, context: Any
    ) -> organization_service_pb2.UpdateOrganizationResponse:
        """Changes the masked fields."""
        given = request.organization
        found = changeable_organization(given.name, caller(), self._snapshot(), "organization.name")
        path = _path(found.id)

        def edit(draft: Draft) -> None:
            body = merge(given, request.update_mask, FIELDS, _require(draft, path, given.name))
            draft.put(path, body, given.name, etag=given.etag, override_file=request.override_file)
            draft.drop_strangers(path)

        draft = await self._editor.change(edit, path)
        return organization_service_pb2.UpdateOrganizationResponse(organization=_show(draft, found.id))

    async def DeleteOrganization(  # noqa: N802 # gRPC's name
        self, request: organization_service_pb2.DeleteOrganizationRequest, context: Any
    ) -> organization_service_pb2.DeleteOrganizationResponse:
        """Removes what is stored of one, and of everything in it."""
        found = named_organization(request.name, caller(), self._snapshot(), "name")
        demand_operator(caller())
        path = _path(found.id)

        def edit(draft: Draft) -> None:
            _require(draft, path, request.name)
            draft.remove(path, request.name, etag=request.etag)

        await self._editor.change(edit, path)
        return organization_service_pb2.DeleteOrganizationResponse()

    async def GetOrganizationPolicy(  # noqa: N802 # gRPC's name
        self, request: organization_service_pb2.GetOrganizationPolicyRequest, context: Any
    ) -> organization_service_pb2.GetOrganizationPolicyResponse:
        """What is allowed."""
        who, snapshot = caller(), self._snapshot()
        found = readable_organization(_owner_of(request.name), who, snapshot, "name")
        policy = await self._show_policy(self._editor.view(), found.id, who)
        return organization_service_pb2.GetOrganizationPolicyResponse(policy=policy)

    async def SetOrganizationPolicy(  # noqa: N802 # gRPC's name
        self, request: organization_service_pb2.SetOrganizationPolicyRequest, context: Any
    ) -> organization_service_pb2.SetOrganizationPolicyResponse:
        """Changes the masked fields."""
        given, who = request.policy, caller()
        found = changeable_organization(_owner_of(given.name), who, self._snapshot(), "policy.name")
        paths = set(request.update_mask.paths) or {field.name for field in POLICY_FIELDS if is_set(given, field.name)}
        if paths & {"*", *_OPERATORS_FIELDS}:
            demand_operator(who)
        path = _path(found.id)

        def edit(draft: Draft) -> None:
            body = merge(given, request.update_mask, POLICY_FIELDS, _require(draft, path, given.name))
            draft.put(path, body, given.name, etag=given.etag, override_file=request.override_file)

        draft = await self._editor.change(edit, path)
        policy = await self._show_policy(draft, found.id, who)
        return organization_service_pb2.SetOrganizationPolicyResponse(policy=policy)

    async def _show_policy(
        self, draft: Draft, organization_id: str, who: Caller
    ) -> organization_service_pb2.OrganizationPolicy:
        path = _path(organization_id)
        holdings = await self._credentials.holdings(who, who.user)
        built = organization_service_pb2.OrganizationPolicy(
            name=f"organizations/{organization_id}/policy",
            etag=draft.etag(path),
            is_user_key_enabled=holdings.user_credentials_enabled and self._snapshot().byok_enabled,
        )
        fill(built, POLICY_FIELDS, draft.find(path))
        return built


def _path(organization_id: str) -> Path:
    return ("organizations", organization_id)


def _owner_of(name: str) -> str:
    return name.removesuffix("/policy")


def _require(draft: Draft, path: Path, name: str) -> Raw:
    raw = draft.find(path)
    if not isinstance(raw, dict):
        raise not_found(name)
    return raw


def _show(draft: Draft, organization_id: str) -> organization_service_pb2.Organization:
    path = _path(organization_id)
    built = organization_service_pb2.Organization(
        name=f"organizations/{organization_id}", etag=draft.etag(path), source=source_number(draft.source(path))
    )
    fill(built, FIELDS, draft.find(path))
    return built
