"""Promise 7: every release joins to Vault's own audit log, both ways, on a real server; orphans are found."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from keyswitch.vault.v1 import lease_pb2
from keyswitch.vault.v1 import lease_service_pb2 as leases
from keyswitch_cli.audit_reconciliation import KINDS, Reconciliation, reconcile
from keyswitch_cli.main import app
from typer.testing import CliRunner

from tests.fakes.vault_server import VaultServer
from tests.security.promises import count, tried
from tests.service.vault_harness import ACME, ADA, MAIN, Client, Vault, running_vault
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.vault_settings import AppRoleFiles, VaultSettings

VERSION = f"{MAIN}/versions/1"
AT_ONCE = 20


async def lease_and_use(vault: Vault, ada: Client, number: int) -> dict[str, Any]:
    """One call as a router makes it: a lease, an attempt, its report. Gives the receipt that the ledger would have."""
    call = f"response-{number}"
    lease = await vault.take(f"{MAIN}/versions/active", ada.token, request_id=call)
    request = leases.ReportUsesRequest()
    outcome = lease_pb2.CREDENTIAL_USE_OUTCOME_SUCCEEDED
    use = request.uses.add(lease_id=lease.lease_id, request_id=call, principal=ADA, attempt=1, outcome=outcome)
    use.use_time.GetCurrentTime()
    if number % 2:  # the others are reported as by a router of before
        use.purpose = lease_pb2.LEASE_PURPOSE_COMPLETION
    await vault.lease.call(vault.lease.leases.ReportUses, request)
    return {"responseId": call, "attempts": [{"number": 1, "leaseId": lease.lease_id, "cost": {}}]}


@pytest.mark.vault
@pytest.mark.timeout(count(300, 1700))
async def test_everything_joins_and_what_does_not_is_found(own_vault_server: VaultServer, tmp_path: Path) -> None:
    server, calls = own_vault_server, count(100, 10_000)
    files = AppRoleFiles(*server.write_credentials(tmp_path))
    store = HashiCorpStore(VaultSettings(server.url, files, ca_file=server.ca_file))
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    receipts: list[dict[str, Any]] = []
    async with running_vault(home, store=store) as vault:
        admin = await vault.issue(ACME, "ADMIN")
        ada = await vault.issue(ACME, "MEMBER", user=ADA)
        await vault.ready(admin)
        for start in range(0, calls, AT_ONCE):
            numbers = range(start, min(calls, start + AT_ONCE))
            receipts += await asyncio.gather(*(lease_and_use(vault, ada, number) for number in numbers))
        records = [json.loads(line) for line in vault.audit_bytes().splitlines()]
        entries = server.audit_records()
        result = reconcile(records, vault_entries=entries, receipts=receipts, versions=[VERSION])
        assert not result.orphans, (
            len(result.orphans),
            Counter(one.kind for one in result.orphans),
            result.orphans[:3],
        )
        assert result.matched["openings of a secret"] == result.matched["leases"] == calls
        assert result.matched["uses"] == result.matched["receipts' attempts"] == calls
        # Somebody with a token of Vault's opens the secret beside the service.
        stored = server.require("GET", f"keyswitch/data/{_material_path(entries)}")["data"]["data"]
        assert stored
        sealed = server.require("POST", "keyswitch-transit/encrypt/tenant-organizations-acme", {"plaintext": "eA=="})
        cipher = {"ciphertext": sealed["data"]["ciphertext"]}
        server.require("POST", "keyswitch-transit/decrypt/tenant-organizations-acme", cipher)
    stolen = reconcile(records, vault_entries=server.audit_records(), receipts=receipts, versions=[VERSION])
    assert [one.kind for one in stolen.orphans] == ["vault_read_without_lease"]
    tried(7, "calls over a real Vault server joined both ways", calls=calls, orphans=0)
    tried(7, "a secret opened beside the service, found", seeded=1, found=1)
    log, ledger = tmp_path / "vault.log", tmp_path / "receipts.jsonl"
    log.write_text("\n".join(json.dumps(one) for one in server.audit_records()))
    ledger.write_text("\n".join(json.dumps(one) for one in receipts))
    check_command(home, tmp_path, log, ledger)


def check_command(home: Path, folder: Path, log: Path, ledger: Path) -> None:
    metrics = folder / "audit.prom"
    arguments = ["audit", "reconcile", "--records", str(home / "audit" / "vault-0"), "--metrics", str(metrics)]
    ran = CliRunner().invoke(app, [*arguments, "--vault-log", str(log), "--receipts", str(ledger)])
    assert ran.exit_code == 1, ran.output
    assert "1 unexplained" in ran.output
    assert 'keyswitch_audit_unexplained{kind="vault_read_without_lease"} 1' in metrics.read_text()
    ran = CliRunner().invoke(app, [*arguments, "--receipts", str(ledger)])
    assert ran.exit_code == 0, ran.output


def _material_path(entries: list[dict[str, Any]]) -> str:
    """Where the service keeps the sealed secret, as Vault's own log names it."""
    paths = {str(one.get("request", {}).get("path", "")) for one in entries}
    found = [path for path in paths if path.startswith("keyswitch/data/") and "/main" in path]
    return max(found, key=len).removeprefix("keyswitch/data/")


# --- each kind of orphan, on small books ---


def record(number: int, action: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": f"chains/vault-0/records/{number}",
        "recordTime": f"2026-11-27T00:00:{number:02d}Z",
        "action": f"AUDIT_ACTION_{action}",
        "outcome": "AUDIT_OUTCOME_SUCCEEDED",
        "callId": f"call-{number}",
        **fields,
    }


def books() -> dict[str, Any]:
    """Three books that agree."""
    return {
        "records": [
            record(1, "ADD_VERSION", resource=VERSION),
            record(2, "LEASE", resource=VERSION, leaseId="l1", requestId="r1", vaultRequestIds=["v1", "v2"]),
            record(3, "USE", resource=VERSION, leaseId="l1", requestId="r1", attempt=1),
            record(
                4,
                "LEASE",
                resource=VERSION,
                leaseId="l2",
                requestId="r2",
                vaultRequestIds=["v3"],
                purpose="LEASE_PURPOSE_TEST",
            ),
            record(5, "TEST", resource=VERSION, leaseId="l2"),
        ],
        "vault_entries": [
            entry("v1", "keyswitch/data/x", "call-2"),
            entry("v2", "keyswitch-transit/decrypt/tenant", "call-2"),
            entry("v3", "keyswitch-transit/decrypt/tenant", "call-4"),
            entry("v9", "keyswitch-transit/sign/keyswitch-audit", ""),
        ],
        "receipts": [{"responseId": "r1", "attempts": [{"number": 1, "leaseId": "l1", "cost": {}}, {"number": 2}]}],
        "versions": [VERSION],
    }


def entry(number: str, path: str, call: str) -> dict[str, Any]:
    headers = {"x-keyswitch-request-id": [call]} if call else {}
    return {"type": "response", "request": {"id": number, "path": path, "headers": headers}}


def used(number: int, purpose: str, lease: str, call: str, attempt: int = 1) -> dict[str, Any]:
    """A use that says what it was for."""
    stated = {"purpose": f"LEASE_PURPOSE_{purpose}"}
    return record(number, "USE", resource=VERSION, leaseId=lease, requestId=call, attempt=attempt, **stated)


def _add(book: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda all_books: all_books[book].append(value)


def _drop(book: str, at: int) -> Callable[[dict[str, Any]], None]:
    return lambda all_books: all_books[book].pop(at)


SEEDS: dict[str, Callable[[dict[str, Any]], None]] = {
    "vault_read_without_lease": _add("vault_entries", entry("v8", "keyswitch-transit/decrypt/tenant", "")),
    "vault_entry_missing": _drop("vault_entries", 0),
    "lease_without_vault_read": lambda all_books: all_books["records"][1].update(vaultRequestIds=["v1"]),
    "call_differs": lambda all_books: all_books["vault_entries"].__setitem__(0, entry("v1", "x", "other")),
    "lease_without_use": _drop("records", 4),
    "use_without_lease": lambda all_books: all_books["records"][2].update(leaseId="l9"),
    "purpose_differs": lambda all_books: all_books["records"].append(used(6, "COMPLETION", "l2", "r2")),
    "lease_used_again": lambda all_books: all_books["records"].extend(
        used(6 + n, "TEST", "l2", "r2", n + 1) for n in (0, 1)
    ),
    "use_without_ledger": lambda all_books: all_books["receipts"].clear(),
    "ledger_without_use": _drop("records", 2),
    "version_gone": lambda all_books: all_books["versions"].clear(),
    "version_unknown": _add("versions", f"{MAIN}/versions/7"),
}


def run(all_books: dict[str, Any], **fields: Any) -> Reconciliation:
    return reconcile(all_books.pop("records"), **all_books, **fields)


def test_books_that_agree_leave_nothing() -> None:
    assert run(books()).orphans == []


@pytest.mark.parametrize("purpose", ["TEST", "DISCOVERY", "TOKEN_COUNT", "LIMITS"])
def test_what_is_no_call_has_no_receipt_also_where_only_its_lease_says_so(purpose: str) -> None:
    tested = books()
    tested["records"][3]["purpose"] = f"LEASE_PURPOSE_{purpose}"
    use = record(6, "USE", resource=VERSION, leaseId="l2", requestId="r2", attempt=1)
    tested["records"].append(use)
    result = run(tested)
    assert result.orphans == []
    assert result.matched["tests and counts"] == 1
    completed = books()
    completed["records"][3]["purpose"] = "LEASE_PURPOSE_COMPLETION"
    completed["records"].append(use)
    assert [one.kind for one in run(completed).orphans] == ["use_without_ledger"]


def with_use(use: dict[str, Any], *, lease: str = "COMPLETION") -> dict[str, Any]:
    """Books in which the call says its purpose and its lease's, and one more use."""
    made = books()
    made["records"][1]["purpose"] = f"LEASE_PURPOSE_{lease}"
    made["records"][2]["purpose"] = "LEASE_PURPOSE_COMPLETION"
    made["records"].append(use)
    return made


def test_a_count_under_the_lease_in_hand_is_explained_by_its_own_purpose() -> None:
    result = run(with_use(used(6, "TOKEN_COUNT", "l1", "r3")))
    assert result.orphans == []
    assert result.matched["tests and counts"] == 1
    assert result.purposes == {"completion": 1, "token_count": 1}
    assert result.without_receipt == {(VERSION, "token_count"): 1}
    for lease in ("EMBEDDING", "TOKEN_COUNT"):
        assert run(with_use(used(6, "TOKEN_COUNT", "l1", "r3"), lease=lease)).orphans == []


@pytest.mark.parametrize(
    ("use", "lease", "kinds"),
    [
        (used(6, "COMPLETION", "l1", "r3"), "TOKEN_COUNT", ["use_without_ledger"]),  # the lease no longer excuses it
        (used(6, "EMBEDDING", "l1", "r3"), "COMPLETION", ["use_without_ledger"]),
        (used(6, "TEST", "l1", "r3"), "COMPLETION", ["purpose_differs"]),  # a call that poses as a test
        (used(6, "DISCOVERY", "l1", "r3"), "COMPLETION", ["purpose_differs"]),
        (used(6, "TOKEN_COUNT", "l2", "r2"), "COMPLETION", ["purpose_differs"]),  # and under a test's lease
        (used(6, "TEST", "l2", "r3"), "COMPLETION", ["lease_used_again"]),  # for another call than the lease
        (used(6, "TOKEN_COUNT", "l1", "r1"), "COMPLETION", ["purpose_differs"]),  # said anew, and has a receipt
        (
            used(6, "TOKEN_COUNT", "l1", "r1", 2),
            "COMPLETION",
            ["purpose_differs"],
        ),  # a count within a call that is paid for
        (used(6, "COMPLETION", "l1", "r1"), "COMPLETION", []),  # the same again
    ],
)
def test_what_a_use_says_of_itself_is_compared(use: dict[str, Any], lease: str, kinds: list[str]) -> None:
    assert [one.kind for one in run(with_use(use, lease=lease)).orphans] == kinds


@pytest.mark.parametrize(("first", "then"), [("COMPLETION", "TOKEN_COUNT"), ("TOKEN_COUNT", "COMPLETION")])
def test_a_purpose_that_is_said_anew_is_found_in_whichever_order_chains_are_read(first: str, then: str) -> None:
    made = with_use(used(6, then, "l1", "r1"))
    made["records"][2]["purpose"] = f"LEASE_PURPOSE_{first}"
    made["receipts"].clear()
    assert "purpose_differs" in {one.kind for one in run(made).orphans}


def test_an_instance_that_does_not_record_purposes_takes_none_away() -> None:
    """The same use, reported to one of before, too."""
    unsaid = record(7, "USE", resource=VERSION, leaseId="l1", requestId="r3", attempt=1)
    for uses in ((used(6, "TOKEN_COUNT", "l1", "r3"), unsaid), (unsaid, used(6, "TOKEN_COUNT", "l1", "r3"))):
        made = with_use(uses[0])
        made["records"].append(uses[1])
        assert run(made).orphans == []


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_kind_of_orphan_is_found(kind: str) -> None:
    seeded = books()
    SEEDS[kind](seeded)
    assert kind in {one.kind for one in run(seeded).orphans}
    tried(7, "each kind of orphan, seeded and found", seeded=1, found=1)


def test_the_report_and_its_metrics_say_how_many_uses_were_for_what(tmp_path: Path) -> None:
    made = with_use(used(6, "TOKEN_COUNT", "l1", "r3"))
    log, ledger, metrics = tmp_path / "records.jsonl", tmp_path / "receipts.jsonl", tmp_path / "audit.prom"
    log.write_text("\n".join(json.dumps(one) for one in made["records"]))
    ledger.write_text("\n".join(json.dumps(one) for one in made["receipts"]))
    arguments = ["audit", "reconcile", "--records", str(log), "--receipts", str(ledger), "--metrics", str(metrics)]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0, ran.output
    assert "Uses by purpose: 1 completion, 1 token count." in ran.output
    lines = metrics.read_text().splitlines()
    assert 'keyswitch_audit_uses{purpose="token_count"} 1' in lines
    assert 'keyswitch_audit_uses{purpose="discovery"} 0' in lines
    assert 'keyswitch_audit_uses{purpose="unknown"} 0' in lines
    printed = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    assert printed["uses_by_purpose"] == {"completion": 1, "token_count": 1}
    assert printed["uses_without_receipt"] == [{"credential_version": VERSION, "purpose": "token_count", "uses": 1}]


def shared_books(named: str, *, items: int = 2) -> dict[str, Any]:
    """Two leases whose secrets were opened with one request."""
    shared = books()
    for number in (1, 3):
        shared["records"][number].update(vaultRequestIds=["v1"])
    opening = entry("v1", "keyswitch-transit/decrypt/tenant", named)
    opening["request"]["data"] = {"batch_input": [{}] * items}
    shared["vault_entries"] = [opening]
    return shared


def test_secrets_that_were_opened_together_join_each() -> None:
    result = run(shared_books("call-2,call-4"))
    assert result.orphans == []
    assert result.matched["openings of a secret"] == 2
    left = run(shared_books("call-2,call-4,call-5", items=3))  # a caller who went away meanwhile
    assert left.orphans == []


@pytest.mark.parametrize(
    ("named", "items", "kind"),
    [
        ("call-2", 2, "call_differs"),  # Vault does not know of one of ours
        ("call-2,call-4,call-99", 3, "call_differs"),  # nor we of one of Vault's
        ("call-2,call-4", 3, "vault_read_without_lease"),  # a secret more than calls
    ],
)
def test_what_was_opened_beside_them_is_found(named: str, items: int, kind: str) -> None:
    assert kind in {one.kind for one in run(shared_books(named, items=items)).orphans}


def test_a_version_that_was_destroyed_may_be_gone() -> None:
    destroyed = books()
    destroyed["records"].append(record(6, "DELETE_CREDENTIAL", resource=MAIN))
    destroyed["versions"].clear()
    assert run(destroyed).orphans == []


def test_a_version_that_was_destroyed_at_another_instance_may_be_gone() -> None:
    """Whatever chain is read first."""
    destroyed = books()
    deletion = record(6, "DELETE_CREDENTIAL", resource=MAIN)
    destroyed["records"].insert(0, {**deletion, "name": "chains/vault-1/records/1"})
    destroyed["versions"].clear()
    assert run(destroyed).orphans == []


def test_a_version_that_was_added_after_a_deletion_may_not_be_gone() -> None:
    again = books()
    again["records"].append(record(6, "DELETE_CREDENTIAL", resource=MAIN))
    again["records"].append({**record(7, "ADD_VERSION", resource=VERSION), "recordTime": "2026-11-27T00:00:06.5Z"})
    again["versions"].clear()
    assert [one.kind for one in run(again).orphans] == ["version_gone"]


def test_ten_thousand_deletions_are_read_in_one_pass() -> None:
    """Each deletion once looked at every version there was."""
    names = [f"organizations/acme/credentials/c-{number}" for number in range(10_000)]
    added = [record(1, "ADD_VERSION", resource=f"{name}/versions/1") for name in names]
    deleted = [record(2, "DELETE_CREDENTIAL", resource=name) for name in names]
    assert not reconcile([*added, *deleted], versions=[]).orphans


def test_what_is_young_may_still_be_on_its_way() -> None:
    young = books()
    young["records"].pop(4)
    young["receipts"].clear()
    assert run(young, settled_before="2026-11-27T00:00:01Z").orphans == []
