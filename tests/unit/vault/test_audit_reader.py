"""Reading chains back."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from keyswitch.vault.v1 import audit_pb2

from vault_service.audit import reader
from vault_service.audit.reader import RecordFilter
from vault_service.audit.sink import Sink
from vault_service.core.names import Owner


@pytest.fixture
async def root(tmp_path: Path) -> AsyncIterator[Path]:
    """Two chains whose records alternate in time: vault-0 at 0, 2, 4 …, vault-1 at 1, 3, 5 …"""
    times = [1000.0]

    def clock() -> float:
        times[0] += 1
        return times[0]

    sinks = [Sink(tmp_path, f"vault-{i}", clock=clock, segment_bytes=700) for i in range(2)]
    for i in range(20):
        await sinks[i % 2].append(
            audit_pb2.AuditRecord(
                identity=audit_pb2.AuditIdentity(subject="kim" if i < 10 else "lee"),
                action=audit_pb2.AUDIT_ACTION_LEASE if i % 4 < 2 else audit_pb2.AUDIT_ACTION_USE,
                outcome=audit_pb2.AUDIT_OUTCOME_SUCCEEDED,
                resource="organizations/acme/credentials/a" if i % 5 else "organizations/acme2",
                request_id=f"r{i}",
                lease_id=f"l{i // 2}",
            )
        )
    yield tmp_path
    for sink in sinks:
        await sink.close()


def request_ids(
    root: Path, wanted: RecordFilter, limit: int = 100, chains: tuple[str, ...] = ("vault-0", "vault-1")
) -> list[int]:
    found = reader.list_records(root, chains, wanted, limit, lambda _: None)
    return [int(record.request_id[1:]) for record in found]


async def test_chains_are_merged_with_the_newest_first(root: Path) -> None:
    assert reader.chains(root) == ["vault-0", "vault-1"]
    assert request_ids(root, RecordFilter()) == list(range(19, -1, -1))
    assert request_ids(root, RecordFilter(), limit=3) == [19, 18, 17]
    assert request_ids(root, RecordFilter(), chains=("vault-1",)) == list(range(19, 0, -2))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (RecordFilter(subject="kim"), list(range(9, -1, -1))),
        (RecordFilter(resource="organizations/acme"), [i for i in range(19, -1, -1) if i % 5]),
        (RecordFilter(owner=Owner("acme2")), [15, 10, 5, 0]),
        (RecordFilter(owner=Owner("acm")), []),
        (RecordFilter(actions=frozenset({audit_pb2.AUDIT_ACTION_USE})), [i for i in range(19, -1, -1) if i % 4 > 1]),
        (RecordFilter(outcomes=frozenset({audit_pb2.AUDIT_OUTCOME_DENIED})), []),
        (RecordFilter(request_id="r7"), [7]),
        (RecordFilter(lease_id="l3"), [7, 6]),
        (RecordFilter(start_seconds=1016.0), [19, 18, 17, 16, 15]),
        (RecordFilter(end_seconds=1003.0), [1, 0]),
        (RecordFilter(start_seconds=1004.0, end_seconds=1006.0), [4, 3]),
    ],
)
async def test_filters(root: Path, wanted: RecordFilter, expected: list[int]) -> None:
    assert request_ids(root, wanted) == expected


async def test_pages_go_on_before_what_was_given(root: Path) -> None:
    found = reader.list_records(root, ["vault-0"], RecordFilter(), 100, {"vault-0": 4}.get)
    assert [record.name for record in found] == [f"chains/vault-0/records/{i}" for i in (3, 2, 1)]


async def test_one_record_is_found_in_its_segment(root: Path) -> None:
    for number in (1, 5, 10):
        record = reader.get_record(root, "vault-1", number)
        assert record is not None
        assert record.request_id == f"r{2 * number - 1}"
        assert len(record.hash) == 32
    assert reader.get_record(root, "vault-1", 11) is None
    assert reader.get_record(root, "nothing", 1) is None


async def test_a_line_that_is_being_written_is_not_seen(root: Path) -> None:
    newest = max((root / "vault-0").glob("*.jsonl"))
    with newest.open("ab") as file:
        file.write(b'{"name":"chains/vault-0/records/11"')
    assert request_ids(root, RecordFilter(), limit=1, chains=("vault-0",)) == [18]
    assert reader.get_record(root, "vault-0", 11) is None


def test_a_folder_without_chains(tmp_path: Path) -> None:
    assert reader.chains(tmp_path / "nothing") == []
