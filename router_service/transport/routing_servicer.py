"""RoutingService: what a call would do and cost, from the same plan that the engine follows."""

import dataclasses
from collections.abc import Callable
from typing import Any

from keyswitch.router.v1 import routing_service_pb2, routing_service_pb2_grpc

from router_service.catalog.catalog import Snapshot
from router_service.core.events import Usage
from router_service.core.faults import invalid
from router_service.core.money import MoneyError, estimate_input_tokens, list_price, upper_bound
from router_service.core.receipt import Amount, Cost, CostUnknown
from router_service.core.resolution import Payer, Resolution
from router_service.credentials.client import Credentials
from router_service.policy.call import Candidate, Plan
from router_service.policy.cooldown import Rest, Rests, RestSubject, read_key, rest_candidates
from router_service.policy.plan import plan
from router_service.preparation import Prepared, Request, most_output_tokens, prepare
from router_service.transport import wire_build
from router_service.transport.access import changeable_organization, demand_operator
from router_service.transport.interceptors.identity import caller
from router_service.transport.pages import page
from router_service.transport.request import parse_request

MOST_CANDIDATES = 64
MOST_SKIPPED = 256


class RoutingServicer(routing_service_pb2_grpc.RoutingServiceServicer):
    """Explains and estimates; sends nothing and leases nothing."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        credentials: Credentials,
        clock: Callable[[], float],
        spread: Callable[[], float],
        rests: Callable[[], Rests],
    ) -> None:
        self._snapshot = snapshot
        self._credentials = credentials
        self._clock = clock
        self._spread = spread
        self._rests = rests

    async def ExplainRoute(  # noqa: N802 # gRPC's name
        self, request: routing_service_pb2.ExplainRouteRequest, context: Any
    ) -> routing_service_pb2.ExplainRouteResponse:
        """The plan of a call."""
        parsed, snapshot, now = self._parse(request, may_be_empty=True)
        made = await self._plan(parsed, snapshot, now)
        answer = routing_service_pb2.ExplainRouteResponse(
            candidates=[_candidate(made, found) for found in made.candidates[:MOST_CANDIDATES]],
            skipped_candidates=[wire_build.skipped_candidate(one) for one in made.skipped[:MOST_SKIPPED]],
            skipped_choices=[wire_build.skipped_choice(one) for one in made.skipped_choices],
            plan_time=wire_build.timestamp(now),
            configuration_revision=snapshot.revision,
        )
        if made.failure is not None:
            answer.failure_reason = wire_build.reason(made.failure.reason)
        return answer

    async def EstimateCost(  # noqa: N802 # gRPC's name
        self, request: routing_service_pb2.EstimateCostRequest, context: Any
    ) -> routing_service_pb2.EstimateCostResponse:
        """What each candidate would cost."""
        parsed, snapshot, now = self._parse(request, may_be_empty=False)
        made = await self._plan(parsed, snapshot, now)
        if made.failure is not None:
            raise made.failure
        costs = [_cost(made, prepare(parsed, found), parsed) for found in made.candidates[:MOST_CANDIDATES]]
        return routing_service_pb2.EstimateCostResponse(candidates=costs)

    async def ListRests(  # noqa: N802 # gRPC's name
        self, request: routing_service_pb2.ListRestsRequest, context: Any
    ) -> routing_service_pb2.ListRestsResponse:
        """What rests, as far as the caller is concerned."""
        below = ""
        if request.parent == "deployment":
            demand_operator(caller())
        else:
            below = f"organizations/{changeable_organization(request.parent, caller(), self._snapshot(), 'parent').id}"
        now = self._clock()
        found = [
            (read_key(key), rest)
            for key, rest in self._rests().items()
            if (rest.is_resting(now) or rest.is_probed(now)) and read_key(key).is_below(below)
        ]
        ordered = sorted(found, key=lambda pair: dataclasses.astuple(pair[0]))
        shown, following = page(ordered, request.page_size, request.page_token, ["rests", request.parent])
        return routing_service_pb2.ListRestsResponse(
            rests=[_rest(subject, rest, now) for subject, rest in shown], next_page_token=following
        )

    def _parse(
        self,
        request: routing_service_pb2.ExplainRouteRequest | routing_service_pb2.EstimateCostRequest,
        *,
        may_be_empty: bool,
    ) -> tuple[Request, Snapshot, float]:
        if not request.HasField("call") or not (may_be_empty or request.call.HasField("spec")):
            raise invalid("call.spec" if request.HasField("call") else "call", "This field is required.")
        snapshot = self._snapshot()
        parsed = parse_request(request.call, caller(), snapshot, stream=False, may_be_empty=may_be_empty)
        return parsed, snapshot.view_of(parsed.organization.id), self._clock()

    async def _plan(self, parsed: Request, snapshot: Snapshot, now: float) -> Plan:
        holdings = await self._credentials.holdings(parsed.caller, parsed.user)
        made = plan(parsed.call, snapshot, holdings, now, self._spread())
        return rest_candidates(made, self._rests(), now)


def _rest(subject: RestSubject, rest: Rest, now: float) -> routing_service_pb2.Rest:
    return routing_service_pb2.Rest(
        credential=subject.credential,
        model=subject.model,
        provider=subject.provider,
        upstream_model_id=subject.upstream_model,
        cause=routing_service_pb2.RestCause.Value(f"REST_CAUSE_{rest.cause.name}"),
        failure_reason=wire_build.reason(rest.reason),
        end_time=wire_build.timestamp(rest.until),
        is_tried=rest.is_probed(now),
    )


def _resolution(made: Plan, found: Candidate) -> Resolution:
    return Resolution(
        made.requested_model,
        found.model.id,
        found.source,
        found.provider.name,
        found.payer,
        found.credential.active_version if found.credential is not None else "",
        0,
        made.skipped_choices,
    )


def _candidate(made: Plan, found: Candidate) -> routing_service_pb2.RouteCandidate:
    key = f"with {found.credential.name}" if found.credential is not None else "without a key"
    drawn = "" if found.share is None else f" Its weight gives it {found.share:.1%} of the calls."
    return routing_service_pb2.RouteCandidate(
        resolution=wire_build.resolution(_resolution(made, found)),
        reason=routing_service_pb2.CandidateReason.Value(f"CANDIDATE_REASON_{found.reason.value}"),
        upstream_model_id=found.endpoint.upstream_model,
        message=f"{found.payer.value} pays at {found.provider.name} {key}.{drawn}"[:256],
    )


def _cost(made: Plan, prepared: Prepared, parsed: Request) -> routing_service_pb2.CandidateCost:
    found = prepared.candidate
    price, markup = found.model.price_at(found.provider.id), parsed.organization.markup_basis_points
    input_tokens = estimate_input_tokens(len(prepared.encoded.body))
    most = most_output_tokens(prepared)

    def bound(output_tokens: int, basis_points: int) -> Amount:
        try:
            return upper_bound(input_tokens, output_tokens, price, basis_points)
        except MoneyError:
            return CostUnknown.NO_PRICE

    def cost(listed: Amount, output_tokens: int) -> Cost:
        charged = bound(output_tokens, markup) if found.payer is Payer.CREDITS else 0
        revision = price.revision if price is not None and isinstance(listed, int) else ""
        return Cost(CostUnknown.NOT_REPORTED, listed, charged, revision, is_estimate=True)

    least = list_price(Usage(input_tokens=input_tokens, output_tokens=0), price).amount
    return routing_service_pb2.CandidateCost(
        resolution=wire_build.resolution(_resolution(made, found)),
        input_tokens=input_tokens,
        max_output_tokens=most,
        minimum=wire_build.cost(cost(least, 0)),
        maximum=wire_build.cost(cost(bound(most, 0), most)),
    )
