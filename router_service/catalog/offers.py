"""What can be had: providers and models, built from the file laid over the built-in catalog."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from router_service.catalog.catalog import EmbeddingFacts, Endpoint, Model, Network, Provider
from router_service.catalog.defaults import BuiltIn
from router_service.catalog.document import Document
from router_service.catalog.hosts import NetworkError, find_faults, parse_private_network
from router_service.catalog.prices import Listing, find_listing, parse_price
from router_service.catalog.problems import Path, Problem, suggest
from router_service.catalog.provider_data import build_errors, build_plan, find_placeholders, lay_over
from router_service.catalog.settings import build_quirks, build_settings
from router_service.core.endpoint import AuthScheme, BaseUrlError, parse_base_url
from router_service.core.money import Price

_REQUIRED = ("dialect", "base_url", "auth")
_PLAIN_FIELDS = (
    "first_content_timeout_seconds",
    "idle_timeout_seconds",
    "attempt_timeout_seconds",
    "breaker_slow_seconds",
    "vendor",
    "key_page",
    "key_test_balance",
)
# Anthropic's wire has the version in its paths, OpenAI's in its base URL.
_VERSIONED_DIALECTS = frozenset({"anthropic_messages"})
# Headers that carry a credential, frame the body or name the connection belong to the router.
_OWN_HEADERS = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "cookie",
        "host",
        "content-length",
        "content-type",
        "content-encoding",
        "transfer-encoding",
        "accept-encoding",
        "connection",
        "te",
        "trailer",
        "upgrade",
        "expect",
    }
)


@dataclass(slots=True)
class Offers:
    """The providers and models that were built. `declared` are the ids of all providers, the faulty ones included."""

    providers: dict[str, Provider] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    declared: frozenset[str] = frozenset()


def build_offers(
    document: Document, built_in: BuiltIn, declared: frozenset[str], on: date | None, problems: list[Problem]
) -> Offers:
    """Builds all that is sound and records what is not."""
    offers = Offers(declared=declared | built_in.providers.keys())
    stated_providers: Mapping[str, Mapping[str, Any]] = document.value.get("providers", {})
    raw = lay_over(built_in.providers, stated_providers)
    for provider_id, merged in raw.items():
        if provider_id not in stated_providers and find_placeholders(merged["base_url"]):
            continue  # a pattern for others until somebody says what its placeholders stand for
        provider = build_provider(provider_id, ("providers", provider_id), merged, document, problems)
        if provider is not None:
            offers.providers[provider_id] = provider
    builder = ModelBuilder(document, offers, raw, on, problems)
    stated: Mapping[str, Mapping[str, Any]] = document.value.get("models", {})
    models = {**built_in.models, **{key: {**built_in.models.get(key, {}), **entry} for key, entry in stated.items()}}
    taken = builder.check_aliases(stated)
    for model_id, entry in models.items():
        is_stated = "aliases" in stated.get(model_id, {})
        aliases = tuple(alias for alias in entry.get("aliases", ()) if is_stated or alias not in taken)
        model = builder.build(model_id, ("models", model_id), entry, aliases)
        if model is not None:
            offers.models[model_id] = model
    return offers


def build_provider(
    provider_id: str, path: Path, raw: Mapping[str, Any], document: Document, problems: list[Problem]
) -> Provider | None:
    """A provider, or None where it is not sound. `path` is where it is written."""
    missing = [key for key in _REQUIRED if key not in raw]
    if missing:
        problems.append(document.problem(path, f"must have {' and '.join(missing)}", of_key=True))
        return None
    if "template" in raw:
        problems.append(document.problem((*path, "template"), f"there is no built-in provider {raw['template']}"))
        return None
    unfilled = find_placeholders(raw["base_url"])
    if unfilled:
        message = f"the base URL {raw['base_url']} has placeholders; set base_url, or parameters: {', '.join(unfilled)}"
        problems.append(document.problem((*path, "base_url"), message))
        return None
    before = len(problems)
    networks = _parse_networks(raw, path, document, problems)
    try:
        base_url = parse_base_url(raw["base_url"])
    except BaseUrlError as error:
        problems.append(document.problem((*path, "base_url"), str(error)))
        return None
    if len(problems) == before:  # a faulty network would be reported twice
        problems.extend(document.problem((*path, "base_url"), fault) for fault in find_faults(base_url, networks))
    is_versioned = raw["dialect"] in _VERSIONED_DIALECTS
    if is_versioned and base_url.path.endswith("/v1"):
        problems.append(document.problem((*path, "base_url"), "ends in /v1, which this dialect adds itself; remove it"))
    headers = {name.lower(): value for name, value in raw.get("headers", {}).items()}
    for name in raw.get("headers", {}):
        if name.lower() in _OWN_HEADERS:
            message = "is set by the router alone; remove it (keys are stored through CredentialService)"
            problems.append(document.problem((*path, "headers", name), message, of_key=True))
    return Provider(
        id=provider_id,
        display_name=raw.get("display_name", path[-1]),
        dialect=raw["dialect"],
        base_url=base_url,
        auth=AuthScheme(raw["auth"]),
        quirks=build_quirks(raw.get("quirks", {})),
        headers=tuple(sorted(headers.items())),
        is_enabled=raw.get("is_enabled", True),
        is_byok_supported=raw.get("is_byok_supported", True),
        allowed_private_networks=networks,
        key_test_path=raw.get("key_test_path", "/v1/models" if is_versioned else "/models"),
        models_path=raw.get("models_path", "/v1/models" if is_versioned else "/models"),
        plan=build_plan(raw["plan"]) if "plan" in raw else None,
        errors=build_errors(raw.get("errors", {})),
        max_concurrent_requests=_whole(raw.get("max_concurrent_requests")),
        breaker_failures=int(raw.get("breaker_failures", 5)),
        **{key: raw[key] for key in _PLAIN_FIELDS if key in raw},
    )


def _parse_networks(
    raw: Mapping[str, Any], path: Path, document: Document, problems: list[Problem]
) -> tuple[Network, ...]:
    networks: list[Network] = []
    for index, text in enumerate(raw.get("allowed_private_networks", ())):
        try:
            networks.append(parse_private_network(text))
        except NetworkError as error:
            problems.append(document.problem((*path, "allowed_private_networks", index), str(error)))
    return tuple(networks)


@dataclass(frozen=True, slots=True)
class ModelBuilder:
    """Builds models over the providers."""

    document: Document
    offers: Offers
    providers: Mapping[str, Mapping[str, Any]]
    on: date | None
    problems: list[Problem]
    owner: str = ""  # the organization whose own they are, by name

    def check_aliases(self, stated: Mapping[str, Mapping[str, Any]], path: Path = ("models",)) -> frozenset[str]:
        """The names that the file itself claims. They win over the built-in catalog's."""
        owners: dict[str, str] = {model_id: model_id for model_id in stated}
        for model_id, entry in stated.items():
            for index, alias in enumerate(entry.get("aliases", ())):
                owner = owners.setdefault(alias, model_id)
                if owner != model_id:
                    message = f"{alias} already means {owner}; give one of the two another alias"
                    self.problems.append(self.document.problem((*path, model_id, "aliases", index), message))
        return frozenset(owners)

    def build(self, model_id: str, path: Path, raw: Mapping[str, Any], aliases: tuple[str, ...]) -> Model | None:
        """A model, or None where it has no sound endpoint."""
        if "endpoints" not in raw:
            self.problems.append(self.document.problem(path, "must have endpoints", of_key=True))
            return None
        endpoints = tuple(self._build_endpoints(path, raw["endpoints"]))
        listings = self._find_listings(raw["endpoints"]) if "price" not in raw else {}
        found = list(listings.values())
        known = next((listing for listing in found if listing is not None), None)
        price = known.price if known is not None else self._state_price(path, raw.get("price"))
        return Model(
            id=model_id,
            endpoints=endpoints,
            display_name=raw.get("display_name", model_id),
            aliases=aliases,
            price=price,
            price_revision=price.revision if price is not None else "",
            prices={
                provider: listing.price if listing is not None else None
                for provider, listing in listings.items()
                if len(set(found)) > 1
            },
            context_limit_tokens=_find_limit(raw, found),
            max_output_tokens=_whole(raw.get("max_output_tokens")),
            compression_threshold_percent=_whole(raw.get("compression_threshold_percent")),
            capabilities=tuple(raw.get("capabilities", ())),
            defaults=build_settings(raw.get("defaults", {})),
            is_enabled=raw.get("is_enabled", True),
            embedding=_build_embedding(raw["embedding"]) if "embedding" in raw else None,
            owner=self.owner,
        )

    def _build_endpoints(self, path: Path, raw: list[Mapping[str, Any]]) -> Iterator[Endpoint]:
        for index, entry in enumerate(raw):
            provider_id = entry["provider"]
            own_id = f"{self.owner}/providers/{provider_id}"
            provider_id = own_id if own_id in self.offers.declared else provider_id
            if provider_id in self.offers.providers:
                quirks = build_quirks(self.providers[provider_id].get("quirks", {}), entry.get("quirks", {}))
                dialect = entry.get("dialect", "")
                spoken = self.offers.providers[provider_id].dialect
                if dialect and (dialect in _VERSIONED_DIALECTS) != (spoken in _VERSIONED_DIALECTS):
                    message = f"does not fit the base URL of {provider_id}, which is one for {spoken}"
                    where = (*path, "endpoints", index, "dialect")
                    self.problems.append(self.document.problem(where, message))
                    continue
                yield Endpoint(provider_id, entry["upstream_model"], quirks, dialect, _whole(entry.get("weight")))
            elif provider_id not in self.offers.declared:
                message = f"there is no provider {provider_id}; {suggest(provider_id, self.offers.declared)}"
                where = (*path, "endpoints", index, "provider")
                self.problems.append(self.document.problem(where, message))

    def _find_listings(self, raw: list[Mapping[str, Any]]) -> dict[str, Listing | None]:
        """What is listed at each provider of the model, in their order."""
        found: dict[str, Listing | None] = {}
        for entry in raw:
            price_provider = self.providers.get(entry["provider"], {}).get("price_provider")
            listing = find_listing(price_provider, entry["upstream_model"], self.on) if price_provider else None
            found.setdefault(entry["provider"], listing)
        return found

    def _state_price(self, path: Path, raw: Mapping[str, Any] | None) -> Price | None:
        if raw is None:
            return None
        try:
            date.fromisoformat(raw["checked"])
        except ValueError:
            self.problems.append(self.document.problem((*path, "price", "checked"), "there is no such day"))
        return parse_price(raw, f"configuration:{raw['checked']}")


def _build_embedding(raw: Mapping[str, Any]) -> EmbeddingFacts:
    dimensions, most = _whole(raw.get("dimensions")), _whole(raw.get("max_inputs"))
    return EmbeddingFacts(dimensions, raw.get("is_shortenable", False), most)


def _whole(value: Any) -> int | None:
    # JSON Schema takes 3.0 for an integer.
    return int(value) if value is not None else None


def _find_limit(raw: Mapping[str, Any], listings: Sequence[Listing | None]) -> int | None:
    """The context limit: what is stated, else the smallest that is listed, for any endpoint may serve."""
    if "context_limit_tokens" in raw:
        return _whole(raw["context_limit_tokens"])
    known = [item.context_limit_tokens for item in listings if item is not None and item.context_limit_tokens]
    return min(known, default=None)
