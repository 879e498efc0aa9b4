"""ModelService: what can be used now, and the catalog that it comes from."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from keyswitch.router.v1 import (
    model_service_pb2,
    model_service_pb2_grpc,
)

from router_service.catalog.catalog import FREE, Application, Organization, Snapshot
from router_service.core.caller import Caller, Holdings
from router_service.core.faults import Fault
from router_service.core.request import Purpose
from router_service.core.resolution import Payer
from router_service.credentials.client import Credentials
from router_service.policy.call import Call, Candidate, Needs, Plan
from router_service.policy.plan import plan
from router_service.transport import wire_build
from router_service.transport.editor import Editor
from router_service.transport.interceptors.identity import caller
from router_service.transport.model_entries import ModelEntries
from router_service.transport.model_options import Discovery, build_defaults, describe_options
from router_service.transport.pages import page
from router_service.transport.request import acting_user, demand, find_application
from router_service.transport.wire_parse import known
from router_service.transport.wire_prices import price_proto

_PURPOSES: Mapping[int, Purpose] = {
    model_service_pb2.MODEL_PURPOSE_UNSPECIFIED: Purpose.COMPLETION,
    model_service_pb2.MODEL_PURPOSE_COMPLETION: Purpose.COMPLETION,
    model_service_pb2.MODEL_PURPOSE_EMBEDDING: Purpose.EMBEDDING,
}


class ModelServicer(ModelEntries, model_service_pb2_grpc.ModelServiceServicer):
    """Lists the models that a caller can use now, and keeps the catalog."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        editor: Editor,
        credentials: Credentials,
        clock: Callable[[], float],
        discovery: Discovery,
    ) -> None:
        super().__init__(snapshot, editor, clock)
        self._credentials = credentials
        self._discovery = discovery

    async def DescribeOptions(  # noqa: N802 # gRPC's name
        self, request: model_service_pb2.DescribeOptionsRequest, context: Any
    ) -> model_service_pb2.DescribeOptionsResponse:
        """From data, for a form."""
        caller()
        return describe_options(request, self._snapshot())

    async def DiscoverUpstreamModels(  # noqa: N802 # gRPC's name
        self, request: model_service_pb2.DiscoverUpstreamModelsRequest, context: Any
    ) -> model_service_pb2.DiscoverUpstreamModelsResponse:
        """What the provider itself says."""
        return await self._discovery.discover(request)

    async def ListModels(  # noqa: N802 # gRPC's name
        self, request: model_service_pb2.ListModelsRequest, context: Any
    ) -> model_service_pb2.ListModelsResponse:
        """Each with the provider and the payer that would serve."""
        who, snapshot = caller(), self._snapshot()
        demand(who, "complete", "operator", "admin", "member")
        organization, application = find_application(request.application, who, snapshot)
        snapshot = snapshot.view_of(organization.id)
        holdings = await self._credentials.holdings(who, acting_user("", who, organization))
        needs, now = Needs(purpose=known(_PURPOSES, request.purpose, "purpose")), self._clock()
        usable = list(usable_models(snapshot, organization, application, holdings, now, needs))
        place = {provider: number for number, provider in enumerate(snapshot.providers)}
        usable.sort(key=lambda found: place[found.provider.id])
        pooled = _plan(Call(FREE, organization, application), snapshot, holdings, now)
        chosen = _preselected(usable, request.last_used_model, snapshot, organization, application)
        shown, following = page(
            usable, request.page_size, request.page_token, [request.application, str(request.purpose)]
        )
        return model_service_pb2.ListModelsResponse(
            models=[_model(found, is_preselected=found.model.id == chosen) for found in shown],
            next_page_token=following,
            message="" if usable else advise(who, snapshot, application),
            is_free_pool_usable=bool(pooled and pooled.candidates),
        )


def _plan(call: Call, snapshot: Snapshot, holdings: Holdings, now: float) -> Plan | None:
    try:
        return plan(call, snapshot, holdings, now)
    except Fault:
        return None


def advise(who: Caller, snapshot: Snapshot, application: Application) -> str:
    """What to do where there is no model, and who can do it."""
    if not any(model.is_enabled and application.allows(model.id) for model in snapshot.models.values()):
        return f"{application.name} may use no model: an administrator of your organization can allow some."
    ways = []
    if application.byok_supported and Payer.USER_KEY in application.payers and snapshot.byok_enabled and who.user:
        ways.append("save a key of your own (keyswitch keys add)")
    if application.byok_supported and Payer.ORGANIZATION_KEY in application.payers:
        ways.append("have an administrator of your organization save one for it")
    if any(not payer.is_own_key for payer in application.payers):
        ways.append("ask the operator for a key that serves you")
    if not ways:
        ways.append("have an administrator of your organization add a payer to the application")
    return f"You can use no model yet: {', or '.join(ways)}."


def usable_models(
    snapshot: Snapshot,
    organization: Organization,
    application: Application,
    holdings: Holdings,
    now: float,
    needs: Needs,
) -> Iterator[Candidate]:
    """For each model the candidate that a call would be served by."""
    for model in snapshot.models.values():
        made = _plan(Call(model.id, organization, application, needs=needs), snapshot, holdings, now)
        if made is None:
            continue
        first = next((found for found in made.candidates if found.model is model), None)
        if first is not None:
            yield first


def _preselected(
    usable: list[Candidate], last_used: str, snapshot: Snapshot, organization: Organization, application: Application
) -> str:
    ids = [found.model.id for found in usable]
    wanted = (last_used, application.default_model, organization.default_model, snapshot.default_model)
    for reference in wanted:
        model = snapshot.find_model(reference) if reference else None
        if model is not None and model.id in ids:
            return model.id
    return ids[0] if ids else ""


def _model(found: Candidate, *, is_preselected: bool) -> model_service_pb2.Model:
    model = found.model
    price = model.price_at(found.provider.id)
    return model_service_pb2.Model(
        model=model.id,
        display_name=model.display_name or model.id,
        aliases=model.aliases,
        provider=found.provider.name,
        payer=wire_build.payer(found.payer),
        context_limit_tokens=model.context_limit_tokens,
        max_output_tokens=model.max_output_tokens,
        price=price_proto(price) if price is not None else None,
        is_preselected=is_preselected,
        compression_threshold_percent=model.compression_threshold_percent,
        capabilities=[
            model_service_pb2.ModelCapability.Value(f"MODEL_CAPABILITY_{name.upper()}") for name in model.capabilities
        ],
        defaults=build_defaults(model),
    )
