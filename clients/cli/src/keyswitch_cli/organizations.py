"""Tenants, and what they are allowed."""

from __future__ import annotations

from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from keyswitch.router.v1 import organization_service_pb2, payer_pb2
from keyswitch_client.options import enum_value

from keyswitch_cli import tables, words
from keyswitch_cli.applications import OverrideFile, source_word
from keyswitch_cli.session import Json, session_of

app = typer.Typer(name="organizations", help="See and change tenants.", no_args_is_help=True)


@app.command("list")
def list_organizations(context: typer.Context, is_json: Json = False) -> None:
    """List the organizations that you may see."""
    session = session_of(context, is_json=is_json)
    request = organization_service_pb2.ListOrganizationsRequest(page_size=1000)
    answer = session.client.call(session.client.organizations.ListOrganizations, request)
    if session.is_json:
        session.print_json(answer)
        return
    table = tables.listing("organization", "default model", "users", "from", long=("users",))
    for one in answer.organizations:
        table.add_row(words.last(one.name), one.default_model or "-", ", ".join(one.users), source_word(one.source))
    session.out.print(table)


@app.command("create")
def create(
    context: typer.Context,
    organization_id: Annotated[str, typer.Argument(help="Its id.")],
    user: Annotated[list[str] | None, typer.Option(help="A user's id. May be repeated.")] = None,
    model: Annotated[str, typer.Option("--model", help="Default model.", show_default=False)] = "",
) -> None:
    """Make an organization. Only the operator may."""
    session = session_of(context)
    organization = organization_service_pb2.Organization(users=user or [], default_model=model)
    request = organization_service_pb2.CreateOrganizationRequest(
        organization_id=organization_id, organization=organization
    )
    answer = session.client.call(session.client.organizations.CreateOrganization, request)
    session.say(f"✓ made {answer.organization.name}", "green")


@app.command("policy")
def policy(
    context: typer.Context,
    markup: Annotated[int | None, typer.Option(help="Basis points added to list prices; 100 is 1 %.")] = None,
    payer: Annotated[list[str] | None, typer.Option(help="A payer that its applications may have.")] = None,
    overrides: Annotated[
        bool | None, typer.Option("--personal-overrides/--no-personal-overrides", help="Whether users' own count.")
    ] = None,
    override_file: OverrideFile = False,
    is_json: Json = False,
) -> None:
    """Show what the organization is allowed; with options, change it."""
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
    ]
    session.out.print(tables.sheet(rows))
