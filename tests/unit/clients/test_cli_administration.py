"""Tokens, credits, audit log and policy of the keyswitch command against scripted services."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from google.rpc import code_pb2
from keyswitch.router.v1 import (
    budget_service_pb2,
    organization_service_pb2,
)
from keyswitch.vault.v1 import (
    audit_pb2,
    audit_service_pb2,
    credential_service_pb2,
    token_service_pb2,
)

from tests.unit.clients.cli_terminal import ADA, OPERATOR, OWN, Terminal
from tests.unit.clients.scripted_router import rich_status


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
    assert not [one for one in Path("/proc/self/fd").iterdir() if str(tmp_path) in os.path.realpath(one)]


def test_a_named_token_file_beats_the_environment(terminal: Terminal, tmp_path: Path) -> None:
    terminal.services.answers["GetBalance"] = budget_service_pb2.GetBalanceResponse()
    (tmp_path / "ada.token").write_text(ADA + "\n")
    terminal.run("--token-file", str(tmp_path / "ada.token"), "credits", "show", token=OPERATOR)
    assert terminal.services.asked("GetBalance").organization == "organizations/demo"


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
    assert "demo has $12.499999999 of credits to spend" in terminal.run("credits", "show").stdout
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


def test_a_user_is_added_without_taking_out_the_others(terminal: Terminal) -> None:
    found = organization_service_pb2.Organization(name="organizations/demo", users=["ada", "bob"], etag="e1")
    terminal.services.answers |= {
        "GetOrganization": organization_service_pb2.GetOrganizationResponse(organization=found),
        "UpdateOrganization": organization_service_pb2.UpdateOrganizationResponse(organization=found),
    }
    update = ("organizations", "update", "demo")
    assert terminal.run(*update, "--add-user", "eve", "--remove-user", "bob", token=OPERATOR).exit_code == 0
    asked = terminal.services.asked("UpdateOrganization")
    assert list(asked.organization.users) == ["ada", "eve"]
    assert (asked.organization.etag, list(asked.update_mask.paths)) == ("e1", ["users"])
    terminal.services.requests.clear()
    unknown = terminal.run(*update, "--remove-user", "zed", token=OPERATOR)
    both = terminal.run(*update, "--user", "ada", "--add-user", "eve", token=OPERATOR)
    assert "organizations/demo has no user zed" in unknown.stderr
    assert (unknown.exit_code, both.exit_code) == (2, 2)
    assert not [name for name, _ in terminal.services.requests if name == "UpdateOrganization"]
