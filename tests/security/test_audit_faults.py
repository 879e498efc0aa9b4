"""Promises 4 and 5: nothing is released without a durable record; a disk that fails closes the door."""

import asyncio
import errno
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from keyswitch.vault.v1 import audit_pb2
from keyswitch.vault.v1 import credential_service_pb2 as credentials
from keyswitch_cli.audit_verification import verify

from tests.security.promises import count, is_thorough, tried
from tests.service.vault_harness import ACME, ADA, MAIN, Client, Refused, Vault, make_home, running_vault
from vault_service.audit import sink as sinks
from vault_service.audit.recorder import SERVICE, Recorder
from vault_service.audit.sink import Sink, SystemFiles

ROOT = Path(__file__).parents[2]
CHAIN = "vault-0"
SLOW_SECONDS = 0.75
NOT_SERVING_SECONDS = 1.0


@pytest.fixture
def slow_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a disk may take as the service is delivered, and no longer."""
    monkeypatch.setattr(sinks, "SLOW_SECONDS", SLOW_SECONDS)


def check_chain(folder: Path) -> int:
    """Whether the records fit one another; gives their number. Signatures are looked at elsewhere."""
    verdict = verify(folder, {})
    assert [one.what for one in verdict.findings if not one.where.startswith("checkpoints")] == []
    return verdict.records


@pytest.mark.timeout(900)
def test_what_was_released_is_recorded_whenever_it_is_killed(tmp_path: Path) -> None:
    rounds = count(50, 1_000)
    command = [sys.executable, "-m", "tests.security.audit_crash", str(tmp_path), str(rounds), "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said["lost"] == []
    assert said["released"] > rounds
    asyncio.run(_go_on(tmp_path))  # the next start cuts what the last kill left
    records = check_chain(tmp_path / CHAIN)
    tried(4, "kill -9 of a writing process", kills=rounds, released=said["released"], records=records, lost=0)


async def _go_on(root: Path) -> None:
    sink = Sink(root, CHAIN, clock=time.time)
    await sink.append(audit_pb2.AuditRecord(action=audit_pb2.AUDIT_ACTION_START))
    await sink.close()


class PowerCut(SystemFiles):
    """A disk that loses what was not synced, from one operation on; of the lost bytes a part may have got there."""

    def __init__(self, at: int, chance: random.Random) -> None:
        self._left = at
        self._chance = chance
        self._synced: dict[str, int] = {}
        self.after: dict[Path, bytes] = {}

    def write(self, descriptor: int, data: bytes) -> int:
        path = _path_of(descriptor)
        self._synced.setdefault(path, os.fstat(descriptor).st_size)
        half = data[: self._chance.randint(1, len(data))]
        written = super().write(descriptor, half)
        self._count(path)
        return written

    def datasync(self, descriptor: int) -> None:
        path = _path_of(descriptor)
        self._count(path)
        super().datasync(descriptor)
        self._synced[path] = os.fstat(descriptor).st_size

    def _count(self, path: str) -> None:
        self._left -= 1
        if self._left == 0:
            content = Path(path).read_bytes()
            self.after[Path(path)] = content[: self._chance.randint(self._synced[path], len(content))]
        if self._left <= 0:
            raise OSError(errno.EIO, "the power is off")


def _path_of(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


async def test_what_was_released_is_recorded_whenever_the_power_goes(tmp_path: Path) -> None:
    cuts, released_in_all = count(60, 2_000), 0
    for seed in range(cuts):
        root = tmp_path / str(seed)
        chance = random.Random(seed)
        files = PowerCut(chance.randint(1, 60), chance)
        sink = Sink(root, CHAIN, clock=lambda: 1_795_000_000.0, files=files, segment_bytes=3_000)
        recorder = Recorder(sink, last_request_ids=tuple)
        released: dict[str, str] = {}

        async def work(worker: int, recorder: Recorder = recorder, released: dict[str, str] = released) -> None:
            for number in range(8):
                lease = f"{worker}-{number}"
                async with recorder.doing(SERVICE, audit_pb2.AUDIT_ACTION_LEASE, "r", lease_id=lease) as act:
                    pass
                released[act.record_name] = lease

        await asyncio.gather(*(work(worker) for worker in range(3)), return_exceptions=True)
        await sink.close()
        for path, content in files.after.items():
            path.write_bytes(content)
            for later in path.parent.glob("[0-9]*.jsonl"):
                if later.name > path.name:
                    later.unlink()
        await _go_on(root)
        check_chain(root / CHAIN)
        lines = [
            json.loads(line) for path in (root / CHAIN).glob("[0-9]*.jsonl") for line in path.read_bytes().splitlines()
        ]
        recorded = {one["name"]: one.get("leaseId") for one in lines}
        assert all(recorded.get(name) == lease for name, lease in released.items())
        released_in_all += len(released)
    assert released_in_all > cuts
    tried(4, "power cuts at any write or sync", cuts=cuts, released=released_in_all, lost=0)


class FaultyFiles(SystemFiles):
    """Fails, or hangs, while it is told to."""

    def __init__(self) -> None:
        self.error = 0
        self.is_open = threading.Event()
        self.is_open.set()

    def write(self, descriptor: int, data: bytes) -> int:
        if self.error:
            super().write(descriptor, data[: len(data) // 2])
            raise OSError(self.error, "injected")
        return super().write(descriptor, data)

    def datasync(self, descriptor: int) -> None:
        self.is_open.wait(30)
        super().datasync(descriptor)


async def furnish(vault: Vault) -> tuple[Client, Client]:
    admin = await vault.issue(ACME, "ADMIN")
    ada = await vault.issue(ACME, "MEMBER", user=ADA)
    await vault.ready(admin)
    return admin, ada


async def check_closed(vault: Vault, admin: Client, ada: Client, cause: str) -> float:
    """Everything that needs a record is refused, and health says so; gives after how many seconds."""
    began = time.monotonic()
    calls: list[Callable[[], Any]] = [
        lambda: vault.take(f"{MAIN}/versions/active", ada.token),
        lambda: vault.add(admin, MAIN),
        lambda: vault.issue(ACME, "AUDITOR"),
        lambda: admin.call(admin.credentials.GetCredential, credentials.GetCredentialRequest(name=MAIN)),
    ]
    for call in calls:
        with pytest.raises(Refused) as caught:
            await call()
        assert caught.value.code == grpc.StatusCode.UNAVAILABLE
        assert (caught.value.reason, caught.value.metadata) == ("ERROR_REASON_AUDIT_FAILED", {"cause": cause})
    async with asyncio.timeout(60):
        while vault.service.is_serving:
            await asyncio.sleep(0.01)
    return time.monotonic() - began


async def take_until_refused(vault: Vault, ada: Client) -> None:
    """The last page of a segment still takes some records after the file system has no further one."""
    for _ in range(100):
        try:
            await vault.take(f"{MAIN}/versions/active", ada.token)
        except Refused:
            return
    pytest.fail("a full file system refused nothing")


async def check_recovers(vault: Vault, ada: Client) -> None:
    async with asyncio.timeout(60):
        while not vault.service.is_serving:
            await asyncio.sleep(0.01)
    await vault.take(f"{MAIN}/versions/active", ada.token)


FAULTS = {"no_space": errno.ENOSPC, "io": errno.EIO, "read_only": errno.EROFS, "slow": 0}


@pytest.mark.usefixtures("slow_is_slow")
@pytest.mark.parametrize("cause", sorted(FAULTS))
async def test_a_disk_that_fails_closes_the_door_and_opens_it_again(tmp_path: Path, cause: str) -> None:
    files = FaultyFiles()
    async with running_vault(tmp_path, files=files) as vault:
        admin, ada = await furnish(vault)
        files.error = FAULTS[cause]
        if cause == "slow":
            files.is_open.clear()
        seconds = await check_closed(vault, admin, ada, cause)
        if is_thorough():
            assert seconds <= NOT_SERVING_SECONDS + (SLOW_SECONDS if cause == "slow" else 0.0)
        files.error = 0
        files.is_open.set()
        await check_recovers(vault, ada)
    check_chain(tmp_path / "audit" / CHAIN)
    text = f"the door closes and opens again: {cause.replace('_', ' ')}"
    tried(5, text, methods=4, seconds_to_not_serving_max=seconds)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A real file system of 256 KiB; only root can mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("a file system cannot be mounted here: the injected faults are all that was tried")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_real_file_system_that_is_full(tmp_path: Path) -> None:
    make_home(tmp_path)
    folder = tmp_path / "audit"
    with small_disk(folder):
        async with running_vault(tmp_path) as vault:
            admin, ada = await furnish(vault)
            ballast = folder / "ballast"
            with pytest.raises(OSError, match="No space"):
                ballast.write_bytes(bytes(1 << 20))
            await take_until_refused(vault, ada)
            full = await check_closed(vault, admin, ada, "no_space")
            if is_thorough():
                assert full <= NOT_SERVING_SECONDS
            ballast.unlink()
            await check_recovers(vault, ada)
            records = check_chain(folder / CHAIN)
            tried(5, "a real file system that is full", records=records, seconds_to_not_serving_max=full)
