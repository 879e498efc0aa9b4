"""What every command shares: the settings, the connection and the two consoles."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field
from typing import Annotated, TextIO, TypeVar

import grpc
import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from keyswitch_client import Client
from rich.console import Console

from keyswitch_cli.settings import Settings
from keyswitch_cli.tables import Listing

_WIDE = 400

Request = TypeVar("Request", bound=Message)
Answer = TypeVar("Answer", bound=Message)

Json = Annotated[bool, typer.Option("--json", help="Print the service's answer as JSON.")]
Owner = Annotated[
    str | None,
    typer.Option(
        "--owner",
        help="Whose key: deployment, organization, me, a user's id, or a whole name. Default: the token's own.",
        show_default=False,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
OverrideEnvironment = Annotated[
    bool,
    typer.Option(
        "--override-environment", help="Change it although the environment of the credential service fixes it."
    ),
]
Note = Annotated[str, typer.Option("--note", help="Why, for the audit log.", show_default=False)]


def console(stream: TextIO) -> Console:
    """A console on a stream. What is piped or kept in a file is not cut to the width of a screen."""
    made = Console(file=stream, highlight=False, emoji=False)  # a line 1234 of a file, `log:1234:`, would be one
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = _WIDE
    return made


@dataclass
class Session:
    """One run of the command. The connection is made by the first call.

    What was asked for goes to `out`, everything that is said about it to `err`: so `keyswitch chat Hi > answer.txt`
    keeps the answer and nothing else.
    """

    settings: Settings
    out: Console = field(default_factory=lambda: console(sys.stdout))
    err: Console = field(default_factory=lambda: console(sys.stderr))
    is_json: bool = False
    _client: Client | None = None

    @property
    def client(self) -> Client:
        """Both services."""
        if self._client is None:
            settings = self.settings
            self._client = Client(
                settings.router_target,
                settings.call_token,
                ca_pem=settings.ca_pem,
                certificate=settings.certificate,
                vault_target=settings.vault_target,
                timeout_seconds=600.0,
            )
        return self._client

    def call_all(self, method: grpc.UnaryUnaryMultiCallable[Request, Answer], request: Request) -> Answer:
        """All pages of a list in one answer."""
        request.page_size = 1000  # type: ignore[attr-defined] # every list of the contract has it
        whole = self.client.call(method, request)
        while token := whole.next_page_token:  # type: ignore[attr-defined] # as above
            request.page_token = token  # type: ignore[attr-defined] # as above
            whole.ClearField("next_page_token")
            whole.MergeFrom(self.client.call(method, request))
        return whole

    def close(self) -> None:
        """Ends the connection."""
        if self._client is not None:
            self._client.close()

    def print_json(self, message: Message | dict[str, object], console: Console | None = None) -> None:
        """The document, without colours and wrapping."""
        if isinstance(message, Message):
            text = json_format.MessageToJson(message, indent=2, ensure_ascii=False)
        else:
            text = json.dumps(message, indent=2, ensure_ascii=False)
        (console or self.out).print(text, markup=False, soft_wrap=True)

    def show(self, table: Listing, nothing: str) -> None:
        """A list, or that there is nothing in it and what to do then."""
        if len(table):
            self.out.print(table)
        else:
            self.say(nothing, "yellow")

    def say(self, text: str, style: str = "") -> None:
        """A remark beside what was asked for."""
        self.err.print(text, style=style, markup=False, soft_wrap=True)


def session_of(context: typer.Context, *, is_json: bool = False) -> Session:
    """The session of this run."""
    session = context.find_object(Session)
    if session is None:
        raise RuntimeError("the root command makes the session before any other runs")
    session.is_json = session.is_json or is_json
    return session


def confirm(session: Session, question: str, *, yes: bool) -> None:
    """Goes on when the person agrees; without a terminal only --yes is agreement."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("this cannot be undone and nobody can be asked here: add --yes")
    typer.confirm(question, abort=True, err=True)
