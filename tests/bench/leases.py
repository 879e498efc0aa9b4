"""`python -m tests.bench.leases`: cold leases of one credential service over a real Vault server, and over no Vault.

Every lease is asked of the service as a router asks for it: with its certificate, the caller's token, a deadline; it is
sealed, and recorded before and after. The service, Vault and the load are processes of their own, and so is their CPU
here. The first row is gRPC over TLS with the same messages and nothing behind it: the floor of this stack.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import os
import shutil
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop
from keyswitch.vault.v1 import audit_pb2, lease_pb2, lease_service_pb2

from router_service.credentials.lease_queue import LeaseQueue
from tests.bench.processes import WORK, Program, free_port, start_program, wait_for_port
from tests.fakes.vault_server import VaultServer, find_binary, running_server
from tests.service.vault_harness import ACME, ADA, ORIGIN, Client, Router, Vault, make_home, open_channel
from vault_service.audit.sink import Sink

CREDENTIALS = 20
LEASES_PER_SECOND = 1000


@dataclass(frozen=True)
class Case:
    """One way to run the service."""

    name: str
    is_vault: bool
    settings: Mapping[str, str]


CASES = (
    Case("embedded store", is_vault=False, settings={}),
    Case("Vault, nothing remembered", is_vault=True, settings={"KEYSWITCH_VAULT_REMEMBER_SECONDS": "0"}),
    Case("Vault, ciphertext remembered", is_vault=True, settings={}),
)


FLOOR = "gRPC over TLS alone"


@dataclass(frozen=True)
class Figures:
    """What was measured of a case."""

    p50_millis: float
    p99_millis: float
    per_second: float
    service_micros: float
    vault_micros: float
    load_micros: float


@asynccontextmanager
async def running_service(case: Case, server: VaultServer, home: Path) -> AsyncIterator[tuple[Program, Vault, int]]:
    """The service as an operator starts it, with credentials, and the ways to it."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o700, parents=True)
    make_home(home)
    ports = {name: free_port() for name in ("MANAGEMENT", "LEASE", "HTTP")}
    environment = {
        "KEYSWITCH_HOME": str(home),
        **{f"KEYSWITCH_VAULT_{name}_ADDRESS": f"127.0.0.1:{port}" for name, port in ports.items()},
        **case.settings,
    }
    if case.is_vault:
        role_id, secret_id = server.write_credentials(home)
        environment |= {
            "KEYSWITCH_VAULT_STORE": "hashicorp",
            "KEYSWITCH_VAULT_HASHICORP_URL": server.url,
            "KEYSWITCH_VAULT_HASHICORP_ROLE_ID_FILE": str(role_id),
            "KEYSWITCH_VAULT_HASHICORP_SECRET_ID_FILE": str(secret_id),
        }
    program = start_program("lease-service", [sys.executable, "-m", "vault_service"], environment)
    try:
        await wait_for_port(program, ports["LEASE"])
        while not (home / "operator.token").exists():
            program.check()
            await asyncio.sleep(0.01)
        token = (home / "operator.token").read_text(encoding="ascii").strip()
        async with (
            open_channel(home, ports["MANAGEMENT"]) as management,
            open_channel(home, ports["LEASE"], "router") as lease,
        ):
            vault = Vault(None, home, Client(management, token), Client(lease), Router(home))  # type: ignore[arg-type] # it runs elsewhere
            yield program, vault, ports["LEASE"]
    finally:
        await program.stop()


async def furnish(vault: Vault, prefix: str) -> tuple[Sequence[str], str]:
    """Credentials with active versions; gives their names, and a member's token."""
    admin = await vault.issue(ACME, "ADMIN")
    names = [f"{ACME}/credentials/{prefix}-{number}" for number in range(CREDENTIALS)]
    for name in names:
        await vault.ready(admin, name)
    return names, (await vault.issue(ACME, "MEMBER", user=ADA)).token


async def measure(case: Case, server: VaultServer, leases: int, at_once: int) -> Figures:
    """Starts the service, furnishes it and asks it for leases."""
    async with running_service(case, server, WORK / "leases-home") as (program, vault, port):
        names, token = await furnish(vault, f"k{int(time.time())}")
        load = Load(vault.home, port, vault.router, names, token)
        return await load.measure(program, server, leases, at_once)


async def measure_floor(server: VaultServer, leases: int, at_once: int) -> Figures:
    """The same load on a listener that does nothing."""
    home, port = WORK / "leases-home", free_port()
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o700, parents=True)
    make_home(home)
    command = [sys.executable, "-m", "tests.bench.bare_lease", str(home), str(port)]
    program = start_program("bare-lease", command)
    try:
        await wait_for_port(program, port)
        load = Load(home, port, Router(home), [f"{ACME}/credentials/main"], "t" * 400)
        return await load.measure(program, server, leases, at_once)
    finally:
        await program.stop()


@dataclass(frozen=True)
class Load:
    """A router that asks for nothing but cold leases."""

    home: Path
    port: int
    router: Router
    names: Sequence[str]
    token: str

    async def measure(self, program: Program, server: VaultServer, leases: int, at_once: int) -> Figures:
        """One at a time, and then as many as it takes."""
        channel = open_channel(self.home, self.port, "router")
        queue = LeaseQueue(Client(channel).leases, self.router)  # type: ignore[arg-type] # it has what is read of it

        async def take(number: int) -> float:
            request = lease_service_pb2.LeaseCredentialRequest(
                name=f"{self.names[number % len(self.names)]}/versions/active",
                purpose=lease_pb2.LEASE_PURPOSE_COMPLETION,
                request_id="response-1",
                principal=ADA,
                caller_proof=self.token,
                origin=ORIGIN,
            )
            began = time.perf_counter()
            await queue.ask(request, 10)
            return time.perf_counter() - began

        async def worker(numbers: range) -> None:
            for number in numbers:
                await take(number)

        for number in range(200):
            await take(number)
        alone = sorted([await take(number) for number in range(500)])
        busy, vault_busy, load_busy = program.cpu_seconds(), _cpu_seconds(server), time.process_time()
        began = time.perf_counter()
        await asyncio.gather(*(worker(range(first, leases, at_once)) for first in range(at_once)))
        took = time.perf_counter() - began
        figures = Figures(
            statistics.median(alone) * 1e3,
            alone[int(len(alone) * 0.99)] * 1e3,
            leases / took,
            (program.cpu_seconds() - busy) / leases * 1e6,
            (_cpu_seconds(server) - vault_busy) / leases * 1e6,
            (time.process_time() - load_busy) / leases * 1e6,
        )
        await channel.close()
        return figures


def _cpu_seconds(server: VaultServer) -> float:
    return Program("vault", server.process, server.folder / "server.log").cpu_seconds()


def measure_disk(path: Path, writes: int) -> tuple[float, float]:
    """p50 and p99 of appending a record's bytes and waiting for the disk, in millis: what no audit log can go below."""
    took: list[float] = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    try:
        for _ in range(writes):
            began = time.perf_counter()
            os.write(descriptor, bytes(700))
            os.fdatasync(descriptor)
            took.append((time.perf_counter() - began) * 1e3)
    finally:
        os.close(descriptor)
        path.unlink()
    return statistics.median(took), sorted(took)[int(writes * 0.99)]


async def measure_audit(folder: Path, seconds: float) -> tuple[float, float, float]:
    """How long a lease waits for its two records: p99 alone, and p50 and p99 under so many leases a second. Millis."""
    shutil.rmtree(folder, ignore_errors=True)
    sink = Sink(folder, "bench", clock=time.time)

    async def lease(number: int) -> float:
        waited = 0.0
        for outcome in (audit_pb2.AUDIT_OUTCOME_INTENDED, audit_pb2.AUDIT_OUTCOME_SUCCEEDED):
            began = time.perf_counter()
            record = audit_pb2.AuditRecord(action=audit_pb2.AUDIT_ACTION_LEASE, outcome=outcome, lease_id=str(number))
            await sink.append(record)
            waited += time.perf_counter() - began
        return waited * 1e3

    alone = sorted([await lease(number) for number in range(500)])
    tasks: list[asyncio.Task[float]] = []
    began = time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        due = int(passed * LEASES_PER_SECOND)
        tasks += [asyncio.create_task(lease(number)) for number in range(len(tasks), due)]
        await asyncio.sleep(0.001)
    loaded = sorted(await asyncio.gather(*tasks))
    await sink.close()
    return alone[int(len(alone) * 0.99)], statistics.median(loaded), loaded[int(len(loaded) * 0.99)]


async def run(leases: int, at_once: int, rounds: int) -> None:
    """Takes turns, and prints a table of medians."""
    found: dict[str, list[Figures]] = {name: [] for name in (FLOOR, *(case.name for case in CASES))}
    for _ in range(rounds):
        with running_server(find_binary()) as server:
            found[FLOOR].append(await measure_floor(server, leases, at_once))
        for case in CASES:
            with running_server(find_binary()) as server:  # a store that has an operator's token writes no other
                found[case.name].append(await measure(case, server, leases, at_once))
    load = os.getloadavg()[0]
    print(
        f"{dt.datetime.now(dt.UTC):%F}, {os.cpu_count()} cores, load {load:.1f} at the end, {rounds} × {leases}\n",
    )
    of = "CPU each:"
    print(f"| leases | p50 alone | p99 alone | leases/s, {at_once} at once | {of} service | {of} Vault | {of} load |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, rows in found.items():
        cells = [statistics.median(getattr(row, field) for row in rows) for field in Figures.__dataclass_fields__]
        print("| {} | {:.1f} ms | {:.1f} ms | {:,.0f} | {:,.0f} µs | {:,.0f} µs | {:,.0f} µs |".format(name, *cells))
    disk = measure_disk(WORK / "disk-bench", 500)
    print(f"\nthe disk by itself, one write and sync after the other: p50 {disk[0]:.1f}, p99 {disk[1]:.1f} ms")
    alone, half, most = await measure_audit(WORK / "audit-bench", 5.0)
    loaded = f"p50 {half:.1f}, p99 {most:.1f} ms under {LEASES_PER_SECOND} leases/s"
    print(f"a lease's two audit records: p99 {alone:.1f} ms alone; {loaded}")


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.leases", description=__doc__)
    parser.add_argument("--leases", type=int, default=4000)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(chosen.leases, chosen.at_once, chosen.rounds))


if __name__ == "__main__":
    main()
