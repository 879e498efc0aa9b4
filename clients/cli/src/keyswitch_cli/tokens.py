"""The tokens with which callers prove who they are."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TextIO

import typer
from keyswitch.vault.v1 import token_service_pb2

from keyswitch_cli import tables, words
from keyswitch_cli.problem import Problem
from keyswitch_cli.session import Json, Note, Session, session_of

app = typer.Typer(name="tokens", help="Callers' tokens: issue, list, revoke.", no_args_is_help=True)


@app.command("issue")
def issue(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What it is for, for example `ada's laptop`.")],
    role: Annotated[
        list[str] | None, typer.Option(help="member, admin, auditor or operator. May be repeated. Default: member.")
    ] = None,
    user: Annotated[str, typer.Option(help="A user's id; none makes a token of a service.", show_default=False)] = "",
    application: Annotated[str, typer.Option(help="Only this application.", show_default=False)] = "",
    scope: Annotated[
        list[str] | None, typer.Option(help="Narrows what the roles allow. May be repeated.", show_default=False)
    ] = None,
    lifetime: Annotated[str, typer.Option(help="How long it is valid, like 12h or 30d.")] = "90d",
    out: Annotated[
        Path | None, typer.Option(help="Write it to this new file, mode 0600, instead of the screen.")
    ] = None,
    is_json: Json = False,
) -> None:
    """Issue a token. Its text is given once: to standard output, or to a file with --out."""
    session = session_of(context, is_json=is_json)
    settings = session.settings
    token = token_service_pb2.Token(
        display_name=name,
        user=f"{settings.require_organization()}/users/{user}" if user and "/" not in user else user,
        application=settings.application(application),
        roles=[words.enum_number(token_service_pb2.CallerRole, text, "CALLER_ROLE_") for text in role or ["member"]],
        scopes=[words.enum_number(token_service_pb2.TokenScope, text, "TOKEN_SCOPE_") for text in scope or ()],
    )
    request = token_service_pb2.IssueTokenRequest(
        parent=settings.organization or "deployment",
        token=token,
        lifetime=words.duration_of(lifetime),
        request_id=str(uuid.uuid4()),
    )
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_new_private_file(out)) if out is not None else None
        answer = session.client.call(session.client.tokens.IssueToken, request)
        if file is not None:
            file.write(answer.bearer_token + "\n")
            answer.bearer_token = ""
    _show_issued(session, answer, out)


@app.command("list")
def list_tokens(
    context: typer.Context,
    show_inactive: Annotated[bool, typer.Option("--all", help="Expired and revoked ones too.")] = False,
    is_json: Json = False,
) -> None:
    """List what was issued, without the text."""
    session = session_of(context, is_json=is_json)
    request = token_service_pb2.ListTokensRequest(
        parent=session.settings.organization or "deployment", show_inactive=show_inactive
    )
    whole = session.call_all(session.client.tokens.ListTokens, request)
    if session.is_json:
        session.print_json(whole)
        return
    if not whole.tokens:
        session.say("No token was issued.", "yellow")
        return
    session.say(f"tokens of {whole.tokens[0].name.rpartition('/tokens/')[0]}", "dim")
    table = tables.listing("token", "for", "user", "application", "roles", "expires", "revoked", long=("for", "roles"))
    for token in whole.tokens:
        table.add_row(
            words.last(token.name),
            token.display_name,
            words.last(token.user) or "-",
            words.last(token.application) or "any",
            _roles(token),
            words.minute(token.expire_time),
            words.minute(token.revoke_time) if token.HasField("revoke_time") else "-",
        )
    session.out.print(table)


@app.command("revoke")
def revoke(
    context: typer.Context,
    token: Annotated[str, typer.Argument(help="Its name or the last part, as `keyswitch tokens list` shows it.")],
    note: Note = "",
    is_json: Json = False,
) -> None:
    """Make a token void, everywhere within 2 s."""
    session = session_of(context, is_json=is_json)
    parent = session.settings.organization or "deployment"
    name = token if "/" in token else f"{parent}/tokens/{token}"
    request = token_service_pb2.RevokeTokenRequest(name=name, note=note)
    answer = session.client.call(session.client.tokens.RevokeToken, request)
    if session.is_json:
        session.print_json(answer)
    else:
        session.say(f"✓ {answer.token.name} ({answer.token.display_name}) is void", "green")


@contextlib.contextmanager
def _new_private_file(path: Path) -> Iterator[TextIO]:
    """Opened before the token is made: a token that cannot be kept is better not issued. Removed where none was."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Problem(f"{path} is there already and is left as it is.", advice="Name a new file.") from None
    except OSError as error:
        raise Problem(f"{path} cannot be written: {error.strerror}.") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        try:
            yield file
        except BaseException:  # also a Ctrl-C: a file without its token is of no use and would be in the way
            path.unlink()
            raise


def _show_issued(session: Session, answer: token_service_pb2.IssueTokenResponse, out: Path | None) -> None:
    if session.is_json:
        session.print_json(answer)
        return
    token = answer.token
    who = words.last(token.user) or "a service"
    session.say(f"✓ issued {token.name} for {who}, {_roles(token)}, until {words.moment(token.expire_time)}", "green")
    if out is not None:
        session.say(f"It is in {out}, and nowhere else. Use it: keyswitch --token-file {out} chat Hello", "dim")
    else:
        session.out.print(answer.bearer_token, markup=False, soft_wrap=True)
        session.say("This text is shown once, and no service keeps it.", "dim")


def _roles(token: token_service_pb2.Token) -> str:
    names = [words.enum_word(token_service_pb2.CallerRole, role, "CALLER_ROLE_") for role in token.roles]
    scopes = [words.enum_word(token_service_pb2.TokenScope, scope, "TOKEN_SCOPE_") for scope in token.scopes]
    return ", ".join(names) + (f" (only: {', '.join(scopes)})" if scopes else "")
