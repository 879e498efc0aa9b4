"""Floods of callers that prove nothing: bounded, recorded, told to wait; and callers beside them are served."""

import asyncio
from pathlib import Path
from typing import Any

from grpc import StatusCode
from keyswitch.vault.v1 import audit_pb2, audit_service_pb2, credential_service_pb2, lease_service_pb2

from tests.security.promises import count, tried
from tests.service.router_answers import answer
from tests.service.router_harness import DEMO, Caller, Refused, Stack, running_stack
from tests.service.vault_harness import Client, open_channel, running_vault
from tests.service.vault_harness import Refused as VaultRefused
from vault_service.core.refusal_limit import BURST

MAIN = f"{DEMO}/credentials/main"
WHY = (StatusCode.UNAUTHENTICATED, "CALLER_UNKNOWN")
WAIT = (StatusCode.RESOURCE_EXHAUSTED, "AUTHENTICATION_LIMITED")


async def end(call: Any) -> tuple[StatusCode, str]:
    """How a call ended; too many refusals say when to come back, and nothing else."""
    try:
        await call
    except VaultRefused as error:
        code, reason = error.code, error.reason.removeprefix("ERROR_REASON_")
        metadata, has_retry = error.metadata, error.has_retry
    except Refused as error:
        code, reason = error.code, error.reason
        metadata, has_retry = error.metadata, error.retry_seconds is not None
    else:
        return StatusCode.OK, ""
    is_limited = reason == "AUTHENTICATION_LIMITED"
    assert has_retry == is_limited
    assert not (is_limited and metadata)
    return code, reason


async def authentications(client: Client) -> list[audit_pb2.AuditRecord]:
    """What the audit log has of strangers."""
    request = audit_service_pb2.ListAuditRecordsRequest(parent="chains/-", page_size=1000)
    records = (await client.call(client.audit.ListAuditRecords, request)).audit_records
    return [one for one in records if one.action == audit_pb2.AUDIT_ACTION_AUTHENTICATE]


async def test_a_flood_at_the_router_is_told_to_wait_and_shuts_nobody_out(tmp_path: Path) -> None:
    guesses, now = count(200, 2_000), [0.0]
    async with running_stack(tmp_path) as stack:
        freeze(stack, now)
        await stack.save_key(MAIN)
        stack.first.script(*[answer()] * 4)
        ends = [await end(stack.caller(f"x.y.{number}").complete()) for number in range(guesses)]
        assert ends == [WHY] * int(BURST) + [WAIT] * (guesses - int(BURST))
        assert (await stack.member.stream()).text == "Hello world", "whose token was verified before"
        late = await stack.issue("MEMBER")
        assert await end(late.complete()) == (StatusCode.OK, ""), "and whose was not, from the very same address"
        now[0] += 2.0
        assert [await end(Caller(stack.channel, "x.y.z").complete()) for _ in range(3)] == [WHY, WHY, WAIT]
        await stack.router.credentials.refusals.flush()
        records = [one for one in await authentications(stack.vault.operator) if one.refused_count]
        assert sum(one.refused_count for one in records) == guesses + 3
        assert {one.identity.subject for one in records} == {"spiffe://keyswitch/router"}
        assert all("CompletionService/Complete, token_" in one.note for one in records)
        assert all("from 1 addresses" in one.note for one in records)
    tried(9, "guesses at the router's door, counted in the audit log", guesses=guesses + 3, records=len(records))


def freeze(stack: Stack, now: list[float]) -> None:
    """The clock of the router's limit is the test's."""
    limit = stack.router.refusal_limit
    limit._monotonic = lambda: now[0]
    limit._all.time = 0.0


async def test_a_flood_at_the_credential_service(tmp_path: Path) -> None:
    guesses, now = count(200, 2_000), [0.0]
    async with running_vault(tmp_path, monotonic=lambda: now[0]) as vault:
        request = credential_service_pb2.ListCredentialsRequest(parent=DEMO)
        ends = []
        for number in range(guesses):
            client = vault.operator.with_token(f"x.y.{number}")
            ends.append(await end(client.call(client.credentials.ListCredentials, request)))
        assert ends == [WHY] * int(BURST) + [WAIT] * (guesses - int(BURST))
        late = await vault.issue(DEMO, "ADMIN")
        assert await end(late.call(late.credentials.ListCredentials, request)) == (StatusCode.OK, "")
        now[0] += 10.0
        await vault.service._parts.refusals.flush()
        records = await authentications(vault.operator)
        assert sum(max(1, one.refused_count) for one in records) == guesses
    tried(9, "guesses at the credential service's door, counted in the audit log", guesses=guesses)


async def test_a_flood_by_a_certificate_is_its_own(tmp_path: Path) -> None:
    """On the lease listener the identity counts: a wrong one does not make a router behind the same address wait."""
    async with running_vault(tmp_path) as vault, open_channel(tmp_path, vault.service.lease_port, "vault") as channel:
        wrong = Client(channel)
        request = lease_service_pb2.ListLeasableRequest(parent=DEMO)
        ends = await asyncio.gather(*(end(wrong.call(wrong.leases.ListLeasable, request)) for _ in range(60)))
        assert {code for code, _ in ends} == {StatusCode.PERMISSION_DENIED, StatusCode.RESOURCE_EXHAUSTED}
        admin = await vault.issue(DEMO, "ADMIN")
        asked = lease_service_pb2.ListLeasableRequest(parent=DEMO, caller_proof=admin.token)
        assert await end(vault.lease.call(vault.lease.leases.ListLeasable, asked)) == (StatusCode.OK, "")


async def test_a_report_of_refusals_is_checked(tmp_path: Path) -> None:
    good = {"method": "CompletionService/Complete", "cause": "token_invalid", "count": 3, "address_count": 1}
    bad = ({"method": "x y"}, {"cause": "sk-1234"}, {"count": 0}, {"address_count": 0})
    async with running_vault(tmp_path) as vault:

        def report(**changes: Any) -> Any:
            refusals = [lease_service_pb2.CallerRefusals(**{**good, **changes})]
            request = lease_service_pb2.ReportRefusalsRequest(refusals=refusals)
            return vault.lease.call(vault.lease.leases.ReportRefusals, request)

        await report()
        for changes in bad:
            assert await end(report(**changes)) == (StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        empty = lease_service_pb2.ReportRefusalsRequest()
        assert (await end(vault.lease.call(vault.lease.leases.ReportRefusals, empty)))[1] == "INVALID_REQUEST"
        assert [one.refused_count for one in await authentications(vault.operator) if one.refused_count] == [3]
