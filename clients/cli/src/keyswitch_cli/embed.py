"""Vectors of texts, and the count of a prompt's tokens."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from keyswitch_client import CallOptions, system, user

from keyswitch_cli.receipts import receipt_line
from keyswitch_cli.session import Json, session_of
from keyswitch_cli.words import last

_SHOWN = 4

Model = Annotated[str, typer.Option("--model", "-m", help="Model or alias.", show_default=False)]
Application = Annotated[
    str | None, typer.Option("--application", "-a", envvar="KEYSWITCH_APPLICATION", help="Id or whole name.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("embed")(embed)
    app.command("count")(count)


def embed(
    context: typer.Context,
    texts: Annotated[
        list[str] | None, typer.Argument(help="The texts. None reads standard input, a text per line.")
    ] = None,
    model: Model = "",
    application: Application = None,
    dimensions: Annotated[
        int | None, typer.Option(help="The length of each vector. Default: the model's own.", show_default=False)
    ] = None,
    task: Annotated[str, typer.Option(help="query or document.", show_default=False)] = "",
    is_json: Json = False,
) -> None:
    """Turn texts into vectors; standard output gets one JSON list of numbers per text."""
    session = session_of(context, is_json=is_json)
    given = texts or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not given:
        raise typer.BadParameter("there is nothing to embed: give TEXTS")
    name = session.settings.application(application)
    options: dict[str, int] = {} if dimensions is None else {"dimensions": dimensions}
    answer = session.client.embed(given, model=model, application=name, task=task, **options)  # type: ignore[arg-type] # one key of EmbedOptions
    if session.is_json:
        session.print_json(answer)
        return
    for text, vector in zip(given, answer.embeddings, strict=True):
        if session.out.is_terminal:
            shown = ", ".join(f"{number:.4f}" for number in vector.values[:_SHOWN])
            session.out.print(f"{text}: [{shown}, … {len(vector.values)} numbers]", markup=False, soft_wrap=True)
        else:
            session.out.print(json.dumps(list(vector.values)), markup=False, soft_wrap=True)
    for warning in answer.warnings:
        session.say(f"{warning.field}: {warning.message}", "yellow")
    session.err.print(receipt_line(answer), soft_wrap=True)


def count(
    context: typer.Context,
    message: Annotated[str, typer.Argument(help="The prompt. None, or `-`, reads standard input.")] = "",
    model: Model = "",
    application: Application = None,
    instructions: Annotated[str, typer.Option("--system", help="Standing instructions.", show_default=False)] = "",
    is_json: Json = False,
) -> None:
    """Count a prompt's tokens for the model that would answer it. Nothing is generated or billed."""
    session = session_of(context, is_json=is_json)
    if message in ("", "-"):
        message = sys.stdin.read()
    if not message.strip():
        raise typer.BadParameter("there is nothing to count: give a MESSAGE")
    prompt = [*([system(instructions)] if instructions else []), user(message)]
    options: CallOptions = {"model": model, "application": session.settings.application(application)}
    answer = session.client.count_tokens(prompt, **options)
    if session.is_json:
        session.print_json(answer)
        return
    session.out.print(str(answer.input_tokens))
    how = "estimated by the router" if answer.is_estimate else f"counted by {last(answer.resolution.provider)}"
    session.say(f"{how}, for {answer.resolution.model}", "dim")
