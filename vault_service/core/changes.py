"""The change log: what routers must drop, in gapless revisions that every instance of the service shares.

It is one bounded document, appended under compare-and-set. A reader that is too far behind is told to drop everything,
so nothing is lost by the bound. Revocations of tokens outlive it: each is kept until its token would expire anyway.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from vault_service.store.store import Conflict, Store, StoreError, Unavailable

PATH = "changes/log"
MAX_CHANGES = 256
MAX_ATTEMPTS = 32


@dataclass(frozen=True, slots=True)
class CredentialUpdated:
    """A change of one credential; `type` is a CredentialChangeType without its prefix."""

    type: str
    credential: str
    provider: str
    credential_version: str = ""
    active_version: str = ""
    kill_in_flight: bool = False


@dataclass(frozen=True, slots=True)
class OwnerRevoked:
    """Everything of an owner was disabled."""

    owner: str
    kill_in_flight: bool = False


@dataclass(frozen=True, slots=True)
class TokenRevoked:
    """A token was revoked."""

    token_id: str
    expire_time: float


@dataclass(frozen=True, slots=True)
class PolicyUpdated:
    """Whether users may keep keys changed."""

    owner: str


What = CredentialUpdated | OwnerRevoked | TokenRevoked | PolicyUpdated


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of the log."""

    revision: int
    change_time: float
    what: What


@dataclass(frozen=True, slots=True)
class Log:
    """What the document holds. `changes` are the newest ones, without gaps, up to `revision`."""

    revision: int = 0
    changes: tuple[Change, ...] = ()
    revoked: Mapping[str, Change] = field(default_factory=dict)

    def appended(self, whats: Sequence[What], time_seconds: float) -> "Log":
        """Gives the log with further changes, without what need not be remembered any longer."""
        added = tuple(Change(self.revision + 1 + i, time_seconds, what) for i, what in enumerate(whats))
        revoked = {token_id: change for token_id, change in self.revoked.items() if _expiry(change) > time_seconds}
        revoked |= {change.what.token_id: change for change in added if isinstance(change.what, TokenRevoked)}
        return Log(self.revision + len(added), (*self.changes, *added)[-MAX_CHANGES:], revoked)

    def since(self, after_revision: int, time_seconds: float, *, is_first: bool) -> tuple[bool, tuple[Change, ...]]:
        """Gives whether a reader that saw `after_revision` must drop everything, and what it is to be told.

        In a reader's first message 0 means that it saw nothing; later it means that nothing had happened yet.
        """
        first_kept = self.changes[0].revision if self.changes else self.revision + 1
        if (is_first and after_revision == 0) or after_revision > self.revision or after_revision < first_kept - 1:
            unexpired = (change for change in self.revoked.values() if _expiry(change) > time_seconds)
            return True, tuple(sorted(unexpired, key=lambda change: change.revision))
        return False, tuple(change for change in self.changes if change.revision > after_revision)


class ChangeLog:
    """The log as this instance knows it, and the way to append to it."""

    def __init__(
        self, store: Store, *, clock: Callable[[], float], monotonic: Callable[[], float], fresh_seconds: float
    ) -> None:
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        self._fresh_seconds = fresh_seconds
        self._log = Log()
        self._document_revision = -1
        self._read_time = float("-inf")
        self._is_closed = False
        self._listeners: list[Callable[[Sequence[Change] | None], None]] = []
        self._appending = asyncio.Lock()
        self._grown = asyncio.Condition()

    def listen(self, listener: Callable[[Sequence[Change] | None], None]) -> None:
        """Has changes told to a part of this process before anybody else hears of them; None: some were missed."""
        self._listeners.append(listener)

    @property
    def revision(self) -> int:
        """The newest revision that this instance knows."""
        return self._log.revision

    @property
    def is_fresh(self) -> bool:
        """Whether the log was read so lately that silence means: nothing changed."""
        return self._monotonic() - self._read_time <= self._fresh_seconds

    def is_revoked(self, token_id: str) -> bool:
        """Whether the token was revoked."""
        return token_id in self._log.revoked

    @property
    def is_loaded(self) -> bool:
        """Whether the log was ever read: before that nothing is known of revocations."""
        return self._document_revision >= 0

    @property
    def is_closed(self) -> bool:
        """Whether the service ends and readers are to go elsewhere."""
        return self._is_closed

    def since(self, after_revision: int, *, is_first: bool) -> tuple[bool, tuple[Change, ...]]:
        """See `Log.since`."""
        return self._log.since(after_revision, self._clock(), is_first=is_first)

    async def close(self) -> None:
        """Wakes every reader for the last time."""
        self._is_closed = True
        async with self._grown:
            self._grown.notify_all()

    async def refresh(self) -> None:
        """Reads what other instances have appended."""
        started, known = self._monotonic(), self._document_revision
        document = await self._store.read(PATH)
        revision = document.revision if document else 0
        if revision < known:  # a store that was restored or lags behind tells nothing of what was revoked since
            raise Unavailable("the change log is older than what was read before")
        if revision > self._document_revision:
            await self._adopt(_decode(document.value) if document else Log(), revision)
        self._read_time = max(self._read_time, started)

    async def append(self, whats: Sequence[What], *, request_id: str = "") -> int:
        """Appends and gives the revision of the last one. When it returns, every subscriber here can see them."""
        async with self._appending:
            for _ in range(MAX_ATTEMPTS):
                document = await self._store.read(PATH, request_id=request_id)
                log = _decode(document.value) if document else Log()
                grown = log.appended(whats, self._clock())
                try:
                    revision = await self._store.write(
                        PATH,
                        _encode(grown),
                        expected_revision=document.revision if document else 0,
                        request_id=request_id,
                    )
                except Conflict:
                    continue
                await self._adopt(grown, revision)
                return grown.revision
            raise Conflict("the change log is written too often")

    async def wait_beyond(self, revision: int, timeout_seconds: float) -> None:
        """Returns when the log has grown beyond the revision, or when the time is up."""
        try:
            async with asyncio.timeout(timeout_seconds), self._grown:
                await self._grown.wait_for(lambda: self._is_closed or self._log.revision > revision)
        except TimeoutError:
            return

    async def poll(
        self, interval_seconds: float, on_error: Callable[[StoreError], None], on_read: Callable[[], None]
    ) -> None:
        """Refreshes until it is cancelled; what fails is tried again, and shows in `is_fresh`."""
        while True:
            try:
                await self.refresh()
            except StoreError as error:
                on_error(error)
            else:
                on_read()
            await asyncio.sleep(interval_seconds)

    async def _adopt(self, log: Log, document_revision: int) -> None:
        if document_revision <= self._document_revision:
            return
        is_reset, changes = log.since(self._log.revision, self._clock(), is_first=False)
        self._log, self._document_revision = log, document_revision
        for listener in self._listeners:
            listener(None if is_reset else changes)
        async with self._grown:
            self._grown.notify_all()


def _expiry(change: Change) -> float:
    return change.what.expire_time if isinstance(change.what, TokenRevoked) else 0.0


def _encode(log: Log) -> bytes:
    document = {
        "revision": log.revision,
        "changes": [_change_to_json(change) for change in log.changes],
        "revoked": [_change_to_json(change) for change in log.revoked.values()],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _decode(value: bytes) -> Log:
    """Raises StoreError: what is no log says nothing of what was revoked, and is no empty one."""
    try:
        return _read(json.loads(value))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise StoreError("the change log is not what this service writes; something else writes to its store") from None


def _read(document: Mapping[str, Any]) -> Log:
    revoked = [_change_from_json(entry) for entry in document["revoked"]]
    return Log(
        document["revision"],
        tuple(_change_from_json(entry) for entry in document["changes"]),
        {change.what.token_id: change for change in revoked if isinstance(change.what, TokenRevoked)},
    )


def _change_to_json(change: Change) -> dict[str, Any]:
    entry: dict[str, Any] = {"revision": change.revision, "time": change.change_time}
    what = change.what
    match what:
        case CredentialUpdated():
            entry["credential"] = [
                what.type,
                what.credential,
                what.provider,
                what.credential_version,
                what.active_version,
                what.kill_in_flight,
            ]
        case OwnerRevoked():
            entry["owner"] = [what.owner, what.kill_in_flight]
        case TokenRevoked():
            entry["token"] = [what.token_id, what.expire_time]
        case PolicyUpdated():
            entry["policy"] = [what.owner]
        case _:
            assert_never(what)
    return entry


def _change_from_json(entry: Mapping[str, Any]) -> Change:
    what: What
    match entry:
        case {"credential": [str(), *_] as values}:
            what = CredentialUpdated(*values)
        case {"owner": [owner, kill]}:
            what = OwnerRevoked(owner, kill)
        case {"token": [token_id, expire_time]}:
            what = TokenRevoked(token_id, expire_time)
        case {"policy": [owner]}:
            what = PolicyUpdated(owner)
        case _:
            raise ValueError("the change log was written by a newer version of this service")
    return Change(entry["revision"], entry["time"], what)
