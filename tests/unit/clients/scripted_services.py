"""Both services behind one port, for a synchronous client: each method answers what the test put down for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from tests.unit.clients.scripted_router import self_signed

Answer = Message | Sequence[Message] | grpc.Status | Callable[[Any], Message]


@dataclass
class ScriptedServices(grpc.GenericRpcHandler):
    """Answers by the method's bare name; a list is a stream, a Status a refusal, a function sees the request."""

    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[tuple[str, Any]] = field(default_factory=list)

    def asked(self, method: str) -> Any:
        """The only request that the method got."""
        (request,) = [request for name, request in self.requests if name == method]
        return request

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Finds the method in the contract."""
        full_name = str(details.method).strip("/").replace("/", ".")
        method = descriptor_pool.Default().FindMethodByName(full_name)
        decode = message_factory.GetMessageClass(method.input_type).FromString

        def encode(message: Message) -> bytes:
            return message.SerializeToString()

        def find(request: Message, context: grpc.ServicerContext) -> Answer:
            self.requests.append((method.name, request))
            answer = self.answers[method.name]
            if callable(answer):
                answer = answer(request)
            if isinstance(answer, grpc.Status):
                context.abort_with_status(answer)
            return answer

        def unary(request: Message, context: grpc.ServicerContext) -> Answer:
            return find(request, context)

        def stream(request: Message, context: grpc.ServicerContext) -> Iterator[Answer]:
            answer = find(request, context)
            assert isinstance(answer, Sequence)
            yield from answer

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, request_deserializer=decode, response_serializer=encode)
        return grpc.unary_unary_rpc_method_handler(unary, request_deserializer=decode, response_serializer=encode)


@contextmanager
def serving(services: ScriptedServices, folder: Path) -> Iterator[str]:
    """The services behind TLS; their authority is in the folder's ca.pem. Gives the address."""
    private, pem = self_signed(folder)
    with ThreadPoolExecutor(max_workers=4) as pool:
        server = grpc.server(pool, handlers=[services])
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(private, pem)]))
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()
