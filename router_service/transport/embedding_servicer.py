"""EmbeddingService: a thin shell around the engine."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from keyswitch.router.v1 import embedding_service_pb2, embedding_service_pb2_grpc

from router_service.catalog.catalog import Snapshot
from router_service.core.faults import Fault
from router_service.engine import CallFailed, Engine
from router_service.transport.completion_servicer import RESPONSE_ID_METADATA
from router_service.transport.interceptors.identity import caller
from router_service.transport.request import deadline_of, parse_embedding_request
from router_service.transport.wire_embedding import EmbeddingSink, name_fields


class EmbeddingServicer(embedding_service_pb2_grpc.EmbeddingServiceServicer):
    """Turns texts into vectors."""

    def __init__(self, engine: Engine, snapshot: Callable[[], Snapshot], new_id: Callable[[], str]) -> None:
        self._engine = engine
        self._snapshot = snapshot
        self._new_id = new_id

    async def Embed(  # noqa: N802 # gRPC's name
        self, request: embedding_service_pb2.EmbedRequest, context: Any
    ) -> embedding_service_pb2.EmbedResponse:
        """All of the batch or nothing."""
        snapshot, sink = self._snapshot(), EmbeddingSink()
        try:
            parsed = replace(parse_embedding_request(request, caller(), snapshot), deadline=deadline_of(context))
            response_id = self._new_id()
            await context.send_initial_metadata(((RESPONSE_ID_METADATA, response_id),))
            await self._engine.run(parsed, snapshot.view_of(parsed.organization.id), response_id, sink)
        except Fault as fault:
            raise name_fields(fault) from None
        except CallFailed as failed:
            name_fields(failed.fault)
            raise
        return sink.response()
