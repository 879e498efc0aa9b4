"""The command's root: global options, sub-commands, and the one place where an error becomes words and an exit code."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from keyswitch_client import KeyswitchError
from typer.core import TyperGroup

from keyswitch_cli import (
    applications,
    audit,
    budgets,
    catalog,
    chat,
    configuration,
    embed,
    explain,
    keys,
    ledger,
    money,
    organizations,
    overrides,
    plans,
    policy,
    providers,
    receipts,
    rests,
    tokens,
    usage,
)
from keyswitch_cli.problem import EXIT_INTERRUPTED, Problem
from keyswitch_cli.problems import error_json, exit_code, show_error, show_problem
from keyswitch_cli.session import Session, console
from keyswitch_cli.settings import Settings


class Root(TyperGroup):
    """All commands. What they raise ends here."""

    def invoke(self, ctx: Any) -> Any:
        """Runs a command."""
        try:
            return super().invoke(ctx)
        except KeyswitchError as error:
            session = ctx.find_object(Session)
            stream = session.err if session else console(sys.stderr)
            if session and session.is_json:
                session.print_json(error_json(error), session.err)
            else:
                show_error(stream, error)
            raise typer.Exit(exit_code(error)) from None
        except Problem as problem:
            show_problem(console(sys.stderr), problem)
            raise typer.Exit(problem.exit_code) from None
        except ValueError as error:
            # keyswitch_client says so of options that no service would understand.
            show_problem(console(sys.stderr), Problem(str(error)))
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            raise typer.Exit(EXIT_INTERRUPTED) from None


app = typer.Typer(
    cls=Root,
    name="keyswitch",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 a fault, 2 wrong usage or request, 3 no or too weak an identity, 4 refused, "
    "5 not available now, 130 interrupted.",
)


@app.callback()
def root(
    context: typer.Context,
    home: Annotated[Path, typer.Option(envvar="KEYSWITCH_HOME", help="Where ca.pem and operator.token are.")] = Path(
        ".keyswitch"
    ),
    router: Annotated[str, typer.Option(envvar="KEYSWITCH_ROUTER", help="The router's address.")] = "127.0.0.1:8760",
    vault: Annotated[
        str, typer.Option(envvar="KEYSWITCH_VAULT", help="The credential service's address.")
    ] = "127.0.0.1:8770",
    token: Annotated[
        str | None,
        typer.Option(
            envvar="KEYSWITCH_TOKEN",
            help="The caller's token. Others on this machine can read it here: prefer --token-file.",
            show_default=False,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="KEYSWITCH_TOKEN_FILE", help="A file with the token. Default: operator.token.", show_default=False
        ),
    ] = None,
    organization: Annotated[
        str | None,
        typer.Option(
            "--organization",
            "-o",
            envvar="KEYSWITCH_ORGANIZATION",
            help="Default: the token's own.",
            show_default=False,
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            "--ca", envvar="KEYSWITCH_CA", help="The services' authority. Default: ca.pem.", show_default=False
        ),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--cert",
            envvar="KEYSWITCH_CERT",
            help="The caller's certificate with its chain, in place of a token; its services listen elsewhere.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", envvar="KEYSWITCH_KEY", help="The certificate's private key.", show_default=False),
    ] = None,
) -> None:
    """Chat with any model over Keyswitch, and look after its keys, tokens and costs."""
    settings = Settings(
        home=home,
        router_target=router,
        vault_target=vault,
        # A file that is named beats a text that merely lies in the environment.
        token_text=_token_text(context, token, token_file),
        token_file=token_file,
        organization_id=organization.removeprefix("organizations/") if organization else None,
        ca_file=ca,
        certificate_file=certificate,
        key_file=key,
    )
    session = Session(settings)
    context.obj = session
    context.call_on_close(session.close)


def _token_text(context: typer.Context, token: str | None, token_file: Path | None) -> str | None:
    """The text that was given. An empty KEYSWITCH_TOKEN counts: falling back to the operator's token would surprise."""
    if token_file and not _is_given(context, "token"):
        return None
    return "" if token is None and os.environ.get("KEYSWITCH_TOKEN") == "" else token


def _is_given(context: typer.Context, parameter: str) -> bool:
    """Whether an option stood on the command line, and not only in the environment."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


chat.register(app)
catalog.register(app)
plans.register(app)
embed.register(app)
explain.register(app)
receipts.register(app)
rests.register(app)
app.add_typer(keys.app)
app.add_typer(tokens.app)
app.add_typer(money.app)
app.add_typer(budgets.app)
app.add_typer(usage.app)
app.add_typer(ledger.app)
app.add_typer(audit.app)
app.add_typer(policy.app)
app.add_typer(applications.app)
app.add_typer(overrides.app)
app.add_typer(organizations.app)
app.add_typer(providers.app)
app.add_typer(configuration.app)


def run() -> None:
    """The console script."""
    app()
