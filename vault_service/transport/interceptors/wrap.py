"""Putting something around the methods of a server.

Unary methods and those that answer with a stream are wrapped, which is all that this service has of its own;
reflection, which streams both ways, is left as it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError

Context = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, Context], Awaitable[Any]]


class AroundInterceptor(ABC):
    """What is put around each method by `around`."""

    @abstractmethod
    def around(self, method: str, behaviour: Behaviour) -> Behaviour:
        """Gives the behaviour to run in place of `behaviour`; `method` is "/package.Service/Method"."""


class Interceptors(grpc.aio.ServerInterceptor):
    """Several of them as one, the first outermost. gRPC asks with every call: each method is wrapped once and kept."""

    def __init__(self, interceptors: Sequence[AroundInterceptor]) -> None:
        self._interceptors = tuple(interceptors)
        self._wrapped: dict[str, tuple[Any, Any]] = {}

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        kept, wrapped = self._wrapped.get(method, (None, None))
        if kept is not handler:
            wrapped = self._wrap(method, handler)
            self._wrapped[method] = handler, wrapped
        return wrapped

    def _wrap(self, method: str, handler: Any) -> Any:
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._around(method, handler.unary_unary),
                request_deserializer=lenient(handler.request_deserializer),
                response_serializer=handler.response_serializer,
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._around(method, handler.unary_stream),
                request_deserializer=lenient(handler.request_deserializer),
                response_serializer=handler.response_serializer,
            )
        return handler

    def _around(self, method: str, behaviour: Behaviour) -> Behaviour:
        for interceptor in reversed(self._interceptors):
            behaviour = interceptor.around(method, behaviour)
        return behaviour


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


def is_infrastructure(method: str) -> bool:
    """Whether the method is of health checking or reflection, which are not ours."""
    return method.startswith("/grpc.")
