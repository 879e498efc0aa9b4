"""The keyswitch command against scripted services: what it asks, what it shows, with which code it ends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.core
import typer.main
from google.protobuf import duration_pb2, timestamp_pb2
from google.rpc import code_pb2, error_details_pb2
from keyswitch.router.v1 import (
    completion_service_pb2,
    content_pb2,
    cost_pb2,
    error_reason_pb2,
    model_service_pb2,
    payer_pb2,
    receipt_pb2,
    resolution_pb2,
    routing_service_pb2,
    settings_pb2,
    stream_pb2,
    usage_pb2,
    usage_service_pb2,
)
from keyswitch.vault.v1 import credential_service_pb2
from keyswitch_cli import words
from keyswitch_cli.chat import Conversation
from keyswitch_cli.main import app
from keyswitch_cli.session import Session
from keyswitch_cli.settings import Settings
from keyswitch_client import system

from tests.unit.clients.cli_terminal import ADA, Terminal, made_up_token
from tests.unit.clients.scripted_router import numbered, rich_status, started


def receipt(response_id: str = "r-1") -> receipt_pb2.Receipt:
    usage = usage_pb2.Usage(input_tokens=12, output_tokens=20, reasoning_tokens=5)
    cost = cost_pb2.Cost(list_price_usd_nanos=9200, charged_usd_nanos=9660)
    attempt = receipt_pb2.Attempt(
        number=1,
        model="practice/echo",
        provider="providers/practice",
        payer=payer_pb2.PAYER_CREDITS,
        credential_version="deployment/credentials/practice/versions/3",
        usage=usage,
        cost=cost,
        duration=duration_pb2.Duration(nanos=420_000_000),
    )
    return receipt_pb2.Receipt(
        response_id=response_id,
        state=receipt_pb2.RECEIPT_STATE_SUCCEEDED,
        create_time=timestamp_pb2.Timestamp(seconds=1_700_000_000),
        end_time=timestamp_pb2.Timestamp(seconds=1_700_000_000, nanos=420_000_000),
        attempts=[attempt],
        usage=usage,
        cost=cost,
        markup_basis_points=500,
    )


def answer_stream(*events: stream_pb2.StreamEvent) -> list[completion_service_pb2.StreamCompleteResponse]:
    start = started("r-1", "practice/echo")
    resolution = start.response_started.resolution
    resolution.payer = payer_pb2.PAYER_CREDITS
    resolution.credential_version = "deployment/credentials/practice/versions/3"
    start.response_started.warnings.add(
        field="settings.sampling.top_k", reason=resolution_pb2.WARNING_REASON_IGNORED, message="it cannot do this"
    )
    end = stream_pb2.StreamEvent(
        response_ended=stream_pb2.ResponseEnded(finish_reason=stream_pb2.FINISH_REASON_STOP, receipt=receipt())
    )
    return [completion_service_pb2.StreamCompleteResponse(events=[event]) for event in numbered([start, *events, end])]


def thought_text_and_tool() -> list[completion_service_pb2.StreamCompleteResponse]:
    start, delta, end = stream_pb2.PartStarted, stream_pb2.PartDelta, stream_pb2.PartEnded
    call = stream_pb2.ToolCallStart(id="c", name="get_time")
    return answer_stream(
        stream_pb2.StreamEvent(part_started=start(index=0, reasoning=stream_pb2.ReasoningStart())),
        stream_pb2.StreamEvent(part_delta=delta(index=0, reasoning=stream_pb2.ReasoningDelta(text="Let me think"))),
        stream_pb2.StreamEvent(part_ended=end(index=0)),
        stream_pb2.StreamEvent(part_started=start(index=1, text=stream_pb2.TextStart())),
        stream_pb2.StreamEvent(part_delta=delta(index=1, text=stream_pb2.TextDelta(text="Hello [bold]"))),
        stream_pb2.StreamEvent(part_delta=delta(index=1, text=stream_pb2.TextDelta(text=" Ada"))),
        stream_pb2.StreamEvent(part_ended=end(index=1)),
        stream_pb2.StreamEvent(part_started=start(index=2, tool_call=call)),
        stream_pb2.StreamEvent(part_delta=delta(index=2, arguments=stream_pb2.ArgumentsDelta(json='{"zone":1}'))),
        stream_pb2.StreamEvent(part_ended=end(index=2)),
    )


def test_chat_keeps_the_answer_apart_from_what_is_said_about_it(terminal: Terminal) -> None:
    terminal.services.answers["StreamComplete"] = thought_text_and_tool()
    result = terminal.run(
        "chat", "Hi", "--model", "echo", "--application", "chat", "--payer", "CREDITS", "--effort", "high",
        "--context", "title", "--show-thoughts",
    )  # fmt: skip
    assert result.exit_code == 0
    assert result.stdout == "Hello [bold] Ada\n"
    assert "Let me think" in result.stderr
    assert '→ get_time({"zone":1})' in result.stderr
    assert "! settings.sampling.top_k ignored: it cannot do this" in result.stderr
    assert (
        "practice/echo · practice · paid by CREDITS (deployment/credentials/practice v3) · "
        "12 in + 20 out (5 reasoning) tokens · list $0.0000092 · charged $0.00000966 (markup 5 %) · 0.42 s"
        in result.stderr
    )
    assert "receipt r-1" in result.stderr
    call = terminal.services.asked("StreamComplete").call
    assert call.application == "organizations/demo/applications/chat"
    assert call.context == "title"
    assert call.spec.settings.reasoning.effort == settings_pb2.REASONING_EFFORT_HIGH
    assert list(call.route_policy.payers) == [payer_pb2.PAYER_CREDITS]


def test_chat_says_where_a_call_may_go_and_what_the_provider_is_told(terminal: Terminal) -> None:
    terminal.services.answers["StreamComplete"] = thought_text_and_tool()
    result = terminal.run(
        "chat", "Hi", "--provider", "bedrock", "--provider", "organizations/demo/providers/own", "--only-providers",
        "--upstream", "moonshotai", "--only-upstreams", "--thinking-budget", "2048", "--options", '{"user": "me"}',
    )  # fmt: skip
    assert result.exit_code == 0
    call = terminal.services.asked("StreamComplete").call
    assert list(call.route_policy.provider_order) == ["providers/bedrock", "organizations/demo/providers/own"]
    assert call.route_policy.HasField("allow_fallbacks")
    assert not call.route_policy.allow_fallbacks
    settings = call.spec.settings
    assert list(settings.upstream_routing.order) == ["moonshotai"]
    assert settings.upstream_routing.HasField("allow_fallbacks")
    assert not settings.upstream_routing.allow_fallbacks
    assert settings.reasoning.budget_tokens == 2048
    assert [(one.namespace, one.json) for one in settings.provider_options] == [("", '{"user": "me"}')]


def test_explain_takes_providers(terminal: Terminal) -> None:
    terminal.services.answers["ExplainRoute"] = routing_service_pb2.ExplainRouteResponse()
    assert terminal.run("explain", "sonnet-4.6", "--provider", "bedrock", "--only-providers").exit_code == 0
    policy = terminal.services.asked("ExplainRoute").call.route_policy
    assert list(policy.provider_order) == ["providers/bedrock"]
    assert not policy.allow_fallbacks


def test_chat_hides_thoughts_unless_asked_and_reads_a_pipe(terminal: Terminal) -> None:
    terminal.services.answers["StreamComplete"] = thought_text_and_tool()
    result = terminal.run("chat", given="From a pipe\n")
    assert "Let me think" not in result.stderr
    assert terminal.services.asked("StreamComplete").call.spec.messages[0].parts[0].text.text == "From a pipe\n"


def test_chat_as_json_is_the_folded_answer_alone(terminal: Terminal) -> None:
    terminal.services.answers["StreamComplete"] = thought_text_and_tool()
    result = terminal.run("chat", "Hi", "--json")
    answer = json.loads(result.stdout)
    assert answer["message"]["parts"][1]["text"]["text"] == "Hello [bold] Ada"
    assert result.stderr == ""


def failed_call() -> Any:
    attempt = receipt_pb2.Attempt(
        number=1,
        model="practice/echo",
        provider="providers/practice",
        payer=payer_pb2.PAYER_USER_KEY,
        failure_reason=error_reason_pb2.ERROR_REASON_UPSTREAM_RATE_LIMITED,
    )
    skipped = resolution_pb2.SkippedCandidate(
        model="practice/echo",
        provider="providers/practice",
        payer=payer_pb2.PAYER_CREDITS,
        reason=resolution_pb2.SKIP_REASON_EARLIER_PAYER,
    )
    return rich_status(
        code_pb2.RESOURCE_EXHAUSTED,
        "the provider throttles this key",
        "ERROR_REASON_UPSTREAM_RATE_LIMITED",
        error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=3)),
        receipt_pb2.Receipt(response_id="r-2", attempts=[attempt], skipped_candidates=[skipped]),
        provider="providers/practice",
    )


def test_refused_chat_says_what_why_and_what_next(terminal: Terminal) -> None:
    terminal.services.answers["StreamComplete"] = failed_call()
    result = terminal.run("chat", "Hi")
    assert result.exit_code == 4
    assert result.stdout == ""
    for part in (
        "✗ The provider throttles this key.",
        "UPSTREAM_RATE_LIMITED (RESOURCE_EXHAUSTED, router.keyswitch.dev)",
        "3 s before the next try",
        "provider providers/practice",
        "keyswitch receipt r-2",
        "earlier payer",
        "USER_KEY",
    ):
        assert part in result.stderr


def test_error_as_json_goes_to_standard_error(terminal: Terminal) -> None:
    terminal.services.answers["StreamComplete"] = failed_call()
    result = terminal.run("chat", "Hi", "--json")
    error = json.loads(result.stderr)["error"]
    assert (result.exit_code, result.stdout) == (4, "")
    assert (error["reason"], error["retryDelaySeconds"]) == ("ERROR_REASON_UPSTREAM_RATE_LIMITED", 3.0)


@pytest.mark.parametrize(
    ("code", "reason", "exit_code"),
    [
        (code_pb2.INVALID_ARGUMENT, "ERROR_REASON_INVALID_REQUEST", 2),
        (code_pb2.UNAUTHENTICATED, "ERROR_REASON_CALLER_UNKNOWN", 3),
        (code_pb2.PERMISSION_DENIED, "ERROR_REASON_CALLER_NOT_ALLOWED", 3),
        (code_pb2.PERMISSION_DENIED, "ERROR_REASON_MODEL_NOT_ALLOWED", 4),
        (code_pb2.FAILED_PRECONDITION, "ERROR_REASON_NO_USABLE_CREDENTIAL", 4),
        (code_pb2.UNAVAILABLE, "ERROR_REASON_CREDENTIALS_UNAVAILABLE", 5),
        (code_pb2.INTERNAL, "ERROR_REASON_INTERNAL", 1),
    ],
)
def test_exit_codes(terminal: Terminal, code: int, reason: str, exit_code: int) -> None:
    terminal.services.answers["ListModels"] = rich_status(code, "no", reason)
    result = terminal.run("models")
    assert result.exit_code == exit_code
    assert reason.removeprefix("ERROR_REASON_") in result.stderr


def test_unreachable_service_is_named_as_such(terminal: Terminal) -> None:
    result = terminal.run("--router", "127.0.0.1:1", "models")
    assert result.exit_code == 5
    assert "cannot be reached" in result.stderr


def test_a_token_of_another_issuer_does_not_say_whose_keys_are_meant(terminal: Terminal) -> None:
    token = made_up_token(sub="8f2c", org="the issuer's own", roles=["admin"])
    for command in (("keys", "list"), ("chat", "Hi", "--application", "chat")):
        result = terminal.run(*command, token=token)
        assert result.exit_code == 2
        assert "a token of another issuer names none" in result.stderr
        assert "KEYSWITCH_ORGANIZATION" in result.stderr
    assert terminal.services.requests == []
    terminal.services.answers["ListCredentials"] = credential_service_pb2.ListCredentialsResponse()
    assert terminal.run("-o", "demo", "keys", "list", token=token).exit_code == 0
    assert terminal.services.asked("ListCredentials").parent == "organizations/demo"


def test_missing_token_and_wrong_usage(terminal: Terminal) -> None:
    empty = terminal.run("models", token="")
    assert (empty.exit_code, "The token is empty" in empty.stderr) == (3, True)
    missing = terminal.run("models", token=None)
    assert missing.exit_code == 3
    assert "operator.token cannot be read" in missing.stderr
    assert terminal.run("chat", "Hi", "--effort", "loud").exit_code == 2
    assert terminal.run("chat", given=" ").exit_code == 2
    assert terminal.run("receipt").exit_code == 2
    assert terminal.services.requests == []


def commands(group: typer.core.TyperGroup, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            yield from commands(command, *path, name)
        else:
            yield (*path, name)


def test_every_command_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    pages = {}
    for path in commands(root):
        assert root.main([*path, "--help"], standalone_mode=False) == 0
        pages[path] = capsys.readouterr().out
    assert len(pages) > 70
    assert all("Usage:" in page for page in pages.values())
    table = Path("clients/cli/README.md").read_text(encoding="utf-8").partition("## Commands")[2].partition("\n## ")[0]
    said = {word for code in re.findall(r"`([^`]+)`", table) for word in code.split()}
    assert {word for path in pages for word in path} <= said


def test_models_and_providers(terminal: Terminal) -> None:
    price = model_service_pb2.ModelPrice(input_usd_nanos_per_million_tokens=100_000_000)
    model = model_service_pb2.Model(
        model="practice/echo",
        aliases=["echo"],
        provider="providers/practice",
        payer=payer_pb2.PAYER_SHARED_KEY,
        price=price,
        is_preselected=True,
    )
    pages = {
        "": model_service_pb2.ListModelsResponse(models=[model], next_page_token="2"),
        "2": model_service_pb2.ListModelsResponse(models=[model_service_pb2.Model(model="practice/tools")]),
    }
    terminal.services.answers["ListModels"] = lambda request: pages[request.page_token]
    result = terminal.run("models")
    assert "practice/echo *" in result.stdout
    assert "$0.10" in result.stdout
    assert "unknown" in result.stdout
    assert "practice/tools" in result.stdout
    assert len(json.loads(terminal.run("models", "--json").stdout)["models"]) == 2
    assert "http://127.0.0.1:8780" in terminal.run("providers").stdout
    empty = model_service_pb2.ListModelsResponse(message="Ask your administrator for a key.")
    terminal.services.answers["ListModels"] = empty
    assert "Ask your administrator" in terminal.run("models").stderr


def test_receipt(terminal: Terminal) -> None:
    terminal.services.answers["GetReceipt"] = usage_service_pb2.GetReceiptResponse(receipt=receipt())
    shown = terminal.run("receipt", "r-1").stdout
    for part in ("succeeded", "$0.0000092", "(markup 5 %)", "answered", "deployment/credentials/practice v3", "0.42 s"):
        assert part in shown
    terminal.services.requests.clear()
    terminal.run("receipt", "--request-id", "q")
    assert terminal.services.asked("GetReceipt").request_id == "q"


def test_conversation_remembers_and_goes_on_after_an_error(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter([thought_text_and_tool(), failed_call(), thought_text_and_tool()])
    terminal.services.answers["StreamComplete"] = lambda _: next(answers)
    lines = iter(["First", "/model echo", "Refused", "/help", "", "Second", "/new", "/exit"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    settings = Settings(terminal.home, terminal.target, terminal.target, ADA, None, None)
    session = Session(settings)
    conversation = Conversation(session, {}, show_thoughts=False, history=[system("Be brief")])
    conversation.run()
    session.close()
    calls = [request.call for name, request in terminal.services.requests if name == "StreamComplete"]
    said = [[part.text.text for turn in call.spec.messages for part in turn.parts] for call in calls]
    assert said[1][-1] == "Refused"
    assert said[2] == ["Be brief", "First", "", "Hello [bold] Ada", "", "Second"]
    assert [call.spec.model for call in calls] == ["", "echo", "echo"]
    assert [turn.role for turn in conversation.history] == [content_pb2.ROLE_SYSTEM]
    assert "UPSTREAM_RATE_LIMITED" in capsys.readouterr().err


def test_terminal_commands_of_a_model_are_not_obeyed() -> None:
    assert words.harmless("a\x1b[2Jb\x07c\x9b1m\td\n\x7f") == "a[2Jbc1m\td\n"


def test_amounts_are_exact() -> None:
    assert [words.usd(nanos) for nanos in (0, 1, 12_500_000_000, -5_000_000_000)] == [
        "$0.00",
        "$0.000000001",
        "$12.50",
        "-$5.00",
    ]
    assert words.nanos_of("$1,000.000000001") == 1_000_000_000_001
