"""Promise 3 from outside: a router whose root cannot be written, under a trace of all that it and its children write.

The credential service is run so too: what it writes is below its home. Each runs in a mount namespace of its own, in
which its home alone is writable. `strace` sees each call that makes a file or opens one for writing, also of files that
are gone again when the test looks.
"""

import asyncio
import os
import random
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.fakes.free_ports import free_ports
from tests.fakes.scripted_upstream import Action, Cut, Received, Send, head
from tests.security.canary import Scanner, make_key
from tests.security.promises import count, is_thorough, tried
from tests.security.site import MAIN, REJECTED, running_router
from tests.security.test_at_rest import check_no_core
from tests.service.router_answers import Json, answer
from tests.service.test_vault_service_process import clients
from tests.service.test_vault_service_process import running as vault_process
from tests.service.vault_harness import ACME, ADA, Router, Vault, make_home
from tests.service.vault_harness import MAIN as KEY_NAME

CALLERS, SEARCHES = 16, 10
WRITERS = "open,openat,openat2,creat,mknod,mknodat,memfd_create,link,linkat,symlink,symlinkat,rename,renameat,renameat2"
READ_ONLY = """
home="$1"; shift
mount --bind "$home" "$home" || exit 71
for point in $(awk '{print $2}' /proc/self/mounts); do
  test "$point" = "$home" || mount -o remount,bind,ro "$point" || exit 71
done
exec "$@"
"""
TRACED = re.compile(r'(?P<call>\w+)\((?P<before>[^"]*)"(?P<path>[^"]*)"(?P<after>.*)')
MAKES_A_FILE = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TMPFILE")
ITS_OWN = re.compile(r"(router|configuration)\.db(-wal|-shm|-journal)?|outbox(/\w+\.journal)?")
OF_THE_VAULT = re.compile(
    r"\.?operator\.token(\.\d+)?|vault/\.?root\.key(\.\d+)?|vault/store\.db(-wal|-shm|-journal)?|"
    r"audit/\.?chain(\.\d+)?|audit/vault-\w+/(lock|(\d+|checkpoints)\.jsonl)"
)

pytestmark = pytest.mark.timeout(count(300, 1700))


def obstacle() -> str:
    """What keeps this machine from tracing a process in a mount namespace; empty where nothing does."""
    missing = [name for name in ("strace", "unshare") if shutil.which(name) is None]
    if missing:
        return f"no {' and '.join(missing)}"
    commands = (
        ["unshare", "--mount", "true"],
        ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", os.devnull, "true"],
    )
    denied = [
        command[0] for command in commands if subprocess.run(command, capture_output=True, check=False).returncode
    ]
    return f"{' and '.join(denied)} may not be used" if denied else ""


def launch(home: Path) -> Sequence[str]:
    """How the router is started. Where it cannot be, `make security` fails, and the quick tests say so."""
    found = obstacle()
    if found and not is_thorough():
        pytest.skip(f"WHAT THE ROUTER WRITES WAS NOT TRACED: {found}")
    assert not found, found
    traced = f"trace={WRITERS},execve"
    tracer = ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-e", traced, "-o", str(home.parent / "trace")]
    return [*tracer, "unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(home)]


def configure(made: Json) -> None:
    """Failures do not make the router stop asking, which would leave nothing to look at."""
    made["providers"]["first"]["breaker_failures"] = 0


async def test_a_router_writes_its_ledger_and_nothing_else(tmp_path: Path) -> None:
    calls, chance, ends = count(300, 10_000), random.Random(3), Counter[str]()
    key, scanner = make_key("the organization's key"), Scanner()
    scanner.add(key)
    async with running_router(tmp_path, configure, launch) as site:
        home = site.routers[0].home
        await site.save_key(site.admin, MAIN, key.value)
        site.upstream.choose = lambda _: answer()
        await site.until_served(site.callers)

        def choose(_: Received) -> list[Action]:
            return chance.choice([answer(), answer(), answer(), [Send(head()), Cut()], [Cut()]])

        async def work(number: int) -> None:
            for _ in range(number):
                found = await site.callers[0].stream()
                ends["served" if found.error is None else found.error.reason] += 1

        site.upstream.choose = choose
        for _ in range(SEARCHES):
            await asyncio.gather(*(work(calls // SEARCHES // CALLERS + 1) for _ in range(CALLERS)))
            scanner.scan_files("home", home, {})
        site.upstream.choose = lambda _: REJECTED
        await work(CALLERS)
        process = site.routers[0].process
        assert process is not None
        check_mounts(process.pid, home)
        check_no_core(process.pid)
        assert swapped_kibibytes(process.pid) == 0
        assert any(key.value in value for one in site.upstream.received for value in one.headers.values())
    scanner.scan_files("home", home, {})
    made, programs = read_trace(tmp_path / "trace", home)
    strange = sorted(path for path in made if not ITS_OWN.fullmatch(path))
    assert strange == []
    assert {"router.db", "router.db-wal"} <= made, "the trace saw what there was to see"
    assert [Path(path).name for path in programs][-1].startswith("python"), "it starts no other program"
    assert ends["served"] > calls // 4, ends
    assert not scanner.hits, scanner.hits
    tried(
        3,
        "a router on a read-only root, every file that is made or written traced",
        completions=ends.total(),
        failed_on_purpose=ends.total() - ends["served"],
        files=len(made),
        beside_its_ledger=len(strange),
        searches=SEARCHES + 1,
        swapped_kibibytes=0,
        hits=0,
    )


async def test_a_credential_service_writes_its_home_and_nothing_else(tmp_path: Path) -> None:
    home, key, scanner = tmp_path / "home", make_key("the organization's key"), Scanner()
    scanner.add(key)
    home.mkdir(mode=0o700)
    make_home(home)
    ports = free_ports(3)
    async with vault_process(home, ports, launch(home)) as process, clients(home, ports) as (operator, lease):
        vault = Vault(None, home, operator, lease, Router(home))  # type: ignore[arg-type] # another process
        admin = await vault.issue(ACME, "ADMIN")
        ada = await vault.issue(ACME, "MEMBER", user=ADA)
        await vault.ready(admin, key=key.value)
        given = await vault.take(f"{KEY_NAME}/versions/active", ada.token)
        assert vault.router.open(given).api_key == key.value
        check_mounts(process.pid, home)
        assert swapped_kibibytes(process.pid) == 0
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    scanner.scan_files("home", home, {})
    made, programs = read_trace(tmp_path / "trace", home)
    assert sorted(path for path in made if not OF_THE_VAULT.fullmatch(path)) == []
    assert {"vault/store.db"} <= made, "the trace saw what there was to see"
    assert [Path(path).name for path in programs][-1].startswith("python"), "it starts no other program"
    assert not scanner.hits, scanner.hits


def check_mounts(process_id: int, home: Path) -> None:
    """What the router itself may write to: its home. Of several mounts at one point the last one is seen."""
    lines = Path(f"/proc/{process_id}/mounts").read_text().splitlines()
    options = {point: options for _, point, _, options, *_ in (line.split() for line in lines)}
    assert {point for point, option in options.items() if "rw" in option.split(",")} == {str(home)}


def swapped_kibibytes(process_id: int) -> int:
    """What of it lies in swap."""
    (line,) = (one for one in Path(f"/proc/{process_id}/status").read_text().splitlines() if one.startswith("VmSwap"))
    return int(line.split()[1])


def read_trace(trace: Path, home: Path) -> tuple[set[str], list[str]]:
    """What was made or opened for writing, seen from the home, and the programs that were started."""
    made, programs = set[str](), list[str]()
    for line in trace.read_text(errors="replace").splitlines():
        found = TRACED.search(line)
        if found is None or re.search(r"= -1 E\w+", line):
            continue
        if found["call"] == "execve":
            programs.append(found["path"])
        elif not found["call"].startswith("open") or MAKES_A_FILE.search(found["after"]):
            path = Path(home, found["path"])
            made.add(str(path.relative_to(home)) if path.is_relative_to(home) else str(path))
    return made, programs
