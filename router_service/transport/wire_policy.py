"""A call's route policy: protobuf to values."""

from collections.abc import Mapping

from keyswitch.router.v1 import payer_pb2, route_policy_pb2

from router_service.catalog.catalog import Route, Snapshot
from router_service.core.faults import invalid
from router_service.core.request import Settings
from router_service.core.resolution import Payer, PayerFailoverCause
from router_service.policy.call import RoutePolicy
from router_service.policy.settings import parse_options
from router_service.transport.fields import duration_seconds
from router_service.transport.wire_parse import known, parse_settings

MAX_FALLBACKS = 8
MAX_WEIGHT = 1000

PAYERS: Mapping[int, Payer] = {
    payer_pb2.PAYER_USER_KEY: Payer.USER_KEY,
    payer_pb2.PAYER_ORGANIZATION_KEY: Payer.ORGANIZATION_KEY,
    payer_pb2.PAYER_SHARED_KEY: Payer.SHARED_KEY,
    payer_pb2.PAYER_CREDITS: Payer.CREDITS,
    payer_pb2.PAYER_FREE: Payer.FREE,
}
CAUSES: Mapping[int, PayerFailoverCause] = {
    payer_pb2.PAYER_FAILOVER_CAUSE_RATE_LIMITED: PayerFailoverCause.RATE_LIMITED,
    payer_pb2.PAYER_FAILOVER_CAUSE_BALANCE_EXHAUSTED: PayerFailoverCause.BALANCE_EXHAUSTED,
    payer_pb2.PAYER_FAILOVER_CAUSE_CREDENTIAL_REJECTED: PayerFailoverCause.CREDENTIAL_REJECTED,
    payer_pb2.PAYER_FAILOVER_CAUSE_UNAVAILABLE: PayerFailoverCause.UNAVAILABLE,
}


def parse_policy(given: route_policy_pb2.RoutePolicy, snapshot: Snapshot) -> RoutePolicy:
    """What a call says of its route."""
    field = "call.route_policy"
    if len(given.fallbacks) > MAX_FALLBACKS:
        raise invalid(f"{field}.fallbacks", f"At most {MAX_FALLBACKS} fallback routes.")
    attempts = given.max_attempts if given.HasField("max_attempts") else 3
    if not 1 <= attempts <= 8:
        raise invalid(f"{field}.max_attempts", "From 1 to 8.")
    causes = None
    if given.HasField("payer_failover_on"):
        place = f"{field}.payer_failover_on.causes"
        causes = frozenset(known(CAUSES, cause, place) for cause in given.payer_failover_on.causes)
    return RoutePolicy(
        fallbacks=tuple(_route(route, f"{field}.fallbacks[{i}]", snapshot) for i, route in enumerate(given.fallbacks)),
        provider_order=tuple(
            _provider_id(name, f"{field}.provider_order[{i}]", snapshot) for i, name in enumerate(given.provider_order)
        ),
        allow_fallbacks=given.allow_fallbacks if given.HasField("allow_fallbacks") else True,
        payers=tuple(known(PAYERS, payer, f"{field}.payers[{i}]") for i, payer in enumerate(given.payers)),
        payer_failover_on=causes,
        max_attempts=attempts,
        first_content_timeout_seconds=_seconds(given, "first_content_timeout", field),
        idle_timeout_seconds=_seconds(given, "idle_timeout", field),
        max_queue_wait_seconds=_seconds(given, "max_queue_wait", field, may_be_zero=True),
    )


def _seconds(given: route_policy_pb2.RoutePolicy, name: str, field: str, *, may_be_zero: bool = False) -> float | None:
    if not given.HasField(name):  # type: ignore[arg-type] # the names are those of the message's fields
        return None
    seconds = duration_seconds(getattr(given, name), f"{field}.{name}")
    if seconds == 0 and not may_be_zero:
        raise invalid(f"{field}.{name}", "Above 0.")
    return seconds


def _provider_id(name: str, field: str, snapshot: Snapshot) -> str:
    provider = snapshot.find_provider(name)
    if provider is None or provider.name != name:
        raise invalid(field, "No provider has this name; ListProviders gives those that there are.")
    return provider.id


def _route(given: route_policy_pb2.ModelRoute, field: str, snapshot: Snapshot) -> Route:
    if not given.model:
        raise invalid(f"{field}.model", "A fallback route names a model.")
    settings = parse_settings(given.settings, f"{field}.settings") if given.HasField("settings") else Settings()
    for number, entry in enumerate(settings.provider_options):
        parse_options(entry, f"{field}.settings.provider_options[{number}]")
    if not 0 <= given.weight <= MAX_WEIGHT:
        raise invalid(f"{field}.weight", f"From 0 to {MAX_WEIGHT}.")
    return Route(
        given.model,
        _provider_id(given.provider, f"{field}.provider", snapshot) if given.provider else "",
        given.credential,
        settings,
        given.on_context_too_long,
        given.weight if given.HasField("weight") else None,
    )
