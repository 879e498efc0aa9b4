"""The audit chain: durable before anybody is answered, gapless, and closed when it cannot be."""

import asyncio
import base64
import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from keyswitch.vault.v1 import audit_pb2, error_reason_pb2

from vault_service.audit.chain import ChainBroken, recover, segment_name, segments
from vault_service.audit.record import format_line, hash_line, parse_line
from vault_service.audit.recorder import SERVICE, Actor, Recorder
from vault_service.audit.sink import Sink, SystemFiles
from vault_service.core.faults import Fault, Reason
from vault_service.store.store import Sealed


def record(**fields: Any) -> audit_pb2.AuditRecord:
    return audit_pb2.AuditRecord(
        **{"action": audit_pb2.AUDIT_ACTION_USE, "outcome": audit_pb2.AUDIT_OUTCOME_SUCCEEDED, **fields}
    )


def clock() -> float:
    return 1_795_000_000.5


def open_sink(root: Path, **fields: Any) -> Sink:
    return Sink(root, "vault-0", clock=clock, **fields)


def lines(root: Path) -> list[bytes]:
    found: list[bytes] = []
    for _, path in segments(root / "vault-0"):
        found += path.read_bytes().splitlines()
    return found


def check_chain(found: list[bytes]) -> None:
    previous = bytes(32)
    for number, line in enumerate(found, 1):
        entry = json.loads(line)
        assert entry["name"] == f"chains/vault-0/records/{number}"
        assert base64.b64decode(entry["previousHash"]) == previous
        previous = hashlib.sha256(line).digest()


class FaultyFiles(SystemFiles):
    """A file system with failures, and a count of what reached the disk."""

    def __init__(self) -> None:
        self.write_error: int | None = None
        self.sync_error: int | None = None
        self.syncs = 0
        self.written_before_error = 7

    def write(self, descriptor: int, data: bytes) -> int:
        if self.write_error is not None:
            os.write(descriptor, data[: self.written_before_error])
            raise OSError(self.write_error, "injected")
        return super().write(descriptor, data)

    def datasync(self, descriptor: int) -> None:
        if self.sync_error is not None:
            raise OSError(self.sync_error, "injected")
        self.syncs += 1
        super().datasync(descriptor)


def test_the_line_is_the_json_mapping_without_the_hash() -> None:
    wanted = record(
        name="chains/vault-0/records/1",
        identity=audit_pb2.AuditIdentity(subject="service", proof=audit_pb2.AUDIT_IDENTITY_PROOF_SERVICE),
        resource="organizations/acme",
        attempt=2,
        previous_hash=bytes(32),
        note="Ä\n",
    )
    line = format_line(wanted)
    assert (
        line
        == (
            '{"name":"chains/vault-0/records/1","identity":{"subject":"service","proof":"AUDIT_IDENTITY_PROOF_SERVICE"},'
            '"action":"AUDIT_ACTION_USE","resource":"organizations/acme","attempt":2,"outcome":"AUDIT_OUTCOME_SUCCEEDED",'
            '"note":"Ä\\n","previousHash":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}'
        ).encode()
    )
    read = parse_line(line)
    assert read.hash == hash_line(line) == hashlib.sha256(line).digest()
    read.ClearField("hash")
    assert read == wanted


def any_message(descriptor: Descriptor) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={field.name: any_value(field) for field in descriptor.fields})


def any_value(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    one: st.SearchStrategy[Any]
    kind = field.message_type
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            one = st.text(st.characters(exclude_categories=["Cs"]))
        case FieldDescriptor.TYPE_BYTES:
            one = st.binary(max_size=40)
        case FieldDescriptor.TYPE_ENUM:
            one = st.integers(0, 40)
        case FieldDescriptor.TYPE_INT32:
            one = st.integers(-(2**31), 2**31 - 1)
        case FieldDescriptor.TYPE_INT64:
            one = st.integers(-(2**63), 2**63 - 1)
        case FieldDescriptor.TYPE_MESSAGE if kind is not None and kind.full_name == "google.protobuf.Timestamp":
            nanos = st.integers(0, 999_999_999) | st.sampled_from([0, 1000, 1_000_000, 120_000_000])
            one = st.builds(Timestamp, seconds=st.integers(-62_135_596_800, 253_402_300_799), nanos=nanos)
        case _:
            assert kind is not None
            one = any_message(kind)
    return st.lists(one, max_size=3) if field.is_repeated else one


@given(any_message(audit_pb2.AuditRecord.DESCRIPTOR))
def test_a_line_is_what_the_protobuf_library_would_write(fields: dict[str, Any]) -> None:
    wanted = audit_pb2.AuditRecord(**fields)
    wanted.ClearField("hash")
    line = format_line(wanted)
    assert json.loads(line) == json_format.MessageToDict(wanted)
    assert list(json.loads(line)) == list(json_format.MessageToDict(wanted))
    json_format.Parse(line, read := audit_pb2.AuditRecord())
    assert read == wanted


def test_a_record_of_a_newer_version_can_be_read() -> None:
    read = parse_line(
        b'{"name":"chains/a/records/1","action":"AUDIT_ACTION_NEW","novelty":1,"outcome":"AUDIT_OUTCOME_DENIED"}'
    )
    assert read.action == audit_pb2.AUDIT_ACTION_UNSPECIFIED
    assert read.outcome == audit_pb2.AUDIT_OUTCOME_DENIED


async def test_records_are_chained_and_callers_share_syncs(tmp_path: Path) -> None:
    files = FaultyFiles()
    sink = open_sink(tmp_path, files=files)
    names = await asyncio.gather(*(sink.append(record(attempt=i)) for i in range(500)))
    await sink.close()
    assert names == [f"chains/vault-0/records/{i + 1}" for i in range(500)]
    check_chain(lines(tmp_path))
    assert files.syncs < 500
    (_, path) = segments(tmp_path / "vault-0")[0]
    assert path.name == segment_name(1)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_a_restart_goes_on_over_segments(tmp_path: Path) -> None:
    for _ in range(3):
        sink = open_sink(tmp_path, segment_bytes=300)
        for _ in range(3):
            await sink.append(record())
        await sink.close()
    assert len(lines(tmp_path)) == 9
    assert len(segments(tmp_path / "vault-0")) > 2
    check_chain(lines(tmp_path))


@pytest.mark.parametrize("tail", [b"{", b'{"name":"chains/vault-0/records/3"}', b"x" * 200_000])
async def test_an_incomplete_last_line_is_cut(tmp_path: Path, tail: bytes) -> None:
    sink = open_sink(tmp_path)
    await sink.append(record())
    await sink.append(record())
    await sink.close()
    (_, path) = segments(tmp_path / "vault-0")[-1]
    with path.open("ab") as file:
        file.write(tail)
    sink = open_sink(tmp_path)
    assert sink.cut_bytes == len(tail)
    assert await sink.append(record()) == "chains/vault-0/records/3"
    await sink.close()
    check_chain(lines(tmp_path))


async def test_a_segment_with_only_an_incomplete_line_is_begun_again(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    await sink.append(record())
    await sink.close()
    (tmp_path / "vault-0" / segment_name(2)).write_bytes(b"{")
    sink = open_sink(tmp_path)
    assert sink.cut_bytes == 1
    await sink.append(record())
    await sink.close()
    check_chain(lines(tmp_path))


def test_a_chain_that_ends_in_something_else_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "vault-0"
    folder.mkdir()
    (folder / segment_name(1)).write_bytes(b"no record\n")
    with pytest.raises(ChainBroken, match="verify"):
        recover(folder)


async def test_two_processes_cannot_write_one_chain(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    with pytest.raises(ChainBroken, match="another process"):
        open_sink(tmp_path)
    await sink.close()
    again = open_sink(tmp_path)
    await again.close()


@pytest.mark.parametrize(
    ("number", "cause"), [(errno.ENOSPC, "no_space"), (errno.EIO, "io"), (errno.EROFS, "read_only")]
)
@pytest.mark.parametrize("kind", ["write_error", "sync_error"])
async def test_a_disk_that_fails_closes_the_door_until_it_recovers(
    tmp_path: Path, kind: str, number: int, cause: str
) -> None:
    files = FaultyFiles()
    sink = open_sink(tmp_path, files=files)
    await sink.append(record())
    setattr(files, kind, number)
    results = await asyncio.gather(*(sink.append(record()) for _ in range(5)), return_exceptions=True)
    for result in results:
        assert isinstance(result, Fault)
        assert (result.reason, result.metadata) == (Reason.AUDIT_FAILED, {"cause": cause})
    causes = [sink.closed_cause]
    setattr(files, kind, None)
    assert await sink.append(record()) == "chains/vault-0/records/2"
    causes.append(sink.closed_cause)
    assert causes == [cause, None]
    await sink.close()
    assert len(lines(tmp_path)) == 2
    check_chain(lines(tmp_path))


async def test_the_door_opens_without_a_callers_attempt(tmp_path: Path) -> None:
    files = FaultyFiles()
    sink = open_sink(tmp_path, files=files)
    files.write_error = errno.ENOSPC
    with pytest.raises(Fault):
        await sink.append(record())
    files.write_error = None
    async with asyncio.timeout(10):
        while sink.closed_cause is not None:
            await asyncio.sleep(0.01)
    await sink.close()


async def test_what_could_not_be_cut_back_is_cut_before_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FaultyFiles()
    sink = open_sink(tmp_path, files=files)
    await sink.append(record())
    truncate = os.ftruncate
    refusals = [True]

    def refuse_once(descriptor: int, length: int) -> None:
        if refusals:
            refusals.clear()
            raise OSError(errno.EIO, "injected")
        truncate(descriptor, length)

    monkeypatch.setattr(os, "ftruncate", refuse_once)
    files.write_error = errno.EIO
    with pytest.raises(Fault):
        await sink.append(record())
    files.write_error = None
    await sink.append(record())
    await sink.close()
    assert len(lines(tmp_path)) == 2
    check_chain(lines(tmp_path))


async def test_a_closed_sink_takes_nothing(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    await sink.close()
    with pytest.raises(Fault) as caught:
        await sink.append(record())
    assert caught.value.metadata == {"cause": "closed"}


def recorded(root: Path) -> list[audit_pb2.AuditRecord]:
    return [parse_line(line) for line in lines(root)]


async def test_every_way_to_end_has_its_outcome(tmp_path: Path) -> None:
    sink = open_sink(tmp_path)
    ids = [("vault-1",)]
    recorder = Recorder(sink, last_request_ids=lambda: ids[0])
    actor = Actor(subject="kim", token_id="t", peer="127.0.0.1:1")

    async def run(error: BaseException | None) -> None:
        async with recorder.doing(actor, audit_pb2.AUDIT_ACTION_LEASE, "r", lease_id="l") as act:
            act.resource = "r/versions/1"
            if error is not None:
                raise error

    await run(None)
    for error, raised in (
        (Fault(Reason.CREDENTIAL_DISABLED), Fault),
        (Sealed("sealed", status=503), Fault),
        (RuntimeError("sk-CANARY"), RuntimeError),
        (asyncio.CancelledError(), asyncio.CancelledError),
    ):
        with pytest.raises(raised):
            await run(error)
    await sink.close()
    found = recorded(tmp_path)
    intents, ends = found[0::2], found[1::2]
    assert all(one.outcome == audit_pb2.AUDIT_OUTCOME_INTENDED and one.resource == "r" for one in intents)
    assert [one.intent_record for one in ends] == [one.name for one in intents]
    assert all(one.resource == "r/versions/1" and one.lease_id == "l" for one in ends)
    assert all(list(one.vault_request_ids) == ["vault-1"] for one in ends)
    assert all(one.identity.subject == "kim" and one.identity.token_id == "t" for one in found)
    reasons = error_reason_pb2.ErrorReason
    assert [(one.outcome, one.reason) for one in ends] == [
        (audit_pb2.AUDIT_OUTCOME_SUCCEEDED, reasons.ERROR_REASON_UNSPECIFIED),
        (audit_pb2.AUDIT_OUTCOME_DENIED, reasons.ERROR_REASON_CREDENTIAL_DISABLED),
        (audit_pb2.AUDIT_OUTCOME_FAILED, reasons.ERROR_REASON_VAULT_SEALED),
        (audit_pb2.AUDIT_OUTCOME_FAILED, reasons.ERROR_REASON_INTERNAL),
        (audit_pb2.AUDIT_OUTCOME_FAILED, reasons.ERROR_REASON_UNSPECIFIED),
    ]
    assert b"CANARY" not in b"".join(lines(tmp_path))


async def test_nothing_is_done_without_an_intent_and_nothing_given_without_an_outcome(tmp_path: Path) -> None:
    files = FaultyFiles()
    sink = open_sink(tmp_path, files=files)
    recorder = Recorder(sink, last_request_ids=tuple)
    done: list[str] = []

    async def run(*, fail_outcome: bool) -> None:
        async with recorder.doing(SERVICE, audit_pb2.AUDIT_ACTION_LEASE, "r"):
            done.append("read")
            if fail_outcome:
                files.write_error = errno.ENOSPC
        done.append("given")

    files.write_error = errno.ENOSPC
    with pytest.raises(Fault):
        await run(fail_outcome=False)
    assert done == []
    files.write_error = None
    with pytest.raises(Fault) as caught:
        await run(fail_outcome=True)
    assert caught.value.reason is Reason.AUDIT_FAILED
    assert done == ["read"]
    files.write_error = None
    await sink.close()
