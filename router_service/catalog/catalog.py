"""The configuration as one immutable value: providers, models, organizations, applications. Swapped as a whole.

The pure decisions read only this. It holds no secret: keys are known by their names.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network

from router_service.core.endpoint import AuthScheme, BaseUrl
from router_service.core.money import Price
from router_service.core.request import Purpose, Settings
from router_service.core.resolution import OverrideLayer, Payer, PayerFailoverCause
from router_service.dialects.base import Quirks
from router_service.dialects.error_rules import ErrorGuide

_DATED = re.compile(r"(.+?)[-@](20[0-9]{6}|20[0-9]{2}-[0-9]{2}-[0-9]{2})")

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class BillingPlan:
    """A plan of a vendor, with an endpoint, keys and limits of its own. Its keys are for no other plan.

    `warning` is what the owner of a key risks by the plan's terms; empty where there is nothing to say.
    `max_concurrent_requests` is what a new key begins with, `highest_concurrent_requests` what the plan can reach.
    `key_prefixes` begin the plan's keys, where the vendor marks them.
    """

    id: str
    display_name: str = ""
    warning: str = ""
    max_concurrent_requests: int | None = None
    highest_concurrent_requests: int | None = None
    key_prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Provider:
    """A named endpoint. `id` is "anthropic", `name` "providers/anthropic"; an organization's own has one for both.

    `vendor` joins the providers that are one vendor's plans and hosts. `key_page` is where its keys come from.
    """

    id: str
    display_name: str
    dialect: str
    base_url: BaseUrl
    auth: AuthScheme
    quirks: Quirks = Quirks()
    headers: tuple[tuple[str, str], ...] = ()
    is_enabled: bool = True
    is_byok_supported: bool = True
    allowed_private_networks: tuple[Network, ...] = ()
    first_content_timeout_seconds: float = 120.0
    idle_timeout_seconds: float = 60.0
    key_test_path: str = "/models"  # empty: no request is free
    key_test_balance: str = ""  # where the test's answer has a balance, by names joined with dots
    models_path: str = "/models"
    vendor: str = ""
    plan: BillingPlan | None = None
    key_page: str = ""
    errors: ErrorGuide = ErrorGuide()
    attempt_timeout_seconds: float | None = None
    max_concurrent_requests: int | None = None  # of each credential that says nothing itself
    breaker_failures: int = 5
    breaker_slow_seconds: float | None = None

    @property
    def name(self) -> str:
        """Its resource name."""
        return self.id if self.owner else f"providers/{self.id}"

    @property
    def owner(self) -> str:
        """The organization whose own it is, by name; empty for the deployment's."""
        return self.id.rpartition("/providers/")[0]

    @property
    def is_keyless(self) -> bool:
        """Whether it needs no key at all."""
        return self.auth is AuthScheme.NONE


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What may be asked for in any minute. None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model can be had: a provider's id and the model id that it knows. Quirks contain the provider's.

    `dialect` is empty where it is the provider's; a provider may serve some of its models over another wire.
    """

    provider: str
    upstream_model: str
    quirks: Quirks
    dialect: str = ""

    def dialect_at(self, provider: Provider) -> str:
        """The wire that it speaks; `provider` is its own."""
        return self.dialect or provider.dialect

    weight: int | None = None  # how often it leads, beside the weights of the others


@dataclass(frozen=True, slots=True)
class EmbeddingFacts:
    """What a model that embeds can do. `dimensions` is the length of its vectors, None where it is not known."""

    dimensions: int | None = None
    is_shortenable: bool = False
    max_inputs: int | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A catalog entry. `id` is provider-neutral ("anthropic/claude-sonnet-4.6"). `price` is None where unknown.

    `prices` are those of providers that ask another price than `price`; ask `price_at`.
    `compression_threshold_percent` is for applications: from there on they should compress older messages.
    `owner` is the organization that made the entry, by name; empty for the deployment's.
    """

    id: str
    endpoints: tuple[Endpoint, ...]
    display_name: str = ""
    aliases: tuple[str, ...] = ()
    price: Price | None = None
    price_revision: str = ""
    context_limit_tokens: int | None = None
    max_output_tokens: int | None = None
    compression_threshold_percent: int | None = None
    prices: Mapping[str, Price | None] = field(default_factory=dict, hash=False)
    capabilities: tuple[str, ...] = ()
    defaults: Settings = Settings()
    is_enabled: bool = True
    owner: str = ""
    embedding: EmbeddingFacts | None = None  # None: it completes conversations

    @property
    def purpose(self) -> Purpose:
        """What it is for."""
        return Purpose.COMPLETION if self.embedding is None else Purpose.EMBEDDING

    def price_at(self, provider: str) -> Price | None:
        """What a provider, by its id, asks for it; None where that is not known."""
        return self.prices.get(provider, self.price)


@dataclass(frozen=True, slots=True)
class Route:
    """A route to fall back to."""

    model: str
    provider: str = ""
    credential: str = ""
    settings: Settings = Settings()
    on_context_too_long: bool = False
    weight: int | None = None  # how often it leads the fallbacks, beside the weights of the others


FREE = "free"
"""The model reference that means the free pool."""

BUILT_IN_CONTEXTS: Mapping[str, frozenset[OverrideLayer]] = {
    "general": frozenset(OverrideLayer),
    "explore": frozenset(OverrideLayer),
    "title": frozenset({OverrideLayer.ADMINISTRATOR}),
    "root": frozenset({OverrideLayer.USER}),
}
"""The contexts that every application has, and who may override their model."""

DEFAULT_PAYERS = (Payer.USER_KEY, Payer.ORGANIZATION_KEY, Payer.SHARED_KEY)


@dataclass(frozen=True, slots=True)
class Application:
    """A program that calls the router. `name` is its resource name; `native_provider` a provider's id or empty."""

    name: str
    display_name: str = ""
    payers: tuple[Payer, ...] = DEFAULT_PAYERS
    payer_failover_on: frozenset[PayerFailoverCause] = frozenset()
    default_model: str = ""
    allowed_models: tuple[str, ...] = ("*",)
    native_provider: str = ""
    byok_supported: bool = True
    bindings: Mapping[Payer, str] = field(default_factory=dict)
    provider_order: tuple[str, ...] = ()
    fallbacks: tuple[Route, ...] = ()
    contexts: Mapping[str, frozenset[OverrideLayer]] = field(default_factory=dict)  # besides the built-in ones
    overrides: Mapping[str, str] = field(default_factory=dict)  # by context; the administrator's
    allows_uncatalogued: bool = False
    limits: RateLimits = RateLimits()
    max_queue_wait_seconds: float = 2.0

    def layers_of(self, context: str) -> frozenset[OverrideLayer]:
        """Who may override the model of a context: nobody where the application does not have it."""
        return self.contexts.get(context) or BUILT_IN_CONTEXTS.get(context, frozenset())

    def allows(self, model: str) -> bool:
        """Whether the application may use the model."""
        return any(fnmatchcase(model, pattern) for pattern in self.allowed_models)


@dataclass(frozen=True, slots=True)
class Organization:
    """A tenant. `users` are ids; `applications` by id."""

    id: str
    display_name: str = ""
    markup_basis_points: int = 0
    default_model: str = ""
    users: tuple[str, ...] = ()
    allowed_payers: frozenset[Payer] = frozenset(Payer)
    overrides: Mapping[str, str] = field(default_factory=dict)  # by context; the administrator's
    personal_overrides_enabled: bool = False
    personal_overrides: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by user id, then context
    limits: RateLimits = RateLimits()
    user_limits: RateLimits = RateLimits()  # of each user
    token_limits: RateLimits = RateLimits()  # of each token
    applications: Mapping[str, Application] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeploymentCredential:
    """Whom a credential of the deployment serves."""

    id: str
    provider: str
    payers: frozenset[Payer]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything configured, at one revision."""

    revision: str
    deployment: str = "keyswitch"
    default_model: str = ""
    byok_enabled: bool = True
    free_models: tuple[str, ...] = ()  # references; the free pool
    providers: Mapping[str, Provider] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)
    organizations: Mapping[str, Organization] = field(default_factory=dict)
    deployment_credentials: Mapping[str, DeploymentCredential] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)  # alias, id or upstream name -> catalog id
    views: Mapping[str, "Snapshot"] = field(default_factory=dict)  # by organization, where one has entries of its own

    def view_of(self, organization_id: str) -> "Snapshot":
        """What an organization sees: its own providers and models beside the deployment's."""
        return self.views.get(organization_id, self)

    def find_provider(self, name: str) -> Provider | None:
        """The provider of a name or an id."""
        return self.providers.get(name.removeprefix("providers/"))

    def find_model(self, reference: str) -> Model | None:
        """The model that a reference means, whether usable or not."""
        model = self.models.get(reference)
        if model is None and reference in self.references:
            model = self.models[self.references[reference]]
        return model or self._find_dated(reference)

    def _find_dated(self, reference: str) -> Model | None:
        """A dated name of a catalogued upstream model: that model, at the endpoints that know it, under that name."""
        dated = _DATED.fullmatch(reference)
        model = self.models.get(self.references.get(dated[1], dated[1])) if dated is not None else None
        if dated is None or model is None:
            return None
        endpoints = tuple(
            replace(endpoint, upstream_model=reference)
            for endpoint in model.endpoints
            if endpoint.upstream_model == dated[1]
        )
        return replace(model, endpoints=endpoints) if endpoints else None

    def nearest_models(self, reference: str, limit: int = 5) -> list[str]:
        """Names that a misspelt reference may have meant."""
        return get_close_matches(reference, sorted({*self.models, *self.references}), n=limit, cutoff=0.5)


def index_references(models: Mapping[str, Model]) -> dict[str, str]:
    """Aliases and upstream names by what they mean. A name that two models claim belongs to the alias, else to none."""
    upstream: dict[str, set[str]] = {}
    references: dict[str, str] = {}
    for model in models.values():
        for endpoint in model.endpoints:
            upstream.setdefault(endpoint.upstream_model, set()).add(model.id)
        references.update(dict.fromkeys(model.aliases, model.id))
    for name, owners in upstream.items():
        if len(owners) == 1 and name not in models:
            references.setdefault(name, next(iter(owners)))
    return references
