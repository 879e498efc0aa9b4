"""A real OAuth 2 and OpenID Connect server (oidc-provider on Node.js) for tests, started by them and installed once."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

FOLDER = Path(__file__).resolve().parents[1] / "tools" / "oauth"


@dataclass(frozen=True)
class OauthServer:
    """A running server."""

    url: str
    process: "subprocess.Popen[str]" = field(repr=False)

    def grant(self, client: str, account: str = "ada") -> str:
        """A refresh token, as the account's consent would have given it."""
        return str(self._post("/test/grant", {"client_id": client, "account": account})["refresh_token"])

    def fail(self, status: int, count: int) -> None:
        """Lets the next token requests fail."""
        self._post("/test/faults", {"status": status, "count": count})

    def counts(self) -> dict[str, int]:
        """How many token requests there were, as "<grant type> <status>"."""
        return dict(requests.get(f"{self.url}/test/counts", timeout=60).json())

    def is_active(self, client: str, secret: str, token: str) -> bool:
        """Whether the server itself takes an access token for a valid one."""
        form = {"token": token, "client_id": client, "client_secret": secret}
        answer = requests.post(f"{self.url}/token/introspection", data=form, timeout=60)
        return bool(answer.json()["active"])

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return dict(requests.post(self.url + path, json=body, timeout=60).json())


@contextmanager
def running_oauth_server(**settings: Any) -> Iterator[OauthServer]:
    """Runs a server; see server.mjs for its settings."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise AssertionError("Node.js with npm is needed for the OAuth server of the tests; install it")
    if not (FOLDER / "node_modules").is_dir():
        subprocess.run([npm, "ci", "--silent"], cwd=FOLDER, check=True, timeout=110)
    process = subprocess.Popen(
        [node, "--no-deprecation", "server.mjs", json.dumps(settings)],
        cwd=FOLDER,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        while url and not url.startswith("http://127.0.0.1:"):  # warnings about the made-up keys come first
            url = process.stdout.readline().strip()
        if not url:
            raise AssertionError("the OAuth server ended at once; run `node server.mjs` with its settings by hand")
        yield OauthServer(url, process)
    finally:
        process.terminate()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()
