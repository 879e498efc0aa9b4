"""The built-in catalog: well-known providers and models, as data under `data/`.

A built-in provider does nothing until somebody stores a key for it. `python -m router_service.catalog.defaults DATE`
writes data/listings.json anew after an upgrade of genai-prices; DATE is the day that prices are taken of.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from router_service.catalog.document import Document, parse_document
from router_service.catalog.prices import extract_listings, read_listings
from router_service.catalog.provider_data import resolve_patterns

_FOLDERS = ("providers", "models")


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """Raw entries as the files have them, and the files' text for the revision."""

    providers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    text: str = ""


@cache
def load_documents() -> tuple[tuple[str, Document], ...]:
    """Every built-in file: its text and what it says."""
    data = files("router_service.catalog").joinpath("data")
    loaded: list[tuple[str, Document]] = []
    for folder in _FOLDERS:
        for entry in sorted(data.joinpath(folder).iterdir(), key=lambda item: item.name):
            if entry.name.endswith(".yaml"):
                text = entry.read_text(encoding="utf-8")
                loaded.append((text, parse_document(text, f"{folder}/{entry.name}")))
    return tuple(loaded)


@cache
def load_built_in() -> BuiltIn:
    """All built-in entries. The files are checked by a test, so they are not checked against the schema here."""
    providers: dict[str, Any] = {}
    models: dict[str, Any] = {}
    texts: list[str] = []
    for text, document in load_documents():
        providers.update(document.value.get("providers", {}))
        models.update(document.value.get("models", {}))
        texts.append(text)
    return BuiltIn(resolve_patterns(providers), models, "".join([*texts, read_listings()]))


def list_priced_endpoints(built_in: BuiltIn) -> list[tuple[str, str]]:
    """The pairs of a genai-prices provider and a model that the built-in models need."""
    return [
        (built_in.providers[endpoint["provider"]]["price_provider"], endpoint["upstream_model"])
        for model in built_in.models.values()
        for endpoint in model["endpoints"]
        if built_in.providers[endpoint["provider"]].get("price_provider")
    ]


def write_listings(on: date) -> None:
    """Writes data/listings.json anew."""
    entries: dict[str, Any] = {"providers": {}, "models": {}}
    for _, document in load_documents():
        for section, known in entries.items():
            known.update(document.value.get(section, {}))
    built_in = BuiltIn(resolve_patterns(entries["providers"]), entries["models"])
    listings = extract_listings(list_priced_endpoints(built_in), on)
    target = Path(__file__).parent / "data" / "listings.json"
    target.write_text(json.dumps(listings, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_listings(date.fromisoformat(sys.argv[1]))
