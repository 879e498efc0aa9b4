"""Many leases in one call: each as it would be alone, with its own records and refusals; none waits for another."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from keyswitch.vault.v1 import credential_service_pb2 as credentials_pb
from keyswitch.vault.v1 import lease_pb2
from keyswitch.vault.v1 import lease_service_pb2 as pb

from tests.service.vault_harness import (
    ACME,
    ADA,
    KEY,
    TIMEOUT_SECONDS,
    Client,
    Refused,
    Router,
    Vault,
    read_status,
    refused,
    running_vault,
)
from vault_service.store.memory import MemoryStore
from vault_service.transport.lease_servicer import MAX_BATCH

Answers = dict[int, pb.LeaseCredentialResponse | Refused]


class SlowStore(MemoryStore):
    """Holds back, or breaks, what is opened of one credential."""

    def __init__(self) -> None:
        super().__init__()
        self.held = ""
        self.broken = ""
        self.count = 0
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def unseal(self, tenant: str, ciphertext: bytes, *, context: str, request_id: str = "") -> bytes:
        if self.broken and self.broken in context:
            raise RuntimeError(f"boom {KEY}")
        if self.held and self.held in context:
            self.count += 1
            self.reached.set()
            await self.opened.wait()
        return await super().unseal(tenant, ciphertext, context=context, request_id=request_id)


@pytest.fixture
async def store() -> SlowStore:
    return SlowStore()


@pytest.fixture
async def vault(tmp_path: Path, store: SlowStore) -> AsyncIterator[Vault]:
    async with running_vault(tmp_path, store=store) as running:
        yield running


async def furnish(vault: Vault, count: int) -> tuple[Client, list[str], str]:
    """Credentials with a key each; gives the admin, their active versions and a member's token."""
    admin = await vault.issue(ACME, "ADMIN")
    names = [f"{ACME}/credentials/c-{number}" for number in range(count)]
    for number, name in enumerate(names):
        await vault.ready(admin, name, f"{KEY}-{number}")
    return admin, [f"{name}/versions/active" for name in names], (await vault.issue(ACME, "MEMBER", user=ADA)).token


def ask(vault: Vault, requests: Sequence[pb.LeaseCredentialRequest]) -> Any:
    """The running call."""
    return vault.lease.leases.BatchLeaseCredentials(vault.router.batch(requests), timeout=TIMEOUT_SECONDS)


async def collect(call: Any) -> Answers:
    """What came, by index; each comes once."""
    found: Answers = {}
    async for message in call:
        assert message.results
        for result in message.results:
            assert result.index not in found
            found[result.index] = (
                result.lease
                if result.WhichOneof("result") == "lease"
                else read_status(status_pb2.Status.FromString(result.status))
            )
    return found


async def test_each_lease_is_what_it_would_be_alone(vault: Vault) -> None:
    _, names, token = await furnish(vault, MAX_BATCH)
    before = len(vault.audit_bytes().splitlines())
    requests = [vault.router.request(name, token, request_id=f"r-{i}") for i, name in enumerate(names)]
    found = await collect(ask(vault, requests))
    assert sorted(found) == list(range(MAX_BATCH))
    for index, lease in found.items():
        assert isinstance(lease, pb.LeaseCredentialResponse)
        assert vault.router.open(lease).api_key == f"{KEY}-{index}"
        assert lease.credential_version == names[index].replace("active", "1")
    records = [json.loads(line) for line in vault.audit_bytes().splitlines()[before:]]
    assert len({one["callId"] for one in records}) == MAX_BATCH
    for index, lease in found.items():
        assert isinstance(lease, pb.LeaseCredentialResponse)
        intent, outcome = (one for one in records if one["requestId"] == f"r-{index}")
        assert intent["outcome"] == "AUDIT_OUTCOME_INTENDED"
        assert outcome["outcome"] == "AUDIT_OUTCOME_SUCCEEDED"
        assert outcome["name"] == lease.audit_record
        assert outcome["intentRecord"] == intent["name"]
        assert {intent["leaseId"], outcome["leaseId"]} == {lease.lease_id}
        assert intent["callId"] == outcome["callId"]


async def test_each_refusal_is_what_it_would_be_alone(vault: Vault, store: SlowStore) -> None:
    _, names, token = await furnish(vault, 3)
    store.broken = "c-2"
    changes: dict[str, Any] = {
        "proof": {"caller_proof": "x.y.z"},
        "origin": {"origin": "https://elsewhere.example"},
        "unknown": {"name": f"{ACME}/credentials/none/versions/active"},
        "malformed": {"name": "nothing"},
        "id": {"request_id": "not an id"},
        "purpose": {"purpose": lease_pb2.LEASE_PURPOSE_UNSPECIFIED},
        "broken": {"name": names[2]},
        "good": {},
    }
    requests = [
        vault.router.request(**{"name": names[0], "proof": token} | {k: v for k, v in one.items() if k == "name"},
                             **{k: v for k, v in one.items() if k != "name"})
        for one in changes.values()
    ]  # fmt: skip
    together = await collect(ask(vault, requests))
    assert sorted(together) == list(range(len(requests)))
    for index, request in enumerate(requests):
        if isinstance(together[index], pb.LeaseCredentialResponse):
            assert index == len(requests) - 1
            continue
        alone = await refused(vault.lease.call(vault.lease.leases.LeaseCredential, request))
        answer = together[index]
        assert isinstance(answer, Refused)
        if alone.reason == "ERROR_REASON_INTERNAL":  # each has an incident of its own
            assert KEY not in repr(answer)
            assert answer.metadata.keys() == alone.metadata.keys() == {"incidentId"}
            assert answer.reason == alone.reason
        else:
            assert answer == alone
    assert KEY.encode() not in vault.audit_bytes()


async def test_a_call_that_is_wrong_itself_is_refused_as_a_whole(vault: Vault) -> None:
    _, names, token = await furnish(vault, 1)
    good = vault.router.request(names[0], token)
    method = vault.lease.leases.BatchLeaseCredentials
    for requests in ([], [good] * (MAX_BATCH + 1)):
        wrong = await refused(vault.lease.call(method, vault.router.batch(requests)))
        assert (wrong.reason, wrong.fields) == ("ERROR_REASON_INVALID_REQUEST", ("requests",))
    twice = vault.router.batch([good])
    twice.requests[0].CopyFrom(good)  # names a recipient of its own
    wrong = await refused(vault.lease.call(method, twice))
    assert wrong.fields == ("requests[0].recipient_public_key",)
    endless = await refused(vault.lease.call(method, vault.router.batch([good]), timeout=None))
    assert endless.reason == "ERROR_REASON_DEADLINE_REQUIRED"
    chain = vault.router.batch([good])
    chain.recipient_certificate_chain.append(b"no certificate")
    assert (await refused(vault.lease.call(method, chain))).metadata == {"cause": "chain"}


async def test_nothing_is_sealed_to_a_key_that_nobody_vouches_for(vault: Vault) -> None:
    _, names, token = await furnish(vault, 2)
    batch = vault.router.batch([vault.router.request(name, token) for name in names])
    batch.recipient_public_key = Router(vault.home).public_key
    found = await collect(vault.lease.leases.BatchLeaseCredentials(batch, timeout=TIMEOUT_SECONDS))
    assert len(found) == 2
    for answer in found.values():
        assert isinstance(answer, Refused)
        assert (answer.reason, answer.metadata) == ("ERROR_REASON_RECIPIENT_KEY_REJECTED", {"cause": "signature"})


async def test_a_slow_lease_holds_up_no_other(vault: Vault, store: SlowStore) -> None:
    _, names, token = await furnish(vault, 3)
    store.held = "c-1"
    call = ask(vault, [vault.router.request(name, token) for name in names])
    early: set[int] = set()
    while early != {0, 2}:
        message = await call.read()
        early |= {result.index for result in message.results}
    store.opened.set()
    late = await call.read()
    assert [result.index for result in late.results] == [1]
    assert vault.router.open(late.results[0].lease).api_key == f"{KEY}-1"
    assert await call.read() is grpc.aio.EOF


async def test_a_revocation_wins_over_what_is_being_made(vault: Vault, store: SlowStore) -> None:
    admin, names, token = await furnish(vault, 2)
    store.held = "c-1"
    asked = asyncio.create_task(collect(ask(vault, [vault.router.request(name, token) for name in names])))
    await store.reached.wait()
    disable = credentials_pb.DisableCredentialRequest(name=f"{ACME}/credentials/c-1")
    await admin.call(admin.credentials.DisableCredential, disable)
    store.opened.set()
    found = await asked
    assert isinstance(found[0], pb.LeaseCredentialResponse)
    answer = found[1]
    assert isinstance(answer, Refused)
    assert answer.reason == "ERROR_REASON_CREDENTIAL_DISABLED"


async def test_who_leaves_leaves_outcomes_and_no_tasks(vault: Vault, store: SlowStore) -> None:
    _, names, token = await furnish(vault, 4)
    store.held = "c-"
    before = len(vault.audit_bytes().splitlines())
    call = ask(vault, [vault.router.request(name, token) for name in names])
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while store.count < len(names):  # who leaves before has an intent alone, as nothing was done
            await asyncio.sleep(0)
    call.cancel()

    def outcomes() -> list[str]:
        records = [json.loads(line) for line in vault.audit_bytes().splitlines()[before:]]
        return [one["outcome"] for one in records if one["outcome"] != "AUDIT_OUTCOME_INTENDED"]

    def running() -> list[Any]:
        return [task for task in asyncio.all_tasks() if "_lease_of_batch" in repr(task.get_coro())]

    async with asyncio.timeout(TIMEOUT_SECONDS):
        while len(outcomes()) < len(names) or running():
            await asyncio.sleep(0)
    assert outcomes() == ["AUDIT_OUTCOME_FAILED"] * len(names)
