"""What an organization has configured for itself: providers and models beside the deployment's.

Its providers may lead to no private network, and its entries are paid with its own keys alone (policy/payer.py): else
an administrator could point the deployment's key, or its money, somewhere else.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any

from router_service.catalog.catalog import Snapshot, index_references
from router_service.catalog.defaults import BuiltIn
from router_service.catalog.document import Document
from router_service.catalog.offers import ModelBuilder, Offers, build_provider
from router_service.catalog.problems import Path, Problem
from router_service.catalog.provider_data import lay_over


def build_views(
    document: Document, built_in: BuiltIn, base: Snapshot, on: date | None, problems: list[Problem]
) -> dict[str, Snapshot]:
    """A snapshot for each organization that has entries of its own."""
    return {
        organization_id: _build_view(document, built_in, base, organization_id, on, problems)
        for organization_id, raw in document.value.get("organizations", {}).items()
        if raw.get("providers") or raw.get("models")
    }


def _build_view(
    document: Document,
    built_in: BuiltIn,
    base: Snapshot,
    organization_id: str,
    on: date | None,
    problems: list[Problem],
) -> Snapshot:
    organization = document.value["organizations"][organization_id]
    path: Path = ("organizations", organization_id)
    owner = f"organizations/{organization_id}"
    own: dict[str, dict[str, Any]] = {
        f"{owner}/providers/{key}": _merge(built_in, key, entry)
        for key, entry in organization.get("providers", {}).items()
    }
    offers = Offers(dict(base.providers), {}, frozenset(base.providers) | own.keys())
    for name, merged in own.items():
        here = (*path, "providers", name.rpartition("/")[2])
        if "allowed_private_networks" in organization["providers"][here[-1]]:
            message = "only the operator can open private networks, for a provider of the deployment; remove it"
            problems.append(document.problem((*here, "allowed_private_networks"), message, of_key=True))
        provider = build_provider(name, here, merged, document, problems)
        if provider is not None:
            offers.providers[name] = provider
    raw = {**lay_over(built_in.providers, document.value.get("providers", {})), **own}
    builder = ModelBuilder(document, offers, raw, on, problems, owner)
    stated: Mapping[str, Mapping[str, Any]] = organization.get("models", {})
    builder.check_aliases(stated, (*path, "models"))
    for model_id, entry in stated.items():
        model = builder.build(model_id, (*path, "models", model_id), entry, tuple(entry.get("aliases", ())))
        if model is not None:
            offers.models[model_id] = model
    models = {**base.models, **offers.models}
    references = {**index_references(base.models), **index_references(offers.models)}
    return replace(base, providers=offers.providers, models=models, references=references)


def _merge(built_in: BuiltIn, key: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry over the template that it names, without the private networks that the operator may open there."""
    merged = lay_over(built_in.providers, {key: entry})[key] if "template" in entry else dict(entry)
    merged.pop("allowed_private_networks", None)
    return merged
