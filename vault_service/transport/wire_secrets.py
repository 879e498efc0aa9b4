"""Secrets between the wire and the core: checked at the door, then only ever bytes in a `Secret`."""

import re

from keyswitch.vault.v1 import credential_pb2, lease_pb2

from vault_service.core.faults import Fault, Reason, invalid
from vault_service.core.secret import Secret, check_key_text, make_fingerprint

_ACCESS_KEY_ID = re.compile(r"[A-Z0-9]{16,128}")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]{1,2}")


def read_material(material: credential_pb2.SecretMaterial) -> tuple[str, Secret, str]:
    """Gives the kind, the bytes to seal and the fingerprint."""
    match material.WhichOneof("material"):
        case "api_key":
            key = check_key_text(material.api_key, "secret_material.api_key")
            return "API_KEY", Secret(material.SerializeToString(deterministic=True)), make_fingerprint(key)
        case "aws":
            fingerprint = _check_aws(material.aws)
            return "AWS", Secret(material.SerializeToString(deterministic=True)), fingerprint
        case None:
            raise invalid("secret_material", "is missing")
        case "oauth" | "entra" | "google_service_account":
            raise Fault(Reason.INVALID_SECRET, {"field": "secret_material", "cause": "kind"})


def lease_material(kept: Secret) -> Secret:
    """Gives the serialized LeasedMaterial of what is kept."""
    material = credential_pb2.SecretMaterial.FromString(kept.reveal())
    if material.WhichOneof("material") == "aws":
        leased = lease_pb2.LeasedMaterial(
            aws_credentials=lease_pb2.AwsCredentials(
                access_key_id=material.aws.access_key_id,
                secret_access_key=material.aws.secret_access_key,
                session_token=material.aws.session_token,
                region=material.aws.region,
            )
        )
    else:
        leased = lease_pb2.LeasedMaterial(api_key=material.api_key)
    return Secret(leased.SerializeToString())


def _check_aws(pair: credential_pb2.AwsKeyPair) -> str:
    if not _ACCESS_KEY_ID.fullmatch(pair.access_key_id):
        metadata = {"field": "secret_material.aws.access_key_id", "cause": "characters"}
        raise Fault(Reason.INVALID_SECRET, metadata)
    check_key_text(pair.secret_access_key, "secret_material.aws.secret_access_key")
    if pair.session_token:
        check_key_text(pair.session_token, "secret_material.aws.session_token")
    if not _REGION.fullmatch(pair.region):
        raise invalid("secret_material.aws.region", "must be a region, for example us-east-1")
    if pair.role_arn or pair.external_id:
        raise invalid("secret_material.aws.role_arn", "must be empty: this deployment assumes no roles")
    return f"{pair.access_key_id[:4]}…{pair.access_key_id[-4:]}"
