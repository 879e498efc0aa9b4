"""What can be set for a model, and what a provider lists for a key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from keyswitch.router.v1 import model_service_pb2, settings_pb2

from keyswitch_cli import tables
from keyswitch_cli.key_versions import Version, find_version
from keyswitch_cli.problem import Problem
from keyswitch_cli.session import Json, Owner, session_of

_DISCOVERIES = "`keyswitch models discover KEY`, or `keyswitch models discover --provider ollama`."


def register(group: typer.Typer) -> None:
    """Adds the commands."""
    group.command("options")(options)
    group.command("discover")(discover)


def options(
    context: typer.Context,
    provider: Annotated[str, typer.Argument(help="A provider's id, as `keyswitch providers` lists them.")],
    model: Annotated[str, typer.Argument(help="A model: levels that it lacks are left out.", show_default=False)] = "",
    is_json: Json = False,
) -> None:
    """Show what can be set for a model at a provider. With --json: the schemas for a form."""
    session = session_of(context, is_json=is_json)
    name = provider if "/" in provider else f"providers/{provider}"
    request = model_service_pb2.DescribeOptionsRequest(provider=name, model=model)
    answer = session.client.call(session.client.models.DescribeOptions, request)
    if session.is_json:
        session.print_json(answer)
        return
    table = tables.listing("option", "values", "where", long=("values",))
    for path, field in _fields(json.loads(answer.general_schema_json)):
        table.add_row(field.get("title", path), _values(field), field.get("x-path", path))
    for path, field in _fields(json.loads(answer.provider_options_schema_json)):
        table.add_row(field.get("title", path), _values(field), f"{answer.namespace}: {path}")
    session.out.print(table)
    if answer.efforts:
        levels = (
            settings_pb2.ReasoningEffort.Name(level).removeprefix("REASONING_EFFORT_") for level in answer.efforts
        )
        session.say(f"Reasoning: {', '.join(level.lower() for level in levels)}", "dim")


def discover(
    context: typer.Context,
    key: Annotated[
        str,
        typer.Argument(help="A key's id, or the whole name of a key or of one of its versions.", show_default=False),
    ] = "",
    version: Version = "",
    owner: Owner = None,
    provider: Annotated[
        str, typer.Option("--provider", help="In place of a key: a provider that needs none.", show_default=False)
    ] = "",
    is_json: Json = False,
) -> None:
    """Ask a provider which models a key can use."""
    session = session_of(context, is_json=is_json)
    if bool(key) == bool(provider):
        raise Problem("This needs a key, or a provider that needs none: one of them.", advice=_DISCOVERIES)
    if provider:
        name = provider if "/" in provider else f"providers/{provider}"
        request = model_service_pb2.DiscoverUpstreamModelsRequest(provider=name)
    else:
        whole = key if "/versions/" in key else find_version(session, session.settings.credential(key, owner), version)
        request = model_service_pb2.DiscoverUpstreamModelsRequest(credential_version=whole)
    answer = session.client.call(session.client.models.DiscoverUpstreamModels, request)
    if session.is_json:
        session.print_json(answer)
        return
    table = tables.listing("provider's model", "in the catalog")
    for model in answer.models:
        table.add_row(model.upstream_model_id, model.model or "-")
    session.show(table, "The provider lists no model for this key.")
    if answer.is_truncated:
        session.say("There are more.", "dim")


def _fields(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        if field.get("type") == "object":
            yield from _fields(field, here)
        else:
            yield here, field


def _values(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(field["enum"])
    low, high = field.get("minimum"), field.get("maximum")
    if "exclusiveMinimum" in field:
        return f"above {field['exclusiveMinimum']}" + (f", at most {high}" if high is not None else "")
    if low is not None and high is not None:
        return f"{low} to {high}"
    if low is not None:
        return f"from {low}"
    return {"string": "text", "boolean": "true or false"}.get(field.get("type", ""), str(field.get("type", "")))
