"""Settings: defaults, what is refused, and what the process will not start with."""

from pathlib import Path

import pytest

from vault_service.__main__ import main, refuse_tracing
from vault_service.config import ConfigError, load_config
from vault_service.store.vault_settings import (
    AgentListener,
    AppRoleFiles,
    KubernetesRole,
    Login,
    TokenFile,
    VaultSettings,
)


def test_the_defaults(tmp_path: Path) -> None:
    config = load_config({"KEYSWITCH_HOME": str(tmp_path), "UNRELATED": "x"})
    assert config.management_address == "127.0.0.1:8770"
    assert config.lease_address == "127.0.0.1:8771"
    assert config.http_address == "127.0.0.1:8772"
    assert config.store == "embedded"
    assert config.chain == ""
    assert config.leases.ttl_seconds == 300
    assert config.leases.require_caller_proof
    assert config.leases.allowed_identities == {"spiffe://keyswitch/router"}
    assert config.user_credentials_enabled
    assert config.tls.certificate == tmp_path / "vault.pem"
    assert config.operator_token_file == tmp_path / "operator.token"
    assert load_config({}).home == Path(".keyswitch").absolute()


def test_what_can_be_set() -> None:
    config = load_config(
        {
            "KEYSWITCH_VAULT_STORE": "hashicorp",
            "KEYSWITCH_VAULT_HASHICORP_URL": "https://vault.example:8200",
            "KEYSWITCH_VAULT_HASHICORP_TOKEN_FILE": "/run/token",
            "KEYSWITCH_VAULT_LEASE_TTL_SECONDS": "60",
            "KEYSWITCH_VAULT_REQUIRE_CALLER_PROOF": "false",
            "KEYSWITCH_VAULT_ALLOWED_IDENTITIES": "spiffe://a/b,spiffe://c/d",
            "KEYSWITCH_VAULT_USER_CREDENTIALS_ENABLED": "false",
            "KEYSWITCH_VAULT_AUDIT_CHAIN": "vault-7",
        }
    )
    assert config.hashicorp == VaultSettings("https://vault.example:8200", TokenFile(Path("/run/token")))
    assert config.leases.ttl_seconds == 60
    assert not config.leases.require_caller_proof
    assert config.leases.allowed_identities == {"spiffe://a/b", "spiffe://c/d"}
    assert not config.user_credentials_enabled
    assert config.chain == "vault-7"


ROLE_ID = {"ROLE_ID_FILE": "/run/role"}


@pytest.mark.parametrize(
    ("settings", "login"),
    [
        ({**ROLE_ID, "SECRET_ID_FILE": "/run/secret"}, AppRoleFiles(Path("/run/role"), Path("/run/secret"))),
        (
            {**ROLE_ID, "WRAPPED_SECRET_ID_FILE": "/run/secret", "APPROLE_MOUNT": "team/roles"},
            AppRoleFiles(Path("/run/role"), Path("/run/secret"), True, "team/roles"),
        ),
        ({"KUBERNETES_ROLE": "keyswitch"}, KubernetesRole("keyswitch")),
        (
            {"KUBERNETES_ROLE": "k", "KUBERNETES_TOKEN_FILE": "/run/t", "KUBERNETES_MOUNT": "blue"},
            KubernetesRole("k", Path("/run/t"), "blue"),
        ),
        ({"TOKEN_FILE": "/run/token"}, TokenFile(Path("/run/token"))),
        ({"AGENT": "true"}, AgentListener()),
    ],
)
def test_the_ways_to_log_in(settings: dict[str, str], login: Login) -> None:
    named = {f"KEYSWITCH_VAULT_HASHICORP_{name}": value for name, value in settings.items()}
    address = {"KEYSWITCH_VAULT_STORE": "hashicorp", "KEYSWITCH_VAULT_HASHICORP_URL": "http://127.0.0.1:8200"}
    assert load_config({**address, **named}).hashicorp == VaultSettings("http://127.0.0.1:8200", login)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "one way to log in, not 0"),
        (ROLE_ID, "one way to log in, not 0"),
        ({"SECRET_ID_FILE": "/run/secret"}, "one way to log in, not 0"),
        ({"AGENT": "true", "TOKEN_FILE": "/run/token"}, "one way to log in, not 2"),
        ({**ROLE_ID, "SECRET_ID_FILE": "/a", "WRAPPED_SECRET_ID_FILE": "/b"}, "one way to log in, not 2"),
        ({"AGENT": "true", "URL": "https://vault.example:8200"}, "must be on this machine"),
        ({"TOKEN_FILE": "/t", "URL": "http://vault.example:8200"}, "must be https"),
        ({"TOKEN_FILE": "/t", "NAMESPACE": "../x"}, "namespace"),
        ({"TOKEN_FILE": "/t", "URL": ""}, "HASHICORP_URL"),
    ],
)
def test_a_login_that_is_unclear_or_unsafe_is_refused(settings: dict[str, str], problem: str) -> None:
    settings = {"URL": "http://127.0.0.1:8200", **settings}
    named = {f"KEYSWITCH_VAULT_HASHICORP_{name}": value for name, value in settings.items()}
    with pytest.raises(ConfigError, match=problem):
        load_config({"KEYSWITCH_VAULT_STORE": "hashicorp", **named})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STORE", "cloud"),
        ("STORE", "hashicorp"),
        ("LEASE_TTL_SECONDS", "0"),
        ("LEASE_TTL_SECONDS", "1e3"),
        ("REQUIRE_CALLER_PROOF", "yes"),
        ("AUDIT_CHAIN", "../x"),
        ("STOER", "memory"),
    ],
)
def test_what_cannot_be_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"KEYSWITCH_VAULT_{name}"):
        load_config({f"KEYSWITCH_VAULT_{name}": value})


@pytest.mark.parametrize("environment", [{"GRPC_TRACE": "http"}, {"GRPC_VERBOSITY": "DEBUG"}])
def test_it_does_not_start_where_grpc_would_print_secrets(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(environment) == 78
    assert next(iter(environment)) in capsys.readouterr().err
    refuse_tracing({"GRPC_VERBOSITY": "info"})


def test_a_listener_for_certificates_needs_to_know_whose() -> None:
    file = {"KEYSWITCH_VAULT_WORKLOADS_FILE": "/srv/workloads.json"}
    address = {"KEYSWITCH_VAULT_CERTIFICATE_ADDRESS": "127.0.0.1:8773"}
    assert load_config({**file, **address}).certificate_address == "127.0.0.1:8773"
    assert load_config(file).workloads_file == Path("/srv/workloads.json")
    with pytest.raises(ConfigError, match="WORKLOADS_FILE"):
        load_config(address)
