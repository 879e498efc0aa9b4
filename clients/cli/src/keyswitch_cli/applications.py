"""The programs that call: their models, who pays for them, and the keys that they are bound to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from keyswitch.router.v1 import application_service_pb2, payer_pb2, route_policy_pb2
from keyswitch_client import KeyswitchError
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
from keyswitch_cli.limits import limits_of, limits_text, wait_of
from keyswitch_cli.problems import short_reason
from keyswitch_cli.session import Json, Session, Yes, confirm, session_of

app = typer.Typer(name="applications", help="See and change the programs that call.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Id or whole name.")]
Model = Annotated[str | None, typer.Option("--model", help="Default model; empty for none.", show_default=False)]
Payers = Annotated[list[str] | None, typer.Option(help="Who pays, in this order. May be repeated.")]
Failover = Annotated[
    list[str] | None,
    typer.Option("--failover-on", help="What may move the bill to the next payer: RATE_LIMITED, ... Empty for none."),
]
Allowed = Annotated[list[str] | None, typer.Option(help="Allowed model or pattern. May be repeated.")]
Native = Annotated[
    str | None, typer.Option("--native-provider", help="A provider's id; empty for none.", show_default=False)
]
Byok = Annotated[bool | None, typer.Option("--byok/--no-byok", help="Whether own keys are used.")]
Fallbacks = Annotated[
    list[str] | None,
    typer.Option("--fallback", help="MODEL or MODEL@PROVIDER, tried in this order. May be repeated. Empty for none."),
]
Limits = Annotated[
    str | None,
    typer.Option("--limits", help="A minute's, such as requests=60,tokens=500000; empty for none.", show_default=False),
]
QueueWait = Annotated[
    str | None,
    typer.Option(
        "--max-queue-wait",
        help="Seconds that a call waits for a slot before another candidate answers; empty for 2.",
        show_default=False,
    ),
]
DisplayName = Annotated[str | None, typer.Option("--display-name", help="For people.", show_default=False)]


@app.command("list")
def list_applications(context: typer.Context, is_json: Json = False) -> None:
    """List an organization's applications."""
    session = session_of(context, is_json=is_json)
    request = application_service_pb2.ListApplicationsRequest(parent=session.settings.require_organization())
    whole = session.call_all(session.client.applications.ListApplications, request)
    if session.is_json:
        session.print_json(whole)
        return
    table = tables.listing("application", "default model", "payers", "native provider", "from", long=("payers",))
    for one in whole.applications:
        table.add_row(
            words.last(one.name), one.default_model or "-", _payers(one), words.last(one.native_provider) or "-",
            source_word(one.source),
        )  # fmt: skip
    session.show(table, "There is no application: `keyswitch applications create ID` makes one.")


@app.command("show", hidden=True)
@app.command("get")
def show(context: typer.Context, name: Name, is_json: Json = False) -> None:
    """Show an application."""
    session = session_of(context, is_json=is_json)
    _print_named(session, session.settings.application(name))


@app.command("create")
def create(
    context: typer.Context,
    name: Name,
    model: Model = None,
    payer: Payers = None,
    failover: Failover = None,
    allow: Allowed = None,
    native: Native = None,
    byok: Byok = None,
    fallback: Fallbacks = None,
    limits: Limits = None,
    max_queue_wait: QueueWait = None,
    display_name: DisplayName = None,
    file: EntryFile = None,
    is_json: Json = False,
) -> None:
    """Make an application."""
    session = session_of(context, is_json=is_json)
    given, paths = _given(session.settings.application(name), context.params)
    if file is not None:
        refuse_both(paths)
        _put(session, given.name, file, is_new=True)
    else:
        _create(session, given)
    _print_named(session, given.name)


@app.command("update")
def update(
    context: typer.Context,
    name: Name,
    model: Model = None,
    payer: Payers = None,
    failover: Failover = None,
    allow: Allowed = None,
    native: Native = None,
    byok: Byok = None,
    fallback: Fallbacks = None,
    limits: Limits = None,
    max_queue_wait: QueueWait = None,
    display_name: DisplayName = None,
    file: EntryFile = None,
    etag: Etag = "",
    override_file: OverrideFile = False,
    is_json: Json = False,
) -> None:
    """Change what is named, and nothing else. With --file: the whole entry, but for its overrides."""
    session = session_of(context, is_json=is_json)
    given, paths = _given(session.settings.application(name), context.params)
    given.etag = etag
    if file is not None:
        refuse_both(paths)
        _put(session, given.name, file, is_new=False, override_file=override_file)
    else:
        demand_any(paths, "applications update")
        _update(session, given, paths, override_file=override_file)
    _print_named(session, given.name)


@app.command("set")
def set_application(
    context: typer.Context,
    name: Name,
    model: Model = None,
    payer: Payers = None,
    failover: Failover = None,
    allow: Allowed = None,
    native: Native = None,
    byok: Byok = None,
    fallback: Fallbacks = None,
    limits: Limits = None,
    max_queue_wait: QueueWait = None,
    display_name: DisplayName = None,
    override_file: OverrideFile = False,
    is_json: Json = False,
) -> None:
    """Change an application, or make it where there is none."""
    session = session_of(context, is_json=is_json)
    given, paths = _given(session.settings.application(name), context.params)
    if _exists(session, given.name):
        _update(session, given, paths, override_file=override_file)
    else:
        _create(session, given)
    _print_named(session, given.name)


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
def delete(context: typer.Context, name: Name, etag: Etag = "", yes: Yes = False) -> None:
    """Remove what is stored of an application; what the configuration file says of it is in force again."""
    session = session_of(context)
    whole = session.settings.application(name)
    confirm(session, f"Delete {whole}?", yes=yes)
    request = application_service_pb2.DeleteApplicationRequest(name=whole, etag=etag)
    session.client.call(session.client.applications.DeleteApplication, request)
    session.say(f"✓ {whole} is deleted", "green")


def _given(name: str, options: dict[str, Any]) -> tuple[application_service_pb2.Application, list[str]]:
    """What the options say, and the names of the fields that they say it of."""
    given, stated = application_service_pb2.Application(name=name), dict[str, Any]()
    stated["default_model"] = options["model"]
    stated["display_name"] = options["display_name"]
    stated["is_byok_supported"] = options["byok"]
    native: str | None = options["native"]
    stated["native_provider"] = native if not native or "/" in native else f"providers/{native}"
    paths = [field for field, value in stated.items() if value is not None]
    for field in paths:
        setattr(given, field, stated[field])
    causes = payer_pb2.PayerFailoverCause
    for option, field, read in (
        ("payer", "payers", lambda text: enum_value(payer_pb2.Payer, "PAYER_", text)),
        ("failover", "payer_failover_on", lambda text: enum_value(causes, "PAYER_FAILOVER_CAUSE_", text)),
        ("allow", "allowed_models", str),
        ("fallback", "fallbacks", _route),
    ):
        if options[option]:  # an option that may be repeated is an empty list where it is not given
            getattr(given, field).extend(read(text) for text in options[option] if text)
            paths.append(field)
    if options["limits"] is not None:
        if options["limits"]:
            given.limits.CopyFrom(limits_of(options["limits"]))
        paths.append("limits")
    if options["max_queue_wait"] is not None:
        if options["max_queue_wait"]:
            given.max_queue_wait.CopyFrom(wait_of(options["max_queue_wait"]))
        paths.append("max_queue_wait")
    return given, paths


def _exists(session: Session, name: str) -> bool:
    request = application_service_pb2.GetApplicationRequest(name=name)
    try:
        session.client.call(session.client.applications.GetApplication, request)
    except KeyswitchError as error:
        if short_reason(error) != "RESOURCE_NOT_FOUND":
            raise
        return False
    return True


def _route(text: str) -> route_policy_pb2.ModelRoute:
    model, _, provider = text.partition("@")
    name = provider if not provider or "/" in provider else f"providers/{provider}"
    return route_policy_pb2.ModelRoute(model=model, provider=name)


def _create(session: Session, given: application_service_pb2.Application) -> None:
    parent, _, application_id = given.name.partition("/applications/")
    request = application_service_pb2.CreateApplicationRequest(
        parent=parent, application_id=application_id, application=given
    )
    session.client.call(session.client.applications.CreateApplication, request)


def _update(
    session: Session, given: application_service_pb2.Application, paths: list[str], *, override_file: bool
) -> None:
    request = application_service_pb2.UpdateApplicationRequest(
        application=given, update_mask=FieldMask(paths=paths), override_file=override_file
    )
    session.client.call(session.client.applications.UpdateApplication, request)


def _put(session: Session, name: str, file: Path, *, is_new: bool, override_file: bool = False) -> None:
    parent, _, application_id = name.partition("/applications/")
    put_entry(session, parent, ["applications", application_id], file, is_new=is_new, override_file=override_file)


def _payers(one: application_service_pb2.Application) -> str:
    return ", ".join(words.payer(payer) for payer in one.payers) or "USER_KEY, ORGANIZATION_KEY, SHARED_KEY"


Answer = (
    application_service_pb2.GetApplicationResponse
    | application_service_pb2.BindCredentialResponse
    | application_service_pb2.UnbindCredentialResponse
)


def _print_named(session: Session, name: str) -> None:
    request = application_service_pb2.GetApplicationRequest(name=name)
    answer = session.client.call(session.client.applications.GetApplication, request)
    _print(session, answer, answer.application)


def _print(session: Session, answer: Answer, one: application_service_pb2.Application) -> None:
    if session.is_json:
        session.print_json(answer)
        return
    bindings = ", ".join(f"{words.payer(binding.payer)} = {binding.credential}" for binding in one.bindings)
    rows = [
        ("application", one.name),
        ("from", source_word(one.source)),
        ("etag", one.etag),
        ("default model", one.default_model),
        ("allowed models", ", ".join(one.allowed_models) or "all"),
        ("payers", _payers(one)),
        ("native provider", one.native_provider),
        ("own keys", "used" if one.is_byok_supported or not one.HasField("is_byok_supported") else "not used"),
        ("bindings", bindings),
        ("fallbacks", ", ".join(route.model for route in one.fallbacks)),
        ("limits", limits_text(one.limits)),
        ("waits for a slot", words.seconds(one.max_queue_wait) if one.HasField("max_queue_wait") else ""),
    ]
    session.out.print(tables.sheet(rows))
