"""The credential service as a process of its own: how it starts, ends and dies."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.fakes.free_ports import free_ports
from tests.service.vault_harness import ACME, ADA, KEY, MAIN, Client, Router, Vault, make_home, open_channel

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def running(
    home: Path, ports: Sequence[int], launch: Sequence[str] = (), **more: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs the process until it is ready, with `more` in its environment; what it prints is in `home`/log.

    `launch` stands before the command, and must become it.
    """
    management, lease, http = ports
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("GRPC_", "KEYSWITCH_"))},
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protos" / "gen" / "python")]),
        "KEYSWITCH_HOME": str(home),
        "KEYSWITCH_VAULT_MANAGEMENT_ADDRESS": f"127.0.0.1:{management}",
        "KEYSWITCH_VAULT_LEASE_ADDRESS": f"127.0.0.1:{lease}",
        "KEYSWITCH_VAULT_HTTP_ADDRESS": f"127.0.0.1:{http}",
        "KEYSWITCH_VAULT_DRAIN_SECONDS": "1",
        **more,
    }
    with (home / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *launch, sys.executable, "-m", "vault_service", cwd=home, env=environment, stdout=log, stderr=log
        )
    try:
        await wait_until_ready(process, http)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def wait_until_ready(process: asyncio.subprocess.Process, port: int) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(30):
        while process.returncode is None:
            try:
                async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)
    raise AssertionError("the process ended before it was ready")


@asynccontextmanager
async def clients(home: Path, ports: Sequence[int]) -> AsyncIterator[tuple[Client, Client]]:
    token = (home / "operator.token").read_text(encoding="ascii").strip()
    async with open_channel(home, ports[0]) as management, open_channel(home, ports[1], "router") as lease:
        yield Client(management, token), Client(lease)


async def test_it_ends_in_order_and_says_no_secret(tmp_path: Path) -> None:
    make_home(tmp_path)
    ports = free_ports(3)
    async with running(tmp_path, ports) as process:
        limits = Path(f"/proc/{process.pid}/limits").read_text(encoding="ascii")
        assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")] == [["0", "0"]]
        async with clients(tmp_path, ports) as (operator, lease):
            vault = Vault(None, tmp_path, operator, lease, Router(tmp_path))  # type: ignore[arg-type] # another process
            admin = await vault.issue(ACME, "ADMIN")
            await vault.ready(admin)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await process.wait() == 0
        said = (tmp_path / "log").read_bytes()
    assert b'"event": "stopped"' in said
    for secret in (KEY, operator.token, admin.token):
        assert secret.encode() not in said
        assert secret.encode() not in vault.audit_bytes()
    assert b"AUDIT_ACTION_STOP" in vault.audit_bytes()


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    make_home(tmp_path)
    ports = free_ports(3)
    async with running(tmp_path, ports) as process, clients(tmp_path, ports) as (operator, lease):
        vault = Vault(None, tmp_path, operator, lease, Router(tmp_path))  # type: ignore[arg-type] # another process
        admin = await vault.issue(ACME, "ADMIN")
        ada = await vault.issue(ACME, "MEMBER", user=ADA)
        await vault.ready(admin)
        given = await vault.take(f"{MAIN}/versions/active", ada.token)
        process.kill()
        await process.wait()
    assert given.audit_record.encode() in vault.audit_bytes()
    with next(iter((tmp_path / "audit").glob("*/[0-9]*.jsonl"))).open("ab") as file:
        file.write(b'{"name":"chains/vault-0/rec')
    async with running(tmp_path, ports), clients(tmp_path, ports) as (operator, lease):
        vault = Vault(None, tmp_path, operator, lease, Router(tmp_path))  # type: ignore[arg-type] # another process
        assert vault.router.open(await vault.take(f"{MAIN}/versions/active", ada.token)).api_key == KEY
    assert b"an incomplete last line of 27 bytes was cut" in vault.audit_bytes()


async def test_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="before it was ready"):
        async with running(tmp_path, free_ports(3)):
            pass
    said = (tmp_path / "log").read_text(encoding="utf-8")
    assert "vault_service.devca" in said
    assert "Traceback" not in said
