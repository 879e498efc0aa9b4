"""Who may read and change the configuration. An unknown resource and one of another tenant look the same."""

import re

from router_service.catalog.catalog import Organization, Snapshot
from router_service.core.caller import Caller
from router_service.core.faults import Fault, Reason, invalid
from router_service.transport.request import demand, find_organization

ID = re.compile(r"[a-z][a-z0-9-]{1,61}[a-z0-9]")
_READ_SCOPES = ("complete", "manage_routing", "read_usage", "test_credentials")


def require_id(text: str, field: str) -> str:
    """An id. Raises Fault."""
    if not ID.fullmatch(text):
        raise invalid(field, "An id has 3 to 63 lower-case letters, digits and hyphens, and begins with a letter.")
    return text


def demand_reader(who: Caller) -> None:
    """Everybody with a role may read; a narrowed token where one of its scopes has to do with it."""
    if not any(who.allows(scope) for scope in _READ_SCOPES):
        message = "Your token has no scope that lets it read the configuration; ask for one with manage_routing."
        raise Fault(Reason.CALLER_NOT_ALLOWED, message, metadata={"missingScope": "manage_routing"})
    demand(who, next(scope for scope in _READ_SCOPES if who.allows(scope)), "auditor", "member", "admin", "operator")


def demand_operator(who: Caller) -> None:
    """The deployment's operator. An organization's token never is."""
    demand(who, "manage_routing", "operator")
    if who.organization:
        message = "This is the operator's to change."
        raise Fault(Reason.CALLER_NOT_ALLOWED, message, metadata={"missingRole": "operator"})


def demand_administrator(who: Caller) -> None:
    """An administrator, or the operator."""
    demand(who, "manage_routing", "operator", "admin")


def readable_organization(name: str, who: Caller, snapshot: Snapshot, field: str) -> Organization:
    """An organization that the caller may read."""
    organization = named_organization(name, who, snapshot, field)
    demand_reader(who)
    return organization


def changeable_organization(name: str, who: Caller, snapshot: Snapshot, field: str) -> Organization:
    """An organization whose configuration the caller may change."""
    organization = named_organization(name, who, snapshot, field)
    demand_administrator(who)
    return organization


def named_organization(name: str, who: Caller, snapshot: Snapshot, field: str) -> Organization:
    """One that there is for the caller."""
    owner, _, organization_id = name.partition("/")
    if owner != "organizations" or not organization_id or "/" in organization_id:
        raise invalid(field, "Write organizations/{organization}.")
    return find_organization(name, who, snapshot)


def split_name(name: str, collection: str, field: str) -> tuple[str, str]:
    """The parent and the id of a resource's name. Raises Fault for what is no name of the collection."""
    parent, separator, resource_id = name.partition(f"/{collection}/")
    if not separator or not parent or not resource_id:
        raise invalid(field, f"Write …/{collection}/{{id}}.")
    return parent, resource_id
