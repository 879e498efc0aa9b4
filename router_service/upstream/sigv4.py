"""AWS's Signature Version 4: the headers that prove a request was made with a key pair, without sending the secret.

A signature covers the method, the host, the path, the query, the body and the headers that are signed, and holds for
minutes. The path is escaped once more than it is sent, as every AWS service but S3 wants it: a model's "%3A" is signed
as "%253A".
"""

import hmac
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import parse_qsl, quote, urlsplit

from router_service.core.secret import AwsKeyPair

_ALGORITHM = "AWS4-HMAC-SHA256"


def sign(
    pair: AwsKeyPair, method: str, url: str, content_type: str, body: bytes, *, region: str, service: str, time: float
) -> tuple[tuple[str, str], ...]:
    """The headers to add. `time` is in seconds since 1970, and the service wants it within five minutes of its own."""
    moment = datetime.fromtimestamp(time, UTC).strftime("%Y%m%dT%H%M%SZ")
    parts = urlsplit(url)
    own = [("x-amz-date", moment)]
    if pair.session_token is not None:
        own.append(("x-amz-security-token", pair.session_token.reveal()))
    signed = sorted([("host", parts.netloc), *own, *([("content-type", content_type)] if content_type else [])])
    names = ";".join(name for name, _ in signed)
    canonical = "\n".join(
        (
            method,
            quote(parts.path or "/", safe="/-_.~"),
            _canonical_query(parts.query),
            *(f"{name}:{' '.join(value.split())}" for name, value in signed),
            "",
            names,
            sha256(body).hexdigest(),
        )
    )
    scope = (moment[:8], region, service, "aws4_request")
    to_sign = "\n".join((_ALGORITHM, moment, "/".join(scope), sha256(canonical.encode()).hexdigest()))
    signature = _hmac(_derive_key(pair.reveal(), scope), to_sign).hex()
    credential = f"{pair.access_key_id}/{'/'.join(scope)}"
    value = f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return (*own, ("authorization", value))


def _canonical_query(query: str) -> str:
    pairs = parse_qsl(query, keep_blank_values=True)
    return "&".join(f"{name}={value}" for name, value in sorted((_escape(a), _escape(b)) for a, b in pairs))


def _escape(text: str) -> str:
    return quote(text, safe="-_.~")


def _derive_key(secret: str, scope: Sequence[str]) -> bytes:
    """A key for one day, region and service: what it signs says nothing about the secret."""
    key = f"AWS4{secret}".encode()
    for step in scope:
        key = _hmac(key, step)
    return key


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
