"""`keys add`: create, put the key in, test, activate, step by step and with a way back."""

from __future__ import annotations

import uuid
from typing import Annotated

import grpc
import typer
from keyswitch.router.v1 import credential_test_service_pb2, provider_service_pb2
from keyswitch.vault.v1 import credential_pb2, credential_service_pb2
from keyswitch_client import KeyswitchError

from keyswitch_cli import key_views, words
from keyswitch_cli.key_input import AwsRegion, FromFile, read_key
from keyswitch_cli.problem import EXIT_REFUSED, Problem
from keyswitch_cli.providers import every_provider
from keyswitch_cli.session import Json, OverrideEnvironment, Owner, Session, session_of

Plan = Annotated[str, typer.Option(help="The billing plan that the key belongs to.", show_default=False)]
Origin = Annotated[
    list[str] | None,
    typer.Option(help="Where the key may be sent, scheme://host[:port]. Default: the provider's.", show_default=False),
]
ModelToTest = Annotated[
    str, typer.Option("--model", help="Also try this model; costs a few tokens.", show_default=False)
]


def add(
    context: typer.Context,
    provider: Annotated[str, typer.Argument(help="A provider's id, as `keyswitch providers` lists them.")],
    key_id: Annotated[
        str, typer.Option("--id", help="The key's id. Default: the provider's.", show_default=False)
    ] = "",
    owner: Owner = None,
    plan: Plan = "",
    origin: Origin = None,
    model: ModelToTest = "",
    from_file: FromFile = None,
    aws_region: AwsRegion = "",
    override_environment: OverrideEnvironment = False,
    is_json: Json = False,
) -> None:
    """Add a key: create it, put the value in, test it, activate it. An existing one gets a new version."""
    session = session_of(context, is_json=is_json)
    parent = session.settings.owner(owner)
    found = find_provider(session, provider)
    warn(session, found)
    name = f"{parent}/credentials/{key_id or words.last(found.name)}"
    material = read_key(from_file, aws_region)
    is_over = override_environment
    was_made = ensure(session, name, found, plan=plan, origins=origin, kind=kind_of(material), is_over=is_over)
    version = put_in(session, name, material, undo=was_made, is_over=is_over)
    try:
        test = run_test(session, version.name, model)
    except KeyswitchError:
        _explain_kept(session, name, version)
        raise
    key_views.show_test(session, test)
    if test.outcome != key_views.PASSED:
        _explain_kept(session, name, version)
        raise typer.Exit(EXIT_REFUSED)
    activated = activate(session, version.name, force=False, is_over=is_over)
    session.say("✓ activated: calls use it from now on", "green")
    if session.is_json:
        session.print_json(activated)
    else:
        session.out.print(activated.credential_version.name, soft_wrap=True)


def find_provider(session: Session, text: str) -> provider_service_pb2.Provider:
    """The provider that an id or a name means."""
    known = every_provider(session).providers
    for provider in known:
        if text in (provider.name, words.last(provider.name)):
            return provider
    ids = ", ".join(words.last(provider.name) for provider in known)
    raise Problem(f"There is no provider {text!r}.", advice=f"Known are: {ids}.", exit_code=EXIT_REFUSED)


def warn(session: Session, provider: provider_service_pb2.Provider) -> None:
    """Says what the plan's terms mean for the key's owner, before the key is typed."""
    plan = provider.plan
    if plan.warning:
        session.say(f"! {plan.display_name}: {plan.warning}", "yellow")
    if plan.HasField("default_max_concurrent_requests"):
        highest = plan.highest_max_concurrent_requests
        most = f", the plan reaches {highest}" if highest else ""
        session.say(f"· requests at once: {plan.default_max_concurrent_requests}{most}")


def ensure(
    session: Session,
    name: str,
    provider: provider_service_pb2.Provider,
    *,
    plan: str,
    origins: list[str] | None,
    kind: credential_pb2.CredentialKind.ValueType = credential_pb2.CREDENTIAL_KIND_API_KEY,
    is_over: bool = False,
) -> bool:
    """Makes the credential unless it is there; tells whether it did."""
    try:
        create(session, name, provider, plan=plan, origins=origins, kind=kind, is_over=is_over)
    except KeyswitchError as error:
        if error.reason != "ERROR_REASON_CREDENTIAL_EXISTS":
            raise
    else:
        session.say(f"✓ created {name}", "green")
        return True
    request = credential_service_pb2.GetCredentialRequest(name=name)
    there = session.client.call(session.client.credentials.GetCredential, request).credential
    if there.provider != provider.name:
        raise Problem(
            f"{name} is there already, for {words.last(there.provider)}.",
            advice="Give the new one another id with --id.",
            exit_code=EXIT_REFUSED,
        )
    session.say(f"· {name} is there already: it gets a new version")
    return False


def create(
    session: Session,
    name: str,
    provider: provider_service_pb2.Provider,
    *,
    plan: str,
    origins: list[str] | None,
    kind: credential_pb2.CredentialKind.ValueType = credential_pb2.CREDENTIAL_KIND_API_KEY,
    is_over: bool = False,
) -> credential_service_pb2.CreateCredentialResponse:
    """Makes a credential without a value. `is_over`: although the environment fixes it."""
    parent, _, credential_id = name.rpartition("/credentials/")
    request = credential_service_pb2.CreateCredentialRequest(
        parent=parent,
        credential_id=credential_id,
        credential=credential_pb2.Credential(
            provider=provider.name,
            kind=kind,
            plan=plan or provider.plan.plan,
            allowed_origins=origins or [provider.origin],
            max_concurrent_requests=provider.plan.default_max_concurrent_requests or None,
        ),
        request_id=str(uuid.uuid4()),
        override_environment=is_over,
    )
    return session.client.call(session.client.credentials.CreateCredential, request)


def kind_of(material: credential_pb2.SecretMaterial) -> credential_pb2.CredentialKind.ValueType:
    """The kind of a credential that holds this."""
    return _KINDS.get(material.WhichOneof("material") or "", credential_pb2.CREDENTIAL_KIND_API_KEY)


_KINDS = {
    "aws": credential_pb2.CREDENTIAL_KIND_AWS,
    "oauth": credential_pb2.CREDENTIAL_KIND_OAUTH,
    "entra": credential_pb2.CREDENTIAL_KIND_AZURE_ENTRA,
    "google_service_account": credential_pb2.CREDENTIAL_KIND_GOOGLE_SERVICE_ACCOUNT,
}


def put_in(
    session: Session, name: str, material: credential_pb2.SecretMaterial, *, undo: bool = False, is_over: bool = False
) -> credential_pb2.CredentialVersion:
    """Adds the value. When it is refused, a credential that was made for it is taken away again."""
    request = credential_service_pb2.AddCredentialVersionRequest(
        parent=name, secret_material=material, request_id=str(uuid.uuid4()), override_environment=is_over
    )
    try:
        answer = session.client.call(session.client.credentials.AddCredentialVersion, request)
    except KeyswitchError as error:
        if undo and error.code is grpc.StatusCode.INVALID_ARGUMENT:
            note = credential_service_pb2.Revocation(note="its first value was refused")
            delete = credential_service_pb2.DeleteCredentialRequest(
                name=name, revocation=note, override_environment=is_over
            )
            session.client.call(session.client.credentials.DeleteCredential, delete)
            session.say(f"· {name} was taken away again")
        raise
    version = answer.credential_version
    ending = f" ({version.fingerprint})" if version.fingerprint else ""
    session.say(f"✓ stored version {words.last(version.name)}{ending}, encrypted", "green")
    return version


def run_test(session: Session, version: str, model: str) -> credential_test_service_pb2.TestCredentialResponse:
    """Tries a version against its provider."""
    request = credential_test_service_pb2.TestCredentialRequest(credential_version=version, model=model)
    return session.client.call(session.client.credential_tests.TestCredential, request)


def activate(
    session: Session, version: str, *, force: bool, is_over: bool = False
) -> credential_service_pb2.ActivateCredentialVersionResponse:
    """Makes a version the one that is used."""
    request = credential_service_pb2.ActivateCredentialVersionRequest(
        name=version, force=force, override_environment=is_over
    )
    return session.client.call(session.client.credentials.ActivateCredentialVersion, request)


def _explain_kept(session: Session, name: str, version: credential_pb2.CredentialVersion) -> None:
    number = words.last(version.name)
    session.say(f"  Version {number} is kept and not used. What to do next:")
    session.say(f"    keyswitch keys add-version {name}            another value")
    session.say(f"    keyswitch keys test {name} --version {number}       the same again")
    session.say(f"    keyswitch keys activate {name} --version {number} --force   use it all the same")
