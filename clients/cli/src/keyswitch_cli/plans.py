"""The billing plans that vendors sell: where their keys come from, where they go, and on which terms."""

from __future__ import annotations

from typing import Annotated

import typer
from keyswitch.router.v1 import provider_service_pb2

from keyswitch_cli import tables, words
from keyswitch_cli.problem import EXIT_REFUSED, Problem
from keyswitch_cli.providers import every_provider
from keyswitch_cli.session import Json, session_of


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("plans")(plans)


def plans(
    context: typer.Context,
    vendor: Annotated[
        str, typer.Argument(help="Only the plans of this vendor, as zai or moonshot.", show_default=False)
    ] = "",
    is_json: Json = False,
) -> None:
    """List the billing plans. A key belongs to one of them: the provider named first in its row."""
    session = session_of(context, is_json=is_json)
    known = [one for one in every_provider(session).providers if one.plan.plan]
    found = [one for one in known if vendor in ("", one.vendor, words.last(one.name))]
    if not found:
        vendors = ", ".join(sorted({one.vendor for one in known}))
        advice = f"Vendors with plans: {vendors}."
        raise Problem(f"No plan of {vendor!r} is known.", advice=advice, exit_code=EXIT_REFUSED)
    if session.is_json:
        session.print_json(provider_service_pb2.ListProvidersResponse(providers=found))
        return
    table = tables.listing("provider", "plan", "endpoint", "at once", "keys from", long=("endpoint", "keys from"))
    for one in found:
        table.add_row(
            words.last(one.name), one.plan.display_name, one.base_url or one.origin, _at_once(one.plan), one.key_page
        )
    session.out.print(table)
    warnings: dict[str, list[str]] = {}
    for one in found:
        if one.plan.warning:
            warnings.setdefault(one.plan.warning, []).append(words.last(one.name))
    for warning, names in warnings.items():
        session.say(f"! {', '.join(names)}: {warning}", "yellow")


def _at_once(plan: provider_service_pb2.ProviderPlan) -> str:
    if not plan.HasField("default_max_concurrent_requests"):
        return "no limit set"
    usual, most = plan.default_max_concurrent_requests, plan.highest_max_concurrent_requests
    return f"{usual}, at most {most}" if most > usual else str(usual)
