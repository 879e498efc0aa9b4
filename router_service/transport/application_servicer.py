"""ApplicationService: programs that call, and the keys that they are bound to."""

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from keyswitch.router.v1 import (
    application_service_pb2,
    application_service_pb2_grpc,
    configuration_pb2,
    payer_pb2,
    route_policy_pb2,
)

from router_service.catalog.catalog import Snapshot
from router_service.catalog.draft import Draft
from router_service.catalog.problems import Path
from router_service.core.caller import Caller
from router_service.core.faults import Fault, Reason, invalid
from router_service.credentials.client import Credentials
from router_service.transport.access import changeable_organization, readable_organization, require_id, split_name
from router_service.transport.editor import Editor
from router_service.transport.fields import (
    Field,
    Raw,
    duration,
    enum_text,
    enums,
    fill,
    limits,
    merge,
    payer_text,
    plain,
    source_number,
    texts,
)
from router_service.transport.interceptors.identity import caller
from router_service.transport.names import provider_id, provider_name
from router_service.transport.pages import page
from router_service.transport.request import not_found
from router_service.transport.wire_settings import settings_proto, settings_raw


def _read_bindings(message: Any) -> Raw:
    bindings: Raw = {}
    for index, binding in enumerate(message.bindings):
        payer = payer_text(binding.payer, f"bindings[{index}].payer")
        if payer in bindings:
            raise invalid(f"bindings[{index}].payer", "A payer has one binding.")
        bindings[payer] = binding.credential
    return bindings


def _write_bindings(message: Any, raw: Mapping[str, str]) -> None:
    for payer, credential in sorted(raw.items()):
        message.bindings.add(payer=payer_pb2.Payer.Value(f"PAYER_{payer}"), credential=credential)


def _route_raw(route: route_policy_pb2.ModelRoute, field: str, organization: str) -> Raw:
    raw: Raw = {"model": route.model}
    if route.provider:
        raw["provider"] = provider_id(route.provider, f"{field}.provider", organization)
    if route.credential:
        raw["credential"] = route.credential
    if route.HasField("settings"):
        raw["settings"] = settings_raw(route.settings, f"{field}.settings")
    if route.HasField("weight"):
        raw["weight"] = route.weight
    return raw | ({"on_context_too_long": True} if route.on_context_too_long else {})


def _read_contexts(message: Any) -> Raw:
    return {
        context.context: [
            enum_text(configuration_pb2.OverrideLayer, "OVERRIDE_LAYER_", layer, f"contexts[{index}].layers")
            for layer in context.layers
        ]
        for index, context in enumerate(message.contexts)
    }


def _write_contexts(message: Any, raw: Mapping[str, list[str]]) -> None:
    for context, layers in sorted(raw.items()):
        numbers = [configuration_pb2.OverrideLayer.Value(f"OVERRIDE_LAYER_{layer}") for layer in layers]
        message.contexts.add(context=context, layers=numbers)


def application_fields(view: Snapshot, organization: str) -> tuple[Field, ...]:
    """The fields of an application; what the file calls a provider depends on who looks."""

    def name(key: str) -> str:
        return provider_name(key, view, organization)

    def write_routes(message: Any, raw: list[Raw]) -> None:
        for route in raw:
            built = message.fallbacks.add(
                model=route["model"],
                provider=name(route["provider"]) if "provider" in route else "",
                credential=route.get("credential", ""),
                on_context_too_long=route.get("on_context_too_long", False),
                weight=int(route["weight"]) if "weight" in route else None,
            )
            if "settings" in route:
                built.settings.CopyFrom(settings_proto(route["settings"]))

    return (
        plain("display_name"),
        enums("payers", payer_pb2.Payer, "PAYER_"),
        enums("payer_failover_on", payer_pb2.PayerFailoverCause, "PAYER_FAILOVER_CAUSE_"),
        plain("default_model"),
        texts("allowed_models"),
        Field(
            "native_provider",
            "native_provider",
            lambda m: provider_id(m.native_provider, "native_provider", organization),
            lambda m, value: setattr(m, "native_provider", name(value)),
        ),
        plain("is_byok_supported", "byok_supported"),
        Field("bindings", "bindings", _read_bindings, _write_bindings),
        Field(
            "provider_order",
            "provider_order",
            lambda m: [
                provider_id(one, f"provider_order[{i}]", organization) for i, one in enumerate(m.provider_order)
            ],
            lambda m, value: m.provider_order.extend(map(name, value)),
        ),
        Field(
            "fallbacks",
            "fallbacks",
            lambda m: [_route_raw(one, f"fallbacks[{i}]", organization) for i, one in enumerate(m.fallbacks)],
            write_routes,
        ),
        Field("contexts", "contexts", _read_contexts, _write_contexts),
        plain("is_uncatalogued_allowed", "allows_uncatalogued"),
        limits("limits"),
        duration("max_queue_wait", "max_queue_wait_seconds"),
    )


class ApplicationServicer(application_service_pb2_grpc.ApplicationServiceServicer):
    """Reads and changes applications."""

    def __init__(self, snapshot: Callable[[], Snapshot], editor: Editor, credentials: Credentials) -> None:
        self._snapshot = snapshot
        self._editor = editor
        self._credentials = credentials

    async def GetApplication(  # noqa: N802 # gRPC's name
        self, request: application_service_pb2.GetApplicationRequest, context: Any
    ) -> application_service_pb2.GetApplicationResponse:
        """One, as it is in force."""
        parent, application_id = split_name(request.name, "applications", "name")
        readable_organization(parent, caller(), self._snapshot(), "name")
        draft = self._editor.view()
        _require(draft, _path(parent, application_id), request.name)
        return application_service_pb2.GetApplicationResponse(application=self._show(draft, parent, application_id))

    async def ListApplications(  # noqa: N802 # gRPC's name
        self, request: application_service_pb2.ListApplicationsRequest, context: Any
    ) -> application_service_pb2.ListApplicationsResponse:
        """An organization's."""
        readable_organization(request.parent, caller(), self._snapshot(), "parent")
        draft = self._editor.view()
        ids = draft.children(_path(request.parent, "")[:-1])
        shown, following = page(ids, request.page_size, request.page_token, ["applications", request.parent])
        return application_service_pb2.ListApplicationsResponse(
            applications=[self._show(draft, request.parent, one) for one in shown], next_page_token=following
        )

    async def CreateApplication(  # noqa: N802 # gRPC's name
        self, request: application_service_pb2.CreateApplicationRequest, context: Any
    ) -> application_service_pb2.CreateApplicationResponse:
        """Makes one."""
        changeable_organization(request.parent, caller(), self._snapshot(), "parent")
        path = _path(request.parent, require_id(request.application_id, "application_id"))
        name = f"{request.parent}/applications/{request.application_id}"

        def edit(draft: Draft) -> None:
            if draft.exists(path):
                message = f"{name} is there already; update it, or choose another id."
                raise Fault(Reason.RESOURCE_EXISTS, message, metadata={"name": name})
            body = merge(request.application, FieldMask(), self._fields(request.parent), {})
            draft.put(path, body, name)

        draft = await self._editor.change(edit, path)
        shown = self._show(draft, request.parent, request.application_id)
        return application_service_pb2.CreateApplicationResponse(application=shown)

    async def UpdateApplication(  # noqa: N802 # gRPC's name
        self, request: application_service_pb2.UpdateApplicationRequest, context: Any
    ) -> application_service_pb2.UpdateApplicationResponse:
        """Changes the masked fields."""
        given = request.application

        def change(raw: Raw, parent: str) -> Raw:
            return merge(given, request.update_mask, self._fields(parent), raw, self._shown(raw, parent))

        shown = await self._change(given.name, "application.name", given.etag, request.override_file, change)
        return application_service_pb2.UpdateApplicationResponse(application=shown)

    async def DeleteApplication(  # noqa: N802 # gRPC's name
        self, request: application_service_pb2.DeleteApplicationRequest, context: Any
    ) -> application_service_pb2.DeleteApplicationResponse:
        """Removes what is stored of one."""
        parent, application_id = split_name(request.name, "applications", "name")
        changeable_organization(parent, caller(), self._snapshot(), "name")
        path = _path(parent, application_id)

        def edit(draft: Draft) -> None:
            _require(draft, path, request.name)
            draft.remove(path, request.name, etag=request.etag)

        await self._editor.change(edit, path)
        return application_service_pb2.DeleteApplicationResponse()

    async def BindCredential(  # noqa: N802 # gRPC's name
        self, request: application_service_pb2.BindCredentialRequest, context: Any
    ) -> application_service_pb2.BindCredentialResponse:
        """Names the credential of a payer."""
        payer = payer_text(request.binding.payer, "binding.payer")
        parent, _ = split_name(request.application, "applications", "application")
        changeable_organization(parent, caller(), self._snapshot(), "application")
        await self._require_credential(request.binding.credential, caller(), parent)

        def change(raw: Raw, parent: str) -> Raw:
            return {**raw, "bindings": {**raw.get("bindings", {}), payer: request.binding.credential}}

        shown = await self._change(request.application, "application", request.etag, request.override_file, change)
        return application_service_pb2.BindCredentialResponse(application=shown)

    async def UnbindCredential(  # noqa: N802 # gRPC's name
        self, request: application_service_pb2.UnbindCredentialRequest, context: Any
    ) -> application_service_pb2.UnbindCredentialResponse:
        """Takes a binding back."""
        payer = payer_text(request.payer, "payer")

        def change(raw: Raw, parent: str) -> Raw:
            bindings = dict(raw.get("bindings", {}))
            if bindings.pop(payer, None) is None:
                raise not_found(f"{request.application} binding of {payer}")
            return {**raw, "bindings": bindings}

        shown = await self._change(request.application, "application", request.etag, request.override_file, change)
        return application_service_pb2.UnbindCredentialResponse(application=shown)

    async def _require_credential(self, name: str, who: Caller, parent: str) -> None:
        """A binding to a key that is not there would stop the application. Another tenant's keys are not looked at."""
        owner = name.partition("/credentials/")[0]
        if owner not in ("deployment", parent) or (owner == parent and who.organization != parent):
            return  # whose it may be is checked with the rest of the configuration
        held = await self._credentials.list_owner(owner, who)
        if all(item.name != name for item in held):
            raise not_found(name)

    async def _change(
        self, name: str, field: str, etag: str, override_file: bool, change: Callable[[Raw, str], Raw]
    ) -> application_service_pb2.Application:
        parent, application_id = split_name(name, "applications", field)
        changeable_organization(parent, caller(), self._snapshot(), field)
        path = _path(parent, application_id)

        def edit(draft: Draft) -> None:
            raw = _require(draft, path, name)
            draft.put(path, change(raw, parent), name, etag=etag, override_file=override_file)

        draft = await self._editor.change(edit, path)
        return self._show(draft, parent, application_id)

    def _fields(self, parent: str) -> tuple[Field, ...]:
        return application_fields(self._snapshot().view_of(parent.removeprefix("organizations/")), parent)

    def _show(self, draft: Draft, parent: str, application_id: str) -> application_service_pb2.Application:
        path = _path(parent, application_id)
        built = self._shown(draft.find(path), parent)
        built.name = f"{parent}/applications/{application_id}"
        built.etag, built.source = draft.etag(path), source_number(draft.source(path))
        return built

    def _shown(self, raw: Mapping[str, Any], parent: str) -> application_service_pb2.Application:
        built = application_service_pb2.Application()
        fill(built, self._fields(parent), raw)
        return built


def _path(parent: str, application_id: str) -> Path:
    return ("organizations", parent.removeprefix("organizations/"), "applications", application_id)


def _require(draft: Draft, path: Path, name: str) -> Raw:
    raw = draft.find(path)
    if not isinstance(raw, dict):
        raise not_found(name)
    return raw
