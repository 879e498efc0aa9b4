"""AWS's IAM and STS as moto has them, on loopback with TLS: it checks signatures, policies and who a role trusts."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

import botocore.session
import requests
from botocore.config import Config

from tests.fakes.caller_certificates import CallerAuthority
from tests.fakes.model_servers import find_tool
from tests.fakes.vault_server import free_port

REGION = "us-east-1"
STS_HOST = f"sts.{REGION}.amazonaws.com"
_ROOT = ("AKIASETTINGUP0000000", "nobody-checks-this-while-it-is-set-up")
_START_SECONDS = 120


@dataclass(frozen=True)
class User:
    """Somebody in the account, with a key pair."""

    name: str
    arn: str
    access_key_id: str
    secret_access_key: str


@dataclass
class AwsServer:
    """A running server. `authority_file` is who signed its certificate, which is STS's by name."""

    port: int
    authority_file: Path

    def client(self, service: str, access_key_id: str, secret_access_key: str, session_token: str | None = None) -> Any:
        """AWS's own client for it."""
        return botocore.session.get_session().create_client(
            service,
            region_name=REGION,
            endpoint_url=f"https://localhost:{self.port}",
            verify=str(self.authority_file),
            aws_access_key_id=access_key_id,
            aws_secret_access_key=secret_access_key,
            aws_session_token=session_token,
            config=Config(proxies={}, retries={"total_max_attempts": 1}),
        )

    @cached_property
    def _iam(self) -> Any:
        return self.client("iam", *_ROOT)

    def make_user(self, name: str) -> User:
        """A user who may assume any role that trusts him."""
        arn = self._iam.create_user(UserName=name)["User"]["Arn"]
        may = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}
        self._iam.put_user_policy(UserName=name, PolicyName="assume", PolicyDocument=_policy(may))
        pair = self._iam.create_access_key(UserName=name)["AccessKey"]
        return User(name, arn, pair["AccessKeyId"], pair["SecretAccessKey"])

    def make_role(self, name: str, trusted: User, external_id: str) -> str:
        """A role for that user, who must say the external id; gives its ARN."""
        trust = {
            "Effect": "Allow",
            "Principal": {"AWS": trusted.arn},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"sts:ExternalId": external_id}},
        }
        made = self._iam.create_role(RoleName=name, AssumeRolePolicyDocument=_policy(trust))
        return str(made["Role"]["Arn"])

    def check_everything(self) -> None:
        """From now on signatures and rights count, for whoever calls."""
        self._ask("POST", "/moto-api/reset-auth", b"0").raise_for_status()

    def _ask(self, method: str, path: str, body: bytes = b"") -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            url = f"https://localhost:{self.port}{path}"
            return session.request(method, url, data=body, verify=str(self.authority_file), timeout=5)

    def await_ready(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        """Returns when it answers."""
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until and process.poll() is None:
            try:
                if self._ask("GET", "/moto-api/data.json").ok:
                    return
            except requests.RequestException:
                Event().wait(0.1)  # it tells nobody when it is ready
        raise AssertionError(f"moto's server does not answer; see {log}")


@contextmanager
def running_aws(home: Path) -> Iterator[AwsServer]:
    """Runs a server in that folder."""
    program = find_tool("install-python", "moto") / "bin" / "moto_server"
    authority = CallerAuthority("Authority of STS")
    certificate, key = authority.issue_for_host(STS_HOST, "localhost")
    files = {name: home / f"aws-{name}.pem" for name in ("authority", "certificate", "key")}
    for name, text in (("authority", authority.pem), ("certificate", certificate), ("key", key)):
        files[name].write_bytes(text)
    server = AwsServer(free_port(), files["authority"])
    pair = ["--ssl-cert", str(files["certificate"]), "--ssl-key", str(files["key"])]
    command = [str(program), "--host", "127.0.0.1", "--port", str(server.port), *pair]
    log_path = home / "aws.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=home, env=dict(os.environ), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        server.await_ready(process, log_path)
        yield server
    finally:
        process.terminate()
        process.wait(20)


def _policy(statement: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
