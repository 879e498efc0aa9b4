"""What of the built-in catalog nobody has looked at for a while. `make catalog-check` prints it; it needs no network.

It is a report and never a failure: a catalog does not become wrong by the calendar, and a build must not.
"""

import json
import sys
from collections.abc import Iterator
from datetime import date

from router_service.catalog.defaults import load_documents
from router_service.catalog.loader import load_snapshot
from router_service.catalog.prices import library_version, read_listings

MAX_AGE_DAYS = 90


def find_stale(on: date) -> Iterator[str]:
    """One line for each thing to look at."""
    for _, document in load_documents():
        names = [name for section in ("providers", "models") for name in document.value.get(section, {})]
        if _is_old(document.value["checked"], on):
            yield f"{document.source}: last checked {document.value['checked']} ({', '.join(names)})"
        for name, model in document.value.get("models", {}).items():
            price = model.get("price")
            if price is not None and _is_old(price["checked"], on):
                yield f"{document.source}: the price of {name} was last checked {price['checked']}"
    listings = json.loads(read_listings())
    if _is_old(listings["checked"], on):
        yield f"data/listings.json: prices were last taken {listings['checked']}"
    if listings["version"] != library_version():
        yield f"data/listings.json: prices are of genai-prices {listings['version']}, installed is {library_version()}"


def find_unpriced() -> Iterator[str]:
    """The pairs of model and provider without a price: credits cannot pay for them."""
    snapshot = load_snapshot("", source="the built-in catalog")
    for model in snapshot.models.values():
        for endpoint in model.endpoints:
            if model.price_at(endpoint.provider) is None:
                yield f"{model.id} at {endpoint.provider}"


def _is_old(checked: str, on: date) -> bool:
    return (on - date.fromisoformat(checked)).days > MAX_AGE_DAYS


def report(on: date) -> str:
    """All of it, as text."""
    stale, unpriced = list(find_stale(on)), list(find_unpriced())
    lines = [f"{len(stale)} not checked for {MAX_AGE_DAYS} days", *(f"  {line}" for line in stale)]
    lines += [f"{len(unpriced)} without a price, so not for credits", *(f"  {line}" for line in unpriced)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(report(date.fromisoformat(sys.argv[1])) + "\n")
