"""A terminal for the tests of the keyswitch command: a home, made-up tokens, scripted services."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from keyswitch_cli.main import app
from typer.testing import CliRunner, Result

from tests.unit.clients.scripted_services import ScriptedServices

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

    def run(self, *arguments: str, given: str = "", token: str | None = ADA) -> Result:
        environment: dict[str, str | None] = {
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
