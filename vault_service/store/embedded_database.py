"""The SQLite file of the embedded store. Everything here blocks and belongs to one thread.

SQLite is asked for more than its defaults, each for a reason:
- `journal_mode=WAL` with `synchronous=FULL`: a commit is on the disk when it returns;
- `locking_mode=EXCLUSIVE`: one process owns the file. A second service over it would have an audit log that misses
  half of the releases; and with no foreign reader a checkpoint always completes;
- `secure_delete=ON`: pages that become free are overwritten with zeros;
- small pages, and padding before each value: when SQLite splits and merges pages it leaves copies of the rows it moved,
  which `secure_delete` does not find. It moves only the first bytes of a row, though; what does not fit stays on
  overflow pages, which are never copied and are zeroed whole. The padding takes all the room of the first bytes (a page
  less 35, by SQLite's file format), so that no byte of a value is ever among them;
- a truncating checkpoint after every deletion and replacement: until then the earlier value would stay readable in the
  write-ahead log. (Blocks that the file system or the disk keep by themselves are beyond a program's reach; what they
  hold is ciphertext under the root key.)
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vault_service.store.envelope import KEY_BYTES, RandomBytes, close_envelope, open_envelope
from vault_service.store.root_key import create_root_key, make_folder, read_root_key, replace_root_key
from vault_service.store.store import Conflict, Document, StoreError, Unavailable, Unsealable

_SCHEMA_VERSION = 1
_PAGE_BYTES = 512
_SCHEMA = (
    "CREATE TABLE document (path TEXT PRIMARY KEY, revision INTEGER NOT NULL, padding BLOB NOT NULL,"
    " value BLOB NOT NULL) STRICT",
    "CREATE TABLE wrapped_key (name TEXT PRIMARY KEY, wrapped BLOB NOT NULL, create_time REAL NOT NULL) STRICT",
)
_CANARY_KEY = "root-check"
NEXT_ROOT_KEY = "root.key.next"


@dataclass(frozen=True, slots=True, repr=False)
class NamedKey:
    """A key that was unwrapped. It has no repr that shows it."""

    secret: bytes
    create_time: float


class EmbeddedDatabase:
    """Documents and wrapped keys in one file, with the root key in a second one beside it."""

    def __init__(self, folder: Path, *, clock: Callable[[], float], random_bytes: RandomBytes) -> None:
        self._clock = clock
        self._random_bytes = random_bytes
        self._keys: dict[str, NamedKey] = {}
        make_folder(folder)
        database = folder / "store.db"
        # SQLite gives its log file the database's mode, so the first file decides.
        os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        database.chmod(0o600)
        self._connection = sqlite3.connect(database, isolation_level=None, timeout=0)
        try:
            with _translated():
                self._prepare()
            self._root_key_path = folder / "root.key"
            self._root_key = self._load_root_key(self._root_key_path)
            self._verify_root_key()
        except BaseException:  # whatever it was, the file is let go of
            self._connection.close()
            raise

    def read(self, path: str) -> Document | None:
        with _translated():
            row = self._connection.execute("SELECT value, revision FROM document WHERE path = ?", (path,)).fetchone()
        return Document(row[0], row[1]) if row else None

    def write(self, path: str, value: bytes, expected_revision: int) -> int:
        with _translated(), self._transaction():
            if expected_revision == 0:
                done = self._connection.execute(
                    "INSERT OR IGNORE INTO document VALUES (?, 1, zeroblob(?), ?)", (path, _PAGE_BYTES, value)
                )
            else:
                done = self._connection.execute(
                    "UPDATE document SET value = ?, revision = revision + 1 WHERE path = ? AND revision = ?",
                    (value, path, expected_revision),
                )
            if done.rowcount != 1:
                raise Conflict("the document is not at the expected revision")
        if expected_revision:
            self._forget_earlier()
        return expected_revision + 1

    def delete(self, path: str) -> None:
        with _translated(), self._transaction():
            self._connection.execute("DELETE FROM document WHERE path = ?", (path,))
        # Also when nothing was deleted: an earlier call may have died between its commit and its checkpoint.
        self._forget_earlier()

    def paths_below(self, folder: str) -> list[str]:
        # "0" is the character after "/": the range holds exactly what begins with "folder/".
        bounds = (f"{folder}/", f"{folder}0") if folder else ("", "\U0010ffff")
        with _translated():
            rows = self._connection.execute("SELECT path FROM document WHERE path >= ? AND path < ?", bounds)
            return [row[0] for row in rows]

    def find_key(self, name: str) -> NamedKey | None:
        """Gives an unwrapped key. Unwrapped keys are kept: the root key that opens them is in memory all the same."""
        if name not in self._keys:
            with _translated():
                row = self._connection.execute(
                    "SELECT wrapped, create_time FROM wrapped_key WHERE name = ?", (name,)
                ).fetchone()
            if row is None:
                return None
            self._keys[name] = NamedKey(open_envelope(self._root_key, row[0], ("key", name)), row[1])
        return self._keys[name]

    def held_key(self, name: str) -> NamedKey | None:
        """Gives a key that is unwrapped already. The one thing here that any thread may ask."""
        return self._keys.get(name)

    def make_key(self, name: str) -> NamedKey:
        """Gives the key of that name; makes it where there is none."""
        found = self.find_key(name)
        if found is not None:
            return found
        wrapped = close_envelope(self._root_key, self._random_bytes(KEY_BYTES), ("key", name), self._random_bytes)
        with _translated(), self._transaction():
            self._connection.execute("INSERT INTO wrapped_key VALUES (?, ?, ?)", (name, wrapped, self._clock()))
        made = self.find_key(name)
        if made is None:
            raise StoreError("a key that was just written is not there")
        return made

    def newest_version(self, name: str) -> int:
        """Gives the newest version of a key of that name; 0 where there is none."""
        with _translated():
            rows = self._connection.execute(
                "SELECT name FROM wrapped_key WHERE name = ? OR name LIKE ? ESCAPE '!'", (name, _later_versions(name))
            ).fetchall()
        return max((_version_of(row[0]) for row in rows), default=0)

    def make_newest_key(self, name: str) -> tuple[int, NamedKey]:
        """Gives the newest version of a key and the key; makes the first one where there is none."""
        version = self.newest_version(name) or 1
        return version, self.make_key(version_name(name, version))

    def delete_keys(self, name: str, *, below: int | None = None) -> None:
        """Deletes all versions of a key, or those below a version, from the file too."""
        newest = self.newest_version(name)
        doomed = [version_name(name, version) for version in range(1, newest + 1) if below is None or version < below]
        with _translated(), self._transaction():
            for one in doomed:
                self._connection.execute("DELETE FROM wrapped_key WHERE name = ?", (one,))
                self._keys.pop(one, None)
        with _translated():
            # A small row leaves copies behind when pages are merged (see above); a file written anew has none.
            self._connection.execute("VACUUM")
        self._forget_earlier()

    def rotate_root_key(self) -> None:
        """Wraps every key anew under another root key.

        The next key is on the disk before the file is changed and takes the old one's place after; a crash in between
        leaves both, and the one that opens the store is found at the next start.
        """
        next_path = self._root_key_path.with_name(NEXT_ROOT_KEY)
        next_key = create_root_key(next_path, self._random_bytes)
        with _translated(), self._transaction():
            rows = self._connection.execute("SELECT name, wrapped FROM wrapped_key").fetchall()
            for name, wrapped in rows:
                secret = open_envelope(self._root_key, wrapped, ("key", name))
                anew = close_envelope(next_key, secret, ("key", name), self._random_bytes)
                self._connection.execute("UPDATE wrapped_key SET wrapped = ? WHERE name = ?", (anew, name))
        self._root_key = next_key
        replace_root_key(self._root_key_path, next_path)
        with _translated():
            self._connection.execute("VACUUM")
        self._forget_earlier()

    def check(self) -> None:
        """Proves that the file can be written: takes the write lock and lets it go."""
        with _translated(), self._transaction():
            pass

    def close(self) -> None:
        with _translated():
            self._connection.close()

    def _prepare(self) -> None:
        # The page size comes first: it is fixed by the first write, and the change to WAL is one.
        for pragma in (
            f"page_size={_PAGE_BYTES}",
            "locking_mode=EXCLUSIVE",
            "journal_mode=WAL",
            "synchronous=FULL",
            "secure_delete=ON",
        ):
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        # In exclusive mode the lock is taken by the first transaction and then kept.
        with self._transaction():
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if version > _SCHEMA_VERSION:
                raise StoreError("the store was written by a newer version of this service; run that one")
            if version == 0:
                for statement in _SCHEMA:
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")

    def _load_root_key(self, path: Path) -> bytes:
        key = read_root_key(path)
        if key is not None:
            return key
        with _translated():
            used = self._connection.execute("SELECT count(*) FROM wrapped_key").fetchone()[0]
        if used:
            raise StoreError(
                f"the root key {path} is gone, and without it nothing in this store can be opened; "
                "restore the file, or start with an empty folder"
            )
        return create_root_key(path, self._random_bytes)

    def _verify_root_key(self) -> None:
        """Finds a root key of another store now, not at the first credential that does not open.

        Ends a rotation of the root key that was cut off: either nothing is under the next key yet, or everything is.
        """
        next_path = self._root_key_path.with_name(NEXT_ROOT_KEY)
        next_key = read_root_key(next_path)
        try:
            self.make_key(_CANARY_KEY)
            next_path.unlink(missing_ok=True)
            return
        except Unsealable:
            problem = StoreError("the root key is not the one this store was written with; restore the right file")
        if next_key is not None:
            self._root_key = next_key
            with suppress(Unsealable):
                self.make_key(_CANARY_KEY)
                replace_root_key(self._root_key_path, next_path)
                return
        raise problem

    def _forget_earlier(self) -> None:
        with _translated():
            busy = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            raise Unavailable("the store could not clear its log of earlier values")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:  # whatever it was, half a change must not stay open
            # A full disk or a failing one has ended the transaction already.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def version_name(name: str, version: int) -> str:
    """Names a version of a key; the first one bears the plain name."""
    return name if version == 1 else f"{name}@{version}"


def _version_of(name: str) -> int:
    return int(name.rpartition("@")[2]) if "@" in name else 1


def _later_versions(name: str) -> str:
    """The pattern of LIKE for the versions after the first one."""
    return name.replace("!", "!!").replace("_", "!_").replace("%", "!%") + "@%"


@contextmanager
def _translated() -> Iterator[None]:
    """Makes one of our errors of what SQLite raises. Its texts name files and statements, so they stay here."""
    problem: StoreError
    try:
        yield
        return
    except sqlite3.OperationalError as fault:
        locked = fault.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
        if locked:
            problem = Unavailable("another process has the store open; each service needs a store of its own")
        else:
            problem = Unavailable(f"the store's file cannot be used now ({fault.sqlite_errorname})")
    except sqlite3.DatabaseError as fault:
        name = getattr(fault, "sqlite_errorname", type(fault).__name__)
        problem = StoreError(f"the store's file is damaged or no store ({name}); restore it from its backup")
    raise problem from None
