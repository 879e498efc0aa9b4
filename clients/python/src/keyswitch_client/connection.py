"""How a client reaches a service: TLS always, the token with every call."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import grpc

from keyswitch_client.certificate import ClientCertificate

# Above the contract's 32 MiB, so that a message that is too large is refused by the service, with a reason.
_MAX_MESSAGE_BYTES = 33 * 1024 * 1024

_CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    # gRPC asks again only what the service has never seen, as when a connection comes of age under a new call. Anything
    # else would need a policy, and nobody sets one in a name server: only the caller knows what may be billed twice.
    ("grpc.service_config_disable_resolution", 1),
)

PROBES = ("/keyswitch.router.v1.ModelService/GetModel", "/keyswitch.vault.v1.CredentialService/GetCredential")
"""Methods that need an identity, one of each service. Asked for nothing they give nothing, but not before they know
who asks."""


def channel_options(target: str) -> tuple[tuple[str, int], ...]:
    """The options of a connection. A proxy of the environment is never asked for this machine's own services."""
    host = target.rpartition(":")[0].strip("[]")
    if host in ("localhost", "::1") or host.startswith("127."):
        return (*_CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0))
    return _CHANNEL_OPTIONS


def read_authority(ca_pem: bytes | None, ca_path: Path | str | None) -> bytes | None:
    """The authority that is trusted; None means those of the system."""
    if ca_pem is not None and ca_path is not None:
        raise ValueError("give ca_pem or ca_path, not both")
    return Path(ca_path).read_bytes() if ca_path is not None else ca_pem


def channel_credentials(ca_pem: bytes | None, certificate: ClientCertificate | None) -> grpc.ChannelCredentials:
    """TLS, and the caller's certificate where there is one."""
    if certificate is None:
        return grpc.ssl_channel_credentials(root_certificates=ca_pem)
    return grpc.ssl_channel_credentials(ca_pem, certificate.key_pem, certificate.chain_pem)


def identity_metadata(token: str | None, certificate: ClientCertificate | None) -> tuple[tuple[str, str], ...]:
    """The metadata that proves who calls; none for the few methods that need no identity."""
    proof = token or (certificate.proof() if certificate is not None else "")
    return (("authorization", f"Bearer {proof}"),) if proof else ()


def is_let_in(error: grpc.RpcError | None) -> bool:
    """Whether somebody was recognised, whatever became of the call."""
    refusals = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    return error is None or cast("grpc.Call", error).code() not in refusals
