"""The decision: which model answers, over which provider, on whose key, and who pays. Pure: it can be explained.

The laws, in the order in which they are applied:

1. The model is what the call names, else the first usable default (resolve.py).
2. The payers are the application's, in its order, narrowed by the call. A call leaves payers out and never adds one.
3. The first payer with a usable candidate is the payer of the call. Absence alone moves the question on.
4. Other providers and the fallback routes under that payer follow without asking.
5. Later payers follow only as failover candidates, where the application states causes for it.
6. Where the application has a native provider and an own key for it is there, that key serves that provider's models
   and nothing else: another model is an error, not a quiet switch to credits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from router_service.catalog.catalog import FREE, Endpoint, Model, Provider, Route, Snapshot
from router_service.core.caller import Credential, Holdings
from router_service.core.faults import Fault, Reason, invalid
from router_service.core.request import Purpose, Settings
from router_service.core.resolution import CandidateReason, ModelSource, Payer, SkippedCandidate, SkipReason
from router_service.policy.call import Call, Candidate, Plan
from router_service.policy.payer import Refusal, credentials_of, pick_credential, refuse_payer
from router_service.policy.resolve import ModelChoice, choose_model, named_model, refuse_model
from router_service.policy.weights import Draw, draw_by_weight


def plan(call: Call, snapshot: Snapshot, holdings: Holdings, now: float, seed: float = 0.0) -> Plan:
    """Decides. Raises Fault for what the call itself has wrong; a call that nobody can serve has `failure` set.

    `seed`, from 0 to 1, is what chance has a say in: where the free pool begins, which weighted endpoint leads.
    """
    payers = narrowed_payers(call)
    choice = choose_model(call, snapshot, seed)
    causes = call.application.payer_failover_on
    if call.policy.payer_failover_on is not None:
        if not call.policy.payer_failover_on <= causes:
            raise invalid("call.route_policy.payer_failover_on", "It names a cause that the application does not have.")
        causes = call.policy.payer_failover_on
    planner = _Planner(call, snapshot, holdings, now, seed)
    own_key_fault = planner.check_native_provider(payers, choice)
    if own_key_fault is not None:
        return Plan(call.model, (), tuple(planner.skipped), choice.skipped, causes, own_key_fault)
    if choice.is_free_pool:
        for payer in payers:
            if payer is not Payer.FREE:
                message = "The free pool is served by FREE alone; name a model to have it paid."
                planner.skip(FREE, "", payer, Refusal(SkipReason.PAYER_EXCLUDED, message))
        payers = tuple(payer for payer in payers if payer is Payer.FREE)
    for payer in Payer:
        if payer in call.application.payers and payer not in payers and not choice.is_free_pool:
            planner.skip(choice.models[0].id if choice.models else call.model, "", payer, _excluded(payer))
    routes = planner.routes(choice)
    candidates = planner.candidates(payers, routes, may_fail_over=bool(causes))
    if call.needs.purpose is Purpose.EMBEDDING:
        # Vectors of two models cannot be compared: what follows the first candidate is the same model elsewhere.
        candidates = [candidate for candidate in candidates if candidate.model is candidates[0].model]
    failure = None if candidates else planner.failure(payers, choice)
    return Plan(call.model, tuple(candidates), tuple(planner.skipped), choice.skipped, causes, failure)


def narrowed_payers(call: Call) -> tuple[Payer, ...]:
    """The application's payers that the call leaves in, in the application's order."""
    wanted = call.policy.payers
    for payer in wanted:
        if payer not in call.application.payers:
            raise invalid("call.route_policy.payers", f"{call.application.name} does not have the payer {payer.value}.")
    return tuple(payer for payer in call.application.payers if not wanted or payer in wanted)


@dataclass(frozen=True, slots=True)
class _Option:
    """A model at an endpoint, before anybody asked who pays."""

    model: Model
    endpoint: Endpoint
    provider: Provider
    source: ModelSource
    route: Route | None
    is_pooled: bool = False
    share: float | None = None  # how often it leads, where it was drawn by weight


@dataclass(slots=True)
class _Planner:
    call: Call
    snapshot: Snapshot
    holdings: Holdings
    now: float
    seed: float
    skipped: list[SkippedCandidate] = field(default_factory=list)

    def skip(self, model: str, provider: str, payer: Payer | None, refusal: Refusal) -> None:
        self.skipped.append(SkippedCandidate(model, provider, payer, refusal.reason, refusal.message[:256]))

    def check_native_provider(self, payers: Sequence[Payer], choice: ModelChoice) -> Fault | None:
        """Law 6, for a model that something names."""
        native = self.call.application.native_provider
        if choice.is_free_pool or not native or choice.source is ModelSource.FIRST_USABLE or not choice.models:
            return None
        model = choice.models[0]
        if any(endpoint.provider == native for endpoint in model.endpoints):
            return None
        provider = self.snapshot.providers[native]
        for payer in payers:
            if not payer.is_own_key or refuse_payer(payer, self.call, self.snapshot, self.holdings):
                continue
            available = credentials_of(payer, self.holdings, self.snapshot)
            found = pick_credential(payer, self.call, provider, model, available, self.now)
            if isinstance(found, Refusal):
                continue
            message = (
                f"{self.call.application.name} has an own key for {provider.name}, and own keys serve only that "
                f"provider's models. Name one of those, or have an administrator remove the key."
            )
            self.skip(model.id, provider.name, payer, Refusal(SkipReason.MODEL_NOT_ALLOWED_WITH_OWN_KEY, message))
            return Fault(
                Reason.MODEL_NOT_ALLOWED_WITH_OWN_KEY,
                message,
                metadata={"model": model.id, "nativeProvider": provider.name},
            )
        return None

    def routes(self, choice: ModelChoice) -> list[list[_Option]]:
        """The call's own model first, then each fallback route: the options of each in order."""
        groups = [[option for model in choice.models for option in self._options(model, choice.source, None)]]
        if choice.is_free_pool:
            return [[replace(option, is_pooled=True) for option in groups[0]]]
        policy = self.call.policy
        own = self.call.application.fallbacks if policy.allow_fallbacks else ()
        drawn = draw_by_weight(policy.fallbacks or own, "fallbacks", self._owner(), self.seed)
        for route in drawn.ways:
            if policy.fallbacks:
                model: Model | None = named_model(self.call, self.snapshot, route.model)
            else:
                model = self.snapshot.find_model(route.model)
            reason = refuse_model(self.call, model)
            if model is None or reason is not None:
                refusal = Refusal(reason or SkipReason.MODEL_NOT_FOUND, "The route's model cannot be used here.")
                self.skip(route.model, "", None, refusal)
                continue
            groups.append(list(self._options(model, ModelSource.FALLBACK_ROUTE, route, drawn.share_of(route))))
        return groups

    def _options(
        self, model: Model, source: ModelSource, route: Route | None, route_share: float | None = None
    ) -> Iterator[_Option]:
        drawn = draw_by_weight(model.endpoints, model.id, self._owner(), self.seed)
        if route_share is not None:
            drawn = Draw(drawn.ways, route_share * (1.0 if drawn.share is None else drawn.share))
        for endpoint in self._ordered(drawn, route):
            provider = self.snapshot.providers[endpoint.provider]
            refusal = self._refuse_endpoint(model, endpoint, provider, route)
            if refusal is None:
                yield _Option(model, endpoint, provider, source, route, share=drawn.share_of(endpoint))
            else:
                self.skip(model.id, provider.name, None, refusal)

    def _owner(self) -> str:
        """Who always draws the same: the conversation, else the user, else nobody."""
        owner = self.call.conversation or self.call.user
        kind = "conversations" if self.call.conversation else "users"
        return f"{self.call.organization.id}/{kind}/{owner}" if owner else ""

    def _ordered(self, drawn: Draw[Endpoint], route: Route | None) -> Sequence[Endpoint]:
        order = () if route is not None else self.call.policy.provider_order or self.call.application.provider_order
        place = {provider: number for number, provider in enumerate(order)}
        return sorted(drawn.ways, key=lambda endpoint: place.get(endpoint.provider, len(place)))

    def _refuse_endpoint(
        self, model: Model, endpoint: Endpoint, provider: Provider, route: Route | None
    ) -> Refusal | None:
        policy = self.call.policy
        if not provider.is_enabled:
            return Refusal(SkipReason.PROVIDER_DISABLED, f"{provider.name} is switched off by the operator.")
        if route is not None and route.provider and route.provider != provider.id:
            return Refusal(SkipReason.PROVIDER_EXCLUDED, "The fallback route names another provider.")
        excluded = policy.provider_order and not policy.allow_fallbacks and provider.id not in policy.provider_order
        if route is None and excluded:
            return Refusal(SkipReason.PROVIDER_EXCLUDED, "The call's provider_order does not list it.")
        needs = self.call.needs
        if needs.tool_dialects - {endpoint.dialect_at(provider)}:
            return Refusal(SkipReason.CAPABILITY_MISSING, "The call has a provider tool of another dialect.")
        if needs.strict_schema and not endpoint.quirks.supports_strict_schema:
            return Refusal(SkipReason.CAPABILITY_MISSING, f"{model.id} cannot promise a strict schema there.")
        return None

    def candidates(
        self, payers: Sequence[Payer], routes: Sequence[Sequence[_Option]], *, may_fail_over: bool
    ) -> list[Candidate]:
        """Laws 3 to 5. Where nobody can pay for the call's own model, the first payable route leads."""
        chosen = self._served(payers, routes, may_fail_over=may_fail_over)
        before = len(self.skipped)  # every pair of payer and option was asked about by now
        for number in range(1, len(routes)):
            if chosen:
                break
            chosen = self._served(payers, routes[number:], may_fail_over=may_fail_over)
            del self.skipped[before:]
        return chosen

    def _served(
        self, payers: Sequence[Payer], routes: Sequence[Sequence[_Option]], *, may_fail_over: bool
    ) -> list[Candidate]:
        chosen: list[Candidate] = []
        paying: Payer | None = None
        for payer in payers:
            if paying is not None and not may_fail_over:
                for option in routes[0]:
                    message = f"{paying.value} comes first and has a key; nothing allows the bill to move on."
                    refusal = Refusal(SkipReason.EARLIER_PAYER, message)
                    self.skip(option.model.id, option.provider.name, payer, refusal)
                continue
            found = [
                [
                    candidate
                    for option in options
                    if (candidate := self._candidate(payer, option, is_failover=paying is not None)) is not None
                ]
                for options in routes
            ]
            if paying is None and found[0]:
                paying = payer
            if paying is not None:
                chosen += [candidate for group in found for candidate in group]
        return chosen

    def _candidate(self, payer: Payer, option: _Option, *, is_failover: bool) -> Candidate | None:
        refusal = refuse_payer(payer, self.call, self.snapshot, self.holdings)
        found = refusal or self._credential(payer, option)
        if isinstance(found, Refusal):
            self.skip(option.model.id, option.provider.name, payer, found)
            return None
        route = option.route
        return Candidate(
            option.model,
            option.endpoint,
            option.provider,
            payer,
            found,
            option.source,
            is_payer_failover=is_failover,
            reason=self._place(option, is_failover=is_failover),
            route_settings=route.settings if route is not None else Settings(),
            serves_longer_prompts=route is not None and route.on_context_too_long,
            share=option.share,
        )

    def _place(self, option: _Option, *, is_failover: bool) -> CandidateReason:
        """What put a candidate where it stands."""
        if is_failover:
            return CandidateReason.PAYER_FAILOVER
        if option.route is not None:
            return CandidateReason.FALLBACK_ROUTE
        if option.is_pooled:
            return CandidateReason.FREE_POOL
        if self.call.policy.provider_order:
            return CandidateReason.CALL_ORDER
        if self.call.application.provider_order:
            return CandidateReason.APPLICATION_ORDER
        return CandidateReason.CATALOG_ORDER if option.share is None else CandidateReason.WEIGHT

    def _credential(self, payer: Payer, option: _Option) -> Credential | Refusal | None:
        native = self.call.application.native_provider
        if payer.is_own_key and native and option.provider.id != native:
            return Refusal(SkipReason.MODEL_NOT_ALLOWED_WITH_OWN_KEY, "Own keys serve only the native provider.")
        available = credentials_of(payer, self.holdings, self.snapshot)
        pinned = option.route.credential if option.route is not None else ""
        return pick_credential(payer, self.call, option.provider, option.model, available, self.now, pinned)

    def failure(self, payers: Sequence[Payer], choice: ModelChoice) -> Fault:
        """Why nothing is left, as the error of the call."""
        model = FREE if choice.is_free_pool else choice.models[0].id if choice.models else self.call.model
        refused = [skip for skip in self.skipped if skip.payer in payers]
        names = ",".join(f"PAYER_{payer.value}" for payer in payers)
        meant = {model.id for model in choice.models}
        unpaid = [skip for skip in refused if skip.payer is Payer.CREDITS and skip.model in meant]
        if unpaid and all(skip.reason is SkipReason.PRICE_UNKNOWN for skip in unpaid):
            metadata = {"model": unpaid[0].model, "payer": "PAYER_CREDITS"}
            return Fault(Reason.PRICE_UNKNOWN, unpaid[0].message, metadata=metadata)
        if {skip.reason for skip in refused} == {SkipReason.BYOK_DISABLED}:
            message = "Keys of users are switched off in this deployment, and this call may use no other."
            return Fault(Reason.BYOK_DISABLED, message, metadata={"payers": names})
        causes = refused or [skip for skip in self.skipped if skip.payer is None]
        advice = causes[0].message if causes else "An administrator can allow models or add them."
        what = "Nobody can pay for" if refused else "Nothing can serve"
        message = f"{what} {model or 'any model'}. {advice}"
        return Fault(Reason.NO_USABLE_CREDENTIAL, message, metadata={"model": model, "payers": names})


def _excluded(payer: Payer) -> Refusal:
    return Refusal(SkipReason.PAYER_EXCLUDED, f"The call leaves {payer.value} out.")
