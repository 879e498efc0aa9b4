"""What an instance remembers: leases, uses, last uses and local denials."""

import pytest

from vault_service.core.denials import Denials
from vault_service.core.faults import Fault, Reason
from vault_service.core.leases import LastUses, Lease, Leases, ReportedUses
from vault_service.core.names import CredentialName, Owner, VersionName
from vault_service.store.store import Unavailable

ACME, ADA = Owner("acme"), Owner("acme", "ada")
MAIN = VersionName(CredentialName(ACME, "main"), 1)
MINE = VersionName(CredentialName(ADA, "mine"), 1)


def test_leases_are_forgotten_when_no_report_can_come() -> None:
    now = [0.0]
    leases = Leases(lambda: now[0])
    leases.add(Lease("a", MAIN, False, 300.0))
    now[0] = 3800.0
    leases.add(Lease("b", MAIN, True, 4100.0))
    assert leases.find("a") is not None
    now[0] = 3901.0
    leases.add(Lease("c", MAIN, True, 4200.0))
    assert leases.find("a") is None
    assert leases.find("b") is not None


def test_a_use_is_new_once() -> None:
    uses = ReportedUses(max_uses=2)
    assert uses.take(("l", "r", 1))
    assert not uses.take(("l", "r", 1))
    assert uses.take(("l", "r", 2))
    uses.give_back(("l", "r", 2))
    assert uses.take(("l", "r", 2))
    assert uses.take(("l", "r", 3))
    assert uses.take(("l", "r", 1)), "the window is bounded"


def test_the_last_use_is_kept_now_and_then() -> None:
    last = LastUses()
    assert last.note(MAIN, 100.0)
    assert not last.note(MAIN, 105.0)
    assert not last.note(MAIN, 90.0)
    assert last.get(str(MAIN)) == 105.0
    assert last.get(str(MAIN.credential)) == 105.0
    assert last.note(MAIN, 111.0)
    assert last.get(str(MINE)) is None


@pytest.mark.parametrize(
    ("name", "main", "mine"),
    [
        (str(MAIN), True, False),
        (str(MAIN.credential), True, False),
        (str(ACME), True, True),
        (str(ADA), False, True),
        ("deployment", False, False),
    ],
)
async def test_denials_reach_what_is_below(name: str, main: bool, mine: bool) -> None:
    denials = Denials()
    writes: list[str] = []

    async def write() -> None:
        writes.append(name)
        if len(writes) == 1:
            raise Unavailable("away")

    denials.add(name, write)
    assert (denials.denies(MAIN), denials.denies(MINE)) == (main, mine)
    await denials.write_pending(lambda *_: None)
    assert list(denials.names) == [name]
    await denials.write_pending(lambda *_: None)
    assert not denials.names
    assert not denials.denies(MAIN)


async def test_what_the_law_refuses_needs_no_denial() -> None:
    denials = Denials()
    dropped: list[tuple[str, Reason]] = []

    async def write() -> None:
        raise Fault(Reason.CREDENTIAL_DELETED)

    denials.add(str(MAIN), write)
    await denials.write_pending(lambda name, fault: dropped.append((name, fault.reason)))
    assert dropped == [(str(MAIN), Reason.CREDENTIAL_DELETED)]
    assert denials.names == ()
