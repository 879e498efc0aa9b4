"""Processes under measurement: starting them, and what they have used according to /proc."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".bench"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# A proxy of the environment would be put between programs on the same machine, and a setting would change what runs.
DROPPED = {"http_proxy", "https_proxy", "all_proxy"}


@dataclass(frozen=True)
class Program:
    """A program that runs, with everything it started."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu_seconds(self) -> float:
        """User and system time of the process tree so far, in steps of a clock tick (10 ms as a rule)."""
        return sum(_cpu_ticks(pid) for pid in tree(self.pid)) / TICKS_PER_SECOND

    def rss_bytes(self) -> int:
        """Resident memory of the process tree; pages that are shared count once for each process."""
        return sum(_rss_pages(pid) for pid in tree(self.pid)) * PAGE_BYTES

    async def stop(self) -> None:
        """Asks it to end and, after 10 s, makes it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self.process.wait, 10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def check(self) -> None:
        """Raises, with the end of its log, when the program has ended."""
        if self.process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self.name} ended with {self.process.returncode}:\n{tail}")


def start_program(name: str, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Program:
    """Starts a program from the project's root; its output goes to .bench/logs."""
    log = WORK / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if k.lower() not in DROPPED and not k.startswith("KEYSWITCH_")}
    paths = os.pathsep.join((str(ROOT), str(ROOT / "protos/gen/python")))
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            env={**kept, "PYTHONPATH": paths, **(env or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return Program(name, process, log)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def wait_for_port(program: Program, port: int, limit_seconds: float = 60) -> None:
    """Returns when something listens on the port."""
    end = time.monotonic() + limit_seconds
    while time.monotonic() < end:
        program.check()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
    raise TimeoutError(f"{program.name} did not listen on {port} within {limit_seconds} s; see {program.log}")


def tree(pid: int) -> list[int]:
    """The process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for parent in found:
        found.extend(children.get(parent, ()))
    return found


def _stat(pid: int) -> list[str]:
    """The fields after the program's name (which may hold spaces): state, parent, …; none when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_ticks(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[11]) + int(fields[12]) if fields else 0


def _rss_pages(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[21]) if fields else 0
