"""The configuration as a whole: out as a file, and in again as one change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from keyswitch.router.v1 import configuration_service_pb2

from keyswitch_cli import entries
from keyswitch_cli.problem import Problem
from keyswitch_cli.session import Json, Yes, confirm, session_of

app = typer.Typer(name="configuration", help="Move the configuration as a file.", no_args_is_help=True)


@app.command("export")
def export(
    context: typer.Context,
    output: Annotated[
        Path | None, typer.Option("--output", "-O", help="A file to write. Default: print it.", show_default=False)
    ] = None,
    is_json: Json = False,
) -> None:
    """Write what is configured as YAML: the deployment's, or that of --organization. Keys are never in it."""
    session = session_of(context, is_json=is_json)
    request = configuration_service_pb2.ExportConfigurationRequest(parent=entries.parent_of(session))
    answer = session.client.call(session.client.configuration.ExportConfiguration, request)
    if session.is_json:
        session.print_json(answer)
        return
    if output is None:
        session.out.print(answer.yaml, markup=False, soft_wrap=True, end="")
        return
    try:
        output.write_text(answer.yaml, encoding="utf-8")
    except OSError as error:
        raise Problem(f"{output} cannot be written: {error.strerror}.") from None
    session.say(f"✓ wrote {output} (etag {answer.etag})", "green")


@app.command("import")
def import_configuration(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A configuration file; - is what comes in.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be changed.")] = False,
    override_file: Annotated[
        bool, typer.Option("--override-file", help="Also change what the router's configuration file fixes.")
    ] = False,
    remove_rest: Annotated[
        bool, typer.Option("--remove-rest", help="Remove what is stored and not in the file.")
    ] = False,
    etag: Annotated[str, typer.Option(help="Only if nothing has changed since this export.", show_default=False)] = "",
    yes: Yes = False,
    is_json: Json = False,
) -> None:
    """Store the entries of a file, as one change: all of them, or none. Each entry of it is taken as a whole."""
    session = session_of(context, is_json=is_json)
    request = configuration_service_pb2.ImportConfigurationRequest(
        parent=entries.parent_of(session),
        yaml=entries.read_text(file),
        etag=etag,
        override_file=override_file,
        is_rest_removed=remove_rest,
    )
    if remove_rest and not dry_run:
        confirm(session, f"Remove what is stored in {request.parent} and not in {file}?", yes=yes)
    answer = entries.apply(session, request, file, is_dry=dry_run)
    if session.is_json:
        session.print_json(answer)
        return
    entries.show_changes(session, answer.changes)
    count = len(answer.changes)
    what = f"{count} {'entry' if count == 1 else 'entries'}"
    if dry_run:
        fixed = sum(change.is_fixed for change in answer.changes)
        session.say(f"{what} would change; nothing was changed.", "bold")
        if fixed and not override_file:
            session.say(f"The configuration file fixes {fixed} of them: this needs --override-file.", "yellow")
    else:
        session.say(f"✓ {what} changed (etag {answer.etag})" if count else "✓ nothing to change", "green")
