"""The catalog of models: the deployment's entries, and an organization's own."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from keyswitch.router.v1 import model_service_pb2, settings_pb2
from keyswitch_client import KeyswitchError

from keyswitch_cli import tables, words
from keyswitch_cli.entries import (
    EntryFile,
    Etag,
    OverrideFile,
    demand_any,
    parent_of,
    put_entry,
    refuse_both,
    source_word,
)
from keyswitch_cli.problem import Problem
from keyswitch_cli.problems import short_reason
from keyswitch_cli.session import Json, Session, Yes, confirm, session_of

Id = Annotated[str, typer.Argument(help="Catalog id, vendor/model, or whole name: …/models/vendor/model.")]
Endpoints = Annotated[
    list[str] | None,
    typer.Option("--endpoint", help="PROVIDER:MODEL, where MODEL is the provider's name of it. May be repeated."),
]
Aliases = Annotated[list[str] | None, typer.Option("--alias", help="Another reference to it. May be repeated.")]
DisplayName = Annotated[str | None, typer.Option("--display-name", help="For people.", show_default=False)]
InputPrice = Annotated[str | None, typer.Option("--input-price", help="USD per million tokens.", show_default=False)]
OutputPrice = Annotated[str | None, typer.Option("--output-price", help="USD per million tokens.", show_default=False)]
ReadPrice = Annotated[
    str | None, typer.Option("--cache-read-price", help="USD per million tokens.", show_default=False)
]
WritePrice = Annotated[
    str | None, typer.Option("--cache-write-price", help="USD per million tokens.", show_default=False)
]
ContextLimit = Annotated[int | None, typer.Option("--context-limit", help="Tokens of prompt and answer together.")]
MaxOutput = Annotated[int | None, typer.Option("--max-output", help="The most tokens that it may generate.")]
Compression = Annotated[
    int | None, typer.Option("--compress-at", help="Percent of the context at which applications should compress.")
]
Temperature = Annotated[float | None, typer.Option(help="Where a call says nothing else.")]
Effort = Annotated[str | None, typer.Option(help="How much to think where a call says nothing else: low, medium, ...")]
Capabilities = Annotated[list[str] | None, typer.Option("--capability", help="tools, images, ... May be repeated.")]
Enabled = Annotated[bool | None, typer.Option("--enable/--disable", help="Whether calls may name it.")]

_PRICES = ("input", "output", "cache_read", "cache_write")


def register(group: typer.Typer) -> None:
    """Adds the commands."""
    group.command("list")(list_entries)
    group.command("get")(get)
    group.command("create")(create)
    group.command("update")(update)
    group.command("delete")(delete)


def list_entries(context: typer.Context, is_json: Json = False) -> None:
    """List the catalog: the deployment's models, or an organization's own, whether they can be used now or not."""
    session = session_of(context, is_json=is_json)
    request = model_service_pb2.ListModelEntriesRequest(parent=parent_of(session))
    whole = session.call_all(session.client.models.ListModelEntries, request)
    if session.is_json:
        session.print_json(whole)
        return
    table = tables.listing("model", "also", "at", "from", "remarks", long=("also", "at"))
    for one in whole.model_entries:
        table.add_row(
            _id(one.name),
            ", ".join(short_names(_id(one.name), one.aliases)),
            ", ".join(dict.fromkeys(words.last(end.provider) for end in one.endpoints)),
            source_word(one.source),
            "" if one.is_enabled else "switched off",
        )
    session.show(table, f"{request.parent} has no models of its own: `keyswitch models` lists those that it can use.")


def get(context: typer.Context, model: Id, is_json: Json = False) -> None:
    """Show an entry of the catalog as it is configured."""
    session = session_of(context, is_json=is_json)
    answer = model_service_pb2.GetModelEntryResponse()
    try:
        answer = _get(session, _name(session, model))
    except KeyswitchError as error:
        if short_reason(error) != "RESOURCE_NOT_FOUND" or "/models/" in model:
            raise
        answer = _get(session, f"deployment/models/{model}")  # the organization has none of its own with this id
    _print(session, answer, answer.model_entry)


def create(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Its catalog id: vendor/model in lower case.")],
    endpoint: Endpoints = None,
    alias: Aliases = None,
    display_name: DisplayName = None,
    input_price: InputPrice = None,
    output_price: OutputPrice = None,
    cache_read_price: ReadPrice = None,
    cache_write_price: WritePrice = None,
    context_limit: ContextLimit = None,
    max_output: MaxOutput = None,
    compress_at: Compression = None,
    temperature: Temperature = None,
    effort: Effort = None,
    capability: Capabilities = None,
    enabled: Enabled = None,
    file: EntryFile = None,
    is_json: Json = False,
) -> None:
    """Make a model: the deployment's, or an organization's own. A price that is not named is looked up."""
    session = session_of(context, is_json=is_json)
    parent, entry = parent_of(session), model_service_pb2.ModelEntry()
    paths = _fill(session, entry, context.params)
    if file is not None:
        refuse_both(paths)
        put_entry(session, parent, ["models", model], file, is_new=True)
        answer = _get(session, f"{parent}/models/{model}")
        _print(session, answer, answer.model_entry)
        return
    request = model_service_pb2.CreateModelEntryRequest(parent=parent, model=model, model_entry=entry)
    made = session.client.call(session.client.models.CreateModelEntry, request)
    _print(session, made, made.model_entry)


def update(
    context: typer.Context,
    model: Id,
    endpoint: Endpoints = None,
    alias: Aliases = None,
    display_name: DisplayName = None,
    input_price: InputPrice = None,
    output_price: OutputPrice = None,
    cache_read_price: ReadPrice = None,
    cache_write_price: WritePrice = None,
    context_limit: ContextLimit = None,
    max_output: MaxOutput = None,
    compress_at: Compression = None,
    temperature: Temperature = None,
    effort: Effort = None,
    capability: Capabilities = None,
    enabled: Enabled = None,
    file: EntryFile = None,
    etag: Etag = "",
    override_file: OverrideFile = False,
    is_json: Json = False,
) -> None:
    """Change what is named, and nothing else. With --file: the whole entry."""
    session = session_of(context, is_json=is_json)
    name = _name(session, model)
    if file is not None:
        refuse_both(_fill(session, model_service_pb2.ModelEntry(), context.params))
        parent, _, model_id = name.partition("/models/")
        put_entry(session, parent, ["models", model_id], file, is_new=False, override_file=override_file)
        answer = _get(session, name)
        _print(session, answer, answer.model_entry)
        return
    # What an option does not name of a price, of the defaults and of an endpoint stays: so it is read first, and
    # written only if it is still what was read.
    entry = _get(session, name).model_entry
    entry.etag = etag or entry.etag
    paths = _fill(session, entry, context.params)
    demand_any(paths, "models update")
    request = model_service_pb2.UpdateModelEntryRequest(
        model_entry=entry, update_mask=FieldMask(paths=paths), override_file=override_file
    )
    done = session.client.call(session.client.models.UpdateModelEntry, request)
    _print(session, done, done.model_entry)


def delete(context: typer.Context, model: Id, etag: Etag = "", yes: Yes = False) -> None:
    """Remove what is stored of a model; what the configuration file or the catalog says is in force again."""
    session = session_of(context)
    name = _name(session, model)
    confirm(session, f"Delete {name}?", yes=yes)
    request = model_service_pb2.DeleteModelEntryRequest(name=name, etag=etag)
    session.client.call(session.client.models.DeleteModelEntry, request)
    session.say(f"✓ {name} is deleted", "green")


def _fill(session: Session, entry: model_service_pb2.ModelEntry, options: dict[str, Any]) -> list[str]:
    """Puts the options into an entry; gives the names of the fields that they say something of."""
    # An option that may be repeated is an empty list where it is not given.
    stated = {name: value for name, value in options.items() if value is not None and value not in ([], ())}
    paths = []
    for option, field in (
        ("display_name", "display_name"),
        ("context_limit", "context_limit_tokens"),
        ("max_output", "max_output_tokens"),
        ("compress_at", "compression_threshold_percent"),
        ("enabled", "is_enabled"),
    ):
        if option in stated:
            setattr(entry, field, stated[option])
            paths.append(field)
    if "alias" in stated:
        entry.aliases[:] = stated["alias"]
        paths.append("aliases")
    if "endpoint" in stated:
        _set_endpoints(session, entry, stated["endpoint"])
        paths.append("endpoints")
    if "capability" in stated:
        capability = model_service_pb2.ModelCapability
        entry.capabilities[:] = [
            words.enum_number(capability, one, "MODEL_CAPABILITY_") for one in stated["capability"]
        ]
        paths.append("capabilities")
    prices = {kind: stated[f"{kind}_price"] for kind in _PRICES if f"{kind}_price" in stated}
    for kind, text in prices.items():
        setattr(entry.price, f"{kind}_usd_nanos_per_million_tokens", words.nanos_of(text))
    if prices:
        entry.price.checked_date = ""  # today
        paths.append("price")
    if "temperature" in stated:
        entry.defaults.sampling.temperature = stated["temperature"]
    if "effort" in stated:
        level = words.enum_number(settings_pb2.ReasoningEffort, stated["effort"], "REASONING_EFFORT_")
        entry.defaults.reasoning.effort = level
    return [*paths, "defaults"] if stated.keys() & {"temperature", "effort"} else paths


def _set_endpoints(session: Session, entry: model_service_pb2.ModelEntry, texts: list[str]) -> None:
    """An endpoint that was there before keeps what no option can say of it."""
    known = {(words.last(end.provider), end.upstream_model_id): end for end in entry.endpoints}
    own = {words.last(name): name for name in _own_providers(session)}
    made = []
    for text in texts:
        provider, colon, upstream = text.partition(":")
        if not colon or not provider or not upstream:
            raise Problem(f"{text!r} is no endpoint.", advice="Write PROVIDER:MODEL, such as lab:x-1.")
        name = provider if "/" in provider else own.get(provider, f"providers/{provider}")
        new = model_service_pb2.ModelEndpoint(provider=name, upstream_model_id=upstream)
        made.append(known.get((words.last(provider), upstream), new))
    del entry.endpoints[:]
    entry.endpoints.extend(made)


def _own_providers(session: Session) -> list[str]:
    from keyswitch_cli.providers import every_provider

    parent = parent_of(session)
    return [] if parent == "deployment" else [one.name for one in every_provider(session, parent).providers]


def _get(session: Session, name: str) -> model_service_pb2.GetModelEntryResponse:
    request = model_service_pb2.GetModelEntryRequest(name=name)
    return session.client.call(session.client.models.GetModelEntry, request)


def _name(session: Session, text: str) -> str:
    return text if "/models/" in text else f"{parent_of(session)}/models/{text}"


def _id(name: str) -> str:
    return name.partition("/models/")[2]


def short_names(model: str, aliases: Iterable[str]) -> list[str]:
    """The aliases that the model's own name does not say already."""
    return [alias for alias in aliases if not model.endswith(f"/{alias}") and not re.search(r"\d{8}$|/", alias)]


def _endpoint(end: model_service_pb2.ModelEndpoint) -> str:
    weight = f" (weight {end.weight})" if end.HasField("weight") else ""
    return f"{words.last(end.provider)}:{end.upstream_model_id}{weight}"


Answer = (
    model_service_pb2.GetModelEntryResponse
    | model_service_pb2.CreateModelEntryResponse
    | model_service_pb2.UpdateModelEntryResponse
)


def _print(session: Session, answer: Answer, one: model_service_pb2.ModelEntry) -> None:
    if session.is_json:
        session.print_json(answer)
        return
    is_stated = one.HasField("price")
    price = one.price if is_stated else one.looked_up_price
    note = f"{one.price.checked_date} {one.price.source}".strip() if is_stated else "looked up"
    capability = model_service_pb2.ModelCapability
    rows = [
        ("model", _id(one.name)),
        ("of", one.name.partition("/models/")[0]),
        ("from", source_word(one.source)),
        ("etag", one.etag),
        ("display name", one.display_name),
        ("aliases", ", ".join(one.aliases)),
        ("endpoints", ", ".join(_endpoint(end) for end in one.endpoints)),
        ("price / 1M", f"{_amounts(price)} ({note})" if _amounts(price) else "unknown"),
        ("context", f"{one.context_limit_tokens:,} tokens" if one.HasField("context_limit_tokens") else ""),
        ("most output", f"{one.max_output_tokens:,} tokens" if one.HasField("max_output_tokens") else ""),
        ("can", ", ".join(words.enum_word(capability, it, "MODEL_CAPABILITY_") for it in one.capabilities)),
        ("defaults", " ".join(str(one.defaults).split())),
        ("calls", "may name it" if one.is_enabled else "may not name it"),
    ]
    session.out.print(tables.sheet(rows))


def _amounts(price: model_service_pb2.ModelPrice) -> str:
    found = (
        (kind.replace("_", " "), field)
        for kind in _PRICES
        if price.HasField(field := f"{kind}_usd_nanos_per_million_tokens")  # type: ignore[arg-type] # four of its fields
    )
    return ", ".join(f"{label} {words.usd(getattr(price, field))}" for label, field in found)
