"""The three books of real parts, after calls that ended in every way: a router's ledger, the credential service's audit
log and the log of a real Vault, read by the command as an operator reads them."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from keyswitch.router.v1 import (
    completion_service_pb2,
    credential_test_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
)
from keyswitch.router.v1 import credential_test_service_pb2 as tests_pb
from keyswitch.vault.v1 import credential_service_pb2 as credentials
from keyswitch_cli.audit_reconciliation import reconcile
from keyswitch_cli.main import app
from typer.testing import CliRunner

from router_service.core.receipt import ReceiptState
from tests.fakes.scripted_upstream import Action, Pause, Reset, Send, chunk, head, respond
from tests.fakes.vault_server import VaultServer
from tests.security.promises import count, is_thorough, tried
from tests.service.router_answers import Json, answer, answer_events
from tests.service.router_harness import DEMO, Stack, follow, make_call, make_policy, running_stack
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.vault_settings import AppRoleFiles, VaultSettings

pytestmark = [pytest.mark.vault, pytest.mark.timeout(count(300, 1700))]

MAIN = f"{DEMO}/credentials/first"
SHARED = "deployment/credentials/first"
COUNTS = 3
REPORT_SECONDS = 5.0
MODELS = b'{"data":[{"id":"echo"}]}'
EVENTS = answer_events("Hello", " world")
REJECTED: list[Action] = respond(b'{"error":{"message":"bad key","code":"invalid_api_key"}}', status=401)
BEGUN: list[Action] = [Send(head()), *(Send(chunk(event)) for event in EVENTS[:3])]


@asynccontextmanager
async def running(server: VaultServer, home: Path) -> AsyncIterator[Stack]:
    files = AppRoleFiles(*server.write_credentials(home))
    store = HashiCorpStore(VaultSettings(server.url, files, ca_file=server.ca_file))

    def configure(made: Json) -> None:
        made["providers"]["closed"] = {**made["providers"]["first"], "base_url": "http://127.0.0.1:1/v1"}
        made["models"]["test/closed"] = {
            **made["models"]["test/echo"],
            "aliases": [],
            "endpoints": [{"provider": "closed", "upstream_model": "echo"}],
        }
        made["providers"]["claude"]["quirks"] = {"counts_tokens": True}

    async with running_stack(home, configuration=configure, vault_changes={"store": store}) as stack:
        yield stack


async def call_in_every_way(stack: Stack) -> int:
    """Served, tried twice, refused, rejected, broken, left, cut, never sent; gives how many calls."""
    first, member, calls = stack.first, stack.member, 0

    async def end(*scripts: list[Action], **fields: Any) -> Any:
        nonlocal calls
        calls += 1
        first.script(*scripts)
        return await member.stream(make_call(**fields))

    async def begin() -> Any:
        nonlocal calls
        calls += 1
        first.script([*BEGUN, Pause(asyncio.Event())])
        opened = member.open()
        await opened.read()
        return opened

    assert (await end(answer())).error is None
    assert (await end(answer(), model="test/unpriced")).error is None
    assert (await end(answer(), route_policy=make_policy(payers=["PAYER_CREDITS"]))).error is None
    assert len((await end([Reset()], answer("again"))).receipt.attempts) == 2
    for script in (respond(b"{}", status=400), REJECTED, [*BEGUN, Reset()]):
        assert (await end(script)).error is not None
    assert (await end(model="test/closed")).refused.reason == "UPSTREAM_UNAVAILABLE"
    (await begin()).cancel()
    await stack.wait_for_end(ReceiptState.CANCELLED)
    cut = await begin()
    await stack.revoke(MAIN, kill_in_flight=True)
    assert (await follow(cut)).refused.reason == "CREDENTIAL_REVOKED"
    enable = credentials.EnableCredentialRequest(name=MAIN)
    await stack.admin.call(stack.admin.credentials.EnableCredential, enable)
    await stack.rotate_key(MAIN, "sk-second-0123456789")
    assert (await end(answer())).error is None
    return calls


async def list_test_and_count(stack: Stack) -> None:
    """What uses a key and has no receipt."""
    tests: Any = credential_test_service_pb2_grpc.CredentialTestServiceStub(stack.channel)
    models: Any = model_service_pb2_grpc.ModelServiceStub(stack.channel)
    version = f"{MAIN}/versions/2"
    stack.first.choose = lambda request: respond(MODELS) if request.path.endswith("/models") else answer()
    test = tests_pb.TestCredentialRequest(credential_version=version, model="test/echo")
    await stack.member.call(tests.TestCredential, test)
    discover = model_service_pb2.DiscoverUpstreamModelsRequest(credential_version=version)
    await stack.caller(stack.admin.token).call(models.DiscoverUpstreamModels, discover)
    request = completion_service_pb2.CountTokensRequest(call=make_call(model="test/claude"))
    for _ in range(COUNTS):
        stack.second.script(respond(b'{"input_tokens": 42}'))
        await stack.member.call(stack.member.completions.CountTokens, request)


async def until_reported(stack: Stack) -> float:
    """When the credential service has recorded every use, of which the router tells it by itself."""
    began, uses = time.monotonic(), stack.router.credentials.uses
    while uses._waiting:
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def answer_unreported(stack: Stack) -> None:
    """A call whose use is never told, under a lease that another has used."""
    uses: Any = stack.router.credentials.uses
    assert (await stack.member.stream()).error is None
    await until_reported(stack)
    uses.add = lambda **_: None
    assert (await stack.member.stream()).error is None
    await stack.rest()


def read_books(stack: Stack, folder: Path, server: VaultServer) -> tuple[int, Json]:
    """What the command says, as the operator runs it: the last one of our records is older than what it asks for."""
    log = folder / "vault.log"
    log.write_text("\n".join(json.dumps(one) for one in server.audit_records()))
    router, vault = f"localhost:{stack.router.port}", f"localhost:{stack.vault.service.management_port}"
    ran = CliRunner().invoke(app, [
        "--home", str(stack.home), "--router", router, "--vault", vault,
        "audit", "reconcile", "--records", str(stack.home / "audit" / "vault-0"), "--vault-log", str(log),
        "--with-receipts", "--with-versions", "--grace", "0", "--json",
    ])  # fmt: skip
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
    return ran.exit_code, json.loads(ran.stdout)


async def test_the_books_of_real_parts_agree(own_vault_server: VaultServer, tmp_path: Path) -> None:
    rounds, calls = count(1, 20), 0
    async with running(own_vault_server, tmp_path) as stack:
        await stack.save_key(MAIN)
        await stack.save_key(SHARED)
        for provider in ("closed", "claude"):
            await stack.save_key(f"{DEMO}/credentials/{provider}", provider=provider)
        await stack.add_credits(10**12)
        for _ in range(rounds):
            calls += await call_in_every_way(stack)
        await list_test_and_count(stack)
        await stack.rest()
        seconds = await until_reported(stack)
        if is_thorough():
            assert seconds <= REPORT_SECONDS
        code, said = await asyncio.to_thread(read_books, stack, tmp_path, own_vault_server)
        assert (code, said["orphans"]) == (0, []), json.dumps(said, indent=1)
        assert said["matched"]["receipts' attempts"] == calls  # one was tried twice, one was never sent
        assert said["uses_by_purpose"] == {"completion": calls, "test": 1, "discovery": 1, "token_count": COUNTS}
        await answer_unreported(stack)
        code, said = await asyncio.to_thread(read_books, stack, tmp_path, own_vault_server)
        assert (code, [one["kind"] for one in said["orphans"]]) == (1, ["ledger_without_use"])
    tried(4, "uses that a router told by itself, until they were recorded", calls=calls, seconds_max=round(seconds, 2))
    tried(
        7,
        "calls of a real router that ended in every way: its ledger, our log and Vault's joined",
        calls=calls,
        orphans=0,
    )


def lease_and_receipt(**attempt: Any) -> Json:
    """A lease under which no use was reported, and the receipt of its call."""
    lease = {
        "name": "chains/vault-0/records/1",
        "action": "AUDIT_ACTION_LEASE",
        "outcome": "AUDIT_OUTCOME_SUCCEEDED",
        "resource": f"{MAIN}/versions/1",
        "recordTime": "2026-11-27T00:00:01Z",
        "leaseId": "l1",
    }
    receipt = {"responseId": "r1", "endTime": "2026-11-27T00:00:02.5Z"}
    return {"records": [lease], "receipts": [{**receipt, "attempts": [{"number": 1, "leaseId": "l1", **attempt}]}]}


@pytest.mark.parametrize(
    ("attempt", "settled_before", "kinds"),
    [
        ({}, "", []),  # it has no cost, as nothing was sent
        ({"cost": {}}, "", ["lease_without_use", "ledger_without_use"]),
        ({"cost": {}}, "2026-11-27T00:00:02Z", ["lease_without_use"]),  # the report may be on its way
        ({"cost": {}}, "2026-11-27T00:00:03Z", ["lease_without_use", "ledger_without_use"]),
    ],
)
def test_a_receipt_without_a_use_is_explained_where_nothing_was_sent(
    attempt: Json, settled_before: str, kinds: list[str]
) -> None:
    books = lease_and_receipt(**attempt)
    result = reconcile(books["records"], receipts=books["receipts"], settled_before=settled_before)
    assert [one.kind for one in result.orphans] == kinds
