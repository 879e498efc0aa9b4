"""A Microsoft Entra application: client credentials, with a secret or with a certificate's assertion.

Rule: https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow and, for the assertion,
https://learn.microsoft.com/entra/identity-platform/certificate-credentials.
"""

from keyswitch.vault.v1 import credential_pb2

from vault_service.minting.assertions import NewId, load_certificate, load_rsa_key, sign_assertion, thumbprint
from vault_service.minting.egress import Egress
from vault_service.minting.tokens import Minted, read_answer

PUBLIC_CLOUD = "https://login.microsoftonline.com"
DEFAULT_SCOPE = "https://cognitiveservices.azure.com/.default"  # of Azure OpenAI
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def token_endpoint(application: credential_pb2.EntraApplication) -> str:
    """Gives where the application's tokens come from."""
    return f"{(application.authority or PUBLIC_CLOUD).rstrip('/')}/{application.tenant_id}/oauth2/v2.0/token"


async def mint(application: credential_pb2.EntraApplication, egress: Egress, now: float, new_id: NewId) -> Minted:
    """Fetches a token."""
    endpoint = token_endpoint(application)
    form = {
        "grant_type": "client_credentials",
        "client_id": application.client_id,
        "scope": " ".join(application.scopes) or DEFAULT_SCOPE,
    }
    if application.WhichOneof("proof") == "client_secret":
        form["client_secret"] = application.client_secret
    else:
        form["client_assertion_type"] = _ASSERTION_TYPE
        form["client_assertion"] = _assert(application, endpoint, now, new_id)
    return read_answer(await egress.post_form(endpoint, form), now)


def _assert(application: credential_pb2.EntraApplication, endpoint: str, now: float, new_id: NewId) -> str:
    pem = application.client_certificate_pem
    subject = application.client_id
    claims = {"aud": endpoint, "iss": subject, "sub": subject, "jti": new_id(), "nbf": int(now)}
    headers = {"x5t#S256": thumbprint(load_certificate(pem))}
    return sign_assertion(load_rsa_key(pem), claims, now, headers=headers, algorithm="PS256")
