"""Who is calling: what the connection and the metadata prove, for each call of our own services."""

from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote

import grpc

from router_service.core.caller import Caller
from router_service.core.faults import Fault, Reason
from router_service.core.refusal_limit import RefusalLimit, source_of
from router_service.credentials.refusals import Refusals
from router_service.transport.interceptors.certificates import Callers, peer_certificate
from router_service.transport.interceptors.faults import Continuation, Handler, behaviour_of, rewrap
from router_service.transport.interceptors.tokens import unknown

MOST_TOKEN_CHARACTERS = 8192

_CALLER: ContextVar[Caller] = ContextVar("caller")


def caller() -> Caller:
    """The verified identity of the call that runs."""
    return _CALLER.get()


class IdentityInterceptor(grpc.aio.ServerInterceptor):
    """Lets no call of our own services through without a verified identity. Health and reflection need none."""

    def __init__(self, callers: Callers, refusals: Refusals, limit: RefusalLimit) -> None:
        self._callers = callers
        self._refusals = refusals
        self._limit = limit
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler | None:
        """Wraps a method once."""
        method = details.method
        if method not in self._wrapped:
            handler = await continuation(details)
            if handler is None or not method.startswith("/keyswitch."):
                return handler
            self._wrapped[method] = self._wrap(handler, method.rpartition(".")[2])
        return self._wrapped[method]

    def _wrap(self, handler: Handler, name: str) -> Handler:
        behaviour = behaviour_of(handler)
        callers = self._callers

        async def identified(request: Any, context: Any) -> Any:
            try:
                token = _bearer(context.invocation_metadata())
                _CALLER.set(await callers.identify(token, peer_certificate(context)))
            except Fault as fault:
                self._refuse(name, fault, context)
                raise
            return await behaviour(request, context)

        return rewrap(handler, identified)

    def _refuse(self, name: str, fault: Fault, context: Any) -> None:
        """Counts a stranger; raises in the fault's place where there were too many from there."""
        if fault.reason is not Reason.CALLER_UNKNOWN:
            return
        source = source_of(unquote(context.peer()).partition(":")[2])
        self._refusals.add(name, fault.metadata["cause"], source)
        wait_seconds = self._limit.refuse(source)
        if wait_seconds:
            message = "Too many callers from there proved no identity lately; wait, and come back with a valid one."
            raise Fault(Reason.AUTHENTICATION_LIMITED, message, retry_after_seconds=wait_seconds) from None


def _bearer(metadata: Any) -> str:
    """The token's text; empty where none was sent."""
    values = [value for key, value in metadata or () if key == "authorization"]
    if not values:
        return ""
    scheme, _, token = str(values[0]).partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer" or not token or len(token) > MOST_TOKEN_CHARACTERS:
        raise unknown("token_malformed", "Send one token as metadata: `authorization: Bearer <token>`.")
    return token
