"""Secrets as they come in: checked at the door, then only ever bytes in a `Secret`."""

import re
from collections.abc import Iterable

from keyswitch.vault.v1 import credential_pb2

from vault_service.core.faults import Fault, Reason, invalid
from vault_service.core.secret import Secret, check_key_text, make_fingerprint
from vault_service.minting import aws, entra, google
from vault_service.minting.assertions import load_certificate, load_rsa_key
from vault_service.minting.endpoints import TokenEndpoints

_ACCESS_KEY_ID = re.compile(r"[A-Z0-9]{16,128}")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]{1,2}")
_ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[!-~]{1,512}")
_EXTERNAL_ID = re.compile(r"[A-Za-z0-9_+=,.@:/-]{2,1224}")
_CLIENT_ID = re.compile(r"[!-~]{1,256}")
_TENANT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{1,127}")
_SCOPE = re.compile(r"[!#-\[\]-~]{1,512}")  # RFC 6749, appendix A.4
_MAX_SCOPES = 32


def read_material(material: credential_pb2.SecretMaterial, endpoints: TokenEndpoints) -> tuple[str, Secret, str]:
    """Gives the kind, the bytes to seal and the fingerprint. Raises INVALID_SECRET and INVALID_REQUEST."""
    match material.WhichOneof("material"):
        case "api_key":
            kind = "API_KEY"
            fingerprint = make_fingerprint(check_key_text(material.api_key, "secret_material.api_key"))
        case "aws":
            kind, fingerprint = "AWS", _check_aws(material.aws, endpoints)
        case "oauth":
            kind, fingerprint = "OAUTH", _check_grant(material.oauth, endpoints)
        case "entra":
            kind, fingerprint = "AZURE_ENTRA", _check_application(material.entra, endpoints)
        case "google_service_account":
            kind = "GOOGLE_SERVICE_ACCOUNT"
            fingerprint = _check_account(material.google_service_account, endpoints)
        case _:
            raise invalid("secret_material", "is missing")
    return kind, Secret(material.SerializeToString(deterministic=True)), fingerprint


def _check_aws(pair: credential_pb2.AwsKeyPair, endpoints: TokenEndpoints) -> str:
    field = "secret_material.aws"
    if not _ACCESS_KEY_ID.fullmatch(pair.access_key_id):
        raise Fault(Reason.INVALID_SECRET, {"field": f"{field}.access_key_id", "cause": "characters"})
    check_key_text(pair.secret_access_key, f"{field}.secret_access_key")
    if pair.session_token:
        check_key_text(pair.session_token, f"{field}.session_token")
    if not _REGION.fullmatch(pair.region):
        raise invalid(f"{field}.region", "must be a region, for example us-east-1")
    if pair.role_arn:
        if not _ROLE_ARN.fullmatch(pair.role_arn):
            raise invalid(f"{field}.role_arn", "must be a role, for example arn:aws:iam::123456789012:role/name")
        endpoints.require(aws.sts_endpoint(pair.region), f"{field}.role_arn")
    if pair.external_id and not (pair.role_arn and _EXTERNAL_ID.fullmatch(pair.external_id)):
        raise invalid(f"{field}.external_id", "must be an external id, and needs role_arn")
    return f"{pair.access_key_id[:4]}…{pair.access_key_id[-4:]}"


def _check_grant(grant: credential_pb2.OauthGrant, endpoints: TokenEndpoints) -> str:
    field = "secret_material.oauth"
    check_key_text(grant.refresh_token, f"{field}.refresh_token")
    for name, value in (("access_token", grant.access_token), ("client_secret", grant.client_secret)):
        if value:
            check_key_text(value, f"{field}.{name}")
    endpoints.require(grant.token_endpoint, f"{field}.token_endpoint")
    if not _CLIENT_ID.fullmatch(grant.client_id):
        raise invalid(f"{field}.client_id", "must be 1 to 256 printable characters without spaces")
    _check_scopes(grant.scopes, f"{field}.scopes")
    return make_fingerprint(grant.refresh_token)


def _check_application(application: credential_pb2.EntraApplication, endpoints: TokenEndpoints) -> str:
    field = "secret_material.entra"
    if not _TENANT_ID.fullmatch(application.tenant_id):
        raise invalid(f"{field}.tenant_id", "must be the tenant's id or domain")
    if not _CLIENT_ID.fullmatch(application.client_id):
        raise invalid(f"{field}.client_id", "must be the application's id")
    match application.WhichOneof("proof"):
        case "client_secret":
            check_key_text(application.client_secret, f"{field}.client_secret")
        case "client_certificate_pem":
            _check_certificate(application.client_certificate_pem, f"{field}.client_certificate_pem")
        case None:
            raise invalid(f"{field}.proof", "is missing")
    endpoints.require(entra.token_endpoint(application), f"{field}.authority")
    _check_scopes(application.scopes, f"{field}.scopes")
    return f"…{application.client_id[-4:]}"


def _check_account(account: credential_pb2.GoogleServiceAccount, endpoints: TokenEndpoints) -> str:
    field = "secret_material.google_service_account"
    try:
        file = google.read_key_file(account.key_json)
    except ValueError:
        file = None
    if file is None:
        raise Fault(Reason.INVALID_SECRET, {"field": f"{field}.key_json", "cause": "format"})
    endpoints.require(file.token_uri, f"{field}.key_json")
    _check_scopes(account.scopes, f"{field}.scopes")
    return f"…{file.private_key_id[-4:]}"


def _check_certificate(pem: str, field: str) -> None:
    """A certificate and the private key of it."""
    try:
        is_pair = load_certificate(pem).public_key() == load_rsa_key(pem).public_key()
    except ValueError:
        is_pair = False
    if not is_pair:
        raise Fault(Reason.INVALID_SECRET, {"field": field, "cause": "format"})


def _check_scopes(scopes: Iterable[str], field: str) -> None:
    found = list(scopes)
    if len(found) > _MAX_SCOPES or not all(_SCOPE.fullmatch(scope) for scope in found):
        raise invalid(field, f"must be at most {_MAX_SCOPES} scopes without spaces, quotes and backslashes")
