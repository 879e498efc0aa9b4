"""Both services with an authority that they trust for callers."""

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from keyswitch.vault.v1 import audit_pb2, audit_service_pb2
from keyswitch_client import AsyncClient, ClientCertificate

from router_service.config import Address
from tests.fakes.caller_certificates import DOMAIN, CallerAuthority, write_workloads
from tests.service.router_harness import Stack, running_stack

WORKLOADS: list[dict[str, Any]] = [
    {"spiffe_id": f"spiffe://{DOMAIN}/demo/", "organization": "demo", "roles": ["member"]},
    {
        "spiffe_id": f"spiffe://{DOMAIN}/demo/chat",
        "organization": "demo",
        "application": "chat",
        "roles": ["member"],
    },
    {"spiffe_id": f"spiffe://{DOMAIN}/people/ada", "organization": "demo", "user": "ada", "roles": ["member"]},
    {"spiffe_id": f"spiffe://{DOMAIN}/other/x", "organization": "other", "roles": ["admin"]},
]


@dataclasses.dataclass
class Callers:
    """Both services, an authority that they trust for callers, and where those come."""

    stack: Stack
    authority: CallerAuthority
    workloads: Path

    @property
    def router_target(self) -> str:
        return f"localhost:{self.stack.router.certificate_port}"

    @property
    def vault_target(self) -> str:
        return f"localhost:{self.stack.vault.service.certificate_port}"

    def client(self, certificate: ClientCertificate, token: str | None = None) -> AsyncClient:
        """The client as callers have it."""
        authority = self.stack.home / "ca.pem"
        return AsyncClient(
            self.router_target, token, ca_path=authority, certificate=certificate, vault_target=self.vault_target
        )

    async def records(self) -> list[audit_pb2.AuditRecord]:
        """The audit log, the newest first."""
        client = self.stack.vault.operator
        request = audit_service_pb2.ListAuditRecordsRequest(parent="chains/-", page_size=1000)
        return list((await client.call(client.audit.ListAuditRecords, request)).audit_records)


@asynccontextmanager
async def running_callers(home: Path, *, vault_changes: Any = None, **config: Any) -> AsyncIterator[Callers]:
    """Runs both with a listener for certificates each."""
    authority = CallerAuthority()
    workloads = write_workloads(home, WORKLOADS, authority)
    changes = {"workloads_file": workloads, "certificate_address": "127.0.0.1:0"}
    listen = Address("127.0.0.1", 0)
    async with running_stack(
        home,
        vault_changes={**changes, **(vault_changes or {})},
        workloads_file=workloads,
        certificate_listen=listen,
        **config,
    ) as stack:
        yield Callers(stack, authority, workloads)
