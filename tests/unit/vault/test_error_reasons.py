"""Every reason of the contract has a comment with an example, a row in the table and a status of the comment's code.

How each one comes about is in tests/service/test_vault_service_errors.py.
"""

import json
import re
from pathlib import Path

import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from keyswitch.vault.v1 import error_reason_pb2

from vault_service.core.faults import TABLE, Fault, Reason, from_store, invalid
from vault_service.store import store
from vault_service.transport.status import make_status

PROTO = Path(__file__).parents[3] / "protos" / "keyswitch" / "vault" / "v1" / "error_reason.proto"
NAMES = [name for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name if name != "ERROR_REASON_UNSPECIFIED"]


def comments() -> dict[str, str]:
    """Gives the comment before each value."""
    found: dict[str, str] = {}
    lines: list[str] = []
    for line in PROTO.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("//"):
            lines.append(text.removeprefix("//").strip())
            continue
        value = re.match(r"(ERROR_REASON_\w+) = \d+;", text)
        if value:
            found[value.group(1)] = "\n".join(lines)
        lines = []
    return found


COMMENTS = comments()


def example(name: str) -> dict[str, object]:
    """Gives the example of a value's comment."""
    comment = COMMENTS[name]
    parsed = json.loads(comment[comment.index("{") :])
    assert isinstance(parsed, dict)
    return parsed


def test_the_core_has_the_contracts_reasons_and_each_a_row() -> None:
    assert {reason.value for reason in Reason} == set(NAMES)
    assert set(TABLE) == set(Reason)


@pytest.mark.parametrize("name", NAMES)
def test_comment_example_and_row_agree(name: str) -> None:
    given = example(name)
    assert given["reason"] == name
    assert given["domain"] == "vault.keyswitch.dev"
    said = re.search(r"Status\s+([A-Z_]+)", COMMENTS[name])
    assert said is not None
    row = TABLE[Reason(name)]
    assert row.code.value == said.group(1)
    assert (row.retry_seconds is not None) == ("RetryInfo" in COMMENTS[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_status_has_one_error_info_and_the_tables_sentence(name: str) -> None:
    metadata = example(name)["metadata"]
    assert isinstance(metadata, dict)
    made = make_status(Fault(Reason(name), metadata))
    (pair,) = made.trailing_metadata
    status = status_pb2.Status.FromString(pair[1])
    infos = [one for one in status.details if one.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    assert len(infos) == 1
    info = error_details_pb2.ErrorInfo()
    infos[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == (name, "vault.keyswitch.dev", metadata)
    row = TABLE[Reason(name)]
    assert status.message == row.sentence
    assert code_pb2.Code.Name(status.code) == row.code.value
    retries = [one for one in status.details if one.Is(error_details_pb2.RetryInfo.DESCRIPTOR)]
    assert len(retries) == (row.retry_seconds is not None)


def test_a_wrong_field_is_named() -> None:
    made = make_status(invalid("credential.plan", "is wrong"))
    status = status_pb2.Status.FromString(made.trailing_metadata[0][1])
    bad = error_details_pb2.BadRequest()
    assert any(one.Unpack(bad) for one in status.details)
    assert [(one.field, one.description) for one in bad.field_violations] == [("credential.plan", "is wrong")]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (store.Conflict("sk-CANARY"), Reason.VERSION_CONFLICT),
        (store.Unsealable("sk-CANARY"), Reason.INTERNAL),
        (store.Unavailable("sk-CANARY", status=473), Reason.VAULT_NOT_READY),
        (store.Sealed("sk-CANARY", status=503), Reason.VAULT_SEALED),
        (store.Uninitialised("sk-CANARY", status=501), Reason.VAULT_UNINITIALISED),
        (store.AuditFailed("sk-CANARY", status=500), Reason.VAULT_AUDIT_FAILED),
        (store.Throttled("sk-CANARY", status=429), Reason.VAULT_RATE_LIMITED),
        (store.Denied("sk-CANARY", status=403), Reason.VAULT_DENIED),
        (store.StoreError("sk-CANARY"), Reason.INTERNAL),
    ],
)
def test_a_stores_error_becomes_a_reason_and_never_its_text(error: store.StoreError, reason: Reason) -> None:
    fault = from_store(error, "name")
    assert fault.reason is reason
    assert "CANARY" not in repr(fault.metadata) + str(fault)
    if error.status is not None:
        assert fault.metadata == {"vaultStatus": str(error.status)}
