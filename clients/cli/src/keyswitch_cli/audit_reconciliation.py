"""Three books that must say the same: our audit log, Vault's own audit log, and the ledger of receipts. Pure.

Each is joined with the next both ways, so that a release which one of them does not know is found whoever kept silent.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

HEADER = "x-keyswitch-request-id"
KINDS = {
    "vault_read_without_lease": "Vault opened a secret, and no record of ours names that request",
    "vault_entry_missing": "a record of ours names a request that Vault's log does not have",
    "lease_without_vault_read": "a lease was given, and Vault's log has no opening of a secret for it",
    "call_differs": "Vault's log and ours name different calls for the same request",
    "lease_without_use": "a lease was given, and no use or test was reported under it",
    "use_without_lease": "a use was reported under a lease that no record gave",
    "purpose_differs": "a use says another purpose than its lease, its receipt or an earlier report of it allows",
    "lease_used_again": "a lease for a test or a list of models was used more than once, or for another call",
    "use_without_ledger": "a use was reported, and no receipt has that attempt",
    "ledger_without_use": "a receipt has an attempt under a lease, and no use was reported",
    "version_gone": "a version was added and never destroyed, and is not there any longer",
    "version_unknown": "a version is there that no record added",
}

Json = Mapping[str, Any]


_CALLS = frozenset({"COMPLETION", "EMBEDDING", "TOKEN_COUNT"})
"""What a lease in hand serves, whichever of them it was taken for. Anything else has a lease of its own."""
_WITHOUT_RECEIPT = frozenset({"TEST", "DISCOVERY", "TOKEN_COUNT", "LIMITS"})
"""What costs nothing and is on no receipt."""


@dataclass(frozen=True)
class Orphan:
    """What one book has and the other has not."""

    kind: str
    name: str
    detail: str


@dataclass
class Reconciliation:
    """What was compared, and what is left over."""

    matched: Counter[str] = field(default_factory=Counter)
    orphans: list[Orphan] = field(default_factory=list)
    purposes: Counter[str] = field(default_factory=Counter)
    """How many uses there were for each purpose."""
    without_receipt: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By credential version and purpose, those that have no receipt: only the provider has a book of them."""

    def add(self, kind: str, name: str, detail: str = "") -> None:
        """Notes something that is not explained."""
        self.orphans.append(Orphan(kind, name, detail))


@dataclass
class _Ledger:
    """What receipts say of attempts under leases."""

    calls: set[str] = field(default_factory=set)
    sent: dict[tuple[str, int, str], str] = field(default_factory=dict)
    """By call, number and lease; with the time at which the call ended, empty where that is not known."""
    unsent: set[str] = field(default_factory=set)
    """The leases of attempts that got no further, as where nobody listened at the provider's address."""


@dataclass
class _Log:
    """Our records, by what they are joined on."""

    calls: set[str] = field(default_factory=set)
    """The ids of all calls."""
    owners: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    """By Vault's request id: the names of our records and the ids of their calls. Several secrets may be opened with
    one request, which then names all of the calls."""
    leases: dict[str, Json] = field(default_factory=dict)
    uses: dict[tuple[str, int, str], Json] = field(default_factory=dict)
    restated: dict[tuple[str, int, str], Json] = field(default_factory=dict)
    """Of uses that were reported with two purposes: the other record."""
    tested: set[str] = field(default_factory=set)
    added: dict[str, str] = field(default_factory=dict)
    """The versions, and when each was added last."""
    ended: dict[str, str] = field(default_factory=dict)
    """What was destroyed, deleted or shredded, and when last: nothing that was there before is below it any more."""

    def add_use(self, record: Json) -> None:
        """Notes a use. A report may be repeated at another instance, which may be older and not record its purpose."""
        key = str(record.get("requestId", "")), int(record.get("attempt", 0)), str(record.get("leaseId", ""))
        known = self.uses.setdefault(key, record)
        if not _purpose(known):
            self.uses[key] = record
        elif _purpose(record) not in ("", _purpose(known)):
            self.restated[key] = record

    def purpose_of(self, key: tuple[str, int, str]) -> str:
        """What a use was for. Where it does not say, as in logs of before, its lease does."""
        return _purpose(self.uses[key]) or _purpose(self.leases.get(key[2], {}))

    def lasting(self) -> set[str]:
        """The versions that should be there. Chains are read one by one, so only times tell what came first."""
        return {
            name for name, time in self.added.items() if not any(self.ended.get(one, "") >= time for one in _up(name))
        }


def _up(name: str) -> Iterator[str]:
    """A resource's name, and those of what it is in."""
    parts = name.split("/")
    return ("/".join(parts[:length]) for length in range(len(parts), 0, -1))


def reconcile(
    records: Iterable[Json],
    *,
    vault_entries: Iterable[Json] | None = None,
    receipts: Iterable[Json] | None = None,
    versions: Iterable[str] | None = None,
    transit_mount: str = "keyswitch-transit",
    settled_before: str = "",
) -> Reconciliation:
    """Compares whatever was given. What is younger than `settled_before` (RFC 3339) may still be on its way: a lease
    without a use, or a use without a receipt, is no orphan yet."""
    log = _read(records)
    result = Reconciliation()
    if vault_entries is not None:
        _join_vault(log, vault_entries, transit_mount, result)
    ledger = None if receipts is None else _read_ledger(receipts)
    _join_uses(log, settled_before, result, set() if ledger is None else ledger.unsent)
    _join_purposes(log, result)
    if ledger is not None:
        _join_ledger(log, ledger, settled_before, result)
    if versions is not None:
        _join_versions(log, set(versions), result)
    return result


def _read(records: Iterable[Json]) -> _Log:
    log = _Log()
    for record in records:
        name = str(record.get("name", ""))
        call = str(record.get("callId", ""))
        log.calls.add(call)
        for request in record.get("vaultRequestIds", ()):
            log.owners[request].append((name, call))
        if record.get("outcome") == "AUDIT_OUTCOME_SUCCEEDED":
            _read_done(log, record)
    return log


def _read_done(log: _Log, record: Json) -> None:
    resource, lease = str(record.get("resource", "")), str(record.get("leaseId", ""))
    match record.get("action"):
        case "AUDIT_ACTION_LEASE":
            log.leases[lease] = record
        case "AUDIT_ACTION_USE":
            log.add_use(record)
        case "AUDIT_ACTION_TEST":
            log.tested.add(lease)
        case "AUDIT_ACTION_ADD_VERSION":
            log.added[resource] = max(log.added.get(resource, ""), _time(record))
        case "AUDIT_ACTION_DESTROY_VERSION" | "AUDIT_ACTION_DELETE_CREDENTIAL" | "AUDIT_ACTION_SHRED_TENANT":
            log.ended[resource] = max(log.ended.get(resource, ""), _time(record))
        case _:
            pass


def _join_vault(log: _Log, entries: Iterable[Json], transit_mount: str, result: Reconciliation) -> None:
    """Every opening of a secret (a decryption) has a record, and every request in a record has its entry."""
    seen: set[str] = set()
    opened: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        request = entry.get("request") or {}
        if entry.get("type") != "response":
            continue
        number, path = str(request.get("id", "")), str(request.get("path", ""))
        seen.add(number)
        is_release = path.startswith(f"{transit_mount}/decrypt/") and not entry.get("error")
        if number in log.owners:
            result.matched["vault requests"] += 1
            _compare_calls(log, request, is_release, result)
            if is_release:
                for name, _ in log.owners[number]:
                    opened[name].add(number)
                    result.matched["openings of a secret"] += 1
        elif is_release:
            result.add("vault_read_without_lease", number, f"{path} at {entry.get('time', '')}")
    for number, owners in log.owners.items():
        if number not in seen:
            result.add("vault_entry_missing", number, ", ".join(name for name, _ in owners))
    for lease, record in log.leases.items():
        if not opened.get(str(record.get("name"))):
            result.add("lease_without_vault_read", lease, str(record.get("name")))


def _compare_calls(log: _Log, request: Json, is_release: bool, result: Reconciliation) -> None:
    """The calls of our records are among those that Vault's entry names, those are calls of ours, and no more secrets
    were opened than for them. A call that was left on the way may be named by Vault's entry alone."""
    number, path, named = str(request.get("id", "")), request.get("path", ""), _header(request)
    for name, call in log.owners[number]:
        if named and call not in named:
            result.add("call_differs", number, f"{path}: Vault has {', '.join(named)}, {name} another")
    for call in named:
        if call and call not in log.calls:
            result.add("call_differs", number, f"{path}: Vault has {call}, no record of ours has")
    items = (request.get("data") or {}).get("batch_input")
    if is_release and isinstance(items, list) and len(items) > max(1, len(named)):
        result.add("vault_read_without_lease", number, f"{path}: {len(items)} secrets for {len(named)} calls")


def _join_uses(log: _Log, settled_before: str, result: Reconciliation, unsent: set[str]) -> None:
    used = {lease for _, _, lease in log.uses} | log.tested
    for lease, record in log.leases.items():
        if lease in used or lease in unsent:
            result.matched["leases"] += 1
        elif _is_settled(record, settled_before):
            result.add("lease_without_use", lease, f"{record.get('resource')} in {record.get('name')}")
    for (call, attempt, lease), record in log.uses.items():
        if lease in log.leases:
            result.matched["uses"] += 1
        else:
            result.add("use_without_lease", lease, f"{call}, attempt {attempt}, in {record.get('name')}")


def _join_purposes(log: _Log, result: Reconciliation) -> None:
    """What uses say of themselves, against the records of their leases, which were written before them."""
    first: dict[str, tuple[str, int, str]] = {}
    for key, record in log.uses.items():
        call, attempt, lease = key
        purpose, given = log.purpose_of(key), log.leases.get(lease, {})
        result.purposes[purpose.lower() or "unknown"] += 1
        if purpose in _WITHOUT_RECEIPT:
            result.without_receipt[str(given.get("resource", "")), purpose.lower()] += 1
        where = f"attempt {attempt} of {call} in {record.get('name')}"
        leased_for = _purpose(given)
        if leased_for and purpose != leased_for and not {purpose, leased_for} <= _CALLS:
            result.add("purpose_differs", lease, f"{where}: {purpose} under a lease for {leased_for}")
        is_again = first.setdefault(lease, key) != key or call != given.get("requestId")
        if leased_for and leased_for not in _CALLS and is_again:
            result.add("lease_used_again", lease, f"{where}: the lease was given for {given.get('requestId')}")
    for (call, attempt, lease), record in log.restated.items():
        names = f"{record.get('name')} and {log.uses[call, attempt, lease].get('name')}"
        result.add("purpose_differs", lease, f"attempt {attempt} of {call} in {names}")


def _read_ledger(receipts: Iterable[Json]) -> _Ledger:
    ledger = _Ledger()
    for receipt in receipts:
        call, end = str(receipt.get("responseId", "")), str(receipt.get("endTime", ""))
        ledger.calls.add(call)
        for attempt in receipt.get("attempts", ()):
            lease = str(attempt.get("leaseId", ""))
            if not lease:
                continue
            if "cost" in attempt:
                ledger.sent[call, int(attempt.get("number", 0)), lease] = end.rstrip("Z")
            else:
                ledger.unsent.add(lease)
    return ledger


def _join_ledger(log: _Log, ledger: _Ledger, settled_before: str, result: Reconciliation) -> None:
    for key, record in log.uses.items():
        needs_receipt = log.purpose_of(key) not in _WITHOUT_RECEIPT
        if not needs_receipt and key[0] in ledger.calls:
            where = f"attempt {key[1]} of {key[0]} in {record.get('name')}"
            result.add("purpose_differs", key[2], f"{where}: {log.purpose_of(key)}, and its call has a receipt")
        if key in ledger.sent:
            result.matched["receipts' attempts"] += 1
        elif not needs_receipt:
            result.matched["tests and counts"] += 1
        elif _is_settled(record, settled_before):
            result.add("use_without_ledger", key[0], f"attempt {key[1]} under {key[2]} in {record.get('name')}")
    for (call, number, lease), end in ledger.sent.items():
        is_settled = not settled_before or end < settled_before.rstrip("Z")
        if (call, number, lease) not in log.uses and is_settled:
            result.add("ledger_without_use", call, f"attempt {number} under {lease}")


def _join_versions(log: _Log, present: set[str], result: Reconciliation) -> None:
    for version in sorted(log.lasting() - present):
        result.add("version_gone", version)
    for version in sorted(present - set(log.added)):
        result.add("version_unknown", version)
    result.matched["versions"] += len(set(log.added) & present)


def _purpose(record: Json) -> str:
    return str(record.get("purpose", "")).removeprefix("LEASE_PURPOSE_")


def _header(request: Json) -> list[str]:
    """The ids of the calls as the service sent them, with commas; Vault keeps a list for each audited header."""
    for name, values in (request.get("headers") or {}).items():
        if str(name).lower() == HEADER and values:
            return str(values[0]).split(",")
    return []


def _is_settled(record: Json, settled_before: str) -> bool:
    return not settled_before or _time(record) < settled_before.rstrip("Z")


def _time(record: Json) -> str:
    """When it was written, as a text that sorts: without its last letter, which comes after a fraction's point."""
    return str(record.get("recordTime", "")).rstrip("Z")
