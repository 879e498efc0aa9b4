"""Names of providers and the ids that the configuration file has for them."""

from router_service.catalog.catalog import Snapshot
from router_service.core.faults import invalid


def provider_id(name: str, field: str, organization: str = "") -> str:
    """The file's id of a provider. Whether there is one is checked with the rest of the configuration."""
    parent, separator, found = name.rpartition("providers/")
    if not separator or not found or "/" in found or parent not in ("", f"{organization}/"):
        raise invalid(field, "Write providers/{provider} or organizations/{organization}/providers/{provider}.")
    return found


def provider_name(found: str, view: Snapshot, organization: str) -> str:
    """The name of what the file calls so: the organization's own one stands above the deployment's."""
    own = f"{organization}/providers/{found}"
    return own if organization and own in view.providers else f"providers/{found}"
