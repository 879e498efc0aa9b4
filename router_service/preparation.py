"""What an attempt needs before it is sent, made from the call and its candidate. Only here is the credential put on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from router_service.catalog.catalog import Application, EmbeddingFacts, Organization
from router_service.core.caller import Caller
from router_service.core.events import Usage, UsageUpdated
from router_service.core.faults import Fault, Reason, invalid
from router_service.core.money import MoneyError, estimate_input_tokens, upper_bound
from router_service.core.receipt import CostUnknown
from router_service.core.request import Completion, Embedding, Notice, ProviderOptions, Settings, WarningReason
from router_service.core.resolution import Resolution
from router_service.credentials.leases import Lease
from router_service.credentials.uses import UseOutcome, UsePurpose
from router_service.dialects.base import Decoder, Encoded, Quirks
from router_service.dialects.registry import COUNTERS, DIALECTS, EMBEDDERS
from router_service.exchange import Timeouts
from router_service.framing.framer import CONTENT_TYPES, framing_of
from router_service.policy.call import Call, Candidate, Plan
from router_service.policy.estimate import estimate_prompt_tokens
from router_service.policy.settings import merge_settings, parse_options, select_options
from router_service.record import AttemptRecord
from router_service.upstream.auth import authorize
from router_service.upstream.client import UpstreamRequest

UNKNOWN_MAX_OUTPUT_TOKENS = 32_768
"""Reserved for an answer whose length neither the call nor the catalog bounds."""

MOST_NUMBERS = 8_000_000
"""Of an embedding's answer: 32-bit numbers that fit into a message of 32 MiB."""


@dataclass(frozen=True, slots=True)
class Request:
    """A call that came in: parsed, the caller verified, its tenant found. `is_count`: only counted, never completed."""

    call: Call
    asked: Completion | Embedding  # model and provider are filled in for each attempt
    options: Sequence[tuple[ProviderOptions, Mapping[str, object]]]
    caller: Caller
    principal: str
    user: str
    request_id: str
    min_flush_seconds: float = 0.0
    is_count: bool = False
    deadline: float | None = None  # of the event loop's clock

    @property
    def organization(self) -> Organization:
        """The tenant."""
        return self.call.organization

    @property
    def application(self) -> Application:
        """The program that calls."""
        return self.call.application


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request in the words of its provider, without its credential."""

    candidate: Candidate
    encoded: Encoded
    make_decoder: Callable[[], Decoder]
    warnings: tuple[Notice, ...]
    settings: Settings
    input_bytes: int


def prepare(request: Request, candidate: Candidate) -> Prepared:
    """Merges the settings and encodes. Raises Fault for what the wire cannot carry."""
    asked, quirks = request.asked, candidate.endpoint.quirks
    settings = merge_settings((candidate.route_settings, asked.settings, candidate.model.defaults))
    worded = replace(
        asked,
        model=candidate.endpoint.upstream_model,
        provider=candidate.provider.name,
        settings=settings,
        options=select_options(_entries(request, settings), candidate.provider, candidate.dialect),
    )
    encoded, make_decoder = _encode(worded, candidate, quirks, is_count=request.is_count)
    warnings = encoded.warnings
    is_embedding = isinstance(worded, Embedding)
    if settings.upstream_routing is not None and not (quirks.is_router_like or quirks.takes_gateway_options):
        field_name = "upstream_routing" if is_embedding else "settings.upstream_routing"
        if not any(warning.field == field_name for warning in warnings):
            message = f"{candidate.provider.name} does not choose among upstreams."
            warnings = (*warnings, Notice(field_name, WarningReason.IGNORED, message))
    stated = merge_settings((candidate.route_settings, asked.settings))
    warnings = tuple(warning for warning in warnings if not _is_of_the_catalog(warning, stated))
    return Prepared(
        candidate,
        encoded,
        make_decoder,
        warnings,
        settings,
        sum(len(text.encode()) for text in worded.inputs) if isinstance(worded, Embedding) else len(encoded.body),
    )


def _encode(
    asked: Completion | Embedding, candidate: Candidate, quirks: Quirks, *, is_count: bool
) -> tuple[Encoded, Callable[[], Decoder]]:
    """The request in the wire's words, and who reads its answer."""
    dialect = DIALECTS[candidate.dialect]
    match asked:
        case Embedding():
            embedder = EMBEDDERS.get(dialect.name)
            if embedder is None:
                raise invalid("call.spec.model", f"The router knows no embeddings of {candidate.provider.name}.")
            check_embedding(asked, candidate)
            return embedder.encode_embedding(asked, quirks), lambda: embedder.embedding_decoder(asked, quirks)
        case Completion() if is_count:
            counter = COUNTERS[dialect.name]
            return counter.encode_count(asked, quirks), lambda: counter.count_decoder(quirks)
        case Completion():
            return dialect.encode(asked, quirks), lambda: dialect.decoder(quirks)
        case _:
            assert_never(asked)


def can_count(candidate: Candidate) -> bool:
    """Whether the candidate's provider counts tokens itself."""
    return candidate.endpoint.quirks.counts_tokens and candidate.dialect in COUNTERS


def estimate_usage(request: Request) -> UsageUpdated:
    """The tokens of a prompt that nobody counts. Raises Fault for what cannot be estimated."""
    tokens = estimate_prompt_tokens(request.asked) if isinstance(request.asked, Completion) else None
    return UsageUpdated(Usage(input_tokens=tokens))


def check_embedding(asked: Embedding, candidate: Candidate) -> None:
    """What is known of the model before anything is sent. Raises Fault."""
    facts = candidate.model.embedding or EmbeddingFacts()
    wanted = asked.dimensions
    if facts.max_inputs is not None and len(asked.inputs) > facts.max_inputs:
        raise invalid("call.spec.inputs", f"{candidate.model.id} takes at most {facts.max_inputs} inputs at once.")
    own = facts.dimensions
    if wanted is not None and own is not None and (wanted > own or (wanted < own and not facts.is_shortenable)):
        bound = f"at most {own}" if facts.is_shortenable else f"{own} only"
        raise invalid("call.spec.dimensions", f"The vectors of {candidate.model.id} have {bound} numbers.")
    if len(asked.inputs) * (wanted or facts.dimensions or 1) > MOST_NUMBERS:
        raise invalid("call.spec.inputs", f"The answer would hold more than {MOST_NUMBERS} numbers; send fewer inputs.")


def _is_of_the_catalog(warning: Notice, stated: Settings) -> bool:
    """Whether it is about a setting that only the model's defaults made: nobody asked for it, so nobody is told."""
    section, _, name = warning.field.removeprefix("settings.").partition(".")
    if not warning.field.startswith("settings."):
        return False
    match section:
        case "sampling":
            return getattr(stated.sampling, name, None) in (None, ())
        case "reasoning":
            return stated.reasoning is None
        case "max_output_tokens":
            return stated.max_output_tokens is None
        case "upstream_routing":
            return stated.upstream_routing is None
        case _:
            return False


def _entries(request: Request, settings: Settings) -> Sequence[tuple[ProviderOptions, Mapping[str, object]]]:
    """The provider options of the layer that won: the call's are parsed already, a route's or a model's are not."""
    if settings.provider_options == request.asked.settings.provider_options:
        return request.options
    return [(entry, parse_options(entry, "settings.provider_options")) for entry in settings.provider_options]


def most_output_tokens(prepared: Prepared) -> int:
    """The most tokens that the attempt may generate."""
    if prepared.candidate.model.embedding is not None:
        return 0
    stated = prepared.settings.max_output_tokens or prepared.candidate.model.max_output_tokens
    return stated or UNKNOWN_MAX_OUTPUT_TOKENS


def bound_cost(prepared: Prepared, markup_basis_points: int) -> int:
    """What the attempt may cost at most, to be reserved. Raises Fault where nothing bounds it."""
    model, most = prepared.candidate.model, most_output_tokens(prepared)
    input_tokens = estimate_input_tokens(len(prepared.encoded.body))
    price = model.price_at(prepared.candidate.provider.id)
    try:
        amount = upper_bound(input_tokens, most, price, markup_basis_points)
    except MoneyError:
        amount = CostUnknown.NO_PRICE  # beyond all bounds: no credits cover it
    if isinstance(amount, int):
        return amount
    message = f"What {model.id} would cost cannot be bounded, so credits cannot pay for it."
    raise Fault(Reason.PRICE_UNKNOWN, message, metadata={"model": model.id, "payer": "PAYER_CREDITS"})


def build_upstream_request(request: Request, prepared: Prepared, lease: Lease | None, time: float) -> UpstreamRequest:
    """The HTTP request, the credential put on last. `time` is in seconds since 1970."""
    provider, encoded = prepared.candidate.provider, prepared.encoded
    streamed_type = CONTENT_TYPES[framing_of(DIALECTS[prepared.candidate.dialect], prepared.candidate.endpoint.quirks)]
    headers = (
        ("accept", streamed_type if request.asked.stream else "application/json"),
        *provider.headers,
        *encoded.headers.items(),
    )
    url = provider.base_url.join(encoded.path)
    plain = UpstreamRequest(encoded.method, url, headers, encoded.body, provider.allowed_private_networks)
    return authorize(plain, provider.auth, lease.secret if lease is not None else None, time)


def choose_timeouts(request: Request, candidate: Candidate) -> Timeouts:
    """The call's own, else the provider's."""
    policy, provider = request.call.policy, candidate.provider
    return Timeouts(
        policy.first_content_timeout_seconds or provider.first_content_timeout_seconds,
        policy.idle_timeout_seconds or provider.idle_timeout_seconds,
        provider.attempt_timeout_seconds,
    )


def is_own_timeout(request: Request, fault: Fault) -> bool:
    """Whether a time-out is one that the call itself asked for."""
    policy = request.call.policy
    match fault.metadata.get("timeout"):
        case "firstContent" | "response":
            return policy.first_content_timeout_seconds is not None
        case "idle":
            return policy.idle_timeout_seconds is not None
        case _:
            return False


def build_resolution(made: Plan, candidate: Candidate, attempt: AttemptRecord | None) -> Resolution:
    """What was decided, as the caller is told. Without an attempt nothing was sent."""
    return Resolution(
        made.requested_model,
        candidate.model.id,
        candidate.source,
        candidate.provider.name,
        candidate.payer,
        attempt.credential_version if attempt is not None else "",
        attempt.number if attempt is not None else 0,
        made.skipped_choices,
    )


def explain(fault: Fault, candidate: Candidate) -> None:
    """Says in a fault of an attempt where it happened."""
    if not fault.law.is_upstream:
        return
    fault.metadata.setdefault("provider", candidate.provider.name)
    if fault.reason is Reason.PLAN_MISMATCH and candidate.provider.plan is not None:
        fault.metadata.setdefault("plan", candidate.provider.plan.id)
    if fault.reason is Reason.UPSTREAM_MODEL_MISSING:
        fault.metadata.setdefault("upstreamModelId", candidate.endpoint.upstream_model)
    if candidate.credential is not None and fault.reason in _ABOUT_THE_KEY:
        fault.metadata.setdefault("credential", candidate.credential.name)


_ABOUT_THE_KEY = frozenset(
    {Reason.UPSTREAM_CREDENTIAL_REJECTED, Reason.PLAN_MISMATCH, Reason.UPSTREAM_BALANCE_EXHAUSTED}
)


def lease_purpose(request: Request) -> UsePurpose:
    """What the call uses a secret for. A count has no receipt, so the audit log must tell it from a completion."""
    match request.asked:
        case Embedding():
            return UsePurpose.EMBEDDING
        case Completion():
            return UsePurpose.TOKEN_COUNT if request.is_count else UsePurpose.COMPLETION
        case _:
            assert_never(request.asked)


def use_outcome(fault: Fault | None, *, is_finished: bool) -> UseOutcome:
    """What became of the use of a secret."""
    if fault is None:
        return UseOutcome.SUCCEEDED if is_finished else UseOutcome.CANCELLED
    match fault.reason:
        case Reason.UPSTREAM_CREDENTIAL_REJECTED | Reason.PLAN_MISMATCH:
            return UseOutcome.REJECTED
        case Reason.CREDENTIAL_REVOKED:
            return UseOutcome.KILLED
        case _:
            return UseOutcome.FAILED
