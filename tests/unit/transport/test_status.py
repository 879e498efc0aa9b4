"""Statuses: one ErrorInfo, the code of the law, and under 4 KiB whatever is in them."""

import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st
from keyswitch.router.v1 import receipt_pb2

from router_service.core.events import Usage
from router_service.core.faults import LAWS, Code, Fault, Reason, invalid
from router_service.core.receipt import Attempt, Cost, Receipt, ReceiptState
from router_service.core.resolution import Payer, SkippedCandidate, SkipReason
from router_service.transport import status, wire_build

ATTEMPTS = st.integers(0, 8)


def make_receipt(attempts: int, skipped: int, width: int) -> Receipt:
    """A receipt with names of this width."""
    name = "x" * width
    return Receipt(
        response_id="r" * 22,
        organization="acme",
        principal="organizations/acme/users/ada",
        request_id="4f7c1a52-1d0e-4b8e-9a77-0c2f8f0f7d11",
        state=ReceiptState.FAILED,
        create_time=1e9,
        end_time=1e9 + 1,
        failure_reason=Reason.UPSTREAM_UNAVAILABLE,
        attempts=tuple(
            Attempt(
                number=number,
                model=name,
                provider=f"providers/{name}",
                payer=Payer.CREDITS,
                credential_version=f"deployment/credentials/{name}/versions/1",
                lease_id=name,
                start_time=1e9,
                failure_reason=Reason.UPSTREAM_UNAVAILABLE,
                upstream_request_id=name[:64],
                upstream_backend=name[:64],
                served_model_id=name[:64],
                time_to_first_content_seconds=0.5,
                duration_seconds=1.0,
                usage=Usage(input_tokens=10**9, output_tokens=10**9),
                cost=Cost(1, 2, 3, "revision", True),
                provider_usage_json="{" + name * 10 + "}",
            )
            for number in range(1, attempts + 1)
        ),
        skipped_candidates=tuple(
            SkippedCandidate(name, f"providers/{name}", Payer.USER_KEY, SkipReason.NO_CREDENTIAL, name * 2)
            for _ in range(skipped)
        ),
        skipped_candidate_count=skipped + 3,
        markup_basis_points=500,
    )


def parse(fault: Fault, receipt: Receipt | None = None) -> status_pb2.Status:
    """The status as it goes over the wire."""
    built = status.build(fault, receipt)
    metadata = dict(built.trailing_metadata)
    found = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    assert found.code == built.code.value[0]
    return found


def detail(found: status_pb2.Status, kind: type) -> object:
    """The one detail of a kind, or None."""
    matching = [one for one in found.details if one.Is(kind.DESCRIPTOR)]  # type: ignore[attr-defined] # a message class
    assert len(matching) <= 1
    if not matching:
        return None
    message = kind()
    matching[0].Unpack(message)
    return message


@given(
    attempts=st.integers(0, 8),
    skipped=st.integers(0, 16),
    width=st.integers(0, 128),
    message=st.text(max_size=2000),
    metadata=st.dictionaries(st.sampled_from(["model", "provider", "cause"]), st.text(max_size=400)),
    reason=st.sampled_from(list(Reason)),
)
def test_no_status_is_too_large(
    attempts: int, skipped: int, width: int, message: str, metadata: dict[str, str], reason: Reason
) -> None:
    found = parse(Fault(reason, message, metadata=metadata), make_receipt(attempts, skipped, width))
    assert found.ByteSize() < status.MOST_BYTES
    info = detail(found, error_details_pb2.ErrorInfo)
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (f"ERROR_REASON_{reason.value}", status.DOMAIN)


@given(attempts=st.integers(1, 8), skipped=st.integers(0, 16), width=st.integers(1, 128), most=st.integers(300, 4096))
def test_a_receipt_is_abridged_by_the_rule(attempts: int, skipped: int, width: int, most: int) -> None:
    full = wire_build.receipt(make_receipt(attempts, skipped, width))
    short = wire_build.abridge(full, most)
    assert short.is_abridged
    assert (short.usage, short.cost) == (full.usage, full.cost)
    assert short.skipped_candidate_count == full.skipped_candidate_count
    assert all(not attempt.provider_usage_json for attempt in short.attempts)
    kept = [attempt.number for attempt in short.attempts]
    assert kept == list(range(attempts - len(kept) + 1, attempts + 1))  # the last ones stay
    if len(kept) < attempts:
        assert not short.skipped_candidates
    if short.skipped_candidates and len(short.skipped_candidates) < skipped:
        assert not any(attempt.lease_id for attempt in short.attempts)
    assert full == wire_build.receipt(make_receipt(attempts, skipped, width))


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.value)
def test_a_committed_fault_is_aborted_and_asks_for_no_retry(reason: Reason) -> None:
    fault = Fault(reason, "x", metadata={"committed": "true"}, retry_after_seconds=3.0)
    found = parse(fault)
    law = LAWS[reason]
    assert found.code == (Code.ABORTED if law.is_upstream else law.code).value
    if law.is_upstream:
        assert detail(found, error_details_pb2.RetryInfo) is None


def test_fields_are_named() -> None:
    found = parse(invalid("call.spec.messages", "At least one."))
    bad = detail(found, error_details_pb2.BadRequest)
    assert isinstance(bad, error_details_pb2.BadRequest)
    assert [violation.field for violation in bad.field_violations] == ["call.spec.messages"]


def test_many_fields_fit() -> None:
    fault = Fault(Reason.INVALID_REQUEST, "x", fields={f"field{n}" + "x" * 300: "wrong " * 60 for n in range(30)})
    found = parse(fault, make_receipt(8, 16, 128))
    assert found.ByteSize() < status.MOST_BYTES


def test_a_receipt_that_fits_is_whole() -> None:
    found = parse(Fault(Reason.UPSTREAM_UNAVAILABLE, "x"), make_receipt(1, 0, 4))
    receipt = detail(found, receipt_pb2.Receipt)
    assert isinstance(receipt, receipt_pb2.Receipt)
    assert receipt.attempts[0].HasField("usage")
