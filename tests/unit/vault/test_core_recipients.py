"""Recipients that are remembered: the same proof is checked once, and what it rests on still counts each time."""

import datetime as dt

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.unit.vault.test_core_sealing import AUTHORITY, NOW, PUBLIC, ROUTER, Authority
from vault_service.core import recipients
from vault_service.core.faults import Fault, Reason
from vault_service.core.recipients import Recipients
from vault_service.core.sealing import check_recipient, recipient_key_statement

KEY = Ed25519PrivateKey.generate()
LEAF = AUTHORITY.issue(KEY, ROUTER)
SIGNATURE = KEY.sign(recipient_key_statement(PUBLIC))
AUTHORITIES = [AUTHORITY.certificate]


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the signatures were really checked."""
    times: list[float] = []

    def count(*arguments: object, time_seconds: float, **options: object) -> str:
        times.append(time_seconds)
        return check_recipient(*arguments, time_seconds=time_seconds, **options)  # type: ignore[arg-type] # passed on as they came

    monkeypatch.setattr(recipients, "check_recipient", count)
    return times


def ask(known: Recipients, *, after_seconds: float = 0.0, signature: bytes = SIGNATURE, key: bytes = PUBLIC) -> str:
    time = NOW.timestamp() + after_seconds
    return known.check(key, signature, [LEAF], authorities=AUTHORITIES, time_seconds=time)


def test_the_same_proof_is_checked_once(checks: list[float]) -> None:
    known = Recipients({ROUTER})
    assert [ask(known, after_seconds=second) for second in range(5)] == [ROUTER] * 5
    assert checks == [NOW.timestamp()]


@pytest.mark.parametrize("change", [{"signature": SIGNATURE[:-1] + b"x"}, {"key": bytes(32)}])
def test_another_proof_is_not_the_remembered_one(checks: list[float], change: dict[str, bytes]) -> None:
    known = Recipients({ROUTER})
    ask(known)
    for _ in range(2):  # a refusal is not remembered either
        with pytest.raises(Fault) as caught:
            ask(known, **change)  # type: ignore[arg-type] # bytes for either
        assert caught.value.reason is Reason.RECIPIENT_KEY_REJECTED
    assert len(checks) == 3


def test_it_ends_with_the_certificate(checks: list[float]) -> None:
    known = Recipients({ROUTER})
    ask(known)
    day = dt.timedelta(days=1).total_seconds()
    ask(known, after_seconds=day - 1)
    assert len(checks) == 1
    with pytest.raises(Fault) as caught:
        ask(known, after_seconds=day + 1)
    assert caught.value.metadata == {"cause": "chain"}


def test_a_clock_that_went_back_has_it_checked_anew(checks: list[float]) -> None:
    known = Recipients({ROUTER})
    ask(known)
    ask(known, after_seconds=-10)
    assert len(checks) == 2


def test_other_authorities_end_it() -> None:
    known, other = Recipients({ROUTER}), Authority()
    ask(known)
    with pytest.raises(Fault) as caught:
        known.check(PUBLIC, SIGNATURE, [LEAF], authorities=[other.certificate], time_seconds=NOW.timestamp())
    assert caught.value.metadata == {"cause": "chain"}


def test_no_more_than_so_many_are_kept(checks: list[float]) -> None:
    known = Recipients({ROUTER}, max_recipients=1)
    other = bytes(range(1, 33))
    ask(known)
    ask(known, key=other, signature=KEY.sign(recipient_key_statement(other)))
    ask(known)
    assert len(checks) == 3
