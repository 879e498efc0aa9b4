"""Where models are had: the deployment's providers, and an organization's own."""

from __future__ import annotations

from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from keyswitch.router.v1 import provider_service_pb2
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
from keyswitch_cli.problems import short_reason
from keyswitch_cli.session import Json, Session, Yes, confirm, session_of

app = typer.Typer(name="providers", help="See and change where models are had.")

Name = Annotated[str, typer.Argument(help="Id or whole name.")]
Dialect = Annotated[str | None, typer.Option(help="The wire that it speaks, such as openai_chat.", show_default=False)]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="Where it is.", show_default=False)]
Auth = Annotated[str | None, typer.Option(help="How the key travels: bearer, x-api-key, none, ...", show_default=False)]
Template = Annotated[
    str | None, typer.Option(help="A built-in provider to begin from, such as ollama.", show_default=False)
]
DisplayName = Annotated[str | None, typer.Option("--display-name", help="For people.", show_default=False)]
Networks = Annotated[
    list[str] | None,
    typer.Option("--private-network", help="A private network that it may be in. May be repeated. Operator only."),
]
Advanced = Annotated[
    str | None, typer.Option(help="The other keys of the configuration file, as one JSON object.", show_default=False)
]
Enabled = Annotated[bool | None, typer.Option("--enable/--disable", help="Whether calls may go there.")]
Byok = Annotated[bool | None, typer.Option("--byok/--no-byok", help="Whether own keys can be stored for it.")]


@app.callback(invoke_without_command=True)
def providers(context: typer.Context, is_json: Json = False) -> None:
    """List the deployment's providers and where their keys may be sent, or change providers."""
    if context.invoked_subcommand is None:
        _list(session_of(context, is_json=is_json), "")


@app.command("list")
def list_providers(context: typer.Context, is_json: Json = False) -> None:
    """List the deployment's providers, or an organization's own with --organization."""
    session = session_of(context, is_json=is_json)
    _list(session, f"organizations/{session.settings.organization_id}" if session.settings.organization_id else "")


@app.command("get")
def get(context: typer.Context, name: Name, is_json: Json = False) -> None:
    """Show a provider as it is configured."""
    session = session_of(context, is_json=is_json)
    request = provider_service_pb2.GetProviderRequest(name=_name(session, name))
    try:
        answer = session.client.call(session.client.providers.GetProvider, request)
    except KeyswitchError as error:
        if short_reason(error) != "RESOURCE_NOT_FOUND" or "/" in name or request.name.startswith("providers/"):
            raise
        request.name = f"providers/{name}"  # the organization has none of its own with this id
        answer = session.client.call(session.client.providers.GetProvider, request)
    _print(session, answer, answer.provider)


@app.command("create")
def create(
    context: typer.Context,
    provider_id: Annotated[str, typer.Argument(help="Its id.")],
    dialect: Dialect = None,
    base_url: BaseUrl = None,
    auth: Auth = None,
    template: Template = None,
    display_name: DisplayName = None,
    private_network: Networks = None,
    advanced: Advanced = None,
    enabled: Enabled = None,
    byok: Byok = None,
    file: EntryFile = None,
    is_json: Json = False,
) -> None:
    """Make a provider: the deployment's, or an organization's own."""
    session = session_of(context, is_json=is_json)
    given, paths = _given(
        dialect, base_url, auth, template, display_name, private_network, advanced, enabled, byok
    )  # fmt: skip
    parent = parent_of(session)
    if file is not None:
        refuse_both(paths)
        put_entry(session, parent, ["providers", provider_id], file, is_new=True)
        _print_named(session, _name(session, provider_id))
        return
    request = provider_service_pb2.CreateProviderRequest(parent=parent, provider_id=provider_id, provider=given)
    answer = session.client.call(session.client.providers.CreateProvider, request)
    _print(session, answer, answer.provider)


@app.command("update")
def update(
    context: typer.Context,
    name: Name,
    dialect: Dialect = None,
    base_url: BaseUrl = None,
    auth: Auth = None,
    template: Template = None,
    display_name: DisplayName = None,
    private_network: Networks = None,
    advanced: Advanced = None,
    enabled: Enabled = None,
    byok: Byok = None,
    file: EntryFile = None,
    etag: Etag = "",
    override_file: OverrideFile = False,
    is_json: Json = False,
) -> None:
    """Change what is named, and nothing else. With --file: the whole entry."""
    session = session_of(context, is_json=is_json)
    given, paths = _given(
        dialect, base_url, auth, template, display_name, private_network, advanced, enabled, byok
    )  # fmt: skip
    given.name, given.etag = _name(session, name), etag
    if file is not None:
        refuse_both(paths)
        parent, _, provider_id = f"deployment/{given.name}".rpartition("/providers/")
        parent = parent.removeprefix("deployment/")
        put_entry(session, parent, ["providers", provider_id], file, is_new=False, override_file=override_file)
        _print_named(session, given.name)
        return
    demand_any(paths, "providers update")
    request = provider_service_pb2.UpdateProviderRequest(
        provider=given, update_mask=FieldMask(paths=paths), override_file=override_file
    )
    answer = session.client.call(session.client.providers.UpdateProvider, request)
    _print(session, answer, answer.provider)


@app.command("delete")
def delete(context: typer.Context, name: Name, etag: Etag = "", yes: Yes = False) -> None:
    """Remove what is stored of a provider; what the configuration file or the catalog says is in force again."""
    session = session_of(context)
    whole = _name(session, name)
    confirm(session, f"Delete {whole}?", yes=yes)
    request = provider_service_pb2.DeleteProviderRequest(name=whole, etag=etag)
    session.client.call(session.client.providers.DeleteProvider, request)
    session.say(f"✓ {whole} is deleted", "green")


def every_provider(session: Session, parent: str = "") -> provider_service_pb2.ListProvidersResponse:
    """All providers of the deployment, or of an organization."""
    request = provider_service_pb2.ListProvidersRequest(parent=parent)
    return session.call_all(session.client.providers.ListProviders, request)


def _list(session: Session, parent: str) -> None:
    whole = every_provider(session, parent)
    if session.is_json:
        session.print_json(whole)
        return
    table = tables.listing("provider", "dialect", "origin", "from", "remarks", long=("remarks",))
    for one in whole.providers:
        remarks = (
            ("switched off", not one.is_enabled),
            ("takes no own keys", not one.is_byok_supported),
            ("needs no key", one.is_keyless),
            (one.plan.display_name, one.plan.display_name),
            ("has terms of its own", one.plan.warning),
        )
        said = ", ".join(text for text, holds in remarks if holds)
        table.add_row(words.last(one.name), one.dialect, one.origin, source_word(one.source), said)
    session.show(table, f"{parent} has no providers of its own: `keyswitch providers` lists the deployment's.")


def _given(
    dialect: str | None,
    base_url: str | None,
    auth: str | None,
    template: str | None,
    display_name: str | None,
    private_networks: list[str] | None,
    advanced: str | None,
    is_enabled: bool | None,
    is_byok_supported: bool | None,
) -> tuple[provider_service_pb2.Provider, list[str]]:
    """What the options say, and the names of the fields that they say it of."""
    options = {
        "dialect": dialect,
        "base_url": base_url,
        "auth": auth,
        "template": template,
        "display_name": display_name,
        "allowed_private_networks": private_networks,
        "advanced_json": advanced,
        "is_enabled": is_enabled,
        "is_byok_supported": is_byok_supported,
    }
    stated = {name: value for name, value in options.items() if value is not None}
    return provider_service_pb2.Provider(**stated), list(stated)  # type: ignore[arg-type] # each has its field's type


def _name(session: Session, text: str) -> str:
    if "/" in text:
        return text
    parent = parent_of(session)
    return f"providers/{text}" if parent == "deployment" else f"{parent}/providers/{text}"


Answer = (
    provider_service_pb2.GetProviderResponse
    | provider_service_pb2.CreateProviderResponse
    | provider_service_pb2.UpdateProviderResponse
)


def _print_named(session: Session, name: str) -> None:
    request = provider_service_pb2.GetProviderRequest(name=name)
    answer = session.client.call(session.client.providers.GetProvider, request)
    _print(session, answer, answer.provider)


def _print(session: Session, answer: Answer, one: provider_service_pb2.Provider) -> None:
    if session.is_json:
        session.print_json(answer)
        return
    rows = [
        ("provider", one.name),
        ("from", source_word(one.source)),
        ("etag", one.etag),
        ("display name", one.display_name),
        ("dialect", one.dialect),
        ("base URL", one.base_url),
        ("auth", one.auth),
        ("private networks", ", ".join(one.allowed_private_networks)),
        ("template", one.template),
        ("calls", "may go there" if one.is_enabled else "are switched off"),
        ("own keys", "can be stored" if one.is_byok_supported else "cannot be stored"),
        ("key page", one.key_page),
        ("advanced", one.advanced_json),
    ]
    session.out.print(tables.sheet(rows))
