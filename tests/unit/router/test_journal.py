"""What is owed to the ledger, on the disk: found again after a crash, gone when it is paid."""

import os
from pathlib import Path

import pytest

from router_service.core.database import SqliteDatabase
from router_service.ledger import journal as journal_module
from router_service.ledger.journal import Debt, Journal, Settlement, key_of
from router_service.ledger.ledger import Balance
from router_service.ledger.sql_ledger import SqlLedger, open_ledger
from tests.suites.ledger_values import FULL, LATER, NOW, Clock, make_receipt, reason_of, spend

OWED = (Settlement("r", 1, 40, 38), Settlement("r", 2), FULL, make_receipt("é\n"))


def crash(journal: Journal) -> None:
    """Ends it as a kill does: what was written stays, and the locks go."""
    for segment in {id(one): one for one in (*journal._open.values(), journal._current)}.values():
        os.close(segment.number)


def find(folder: Path) -> list[Debt]:
    """What the next process finds."""
    journal = Journal(folder)
    found = journal.found
    journal.close()
    return found


async def test_what_is_owed_is_found_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for debt in OWED:
        journal.add(debt)
    await journal.sync()
    crash(journal)
    assert find(tmp_path) == list(OWED)
    assert find(tmp_path) == list(OWED)  # still nobody has paid


async def test_what_is_paid_is_not_found_and_leaves_no_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for debt in OWED:
        journal.add(debt)
    crash(journal)
    second = Journal(tmp_path)
    for debt in OWED:
        second.pay(key_of(debt))
    assert len(second) == 0
    second.close()
    assert list(tmp_path.iterdir()) == []


async def test_files_are_private(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "made")
    journal.add(FULL)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "made").iterdir()] == [0o600]
    journal.close()


async def test_files_of_a_process_that_lives_are_left_alone(tmp_path: Path) -> None:
    living = Journal(tmp_path)
    living.add(FULL)
    assert find(tmp_path) == []
    living.close()
    assert find(tmp_path) == [FULL]


@pytest.mark.parametrize("cut", [1, 20, 200])
async def test_a_line_that_was_cut_short_is_left_out(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path)
    journal.add(OWED[0])
    journal.add(FULL)
    crash(journal)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-cut])
    assert find(tmp_path) == [OWED[0]]


async def test_a_damaged_line_is_counted_and_its_file_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for debt in OWED:
        journal.add(debt)
    crash(journal)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes().replace(b'"attempt":2', b'"attempt":3'))
    second = Journal(tmp_path)
    assert second.found == [OWED[0], *OWED[2:]]
    assert second.damaged_count == 1
    for debt in OWED:
        second.pay(key_of(debt))
    second.close()
    assert [left.suffix for left in tmp_path.iterdir()] == [".damaged"]


async def test_files_are_bounded_and_go_when_they_are_paid(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes=2000)
    debts = [Settlement(f"r{number}", 1, number) for number in range(200)]
    for debt in debts:
        journal.add(debt)
    assert len(list(tmp_path.iterdir())) > 5
    assert all(path.stat().st_size <= 2000 for path in tmp_path.iterdir())
    for debt in debts:
        journal.pay(debt.key)
    assert len(list(tmp_path.iterdir())) == 1
    journal.close()


async def test_a_file_that_never_rests_is_cut_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(1000):
        journal.add(Settlement(f"r{number}", 1, number))
        journal.pay((f"r{number}", 1))
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size <= journal_module.KEPT_BYTES
    journal.close()


async def open_with(home: Path, outbox: Path) -> SqlLedger:
    return await open_ledger(SqliteDatabase(home / "l.db"), Clock(), outbox=outbox, flush_interval_seconds=3600)


async def test_a_ledger_pays_what_a_crash_left(tmp_path: Path) -> None:
    outbox = tmp_path / "outbox"
    first = await open_with(tmp_path, outbox)
    await first.add_credits("acme", 100, "id", "", NOW)
    await first.reserve("r", 1, spend("acme", 60), LATER)
    await first.reserve("s", 1, spend("acme", 30), LATER)
    await first.close()
    journal = Journal(outbox)
    for debt in (Settlement("r", 1, 40, 38), Settlement("s", 1), Settlement("unknown", 1, 5), make_receipt("r")):
        journal.add(debt)
    journal.add(make_receipt("r", principal="users/later"))
    crash(journal)
    for _ in range(2):  # the second finds nothing, and would change nothing
        ledger = await open_with(tmp_path, outbox)
        assert await ledger.balance("acme") == Balance("acme", 60, 0)
        assert await ledger.get_receipt("r") == make_receipt("r", principal="users/later")
        assert (await ledger.verify()).is_right
        await ledger.close()
        assert list(outbox.iterdir()) == []


async def test_a_ledger_owes_until_it_is_settled_and_written(tmp_path: Path) -> None:
    outbox = tmp_path / "outbox"
    ledger = await open_with(tmp_path, outbox)
    await ledger.add_credits("acme", 100, "id", "", NOW)
    await ledger.reserve("r", 1, spend("acme", 60), LATER)
    ledger.owe("r", 1, 40, 38)
    assert ledger.record_soon(make_receipt("r"))
    await ledger.sync()
    (path,) = outbox.iterdir()
    assert path.read_bytes().count(b"\n") == 2
    await ledger.settle("r", 1, 40, "r", 38)
    await ledger.flush()
    await ledger.close()
    assert list(outbox.iterdir()) == []


async def test_a_disk_that_takes_nothing_is_said_and_got_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = await open_with(tmp_path, tmp_path / "outbox")

    def refuse(_number: int, _data: bytes) -> int:
        raise OSError(28, "no space left on device")

    with monkeypatch.context() as full:
        full.setattr("router_service.ledger.journal.os.write", refuse)
        assert ledger.record_soon(make_receipt("a"))
        assert not ledger.can_queue
        await ledger.sync()  # the ledger itself has it then
        await ledger.sweep()
        assert not ledger.can_queue
    await is_mended(ledger)


async def is_mended(ledger: SqlLedger) -> None:
    assert await ledger._writer.submit(lambda c: c.execute("SELECT count(*) FROM receipts").fetchone()) == (1,)
    await ledger.sweep()
    assert ledger.can_queue
    await ledger.close()


async def test_an_outbox_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert (await reason_of(open_with(tmp_path, tmp_path / "file"))).value == "LEDGER_UNAVAILABLE"
