"""A request with its caller and its tenant: what may be asked is settled here, before anything is planned."""

import asyncio
from dataclasses import replace
from typing import Any

from keyswitch.router.v1 import completion_pb2, embedding_service_pb2

from router_service.catalog.catalog import Application, Organization, Snapshot
from router_service.core.caller import Caller
from router_service.core.faults import Fault, Reason, invalid
from router_service.core.request import Completion, Embedding, Purpose
from router_service.core.secret import quote
from router_service.policy.call import Call, Needs
from router_service.preparation import Request
from router_service.transport import wire_embedding, wire_parse, wire_policy

NO_APPLICATION = Application(name="(no application)")
_CONVERSATION = "conversation"  # the label that keeps calls at what was drawn


def parse_request(
    given: completion_pb2.CompletionCall,
    caller: Caller,
    snapshot: Snapshot,
    *,
    stream: bool,
    min_flush_seconds: float = 0.0,
    deadline: float | None = None,
    may_be_empty: bool = False,
) -> Request:
    """What the engine runs; `may_be_empty`: what is only explained needs no messages. Raises Fault."""
    demand(caller, "complete", "operator", "admin", "member")
    wire_parse.check_call(given)
    completion = wire_parse.parse_completion(given.spec, stream=stream, may_be_empty=may_be_empty)
    parsed = _parse(given, completion, wire_parse.parse_needs(completion), caller, snapshot)
    return replace(parsed, min_flush_seconds=min_flush_seconds, deadline=deadline)


def parse_embedding_request(given: embedding_service_pb2.EmbedRequest, caller: Caller, snapshot: Snapshot) -> Request:
    """What the engine runs. Raises Fault whose fields are named as those of a CompletionCall."""
    demand(caller, "complete", "operator", "admin", "member")
    wire_parse.check_call(given)
    embedding = wire_embedding.parse_embedding(given.spec)
    parsed = _parse(given, embedding, Needs(purpose=Purpose.EMBEDDING), caller, snapshot)
    wire_embedding.check_fallbacks(parsed.call, snapshot.view_of(parsed.organization.id))
    return parsed


def _parse(
    given: completion_pb2.CompletionCall | embedding_service_pb2.EmbedRequest,
    asked: Completion | Embedding,
    needs: Needs,
    caller: Caller,
    snapshot: Snapshot,
) -> Request:
    organization, application = find_application(given.application, caller, snapshot)
    user = acting_user(given.on_behalf_of_user, caller, organization)
    policy = wire_policy.parse_policy(given.route_policy, snapshot.view_of(organization.id))
    return Request(
        call=Call(
            given.spec.model,
            organization,
            application,
            policy,
            needs,
            given.context,
            user=user.rpartition("/users/")[2],
            conversation=given.caller_labels.get(_CONVERSATION, ""),
        ),
        asked=asked,
        options=wire_parse.parse_entries(asked.settings),
        caller=caller,
        principal=user or application_principal(application, caller),
        user=user,
        request_id=wire_parse.check_uuid4(given.request_id, "call.request_id"),
    )


def deadline_of(context: Any) -> float | None:
    """When the caller gives up, by the event loop's clock."""
    left: float | None = context.time_remaining()
    return None if left is None else asyncio.get_running_loop().time() + left


def demand(caller: Caller, scope: str, *roles: str) -> None:
    """Refuses a caller without any of the roles, or whose scopes leave this out."""
    if not caller.has_role(*roles):
        message = f"This needs the role {' or '.join(roles)}; ask an administrator of your organization."
        raise Fault(Reason.CALLER_NOT_ALLOWED, message, metadata={"missingRole": roles[-1]})
    if not caller.allows(scope):
        message = f"Your token has not the scope {scope}; ask for one that has."
        raise Fault(Reason.CALLER_NOT_ALLOWED, message, metadata={"missingScope": scope})


def find_organization(name: str, caller: Caller, snapshot: Snapshot) -> Organization:
    """An organization that the caller belongs to, or any for the deployment's callers."""
    organization = snapshot.organizations.get(name.removeprefix("organizations/"))
    is_own = caller.organization in ("", name)
    if not name.startswith("organizations/") or organization is None or not is_own:
        raise not_found(name)
    return organization


def find_application(name: str, caller: Caller, snapshot: Snapshot) -> tuple[Organization, Application]:
    """The application that a call names, or its token does; without one the organization's own defaults hold."""
    if name and caller.application and name != caller.application:
        message = "Your token belongs to another application."
        raise Fault(Reason.CALLER_NOT_ALLOWED, message, metadata={"application": caller.application})
    name = name or caller.application
    if not name:
        if not caller.organization:
            raise invalid("call.application", "A token of the deployment must name an application, and so its tenant.")
        found = find_organization(caller.organization, caller, snapshot)
        payers = tuple(payer for payer in NO_APPLICATION.payers if payer in found.allowed_payers)
        return found, NO_APPLICATION if payers == NO_APPLICATION.payers else replace(NO_APPLICATION, payers=payers)
    owner, separator, application_id = name.partition("/applications/")
    if not separator:
        raise invalid("call.application", "An application is organizations/{organization}/applications/{application}.")
    organization = find_organization(owner, caller, snapshot)
    application = organization.applications.get(application_id)
    if application is None:
        raise not_found(name)
    return organization, application


def acting_user(on_behalf_of: str, caller: Caller, organization: Organization) -> str:
    """Whose call it is: the token's user, or the one that a service may act for."""
    if not on_behalf_of or on_behalf_of == caller.user:
        return caller.user
    if not caller.allows("act_on_behalf"):
        message = "Your token may not act on behalf of others; it needs the scope act_on_behalf."
        raise Fault(Reason.CALLER_NOT_ALLOWED, message, metadata={"missingScope": "act_on_behalf"})
    owner, _, user = on_behalf_of.partition("/users/")
    if owner != f"organizations/{organization.id}" or user not in organization.users:
        raise not_found(on_behalf_of)
    return on_behalf_of


def application_principal(application: Application, caller: Caller) -> str:
    """Whom a call without a user serves."""
    return caller.principal if application.name == NO_APPLICATION.name else application.name


def not_found(name: str) -> Fault:
    """There is no such resource, or the caller may not know of it: the two look the same."""
    message = "There is no such resource, or it is not yours."
    return Fault(Reason.RESOURCE_NOT_FOUND, message, metadata={"name": quote(name[:256])})
