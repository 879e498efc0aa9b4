"""A lease listener that does nothing: the same certificates, messages and library, and a prepared answer.

What it takes is what gRPC over TLS takes in this language; no service on this stack can give leases for less.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import grpc
import uvloop
from keyswitch.vault.v1 import lease_service_pb2

ANSWER = lease_service_pb2.LeaseCredentialResponse(
    lease_id="bare-lease-0123456789a",
    credential_version="organizations/acme/credentials/main/versions/1",
    provider="providers/openai",
    sealed_material=bytes(120),
    audit_record="chains/vault-0/records/1",
)


async def answer(request: lease_service_pb2.LeaseCredentialRequest, context: Any) -> Any:
    """Gives everybody the same."""
    return ANSWER


async def serve(home: Path, port: int) -> None:
    """Runs until it is ended."""
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=lease_service_pb2.LeaseCredentialRequest.FromString,
        response_serializer=lease_service_pb2.LeaseCredentialResponse.SerializeToString,
    )
    methods = {"LeaseCredential": handler}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("keyswitch.vault.v1.LeaseService", methods),))
    pair = (home / "vault-key.pem").read_bytes(), (home / "vault.pem").read_bytes()
    authority = (home / "ca.pem").read_bytes()
    server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([pair], authority, True))
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bare_lease", description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("port", type=int)
    chosen = parser.parse_args()
    uvloop.run(serve(chosen.home, chosen.port))
