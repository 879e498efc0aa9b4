"""`keyswitch keys` against scripted services."""

from __future__ import annotations

from pathlib import Path

from google.rpc import code_pb2, error_details_pb2
from keyswitch.router.v1 import (
    credential_test_service_pb2,
    payer_pb2,
)
from keyswitch.vault.v1 import (
    credential_pb2,
    credential_service_pb2,
    credential_test_pb2,
)

from tests.unit.clients.cli_terminal import KEY, OPERATOR, OWN, Terminal
from tests.unit.clients.scripted_router import rich_status


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


def test_what_the_environment_fixes_is_shown_and_changed_on_purpose(terminal: Terminal) -> None:
    name = "deployment/credentials/anthropic"
    version = credential_pb2.CredentialVersion(name=f"{name}/versions/2")
    pb, stub = credential_service_pb2, terminal.services
    fixed = credential_pb2.Credential(
        name=name,
        state=credential_pb2.CREDENTIAL_STATE_ENABLED,
        active_version=f"{name}/versions/1",
        source=credential_pb2.CREDENTIAL_SOURCE_ENVIRONMENT,
    )
    stub.answers |= {
        "GetCredential": pb.GetCredentialResponse(credential=fixed),
        "ListCredentialVersions": pb.ListCredentialVersionsResponse(),
        "ListCredentials": pb.ListCredentialsResponse(credentials=[fixed]),
        "AddCredentialVersion": rich_status(
            code_pb2.FAILED_PRECONDITION, "The environment fixes it.", "ERROR_REASON_CREDENTIAL_FIXED"
        ),
    }
    assert "environment" in terminal.run("keys", "show", name, token=OPERATOR).stdout
    assert "enabled, environment" in terminal.run("keys", "list", "--owner", "deployment", token=OPERATOR).stdout
    refused = terminal.run("keys", "add-version", name, given=KEY + "\n", token=OPERATOR)
    assert refused.exit_code == 4
    assert "--override-environment" in refused.stderr
    stub.answers |= {
        "AddCredentialVersion": pb.AddCredentialVersionResponse(credential_version=version),
        "ActivateCredentialVersion": pb.ActivateCredentialVersionResponse(credential_version=version),
        "DisableCredentialVersion": pb.DisableCredentialVersionResponse(credential_version=version),
        "DestroyCredentialVersion": pb.DestroyCredentialVersionResponse(credential_version=version),
        "DisableCredential": pb.DisableCredentialResponse(credential=fixed),
        "EnableCredential": pb.EnableCredentialResponse(credential=fixed),
        "DeleteCredential": pb.DeleteCredentialResponse(),
        "CreateCredential": pb.CreateCredentialResponse(credential=fixed),
    }
    for command in (
        ("add-version", name),
        ("activate", name, "--version", "2", "--force"),
        ("disable", name, "--version", "2"),
        ("destroy", name, "--version", "2", "--yes"),
        ("disable", name),
        ("enable", name),
        ("delete", name, "--yes"),
        ("create", name, "--provider", "practice"),
    ):
        for said in ((), ("--override-environment",)):
            stub.requests.clear()
            done = terminal.run("keys", *command, *said, given=KEY + "\n", token=OPERATOR)
            assert done.exit_code == 0, (command, done.stderr)
            assert stub.requests[-1][1].override_environment == bool(said), command
    script_keys(terminal, credential_test_pb2.CREDENTIAL_TEST_OUTCOME_PASSED)
    stub.requests.clear()
    terminal.run("keys", "add", "practice", "--override-environment", given=KEY + "\n")
    for method in ("CreateCredential", "AddCredentialVersion", "ActivateCredentialVersion"):
        assert stub.asked(method).override_environment, method


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


def test_keys_add_needs_a_known_provider_and_a_key(terminal: Terminal) -> None:
    unknown = terminal.run("keys", "add", "nobody", given=KEY)
    assert unknown.exit_code == 4
    assert "Known are: practice." in unknown.stderr
    assert terminal.run("keys", "add", "practice", given="\n").exit_code == 2
    missing = terminal.run("keys", "add", "practice", "--from-file", "nofile")
    assert missing.exit_code == 2
    assert "✗ nofile cannot be read" in missing.stderr


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
    terminal.services.requests.clear()
    assert terminal.run("keys", "revoke-all", "--yes").exit_code == 2
    assert terminal.services.requests == []
    assert terminal.run("keys", "revoke-all", "--owner", "organization", "--yes").exit_code == 0
    assert terminal.services.asked("RevokeAllCredentials").parent == "organizations/demo"


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
    assert "using shared key (a saved own key is ignored)" in shown
    assert terminal.services.asked("GetKeyStatus").provider == "providers/practice"


def test_providers_without_a_key_are_listed_on_demand(terminal: Terminal) -> None:
    state = credential_test_service_pb2.KEY_STATE_NONE
    status = credential_test_service_pb2.KeyStatus(provider="providers/practice", state=state)
    terminal.services.answers["GetKeyStatus"] = credential_test_service_pb2.GetKeyStatusResponse(statuses=[status])
    short = terminal.run("keys", "status")
    assert "practice" not in short.stdout
    assert "Providers without a key are left out: --all lists them." in short.stderr
    assert "practice   no key" in terminal.run("keys", "status", "--all").stdout


def test_an_update_changes_what_is_named_and_takes_back_what_is_empty(terminal: Terminal) -> None:
    pb, found = credential_service_pb2, credential_pb2.Credential(name=OWN, max_concurrent_requests=2, etag="e1")
    terminal.services.answers |= {
        "UpdateCredential": pb.UpdateCredentialResponse(credential=found),
        "ListCredentialVersions": pb.ListCredentialVersionsResponse(),
    }
    result = terminal.run("keys", "update", "practice", "--owner", "ada", "--at-once", "2", "--expires", "2027-03-01")
    assert result.exit_code == 0
    assert "at once   2" in result.stdout
    asked = terminal.services.asked("UpdateCredential")
    assert list(asked.update_mask.paths) == ["max_concurrent_requests", "expire_time"]
    assert asked.credential.name == OWN
    assert asked.credential.max_concurrent_requests == 2
    assert asked.credential.expire_time.ToJsonString() == "2027-03-01T00:00:00Z"
    terminal.services.requests.clear()
    assert terminal.run("keys", "update", OWN, "--at-once", "0", "--expires", "").exit_code == 0
    asked = terminal.services.asked("UpdateCredential")
    assert list(asked.update_mask.paths) == ["max_concurrent_requests", "expire_time"]
    assert not asked.credential.HasField("max_concurrent_requests")
    assert not asked.credential.HasField("expire_time")
    assert terminal.run("keys", "update", OWN).exit_code == 2
