"""The conversation: one question, or many at a prompt."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import typer
from keyswitch.router.v1 import completion_service_pb2, content_pb2, payer_pb2, stream_pb2
from keyswitch_client import CallOptions, KeyswitchError, system, user

from keyswitch_cli import call_routes, words
from keyswitch_cli.answer_view import AnswerView
from keyswitch_cli.money import warn_of_low_credits
from keyswitch_cli.problems import show_error
from keyswitch_cli.receipts import passed_over, receipt_line
from keyswitch_cli.session import Json, Session, session_of

_HELP = "/model NAME changes the model, /new forgets the conversation, /exit leaves (so does Ctrl-D)"
_ODD_ENDS = {
    stream_pb2.FINISH_REASON_LENGTH: "The answer was cut at the limit of tokens.",
    stream_pb2.FINISH_REASON_CONTENT_FILTER: "The provider's filter cut the answer.",
    stream_pb2.FINISH_REASON_REFUSAL: "The model declined.",
    stream_pb2.FINISH_REASON_PAUSED: "The provider paused a long turn of its own tools.",
    stream_pb2.FINISH_REASON_TOOL_CALLS: "The model wants its tools run, which this command cannot do.",
}


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("chat")(chat)


def chat(
    context: typer.Context,
    message: Annotated[
        str, typer.Argument(help="What to ask. None at a terminal starts a conversation; `-` reads standard input.")
    ] = "",
    model: Annotated[str, typer.Option("--model", "-m", help="Model or alias.", show_default=False)] = "",
    application: Annotated[
        str | None, typer.Option("--application", "-a", envvar="KEYSWITCH_APPLICATION", help="Id or whole name.")
    ] = None,
    payer: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this payer may pay: USER_KEY, ORGANIZATION_KEY, SHARED_KEY, CREDITS or FREE. May be repeated."
        ),
    ] = None,
    effort: Annotated[
        str, typer.Option(help="off, minimal, low, medium, high, xhigh or max.", show_default=False)
    ] = "",
    call_context: Annotated[str, typer.Option("--context", help="What the call is for.", show_default=False)] = "",
    instructions: Annotated[str, typer.Option("--system", help="Standing instructions.", show_default=False)] = "",
    show_thoughts: Annotated[bool, typer.Option("--show-thoughts", help="Show the model's reasoning.")] = False,
    provider: call_routes.Provider = None,
    only_providers: call_routes.OnlyProviders = False,
    upstream: call_routes.Upstream = None,
    only_upstreams: call_routes.OnlyUpstreams = False,
    thinking_budget: call_routes.Budget = None,
    provider_options: call_routes.ProviderOptions = "",
    is_json: Json = False,
) -> None:
    """Ask a model and watch the answer come, with its receipt."""
    session = session_of(context, is_json=is_json)
    options = _options(session, model, application, payer, effort, call_context)
    call_routes.Routes(
        provider or (), only_providers, upstream or (), only_upstreams, thinking_budget, provider_options
    ).add_to(options)
    if show_thoughts:
        options["include_thoughts"] = True
    history = [system(instructions)] if instructions else []
    if not message and sys.stdin.isatty() and not session.is_json:
        Conversation(session, options, show_thoughts, history).run()
        return
    if message in ("", "-"):
        message = sys.stdin.read()
    if not message.strip():
        raise typer.BadParameter("there is nothing to ask: give a MESSAGE")
    ask(session, [*history, user(message)], options, show_thoughts=show_thoughts)


def ask(
    session: Session, messages: Sequence[content_pb2.Message], options: CallOptions, *, show_thoughts: bool
) -> completion_service_pb2.CompleteResponse:
    """Streams one answer to the terminal and gives it back whole."""
    view = AnswerView(session.out, session.err, show_thoughts=show_thoughts)
    stream = session.client.stream(messages, **options)
    try:
        with stream:
            for event in stream:
                if not session.is_json:
                    view.show(event)
            answer = stream.fold()
    except KeyswitchError:
        view.end()
        raise
    except KeyboardInterrupt:
        view.end()
        if stream.response_id and not session.is_json:
            session.say(f"Stopped. What it cost so far: {words.receipt_command(stream.response_id)}", "dim")
        raise
    view.end()
    if session.is_json:
        session.print_json(answer)
        return answer
    if answer.finish_reason in _ODD_ENDS:
        session.say(_ODD_ENDS[answer.finish_reason], "yellow")
    for line in passed_over(answer.receipt):
        session.say(line, "yellow")
    session.err.print(receipt_line(answer), soft_wrap=True)
    if answer.resolution.payer == payer_pb2.PAYER_CREDITS:
        warn_of_low_credits(session)
    return answer


@dataclass
class Conversation:
    """Questions and answers at a prompt; a failed question is forgotten, and the rest goes on."""

    session: Session
    options: CallOptions
    show_thoughts: bool
    history: list[content_pb2.Message] = field(default_factory=list)

    def run(self) -> None:
        """Asks until the person leaves."""
        import readline  # noqa: F401 # gives input() its line editing

        self.session.say(_HELP, "dim")
        while True:
            try:
                line = input("you> ").strip()
            except (EOFError, KeyboardInterrupt):
                self.session.err.print()
                return
            if line in ("/exit", "/quit"):
                return
            if line:
                self.take(line)

    def take(self, line: str) -> None:
        """Obeys a command or asks a question."""
        if line == "/new":
            self.history = [turn for turn in self.history if turn.role == content_pb2.ROLE_SYSTEM]
            self.session.say("The conversation begins anew.", "dim")
        elif line.startswith("/model"):
            self.options["model"] = line.removeprefix("/model").strip()
            self.session.say(f"The model is now {self.options['model'] or 'the default'}.", "dim")
        elif line.startswith("/"):
            self.session.say(_HELP, "dim")
        else:
            self._ask(line)

    def _ask(self, line: str) -> None:
        question = user(line)
        try:
            answer = ask(self.session, [*self.history, question], self.options, show_thoughts=self.show_thoughts)
        except KeyswitchError as error:
            show_error(self.session.err, error)
        except KeyboardInterrupt:
            pass
        else:
            self.history += [question, answer.message]


def _options(
    session: Session, model: str, application: str | None, payer: list[str] | None, effort: str, call_context: str
) -> CallOptions:
    options: CallOptions = {
        "model": model,
        "application": session.settings.application(application),
        "context": call_context,
    }
    if payer:
        options["payers"] = payer
    if effort:
        options["effort"] = effort
    return options
