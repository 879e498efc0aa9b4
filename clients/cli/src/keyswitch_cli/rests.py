"""What rests, and whether a provider answers again."""

from __future__ import annotations

from typing import Annotated

import typer
from keyswitch.router.v1 import provider_service_pb2, routing_service_pb2

from keyswitch_cli import tables, words
from keyswitch_cli.session import Json, session_of


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("rests")(rests)
    app.command("probe")(probe)


def rests(context: typer.Context, is_json: Json = False) -> None:
    """List the keys and endpoints that no call tries before their time, and why; for an operator, everybody's."""
    session = session_of(context, is_json=is_json)
    parent = session.settings.organization or "deployment"
    request = routing_service_pb2.ListRestsRequest(parent=parent)
    whole = session.call_all(session.client.routing.ListRests, request)
    if session.is_json:
        session.print_json(whole)
        return
    if not whole.rests:
        session.say("Nothing rests.", "green")
        return
    table = tables.listing("what rests", "for", "why", "until", long=("what rests",))
    for rest in whole.rests:
        where = f"{words.last(rest.provider)} with " if rest.provider else ""
        table.add_row(
            where + (rest.credential or "no key"),
            rest.upstream_model_id or rest.model or "all models",
            words.enum_word(routing_service_pb2.RestCause, rest.cause, "REST_CAUSE_"),
            "one call tries it now" if rest.is_tried else words.moment(rest.end_time),
        )
    session.out.print(table)


def probe(
    context: typer.Context,
    provider: Annotated[str, typer.Argument(help="Id, or the whole name of an organization's own.")],
    is_json: Json = False,
) -> None:
    """Ask a provider whether it answers, without any key; what rested for its failures is let back if it does."""
    session = session_of(context, is_json=is_json)
    name = provider if "/" in provider else f"providers/{provider}"
    request = provider_service_pb2.ProbeProviderRequest(name=name)
    answer = session.client.call(session.client.providers.ProbeProvider, request)
    if session.is_json:
        session.print_json(answer)
        return
    if not answer.is_reachable:
        said = f"answered with status {answer.http_status}" if answer.http_status else "did not answer"
        session.say(f"{provider} {said}.", "red")
        raise typer.Exit(1)
    back = f" {answer.ended_rest_count} endpoints may be tried again." if answer.ended_rest_count else ""
    session.say(f"{provider} answers (status {answer.http_status}, {words.seconds(answer.duration)}).{back}", "green")
