"""Entries of the configuration: whose they are, and how a file with one is put in its place."""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from keyswitch.router.v1 import configuration_pb2, configuration_service_pb2
from keyswitch_client import KeyswitchError

from keyswitch_cli import words
from keyswitch_cli.problem import Problem
from keyswitch_cli.problems import short_reason
from keyswitch_cli.session import Session

Kind = configuration_service_pb2
OverrideFile = Annotated[
    bool, typer.Option("--override-file", help="Change it although the configuration file fixes it.")
]
EntryFile = Annotated[
    Path | None,
    typer.Option(
        "--file",
        "-f",
        help="The entry in the words of the configuration file, as YAML; - is what comes in. Instead of other options.",
        show_default=False,
    ),
]
Etag = Annotated[str, typer.Option(help="Only if it is still the one with this etag.", show_default=False)]

_PLACE = re.compile(r"line (\d+), column (\d+): (.*)", re.DOTALL)
_SIGNS = {
    Kind.CONFIGURATION_CHANGE_KIND_ADDED: ("+", "green"),
    Kind.CONFIGURATION_CHANGE_KIND_CHANGED: ("~", "yellow"),
    Kind.CONFIGURATION_CHANGE_KIND_REMOVED: ("-", "red"),
}


def source_word(source: configuration_pb2.ConfigurationSource.ValueType) -> str:
    """Where what is in force comes from."""
    return words.enum_word(configuration_pb2.ConfigurationSource, source, "CONFIGURATION_SOURCE_")


def parent_of(session: Session) -> str:
    """Whose entries are meant: the organization's that is named or that the token is of, else the deployment's."""
    return session.settings.organization or "deployment"


def refuse_both(paths: Sequence[str]) -> None:
    """A file and options together would leave open which of them counts."""
    if paths:
        raise Problem("A file says everything of an entry.", advice="Leave --file or the other options out.")


def demand_any(paths: Sequence[str], command: str) -> None:
    """Raises Problem where an update names nothing."""
    if not paths:
        raise Problem("Nothing is to be changed.", advice=f"Say what: `keyswitch {command} --help`.")


def read_text(file: Path) -> str:
    """What a file holds, or what comes in."""
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise Problem(f"{file} cannot be read: {reason}.") from None


def put_entry(
    session: Session,
    parent: str,
    below: Sequence[str],
    file: Path,
    *,
    is_new: bool,
    override_file: bool = False,
) -> None:
    """Makes or changes one entry of a parent from a file, which says nothing of where the entry stands."""
    path = [*(parent.split("/") if parent != "deployment" else ()), *below]
    head = "".join(f"{'  ' * depth}{json.dumps(key)}:\n" for depth, key in enumerate(path))
    indent = "  " * len(path)
    lines = [f"{indent}{line}" if line.strip() not in ("", "---") else "" for line in read_text(file).splitlines()]
    if not any(lines):
        lines = [f"{indent}{{}}"]
    request = configuration_service_pb2.ImportConfigurationRequest(
        parent=parent, yaml=head + "\n".join(lines) + "\n", override_file=override_file
    )
    apply(session, request, file, moved=(len(path), len(indent)), expected=(_show_path(path), is_new))


def apply(
    session: Session,
    request: configuration_service_pb2.ImportConfigurationRequest,
    file: Path,
    *,
    moved: tuple[int, int] = (0, 0),
    expected: tuple[str, bool] | None = None,
    is_dry: bool = False,
) -> configuration_service_pb2.ImportConfigurationResponse:
    """Tries an import, and does exactly what was tried, unless it is only to be tried. Problems name the file's lines.

    `expected` is an entry and whether it has to be new.
    """
    services = session.client.configuration
    if not request.etag:
        export = configuration_service_pb2.ExportConfigurationRequest(parent=request.parent)
        request.etag = session.client.call(services.ExportConfiguration, export).etag
    request.validate_only = True
    try:
        tried = session.client.call(services.ImportConfiguration, request)
        if expected is not None:
            _check(tried, *expected)
        if is_dry:
            return tried
        request.validate_only = False
        return session.client.call(services.ImportConfiguration, request)
    except KeyswitchError as error:
        if session.is_json or short_reason(error) != "INVALID_REQUEST" or not error.field_violations:
            raise
        for violation in error.field_violations:
            session.say(_place(file, violation.field, violation.description, moved), "red")
        count = len(error.field_violations)
        raise Problem(f"{file} has {count} problem{'s' if count > 1 else ''}; nothing was changed.") from None


def _show_path(path: Sequence[str]) -> str:
    """As the service writes it."""
    return "".join(f'["{step}"]' if "." in step else f".{step}" for step in path).removeprefix(".")


def _check(tried: configuration_service_pb2.ImportConfigurationResponse, path: str, is_new: bool) -> None:
    change = next((one for one in tried.changes if one.path == path), None)
    is_added = change is not None and change.kind == Kind.CONFIGURATION_CHANGE_KIND_ADDED
    if is_new and not is_added:
        raise Problem(f"There is {path} already.", advice="Use `update`, or another id.", exit_code=4)
    if not is_new and is_added:
        raise Problem(f"There is no {path}.", advice="Use `create`.", exit_code=4)


def _place(file: Path, field: str, description: str, moved: tuple[int, int]) -> str:
    """A problem as compilers write it: FILE:LINE:COLUMN."""
    found = _PLACE.fullmatch(description)
    subject = "" if field == "yaml" else f"{field}: "
    if found is None:
        return f"{file}: {subject}{description}"
    line, column = int(found[1]) - moved[0], int(found[2]) - moved[1]
    return f"{file}:{max(line, 1)}:{max(column, 1)}: {subject}{found[3]}"


def show_changes(session: Session, changes: Sequence[configuration_service_pb2.ConfigurationChange]) -> None:
    """The differences, as `diff` writes them."""
    for change in changes:
        sign, style = _SIGNS.get(change.kind, ("?", ""))
        note = "   (fixed by the configuration file)" if change.is_fixed else ""
        session.out.print(f"{sign} {change.path}{note}", style=style, markup=False, soft_wrap=True)
        before, after = change.before_yaml.splitlines(), change.after_yaml.splitlines()
        for line in list(difflib.unified_diff(before, after, lineterm="", n=1))[2:]:
            if not line.startswith("@@"):
                colour = {"+": "green", "-": "red"}.get(line[0], "dim")
                session.out.print(f"    {line}", style=colour, markup=False, soft_wrap=True)
