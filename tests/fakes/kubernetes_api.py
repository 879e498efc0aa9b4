"""The one call of a Kubernetes API server that Vault's login makes: who is the bearer of this service account token?"""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

NAMESPACE, ACCOUNT = "keyswitch", "credential-service"
CLUSTER = "https://kubernetes.default.svc"


@dataclass
class KubernetesApi:
    """A running server. Tokens that `issue` gave are known until they are taken back."""

    url: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    tokens: dict[str, str] = field(default_factory=dict)

    def issue(self, account: str = ACCOUNT, audience: str = CLUSTER) -> str:
        """A token of a pod that runs as the account; one for another audience is what a pod has projected for it."""
        uid = f"uid-of-{account}"
        claims = {
            "sub": f"system:serviceaccount:{NAMESPACE}:{account}",
            "aud": [audience],
            "kubernetes.io": {"namespace": NAMESPACE, "serviceaccount": {"name": account, "uid": uid}},
            "number": len(self.tokens),
        }
        token = jwt.encode(claims, self.key, algorithm="ES256")
        self.tokens[token] = account
        return token

    def review(self, token: str, audiences: Sequence[str]) -> dict[str, Any]:
        """The status of a TokenReview, for its audiences or else the cluster's own."""
        account = self.tokens.get(token)
        if account is None:
            return {"authenticated": False, "error": "unknown token"}
        its_own = jwt.decode(token, options={"verify_signature": False})["aud"]
        shared = [one for one in audiences or [CLUSTER] if one in its_own]
        if not shared:
            return {"authenticated": False, "error": "token audiences do not match"}
        user = {"username": f"system:serviceaccount:{NAMESPACE}:{account}", "uid": f"uid-of-{account}"}
        known = {"authenticated": True, "user": {**user, "groups": ["system:serviceaccounts"]}}
        return {**known, "audiences": shared}


@contextmanager
def running_kubernetes_api() -> Iterator[KubernetesApi]:
    """Serves TokenReviews on loopback."""
    api = KubernetesApi("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            spec = asked["spec"]
            status = api.review(spec["token"], spec.get("audiences") or ())
            answer = json.dumps({**asked, "status": status}).encode()
            self.send_response(201)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
