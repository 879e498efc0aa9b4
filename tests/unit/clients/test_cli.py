"""The keyswitch command against scripted services: what it asks, what it shows, with which code it ends."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import duration_pb2, timestamp_pb2
from google.rpc import code_pb2, error_details_pb2
from keyswitch.router.v1 import (
    budget_service_pb2,
    completion_service_pb2,
    cost_pb2,
    credential_test_service_pb2,
    error_reason_pb2,
    model_service_pb2,
    payer_pb2,
    provider_service_pb2,
    receipt_pb2,
    resolution_pb2,
    settings_pb2,
    stream_pb2,
    usage_pb2,
    usage_service_pb2,
)
from keyswitch.vault.v1 import (
    audit_pb2,
    audit_service_pb2,
    credential_pb2,
    credential_service_pb2,
    credential_test_pb2,
    token_service_pb2,
)
from keyswitch_cli.main import app
from typer.testing import CliRunner, Result

from tests.unit.clients.scripted_router import numbered, rich_status, started
from tests.unit.clients.scripted_services import ScriptedServices, serving

KEY = "sk-practice-0123456789abcdef0123456789"
OWN = "organizations/demo/users/ada/credentials/practice"


def made_up_token(**claims: object) -> str:
    """The form of a JWT; only the services would look at its signature."""
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.c2ln"


ADA = made_up_token(sub="organizations/demo/users/ada", org="organizations/demo", roles=["member"])
OPERATOR = made_up_token(sub="deployment/tokens/x", roles=["operator"])


@dataclass
class Terminal:
    """The command in a home of its own."""

    services: ScriptedServices
    home: Path
    target: str

    def run(self, *arguments: str, given: str = "", token: str = ADA) -> Result:
        environment = {
            "KEYSWITCH_HOME": str(self.home),
            "KEYSWITCH_ROUTER": self.target,
            "KEYSWITCH_VAULT": self.target,
            "KEYSWITCH_TOKEN": token,
            "COLUMNS": "200",
        }
        result = CliRunner().invoke(app, list(arguments), input=given, env=environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    services = ScriptedServices()
    provider = provider_service_pb2.Provider(
        name="providers/practice", display_name="Practice", dialect="openai_chat", origin="http://127.0.0.1:8780"
    )
    services.answers["ListProviders"] = provider_service_pb2.ListProvidersResponse(providers=[provider])
    with serving(services, tmp_path) as target:
        yield Terminal(services, tmp_path, target)


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


def test_missing_token_and_wrong_usage(terminal: Terminal) -> None:
    missing = terminal.run("models", token="")
    assert missing.exit_code == 3
    assert "operator.token cannot be read" in missing.stderr
    assert terminal.run("chat", "Hi", "--effort", "loud").exit_code == 2
    assert terminal.run("chat", given=" ").exit_code == 2
    assert terminal.run("receipt").exit_code == 2
    assert terminal.services.requests == []


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


def script_keys(terminal: Terminal, outcome: credential_test_pb2.CredentialTestOutcome.ValueType) -> None:
    version = credential_pb2.CredentialVersion(name=f"{OWN}/versions/1", fingerprint="sk-…6789")
    terminal.services.answers |= {
        "CreateCredential": lambda request: credential_service_pb2.CreateCredentialResponse(
            credential=credential_pb2.Credential(name=f"{request.parent}/credentials/{request.credential_id}")
        ),
        "AddCredentialVersion": credential_service_pb2.AddCredentialVersionResponse(credential_version=version),
        "TestCredential": credential_test_service_pb2.TestCredentialResponse(
            outcome=outcome, credential_version=version.name, message="Make a new one at the provider.",
            models=[credential_test_service_pb2.UsableModel(upstream_model_id="echo")],
        ),
        "ActivateCredentialVersion": credential_service_pb2.ActivateCredentialVersionResponse(
            credential_version=version
        ),
        "DeleteCredential": credential_service_pb2.DeleteCredentialResponse(),
    }  # fmt: skip


def test_keys_add_goes_all_the_way(terminal: Terminal) -> None:
    script_keys(terminal, credential_test_pb2.CREDENTIAL_TEST_OUTCOME_PASSED)
    result = terminal.run("keys", "add", "practice", given=KEY + "\n")
    assert result.exit_code == 0
    assert result.stdout == f"{OWN}/versions/1\n"
    assert [name for name, _ in terminal.services.requests] == [
        "ListProviders",
        "CreateCredential",
        "AddCredentialVersion",
        "TestCredential",
        "ActivateCredentialVersion",
    ]
    credential = terminal.services.asked("CreateCredential").credential
    assert list(credential.allowed_origins) == ["http://127.0.0.1:8780"]
    assert terminal.services.asked("CreateCredential").parent == "organizations/demo/users/ada"
    assert terminal.services.asked("AddCredentialVersion").secret_material.api_key == KEY
    assert KEY not in result.output
    for step in ("created", "stored version 1 (sk-…6789)", "passed", "activated", "It can use echo"):
        assert step in result.stderr


def test_keys_add_with_a_bad_key_keeps_it_unused(terminal: Terminal) -> None:
    script_keys(terminal, credential_test_pb2.CREDENTIAL_TEST_OUTCOME_INVALID_KEY)
    result = terminal.run("keys", "add", "practice", given=KEY)
    assert result.exit_code == 4
    assert "ActivateCredentialVersion" not in [name for name, _ in terminal.services.requests]
    assert "invalid key" in result.stderr
    assert "Make a new one at the provider." in result.stderr
    assert f"keyswitch keys add-version {OWN}" in result.stderr


def test_keys_add_with_a_refused_secret_leaves_nothing_behind(terminal: Terminal) -> None:
    script_keys(terminal, credential_test_pb2.CREDENTIAL_TEST_OUTCOME_PASSED)
    violation = error_details_pb2.BadRequest.FieldViolation(
        field="secret_material.api_key", description="it holds a space"
    )
    terminal.services.answers["AddCredentialVersion"] = rich_status(
        code_pb2.INVALID_ARGUMENT,
        "the key holds what no key of this kind holds",
        "ERROR_REASON_INVALID_SECRET",
        error_details_pb2.BadRequest(field_violations=[violation]),
        field="secret_material.api_key",
        cause="whitespace",
    )
    result = terminal.run("keys", "add", "practice", given="sk a b\nc\n")
    assert result.exit_code == 2
    assert terminal.services.asked("AddCredentialVersion").secret_material.api_key == "sk a b\nc"
    assert terminal.services.asked("DeleteCredential").name == OWN
    assert "secret_material.api_key: it holds a space" in result.stderr
    assert "in one line, without spaces and quotes" in result.stderr
    assert "sk a b" not in result.output


def test_keys_add_to_a_key_that_exists_is_a_rotation(terminal: Terminal) -> None:
    script_keys(terminal, credential_test_pb2.CREDENTIAL_TEST_OUTCOME_PASSED)
    terminal.services.answers["CreateCredential"] = rich_status(
        code_pb2.ALREADY_EXISTS, "taken", "ERROR_REASON_CREDENTIAL_EXISTS"
    )
    there = credential_pb2.Credential(name=OWN, provider="providers/practice")
    terminal.services.answers["GetCredential"] = lambda _: credential_service_pb2.GetCredentialResponse(
        credential=there
    )
    assert terminal.run("keys", "add", "practice", given=KEY).exit_code == 0
    there.provider = "providers/other"
    terminal.services.requests.clear()
    other = terminal.run("keys", "add", "practice", given=KEY)
    assert other.exit_code == 4
    assert "for other" in other.stderr
    assert "AddCredentialVersion" not in [name for name, _ in terminal.services.requests]


def test_keys_add_needs_a_known_provider_and_a_key(terminal: Terminal, tmp_path: Path) -> None:
    unknown = terminal.run("keys", "add", "nobody", given=KEY)
    assert unknown.exit_code == 4
    assert "Known are: practice." in unknown.stderr
    assert terminal.run("keys", "add", "practice", given="\n").exit_code == 2
    missing = terminal.run("keys", "add", "practice", "--from-file", str(tmp_path / "none"))
    assert missing.exit_code == 2
    assert "cannot be read" in missing.stderr


def test_key_life(terminal: Terminal, tmp_path: Path) -> None:
    script_keys(terminal, credential_test_pb2.CREDENTIAL_TEST_OUTCOME_PASSED)
    pending = credential_pb2.CredentialVersion(
        name=f"{OWN}/versions/2", state=credential_pb2.CREDENTIAL_VERSION_STATE_PENDING
    )
    active = credential_pb2.CredentialVersion(
        name=f"{OWN}/versions/1", state=credential_pb2.CREDENTIAL_VERSION_STATE_ACTIVE
    )
    credential = credential_pb2.Credential(
        name=OWN, provider="providers/practice", state=credential_pb2.CREDENTIAL_STATE_ENABLED,
        active_version=active.name, fingerprint="sk-…6789",
    )  # fmt: skip
    terminal.services.answers |= {
        "ListCredentialVersions": credential_service_pb2.ListCredentialVersionsResponse(
            credential_versions=[pending, active]
        ),
        "GetCredential": credential_service_pb2.GetCredentialResponse(credential=credential),
        "ListCredentials": credential_service_pb2.ListCredentialsResponse(credentials=[credential]),
        "DisableCredential": credential_service_pb2.DisableCredentialResponse(
            credential=credential, is_local_only=True
        ),
        "EnableCredential": credential_service_pb2.EnableCredentialResponse(credential=credential),
        "DestroyCredentialVersion": credential_service_pb2.DestroyCredentialVersionResponse(),
        "RevokeAllCredentials": credential_service_pb2.RevokeAllCredentialsResponse(disabled_count=3),
    }
    key_file = tmp_path / "key"
    key_file.write_text(KEY + "\n")
    assert terminal.run("keys", "create", "practice", "--provider", "practice").stdout == f"{OWN}\n"
    assert terminal.run("keys", "add-version", "practice", "--from-file", str(key_file)).exit_code == 0
    assert terminal.services.asked("AddCredentialVersion").secret_material.api_key == KEY
    assert terminal.run("keys", "test", "practice", "--model", "echo").exit_code == 0
    assert terminal.services.asked("TestCredential").credential_version == active.name
    assert terminal.run("keys", "activate", "practice", "--force").exit_code == 0
    assert terminal.services.asked("ActivateCredentialVersion").name == pending.name
    assert "sk-…6789" in terminal.run("keys", "list").stdout
    shown = terminal.run("keys", "show", "practice").stdout
    assert "pending" in shown
    assert "active" in shown
    disabled = terminal.run("keys", "disable", "practice", "--kill-in-flight", "--note", "leaked")
    assert "Vault cannot be written" in disabled.stderr
    assert terminal.services.asked("DisableCredential").revocation.kill_in_flight
    assert terminal.services.asked("DisableCredential").revocation.note == "leaked"
    assert terminal.run("keys", "enable", "practice").exit_code == 0
    assert terminal.run("keys", "destroy", "practice", "--version", "1").exit_code == 2
    assert terminal.run("keys", "destroy", "practice", "--version", "1", "--yes").exit_code == 0
    assert terminal.services.asked("DestroyCredentialVersion").name == active.name
    assert terminal.run("keys", "delete", OWN, "--yes").exit_code == 0
    assert terminal.services.asked("DeleteCredential").name == OWN
    revoked = terminal.run("keys", "revoke-all", "organization", "--yes")
    assert "3 keys of organizations/demo are disabled" in revoked.stderr


def test_key_status(terminal: Terminal) -> None:
    status = credential_test_service_pb2.KeyStatus(
        application="organizations/demo/applications/chat",
        provider="providers/practice",
        state=credential_test_service_pb2.KEY_STATE_SHARED,
        payer=payer_pb2.PAYER_SHARED_KEY,
        is_saved_key_ignored=True,
    )
    terminal.services.answers["GetKeyStatus"] = credential_test_service_pb2.GetKeyStatusResponse(statuses=[status])
    shown = terminal.run("keys", "status", "--application", "chat", "--provider", "practice").stdout
    assert "using the shared key (a saved own key is ignored)" in shown
    assert terminal.services.asked("GetKeyStatus").provider == "providers/practice"


def test_tokens(terminal: Terminal, tmp_path: Path) -> None:
    token = token_service_pb2.Token(
        name="organizations/demo/tokens/t", display_name="laptop", roles=[token_service_pb2.CALLER_ROLE_MEMBER]
    )
    terminal.services.answers |= {
        "IssueToken": lambda _: token_service_pb2.IssueTokenResponse(token=token, bearer_token="the.token.text"),
        "ListTokens": token_service_pb2.ListTokensResponse(tokens=[token]),
        "RevokeToken": token_service_pb2.RevokeTokenResponse(token=token),
    }
    issued = terminal.run(
        "-o", "demo", "tokens", "issue", "laptop", "--user", "ada", "--application", "chat", "--scope", "complete",
        "--lifetime", "12h", token=OPERATOR,
    )  # fmt: skip
    assert issued.stdout == "the.token.text\n"
    request = terminal.services.asked("IssueToken")
    assert request.parent == "organizations/demo"
    assert request.token.user == "organizations/demo/users/ada"
    assert request.token.application == "organizations/demo/applications/chat"
    assert list(request.token.roles) == [token_service_pb2.CALLER_ROLE_MEMBER]
    assert list(request.token.scopes) == [token_service_pb2.TOKEN_SCOPE_COMPLETE]
    assert request.lifetime.seconds == 43200
    out = tmp_path / "ada.token"
    saved = terminal.run("tokens", "issue", "laptop", "--out", str(out))
    assert out.read_text() == "the.token.text\n"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert "the.token.text" not in saved.output
    terminal.services.requests.clear()
    assert terminal.run("tokens", "issue", "laptop", "--out", str(out)).exit_code == 2
    assert terminal.services.requests == []
    assert "laptop" in terminal.run("tokens", "list", "--all").stdout
    assert terminal.run("tokens", "revoke", "t").exit_code == 0
    assert terminal.services.asked("RevokeToken").name == "organizations/demo/tokens/t"
    terminal.services.answers["IssueToken"] = rich_status(
        code_pb2.PERMISSION_DENIED, "no", "ERROR_REASON_CALLER_NOT_ALLOWED"
    )
    assert terminal.run("tokens", "issue", "x", "--out", str(tmp_path / "new")).exit_code == 3
    assert not (tmp_path / "new").exists()


def test_a_named_token_file_beats_the_environment(terminal: Terminal, tmp_path: Path) -> None:
    terminal.services.answers["GetBalance"] = budget_service_pb2.GetBalanceResponse()
    (tmp_path / "ada.token").write_text(ADA + "\n")
    terminal.run("--token-file", str(tmp_path / "ada.token"), "credits", "show", token=OPERATOR)
    assert terminal.services.asked("GetBalance").organization == "organizations/demo"


def test_receipt(terminal: Terminal) -> None:
    terminal.services.answers["GetReceipt"] = usage_service_pb2.GetReceiptResponse(receipt=receipt())
    shown = terminal.run("receipt", "r-1").stdout
    for part in ("succeeded", "$0.0000092", "(markup 5 %)", "answered", "deployment/credentials/practice v3", "0.42 s"):
        assert part in shown
    terminal.services.requests.clear()
    terminal.run("receipt", "--request-id", "q")
    assert terminal.services.asked("GetReceipt").request_id == "q"


def test_credits(terminal: Terminal) -> None:
    balance = budget_service_pb2.Balance(
        organization="organizations/demo",
        balance_usd_nanos=12_500_000_000,
        reserved_usd_nanos=1,
        available_usd_nanos=12_499_999_999,
    )
    entry = budget_service_pb2.LedgerEntry(entry_id=7, amount_usd_nanos=2_500_000_000)
    terminal.services.answers |= {
        "GetBalance": budget_service_pb2.GetBalanceResponse(balance=balance),
        "AddCredits": budget_service_pb2.AddCreditsResponse(entry=entry, balance=balance),
    }
    assert "demo has $12.499999999 to spend" in terminal.run("credits", "show").stdout
    added = terminal.run("-o", "demo", "credits", "add", "2.50", "--note", "gift", token=OPERATOR)
    assert "$2.50 is entry 7" in added.stderr
    assert terminal.services.asked("AddCredits").amount_usd_nanos == 2_500_000_000
    assert len(terminal.services.asked("AddCredits").request_id) == 36
    assert terminal.run("credits", "add", "ten").exit_code == 2
    assert terminal.run("credits", "add", "0.0000000001").exit_code == 2
    assert terminal.run("credits", "show", token=OPERATOR).exit_code == 2


def test_audit(terminal: Terminal) -> None:
    record = audit_pb2.AuditRecord(
        name="chains/vault-0/records/9",
        identity=audit_pb2.AuditIdentity(
            subject="organizations/demo/users/ada", proof=audit_pb2.AUDIT_IDENTITY_PROOF_TOKEN
        ),
        action=audit_pb2.AUDIT_ACTION_LEASE,
        resource=f"{OWN}/versions/1",
        outcome=audit_pb2.AUDIT_OUTCOME_SUCCEEDED,
        hash=b"\xab" * 32,
    )
    terminal.services.answers |= {
        "ListAuditRecords": audit_service_pb2.ListAuditRecordsResponse(audit_records=[record]),
        "GetAuditRecord": audit_service_pb2.GetAuditRecordResponse(audit_record=record),
    }
    listed = terminal.run("audit", "list", "--action", "lease", "--since", "2026-11-21", "--limit", "5")
    assert "vault-0 9" in listed.stdout
    request = terminal.services.asked("ListAuditRecords")
    assert list(request.filter.actions) == [audit_pb2.AUDIT_ACTION_LEASE]
    assert request.filter.start_time.ToJsonString() == "2026-11-21T00:00:00Z"
    assert (request.parent, request.page_size) == ("chains/-", 5)
    assert "ab" * 32 in terminal.run("audit", "show", "vault-0/9").stdout
    assert terminal.services.asked("GetAuditRecord").name == record.name
    assert terminal.run("audit", "list", "--action", "dance").exit_code == 2


def test_policy(terminal: Terminal) -> None:
    policy = credential_service_pb2.CredentialPolicy(
        name="organizations/demo/credentialPolicy", user_credentials_enabled=False
    )
    terminal.services.answers |= {
        "GetCredentialPolicy": credential_service_pb2.GetCredentialPolicyResponse(credential_policy=policy),
        "SetCredentialPolicy": credential_service_pb2.SetCredentialPolicyResponse(credential_policy=policy),
    }
    assert "ignored" in terminal.run("policy", "byok", "get").stdout
    terminal.run("policy", "byok", "set", "off", "--of", "deployment", token=OPERATOR)
    sent = terminal.services.asked("SetCredentialPolicy").credential_policy
    assert sent.name == "deployment/credentialPolicy"
    assert not sent.user_credentials_enabled
    assert sent.HasField("user_credentials_enabled")
