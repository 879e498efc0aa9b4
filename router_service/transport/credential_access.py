"""Whose keys a caller may try."""

from router_service.catalog.catalog import Provider, Snapshot
from router_service.core.caller import Caller, Credential
from router_service.core.faults import Fault, Reason, invalid
from router_service.core.secret import quote
from router_service.credentials.client import Credentials
from router_service.credentials.errors import StaleCredential
from router_service.transport.request import not_found


async def find_credential(
    credentials: Credentials, version_name: str, who: Caller, snapshot: Snapshot
) -> tuple[Credential, Provider]:
    """The credential of a version and its provider. What the caller may not see does not exist."""
    name, separator, _ = version_name.partition("/versions/")
    if not separator:
        raise invalid("credential_version", "Name a version: …/credentials/{credential}/versions/{version}.")
    owner = name.partition("/credentials/")[0]
    user = owner if "/users/" in owner else ""
    if owner == "deployment" and not who.has_role("operator"):
        raise not_found(name)
    organization = owner.partition("/users/")[0]
    if owner != "deployment" and who.organization not in ("", organization):
        raise not_found(name)
    if user and user != who.user and not who.has_role("admin", "operator"):
        raise not_found(name)
    credentials.forget(name)
    held = await credentials.list_owner(owner, who)
    credential = next((item for item in held if item.name == name), None)
    if credential is None:
        raise not_found(name)
    provider = snapshot.view_of(organization.removeprefix("organizations/")).find_provider(credential.provider)
    if provider is None:
        message = f"The credential is for {credential.provider}, which this router does not have."
        raise Fault(Reason.RESOURCE_NOT_FOUND, message, metadata={"name": credential.provider})
    return credential, provider


def untestable(stale: StaleCredential, version: str) -> Fault:
    """A version that gives no key to try."""
    message = "This version cannot be tested: it is disabled, destroyed, expired or not for the provider's origin."
    metadata = {"name": quote(version[:256]), "vaultReason": stale.reason}
    return Fault(Reason.NO_USABLE_CREDENTIAL, message, metadata=metadata)
