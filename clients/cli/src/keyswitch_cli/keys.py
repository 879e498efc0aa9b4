"""The keys of providers: their whole life, from the first value to the last trace."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer
from keyswitch.router.v1 import credential_test_service_pb2
from keyswitch.vault.v1 import credential_pb2, credential_service_pb2

from keyswitch_cli import key_add, key_revocation, key_update, key_views, words
from keyswitch_cli.key_input import AwsRegion, FromFile, read_key
from keyswitch_cli.key_versions import Version, find_version, list_versions
from keyswitch_cli.problem import EXIT_REFUSED
from keyswitch_cli.session import Json, OverrideEnvironment, Owner, session_of

app = typer.Typer(name="keys", help="Provider keys: add, test, rotate, revoke.", no_args_is_help=True)
app.command("add")(key_add.add)
app.command("update")(key_update.update)
key_revocation.register(app)

Key = Annotated[str, typer.Argument(help="A key's id, or its whole name as `keyswitch keys list` shows it.")]


class Kind(Enum):
    """The kinds of credentials."""

    API_KEY = "api-key"
    AWS = "aws"
    OAUTH = "oauth"
    AZURE_ENTRA = "azure-entra"
    GOOGLE_SERVICE_ACCOUNT = "google-service-account"


@app.command("create")
def create(
    context: typer.Context,
    key: Key,
    provider: Annotated[str, typer.Option(help="A provider's id, as `keyswitch providers` lists them.")],
    owner: Owner = None,
    plan: key_add.Plan = "",
    origin: key_add.Origin = None,
    kind: Annotated[Kind, typer.Option(help="What it will hold.")] = Kind.API_KEY,
    override_environment: OverrideEnvironment = False,
    is_json: Json = False,
) -> None:
    """Create a key without a value."""
    session = session_of(context, is_json=is_json)
    name = session.settings.credential(key, owner)
    found = key_add.find_provider(session, provider)
    value = credential_pb2.CredentialKind.Value("CREDENTIAL_KIND_" + kind.name)
    answer = key_add.create(session, name, found, plan=plan, origins=origin, kind=value, is_over=override_environment)
    if session.is_json:
        session.print_json(answer)
        return
    session.out.print(answer.credential.name, soft_wrap=True)
    session.say(f"It has no value yet: keyswitch keys add-version {name}", "dim")


@app.command("add-version")
def add_version(
    context: typer.Context,
    key: Key,
    owner: Owner = None,
    from_file: FromFile = None,
    aws_region: AwsRegion = "",
    override_environment: OverrideEnvironment = False,
    is_json: Json = False,
) -> None:
    """Put a new value in. It is used after it was tested and activated."""
    session = session_of(context, is_json=is_json)
    name = session.settings.credential(key, owner)
    version = key_add.put_in(session, name, read_key(from_file, aws_region), is_over=override_environment)
    if session.is_json:
        session.print_json(version)
        return
    session.out.print(version.name, soft_wrap=True)
    which = f"{name} --version {words.last(version.name)}"
    session.say(f"Next: keyswitch keys test {which} and keyswitch keys activate {which}", "dim")


@app.command("test")
def try_key(
    context: typer.Context,
    key: Key,
    version: Version = "",
    model: key_add.ModelToTest = "",
    owner: Owner = None,
    is_json: Json = False,
) -> None:
    """Try a key against its provider: the active version, or the newest when none is active."""
    session = session_of(context, is_json=is_json)
    name = find_version(session, session.settings.credential(key, owner), version)
    answer = key_add.run_test(session, name, model)
    if session.is_json:
        session.print_json(answer)
    else:
        session.out.print(answer.credential_version, soft_wrap=True)
        key_views.show_test(session, answer)
    if answer.outcome != key_views.PASSED:
        raise typer.Exit(EXIT_REFUSED)


@app.command("activate")
def activate(
    context: typer.Context,
    key: Key,
    version: Version = "newest",
    force: Annotated[bool, typer.Option("--force", help="Although its last test did not pass.")] = False,
    owner: Owner = None,
    override_environment: OverrideEnvironment = False,
    is_json: Json = False,
) -> None:
    """Use a version from now on; the one before runs out."""
    session = session_of(context, is_json=is_json)
    name = find_version(session, session.settings.credential(key, owner), version)
    answer = key_add.activate(session, name, force=force, is_over=override_environment)
    if session.is_json:
        session.print_json(answer)
    else:
        session.say(f"✓ {answer.credential_version.name} is used from now on", "green")


@app.command("list")
def list_keys(
    context: typer.Context,
    owner: Owner = None,
    provider: Annotated[str, typer.Option(help="Only this provider's.", show_default=False)] = "",
    is_json: Json = False,
) -> None:
    """List an owner's keys."""
    session = session_of(context, is_json=is_json)
    parent = session.settings.owner(owner)
    request = credential_service_pb2.ListCredentialsRequest(
        parent=parent, provider=provider if not provider or "/" in provider else f"providers/{provider}"
    )
    whole = session.call_all(session.client.credentials.ListCredentials, request)
    if session.is_json:
        session.print_json(whole)
    elif whole.credentials:
        key_views.show_list(session, whole.credentials)
    else:
        session.say(f"{parent} has no keys. Add one: keyswitch keys add PROVIDER", "yellow")


@app.command("show")
def show(context: typer.Context, key: Key, owner: Owner = None, is_json: Json = False) -> None:
    """Show a key and its versions, without any value."""
    session = session_of(context, is_json=is_json)
    name = session.settings.credential(key, owner)
    request = credential_service_pb2.GetCredentialRequest(name=name)
    answer = session.client.call(session.client.credentials.GetCredential, request)
    versions = list_versions(session, name)
    if session.is_json:
        session.print_json(answer)
    else:
        key_views.show_one(session, answer.credential, versions)


@app.command("status")
def status(
    context: typer.Context,
    application: Annotated[
        str | None, typer.Option("--application", "-a", envvar="KEYSWITCH_APPLICATION", help="Id or whole name.")
    ] = None,
    provider: Annotated[str, typer.Option(help="Only this provider.", show_default=False)] = "",
    is_all: Annotated[bool, typer.Option("--all", help="Providers without a key too.")] = False,
    is_json: Json = False,
) -> None:
    """Show which key each provider would get: a saved one, the shared one or none."""
    session = session_of(context, is_json=is_json)
    request = credential_test_service_pb2.GetKeyStatusRequest(
        application=session.settings.application(application),
        provider=provider if not provider or "/" in provider else f"providers/{provider}",
    )
    answer = session.client.call(session.client.credential_tests.GetKeyStatus, request)
    if session.is_json:
        session.print_json(answer)
    else:
        key_views.show_status(session, answer, is_all=is_all or bool(provider))
