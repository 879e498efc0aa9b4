"""What there is to choose from: models and providers."""

from __future__ import annotations

from typing import Annotated

import typer
from keyswitch.router.v1 import model_service_pb2, provider_service_pb2

from keyswitch_cli import model_options, tables, words
from keyswitch_cli.session import Json, Session, session_of


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(help="The models that can be used now, and what can be set for them.")
    group.callback(invoke_without_command=True)(models)
    model_options.register(group)
    app.add_typer(group, name="models")
    app.command("providers")(providers)


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
    name = session.settings.application(application)
    whole = model_service_pb2.ListModelsResponse()
    token = ""
    while True:
        request = model_service_pb2.ListModelsRequest(
            application=name,
            page_size=1000,
            page_token=token,
            purpose=model_service_pb2.MODEL_PURPOSE_EMBEDDING
            if is_embedding
            else model_service_pb2.MODEL_PURPOSE_COMPLETION,
        )
        page = session.client.call(session.client.models.ListModels, request)
        whole.models.extend(page.models)
        whole.message = page.message
        token = page.next_page_token
        if not token:
            break
    if session.is_json:
        session.print_json(whole)
        return
    if not whole.models:
        session.say(whole.message or "There is no model that this token can use.", "yellow")
        return
    table = tables.listing(
        "model", "aliases", "provider", "paid by", "context", "input / 1M", "output / 1M", long=("aliases",)
    )
    for model in whole.models:
        price = model.price
        table.add_row(
            f"{model.model} *" if model.is_preselected else model.model,
            ", ".join(model.aliases),
            words.last(model.provider),
            words.payer(model.payer),
            f"{model.context_limit_tokens:,}" if model.HasField("context_limit_tokens") else "-",
            words.usd(price.input_usd_nanos_per_million_tokens)
            if price.HasField("input_usd_nanos_per_million_tokens")
            else "unknown",
            words.usd(price.output_usd_nanos_per_million_tokens)
            if price.HasField("output_usd_nanos_per_million_tokens")
            else "unknown",
        )
    session.out.print(table)
    session.say("* is the default", "dim")


def list_providers(session: Session) -> provider_service_pb2.ListProvidersResponse:
    """All providers of the deployment."""
    whole = provider_service_pb2.ListProvidersResponse()
    token = ""
    while True:
        request = provider_service_pb2.ListProvidersRequest(page_size=1000, page_token=token)
        page = session.client.call(session.client.providers.ListProviders, request)
        whole.providers.extend(page.providers)
        token = page.next_page_token
        if not token:
            return whole


def providers(context: typer.Context, is_json: Json = False) -> None:
    """List the providers and where their keys may be sent."""
    session = session_of(context, is_json=is_json)
    whole = list_providers(session)
    if session.is_json:
        session.print_json(whole)
        return
    table = tables.listing("provider", "dialect", "origin", "remarks", long=("remarks",))
    for provider in whole.providers:
        remarks = []
        if not provider.is_enabled:
            remarks.append("switched off")
        if not provider.is_byok_supported:
            remarks.append("takes no own keys")
        if provider.is_keyless:
            remarks.append("needs no key")
        if provider.plan.display_name:
            remarks.append(provider.plan.display_name)
        if provider.plan.warning:
            remarks.append("has terms of its own")
        table.add_row(words.last(provider.name), provider.dialect, provider.origin, ", ".join(remarks))
    session.out.print(table)
