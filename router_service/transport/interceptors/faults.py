"""The outermost interceptor: whatever a handler raises becomes one status, logged once, without the exception's text.

grpc.aio sends an unhandled exception's text to the caller, so this one is not optional.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from router_service.core.faults import Fault, Reason
from router_service.database.patience import waited_for
from router_service.engine import CallFailed
from router_service.exchange import CallerGone
from router_service.transport import status

log = structlog.get_logger(__name__)

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler  # not generic at run time
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]
Behaviour = Callable[[Any, Any], Awaitable[Any]]  # a generic handler's types are those of its messages


class FaultsInterceptor(grpc.aio.ServerInterceptor):
    """Turns faults into statuses. `new_incident` makes the id that finds an internal error in the log."""

    def __init__(self, new_incident: Callable[[], str], most_request_bytes: int) -> None:
        self._new_incident = new_incident
        self._most_request_bytes = most_request_bytes
        self._wrapped: dict[str, Handler | None] = {}

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler | None:
        """Wraps a method once; later calls get the same wrapped handler."""
        method = details.method
        if method not in self._wrapped:
            handler = await continuation(details)
            if handler is None or not method.startswith("/keyswitch."):
                return handler
            self._wrapped[method] = self._wrap(handler)
        return self._wrapped[method]

    def _wrap(self, handler: Handler) -> Handler:
        return rewrap(handler, self._guarded(behaviour_of(handler)))

    def _guarded(self, behaviour: Behaviour) -> Behaviour:
        async def guarded(request: Any, context: Any) -> Any:
            try:
                if request is MALFORMED:
                    message = "The request is no message of this method; check the stubs that made it."
                    raise Fault(Reason.INVALID_REQUEST, message, fields={"": message})
                if request.ByteSize() > self._most_request_bytes:
                    message = f"A request has at most {self._most_request_bytes} bytes."
                    raise Fault(Reason.INVALID_REQUEST, message, fields={"": message})
                with waited_for(context.time_remaining()):
                    return await behaviour(request, context)
            except CallFailed as failed:
                refusal = status.build(failed.fault, failed.receipt)
            except Fault as fault:
                refusal = status.build(fault, None)
            except (asyncio.CancelledError, grpc.aio.AbortError):
                raise
            except CallerGone:
                return None
            except Exception as error:  # noqa: BLE001 # the one place where anything at all must become a status
                if context.cancelled() or context.done():
                    return None  # a write that failed because the caller is gone
                refusal = status.build(self._incident(error), None)
            # gRPC keeps what `abort` raises, and with it this frame: it must hold no request, nor what went wrong.
            request = None
            return await context.abort_with_status(refusal)

        return guarded

    def _incident(self, error: Exception) -> Fault:
        incident = self._new_incident()
        log.error("incident", incident_id=incident, exc_info=error)
        message = "The router failed; this is its fault and not yours. Give the operator the incident's id."
        return Fault(Reason.INTERNAL, message, metadata={"incidentId": incident})


def behaviour_of(handler: Handler) -> Behaviour:
    """What a handler runs. The stubs type the synchronous server, where behaviours are no coroutines."""
    behaviour: Any = handler.unary_unary or handler.unary_stream
    found: Behaviour = behaviour
    return found


def rewrap(handler: Handler, behaviour: Any) -> Handler:
    """The same method with another behaviour."""
    make = grpc.unary_unary_rpc_method_handler if handler.unary_unary else grpc.unary_stream_rpc_method_handler
    return make(behaviour, lenient(handler.request_deserializer), handler.response_serializer)


MALFORMED = object()
"""Stands for a request that could not be parsed. gRPC itself would answer with the exception's text."""


def lenient(deserialize: Any) -> Any:
    """A deserializer that gives MALFORMED where the other raises."""

    def deserialize_or_mark(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return MALFORMED

    return deserialize_or_mark
