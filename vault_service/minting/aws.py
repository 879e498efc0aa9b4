"""An AWS role: a session of it from STS, asked for with the key pair.

Signing and parsing are botocore's; the request goes out through our own egress. botocore is imported on first use: it
takes long, and most deployments have no such key.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from keyswitch.vault.v1 import credential_pb2

from vault_service.minting.egress import Egress, MintUnavailable

SESSION_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Session:
    """A short-lived key pair. `expire_time` is in seconds since 1970."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expire_time: float


def sts_endpoint(region: str) -> str:
    """Gives the regional endpoint of STS."""
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"https://sts.{region}.{suffix}/"


async def assume_role(pair: credential_pb2.AwsKeyPair, egress: Egress, endpoint: str, session_name: str) -> Session:
    """Assumes the role. Rule: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html."""
    form = {
        "Action": "AssumeRole",
        "Version": "2011-06-15",
        "RoleArn": pair.role_arn,
        "RoleSessionName": session_name,
        "DurationSeconds": str(SESSION_SECONDS),
    }
    if pair.external_id:
        form["ExternalId"] = pair.external_id
    body = urlencode(form).encode("ascii")
    headers = _sign(pair, endpoint, body)
    return _read(await egress.post(endpoint, body, headers))


def _sign(pair: credential_pb2.AwsKeyPair, endpoint: str, body: bytes) -> dict[str, str]:
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest(
        "POST", endpoint, data=body, headers={"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    )
    keys = Credentials(pair.access_key_id, pair.secret_access_key, pair.session_token or None)
    SigV4Auth(keys, "sts", pair.region).add_auth(request)
    return dict(request.headers.items())


def _read(answer: bytes) -> Session:
    from botocore.loaders import Loader
    from botocore.model import ServiceModel
    from botocore.parsers import QueryParser, ResponseParserError

    model = ServiceModel(Loader().load_service_model("sts", "service-2"), "sts")
    shape: Any = model.operation_model("AssumeRole").output_shape
    try:
        parsed: dict[str, Any] = QueryParser().parse({"status_code": 200, "headers": {}, "body": answer}, shape)
        found = parsed["Credentials"]
        expiration = found["Expiration"]
        end = expiration if isinstance(expiration, datetime) else datetime.fromisoformat(str(expiration))
        return Session(
            found["AccessKeyId"],
            found["SecretAccessKey"],
            found["SessionToken"],
            end.replace(tzinfo=end.tzinfo or UTC).timestamp(),
        )
    except (ResponseParserError, KeyError, TypeError, ValueError):
        malformed = MintUnavailable("malformed")
    raise malformed
