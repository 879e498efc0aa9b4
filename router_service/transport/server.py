"""The gRPC server: its options, its services, its health."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from keyswitch.router.v1 import (
    application_service_pb2_grpc,
    budget_service_pb2_grpc,
    completion_service_pb2_grpc,
    configuration_service_pb2_grpc,
    credential_test_service_pb2_grpc,
    embedding_service_pb2_grpc,
    model_service_pb2_grpc,
    organization_service_pb2_grpc,
    override_service_pb2_grpc,
    provider_service_pb2_grpc,
    routing_service_pb2_grpc,
    usage_service_pb2_grpc,
)

from router_service.transport.application_servicer import ApplicationServicer
from router_service.transport.budget_servicer import BudgetServicer
from router_service.transport.catalog_servicers import ModelServicer
from router_service.transport.completion_servicer import CompletionServicer
from router_service.transport.configuration_servicer import ConfigurationServicer
from router_service.transport.credential_test_servicer import CredentialTestServicer
from router_service.transport.embedding_servicer import EmbeddingServicer
from router_service.transport.interceptors.faults import FaultsInterceptor
from router_service.transport.interceptors.identity import IdentityInterceptor
from router_service.transport.organization_servicer import OrganizationServicer
from router_service.transport.override_servicer import OverrideServicer
from router_service.transport.provider_servicer import ProviderServicer
from router_service.transport.routing_servicer import RoutingServicer
from router_service.transport.usage_servicer import UsageServicer

SERVICES = (
    "keyswitch.router.v1.CompletionService",
    "keyswitch.router.v1.EmbeddingService",
    "keyswitch.router.v1.CredentialTestService",
    "keyswitch.router.v1.ModelService",
    "keyswitch.router.v1.ProviderService",
    "keyswitch.router.v1.UsageService",
    "keyswitch.router.v1.BudgetService",
    "keyswitch.router.v1.RoutingService",
    "keyswitch.router.v1.ApplicationService",
    "keyswitch.router.v1.OverrideService",
    "keyswitch.router.v1.OrganizationService",
    "keyswitch.router.v1.ConfigurationService",
)


@dataclass(frozen=True, slots=True)
class Servicers:
    """What is served."""

    completion: CompletionServicer
    embedding: EmbeddingServicer
    credential_test: CredentialTestServicer
    model: ModelServicer
    provider: ProviderServicer
    usage: UsageServicer
    budget: BudgetServicer
    routing: RoutingServicer
    application: ApplicationServicer
    override: OverrideServicer
    organization: OrganizationServicer
    configuration: ConfigurationServicer


class Health:
    """What grpc.health.v1 says, for the whole server and for each service."""

    def __init__(self) -> None:
        self.servicer = health.aio.HealthServicer()

    async def set(self, *, is_serving: bool) -> None:
        """Flips all of them."""
        status = health_pb2.HealthCheckResponse.SERVING if is_serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", *SERVICES):
            await self.servicer.set(service, status)


def build_server(
    servicers: Servicers,
    identity: IdentityInterceptor,
    *,
    new_incident: Callable[[], str],
    most_request_bytes: int,
    most_transport_bytes: int,
    max_connection_age_seconds: float,
) -> tuple[grpc.aio.Server, Health]:
    """A server that still has no port. One address, one process: SO_REUSEPORT is off."""
    options: Sequence[tuple[str, int]] = (
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", most_transport_bytes),
        ("grpc.max_send_message_length", most_transport_bytes),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.max_connection_age_ms", int(max_connection_age_seconds * 1000)),
        ("grpc.max_connection_age_grace_ms", 600_000),
    )
    interceptors = (FaultsInterceptor(new_incident, most_request_bytes), identity)
    server = grpc.aio.server(interceptors=interceptors, options=options)
    completion_service_pb2_grpc.add_CompletionServiceServicer_to_server(servicers.completion, server)
    embedding_service_pb2_grpc.add_EmbeddingServiceServicer_to_server(servicers.embedding, server)
    credential_test_service_pb2_grpc.add_CredentialTestServiceServicer_to_server(servicers.credential_test, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(servicers.model, server)
    provider_service_pb2_grpc.add_ProviderServiceServicer_to_server(servicers.provider, server)
    usage_service_pb2_grpc.add_UsageServiceServicer_to_server(servicers.usage, server)
    budget_service_pb2_grpc.add_BudgetServiceServicer_to_server(servicers.budget, server)
    routing_service_pb2_grpc.add_RoutingServiceServicer_to_server(servicers.routing, server)
    application_service_pb2_grpc.add_ApplicationServiceServicer_to_server(servicers.application, server)
    override_service_pb2_grpc.add_OverrideServiceServicer_to_server(servicers.override, server)
    organization_service_pb2_grpc.add_OrganizationServiceServicer_to_server(servicers.organization, server)
    configuration_service_pb2_grpc.add_ConfigurationServiceServicer_to_server(servicers.configuration, server)
    found = Health()
    health_pb2_grpc.add_HealthServicer_to_server(found.servicer, server)
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    return server, found
