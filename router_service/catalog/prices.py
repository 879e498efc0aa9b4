"""List prices as exact integers: from a configuration's decimals, or from genai-prices where a file states none.

genai-prices takes half a second to import and about 90 MB. So the listings of the built-in models are kept beside
them in listings.json; the library itself is imported only for another model without a price, and never at import.

A Price is one rate for every call. What genai-prices says in another shape is mapped so that it is never wrong:
* a tier by context: the base tier, and the context limit is where the next tier begins;
* a rate by the time of day, or for kinds of tokens that a Price does not tell apart: no price.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from router_service.core.money import Price, usd_to_nanos

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

_NANOS_PER_USD = 1_000_000_000
_FIELDS = {
    "input_mtok": "input_usd_per_million",
    "output_mtok": "output_usd_per_million",
    "cache_read_mtok": "cache_read_usd_per_million",
    "cache_write_mtok": "cache_write_usd_per_million",
    "cache_write_1h_mtok": "cache_write_1h_usd_per_million",
    "input_audio_mtok": "input_audio_usd_per_million",
}
_THOUSANDS = {"requests_kcount": "request_usd", "web_searches_kcount": "web_search"}
# A fee of a tool that has no name here, and a rate for sound in a cache, which no usage tells apart: where the tool
# is used, and where sound and a cache come together, the cost of the call is unknown.
_LEFT_OUT = frozenset({"storage_searches_kcount", "cache_audio_read_mtok"})


@dataclass(frozen=True, slots=True)
class Listing:
    """What genai-prices knows about a model at a provider."""

    price: Price
    context_limit_tokens: int | None = None


def parse_price(stated: Mapping[str, Any], revision: str) -> Price:
    """A price from decimals in USD, as a configuration and listings.json have them. They fit the schema."""

    def amount(key: str) -> int | None:
        return usd_to_nanos(stated[key]) if key in stated else None

    return Price(
        input_nanos=amount("input_usd_per_million"),
        output_nanos=amount("output_usd_per_million"),
        cache_read_nanos=amount("cache_read_usd_per_million"),
        cache_write_five_minute_nanos=amount("cache_write_usd_per_million"),
        cache_write_one_hour_nanos=amount("cache_write_1h_usd_per_million"),
        input_audio_nanos=amount("input_audio_usd_per_million"),
        request_nanos=amount("request_usd") or 0,
        tool_request_nanos=tuple((tool, usd_to_nanos(usd)) for tool, usd in stated.get("tool_request_usd", {}).items()),
        revision=revision,
    )


def find_listing(provider: str, model: str, on: date | None) -> Listing | None:
    """The listing of a provider's model: the kept one, else the library's on a day. None where there is none."""
    known = _kept_listings()["listings"].get(provider, {})
    if model not in known:
        return _look_up(provider, model, on)
    kept = known[model]
    if kept is None:
        return None  # looked for and not there: the library need not be asked again
    return _parse_listing(kept, f"genai-prices:{_kept_listings()['version']}")


def _parse_listing(stated: Mapping[str, Any], revision: str) -> Listing:
    return Listing(parse_price(stated, revision), stated.get("context_limit_tokens"))


@cache
def _kept_listings() -> Mapping[str, Any]:
    listings: dict[str, Any] = json.loads(read_listings())
    return listings


def read_listings() -> str:
    """The text of listings.json."""
    return files("router_service.catalog").joinpath("data/listings.json").read_text(encoding="utf-8")


@cache
def _look_up(provider: str, model: str, on: date | None) -> Listing | None:
    stated = extract_listing(provider, model, on)
    return _parse_listing(stated, f"genai-prices:{library_version()}") if stated is not None else None


def library_version() -> str:
    """The installed version of genai-prices."""
    from importlib.metadata import version

    return version("genai-prices")


def extract_listing(provider: str, model: str, on: date | None) -> dict[str, Any] | None:
    """What the library knows, as decimals. `on` None means its newest dated price."""
    from genai_prices.data_snapshot import get_snapshot

    try:
        _, found = get_snapshot().find_provider_model(model, None, provider, None)
    except LookupError:
        return None
    price = _choose(found, on)
    return _state(price, found.context_window) if price is not None else None


def _choose(model: "ModelInfo", on: date | None) -> "ModelPrice | None":
    """The price of a day: the last one that had begun, as the library chooses. None where it depends on the hour."""
    from genai_prices.types import ModelPrice, StartDateConstraint

    if isinstance(model.prices, ModelPrice):
        return model.prices
    chosen: ModelPrice | None = None
    for conditional in model.prices:
        constraint = conditional.constraint
        if constraint is not None and not isinstance(constraint, StartDateConstraint):
            return None
        if constraint is None or on is None or constraint.start_date <= on:
            chosen = conditional.prices
    return chosen


def _state(price: "ModelPrice", context_window: int | None) -> dict[str, Any] | None:
    from genai_prices.types import TieredPrices

    stated: dict[str, Any] = {}
    limits = [context_window] if context_window is not None else []
    for key, amount in vars(price).items():
        if amount is None or key in _LEFT_OUT:
            continue
        if isinstance(amount, TieredPrices):
            limits.extend(tier.start for tier in amount.tiers)
            amount = amount.base  # noqa: PLW2901 - from here on a tier is as good as a flat price
        if not _add(stated, key, amount):
            return None
    if not stated:
        return None
    if limits:
        stated["context_limit_tokens"] = min(limits)
    return stated


def _add(stated: dict[str, Any], key: str, amount: Decimal) -> bool:
    per = 1 if key in _FIELDS else 1000
    usd = amount / per
    if (usd * _NANOS_PER_USD) % 1:
        return False
    text = format(usd.normalize(), "f")
    if key in _FIELDS:
        stated[_FIELDS[key]] = text
    elif key == "requests_kcount":
        stated["request_usd"] = text
    elif key in _THOUSANDS:
        stated.setdefault("tool_request_usd", {})[_THOUSANDS[key]] = text
    else:
        return False
    return True


def extract_listings(wanted: Iterable[tuple[str, str]], on: date) -> dict[str, Any]:
    """The content of listings.json for pairs of a genai-prices provider and a model."""
    listings: dict[str, dict[str, dict[str, Any] | None]] = {}
    for provider, model in sorted(set(wanted)):
        listings.setdefault(provider, {})[model] = extract_listing(provider, model, on)
    return {"source": "genai-prices", "version": library_version(), "checked": on.isoformat(), "listings": listings}
