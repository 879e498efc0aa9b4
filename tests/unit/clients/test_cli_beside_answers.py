"""What an answer says beside itself, the plans that keys belong to, and how tables fold."""

from __future__ import annotations

import io

from keyswitch.router.v1 import (
    budget_service_pb2,
    payer_pb2,
    provider_service_pb2,
    resolution_pb2,
    stream_pb2,
)
from keyswitch_cli import tables
from rich.console import Console

from tests.unit.clients.cli_terminal import Terminal
from tests.unit.clients.test_cli import answer_stream


def test_an_answer_says_who_was_passed_over_for_the_moment_and_that_credits_are_low(terminal: Terminal) -> None:
    messages = answer_stream()
    ended: stream_pb2.ResponseEnded = messages[-1].events[0].response_ended
    for reason in (resolution_pb2.SKIP_REASON_SLOTS_TAKEN, resolution_pb2.SKIP_REASON_NO_CREDENTIAL):
        ended.receipt.skipped_candidates.append(
            resolution_pb2.SkippedCandidate(
                model="z-ai/glm-5.1", provider="providers/zai", payer=payer_pb2.PAYER_CREDITS, reason=reason
            )
        )
    balance = budget_service_pb2.Balance(
        organization="organizations/demo", available_usd_nanos=10**8, low_balance_usd_nanos=10**9, is_low=True
    )
    terminal.services.answers |= {
        "StreamComplete": messages,
        "GetBalance": budget_service_pb2.GetBalanceResponse(balance=balance),
    }
    said = terminal.run("chat", "Hi").stderr
    assert "passed over: z-ai/glm-5.1 at zai for CREDITS, slots taken" in said
    assert "no credential" not in said
    assert "demo has $0.10 of credits left: below the $1.00 that count as low" in said
    balance.available_usd_nanos = -5
    terminal.services.answers["GetBalance"] = budget_service_pb2.GetBalanceResponse(balance=balance)
    assert "are refused until the operator adds some" in terminal.run("chat", "Hi").stderr
    balance.is_low = False
    terminal.services.answers["GetBalance"] = budget_service_pb2.GetBalanceResponse(balance=balance)
    assert "of credits left" not in terminal.run("chat", "Hi").stderr


def test_plans_say_where_keys_come_from_and_go_and_on_which_terms(terminal: Terminal) -> None:
    plan = provider_service_pb2.ProviderPlan(
        plan="coding",
        display_name="Coding Plan",
        warning="Only for coding.",
        default_max_concurrent_requests=1,
        highest_max_concurrent_requests=30,
    )
    developer = provider_service_pb2.ProviderPlan(plan="developer", display_name="Developer API")
    terminal.services.answers["ListProviders"] = provider_service_pb2.ListProvidersResponse(
        providers=[
            provider_service_pb2.Provider(
                name="providers/zai", vendor="zai", plan=developer, key_page="https://z/keys"
            ),
            provider_service_pb2.Provider(
                name="providers/zai-coding", vendor="zai", plan=plan, base_url="https://z/coding"
            ),
            provider_service_pb2.Provider(name="providers/openai", vendor="openai"),
        ]
    )
    shown = terminal.run("plans", "zai")
    assert all(text in shown.stdout for text in ("https://z/keys", "no limit set", "https://z/coding", "1, at most 30"))
    assert "openai" not in shown.stdout
    assert "! zai-coding: Only for coding." in shown.stderr
    assert "zai-coding" in terminal.run("plans", "zai-coding", "--json").stdout
    refused = terminal.run("plans", "openai")
    assert refused.exit_code == 4
    assert "Vendors with plans: zai." in refused.stderr


def test_a_narrow_screen_folds_and_cuts_nothing(terminal: Terminal) -> None:
    table = tables.listing("receipt", "paid by", "model", long=("model",))
    table.add_row("8aa603d4dd5e9db526b4730dec3b90be", "ORGANIZATION_KEY", "anthropic/claude-sonnet-4.6")
    for width in (40, 60, 80, 120):
        console = Console(file=io.StringIO(), width=width)
        console.print(table)
        assert isinstance(console.file, io.StringIO)
        shown = console.file.getvalue()
        rows = [line for line in shown.splitlines() if line.strip()][2:]
        assert all(len(line) <= width for line in rows)
        characters = sorted("".join(rows).replace(" ", ""))
        assert characters[-75:] == sorted("8aa603d4dd5e9db526b4730dec3b90beORGANIZATION_KEYanthropic/claude-sonnet-4.6")
