"""What there is to choose from: the models that can be used now."""

from __future__ import annotations

from typing import Annotated

import typer
from keyswitch.router.v1 import model_service_pb2

from keyswitch_cli import model_entries, model_options, tables, words
from keyswitch_cli.session import Json, session_of


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(help="The models that can be used now, and the catalog that they come from.")
    group.callback(invoke_without_command=True)(models)
    model_options.register(group)
    model_entries.register(group)
    app.add_typer(group, name="models")


def models(
    context: typer.Context,
    application: Annotated[
        str | None, typer.Option("--application", "-a", envvar="KEYSWITCH_APPLICATION", help="Id or whole name.")
    ] = None,
    is_embedding: Annotated[bool, typer.Option("--embedding", help="Those that embed texts.")] = False,
    is_json: Json = False,
) -> None:
    """List the models that can be used now, with who would serve and who would pay."""
    if context.invoked_subcommand is not None:
        return
    session = session_of(context, is_json=is_json)
    pb = model_service_pb2
    purpose = pb.MODEL_PURPOSE_EMBEDDING if is_embedding else pb.MODEL_PURPOSE_COMPLETION
    request = pb.ListModelsRequest(application=session.settings.application(application), purpose=purpose)
    whole = session.call_all(session.client.models.ListModels, request)
    if session.is_json:
        session.print_json(whole)
        return
    if not whole.models:
        session.say(whole.message or "There is no model that this token can use.", "yellow")
        return
    heads = ("model", "also", "provider", "paid by", "context", "in / out per 1M")
    table = tables.listing(*heads, long=("also",))
    for model in whole.models:
        table.add_row(
            f"{model.model} *" if model.is_preselected else model.model,
            model_entries.short_names(model.model, model.aliases),
            words.last(model.provider),
            words.payer(model.payer),
            f"{model.context_limit_tokens:,}" if model.HasField("context_limit_tokens") else "-",
            _prices(model.price),
        )
    session.out.print(table)
    session.say("* is the default", "dim")


def _prices(price: model_service_pb2.ModelPrice) -> str:
    known = [
        words.usd(getattr(price, field)) if price.HasField(field) else "unknown"
        for field in ("input_usd_nanos_per_million_tokens", "output_usd_nanos_per_million_tokens")
    ]
    return "unknown" if known == ["unknown"] * 2 else " / ".join(known)
