"""The audit log over gRPC: tail, export, checkpoints, and what a changed chain does to the service."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf import json_format
from keyswitch.vault.v1 import audit_pb2
from keyswitch.vault.v1 import audit_service_pb2 as pb
from keyswitch.vault.v1 import token_service_pb2 as tokens_pb
from keyswitch_cli.audit_verification import verify

from tests.service.vault_harness import ACME, ADA, MAIN, Client, Vault, read_error, refused, running_vault
from vault_service.config import AuditConfig
from vault_service.prerequisites import CannotStart
from vault_service.store.memory import MemoryStore

CHAIN = "chains/vault-0"
HARBOR = "organizations/harbor"


@pytest.fixture
async def vault(tmp_path: Path) -> AsyncIterator[Vault]:
    async with running_vault(tmp_path, audit=AuditConfig(segment_bytes=4_000)) as vault:
        yield vault


async def keys_of(client: Client) -> dict[str, Ed25519PublicKey]:
    answer = await client.call(client.tokens.GetSigningKeys, tokens_pb.GetSigningKeysRequest())
    return {
        key.key_id: Ed25519PublicKey.from_public_bytes(key.public_key)
        for key in answer.signing_keys
        if key.purpose == tokens_pb.SIGNING_KEY_PURPOSE_AUDIT_CHECKPOINT
    }


def stream(client: Client, method: Any, request: Any) -> Any:
    return method(request, timeout=20, metadata=(("authorization", f"Bearer {client.token}"),))


async def export(client: Client, path: Path, **fields: int) -> int:
    """Writes an export as the command does; gives the number of records."""
    records = 0
    with path.open("wb") as file:
        async for answer in stream(
            client, client.audit.ExportAuditRecords, pb.ExportAuditRecordsRequest(parent=CHAIN, **fields)
        ):
            if answer.WhichOneof("content") == "lines":
                records += answer.lines.count(b"\n")
                file.write(answer.lines)
            else:
                file.write(spell(answer.checkpoint))
    return records


def spell(checkpoint: Any) -> bytes:
    return json.dumps(json_format.MessageToDict(checkpoint), separators=(",", ":")).encode() + b"\n"


class Listener:
    """A tail, message by message."""

    def __init__(self, client: Client, **fields: Any) -> None:
        request = pb.TailAuditRecordsRequest(parent=fields.pop("parent", CHAIN), **fields)
        self._call = stream(client, client.audit.TailAuditRecords, request)
        self.token = ""

    async def read(self) -> list[Any]:
        async with asyncio.timeout(60):
            message = await self._call.read()
        assert message is not grpc.aio.EOF
        self.token = message.resume_token
        return list(message.audit_records)

    async def read_records(self, number: int) -> list[Any]:
        found: list[Any] = []
        while len(found) < number:
            found += await self.read()
        return found

    def cancel(self) -> None:
        self._call.cancel()


async def act(vault: Vault, admin: Client, ada: Client, times: int = 3) -> None:
    for _ in range(times):
        await vault.take(f"{MAIN}/versions/active", ada.token)


async def furnish(vault: Vault) -> tuple[Client, Client]:
    admin = await vault.issue(ACME, "ADMIN")
    ada = await vault.issue(ACME, "MEMBER", user=ADA)
    await vault.ready(admin)
    return admin, ada


async def test_an_export_verifies_with_the_public_key_alone(vault: Vault, tmp_path: Path) -> None:
    admin, ada = await furnish(vault)
    await act(vault, admin, ada, 10)
    file = tmp_path / "export.jsonl"
    records = await export(vault.operator, file)
    keys = await keys_of(vault.operator)
    verdict = verify(file, keys)
    assert verdict.findings == []
    assert (verdict.first_record, verdict.last_record, verdict.records) == (1, records, records)
    assert verdict.covered_record == records
    changed = file.read_bytes().replace(b"response-1", b"response-2", 1)
    file.write_bytes(changed)
    assert verify(file, keys).findings


async def test_a_part_of_a_chain_is_exported(vault: Vault, tmp_path: Path) -> None:
    admin, ada = await furnish(vault)
    await act(vault, admin, ada)
    file = tmp_path / "export.jsonl"
    assert await export(vault.operator, file, first_record=3, last_record=5) == 3
    names = [json.loads(line)["name"] for line in file.read_bytes().splitlines() if b'"name"' in line]
    assert names == [f"{CHAIN}/records/{number}" for number in (3, 4, 5)]


async def test_only_auditors_of_the_deployment_export(vault: Vault, tmp_path: Path) -> None:
    deployment_auditor = await vault.issue("deployment", "AUDITOR")
    assert await export(deployment_auditor, tmp_path / "export.jsonl") > 0
    for client in (await vault.issue(ACME, "AUDITOR"), await vault.issue(ACME, "ADMIN")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await export(client, tmp_path / "other.jsonl")
        assert read_error(caught.value).reason == "ERROR_REASON_CALLER_NOT_ALLOWED"
    member = await vault.issue(ACME, "MEMBER", user=ADA)
    for method, request in (
        (member.audit.TailAuditRecords, pb.TailAuditRecordsRequest(parent=CHAIN)),
        (member.audit.GetAuditCheckpoint, pb.GetAuditCheckpointRequest(parent=CHAIN)),
        (member.audit.ListAuditCheckpoints, pb.ListAuditCheckpointsRequest(parent=CHAIN)),
    ):
        assert (await refused(member.call(method, request))).reason == "ERROR_REASON_CALLER_NOT_ALLOWED"


async def test_a_tail_gives_each_record_once_and_goes_on_without_a_gap(vault: Vault) -> None:
    admin, ada = await furnish(vault)
    tail = Listener(vault.operator, filter=pb.AuditFilter(actions=[audit_pb2.AUDIT_ACTION_LEASE]))
    await tail.read()
    await act(vault, admin, ada, 3)
    first = await tail.read_records(6)
    tail.cancel()
    await act(vault, admin, ada, 600)  # meanwhile nobody listens
    again = Listener(
        vault.operator, filter=pb.AuditFilter(actions=[audit_pb2.AUDIT_ACTION_LEASE]), resume_token=tail.token
    )
    second = await again.read_records(1200)
    again.cancel()
    names = [record.name for record in first + second]
    assert len(names) == len(set(names)) == 1206
    numbers = [int(name.rpartition("/")[2]) for name in names]
    assert numbers == sorted(numbers)


async def test_a_tail_of_an_organization_hears_only_itself(vault: Vault) -> None:
    await furnish(vault)
    auditor = await vault.issue(ACME, "AUDITOR")
    tail = Listener(auditor, parent="chains/-")
    await tail.read()
    harbor = await vault.issue(HARBOR, "ADMIN")
    await vault.create(harbor, f"{HARBOR}/credentials/main")
    admin = await vault.issue(ACME, "ADMIN")
    await vault.create(admin, f"{ACME}/credentials/second")
    heard = await tail.read_records(4)  # two of the token, two of the credential
    tail.cancel()
    assert {record.resource.split("/")[1] for record in heard} == {"acme"}


async def test_listeners_are_let_go_when_the_service_ends(tmp_path: Path) -> None:
    async with running_vault(tmp_path) as vault:
        tail = Listener(vault.operator)
        await tail.read()
        async with asyncio.timeout(60):
            await vault.service.stop(grace_seconds=600)


async def test_checkpoints_are_listed_and_rotation_keeps_old_ones_verifiable(tmp_path: Path) -> None:
    store = MemoryStore()
    async with running_vault(tmp_path, store=store) as vault:
        await furnish(vault)
    async with running_vault(tmp_path, store=store, audit=AuditConfig(rotate_key=True)) as vault:
        await export(vault.operator, tmp_path / "export.jsonl")
        keys = await keys_of(vault.operator)
        listing = pb.ListAuditCheckpointsRequest(parent=CHAIN, page_size=1)
        page = await vault.operator.call(vault.operator.audit.ListAuditCheckpoints, listing)
        listing.page_token = page.next_page_token
        older = await vault.operator.call(vault.operator.audit.ListAuditCheckpoints, listing)
        newest = await vault.operator.call(
            vault.operator.audit.GetAuditCheckpoint, pb.GetAuditCheckpointRequest(parent=CHAIN)
        )
    assert newest.checkpoint == page.checkpoints[0]
    assert older.checkpoints[0].last_record < newest.checkpoint.last_record
    assert older.checkpoints[0].key_id != newest.checkpoint.key_id
    assert len(keys) == 2
    assert verify(tmp_path / "audit" / "vault-0", keys).findings == []


def newest_segment(home: Path) -> Path:
    return max((home / "audit" / "vault-0").glob("[0-9]*.jsonl"))


async def test_a_stopped_service_leaves_a_folder_that_verifies(tmp_path: Path) -> None:
    async with running_vault(tmp_path, audit=AuditConfig(segment_bytes=2_000)) as vault:
        admin, ada = await furnish(vault)
        await act(vault, admin, ada)
        keys = await keys_of(vault.operator)
    verdict = verify(tmp_path / "audit" / "vault-0", keys)
    assert verdict.findings == []
    assert verdict.covered_record == verdict.last_record
    assert len(list((tmp_path / "audit" / "vault-0").glob("[0-9]*.jsonl"))) > 3


@pytest.mark.parametrize("is_told_locally", [True, False])
async def test_a_chain_that_was_cut_is_not_written_any_further(tmp_path: Path, is_told_locally: bool) -> None:
    store = MemoryStore()
    async with running_vault(tmp_path, store=store) as vault:
        await furnish(vault)
    path = newest_segment(tmp_path)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    if not is_told_locally:
        (tmp_path / "audit" / "vault-0" / "checkpoints.jsonl").unlink()
    with pytest.raises(CannotStart, match="it was cut") as caught:
        async with running_vault(tmp_path, store=store):
            pass
    assert ("in the store" in str(caught.value)) is not is_told_locally


async def test_a_chain_whose_last_record_was_changed_is_not_written_any_further(tmp_path: Path) -> None:
    store = MemoryStore()
    async with running_vault(tmp_path, store=store) as vault:
        await furnish(vault)
    path = newest_segment(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"AUDIT_ACTION_STOP", b"AUDIT_ACTION_USE", 1))
    with pytest.raises(CannotStart, match="was changed"):
        async with running_vault(tmp_path, store=store):
            pass


async def test_old_segments_go_and_the_rest_still_verifies(tmp_path: Path) -> None:
    now = [time.time()]
    store = MemoryStore()
    settings = AuditConfig(segment_bytes=2_000, retention_seconds=86_400.0)
    async with running_vault(tmp_path, store=store, audit=settings, clock=lambda: now[0]) as vault:
        admin, ada = await furnish(vault)
        await act(vault, admin, ada)
    now[0] += 90_000
    folder = tmp_path / "audit" / "vault-0"
    before = sorted(path.name for path in folder.glob("[0-9]*.jsonl"))
    async with running_vault(tmp_path, store=store, audit=settings, clock=lambda: now[0]) as vault:
        keys = await keys_of(vault.operator)
        async with asyncio.timeout(60):
            while (folder / before[0]).exists():
                await asyncio.sleep(0.01)
    verdict = verify(folder, keys)
    assert verdict.findings == []
    assert verdict.first_record > 1
    # The same gap without the record that announces it is a finding.
    first, second = sorted(folder.glob("[0-9]*.jsonl"))[:2]
    first.unlink()
    assert any("are missing" in finding.what for finding in verify(folder, keys).findings)
    assert second.exists()


async def test_each_instance_names_its_chain_once(tmp_path: Path) -> None:
    async with running_vault(tmp_path, chain="") as vault:
        (first,) = {json.loads(line)["name"].split("/")[1] for line in vault.audit_bytes().splitlines()}
    async with running_vault(tmp_path, chain="", store=MemoryStore()) as vault:
        (second,) = {json.loads(line)["name"].split("/")[1] for line in vault.audit_bytes().splitlines()}
    assert first == second
    assert first.startswith("vault-")
    assert base64.b16decode(first.removeprefix("vault-").upper())
