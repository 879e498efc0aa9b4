"""How a question is put, what an answer says beside itself, and the plans that keys belong to."""

from __future__ import annotations

from pathlib import Path

from keyswitch.router.v1 import (
    application_service_pb2,
    budget_service_pb2,
    payer_pb2,
    provider_service_pb2,
    resolution_pb2,
    settings_pb2,
    stream_pb2,
)

from tests.unit.clients.cli_terminal import Terminal
from tests.unit.clients.test_cli import answer_stream, thought_text_and_tool


def test_settings_and_the_way_are_in_the_call(terminal: Terminal, tmp_path: Path) -> None:
    terminal.services.answers["StreamComplete"] = thought_text_and_tool()
    options = tmp_path / "options.json"
    options.write_text('{"service_tier": "auto"}')
    flags = ("--effort", "high", "--options", f"@{options}", "--max-output-tokens", "9", "--via", "openrouter")
    pins = ("--upstream", "moonshot", "--upstream", "together", "--no-other-upstreams")
    assert terminal.run("chat", "Hi", *flags, *pins).exit_code == 0
    call = terminal.services.asked("StreamComplete").call
    settings = call.spec.settings
    assert settings.reasoning.effort == settings_pb2.REASONING_EFFORT_HIGH
    assert [(one.namespace, one.json) for one in settings.provider_options] == [("", '{"service_tier": "auto"}')]
    assert settings.max_output_tokens == 9
    assert list(settings.upstream_routing.order) == ["moonshot", "together"]
    assert settings.upstream_routing.allow_fallbacks is False
    assert list(call.route_policy.provider_order) == ["providers/openrouter"]
    missing = terminal.run("chat", "Hi", "--options", "@nowhere.json")
    assert missing.exit_code == 2
    assert "nowhere.json cannot be read" in missing.stderr


def test_what_was_not_said_is_not_in_the_call(terminal: Terminal) -> None:
    terminal.services.answers["StreamComplete"] = thought_text_and_tool()
    assert terminal.run("chat", "Hi").exit_code == 0
    call = terminal.services.asked("StreamComplete").call
    assert not call.spec.HasField("settings")
    assert not call.HasField("route_policy")


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


def test_what_moves_the_bill_is_set_and_taken_back(terminal: Terminal) -> None:
    name = "organizations/demo/applications/chat"
    cause = payer_pb2.PAYER_FAILOVER_CAUSE_RATE_LIMITED
    stored = application_service_pb2.Application(name=name, payer_failover_on=[cause])
    terminal.services.answers |= {
        "ListApplications": application_service_pb2.ListApplicationsResponse(applications=[stored]),
        "UpdateApplication": application_service_pb2.UpdateApplicationResponse(application=stored),
    }
    shown = terminal.run("applications", "set", "chat", "--failover-on", "rate-limited").stdout
    assert "rate limited" in shown
    asked = terminal.services.asked("UpdateApplication")
    assert list(asked.application.payer_failover_on) == [cause]
    assert list(asked.update_mask.paths) == ["payer_failover_on"]
    terminal.services.requests.clear()
    terminal.run("applications", "set", "chat", "--failover-on", "nothing")
    asked = terminal.services.asked("UpdateApplication")
    assert (list(asked.application.payer_failover_on), list(asked.update_mask.paths)) == ([], ["payer_failover_on"])
