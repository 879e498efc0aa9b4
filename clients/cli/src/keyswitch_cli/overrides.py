"""Models that take the place of a call's own in a context."""

from __future__ import annotations

from typing import Annotated

import typer
from keyswitch.router.v1 import override_service_pb2

from keyswitch_cli import tables, words
from keyswitch_cli.entries import Etag, OverrideFile, source_word
from keyswitch_cli.session import Json, Session, session_of

app = typer.Typer(name="overrides", help="See and set the models of contexts.", no_args_is_help=True)

Context = Annotated[str, typer.Argument(help="What calls are for: general, explore, title, root, ...")]
ApplicationOption = Annotated[
    str | None, typer.Option("--application", "-a", help="Of this application. Default: of you, or the organization.")
]
Everybody = Annotated[bool, typer.Option("--organization-wide", help="Of the organization, not your own.")]


@app.command("list")
def list_overrides(
    context: typer.Context, application: ApplicationOption = None, everybody: Everybody = False, is_json: Json = False
) -> None:
    """List your own overrides, the organization's or an application's."""
    session = session_of(context, is_json=is_json)
    request = override_service_pb2.ListOverridesRequest(parent=_parent(session, application, everybody))
    answer = session.call_all(session.client.overrides.ListOverrides, request)
    if session.is_json:
        session.print_json(answer)
        return
    table = tables.listing("context", "model", "from")
    for one in answer.overrides:
        table.add_row(words.last(one.name), one.model, source_word(one.source))
    session.show(table, "No override is set: `keyswitch overrides set CONTEXT MODEL` sets one.")
    if not answer.is_personal_enabled:
        session.say("Users' own overrides do not count here; an administrator can switch them on.", "dim")


@app.command("get")
def get(
    context: typer.Context,
    wanted: Context,
    application: ApplicationOption = None,
    everybody: Everybody = False,
    is_json: Json = False,
) -> None:
    """Show the override of a context."""
    session = session_of(context, is_json=is_json)
    request = override_service_pb2.GetOverrideRequest(
        name=f"{_parent(session, application, everybody)}/overrides/{wanted}"
    )
    answer = session.client.call(session.client.overrides.GetOverride, request)
    if session.is_json:
        session.print_json(answer)
        return
    one = answer.override
    rows = [("override", one.name), ("model", one.model), ("from", source_word(one.source)), ("etag", one.etag)]
    session.out.print(tables.sheet(rows))


@app.command("create", hidden=True)
@app.command("update", hidden=True)
@app.command("set")
def set_override(
    context: typer.Context,
    wanted: Context,
    model: Annotated[str, typer.Argument(help="Model or alias.")],
    application: ApplicationOption = None,
    everybody: Everybody = False,
    etag: Etag = "",
    override_file: OverrideFile = False,
) -> None:
    """Set the model of a context."""
    session = session_of(context)
    name = f"{_parent(session, application, everybody)}/overrides/{wanted}"
    override = override_service_pb2.Override(name=name, model=model, etag=etag)
    request = override_service_pb2.SetOverrideRequest(override=override, override_file=override_file)
    answer = session.client.call(session.client.overrides.SetOverride, request)
    session.say(f"✓ {answer.override.name} is {answer.override.model}", "green")


@app.command("delete", hidden=True)
@app.command("clear")
def clear(
    context: typer.Context, wanted: Context, application: ApplicationOption = None, everybody: Everybody = False
) -> None:
    """Remove the override of a context."""
    session = session_of(context)
    name = f"{_parent(session, application, everybody)}/overrides/{wanted}"
    session.client.call(session.client.overrides.ClearOverride, override_service_pb2.ClearOverrideRequest(name=name))
    session.say(f"✓ {name} is cleared", "green")


def _parent(session: Session, application: str | None, everybody: bool) -> str:
    if application:
        return session.settings.application(application)
    user = session.settings.identity.user
    return user if user and not everybody else session.settings.require_organization()
