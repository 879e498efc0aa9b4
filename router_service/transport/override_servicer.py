"""OverrideService: models that take the place of a call's own in a context."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keyswitch.router.v1 import override_service_pb2, override_service_pb2_grpc

from router_service.catalog.catalog import FREE, Application, Organization, Snapshot
from router_service.catalog.draft import Draft
from router_service.catalog.problems import Path
from router_service.core.caller import Caller
from router_service.core.faults import Fault, Reason, invalid
from router_service.core.resolution import OverrideLayer
from router_service.policy.call import Call
from router_service.policy.resolve import named_model
from router_service.transport.access import demand_administrator, demand_reader, named_organization, split_name
from router_service.transport.editor import Editor
from router_service.transport.fields import source_number
from router_service.transport.interceptors.identity import caller
from router_service.transport.pages import page
from router_service.transport.request import NO_APPLICATION, demand, not_found

_CONTEXT = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_REFERENCE_MOST = 128


@dataclass(frozen=True, slots=True)
class _Parent:
    """Whose overrides they are: an organization's, an application's or a user's."""

    name: str
    organization: Organization
    application: Application | None = None
    user: str = ""  # an id

    @property
    def path(self) -> Path:
        """Where they stand in the configuration."""
        base: Path = ("organizations", self.organization.id)
        if self.user:
            return (*base, "personal_overrides", self.user)
        if self.application is not None:
            return (*base, "applications", self.application.name.rpartition("/")[2], "overrides")
        return (*base, "overrides")


class OverrideServicer(override_service_pb2_grpc.OverrideServiceServicer):
    """Reads and changes overrides."""

    def __init__(self, snapshot: Callable[[], Snapshot], editor: Editor) -> None:
        self._snapshot = snapshot
        self._editor = editor

    async def GetOverride(  # noqa: N802 # gRPC's name
        self, request: override_service_pb2.GetOverrideRequest, context: Any
    ) -> override_service_pb2.GetOverrideResponse:
        """One, as it is in force."""
        parent, wanted = self._named(request.name, "name")
        _demand_read(caller(), parent)
        draft = self._editor.view()
        _require(draft, (*parent.path, wanted), request.name)
        return override_service_pb2.GetOverrideResponse(override=_show(draft, parent, wanted))

    async def ListOverrides(  # noqa: N802 # gRPC's name
        self, request: override_service_pb2.ListOverridesRequest, context: Any
    ) -> override_service_pb2.ListOverridesResponse:
        """Those of a parent."""
        parent = self._parent(request.parent, "parent")
        _demand_read(caller(), parent)
        draft = self._editor.view()
        contexts = draft.children(parent.path)
        shown, following = page(contexts, request.page_size, request.page_token, ["overrides", request.parent])
        return override_service_pb2.ListOverridesResponse(
            overrides=[_show(draft, parent, one) for one in shown],
            next_page_token=following,
            is_personal_enabled=parent.organization.personal_overrides_enabled,
        )

    async def SetOverride(  # noqa: N802 # gRPC's name
        self, request: override_service_pb2.SetOverrideRequest, context: Any
    ) -> override_service_pb2.SetOverrideResponse:
        """Makes or changes one."""
        given = request.override
        parent, wanted = self._named(given.name, "override.name")
        _demand_change(caller(), parent)
        _check_context(parent, wanted)
        self._check_model(parent, given.model)
        path = (*parent.path, wanted)

        def edit(draft: Draft) -> None:
            if draft.find(path) is None:
                draft.check_etag(path, given.name, given.etag)
                draft.changes[path] = given.model
            else:
                draft.put(path, given.model, given.name, etag=given.etag, override_file=request.override_file)

        draft = await self._editor.change(edit, path)
        return override_service_pb2.SetOverrideResponse(override=_show(draft, parent, wanted))

    async def ClearOverride(  # noqa: N802 # gRPC's name
        self, request: override_service_pb2.ClearOverrideRequest, context: Any
    ) -> override_service_pb2.ClearOverrideResponse:
        """Removes one."""
        parent, wanted = self._named(request.name, "name")
        _demand_change(caller(), parent)
        path = (*parent.path, wanted)

        def edit(draft: Draft) -> None:
            _require(draft, path, request.name)
            draft.remove(path, request.name, etag=request.etag)

        await self._editor.change(edit, path)
        return override_service_pb2.ClearOverrideResponse()

    def _named(self, name: str, field: str) -> tuple[_Parent, str]:
        parent, wanted = split_name(name, "overrides", field)
        if not _CONTEXT.fullmatch(wanted):
            raise invalid(field, "A context matches [a-z][a-z0-9_-]{0,62}.")
        return self._parent(parent, field), wanted

    def _parent(self, name: str, field: str) -> _Parent:
        owner, _, rest = name.partition("/")
        organization_id, _, below = rest.partition("/")
        organization = named_organization(f"{owner}/{organization_id}", caller(), self._snapshot(), field)
        kind, _, found = below.partition("/")
        match kind:
            case "":
                return _Parent(name, organization)
            case "applications":
                application = organization.applications.get(found)
                if application is None:
                    raise not_found(name)
                return _Parent(name, organization, application=application)
            case "users":
                who = caller()
                may_see = who.user == name or who.has_role("admin", "operator") or _serves_users(who)
                if found not in organization.users or not may_see:
                    raise not_found(name)
                return _Parent(name, organization, user=found)
            case _:
                raise invalid(field, "Overrides belong to an organization, an application or a user.")

    def _check_model(self, parent: _Parent, model: str) -> None:
        """A typo is told now; what goes away later is passed over."""
        view = self._snapshot().view_of(parent.organization.id)
        if not model or len(model) > _REFERENCE_MOST:
            raise invalid("override.model", f"A model reference, at most {_REFERENCE_MOST} characters.")
        if model == FREE and view.free_models:
            return
        application = parent.application or NO_APPLICATION
        named_model(Call(model, parent.organization, application), view, model)


def _serves_users(who: Caller) -> bool:
    return "act_on_behalf" in who.scopes


def _demand_read(who: Caller, parent: _Parent) -> None:
    if not (parent.user and _serves_users(who)):
        demand_reader(who)


def _demand_change(who: Caller, parent: _Parent) -> None:
    is_own = parent.user and (who.user == parent.name or _serves_users(who)) and not who.has_role("admin", "operator")
    if not is_own:
        demand_administrator(who)
        return
    if not parent.organization.personal_overrides_enabled:
        message = "Your organization does not let its users override models; an administrator can switch that on."
        raise Fault(Reason.CALLER_NOT_ALLOWED, message, metadata={"missingRole": "admin"})
    demand(who, "act_on_behalf" if _serves_users(who) else "complete", "member")


def _check_context(parent: _Parent, wanted: str) -> None:
    """Refuses an override that no call would heed."""
    needed = OverrideLayer.USER if parent.user else OverrideLayer.ADMINISTRATOR
    within = (
        [parent.application] if parent.application else [NO_APPLICATION, *parent.organization.applications.values()]
    )
    if not any(needed in application.layers_of(wanted) for application in within):
        who = "users" if parent.user else "administrators"
        raise invalid("override.name", f"No application lets {who} override the context {wanted}.")


def _require(draft: Draft, path: Path, name: str) -> None:
    if draft.find(path) is None:
        raise not_found(name)


def _show(draft: Draft, parent: _Parent, wanted: str) -> override_service_pb2.Override:
    path = (*parent.path, wanted)
    return override_service_pb2.Override(
        name=f"{parent.name}/overrides/{wanted}",
        model=draft.find(path) or "",
        etag=draft.etag(path),
        source=source_number(draft.source(path)),
    )
