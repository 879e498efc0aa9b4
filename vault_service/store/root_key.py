"""The root key of the embedded store: 32 bytes in a file that only its owner may read.

Who reads this file and the database reads every credential, so a file that others may read is refused and not
repaired: whoever could read it may have done so already, and the operator must know.
"""

import errno
import os
import stat
from pathlib import Path

from vault_service.store.envelope import KEY_BYTES, RandomBytes
from vault_service.store.store import StoreError


def make_folder(folder: Path) -> None:
    """Makes the store's folder for its owner alone, or refuses one that others may enter."""
    for missing in [parent for parent in reversed(folder.parents) if not parent.exists()]:
        missing.mkdir(mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.stat()
    _refuse_foreign(folder, found, owner_only="0700")


def read_root_key(path: Path) -> bytes | None:
    """Gives the key, None where there is no file. Raises StoreError for a file that must not be trusted."""
    try:
        # O_NOFOLLOW: a link could lead to a file whose folder others may write.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as fault:
        reason = "is a symbolic link" if fault.errno == errno.ELOOP else "cannot be opened"
        problem = StoreError(f"the root key {path} {reason}; put the key file itself there, readable by this user")
    else:
        with os.fdopen(descriptor, "rb") as file:
            _refuse_foreign(path, os.fstat(file.fileno()), owner_only="0600")
            key = file.read(KEY_BYTES + 1)
        if len(key) == KEY_BYTES:
            return key
        problem = StoreError(f"the root key {path} is not {KEY_BYTES} bytes long; restore it from its backup")
    raise problem


def create_root_key(path: Path, random_bytes: RandomBytes) -> bytes:
    """Makes the key so that it is there whole or not at all, also after a crash; of two makers one wins for both."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(random_bytes(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    try:
        # A link, unlike a rename, never replaces a key that is there already.
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    _sync_folder(path.parent)
    key = read_root_key(path)
    if key is None:
        raise StoreError(f"the root key {path} vanished while it was made; is another program clearing its folder?")
    return key


def replace_root_key(path: Path, next_path: Path) -> None:
    """Puts the next key in the place of the present one."""
    next_path.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_foreign(path: Path, found: os.stat_result, *, owner_only: str) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise StoreError(
            f"{path} has mode {mode:04o}, so others can reach the root key; make sure that nobody did, "
            f"then run: chmod {owner_only} {path}"
        )
    if found.st_uid != os.geteuid():
        raise StoreError(f"{path} belongs to another user than this service runs as; run: chown it to the service")
