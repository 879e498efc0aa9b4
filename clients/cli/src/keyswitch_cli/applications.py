"""The programs that call: their models, who pays for them, and the keys that they are bound to."""

from __future__ import annotations

from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from keyswitch.router.v1 import application_service_pb2, configuration_pb2, payer_pb2
from keyswitch_client.options import enum_value

from keyswitch_cli import tables, words
from keyswitch_cli.session import Json, Session, Yes, confirm, session_of

app = typer.Typer(name="applications", help="See and change the programs that call.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Id or whole name.")]
OverrideFile = Annotated[
    bool, typer.Option("--override-file", help="Change it although the configuration file fixes it.")
]


@app.command("list")
def list_applications(context: typer.Context, is_json: Json = False) -> None:
    """List an organization's applications."""
    session = session_of(context, is_json=is_json)
    whole = application_service_pb2.ListApplicationsResponse()
    token = ""
    while True:
        request = application_service_pb2.ListApplicationsRequest(
            parent=session.settings.require_organization(), page_size=1000, page_token=token
        )
        page = session.client.call(session.client.applications.ListApplications, request)
        whole.applications.extend(page.applications)
        token = page.next_page_token
        if not token:
            break
    if session.is_json:
        session.print_json(whole)
        return
    table = tables.listing("application", "default model", "payers", "native provider", "from", long=("payers",))
    for one in whole.applications:
        table.add_row(
            words.last(one.name), one.default_model or "-", _payers(one), words.last(one.native_provider) or "-",
            source_word(one.source),
        )  # fmt: skip
    session.out.print(table)


@app.command("show")
def show(context: typer.Context, name: Name, is_json: Json = False) -> None:
    """Show an application."""
    session = session_of(context, is_json=is_json)
    request = application_service_pb2.GetApplicationRequest(name=session.settings.application(name))
    answer = session.client.call(session.client.applications.GetApplication, request)
    _print(session, answer, answer.application)


@app.command("set")
def set_application(
    context: typer.Context,
    name: Name,
    default_model: Annotated[str | None, typer.Option("--model", help="Default model; empty for none.")] = None,
    payer: Annotated[list[str] | None, typer.Option(help="Who pays, in this order. May be repeated.")] = None,
    allow: Annotated[list[str] | None, typer.Option(help="Allowed model or pattern. May be repeated.")] = None,
    native: Annotated[str | None, typer.Option("--native-provider", help="A provider's id; empty for none.")] = None,
    byok: Annotated[bool | None, typer.Option("--byok/--no-byok", help="Whether own keys are used.")] = None,
    override_file: OverrideFile = False,
    is_json: Json = False,
) -> None:
    """Change an application, or make it where there is none."""
    session = session_of(context, is_json=is_json)
    whole = session.settings.application(name)
    given = application_service_pb2.Application(name=whole, is_byok_supported=byok)
    paths = ["is_byok_supported"] if byok is not None else []
    if default_model is not None:
        given.default_model = default_model
        paths.append("default_model")
    if payer is not None:
        given.payers.extend(enum_value(payer_pb2.Payer, "PAYER_", one) for one in payer)
        paths.append("payers")
    if allow is not None:
        given.allowed_models.extend(allow)
        paths.append("allowed_models")
    if native is not None:
        given.native_provider = native if not native or "/" in native else f"providers/{native}"
        paths.append("native_provider")
    known = application_service_pb2.ListApplicationsRequest(parent=whole.partition("/applications/")[0], page_size=1000)
    listed = session.client.call(session.client.applications.ListApplications, known)
    if all(one.name != whole for one in listed.applications):
        parent, _, application_id = whole.partition("/applications/")
        create = application_service_pb2.CreateApplicationRequest(
            parent=parent, application_id=application_id, application=given
        )
        made = session.client.call(session.client.applications.CreateApplication, create)
        _print(session, made, made.application)
        return
    update = application_service_pb2.UpdateApplicationRequest(
        application=given, update_mask=FieldMask(paths=paths), override_file=override_file
    )
    answer = session.client.call(session.client.applications.UpdateApplication, update)
    _print(session, answer, answer.application)


@app.command("bind")
def bind(
    context: typer.Context,
    name: Name,
    credential: Annotated[str, typer.Argument(help="A credential of the organization: id or whole name.")],
    payer: Annotated[str, typer.Option(help="Whose binding it is.")] = "ORGANIZATION_KEY",
    override_file: OverrideFile = False,
    is_json: Json = False,
) -> None:
    """Name the key that a payer uses in an application; calls use it from the next one on."""
    session = session_of(context, is_json=is_json)
    request = application_service_pb2.BindCredentialRequest(
        application=session.settings.application(name),
        binding=application_service_pb2.CredentialBinding(
            payer=enum_value(payer_pb2.Payer, "PAYER_", payer),
            credential=session.settings.credential(credential, "organization"),
        ),
        override_file=override_file,
    )
    answer = session.client.call(session.client.applications.BindCredential, request)
    _print(session, answer, answer.application)


@app.command("unbind")
def unbind(
    context: typer.Context,
    name: Name,
    payer: Annotated[str, typer.Option(help="Whose binding it is.")] = "ORGANIZATION_KEY",
    override_file: OverrideFile = False,
    is_json: Json = False,
) -> None:
    """Take a binding back."""
    session = session_of(context, is_json=is_json)
    request = application_service_pb2.UnbindCredentialRequest(
        application=session.settings.application(name),
        payer=enum_value(payer_pb2.Payer, "PAYER_", payer),
        override_file=override_file,
    )
    answer = session.client.call(session.client.applications.UnbindCredential, request)
    _print(session, answer, answer.application)


@app.command("delete")
def delete(context: typer.Context, name: Name, yes: Yes = False) -> None:
    """Remove what is stored of an application; what the configuration file says of it is in force again."""
    session = session_of(context)
    whole = session.settings.application(name)
    confirm(session, f"Delete {whole}?", yes=yes)
    request = application_service_pb2.DeleteApplicationRequest(name=whole)
    session.client.call(session.client.applications.DeleteApplication, request)
    session.say(f"✓ {whole} is deleted", "green")


def source_word(source: configuration_pb2.ConfigurationSource.ValueType) -> str:
    """Where what is in force comes from."""
    return words.enum_word(configuration_pb2.ConfigurationSource, source, "CONFIGURATION_SOURCE_")


def _payers(one: application_service_pb2.Application) -> str:
    return ", ".join(words.payer(payer) for payer in one.payers) or "USER_KEY, ORGANIZATION_KEY, SHARED_KEY"


Answer = (
    application_service_pb2.GetApplicationResponse
    | application_service_pb2.CreateApplicationResponse
    | application_service_pb2.UpdateApplicationResponse
    | application_service_pb2.BindCredentialResponse
    | application_service_pb2.UnbindCredentialResponse
)


def _print(session: Session, answer: Answer, one: application_service_pb2.Application) -> None:
    if session.is_json:
        session.print_json(answer)
        return
    bindings = ", ".join(f"{words.payer(binding.payer)} = {binding.credential}" for binding in one.bindings)
    rows = [
        ("application", one.name),
        ("from", source_word(one.source)),
        ("default model", one.default_model),
        ("allowed models", ", ".join(one.allowed_models) or "all"),
        ("payers", _payers(one)),
        ("native provider", one.native_provider),
        ("own keys", "used" if one.is_byok_supported or not one.HasField("is_byok_supported") else "not used"),
        ("bindings", bindings),
        ("fallbacks", ", ".join(route.model for route in one.fallbacks)),
    ]
    session.out.print(tables.sheet(rows))
