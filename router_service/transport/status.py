"""The one place that makes a gRPC status: one ErrorInfo, details where the reason says so, under 4 KiB in all."""

from collections.abc import Mapping

import grpc
from google.protobuf import any_pb2, message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from router_service.core.faults import Code, Fault, Reason
from router_service.core.receipt import Receipt
from router_service.transport import wire_build

DOMAIN = "router.keyswitch.dev"
MOST_BYTES = 4096
MOST_FIELDS = 16
MOST_MESSAGE_CHARACTERS = 512
MOST_METADATA_CHARACTERS = 256

_USED_UP: Mapping[Reason, str] = {
    Reason.BUDGET_EXHAUSTED: "The budget is used up.",
    Reason.CREDIT_EXHAUSTED: "The credits are used up.",
}


def build(fault: Fault, receipt: Receipt | None) -> grpc.Status:
    """The status of a fault."""
    committed = fault.metadata.get("committed") == "true" and fault.law.is_upstream
    code = Code.ABORTED if committed else fault.law.code
    info = error_details_pb2.ErrorInfo(
        reason=f"ERROR_REASON_{fault.reason.value}",
        domain=DOMAIN,
        metadata={key: value[:MOST_METADATA_CHARACTERS] for key, value in fault.metadata.items()},
    )
    status = status_pb2.Status(code=code.value, message=fault.message[:MOST_MESSAGE_CHARACTERS])
    _add(status, info)
    if fault.fields:
        violations = _violations(fault.fields)
        _add(status, error_details_pb2.BadRequest(field_violations=violations))
    if fault.reason in _USED_UP:
        subject = fault.metadata.get("budget") or fault.metadata.get("organization", "")
        violation = error_details_pb2.QuotaFailure.Violation(subject=subject, description=_USED_UP[fault.reason])
        _add(status, error_details_pb2.QuotaFailure(violations=[violation]))
    if fault.retry_after_seconds is not None and not committed:
        delay = wire_build.duration(fault.retry_after_seconds)
        _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
    elif fault.reason in _WITH_RETRY and not committed:
        _add(status, error_details_pb2.RetryInfo(retry_delay=wire_build.duration(1.0)))
    if receipt is not None:
        left = MOST_BYTES - status.ByteSize() - 96  # its own frame in the list of details
        _add(status, wire_build.abridge(wire_build.receipt(receipt), left))
    return rpc_status.to_status(status)


_WITH_RETRY = frozenset(
    {
        Reason.CONFIGURATION_UNAVAILABLE,
        Reason.CREDENTIALS_UNAVAILABLE,
        Reason.LEDGER_UNAVAILABLE,
        Reason.LIMITS_UNAVAILABLE,
        Reason.ISSUER_UNAVAILABLE,
        Reason.AUTHENTICATION_LIMITED,
        Reason.RATE_LIMITED,
        Reason.CONCURRENCY_LIMITED,
        Reason.UPSTREAM_RATE_LIMITED,
    }
)


def _violations(fields: Mapping[str, str]) -> list[error_details_pb2.BadRequest.FieldViolation]:
    named: list[error_details_pb2.BadRequest.FieldViolation] = []
    left = MOST_BYTES // 2
    for field, text in list(fields.items())[:MOST_FIELDS]:
        one = error_details_pb2.BadRequest.FieldViolation(
            field=field[:MOST_METADATA_CHARACTERS], description=text[:MOST_METADATA_CHARACTERS]
        )
        left -= one.ByteSize() + 4
        if left < 0:
            break
        named.append(one)
    return named


def _add(status: status_pb2.Status, detail: message.Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)
