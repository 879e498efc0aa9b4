"""A configuration file as a Snapshot, or as the list of everything that is wrong with it.

The file is laid over the built-in catalog: an entry with the id of a built-in one replaces the keys that it states.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from hashlib import sha256
from pathlib import Path as FilePath

from router_service.catalog.catalog import Snapshot, index_references
from router_service.catalog.defaults import BuiltIn, load_built_in
from router_service.catalog.document import Document, Value, parse_document
from router_service.catalog.offers import build_offers
from router_service.catalog.own_offers import build_views
from router_service.catalog.problems import ConfigurationError, Mark, Path, Problem
from router_service.catalog.schema import SchemaFault, check_schema
from router_service.catalog.stored import lay_documents_over
from router_service.catalog.tenants import Tenants

__all__ = ["ConfigurationError", "load_file", "load_snapshot", "read_text"]

_ENTRY_DEPTHS = {"organizations": 2, "models": 2, "providers": 2, "deployment_credentials": 2, "deployment": 2}


def load_snapshot(
    text: str,
    *,
    source: str,
    builtin: bool = True,
    on: date | None = None,
    stored: Mapping[Path, Value] | None = None,
    strict: frozenset[Path] = frozenset(),
) -> Snapshot:
    """Reads a configuration with the documents `stored` over it; looked-up prices are those of the day `on`.

    Raises ConfigurationError. A stored choice of a model that is gone is no problem, for calls pass it over, unless it
    stands in one of the `strict` documents.
    """
    document = parse_document(text, source)
    found = check_schema(document)
    if stored and not found:
        document.value = lay_documents_over(document.value, stored)
        found = check_schema(document)
    problems = [fault.problem for fault in found]
    declared = _Declared.find(document)
    for fault in found:
        _remove(document.value, fault)
    if any(len(fault.path) <= 1 for fault in found):
        raise ConfigurationError(problems)  # without a whole section every reference to it would seem wrong
    built_in = load_built_in() if builtin else BuiltIn()
    snapshot = _build(document, built_in, declared, on, problems, frozenset(stored or ()) - strict)
    if problems:
        raise ConfigurationError(problems)
    kept = json.dumps(sorted(stored.items()), sort_keys=True) if stored else ""
    digest = sha256("\0".join((text, built_in.text, kept)).encode()).hexdigest()
    return _revise(snapshot, digest[:16])


def _revise(snapshot: Snapshot, revision: str) -> Snapshot:
    views = {key: replace(view, revision=revision) for key, view in snapshot.views.items()}
    return replace(snapshot, revision=revision, views=views)


def load_file(path: FilePath, *, builtin: bool = True, on: date | None = None) -> Snapshot:
    """Reads a configuration file. Raises ConfigurationError, also where the file cannot be read."""
    return load_snapshot(read_text(path), source=str(path), builtin=builtin, on=on)


def read_text(path: FilePath) -> str:
    """The text of a configuration file. Raises ConfigurationError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        message = "there is no such file; write one (docs/configuration.md has an example) or set KEYSWITCH_CONFIG"
    except UnicodeDecodeError:
        message = "the file is not UTF-8 text; save it as UTF-8"
    except OSError:
        message = "the file cannot be read; check that it is a file and that this user may read it"
    raise ConfigurationError([Problem(str(path), Mark(1, 1), "", message)])


def _build(
    document: Document,
    built_in: BuiltIn,
    declared: "_Declared",
    on: date | None,
    problems: list[Problem],
    lenient: frozenset[Path],
) -> Snapshot:
    offers = build_offers(document, built_in, declared.providers, on, problems)
    deployment = document.value.get("deployment", {})
    snapshot = Snapshot(
        revision="",
        deployment=deployment.get("name", "keyswitch"),
        default_model=deployment.get("default_model", ""),
        byok_enabled=deployment.get("byok_enabled", True),
        free_models=tuple(deployment.get("free_models", ())),
        providers=offers.providers,
        models=offers.models,
        references=index_references(offers.models),
    )
    snapshot = replace(snapshot, views=build_views(document, built_in, snapshot, on, problems))
    tenants = Tenants(
        document, snapshot, offers.declared, declared.models, declared.credentials, problems, lenient=lenient
    )
    if snapshot.default_model:
        tenants.check_choice(("deployment", "default_model"), snapshot.default_model)
    for index, reference in enumerate(snapshot.free_models):
        tenants.check_model(("deployment", "free_models", index), reference)
    credentials, organizations = tenants.build_credentials(), tenants.build_organizations()
    views = {
        organization_id: replace(view, deployment_credentials=credentials, organizations=organizations)
        for organization_id, view in snapshot.views.items()
    }
    return replace(snapshot, deployment_credentials=credentials, organizations=organizations, views=views)


@dataclass(frozen=True, slots=True)
class _Declared:
    """The names that a file has, faulty entries included: a reference to one of those is not a second problem."""

    providers: frozenset[str]
    models: frozenset[str]  # with their aliases
    credentials: frozenset[str]

    @classmethod
    def find(cls, document: Document) -> "_Declared":
        """Reads them from a file that has not been checked."""
        models = _mapping(document.value.get("models"))
        aliases = [_mapping(model).get("aliases") for model in models.values()]
        return cls(
            frozenset(_mapping(document.value.get("providers"))),
            frozenset([*models, *(alias for names in aliases for alias in _texts(names))]),
            frozenset(_mapping(document.value.get("deployment_credentials"))),
        )


def _mapping(value: Value) -> dict[str, Value]:
    return value if isinstance(value, dict) else {}


def _texts(value: Value) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _remove(root: dict[str, Value], fault: SchemaFault) -> None:
    """Takes out what does not fit the schema, so that the rest can still be checked.

    An unknown key goes alone; else the whole entry goes (an application where it is one), for half an entry would
    only give further problems that are none.
    """
    path = fault.path
    if not fault.is_unknown_key:
        depth = _ENTRY_DEPTHS.get(str(path[0]), 1) if path else 0
        if path[:1] == ("organizations",) and path[2:3] == ("applications",):
            depth = 4
        path = path[:depth]
    if not path:
        root.clear()
        return
    container: Value = root
    for step in path[:-1]:
        container = _step_into(container, step)
    if isinstance(container, dict):
        container.pop(path[-1], None)


def _step_into(container: Value, step: str | int) -> Value:
    """What stands at a key or an index; None where nothing does, as after an entry around it was taken out."""
    match container, step:
        case dict(), str():
            return container.get(step)
        case list(), int() if step < len(container):
            return container[step]
        case _:
            return None
