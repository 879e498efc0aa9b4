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

SESSION_SECONDS = 3600  # the longest that every role grants, and the longest for a pair that is a role's session itself
_CODES = frozenset(
    {
        *("AccessDenied", "AccessDeniedException", "NotAuthorized", "OptInRequired", "RegionDisabledException"),
        *("InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "IncompleteSignature"),
        *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "MissingAuthenticationToken"),
        *("MissingAuthenticationTokenException", "ValidationError", "Throttling", "RequestLimitExceeded"),
    }
)
"""What STS calls its refusals. Rule: https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html."""


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
    return _read(await egress.post(endpoint, body, headers, _read_code))


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


def _parse(answer: bytes, status: int) -> dict[str, Any]:
    """Raises what a parser raises over text that is none of STS."""
    from botocore.loaders import Loader
    from botocore.model import ServiceModel
    from botocore.parsers import QueryParser

    model = ServiceModel(Loader().load_service_model("sts", "service-2"), "sts")
    shape: Any = model.operation_model("AssumeRole").output_shape
    parsed: dict[str, Any] = QueryParser().parse({"status_code": status, "headers": {}, "body": answer}, shape)
    return parsed


def _read_code(answer: bytes) -> str:
    """Gives the error code of an answer where it is a known one: what it says beside it may repeat the request."""
    from botocore.parsers import ResponseParserError

    try:
        code = _parse(answer, 400)["Error"]["Code"]
    except (ResponseParserError, KeyError, TypeError, ValueError, AttributeError):
        return ""
    return code if isinstance(code, str) and code in _CODES else ""


def _read(answer: bytes) -> Session:
    from botocore.parsers import ResponseParserError

    try:
        found = _parse(answer, 200)["Credentials"]
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
