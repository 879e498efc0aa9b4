"""The router keeps no provider key (promise 3): not in a file that it can write, not in a core, not in an open file."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from keyswitch.router.v1 import completion_service_pb2

from tests.security import canary_upstream as answers
from tests.security.canary_deployment import CHAT, CLAUDE, Watched, watched_deployment
from tests.security.promises import tried

COMPLETIONS = 50
ROUTER_FILES = {"router.db", "router.db-wal", "router.db-shm", "log/router.log"}

pytestmark = pytest.mark.timeout(300)


async def test_nothing_is_left_behind_by_completions(tmp_path: Path) -> None:
    async with watched_deployment(tmp_path, "debug") as watched:
        for number in range(COMPLETIONS):
            model, script = (CHAT, answers.openai_stream()) if number % 2 else (CLAUDE, answers.anthropic_stream())
            watched.upstream.script(script)
            request = completion_service_pb2.StreamCompleteRequest(call=watched.call_for(model))
            assert (await watched.calls.call("StreamComplete", request, watched.tokens["member"])).is_ok
        router = watched.stack.processes["router"].pid
        opened = open_files(router)
        written = {name for name in written_files(watched, router) if not name.endswith(".log")}
        await watched.search_everything()
        for process in ("router", "vault"):
            check_no_core(watched.stack.processes[process].pid)
        await watched.stack.stop()
        watched.search_files()
    ledger_files, configuration_files = (
        {name, f"{name}-wal", f"{name}-shm"} for name in ("router.db", "configuration.db")
    )
    print(f"\nat rest: {COMPLETIONS} completions; the router has open for writing {sorted(written)}; "
          f"{len(opened)} open files in all; {watched.scanner.report()}")  # fmt: skip
    assert watched.user_key.value in {
        value.removeprefix("Bearer ") for one in watched.upstream.received for value in one.headers.values()
    }
    kept = {name for name in written if not name.endswith(".journal")}  # beside them what waits for the ledger
    assert ledger_files <= kept <= ledger_files | configuration_files, "the ledger and what is stored over the file"
    assert {name for name in names_below(watched.stack.home) if name.startswith(("router.db", "log/router"))} <= (
        ROUTER_FILES
    )
    assert not list(watched.temporary.iterdir()), "no temporary file is left"
    assert not watched.scanner.hits, "\n".join(str(hit) for hit in watched.scanner.hits)
    tried(3, "files of the router and core dumps after completions", completions=COMPLETIONS, hits=0)


def names_below(folder: Path) -> set[str]:
    """The files below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def open_files(process_id: int) -> set[str]:
    """What a process has open, sockets and pipes included."""
    return {str(link.readlink()) for link in Path(f"/proc/{process_id}/fd").iterdir()}


def written_files(watched: Watched, process_id: int) -> set[str]:
    """The regular files that a process has open for writing, by name; anywhere, not only below the home."""
    found: set[str] = set()
    for link in Path(f"/proc/{process_id}/fd").iterdir():
        flags = next(
            line.split()[1]
            for line in Path(f"/proc/{process_id}/fdinfo/{link.name}").read_text().splitlines()
            if line.startswith("flags:")
        )
        is_writable = int(flags, 8) & 0o3 != 0
        if is_writable and stat.S_ISREG(link.stat().st_mode):
            found.add(link.readlink().name)
    return found


def check_no_core(process_id: int) -> None:
    """No core may be written, whatever the system's limits were."""
    limits = Path(f"/proc/{process_id}/limits").read_text().splitlines()
    (core,) = (line.split() for line in limits if line.startswith("Max core file size"))
    assert core[4:6] == ["0", "0"], "the soft and the hard limit of a core's size"


@pytest.mark.parametrize(
    "harden",
    [
        "from router_service.__main__ import _forbid_dumps as harden",
        "from vault_service.__main__ import harden_process as harden",
    ],
    ids=["router", "vault"],
)
def test_hardening_makes_a_process_undumpable(harden: str) -> None:
    """Asked of the kernel in a process of its own: from outside the state cannot be read, least of all by root."""
    get_dumpable = 3
    program = (
        f"import ctypes; {harden}; ask = ctypes.CDLL(None).prctl; "
        f"before = ask({get_dumpable}, 0, 0, 0, 0); harden(); print(before, ask({get_dumpable}, 0, 0, 0, 0))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["1", "0"]
