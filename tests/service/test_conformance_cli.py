"""The newcomer's path with the real command on real services, and the examples of the clients' documents."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from keyswitch_cli.main import app
from typer.testing import CliRunner, Result

ROOT = Path(__file__).parents[2]
REFUSED_WITHIN_CALLS = 500


class Deployment(Protocol):
    """What these tests need of the fixture `deployment`."""

    router_target: str
    vault_target: str
    ca_path: Path
    operator_token: str
    member_token: str
    practice_key: str


def run(deployment: Deployment, token: str, *arguments: str, given: str = "") -> Result:
    environment = {
        "KEYSWITCH_HOME": str(deployment.ca_path.parent),
        "KEYSWITCH_ROUTER": deployment.router_target,
        "KEYSWITCH_VAULT": deployment.vault_target,
        "KEYSWITCH_TOKEN": token,
        "COLUMNS": "200",
    }
    return CliRunner().invoke(app, list(arguments), input=given, env=environment)


@pytest.fixture
def admin(deployment: Deployment, tmp_path: Path) -> Iterator[str]:
    """A token of ada as an administrator; the key that the test makes with it is deleted afterwards."""
    out = tmp_path / "admin.token"
    issue = ("-o", "demo", "tokens", "issue", "the walk", "--user", "ada", "--role", "admin", "--out", str(out))
    assert run(deployment, deployment.operator_token, *issue).exit_code == 0
    token = out.read_text().strip()
    yield token
    run(deployment, token, "keys", "delete", "walk", "--yes")


def test_from_a_new_key_to_its_revocation(deployment: Deployment, admin: str) -> None:
    added = run(deployment, admin, "keys", "add", "practice", "--id", "walk", given=deployment.practice_key + "\n")
    assert added.exit_code == 0, added.stderr
    name, _, number = added.stdout.strip().partition("/versions/")
    assert name == "organizations/demo/credentials/walk"
    assert deployment.practice_key not in added.output
    assert "walk" in run(deployment, admin, "keys", "list").stdout

    chat = ("chat", "Who pays?", "-a", "chat", "--payer", "ORGANIZATION_KEY")
    asked = run(deployment, admin, *chat)
    assert asked.exit_code == 0, asked.stderr
    assert 'You said: "Who pays?"' in asked.stdout
    assert f"paid by ORGANIZATION_KEY ({name} v{number})" in asked.stderr
    response_id = asked.stderr.split()[-1]
    receipt = json.loads(run(deployment, admin, "receipt", "--json", "--", response_id).stdout)["receipt"]
    assert receipt["state"] == "RECEIPT_STATE_SUCCEEDED"
    assert receipt["cost"]["chargedUsdNanos"] == "0"

    assert run(deployment, admin, "keys", "disable", "walk", "--note", "the end of the walk").exit_code == 0
    # The router hears of it within 2 s; each question is a call of its own.
    refused = next(
        result for result in (run(deployment, admin, *chat) for _ in range(REFUSED_WITHIN_CALLS)) if result.exit_code
    )
    assert refused.exit_code == 4
    assert "organizations/demo/credentials/walk" in refused.stderr
    log = run(deployment, admin, "audit", "list", "--resource", "organizations/demo/credentials/walk").stdout
    assert "disable credential" in log
    assert "lease" in log


@pytest.mark.parametrize(
    ("key", "is_refused_by_the_provider"),
    [
        ("sk practice spaced", False),
        ('"sk-practice-000000000000000000000000"', False),
        ("sk-unknown-" + "1" * 24, True),
    ],
    ids=["spaces", "quotes", "unknown"],
)
def test_a_bad_key_is_never_used(
    deployment: Deployment, admin: str, key: str, is_refused_by_the_provider: bool
) -> None:
    added = run(deployment, admin, "keys", "add", "practice", "--id", "walk", given=key + "\n")
    listed = run(deployment, admin, "keys", "list", "--json").stdout
    assert key not in added.output + listed
    if is_refused_by_the_provider:
        assert added.exit_code == 4
        assert "invalid key" in added.stderr
        assert "no active version" in run(deployment, admin, "keys", "list").stdout
    else:
        assert added.exit_code == 2
        assert "INVALID_SECRET" in added.stderr
        assert "walk" not in listed


def test_a_member_sees_what_it_may(deployment: Deployment) -> None:
    assert "practice/echo" in run(deployment, deployment.member_token, "models").stdout
    assert "practice" in run(deployment, deployment.member_token, "providers").stdout
    assert run(deployment, deployment.member_token, "tokens", "list").exit_code == 3
    assert run(deployment, deployment.member_token, "audit", "list").exit_code == 3
    assert run(deployment, "not-a-token", "models").exit_code == 3


@pytest.mark.timeout(400)  # the first build compiles grpc
@pytest.mark.parametrize(
    ("command", "cwd", "says"),
    [
        ((sys.executable, "first_stream.py"), "clients/python/examples", "practice/echo, 3 tokens in"),
        ((sys.executable, "tool_loop.py"), "clients/python/examples", 'get_weather({"city": "Oslo"})'),
        (("go", "run", "./examples/first"), "clients/go", "practice/echo, paid by PAYER_"),
    ],
    ids=["first_stream.py", "tool_loop.py", "first.go"],
)
def test_examples_run(deployment: Deployment, command: tuple[str, ...], cwd: str, says: str) -> None:
    environment = os.environ | {
        "KEYSWITCH_ROUTER": deployment.router_target,
        "KEYSWITCH_CA": str(deployment.ca_path),
        "KEYSWITCH_TOKEN": deployment.member_token,
    }
    done = subprocess.run(command, cwd=ROOT / cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
