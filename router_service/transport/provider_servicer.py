"""ProviderService: the deployment's providers, and an organization's own."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from keyswitch.router.v1 import provider_service_pb2, provider_service_pb2_grpc

from router_service.catalog.catalog import BillingPlan, Provider, Snapshot
from router_service.catalog.draft import Draft
from router_service.catalog.problems import Path
from router_service.catalog.provider_data import lay_over
from router_service.core.caller import Caller
from router_service.core.faults import Fault, Reason, invalid
from router_service.prober import Answer
from router_service.transport import wire_build
from router_service.transport.access import demand_administrator, demand_operator, demand_reader, require_id
from router_service.transport.editor import Editor
from router_service.transport.fields import (
    ADVANCED,
    Raw,
    advanced,
    fold_advanced,
    merge,
    plain,
    source_number,
    texts,
    unfold_advanced,
)
from router_service.transport.interceptors.identity import caller
from router_service.transport.pages import page
from router_service.transport.request import find_organization, not_found

_PLAIN = (
    plain("display_name"),
    plain("dialect"),
    plain("is_enabled"),
    plain("is_byok_supported"),
    plain("base_url"),
    plain("auth"),
    texts("allowed_private_networks"),
    plain("template"),
)
_KNOWN = tuple(field.key for field in _PLAIN)
_FIELDS = (*_PLAIN, advanced(_KNOWN))


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose entries they are: the deployment's (an empty name), or an organization's."""

    name: str = ""

    @property
    def base(self) -> Path:
        """Where its entries stand in the configuration."""
        return ("organizations", self.name.removeprefix("organizations/")) if self.name else ()

    def view(self, snapshot: Snapshot) -> Snapshot:
        """What it sees."""
        return snapshot.view_of(self.name.removeprefix("organizations/"))


def find_owner(parent: str, who: Caller, snapshot: Snapshot, field: str) -> Owner:
    """The owner of a name's parent; one of another tenant is not there."""
    if parent in ("", "deployment"):
        return Owner()
    if not parent.startswith("organizations/") or parent.count("/") != 1:
        raise invalid(field, "Write deployment or organizations/{organization}.")
    return Owner(f"organizations/{find_organization(parent, who, snapshot).id}")


def demand_owner(owner: Owner, who: Caller) -> None:
    """Refuses who may not change the owner's entries."""
    if owner.name:
        demand_administrator(who)
    else:
        demand_operator(who)


class ProviderServicer(provider_service_pb2_grpc.ProviderServiceServicer):
    """Reads and changes providers."""

    def __init__(
        self, snapshot: Callable[[], Snapshot], editor: Editor, probe: Callable[[Provider], Awaitable[Answer]]
    ) -> None:
        self._snapshot = snapshot
        self._editor = editor
        self._probe = probe

    async def ListProviders(  # noqa: N802 # gRPC's name
        self, request: provider_service_pb2.ListProvidersRequest, context: Any
    ) -> provider_service_pb2.ListProvidersResponse:
        """By name."""
        owner = find_owner(request.parent, caller(), self._snapshot(), "parent")
        every = owner.view(self._snapshot()).providers.values()
        providers = sorted((one for one in every if one.owner == owner.name), key=lambda provider: provider.id)
        arguments = ["providers", owner.name] if owner.name else []
        shown, following = page(providers, request.page_size, request.page_token, arguments)
        draft = self._editor.view()
        return provider_service_pb2.ListProvidersResponse(
            providers=[_show(draft, provider) for provider in shown], next_page_token=following
        )

    async def GetProvider(  # noqa: N802 # gRPC's name
        self, request: provider_service_pb2.GetProviderRequest, context: Any
    ) -> provider_service_pb2.GetProviderResponse:
        """One, as it is in force."""
        owner, _ = self._named(request.name, "name")
        demand_reader(caller())
        shown = self._found(owner, request.name, self._editor.view())
        return provider_service_pb2.GetProviderResponse(provider=shown)

    async def CreateProvider(  # noqa: N802 # gRPC's name
        self, request: provider_service_pb2.CreateProviderRequest, context: Any
    ) -> provider_service_pb2.CreateProviderResponse:
        """Makes one."""
        if not request.parent:
            raise invalid("parent", "Write deployment or organizations/{organization}.")
        owner = find_owner(request.parent, caller(), self._snapshot(), "parent")
        demand_owner(owner, caller())
        provider_id = require_id(request.provider_id, "provider_id")
        path = (*owner.base, "providers", provider_id)
        name = f"{owner.name}/providers/{provider_id}".lstrip("/")

        def edit(draft: Draft) -> None:
            known = self._snapshot().providers
            if draft.find(path) is not None or provider_id in known:
                message = f"There is a provider with the id {provider_id} already; update it, or choose another id."
                raise Fault(Reason.RESOURCE_EXISTS, message, metadata={"name": name})
            draft.changes[path] = unfold_advanced(merge(request.provider, FieldMask(), _FIELDS, {}))

        draft = await self._editor.change(edit, path)
        return provider_service_pb2.CreateProviderResponse(provider=self._found(owner, name, draft))

    async def UpdateProvider(  # noqa: N802 # gRPC's name
        self, request: provider_service_pb2.UpdateProviderRequest, context: Any
    ) -> provider_service_pb2.UpdateProviderResponse:
        """Changes the masked fields."""
        given = request.provider
        owner, path = self._named(given.name, "provider.name")
        demand_owner(owner, caller())

        def edit(draft: Draft) -> None:
            shown = self._found(owner, given.name, draft)
            raw: Raw = draft.find(path) or {}
            body = unfold_advanced(merge(given, request.update_mask, _FIELDS, fold_advanced(raw, _KNOWN), shown))
            draft.put(path, body, given.name, etag=given.etag, override_file=request.override_file)

        draft = await self._editor.change(edit, path)
        return provider_service_pb2.UpdateProviderResponse(provider=self._found(owner, given.name, draft))

    async def DeleteProvider(  # noqa: N802 # gRPC's name
        self, request: provider_service_pb2.DeleteProviderRequest, context: Any
    ) -> provider_service_pb2.DeleteProviderResponse:
        """Removes what is stored of one."""
        owner, path = self._named(request.name, "name")
        demand_owner(owner, caller())

        def edit(draft: Draft) -> None:
            self._found(owner, request.name, draft)
            draft.remove(path, request.name, etag=request.etag)

        await self._editor.change(edit, path)
        return provider_service_pb2.DeleteProviderResponse()

    async def ProbeProvider(  # noqa: N802 # gRPC's name
        self, request: provider_service_pb2.ProbeProviderRequest, context: Any
    ) -> provider_service_pb2.ProbeProviderResponse:
        """Asks one whether it answers."""
        owner, _ = self._named(request.name, "name")
        demand_owner(owner, caller())
        answer = await self._probe(self._provider(owner, request.name))
        built = provider_service_pb2.ProbeProviderResponse(
            is_reachable=answer.is_reachable, http_status=answer.status or 0, ended_rest_count=answer.ended
        )
        if answer.status is not None:
            built.duration.CopyFrom(wire_build.duration(answer.seconds))
        return built

    def _named(self, name: str, field: str) -> tuple[Owner, Path]:
        parent, separator, provider_id = name.rpartition("providers/")
        if not separator or not provider_id or (parent and not parent.endswith("/")):
            raise invalid(field, "Write providers/{provider} or organizations/{organization}/providers/{provider}.")
        owner = find_owner(parent.removesuffix("/"), caller(), self._snapshot(), field)
        return owner, (*owner.base, "providers", provider_id)

    def _found(self, owner: Owner, name: str, draft: Draft) -> provider_service_pb2.Provider:
        return _show(draft, self._provider(owner, name))

    def _provider(self, owner: Owner, name: str) -> Provider:
        provider = owner.view(self._snapshot()).find_provider(name)
        if provider is None or provider.owner != owner.name:
            raise not_found(name)
        return provider


def _show(draft: Draft, provider: Provider) -> provider_service_pb2.Provider:
    owner, _, provider_id = provider.name.rpartition("providers/")
    path = (*Owner(owner.removesuffix("/")).base, "providers", provider_id)
    raw: Mapping[str, Any] = draft.find(path) or {}
    merged = raw if owner else lay_over(draft.built_in.providers, {provider_id: raw})[provider_id]
    rest = fold_advanced(raw, _KNOWN).get(ADVANCED)
    built = provider_service_pb2.Provider(
        name=provider.name,
        display_name=provider.display_name,
        dialect=provider.dialect,
        origin=provider.base_url.origin,
        is_enabled=provider.is_enabled,
        is_byok_supported=provider.is_byok_supported,
        is_keyless=provider.is_keyless,
        etag=draft.etag(path),
        source=source_number(draft.source(path)),
        base_url=merged.get("base_url", ""),
        auth=provider.auth.value,
        allowed_private_networks=[str(network) for network in provider.allowed_private_networks],
        template=raw.get("template", ""),
        vendor=provider.vendor,
        plan=_plan(provider.plan) if provider.plan is not None else None,
        key_page=provider.key_page,
        has_free_key_test=bool(provider.key_test_path),
    )
    if rest:
        _FIELDS[-1].write(built, rest)
    return built


def _plan(plan: BillingPlan) -> provider_service_pb2.ProviderPlan:
    return provider_service_pb2.ProviderPlan(
        plan=plan.id,
        display_name=plan.display_name,
        warning=plan.warning,
        default_max_concurrent_requests=plan.max_concurrent_requests,
        highest_max_concurrent_requests=plan.highest_concurrent_requests,
    )
