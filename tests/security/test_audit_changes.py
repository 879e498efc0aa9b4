"""Promise 6: whatever is changed in an audit log is found offline, with the public key and a kept checkpoint alone."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keyswitch_cli.audit_verification import Verdict, verify

from tests.security.audit_logs import CHAIN, CHANGES, Change, Files, Log, put_down, write_log
from tests.security.promises import count, tried

EXAMPLES = count(400, 10_000)
FOUND: Counter[str] = Counter()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    return write_log(tmp_path_factory.mktemp("log"), 40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("changed")


def check(log: Log, files: Files, folder: Path) -> Verdict:
    put_down(files, folder)
    return verify(folder, log.keys, known=[("kept", log.checkpoints[-1])])


def test_the_log_itself_is_intact(log: Log, folder: Path) -> None:
    verdict = check(log, log.files, folder)
    assert verdict.findings == []
    assert (verdict.chain, verdict.first_record, verdict.last_record) == (f"chains/{CHAIN}", 1, 40)
    assert verdict.covered_record == 40
    assert len(log.files) > 4  # several segments


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    changes=st.lists(st.sampled_from(CHANGES), min_size=1, max_size=2),
    seed=st.integers(min_value=0, max_value=2**64),
)
def test_every_change_is_found(log: Log, folder: Path, changes: list[Change], seed: int) -> None:
    chance = random.Random(seed)  # seeded by hypothesis
    files = log.files
    try:
        for change in changes:
            files = change(files, chance)
    except (ValueError, IndexError):
        return  # the first change left nothing for the second one to work on
    if files == log.files:
        return
    verdict = check(log, files, folder)
    assert verdict.findings, [change.__name__ for change in changes]
    assert all(finding.where and finding.what for finding in verdict.findings)
    FOUND[changes[0].__name__] += 1


def test_every_kind_of_change_was_tried() -> None:
    assert set(FOUND) == {change.__name__ for change in CHANGES}
    for name, number in sorted(FOUND.items()):
        tried(6, f"logs changed first by: {name.strip('_').replace('_', ' ')}", changed=number, found=number)


@pytest.mark.parametrize(
    "record",
    [b"[" * 5000, b'{"name":"chains/a/records/' + b"9" * 5000 + b'"}', b'{"name":"\\ud800\\u001b[2J/records/7"}'],
)
@pytest.mark.parametrize("checkpoint", [("9" * 30, "2026"), ("9" * 5000, "2026"), ("1", "1960")])
def test_a_hostile_file_is_found_wrong_and_breaks_nothing(
    tmp_path: Path, record: bytes, checkpoint: tuple[str, str]
) -> None:
    fields = {
        "chain": "\ud800", "lastRecord": checkpoint[0], "lastHash": "AA==",
        "signTime": f"{checkpoint[1]}-11-27T00:00:00Z", "keyId": "\u001b[2J", "signature": "AA==",
    }  # fmt: skip
    line = json.dumps(fields, separators=(",", ":")).encode()
    (tmp_path / f"{1:020}.jsonl").write_bytes(record + b"\n" + record + b"\n")
    (tmp_path / "checkpoints.jsonl").write_bytes(line + b"\n")
    verdict = verify(tmp_path, {"\u001b[2J": Ed25519PrivateKey.generate().public_key()})
    assert not verdict.is_intact
    assert all(one.what.isprintable() and one.what.isascii() for one in verdict.findings)
    tried(6, "hostile files, found wrong", files=1)
