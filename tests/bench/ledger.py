"""`python -m tests.bench.ledger`: F8, the router's CPU for one reservation and its settlement, spread over groups.

The time is this process's own, its writer's thread included and a database server's not. Beside it, what the end of a
charged call waits for: its debts on the disk of the outbox.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from router_service.core.database import Database, SqliteDatabase, parse_database
from router_service.ledger.sql_ledger import SqlLedger, open_ledger
from tests.fakes.postgres_server import find_programs, running_postgres
from tests.suites.ledger_values import FULL, NOW, make_receipt, spend

ROUNDS = 3
CALLS = 1000
AT_ONCE = 64
LATER = NOW + 3600


async def _spend(ledger: SqlLedger, mark: str) -> None:
    numbers = iter(range(CALLS))

    async def work() -> None:
        for number in numbers:
            response_id = f"{mark}-{number}"
            await ledger.reserve(response_id, 1, spend("acme", 100), LATER)
            await ledger.settle(response_id, 1, 60, response_id, 60)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


async def _measure(place: Database, folder: Path) -> tuple[float, list[float]]:
    """Microseconds of CPU per call, the median of the rounds; milliseconds that ends waited for the outbox."""
    ledger = await open_ledger(place, lambda: NOW, outbox=folder / "outbox", wait_seconds=60)
    await ledger.add_credits("acme", 10**12, "start", "", NOW)
    await _spend(ledger, "warm")
    costs = []
    for number in range(ROUNDS):
        before = time.process_time()
        await _spend(ledger, str(number))
        costs.append((time.process_time() - before) / CALLS * 1e6)
    waits = []
    for number in range(100):
        response_id = f"wait-{number}"
        await ledger.reserve(response_id, 1, spend("acme", 100), LATER)
        ledger.owe(response_id, 1, 60, 60)
        ledger.record_soon(make_receipt(response_id, attempts=FULL.attempts))
        before = time.perf_counter()
        await ledger.sync()
        waits.append((time.perf_counter() - before) * 1e3)
        await ledger.settle(response_id, 1, 60, response_id, 60)
    await ledger.close()
    return statistics.median(costs), sorted(waits)


def main() -> None:
    """Measures both databases and prints the table."""
    print(f"F8: reserve and settle, {AT_ONCE} at once, CPU of the router; ends of charged calls one after the other\n")
    print("| database | CPU per call | bar | an end waits, p50 / p99 |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        folder = Path(name)
        cost, waits = runner.run(_measure(SqliteDatabase(folder / "ledger.db"), folder))
        print(f"| SQLite | {cost:.0f} µs | ≤ 150 µs | {waits[49]:.2f} / {waits[98]:.2f} ms |")
        with running_postgres(find_programs(), is_durable=True) as server:
            place = parse_database(server.url(server.create_database()), server.password_file)
            cost, waits = runner.run(_measure(place, folder))
            print(f"| PostgreSQL | {cost:.0f} µs | ≤ 400 µs | {waits[49]:.2f} / {waits[98]:.2f} ms |")


if __name__ == "__main__":
    main()
