"""The switch for users' own keys."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer
from keyswitch.vault.v1 import credential_service_pb2

from keyswitch_cli.session import Json, Session, session_of

app = typer.Typer(name="policy", help="See and set what is allowed.", no_args_is_help=True)
byok = typer.Typer(name="byok", help="Whether users may keep keys of their own.", no_args_is_help=True)
app.add_typer(byok)

Scope = Annotated[
    str | None,
    typer.Option("--of", help="deployment or an organization's id. Default: the token's own.", show_default=False),
]


class Switch(Enum):
    """A position of the switch."""

    ON = "on"
    OFF = "off"


@byok.command("get")
def get(context: typer.Context, of: Scope = None, is_json: Json = False) -> None:
    """Show the switch."""
    session = session_of(context, is_json=is_json)
    request = credential_service_pb2.GetCredentialPolicyRequest(name=_policy_name(session, of))
    answer = session.client.call(session.client.credentials.GetCredentialPolicy, request)
    _show(session, answer, answer.credential_policy)


@byok.command("set")
def set_switch(context: typer.Context, to: Switch, of: Scope = None, is_json: Json = False) -> None:
    """Turn the switch: off ignores the keys that users have, and lets none be added."""
    session = session_of(context, is_json=is_json)
    policy = credential_service_pb2.CredentialPolicy(
        name=_policy_name(session, of), user_credentials_enabled=to is Switch.ON
    )
    request = credential_service_pb2.SetCredentialPolicyRequest(credential_policy=policy)
    answer = session.client.call(session.client.credentials.SetCredentialPolicy, request)
    _show(session, answer, answer.credential_policy)


def _policy_name(session: Session, of: str | None) -> str:
    if of is None:
        owner = session.settings.organization or "deployment"
    elif of == "deployment" or "/" in of:
        owner = of
    else:
        owner = f"organizations/{of}"
    return f"{owner}/credentialPolicy"


def _show(
    session: Session,
    answer: credential_service_pb2.GetCredentialPolicyResponse | credential_service_pb2.SetCredentialPolicyResponse,
    policy: credential_service_pb2.CredentialPolicy,
) -> None:
    if session.is_json:
        session.print_json(answer)
        return
    is_on = not policy.HasField("user_credentials_enabled") or policy.user_credentials_enabled
    owner = policy.name.removesuffix("/credentialPolicy")
    session.out.print(f"{owner}: users' own keys are {'allowed' if is_on else 'ignored, and none can be added'}")
