"""What takes a key out of use: within 2 s everywhere, and at once in the streams that use it when asked."""

from __future__ import annotations

from typing import Annotated

import typer
from keyswitch.vault.v1 import credential_service_pb2

from keyswitch_cli.problem import Problem
from keyswitch_cli.session import Json, Note, OverrideEnvironment, Owner, Session, Yes, confirm, session_of

Key = Annotated[str, typer.Argument(help="A key's id, or its whole name as `keyswitch keys list` shows it.")]
Kill = Annotated[bool, typer.Option("--kill-in-flight", help="Also cut the answers that use it right now.")]
Locally = Annotated[
    bool, typer.Option("--deny-locally", help="Stop it at the answering instance even if Vault cannot be written.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("disable")(disable)
    app.command("enable")(enable)
    app.command("destroy")(destroy)
    app.command("delete")(delete)
    app.command("revoke-all")(revoke_all)


def disable(
    context: typer.Context,
    key: Key,
    version: Annotated[str, typer.Option(help="Only this version.", show_default=False)] = "",
    owner: Owner = None,
    kill_in_flight: Kill = False,
    deny_locally: Locally = False,
    note: Note = "",
    override_environment: OverrideEnvironment = False,
    is_json: Json = False,
) -> None:
    """Stop using a key, or one version of it, until it is enabled or activated again."""
    session = session_of(context, is_json=is_json)
    name = session.settings.credential(key, owner)
    revocation = _revocation(kill_in_flight, deny_locally, note)
    stub = session.client.credentials
    if version:
        version_request = credential_service_pb2.DisableCredentialVersionRequest(
            name=f"{name}/versions/{version}", revocation=revocation, override_environment=override_environment
        )
        version_answer = session.client.call(stub.DisableCredentialVersion, version_request)
        _done(session, version_answer, f"version {version} of {name} is disabled", version_answer.is_local_only)
        return
    request = credential_service_pb2.DisableCredentialRequest(
        name=name, revocation=revocation, override_environment=override_environment
    )
    answer = session.client.call(stub.DisableCredential, request)
    _done(session, answer, f"{name} is disabled: no call uses it from now on", answer.is_local_only)


def enable(
    context: typer.Context,
    key: Key,
    owner: Owner = None,
    override_environment: OverrideEnvironment = False,
    is_json: Json = False,
) -> None:
    """Use a disabled key again."""
    session = session_of(context, is_json=is_json)
    request = credential_service_pb2.EnableCredentialRequest(
        name=session.settings.credential(key, owner), override_environment=override_environment
    )
    answer = session.client.call(session.client.credentials.EnableCredential, request)
    active = answer.credential.active_version
    _done(session, answer, f"{answer.credential.name} is enabled" + ("" if active else ", but has no active version"))


def destroy(
    context: typer.Context,
    key: Key,
    version: Annotated[str, typer.Option(help="The version whose value is destroyed.")],
    owner: Owner = None,
    kill_in_flight: Kill = False,
    deny_locally: Locally = False,
    note: Note = "",
    override_environment: OverrideEnvironment = False,
    yes: Yes = False,
    is_json: Json = False,
) -> None:
    """Destroy the value of one version. Cannot be undone."""
    session = session_of(context, is_json=is_json)
    name = f"{session.settings.credential(key, owner)}/versions/{version}"
    confirm(session, f"Destroy the value of {name} for good?", yes=yes)
    request = credential_service_pb2.DestroyCredentialVersionRequest(
        name=name,
        revocation=_revocation(kill_in_flight, deny_locally, note),
        override_environment=override_environment,
    )
    answer = session.client.call(session.client.credentials.DestroyCredentialVersion, request)
    _done(session, answer, f"the value of {name} is destroyed", answer.is_local_only)


def delete(
    context: typer.Context,
    key: Key,
    owner: Owner = None,
    kill_in_flight: Kill = False,
    deny_locally: Locally = False,
    note: Note = "",
    override_environment: OverrideEnvironment = False,
    yes: Yes = False,
    is_json: Json = False,
) -> None:
    """Delete a key with all its versions. Cannot be undone."""
    session = session_of(context, is_json=is_json)
    name = session.settings.credential(key, owner)
    confirm(session, f"Delete {name} and destroy all its values for good?", yes=yes)
    request = credential_service_pb2.DeleteCredentialRequest(
        name=name,
        revocation=_revocation(kill_in_flight, deny_locally, note),
        override_environment=override_environment,
    )
    answer = session.client.call(session.client.credentials.DeleteCredential, request)
    _done(session, answer, f"{name} is deleted", answer.is_local_only)


def revoke_all(
    context: typer.Context,
    whose: Annotated[
        str, typer.Argument(help="deployment, organization, me, a user's id, or a whole name.", show_default=False)
    ] = "",
    owner: Annotated[str, typer.Option("--owner", help="The same.", show_default=False)] = "",
    kill_in_flight: Kill = False,
    deny_locally: Locally = False,
    note: Note = "",
    yes: Yes = False,
    is_json: Json = False,
) -> None:
    """Break the glass: disable every key of an owner and of those below it, at once."""
    session = session_of(context, is_json=is_json)
    if bool(whose) == bool(owner):  # never by itself the token's own: in a hurry that may be everybody
        raise Problem("Say whose keys: once.", advice="keyswitch keys revoke-all organizations/ID")
    parent = session.settings.owner(whose or owner)
    confirm(session, f"Disable every key of {parent} and of those below it?", yes=yes)
    request = credential_service_pb2.RevokeAllCredentialsRequest(
        parent=parent, revocation=_revocation(kill_in_flight, deny_locally, note)
    )
    answer = session.client.call(session.client.credentials.RevokeAllCredentials, request)
    text = f"{answer.disabled_count} keys of {parent} are disabled; `keyswitch keys enable KEY` brings each back"
    _done(session, answer, text, answer.is_local_only)


def _revocation(kill_in_flight: bool, deny_locally: bool, note: str) -> credential_service_pb2.Revocation:
    return credential_service_pb2.Revocation(kill_in_flight=kill_in_flight, deny_locally=deny_locally, note=note)


def _done(
    session: Session,
    answer: credential_service_pb2.DisableCredentialResponse
    | credential_service_pb2.DisableCredentialVersionResponse
    | credential_service_pb2.EnableCredentialResponse
    | credential_service_pb2.DestroyCredentialVersionResponse
    | credential_service_pb2.DeleteCredentialResponse
    | credential_service_pb2.RevokeAllCredentialsResponse,
    text: str,
    is_local_only: bool = False,
) -> None:
    if session.is_json:
        session.print_json(answer)
        return
    session.say(f"✓ {text}", "green")
    if is_local_only:
        session.say("! So far only at the instance that answered: Vault cannot be written now.", "yellow")
