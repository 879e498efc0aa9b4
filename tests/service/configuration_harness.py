"""Callers of every role, and the configuration services' stubs by the name of the method."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from keyswitch.router.v1 import (
    application_service_pb2_grpc,
    configuration_service_pb2_grpc,
    credential_test_service_pb2_grpc,
    model_service_pb2_grpc,
    organization_service_pb2_grpc,
    override_service_pb2_grpc,
    provider_service_pb2_grpc,
    routing_service_pb2_grpc,
)

from tests.service.router_harness import ADA, CHAT, DEMO, Caller, Refused, Stack

STUBS = (
    application_service_pb2_grpc.ApplicationServiceStub,
    organization_service_pb2_grpc.OrganizationServiceStub,
    override_service_pb2_grpc.OverrideServiceStub,
    provider_service_pb2_grpc.ProviderServiceStub,
    model_service_pb2_grpc.ModelServiceStub,
    routing_service_pb2_grpc.RoutingServiceStub,
    credential_test_service_pb2_grpc.CredentialTestServiceStub,
    configuration_service_pb2_grpc.ConfigurationServiceStub,
)


@dataclass(frozen=True)
class Desk:
    """A caller that can call every method by its name."""

    caller: Caller
    channel: grpc.aio.Channel

    async def __call__(self, request: Any) -> Any:
        """Calls the method whose request it is."""
        method = type(request).__name__.removesuffix("Request")
        for stub in STUBS:
            found = getattr(stub(self.channel), method, None)
            if found is not None:
                return await self.caller.call(found, request)
        raise AssertionError(method)

    async def refused(self, request: Any) -> Refused:
        """The refusal, which there must be."""
        try:
            await self(request)
        except Refused as refusal:
            return refusal
        raise AssertionError("it was done")


async def desks(stack: Stack) -> Mapping[str, Desk]:
    """One for each role."""
    other = "organizations/other"
    callers = {
        "member": await stack.issue("MEMBER", user=ADA, application=CHAT),
        "admin": await stack.issue("ADMIN", parent=DEMO),
        "auditor": await stack.issue("AUDITOR", parent=DEMO),
        "operator": stack.caller(stack.vault.operator.token),
        "foreign": await stack.issue("ADMIN", parent=other),
    }
    return {role: Desk(caller, stack.channel) for role, caller in callers.items()}
