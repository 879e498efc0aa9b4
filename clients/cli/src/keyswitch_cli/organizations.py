"""Tenants, and what they are allowed."""

from __future__ import annotations

from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from keyswitch.router.v1 import organization_service_pb2, payer_pb2
from keyswitch_client.options import enum_value

from keyswitch_cli import tables, words
from keyswitch_cli.entries import (
    EntryFile,
    Etag,
    OverrideFile,
    demand_any,
    put_entry,
    refuse_both,
    source_word,
)
from keyswitch_cli.limits import limits_of, limits_text
from keyswitch_cli.problem import Problem
from keyswitch_cli.session import Json, Session, Yes, confirm, session_of

app = typer.Typer(name="organizations", help="See and change tenants.", no_args_is_help=True)

Organization = Annotated[str, typer.Argument(help="Id or whole name.")]
Users = Annotated[list[str] | None, typer.Option("--user", help="A user's id. May be repeated.")]
AllUsers = Annotated[
    list[str] | None,
    typer.Option(
        "--user", help="All of its users: who is not named is taken out, with own overrides. May be repeated."
    ),
]
NewUsers = Annotated[list[str] | None, typer.Option("--add-user", help="Beside those that it has. May be repeated.")]
OldUsers = Annotated[
    list[str] | None, typer.Option("--remove-user", help="Taken out, with own overrides. May be repeated.")
]
Model = Annotated[str | None, typer.Option("--model", help="Default model.", show_default=False)]
Limits = Annotated[
    str | None,
    typer.Option(
        "--limits",
        help="A minute's of all its calls, such as requests=600,tokens=2000000; empty for none.",
        show_default=False,
    ),
]
UserLimits = Annotated[
    str | None, typer.Option("--user-limits", help="The same of each user, such as requests=60.", show_default=False)
]
TokenLimits = Annotated[str | None, typer.Option("--token-limits", help="The same of each token.", show_default=False)]
DisplayName = Annotated[str | None, typer.Option("--display-name", help="For people.", show_default=False)]


@app.command("list")
def list_organizations(context: typer.Context, is_json: Json = False) -> None:
    """List the organizations that you may see."""
    session = session_of(context, is_json=is_json)
    request = organization_service_pb2.ListOrganizationsRequest()
    answer = session.call_all(session.client.organizations.ListOrganizations, request)
    if session.is_json:
        session.print_json(answer)
        return
    table = tables.listing("organization", "default model", "users", "from", long=("users",))
    for one in answer.organizations:
        table.add_row(words.last(one.name), one.default_model or "-", ", ".join(one.users), source_word(one.source))
    session.show(table, "There is no organization: `keyswitch organizations create ID` makes one.")


@app.command("get")
def get(context: typer.Context, organization: Organization, is_json: Json = False) -> None:
    """Show an organization."""
    session = session_of(context, is_json=is_json)
    _print_named(session, organization)


@app.command("create")
def create(
    context: typer.Context,
    organization_id: Annotated[str, typer.Argument(help="Its id.")],
    user: Users = None,
    model: Model = None,
    display_name: DisplayName = None,
    file: EntryFile = None,
    is_json: Json = False,
) -> None:
    """Make an organization. Only the operator may."""
    session = session_of(context, is_json=is_json)
    given, paths = _given(organization_id, user, model, display_name)
    if file is not None:
        refuse_both(paths)
        put_entry(session, "deployment", ["organizations", organization_id], file, is_new=True)
    else:
        request = organization_service_pb2.CreateOrganizationRequest(
            organization_id=organization_id, organization=given
        )
        session.client.call(session.client.organizations.CreateOrganization, request)
    _print_named(session, organization_id)


@app.command("update")
def update(
    context: typer.Context,
    organization: Organization,
    user: AllUsers = None,
    add_user: NewUsers = None,
    remove_user: OldUsers = None,
    model: Model = None,
    display_name: DisplayName = None,
    file: EntryFile = None,
    etag: Etag = "",
    override_file: OverrideFile = False,
    is_json: Json = False,
) -> None:
    """Change what is named, and nothing else. With --file: the whole entry, but for what lies in it."""
    session = session_of(context, is_json=is_json)
    if add_user or remove_user:
        user, etag = _changed_users(session, organization, user, add_user or [], remove_user or [], etag)
    given, paths = _given(organization, user, model, display_name)
    given.etag = etag
    if file is not None:
        refuse_both(paths)
        parent = session.settings.organization or "deployment"
        key = words.last(given.name)
        below = [] if parent == given.name else ["organizations", key]
        put_entry(session, parent, below, file, is_new=False, override_file=override_file)
    else:
        demand_any(paths, "organizations update")
        request = organization_service_pb2.UpdateOrganizationRequest(
            organization=given, update_mask=FieldMask(paths=paths), override_file=override_file
        )
        session.client.call(session.client.organizations.UpdateOrganization, request)
    _print_named(session, organization)


@app.command("delete")
def delete(context: typer.Context, organization: Organization, etag: Etag = "", yes: Yes = False) -> None:
    """Remove what is stored of an organization and of everything in it. Only the operator may."""
    session = session_of(context)
    whole = _name(organization)
    confirm(session, f"Delete {whole} with its applications, overrides, providers and models?", yes=yes)
    request = organization_service_pb2.DeleteOrganizationRequest(name=whole, etag=etag)
    session.client.call(session.client.organizations.DeleteOrganization, request)
    session.say(f"✓ {whole} is deleted", "green")


@app.command("policy")
def policy(
    context: typer.Context,
    markup: Annotated[int | None, typer.Option(help="Basis points added to list prices; 100 is 1 %.")] = None,
    payer: Annotated[list[str] | None, typer.Option(help="A payer that its applications may have.")] = None,
    overrides: Annotated[
        bool | None, typer.Option("--personal-overrides/--no-personal-overrides", help="Whether users' own count.")
    ] = None,
    limits: Limits = None,
    user_limits: UserLimits = None,
    token_limits: TokenLimits = None,
    override_file: OverrideFile = False,
    is_json: Json = False,
) -> None:
    """Show what the organization is allowed; with options, change it. Markup, payers and limits: only the operator."""
    session = session_of(context, is_json=is_json)
    name = f"{session.settings.require_organization()}/policy"
    given = organization_service_pb2.OrganizationPolicy(name=name)
    paths = []
    if markup is not None:
        given.markup_basis_points = markup
        paths.append("markup_basis_points")
    if payer is not None:
        given.allowed_payers.extend(enum_value(payer_pb2.Payer, "PAYER_", one) for one in payer)
        paths.append("allowed_payers")
    if overrides is not None:
        given.is_personal_override_enabled = overrides
        paths.append("is_personal_override_enabled")
    for field, text in (("limits", limits), ("user_limits", user_limits), ("token_limits", token_limits)):
        if text is not None:
            if text:
                getattr(given, field).CopyFrom(limits_of(text))
            paths.append(field)
    if paths:
        change = organization_service_pb2.SetOrganizationPolicyRequest(
            policy=given, update_mask=FieldMask(paths=paths), override_file=override_file
        )
        session.client.call(session.client.organizations.SetOrganizationPolicy, change)
    request = organization_service_pb2.GetOrganizationPolicyRequest(name=name)
    answer = session.client.call(session.client.organizations.GetOrganizationPolicy, request)
    if session.is_json:
        session.print_json(answer)
        return
    found = answer.policy
    rows = [
        ("markup", f"{found.markup_basis_points / 100:g} %"),
        ("payers", ", ".join(words.payer(one) for one in found.allowed_payers) or "all"),
        ("users' own overrides", "count" if found.is_personal_override_enabled else "do not count"),
        ("users' own keys", "count" if found.is_user_key_enabled else "do not count"),
        ("limits", limits_text(found.limits)),
        ("limits of each user", limits_text(found.user_limits)),
        ("limits of each token", limits_text(found.token_limits)),
    ]
    session.out.print(tables.sheet(rows))


def _name(text: str) -> str:
    return text if "/" in text else f"organizations/{text}"


def _given(
    organization: str, users: list[str] | None, model: str | None, display_name: str | None
) -> tuple[organization_service_pb2.Organization, list[str]]:
    """What the options say, and the names of the fields that they say it of."""
    options = {"users": users, "default_model": model, "display_name": display_name}
    stated = {name: value for name, value in options.items() if value is not None}
    given = organization_service_pb2.Organization(name=_name(organization))
    for name, value in stated.items():
        if isinstance(value, list):
            given.users.extend(value)
        else:
            setattr(given, name, value)
    return given, list(stated)


def _changed_users(
    session: Session, organization: str, stated: list[str] | None, added: list[str], removed: list[str], etag: str
) -> tuple[list[str], str]:
    """All users after the change, and the etag of what it was made from: a change that comes between is not undone."""
    if stated is not None:
        raise Problem("--user names all users, so it goes with neither --add-user nor --remove-user.")
    found = _get(session, organization).organization
    strangers = [one for one in removed if one not in found.users]
    if strangers:
        raise Problem(
            f"{found.name} has no user {strangers[0]}.", advice=f"It has: {', '.join(found.users) or 'none'}."
        )
    users = [one for one in dict.fromkeys([*found.users, *added]) if one not in removed]
    return users, etag or found.etag


def _get(session: Session, organization: str) -> organization_service_pb2.GetOrganizationResponse:
    request = organization_service_pb2.GetOrganizationRequest(name=_name(organization))
    return session.client.call(session.client.organizations.GetOrganization, request)


def _print_named(session: Session, organization: str) -> None:
    answer = _get(session, organization)
    if session.is_json:
        session.print_json(answer)
        return
    one = answer.organization
    rows = [
        ("organization", one.name),
        ("from", source_word(one.source)),
        ("etag", one.etag),
        ("display name", one.display_name),
        ("default model", one.default_model),
        ("users", ", ".join(one.users)),
    ]
    session.out.print(tables.sheet(rows))
