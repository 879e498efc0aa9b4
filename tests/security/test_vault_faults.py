"""Vault out of reach in every way, through the whole of both services; docs/vault-faults.md is what this found."""

import asyncio
import json
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from keyswitch.vault.v1 import credential_service_pb2 as credentials_pb

from tests.fakes.fault_proxy import FaultProxy, Way, WayFault
from tests.fakes.openbao_server import openbao_binary, running_openbao
from tests.fakes.scripted_upstream import Action, Received
from tests.fakes.vault_front import ANSWERS, DENIED, RATE_LIMITED, SEALED, VaultFront, running_front
from tests.fakes.vault_server import VaultServer, running_uninitialised
from tests.security.promises import is_thorough, tried
from tests.service.router_answers import answer
from tests.service.router_harness import ADA, DEMO, Stack, running_stack
from tests.service.vault_harness import Refused, Router
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.vault_settings import KV_MOUNT, TRANSIT_MOUNT, AppRoleFiles, VaultSettings

__all__ = ["openbao_binary"]

pytestmark = [pytest.mark.vault, pytest.mark.timeout(1200)]

DOCUMENT = Path(__file__).parents[2] / "docs" / "vault-faults.md"
MAIN = f"{DEMO}/credentials/first"
READ_SECONDS, CHANGE_SECONDS, CALL_SECONDS = (3.0, 12.0, 10.0) if is_thorough() else (12.0, 20.0, 20.0)
LATE_SECONDS = 0.05
GRACE_SECONDS = 2.2
COLUMNS = ("lease", "read", "change", "a call with its lease in hand", "a call that needs a lease")
SERVED = "served"
QUOTA, TINY = "sys/quotas/rate-limit/tiny", {"rate": 0.01, "path": "keyswitch/"}
NETWORK = [
    WayFault.REFUSED,
    WayFault.RESET,
    WayFault.CUT,
    WayFault.BLACKHOLE,
    WayFault.DEAF,
    WayFault.MUTE,
    WayFault.DRIP,
]
QUICK = {WayFault.RESET.value, WayFault.DRIP.value, "sealed", "rate limited", "never initialised"}


@dataclass(frozen=True)
class Site:
    """Router, credential service, a fake that passes on, a way that can be made bad, and a real server at its end."""

    stack: Stack
    server: VaultServer
    way: Way
    front: VaultFront

    async def impair(self, row: str) -> None:
        for fault in NETWORK:
            if fault.value == row:
                await self.way.impair(fault)
                return
        if row == "sealed":
            await asyncio.to_thread(self.server.require, "PUT", "sys/seal")
        elif row == "rate limited":
            await asyncio.to_thread(self._limit_rates)
        else:
            self.front.answer = ANSWERS[row]
            self.front.is_initialised = row != "never initialised"

    def _limit_rates(self) -> None:
        """Of documents and of keys: a lease whose documents are remembered needs only the latter, and only one request.

        A new quota lets its first request pass.
        """
        token = self.server.login()
        for mount, path in ((KV_MOUNT, "data/changes/log"), (TRANSIT_MOUNT, "keys/none")):
            self.server.require("POST", f"{QUOTA}-{mount}", {**TINY, "path": f"{mount}/"})
            while self.server.ask("GET", f"{mount}/{path}", token=token).status_code != 429:
                pass

    async def heal(self, row: str) -> None:
        self.front.answer, self.front.is_initialised = None, True
        await self.way.heal()
        if row == "sealed":
            key = re.search(r"Unseal Key: (\S+)", (self.server.folder / "server.log").read_text())
            assert key is not None
            await asyncio.to_thread(self.server.ask, "PUT", "sys/unseal", {"key": key[1]})
        if row == "rate limited":
            for mount in (KV_MOUNT, TRANSIT_MOUNT):
                await asyncio.to_thread(self.server.require, "DELETE", f"{QUOTA}-{mount}")
        async with asyncio.timeout(60):
            while not self.stack.vault.service.is_serving or not self.stack.router.credentials.connected.is_set():
                await asyncio.sleep(0.02)


@asynccontextmanager
async def running_site(server: VaultServer, proxy: FaultProxy, home: Path) -> AsyncIterator[Site]:
    async with AsyncExitStack() as exits:
        way = await asyncio.to_thread(proxy.way_to, int(server.url.rpartition(":")[2]))
        front = await exits.enter_async_context(running_front(way.port))
        files = AppRoleFiles(*server.write_credentials(home))
        store = HashiCorpStore(VaultSettings(f"http://127.0.0.1:{front.port}", files))
        stack = await exits.enter_async_context(running_stack(home, vault_changes={"store": store}))
        await stack.save_key(MAIN)
        stack.first.choose = always_answers
        yield Site(stack, server, way, front)


def always_answers(_: Received) -> list[Action]:
    return answer()


async def seen_by(call: Callable[[], Awaitable[Any]], deadline_seconds: float, row: str) -> str:
    """What the caller sees, which it must see by its deadline."""
    began = time.monotonic()
    try:
        await call()
        seen = SERVED
    except Refused as refusal:
        seen = f"`{refusal.reason.removeprefix('ERROR_REASON_')}`"
    took = time.monotonic() - began
    if is_thorough():
        assert took <= deadline_seconds + LATE_SECONDS, (row, took)
    return seen


async def complete(stack: Stack) -> str:
    began = time.monotonic()
    found = await stack.member.stream(timeout=CALL_SECONDS)
    if is_thorough():
        assert time.monotonic() - began <= CALL_SECONDS + LATE_SECONDS
    if found.error is None:
        return SERVED
    reason = found.error.metadata.get("vaultReason", found.error.metadata.get("cause", ""))
    return f"`{found.error.reason}` ({reason.removeprefix('ERROR_REASON_')})"


async def try_row(site: Site, row: str) -> dict[str, str]:
    stack, vault = site.stack, site.stack.vault
    assert await complete(stack) == SERVED
    origin = stack.router.configuration.current.providers["first"].base_url.origin
    lease = Router(stack.home).request(f"{MAIN}/versions/active", stack.member.token, principal=ADA, origin=origin)
    read = credentials_pb.GetCredentialRequest(name=MAIN)
    change = credentials_pb.EnableCredentialRequest(name=MAIN)
    admin = stack.admin
    await site.impair(row)
    began = time.monotonic()
    cells = await asyncio.gather(
        seen_by(
            lambda: vault.lease.call(vault.lease.leases.LeaseCredential, lease, timeout=READ_SECONDS), READ_SECONDS, row
        ),
        seen_by(lambda: admin.call(admin.credentials.GetCredential, read, timeout=READ_SECONDS), READ_SECONDS, row),
        seen_by(
            lambda: admin.call(admin.credentials.EnableCredential, change, timeout=CHANGE_SECONDS), CHANGE_SECONDS, row
        ),
        complete(stack),
    )
    # Leases in hand outlive the grace, and end when they end.
    async with asyncio.timeout(30):
        while stack.router.credentials._blind_in_a_row == 0 or time.monotonic() - began < GRACE_SECONDS:
            await asyncio.sleep(0.02)
    assert await complete(stack) == SERVED, row
    cold = await needs_a_lease(stack)
    await site.heal(row)
    assert await complete(stack) == SERVED, row
    return dict(zip(COLUMNS, [*cells, cold], strict=True))


async def needs_a_lease(stack: Stack) -> str:
    """A call after the lease's end."""
    leases: Any = stack.router.credentials.leases
    clock = leases._clock
    leases._clock = lambda: clock() + 299.0
    try:
        return await complete(stack)
    finally:
        leases._clock = clock


async def test_every_fault_of_vault(own_vault_server: VaultServer, fault_proxy: FaultProxy, tmp_path: Path) -> None:
    rows = [fault.value for fault in NETWORK] + list(ANSWERS)
    if not is_thorough():
        rows = [row for row in rows if row in QUICK]
    table: dict[str, dict[str, str]] = {}
    async with running_site(own_vault_server, fault_proxy, tmp_path) as site:
        await try_row(site, rows[0])
        before = held()
        for row in rows:
            table[row] = await try_row(site, row)
        await let_go(before)
    for row, cells in table.items():
        assert cells[COLUMNS[3]] == SERVED, row
        assert all(cell != SERVED for name, cell in cells.items() if name != COLUMNS[3]), row
    check_document(table)
    tried(13, "Vault out of order, five kinds of calls each", faults=len(rows), calls=6 * len(rows), leaked=0)


def held() -> tuple[int, int, int]:
    """Tasks, threads and open files."""
    return len(asyncio.all_tasks()), threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


async def let_go(before: tuple[int, int, int]) -> None:
    """Returns when nothing is held that was not held before, but for what comes and goes by itself: heartbeats and
    watches of both services, and the pool of threads, which keeps those that it once had. 36 calls were made."""
    try:
        async with asyncio.timeout(30):
            while held()[0] > before[0] + 4 or held()[1] > before[1] + 16 or held()[2] > before[2] + 16:
                await asyncio.sleep(0.05)
    except TimeoutError:
        left = sorted(str(task.get_coro()) for task in asyncio.all_tasks())
        pytest.fail(f"held before: {before}, now: {held()}; the tasks are {left}")


def check_document(table: dict[str, dict[str, str]]) -> None:
    lines = [f"| {row} | {' | '.join(cells.values())} |" for row, cells in table.items()]
    text = DOCUMENT.read_text()
    if os.environ.get("KEYSWITCH_WRITE_MATRIX") == "1":
        start = text.index("| fault |")
        head = f"| fault | {' | '.join(COLUMNS)} |\n{'|---' * (len(COLUMNS) + 1)}|\n"
        DOCUMENT.write_text(text[:start] + head + "\n".join(lines) + "\n")
        return
    assert [line for line in lines if line not in text] == []


# --- every status ---


def expected(status: int) -> tuple[grpc.StatusCode, str]:
    """What a lease's caller is told of a status of Vault that says nothing else."""
    code = grpc.StatusCode
    match status:
        case 403:
            return code.FAILED_PRECONDITION, "VAULT_DENIED"
        case 404:
            return code.NOT_FOUND, "CREDENTIAL_UNKNOWN"
        case 429:
            return code.RESOURCE_EXHAUSTED, "VAULT_RATE_LIMITED"
        case 501:
            return code.UNAVAILABLE, "VAULT_UNINITIALISED"
        case _ if status in (412, 472, 473, 474) or status >= 500:
            return code.UNAVAILABLE, "VAULT_NOT_READY"
        case _:
            return code.INTERNAL, "INTERNAL"


async def test_every_status_of_vault(own_vault_server: VaultServer, fault_proxy: FaultProxy, tmp_path: Path) -> None:
    statuses = range(400, 531)
    async with running_site(own_vault_server, fault_proxy, tmp_path) as site:
        vault, origin = site.stack.vault, site.stack.router.configuration.current.providers["first"].base_url.origin
        router = Router(site.stack.home)
        for status in statuses:
            site.front.answer = (status, ())
            request = router.request(f"{MAIN}/versions/active", site.stack.member.token, principal=ADA, origin=origin)
            with pytest.raises(Refused) as refused:
                await vault.lease.call(vault.lease.leases.LeaseCredential, request)
            found = refused.value
            assert (found.code, found.reason) == (expected(status)[0], f"ERROR_REASON_{expected(status)[1]}"), status
            if expected(status)[1] in ("VAULT_NOT_READY", "VAULT_RATE_LIMITED"):
                assert found.has_retry
    tried(13, "statuses of Vault from 400 to 530, each with its reason", statuses=len(statuses))


async def test_the_fake_answers_as_the_real_server_does(own_vault_server: VaultServer, vault_binary: str) -> None:
    server = own_vault_server
    path = "keyswitch/data/changes/log"
    token = server.login()

    def asked(**options: Any) -> tuple[int, tuple[str, ...]]:
        found = server.ask("GET", path, **options)
        return found.status_code, tuple(json.loads(found.content)["errors"])

    server.require("PUT", "sys/policies/acl/nothing", {"policy": 'path "x" { capabilities = ["read"] }'})
    server.make_role("nothing", "nothing")
    assert asked(token=server.login("nothing")) == DENIED
    server.require("POST", QUOTA, TINY)
    asked(token=token)
    assert asked(token=token) == RATE_LIMITED
    server.require("DELETE", QUOTA)
    server.require("PUT", "sys/seal")
    assert asked(token=token) == SEALED
    with running_uninitialised(vault_binary) as other:
        never = other.ask("GET", path)
        status = other.ask("GET", "sys/seal-status").json()
    assert (never.status_code, tuple(never.json()["errors"])) == ANSWERS["never initialised"]
    assert (status["initialized"], status["sealed"]) == (False, True)
    tried(20, "answers of the fake Vault, compared with the real one", answers=5)


def check_unaudited(server: VaultServer, name: str) -> None:
    """Neither server names its audit devices when none of them can write."""
    token = server.login()
    full = {"type": "file", "options": {"file_path": "/dev/full", "skip_test": "true"}}
    server.require("PUT", "sys/audit/full", full)
    server.ask("DELETE", "sys/audit/file")
    found = server.ask("GET", "keyswitch/data/changes/log", token=token)
    assert (found.status_code, tuple(found.json()["errors"])) == ANSWERS["failing, as when no audit device can write"]
    tried(20, f"an answer of the fake without an audit device, compared with a real {name}", answers=1)


async def test_without_an_audit_device_vault_answers_as_the_fake_does(own_vault_server: VaultServer) -> None:
    check_unaudited(own_vault_server, "Vault")


async def test_without_an_audit_device_openbao_answers_as_the_fake_does(openbao_binary: str) -> None:
    with running_openbao(openbao_binary) as server:
        check_unaudited(server, "OpenBao")
