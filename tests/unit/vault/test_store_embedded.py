"""What holds for the embedded store besides the suite: its files, its root key, and what others find in them."""

import asyncio
import errno
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from vault_service.store import embedded_database
from vault_service.store.embedded import EmbeddedStore
from vault_service.store.store import StoreError, Unavailable


async def written(folder: Path) -> bytes:
    """Makes a store with one sealed document in it; gives the sealed bytes."""
    store = await EmbeddedStore.open(folder)
    sealed = await store.seal("deployment", b"secret", context="c")
    await store.write("a", sealed, expected_revision=0)
    await store.close()
    return sealed


async def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        store = await EmbeddedStore.open(tmp_path / "deep" / "store")
        await store.write("a", b"x", expected_revision=0)
        files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "deep" / "store").iterdir()}
    finally:
        os.umask(umask)
    await store.close()
    for made in (tmp_path / "deep", tmp_path / "deep" / "store"):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert {"store.db", "store.db-wal", "root.key"} <= set(files)
    assert set(files.values()) == {0o600}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620])
async def test_a_root_key_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "store"
    await written(folder)
    (folder / "root.key").chmod(mode)
    with pytest.raises(StoreError, match="chmod 0600"):
        await EmbeddedStore.open(folder)
    (folder / "root.key").chmod(0o600)
    await (await EmbeddedStore.open(folder)).close()


async def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(StoreError, match="chmod 0700"):
        await EmbeddedStore.open(folder)
    assert list(folder.iterdir()) == []


async def test_a_link_in_place_of_the_root_key_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    await written(folder)
    (folder / "root.key").rename(tmp_path / "elsewhere")
    (folder / "root.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="symbolic link"):
        await EmbeddedStore.open(folder)


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
async def test_a_root_key_of_another_size_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "store"
    await written(folder)
    (folder / "root.key").write_bytes(content)
    with pytest.raises(StoreError, match="32 bytes"):
        await EmbeddedStore.open(folder)


async def test_a_lost_root_key_is_not_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    await written(folder)
    (folder / "root.key").rename(tmp_path / "backup")
    with pytest.raises(StoreError, match="is gone"):
        await EmbeddedStore.open(folder)
    assert not (folder / "root.key").exists()
    (tmp_path / "backup").rename(folder / "root.key")
    await (await EmbeddedStore.open(folder)).close()


async def test_the_root_key_of_another_store_is_noticed_at_once(tmp_path: Path) -> None:
    await written(tmp_path / "store")
    await written(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "root.key", tmp_path / "store" / "root.key")
    with pytest.raises(StoreError, match="not the one"):
        await EmbeddedStore.open(tmp_path / "store")


async def test_one_root_key_is_made_when_a_draft_was_left_by_a_crash(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir(mode=0o700)
    (folder / f".root.key.{os.getpid()}").write_bytes(b"half")
    await written(folder)
    assert len((folder / "root.key").read_bytes()) == 32
    assert [file.name for file in folder.iterdir() if file.name.startswith(".")] == []


async def test_a_second_opener_is_refused(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path / "store")
    with pytest.raises(Unavailable, match="another process"):
        await EmbeddedStore.open(tmp_path / "store")
    await store.close()
    await (await EmbeddedStore.open(tmp_path / "store")).close()


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\x00" + b"\xff" * 4096])
async def test_a_damaged_file_is_told(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "store"
    await written(folder)
    (folder / "store.db").write_bytes(content)
    with pytest.raises(StoreError, match="damaged or no store"):
        await EmbeddedStore.open(folder)


async def test_a_store_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    await written(folder)
    connection = sqlite3.connect(folder / "store.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="newer version"):
        await EmbeddedStore.open(folder)


async def test_a_full_disk_is_unavailable_and_leaves_the_old_value(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path / "store")
    await store.write("a", b"old", expected_revision=0)
    connection = store._database._connection
    await store._run(lambda: connection.execute("PRAGMA max_page_count = 40").fetchall())
    with pytest.raises(Unavailable, match="SQLITE_FULL"):
        await store.write("a", b"x" * 100_000, expected_revision=1)
    await store._run(lambda: connection.execute("PRAGMA max_page_count = 100000").fetchall())
    found = await store.read("a")
    assert found is not None
    assert (found.value, found.revision) == (b"old", 1)
    assert await store.write("a", b"new", expected_revision=1) == 2
    await store.close()


async def test_an_acknowledged_write_is_there_after_a_kill(tmp_path: Path) -> None:
    program = """
import asyncio, os, signal, sys
from pathlib import Path
from vault_service.store.embedded import EmbeddedStore
async def main():
    store = await EmbeddedStore.open(Path(sys.argv[1]))
    for number in range(40):
        await store.write("a", str(number).encode(), expected_revision=number)
    await store.write("b", await store.seal("deployment", b"secret", context="c"), expected_revision=0)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    folder = tmp_path / "store"
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, str(folder)],
        check=False,
        env={**os.environ, "PYTHONPATH": "."},
        timeout=60,
    )
    assert done.returncode == -9
    store = await EmbeddedStore.open(folder)
    found, sealed = await store.read("a"), await store.read("b")
    assert found is not None
    assert (found.value, found.revision) == (b"39", 40)
    assert sealed is not None
    assert await store.unseal("deployment", sealed.value, context="c") == b"secret"
    await store.close()


async def test_nothing_readable_is_in_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store = await EmbeddedStore.open(folder)
    sealed = await store.seal("organizations/acme", b"sk-canary-7d1f", context="c")
    await store.write("a", sealed, expected_revision=0)
    await store.sign(b"x")
    keys = [key.secret for key in store._database._keys.values()]
    root_key = (folder / "root.key").read_bytes()
    await store.close()
    assert len(keys) == 3  # the check of the root key, one tenant, the signing key
    database = (folder / "store.db").read_bytes()
    assert sealed in database
    for secret in (b"sk-canary", root_key, *keys):
        assert secret not in database


@pytest.mark.parametrize("seed", range(4))
async def test_no_value_outlives_its_document_however_pages_are_moved(tmp_path: Path, seed: int) -> None:
    """Random writes, replacements and deletions of many sizes, so that pages split, merge, overflow and are reused."""
    chance = random.Random(seed)
    folder = tmp_path / "store"
    store = await EmbeddedStore.open(folder)
    living: dict[str, tuple[int, bytes]] = {}
    dead: list[bytes] = []
    for number in range(250):
        marker = f"<{seed}-{number}-{chance.getrandbits(64):016x}>".encode()
        value = marker * chance.choice([1, 1, 2, 7, 40, 200, 600])
        path = f"p/{chance.randrange(40)}"
        revision, old = living.get(path, (0, b""))
        if revision and chance.random() < 0.45:
            await store.delete(path)
            del living[path]
        else:
            living[path] = (await store.write(path, value, expected_revision=revision), marker)
        if old:
            dead.append(old)
    files = b"".join(file.read_bytes() for file in folder.iterdir())
    await store.close()
    assert len(dead) > 50
    assert all(marker in files for _, marker in living.values())
    assert [marker for marker in dead if marker in files] == []


async def test_a_caller_that_goes_away_leaves_a_whole_write(tmp_path: Path) -> None:
    store = await EmbeddedStore.open(tmp_path / "store")
    write = asyncio.create_task(store.write("a", b"x" * 50_000, expected_revision=0))
    await asyncio.sleep(0)
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write
    found = await store.read("a")  # behind it in the one thread
    assert found is None or found.value == b"x" * 50_000
    await store.close()


async def test_a_key_file_that_cannot_be_opened_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "store"
    await written(folder)
    real_open = os.open

    def refusing(path: object, *arguments: object, **named: object) -> int:
        if str(path).endswith("root.key"):
            raise OSError(errno.EACCES, "refused")
        return real_open(path, *arguments, **named)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(StoreError, match="cannot be opened"):
        await EmbeddedStore.open(folder)


@pytest.mark.parametrize("step", ["before the file", "in the file", "before the exchange", "done"])
async def test_a_root_key_rotation_that_dies_leaves_a_store_that_opens(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    sealed = await written(folder)
    before = (folder / "root.key").read_bytes()

    class Died(Exception):
        pass

    def die(*_: object) -> None:
        raise Died

    store = await EmbeddedStore.open(folder)
    with monkeypatch.context() as patch:
        match step:
            case "before the file":
                patch.setattr(embedded_database, "open_envelope", die)
            case "in the file":
                patch.setattr(embedded_database, "close_envelope", die)
            case "before the exchange":
                patch.setattr(embedded_database, "replace_root_key", die)
        with suppress(Died):
            await store.rotate_root_key()
    await store.close()
    for _ in range(2):
        store = await EmbeddedStore.open(folder)
        assert await store.unseal("deployment", sealed, context="c") == b"secret"
        await store.close()
        assert not (folder / embedded_database.NEXT_ROOT_KEY).exists()
    is_rotated = step in {"before the exchange", "done"}
    assert ((folder / "root.key").read_bytes() != before) is is_rotated


async def test_what_was_under_the_old_root_key_is_gone_from_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    await written(folder)
    connection = sqlite3.connect(folder / "store.db")
    wrapped = [row[0] for row in connection.execute("SELECT wrapped FROM wrapped_key")]
    connection.close()
    store = await EmbeddedStore.open(folder)
    await store.rotate_root_key()
    await store.close()
    left = b"".join(file.read_bytes() for file in folder.iterdir())
    assert len(wrapped) == 2
    assert not [one for one in wrapped if one in left]
