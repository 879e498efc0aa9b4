"""What a failed call says, read from its gRPC status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Self, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from keyswitch.router.v1 import receipt_pb2

_DETAILS_KEY = "grpc-status-details-bin"
RESPONSE_ID_KEY = "keyswitch-response-id"

Metadata = Iterable[tuple[str, str | bytes]]

# gRPC makes these itself, in the caller's own process or on the way, so nobody has written a sentence for them.
_TRANSPORT_MESSAGES: Mapping[grpc.StatusCode, str] = {
    grpc.StatusCode.CANCELLED: "the call was cancelled here",
    grpc.StatusCode.DEADLINE_EXCEEDED: "the call's own deadline passed: allow more time, or ask for less",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "gRPC refused the message as too large: a request may have 32 MiB",
    grpc.StatusCode.UNAVAILABLE: "the service cannot be reached: check that it runs, its address and the CA file",
    grpc.StatusCode.UNIMPLEMENTED: "the service does not have this method: client and service differ in version",
    grpc.StatusCode.INTERNAL: "gRPC failed between client and service",
    grpc.StatusCode.UNKNOWN: "the service ended the call without a reason",
}


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of the request that is wrong, and what is wrong with it."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class _Details:
    info: error_details_pb2.ErrorInfo
    violations: tuple[FieldViolation, ...]
    retry_delay: timedelta | None
    receipt: receipt_pb2.Receipt | None


@dataclass(eq=False)
class KeyswitchError(Exception):
    """A call that failed. `reason` is the contract's ErrorReason by its whole name.

    An empty `reason` means that no service wrote the status: gRPC made it (no connection, the caller's own deadline, an
    oversize message), and only `code` and `message` tell anything.
    """

    code: grpc.StatusCode
    message: str
    reason: str = ""
    domain: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    field_violations: tuple[FieldViolation, ...] = ()
    retry_delay: timedelta | None = None
    receipt: receipt_pb2.Receipt | None = None
    response_id: str = ""

    def __str__(self) -> str:
        """The code, the reason and the sentence, in one line."""
        head = f"{self.code.name} {self.reason}".rstrip()
        return f"{head}: {self.message}"

    @property
    def is_committed(self) -> bool:
        """Whether a part of an answer had been delivered, which is billed: repeating the call pays twice."""
        return self.metadata.get("committed") == "true"

    @classmethod
    def from_rpc_error(cls, error: grpc.RpcError) -> Self:
        """Reads whatever grpc or grpc.aio raised."""
        # The types of grpc name the two halves of a metadatum; what comes is a pair.
        trailing = cast("Metadata", error.trailing_metadata() or ())
        return cls.from_status(error.code(), error.details() or "", trailing)

    @classmethod
    def from_status(cls, code: grpc.StatusCode, text: str, trailing: Metadata) -> Self:
        """Reads a status from its three parts."""
        details = _details(trailing)
        if not details.info.reason:
            return cls(code=code, message=_transport_message(code, text))
        return cls(
            code=code,
            message=text,
            reason=details.info.reason,
            domain=details.info.domain,
            metadata=dict(details.info.metadata),
            field_violations=details.violations,
            retry_delay=details.retry_delay,
            receipt=details.receipt,
            response_id=details.receipt.response_id if details.receipt else "",
        )


def _transport_message(code: grpc.StatusCode, text: str) -> str:
    sentence = _TRANSPORT_MESSAGES.get(code, "the call failed")
    return f"{sentence} (gRPC says: {text})" if text else sentence


def _details(trailing: Metadata) -> _Details:
    """The typed details; all of them empty when the status has none or a proxy garbled them."""
    status = status_pb2.Status()
    for key, value in trailing:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                status.ParseFromString(value)
            except DecodeError:
                status.Clear()
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    receipt = receipt_pb2.Receipt()
    found: set[str] = set()
    for detail in status.details:
        for target in (info, bad_request, retry, receipt):
            try:
                if detail.Unpack(target):
                    found.add(target.DESCRIPTOR.name)
            except DecodeError:
                target.Clear()
    return _Details(
        info=info,
        violations=tuple(FieldViolation(v.field, v.description) for v in bad_request.field_violations),
        retry_delay=retry.retry_delay.ToTimedelta() if "RetryInfo" in found else None,
        receipt=receipt if "Receipt" in found else None,
    )


def response_id_in(metadata: Metadata) -> str:
    """The response id of a call's initial metadata; empty when it has none."""
    for key, value in metadata:
        if key == RESPONSE_ID_KEY and isinstance(value, str):
            return value
    return ""
