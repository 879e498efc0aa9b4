"""Writes an audit chain and is killed, again and again: `python -m tests.security.audit_crash ROOT ROUNDS SEED`.

Each round a child goes on with the chain and releases made-up secrets between their two records, as the service does;
it says on a pipe what it released, after the fact. It is killed with SIGKILL at a moment of chance. Prints what was
released, and what of it has no record.
"""

import asyncio
import json
import os
import random
import select
import signal
import sys
from pathlib import Path

from keyswitch.vault.v1 import audit_pb2

from vault_service.audit.chain import segments
from vault_service.audit.recorder import SERVICE, Recorder
from vault_service.audit.sink import Sink

CHAIN = "vault-0"
WORKERS = 8
LONGEST_SECONDS = 0.03


def main(root: Path, rounds: int, seed: int) -> None:
    """Runs all rounds and prints the result as JSON."""
    chance = random.Random(seed)
    released: dict[str, str] = {}
    empty = 0
    for number in range(rounds):
        said = run_round(root, number, chance.uniform(0, LONGEST_SECONDS))
        empty += not said
        released |= said
    recorded = read_recorded(root)
    lost = [name for name, lease in released.items() if recorded.get(name) != lease]
    print(json.dumps({"rounds": rounds, "empty": empty, "released": len(released), "lost": lost[:10]}))


def run_round(root: Path, number: int, seconds: float) -> dict[str, str]:
    """Lets a child live for a while after its first word, and gives what it released."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        asyncio.run(release(root, number, writing))
        os._exit(1)
    os.close(writing)
    select.select([reading], [], [], 10)
    select.select([], [], [], seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        lines = [line.split() for line in pipe.read().splitlines(keepends=True) if line.endswith(b"\n")]
    return {name.decode(): lease.decode() for name, lease in lines}


async def release(root: Path, number: int, pipe: int) -> None:
    """Releases without an end."""
    sink = Sink(root, CHAIN, clock=lambda: 1_795_000_000.0 + number, segment_bytes=200_000)
    recorder = Recorder(sink, last_request_ids=tuple)

    async def work(worker: int) -> None:
        count = 0
        while True:
            lease = f"{number}-{worker}-{count}"
            async with recorder.doing(SERVICE, audit_pb2.AUDIT_ACTION_LEASE, "r", lease_id=lease) as act:
                count += 1
            os.write(pipe, f"{act.record_name} {lease}\n".encode())

    await asyncio.gather(*(work(worker) for worker in range(WORKERS)))


def read_recorded(root: Path) -> dict[str, str]:
    """The leases of the succeeded outcomes, by the record's name."""
    found: dict[str, str] = {}
    for _, path in segments(root / CHAIN):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                record = json.loads(line)
                if record["outcome"] == "AUDIT_OUTCOME_SUCCEEDED":
                    found[record["name"]] = record["leaseId"]
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
