"""A fault as a gRPC status: the only place that makes one."""

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from vault_service.core.faults import DOMAIN, Fault


def make_status(fault: Fault) -> grpc.Status:
    """Gives the status that ends a call."""
    return rpc_status.to_status(describe(fault))


def describe(fault: Fault) -> status_pb2.Status:
    """Gives the status with exactly one ErrorInfo, and BadRequest or RetryInfo where the table says so."""
    row = fault.row
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=fault.reason.value, domain=DOMAIN, metadata=fault.metadata)
    ]
    if fault.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=one.field, description=one.description)
            for one in fault.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if fault.retry_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(fault.retry_seconds * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return status_pb2.Status(
        code=code_pb2.Code.Value(row.code.value), message=row.sentence, details=[_pack(one) for one in details]
    )


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
