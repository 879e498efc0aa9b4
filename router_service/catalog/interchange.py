"""The configuration as entries that are moved one by one: what a document states at which path, and back."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from router_service.catalog.document import Value
from router_service.catalog.draft import Draft, Source
from router_service.catalog.problems import Path
from router_service.catalog.stored import CONTAINED, contained_in

_SECTIONS = ("providers", "models", "deployment_credentials")
_DEPLOYMENT: Path = ("deployment",)


@dataclass(frozen=True, slots=True)
class Entries:
    """What a document states. `containers` are those of which it names only what lies in them."""

    stated: Mapping[Path, Value] = field(default_factory=dict)
    containers: frozenset[Path] = frozenset()

    @property
    def bodies(self) -> dict[Path, Value]:
        """All entries; a container without words of its own is an empty one."""
        return {path: {} for path in self.containers} | dict(self.stated)


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of an entry; None where there is nothing. `is_fixed`: the file alone has it so far."""

    path: Path
    before: Value
    after: Value
    is_fixed: bool = False
    is_removed: bool = False


def split(value: Mapping[str, Value]) -> Entries:
    """The entries of a document that fits the schema. Its notes (`source`, `checked`) are none."""
    stated: dict[Path, Value] = {}
    containers: set[Path] = set()
    for path, body in _walk(value):
        if body is None:
            containers.add(path)
        else:
            stated[path] = body
    return Entries(stated, frozenset(containers))


def _walk(value: Mapping[str, Value]) -> Iterator[tuple[Path, Value]]:
    if own := {key: inner for key, inner in value.get("deployment", {}).items() if key != "name"}:
        yield _DEPLOYMENT, own
    for section in _SECTIONS:
        yield from (((section, key), body) for key, body in value.get(section, {}).items())
    for key, organization in value.get("organizations", {}).items():
        yield from _walk_organization(("organizations", key), organization)


def _walk_organization(path: Path, raw: Mapping[str, Value]) -> Iterator[tuple[Path, Value]]:
    yield path, _own(path, raw)
    for section in ("providers", "models", "overrides"):
        yield from (((*path, section, key), body) for key, body in raw.get(section, {}).items())
    for user, overrides in raw.get("personal_overrides", {}).items():
        yield from (((*path, "personal_overrides", user, key), body) for key, body in overrides.items())
    for key, application in raw.get("applications", {}).items():
        here: Path = (*path, "applications", key)
        yield here, _own(here, application)
        yield from (((*here, "overrides", name), body) for name, body in application.get("overrides", {}).items())


def _own(path: Path, raw: Mapping[str, Value]) -> Value:
    """An entry without what lies in it; None where it says nothing but that."""
    contained = contained_in(path)
    own = {key: value for key, value in raw.items() if key not in contained}
    return own if own or not raw.keys() & contained else None


def gather(value: Mapping[str, Value], scope: Path) -> dict[str, Value]:
    """The part of a configuration that is moved: below a scope, by id, without the deployment's name and notes."""
    if scope:
        organizations = value.get("organizations", {})
        return {"organizations": {key: _arrange(raw) for key, raw in organizations.items() if key == scope[1]}}
    whole = {key: dict(sorted(value[key].items())) for key in _SECTIONS if value.get(key)}
    stated = value.get("deployment", {})
    if deployment := {key: inner for key, inner in stated.items() if key not in CONTAINED["deployment"]}:
        whole = {"deployment": deployment, **whole}
    if value.get("organizations"):
        whole["organizations"] = {key: _arrange(raw) for key, raw in sorted(value["organizations"].items())}
    return whole


def _arrange(raw: Mapping[str, Value]) -> dict[str, Value]:
    """An organization, its own words first: the order of what was stored one by one says nothing."""
    own = {key: inner for key, inner in raw.items() if key not in CONTAINED["organizations"]}
    contained = {key: dict(sorted(raw[key].items())) for key in sorted(CONTAINED["organizations"]) if raw.get(key)}
    return own | contained


def etag_of(draft: Draft, scope: Path) -> str:
    """Changes whenever what is in force or stored below a scope does."""
    stored = sorted(path for path in draft.stored() if path[: len(scope)] == scope)
    text = json.dumps([gather(draft.merged(), scope), stored], sort_keys=True)
    return sha256(text.encode()).hexdigest()[:20]


def lay_in(draft: Draft, entries: Entries, scope: Path, *, is_rest_removed: bool) -> list[Change]:
    """Puts entries into a draft, and says what that changes. With `is_rest_removed` they are all that stays stored."""
    before, sources = split(draft.merged()).bodies, dict[Path, Source]()
    wanted = {path: body for path, body in entries.stated.items() if not _is_same(before.get(path), body)}
    wanted |= {path: {} for path in entries.containers - before.keys()}
    if is_rest_removed:
        named = {path[:length] for path in (*entries.stated, *entries.containers) for length in range(len(path) + 1)}
        wanted |= {path: None for path in draft.stored() if path[: len(scope)] == scope and path not in named}
    for path, body in wanted.items():
        sources[path] = draft.source(path)
        draft.changes[path] = body
    for path in wanted:
        if path[0] == "organizations" and len(path) == 2:
            draft.drop_strangers(path)
    after = split(draft.merged()).bodies
    return [
        Change(path, before.get(path), after.get(path), sources.get(path) is Source.FILE, draft.changes[path] is None)
        for path in sorted(draft.changes)
    ]


def _is_same(one: Value, other: Value) -> bool:
    # Not by ==, for which 1 and true are the same.
    return one is not None and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
