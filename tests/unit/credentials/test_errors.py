"""What the credential service says of a key whose tokens are fetched: whose fault it is, and whether to come again."""

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from router_service.core.faults import Fault, Reason
from router_service.credentials.errors import LeaseRefused, fault_of

NAME = "organizations/acme/credentials/plan"


def refusal(reason: str, cause: str) -> LeaseRefused:
    detail = any_pb2.Any()
    metadata = {"name": f"{NAME}/versions/1", "cause": cause}
    detail.Pack(
        error_details_pb2.ErrorInfo(reason=f"ERROR_REASON_{reason}", domain="vault.keyswitch.dev", metadata=metadata)
    )
    return LeaseRefused(status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message="CANARY", details=[detail]))


@pytest.mark.parametrize(
    ("reason", "cause", "becomes", "says"),
    [
        ("MINT_REFUSED", "invalid_grant", Reason.UPSTREAM_CREDENTIAL_REJECTED, "Its owner should test or replace it."),
        ("MINT_REFUSED", "endpoint_not_allowed", Reason.CREDENTIALS_UNAVAILABLE, "the operator lists the endpoint"),
        ("MINT_UNAVAILABLE", "status_503", Reason.CREDENTIALS_UNAVAILABLE, "not about the key"),
    ],
)
def test_a_token_that_is_not_to_be_had(reason: str, cause: str, becomes: Reason, says: str) -> None:
    fault = fault_of(refusal(reason, cause), NAME)
    assert isinstance(fault, Fault)
    assert fault.reason is becomes
    assert says in fault.message
    assert fault.metadata == {"vaultReason": f"ERROR_REASON_{reason}", "cause": cause}
    assert (fault.retry_after_seconds is None) == (becomes is Reason.UPSTREAM_CREDENTIAL_REJECTED)
    assert "CANARY" not in fault.message
