"""The two gRPC listeners: the management plane for callers, the lease plane for routers.

They differ in who may come and in what is there. The lease listener has no reflection and no management, so that "who
may see secrets" is one allow-list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from keyswitch.vault.v1 import (
    audit_service_pb2_grpc,
    credential_service_pb2_grpc,
    lease_service_pb2_grpc,
    token_service_pb2_grpc,
)

from vault_service.transport.audit_servicer import AuditServicer
from vault_service.transport.credential_servicer import CredentialServicer
from vault_service.transport.interceptors.size import TRANSPORT_MARGIN_BYTES
from vault_service.transport.interceptors.wrap import AroundInterceptor, Interceptors
from vault_service.transport.lease_servicer import LeaseServicer
from vault_service.transport.token_servicer import TokenServicer

CREDENTIAL_SERVICE = "keyswitch.vault.v1.CredentialService"
TOKEN_SERVICE = "keyswitch.vault.v1.TokenService"  # noqa: S105 - the name of a service
AUDIT_SERVICE = "keyswitch.vault.v1.AuditService"
LEASE_SERVICE = "keyswitch.vault.v1.LeaseService"
_MANAGEMENT_SERVICES = (CREDENTIAL_SERVICE, TOKEN_SERVICE, AUDIT_SERVICE)
_LEASE_SERVICES = (LEASE_SERVICE, TOKEN_SERVICE)


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """What a listener takes."""

    max_message_bytes: int
    max_connection_age_seconds: float
    drain_seconds: float


class Health:
    """grpc.health.v1 of one listener."""

    def __init__(self, services: Sequence[str]) -> None:
        self.servicer = health.aio.HealthServicer()
        self._services = ("", *services)

    async def set_serving(self, is_serving: bool) -> None:
        """Says for every service of the listener whether it serves."""
        status = health_pb2.HealthCheckResponse.SERVING if is_serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in self._services:
            await self.servicer.set(service, status)


@dataclass(frozen=True, slots=True)
class Listener:
    """A server with its health."""

    server: grpc.aio.Server
    health: Health


def make_management_listener(
    interceptors: Sequence[AroundInterceptor],
    credentials: CredentialServicer,
    tokens: TokenServicer,
    audit: AuditServicer,
    limits: ListenerLimits,
) -> Listener:
    """Makes the listener for admins, members and auditors."""
    server = _make_server(interceptors, limits)
    credential_service_pb2_grpc.add_CredentialServiceServicer_to_server(credentials, server)
    token_service_pb2_grpc.add_TokenServiceServicer_to_server(tokens, server)
    audit_service_pb2_grpc.add_AuditServiceServicer_to_server(audit, server)
    listener = _with_health(server, _MANAGEMENT_SERVICES)
    names = (*_MANAGEMENT_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    return listener


def make_lease_listener(
    interceptors: Sequence[AroundInterceptor],
    leases: LeaseServicer,
    tokens: TokenServicer,
    limits: ListenerLimits,
) -> Listener:
    """Makes the listener for routers."""
    server = _make_server(interceptors, limits)
    lease_service_pb2_grpc.add_LeaseServiceServicer_to_server(leases, server)
    server.add_generic_rpc_handlers((_signing_keys_only(tokens),))
    return _with_health(server, _LEASE_SERVICES)


def _make_server(interceptors: Sequence[AroundInterceptor], limits: ListenerLimits) -> grpc.aio.Server:
    return grpc.aio.server(
        interceptors=[Interceptors(interceptors)],
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", limits.max_message_bytes + TRANSPORT_MARGIN_BYTES),
            ("grpc.max_connection_age_ms", int(limits.max_connection_age_seconds * 1000)),
            ("grpc.max_connection_age_grace_ms", int(limits.drain_seconds * 1000)),
        ],
    )


def _with_health(server: grpc.aio.Server, services: Sequence[str]) -> Listener:
    state = Health(services)
    health_pb2_grpc.add_HealthServicer_to_server(state.servicer, server)
    return Listener(server, state)


def _signing_keys_only(tokens: TokenServicer) -> grpc.GenericRpcHandler:
    """Gives the one method of TokenService that routers need; the others are not on their listener at all."""
    collected = _Collected()
    token_service_pb2_grpc.add_TokenServiceServicer_to_server(tokens, collected)  # type: ignore[arg-type] # only collects
    handlers = {"GetSigningKeys": collected.handlers["GetSigningKeys"]}
    return grpc.method_handlers_generic_handler(TOKEN_SERVICE, handlers)


class _Collected:
    """Looks to generated code like a server, and keeps what is registered."""

    def __init__(self) -> None:
        self.handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def add_generic_rpc_handlers(self, _: Any) -> None:
        """Not needed: the registered handlers are the same."""

    def add_registered_method_handlers(self, _: str, handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
        self.handlers.update(handlers)
