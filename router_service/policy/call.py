"""A call as the decision sees it: what is asked for, by which application, under which narrowing of its policy."""

from dataclasses import dataclass, field

from router_service.catalog.catalog import Application, Endpoint, Model, Organization, Provider, Route
from router_service.core.caller import Credential
from router_service.core.faults import Fault
from router_service.core.request import Purpose, Settings
from router_service.core.resolution import (
    CandidateReason,
    ModelSource,
    Payer,
    PayerFailoverCause,
    SkippedCandidate,
    SkippedModelChoice,
)


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """What a call says of its route. None means the application's own."""

    fallbacks: tuple[Route, ...] = ()
    provider_order: tuple[str, ...] = ()  # provider ids
    allow_fallbacks: bool = True
    payers: tuple[Payer, ...] = ()
    payer_failover_on: frozenset[PayerFailoverCause] | None = None
    max_attempts: int = 3
    first_content_timeout_seconds: float | None = None
    idle_timeout_seconds: float | None = None
    max_queue_wait_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Needs:
    """What the content of a call needs from an endpoint."""

    tool_dialects: frozenset[str] = frozenset()  # dialects of the provider tools in it
    strict_schema: bool = False
    purpose: Purpose = Purpose.COMPLETION


@dataclass(frozen=True, slots=True)
class Call:
    """What is decided about."""

    model: str
    organization: Organization
    application: Application
    policy: RoutePolicy = RoutePolicy()
    needs: Needs = Needs()
    context: str = ""
    user: str = ""  # the id of the user whose call it is, if it is one's
    conversation: str = ""  # what the caller names so; its calls stay at the endpoint that it drew


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to answer. `is_payer_failover`: reached only by a stated cause, because it is another payer's."""

    model: Model
    endpoint: Endpoint
    provider: Provider
    payer: Payer
    credential: Credential | None  # None where the provider needs no key
    source: ModelSource
    is_payer_failover: bool = False
    reason: CandidateReason = CandidateReason.CATALOG_ORDER
    route_settings: Settings = Settings()
    serves_longer_prompts: bool = False
    share: float | None = None  # how often it leads, from 0 to 1, where it was drawn by weight

    @property
    def dialect(self) -> str:
        """The wire that is spoken there."""
        return self.endpoint.dialect_at(self.provider)


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision. `failure` is set exactly when there is no candidate."""

    requested_model: str
    candidates: tuple[Candidate, ...]
    skipped: tuple[SkippedCandidate, ...] = ()
    skipped_choices: tuple[SkippedModelChoice, ...] = ()
    failover_causes: frozenset[PayerFailoverCause] = frozenset()
    failure: Fault | None = field(default=None, compare=False)
