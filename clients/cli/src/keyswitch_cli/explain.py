"""What a call would do, before it is made: who would answer, who would pay, and why the others would not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from keyswitch.router.v1 import error_reason_pb2, resolution_pb2, routing_service_pb2
from keyswitch_client.options import CallOptions, build_call

from keyswitch_cli import call_routes, tables, words
from keyswitch_cli.session import Json, Session, session_of


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("explain")(explain)
    app.command("estimate")(estimate)


Model = Annotated[str, typer.Argument(help="Model or alias; none for the default.", show_default=False)]
ApplicationOption = Annotated[
    str | None, typer.Option("--application", "-a", envvar="KEYSWITCH_APPLICATION", help="Id or whole name.")
]
Payers = Annotated[list[str] | None, typer.Option("--payer", help="Only this payer may pay. May be repeated.")]
Context = Annotated[str, typer.Option("--context", help="What the call is for.", show_default=False)]
User = Annotated[str, typer.Option("--for", help="The user, by id, for whom a service asks.", show_default=False)]


def explain(
    context: typer.Context,
    model: Model = "",
    application: ApplicationOption = None,
    payer: Payers = None,
    call_context: Context = "",
    user: User = "",
    provider: call_routes.Provider = None,
    only_providers: call_routes.OnlyProviders = False,
    is_all: Annotated[bool, typer.Option("--all", help="Also each way for which there is no key.")] = False,
    is_json: Json = False,
) -> None:
    """Say who would answer and who would pay, and why each alternative would not. Nothing is sent."""
    session = session_of(context, is_json=is_json)
    options = _options(session, model, application, payer, call_context, user)
    call_routes.Routes(provider or (), only_providers).add_to(options)
    request = routing_service_pb2.ExplainRouteRequest(call=build_call([], options, str))
    answer = session.client.call(session.client.routing.ExplainRoute, request)
    if session.is_json:
        session.print_json(answer)
        return
    if answer.candidates:
        _print_candidates(session, answer)
    else:
        reason = words.enum_word(error_reason_pb2.ErrorReason, answer.failure_reason, "ERROR_REASON_")
        session.say(f"The call would fail: {reason}", "red")
    for choice in answer.skipped_choices:
        source = words.enum_word(resolution_pb2.ModelSource, choice.source, "MODEL_SOURCE_")
        why = words.enum_word(resolution_pb2.SkipReason, choice.reason, "SKIP_REASON_")
        session.out.print(f"passed over: {choice.model} ({source}): {why}", markup=False, soft_wrap=True)
    shown = [one for one in answer.skipped_candidates if is_all or not answer.candidates or not words.is_keyless(one)]
    if shown:
        _print_skipped(session, shown)
    if len(shown) < len(answer.skipped_candidates):
        session.say(words.KEYLESS_LEFT_OUT, "dim")


def _print_candidates(session: Session, answer: routing_service_pb2.ExplainRouteResponse) -> None:
    table = tables.listing("", "model", "named by", "provider", "paid by", "key", "why here", long=("key",))
    for number, found in enumerate(answer.candidates, 1):
        resolution = found.resolution
        table.add_row(
            str(number),
            resolution.model,
            words.enum_word(resolution_pb2.ModelSource, resolution.model_source, "MODEL_SOURCE_"),
            words.last(resolution.provider),
            words.payer(resolution.payer),
            words.last(resolution.credential_version.rpartition("/versions/")[0]) or "no key",
            words.enum_word(routing_service_pb2.CandidateReason, found.reason, "CANDIDATE_REASON_"),
        )
    session.out.print(table)


def _print_skipped(session: Session, skipped_candidates: Sequence[resolution_pb2.SkippedCandidate]) -> None:
    table = tables.listing("not taken", "provider", "payer", "why", "what to do", long=("what to do",))
    for skipped in skipped_candidates:
        table.add_row(
            skipped.model,
            words.last(skipped.provider),
            words.payer(skipped.payer) if skipped.payer else "-",
            words.enum_word(resolution_pb2.SkipReason, skipped.reason, "SKIP_REASON_"),
            skipped.message,
        )
    session.out.print()
    session.out.print(table)


def estimate(
    context: typer.Context,
    message: Annotated[str, typer.Argument(help="What would be asked.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Model or alias.", show_default=False)] = "",
    application: ApplicationOption = None,
    payer: Payers = None,
    most: Annotated[int, typer.Option("--max-output-tokens", help="0: the model's own.")] = 0,
    is_json: Json = False,
) -> None:
    """Say what a call would cost at least and at most, over each way to answer it. Nothing is sent."""
    session = session_of(context, is_json=is_json)
    options = _options(session, model, application, payer, "", "")
    if most:
        options["max_output_tokens"] = most
    request = routing_service_pb2.EstimateCostRequest(call=build_call(message, options, str))
    answer = session.client.call(session.client.routing.EstimateCost, request)
    if session.is_json:
        session.print_json(answer)
        return
    table = tables.listing("model", "provider", "paid by", "tokens in", "most out", "list price", "charged at most")
    for found in answer.candidates:
        resolution = found.resolution
        table.add_row(
            resolution.model,
            words.last(resolution.provider),
            words.payer(resolution.payer),
            f"{found.input_tokens:,}",
            f"{found.max_output_tokens:,}",
            f"{words.list_price(found.minimum)} to {words.list_price(found.maximum)}",
            words.charged(found.maximum),
        )
    session.out.print(table)


def _options(
    session: Session, model: str, application: str | None, payers: list[str] | None, call_context: str, user: str
) -> CallOptions:
    options = CallOptions(
        model=model, application=session.settings.application(application), context=call_context, request_id=""
    )
    if payers:
        options["payers"] = payers
    if user:
        options["on_behalf_of_user"] = session.settings.owner(user)
    return options
