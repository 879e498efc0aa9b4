"""How a client reaches a service: TLS always, the token with every call."""

from __future__ import annotations

from pathlib import Path

import grpc

# Above the contract's 32 MiB, so that a message that is too large is refused by the service, with a reason.
_MAX_MESSAGE_BYTES = 33 * 1024 * 1024

_CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    # gRPC must not repeat a completion by itself: only the caller knows whether it may be billed twice.
    ("grpc.enable_retries", 0),
)


def channel_options(target: str) -> tuple[tuple[str, int], ...]:
    """The options of a connection. A proxy of the environment is never asked for this machine's own services."""
    host = target.rpartition(":")[0].strip("[]")
    if host in ("localhost", "::1") or host.startswith("127."):
        return (*_CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0))
    return _CHANNEL_OPTIONS


def channel_credentials(ca_pem: bytes | None, ca_path: Path | str | None) -> grpc.ChannelCredentials:
    """TLS that trusts the given authority, or the system's when neither is given."""
    if ca_pem is not None and ca_path is not None:
        raise ValueError("give ca_pem or ca_path, not both")
    pem = Path(ca_path).read_bytes() if ca_path is not None else ca_pem
    return grpc.ssl_channel_credentials(root_certificates=pem)


def bearer_metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """The metadata that proves who calls; none for the few methods that need no identity."""
    return (("authorization", f"Bearer {token}"),) if token else ()
