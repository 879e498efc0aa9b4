"""Putting something around the methods of a server.

Unary methods and those that answer with a stream are wrapped, which is all that this service has of its own;
reflection, which streams both ways, is left as it is.
"""

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

Context = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, Context], Awaitable[Any]]


class AroundInterceptor(grpc.aio.ServerInterceptor):
    """An interceptor that wraps each method in `around`."""

    @abstractmethod
    def around(self, method: str, behaviour: Behaviour) -> Behaviour:
        """Gives the behaviour to run in place of `behaviour`; `method` is "/package.Service/Method"."""

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self.around(method, handler.unary_unary),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self.around(method, handler.unary_stream),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return handler


def is_infrastructure(method: str) -> bool:
    """Whether the method is of health checking or reflection, which are not ours."""
    return method.startswith("/grpc.")
