"""ModelService and ProviderService: what can be used, and over which provider."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from keyswitch.router.v1 import (
    model_service_pb2,
    model_service_pb2_grpc,
    provider_service_pb2,
    provider_service_pb2_grpc,
)

from router_service.catalog.catalog import Application, BillingPlan, Organization, Snapshot
from router_service.core.caller import Holdings
from router_service.core.faults import Fault
from router_service.core.money import Price
from router_service.core.request import Purpose
from router_service.credentials.client import Credentials
from router_service.policy.call import Call, Candidate, Needs
from router_service.policy.plan import plan
from router_service.transport import wire_build
from router_service.transport.interceptors.identity import caller
from router_service.transport.model_options import Discovery, build_defaults, describe_options
from router_service.transport.pages import page
from router_service.transport.request import acting_user, demand, find_application
from router_service.transport.wire_parse import known

_PURPOSES: Mapping[int, Purpose] = {
    model_service_pb2.MODEL_PURPOSE_UNSPECIFIED: Purpose.COMPLETION,
    model_service_pb2.MODEL_PURPOSE_COMPLETION: Purpose.COMPLETION,
    model_service_pb2.MODEL_PURPOSE_EMBEDDING: Purpose.EMBEDDING,
}

NOTHING_USABLE = (
    "You can use no model yet: save a key for a provider (keyswitch keys add), or ask an administrator of your "
    "organization for one, or the operator for credits."
)


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Lists the models that a caller can use now."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        credentials: Credentials,
        clock: Callable[[], float],
        discovery: Discovery,
    ) -> None:
        self._snapshot = snapshot
        self._credentials = credentials
        self._clock = clock
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
        holdings = await self._credentials.holdings(who, acting_user("", who, organization))
        needs = Needs(purpose=known(_PURPOSES, request.purpose, "purpose"))
        usable = list(usable_models(snapshot, organization, application, holdings, self._clock(), needs))
        place = {provider: number for number, provider in enumerate(snapshot.providers)}
        usable.sort(key=lambda found: place[found.provider.id])
        chosen = _preselected(usable, request.last_used_model, snapshot, organization, application)
        shown, following = page(
            usable, request.page_size, request.page_token, [request.application, str(request.purpose)]
        )
        return model_service_pb2.ListModelsResponse(
            models=[_model(found, is_preselected=found.model.id == chosen) for found in shown],
            next_page_token=following,
            message="" if usable else NOTHING_USABLE,
        )


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
        try:
            made = plan(Call(model.id, organization, application, needs=needs), snapshot, holdings, now)
        except Fault:
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
    return model_service_pb2.Model(
        model=model.id,
        display_name=model.display_name or model.id,
        aliases=model.aliases,
        provider=found.provider.name,
        payer=wire_build.payer(found.payer),
        context_limit_tokens=model.context_limit_tokens,
        max_output_tokens=model.max_output_tokens,
        price=_price(model.price) if model.price is not None else None,
        is_preselected=is_preselected,
        compression_threshold_percent=model.compression_threshold_percent,
        capabilities=[
            model_service_pb2.ModelCapability.Value(f"MODEL_CAPABILITY_{name.upper()}") for name in model.capabilities
        ],
        defaults=build_defaults(model),
    )


def _price(price: Price) -> model_service_pb2.ModelPrice:
    return model_service_pb2.ModelPrice(
        input_usd_nanos_per_million_tokens=price.input_nanos,
        output_usd_nanos_per_million_tokens=price.output_nanos,
        cache_read_usd_nanos_per_million_tokens=price.cache_read_nanos,
        cache_write_usd_nanos_per_million_tokens=price.cache_write_five_minute_nanos,
    )


class ProviderServicer(provider_service_pb2_grpc.ProviderServiceServicer):
    """Lists the deployment's providers."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    async def ListProviders(  # noqa: N802 # gRPC's name
        self, request: provider_service_pb2.ListProvidersRequest, context: Any
    ) -> provider_service_pb2.ListProvidersResponse:
        """By name."""
        providers = sorted(self._snapshot().providers.values(), key=lambda provider: provider.id)
        shown, following = page(providers, request.page_size, request.page_token, [])
        return provider_service_pb2.ListProvidersResponse(
            providers=[
                provider_service_pb2.Provider(
                    name=provider.name,
                    display_name=provider.display_name or provider.id,
                    dialect=provider.dialect,
                    origin=provider.base_url.origin,
                    is_enabled=provider.is_enabled,
                    is_byok_supported=provider.is_byok_supported,
                    is_keyless=provider.is_keyless,
                    vendor=provider.vendor,
                    plan=_plan(provider.plan) if provider.plan is not None else None,
                    key_page=provider.key_page,
                    has_free_key_test=bool(provider.key_test_path),
                )
                for provider in shown
            ],
            next_page_token=following,
        )


def _plan(plan: BillingPlan) -> provider_service_pb2.ProviderPlan:
    return provider_service_pb2.ProviderPlan(
        plan=plan.id,
        display_name=plan.display_name,
        warning=plan.warning,
        default_max_concurrent_requests=plan.max_concurrent_requests,
        highest_max_concurrent_requests=plan.highest_concurrent_requests,
    )
