"""ConfigurationService: the configuration as a document, given out and taken in as one change."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keyswitch.router.v1 import configuration_service_pb2, configuration_service_pb2_grpc

from router_service.catalog.catalog import Snapshot
from router_service.catalog.document import Document, Value, parse_document
from router_service.catalog.draft import Draft
from router_service.catalog.interchange import Change, Entries, etag_of, gather, lay_in, split
from router_service.catalog.problems import ConfigurationError, Mark, Path, Problem, show_path
from router_service.catalog.schema import check_schema
from router_service.catalog.yaml_text import write_yaml
from router_service.core.caller import Caller
from router_service.core.faults import Fault, Reason, invalid
from router_service.transport.access import demand_operator
from router_service.transport.editor import Editor
from router_service.transport.interceptors.identity import caller
from router_service.transport.provider_servicer import demand_owner, find_owner

_NO_PLACE = Mark(0, 0)
_ADMINISTRATORS = frozenset({"display_name", "default_model", "users", "personal_overrides_enabled"})
"""What of an organization its administrators may change; the rest bounds them, and is the operator's."""
_MOST_NAMED = 5


class ConfigurationServicer(configuration_service_pb2_grpc.ConfigurationServiceServicer):
    """Exports and imports."""

    def __init__(self, snapshot: Callable[[], Snapshot], editor: Editor) -> None:
        self._snapshot = snapshot
        self._editor = editor

    async def ExportConfiguration(  # noqa: N802 # gRPC's name
        self, request: configuration_service_pb2.ExportConfigurationRequest, context: Any
    ) -> configuration_service_pb2.ExportConfigurationResponse:
        """As it is in force."""
        scope = self._scope(request.parent)
        draft = self._editor.view()
        text = await asyncio.to_thread(write_yaml, gather(draft.merged(), scope))
        return configuration_service_pb2.ExportConfigurationResponse(yaml=text, etag=etag_of(draft, scope))

    async def ImportConfiguration(  # noqa: N802 # gRPC's name
        self, request: configuration_service_pb2.ImportConfigurationRequest, context: Any
    ) -> configuration_service_pb2.ImportConfigurationResponse:
        """All of it, or nothing."""
        scope, who = self._scope(request.parent), caller()
        document = await asyncio.to_thread(_read, request.yaml)
        self._check_scope(document, scope)
        entries, changes = split(document.value), list[Change]()

        def edit(draft: Draft) -> None:
            if request.etag and request.etag != etag_of(draft, scope):
                message = f"{request.parent} has changed since you read it; export it again and repeat your change."
                raise Fault(Reason.ETAG_MISMATCH, message, metadata={"name": request.parent})
            changes[:] = lay_in(draft, entries, scope, is_rest_removed=request.is_rest_removed)
            _check_rights(changes, who)
            fixed = [show_path(change.path) for change in changes if change.is_fixed]
            if fixed and not (request.override_file or request.validate_only):
                raise _fixed(fixed)

        def explain(problems: Sequence[Problem]) -> Fault:
            return _unfit(document, problems)

        if request.validate_only:
            draft = await self._editor.try_out(edit, explain)
        else:
            draft = await self._editor.change(edit, explain=explain)
        return configuration_service_pb2.ImportConfigurationResponse(
            changes=map(_show, changes), etag=etag_of(draft, scope)
        )

    def _scope(self, parent: str) -> Path:
        if not parent:
            raise invalid("parent", "Write deployment or organizations/{organization}.")
        owner = find_owner(parent, caller(), self._snapshot(), "parent")
        demand_owner(owner, caller())
        return owner.base

    def _check_scope(self, document: Document, scope: Path) -> None:
        """Refuses what is not the parent's, and another name of the deployment."""
        entries: Entries = split(document.value)
        for path in (*entries.stated, *entries.containers):
            if path[: len(scope)] != scope:
                message = f"is not in {'/'.join(map(str, scope))}; leave it out, or import to the deployment"
                raise _unfit(document, [document.problem(path, message, of_key=True)])
        name = document.value.get("deployment", {}).get("name")
        if name not in (None, self._snapshot().deployment):
            message = "is in every caller's token, so only the configuration file changes it; leave it out"
            raise _unfit(document, [document.problem(("deployment", "name"), message)])


def _read(text: str) -> Document:
    try:
        document = parse_document(text, "")
    except ConfigurationError as error:
        raise _unfit(Document(""), error.problems) from None
    problems = [fault.problem for fault in check_schema(document)]
    if problems:
        raise _unfit(document, problems)
    return document


def _check_rights(changes: Sequence[Change], who: Caller) -> None:
    """Each change has to be one that the caller may make by itself."""
    for change in changes:
        if change.path[0] != "organizations" or (len(change.path) == 2 and _is_operators(change)):
            demand_operator(who)


def _is_operators(change: Change) -> bool:
    before, after = change.before, change.after
    if before is None or after is None:
        return True  # organizations come and go by the operator
    return not {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} <= _ADMINISTRATORS


def _fixed(paths: Sequence[str]) -> Fault:
    named = ", ".join(paths[:_MOST_NAMED]) + (f" and {len(paths) - _MOST_NAMED} more" if paths[_MOST_NAMED:] else "")
    message = (
        f"The configuration file fixes {named}; change it there, or set override_file to store another one. Nothing "
        "was changed."
    )
    return Fault(Reason.RESOURCE_FIXED, message, metadata={"name": paths[0]})


def _unfit(document: Document, problems: Sequence[Problem]) -> Fault:
    """Problems as fields, each with its place in the document where it has one there."""
    marks = {show_path(path): mark for path, mark in (document.keys | document.values).items()}
    # What does not fit the rest is placed in the router's file; for the caller the document's places count.
    placed = [
        (problem.mark if problem.source == document.source else _find_mark(marks, problem.path), problem)
        for problem in problems
    ]
    fields: dict[str, str] = {}
    for mark, problem in sorted(placed, key=lambda found: found[0]):
        place = "" if mark == _NO_PLACE else f"line {mark.line}, column {mark.column}: "
        fields.setdefault(problem.path or "yaml", f"{place}{problem.message}"[:256])
    field, message = next(iter(fields.items()))
    more = f" There are {len(fields) - 1} more." if len(fields) > 1 else ""
    text = f"{field}: {message}.{more} Nothing was changed."
    return Fault(Reason.INVALID_REQUEST, text, metadata={"field": field}, fields=fields)


def _find_mark(marks: Mapping[str, Mark], path: str) -> Mark:
    above = [key for key in marks if path == key or path.startswith((f"{key}.", f"{key}["))]
    return marks[max(above, key=len)] if above else _NO_PLACE


def _show(change: Change) -> configuration_service_pb2.ConfigurationChange:
    kind = "REMOVED" if change.is_removed else "ADDED" if change.before is None else "CHANGED"
    return configuration_service_pb2.ConfigurationChange(
        path=show_path(change.path),
        kind=configuration_service_pb2.ConfigurationChangeKind.Value(f"CONFIGURATION_CHANGE_KIND_{kind}"),
        before_yaml=_text(change.before),
        after_yaml=_text(change.after),
        is_fixed=change.is_fixed,
    )


def _text(value: Value) -> str:
    return "" if value is None else write_yaml(value)
