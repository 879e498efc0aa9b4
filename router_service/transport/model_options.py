"""What can be set for a model, and which models a provider lists for a key."""

import json
from collections.abc import Callable
from typing import Any

from keyswitch.router.v1 import model_service_pb2, settings_pb2

from router_service.catalog.catalog import Model, Provider, Snapshot
from router_service.catalog.options import describe_general, describe_provider
from router_service.core.caller import Caller
from router_service.core.faults import Fault, Reason, invalid
from router_service.core.request import ReasoningEffort
from router_service.core.secret import Secret
from router_service.credentials.client import Credentials
from router_service.credentials.errors import StaleCredential
from router_service.credentials.uses import UseOutcome, UsePurpose
from router_service.dialects.registry import DIALECTS
from router_service.policy.resolve import not_served
from router_service.transport.credential_access import find_credential, untestable
from router_service.transport.interceptors.identity import caller
from router_service.transport.request import demand, not_found
from router_service.upstream.client import Upstream
from router_service.upstream.probe import MOST_MODELS, list_models

EFFORTS = {level.value: getattr(settings_pb2, f"REASONING_EFFORT_{level.name}") for level in ReasoningEffort}


def describe_options(
    request: model_service_pb2.DescribeOptionsRequest, snapshot: Snapshot
) -> model_service_pb2.DescribeOptionsResponse:
    """The schemas of a provider, narrowed to a model where one is named."""
    provider = snapshot.providers.get(request.provider.removeprefix("providers/"))
    if provider is None or provider.name != request.provider:
        raise not_found(request.provider)
    quirks, dialect = provider.quirks, provider.dialect
    if request.model:
        model = snapshot.find_model(request.model)
        endpoint = model and next((item for item in model.endpoints if item.provider == provider.id), None)
        if not endpoint:
            raise not_served(request.model, provider, snapshot)
        quirks, dialect = endpoint.quirks, endpoint.dialect_at(provider)
    return model_service_pb2.DescribeOptionsResponse(
        general_schema_json=json.dumps(describe_general()),
        provider_options_schema_json=json.dumps(describe_provider(dialect, quirks)),
        namespace=quirks.options_family or provider.name,
        efforts=[EFFORTS[level] for level in quirks.efforts],
    )


class Discovery:
    """Asks providers for their lists of models, each with the key that a caller may test."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        credentials: Credentials,
        upstream: Upstream,
        *,
        clock: Callable[[], float],
        new_id: Callable[[], str],
    ) -> None:
        self._snapshot = snapshot
        self._credentials = credentials
        self._upstream = upstream
        self._clock = clock
        self._new_id = new_id

    async def discover(self, request: Any) -> model_service_pb2.DiscoverUpstreamModelsResponse:
        """The list. A provider's refusal is an error of the call."""
        who, snapshot = caller(), self._snapshot()
        demand(who, "test_credentials", "operator", "admin", "member")
        if request.credential_version:
            provider, found = await self._ask_with_key(request.credential_version, who, snapshot)
        else:
            provider = _keyless(request.provider, who, snapshot)
            found = await list_models(self._upstream, provider, DIALECTS[provider.dialect], None, self._clock())
        if isinstance(found, Fault):
            found.metadata.setdefault("provider", provider.name)
            raise found
        return _response(found, provider, snapshot)

    async def _ask_with_key(
        self, version: str, who: Caller, snapshot: Snapshot
    ) -> tuple[Provider, tuple[str, ...] | Fault]:
        _, provider = await find_credential(self._credentials, version, who, snapshot)
        request_id, started = self._new_id(), self._clock()
        try:
            lease = await self._credentials.lease_version(
                version,
                origin=provider.base_url.origin,
                caller=who,
                principal=who.principal,
                request_id=request_id,
                purpose=UsePurpose.DISCOVERY,
            )
        except StaleCredential as stale:
            raise untestable(stale, version) from None
        secret: Secret | None = lease.secret
        found = await list_models(self._upstream, provider, DIALECTS[provider.dialect], secret, started)
        is_rejected = isinstance(found, Fault) and found.reason is Reason.UPSTREAM_CREDENTIAL_REJECTED
        failed = UseOutcome.REJECTED if is_rejected else UseOutcome.FAILED
        self._credentials.uses.add(
            lease_id=lease.id,
            request_id=request_id,
            attempt=1,
            principal=who.principal,
            purpose=UsePurpose.DISCOVERY,
            outcome=failed if isinstance(found, Fault) else UseOutcome.SUCCEEDED,
            use_time=started,
        )
        return provider, found


def _keyless(name: str, who: Caller, snapshot: Snapshot) -> Provider:
    if not name:
        raise invalid("credential_version", "Name a version of a key, or a provider that needs none.")
    demand(who, "test_credentials", "operator")
    provider = snapshot.providers.get(name.removeprefix("providers/"))
    if provider is None or provider.name != name:
        raise not_found(name)
    if not provider.is_keyless:
        raise invalid("credential_version", "This provider needs a key: name a version of one.")
    return provider


def _response(
    found: tuple[str, ...], provider: Provider, snapshot: Snapshot
) -> model_service_pb2.DiscoverUpstreamModelsResponse:
    known = catalogued(provider, snapshot)
    return model_service_pb2.DiscoverUpstreamModelsResponse(
        models=[
            model_service_pb2.UpstreamModel(upstream_model_id=name, model=known.get(name, ""))
            for name in found[:MOST_MODELS]
        ],
        is_truncated=len(found) > MOST_MODELS,
    )


def catalogued(provider: Provider, snapshot: Snapshot) -> dict[str, str]:
    """Catalog ids by a provider's own names."""
    return {
        endpoint.upstream_model: model.id
        for model in snapshot.models.values()
        for endpoint in model.endpoints
        if endpoint.provider == provider.id
    }


def build_defaults(model: Model) -> model_service_pb2.ModelDefaults | None:
    """What a model's entry is tuned to; None where nothing is set."""
    settings = model.defaults
    built = model_service_pb2.ModelDefaults(max_output_tokens=settings.max_output_tokens)
    sampling = settings.sampling
    for name in ("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty", "seed"):
        value = getattr(sampling, name)
        if value is not None:
            setattr(built.sampling, name, value)
    built.sampling.stop_sequences.extend(sampling.stop_sequences)
    if not built.sampling.ByteSize():
        built.ClearField("sampling")
    reasoning = settings.reasoning
    if reasoning is not None:
        built.reasoning.SetInParent()
        if reasoning.effort is not None:
            built.reasoning.effort = EFFORTS[reasoning.effort.value]
        if reasoning.budget_tokens is not None:
            built.reasoning.budget_tokens = reasoning.budget_tokens
        if reasoning.include_thoughts is not None:
            built.reasoning.include_thoughts = reasoning.include_thoughts
    return built if built.ByteSize() else None
