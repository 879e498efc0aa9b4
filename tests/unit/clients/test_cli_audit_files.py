"""`keyswitch audit` beyond lists: tail, export, checkpoints, keys, and verify with its exit codes."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from keyswitch.vault.v1 import audit_pb2, audit_service_pb2, token_service_pb2

from tests.security.audit_logs import CHAIN, Log, put_down, write_log
from tests.unit.clients.cli_terminal import Terminal
from vault_service.audit.checkpoint import parse_checkpoint


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    return write_log(tmp_path_factory.mktemp("log"), 12)


@pytest.fixture
def keys(log: Log, tmp_path: Path) -> Path:
    path = tmp_path / "keys.pem"
    (key,) = log.keys.values()
    path.write_bytes(b"# a remark\n" + key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def at_seven(log: Log) -> bytes:
    """The checkpoint that covers record 7 and no further one."""
    return next(line for line in log.checkpoints if json.loads(line)["lastRecord"] == "7")


def test_verify_says_whether_and_where(terminal: Terminal, log: Log, keys: Path, tmp_path: Path) -> None:
    folder = tmp_path / "chain"
    put_down(log.files, folder)
    arguments = ("audit", "verify", str(folder), "--key", str(keys))
    intact = terminal.run(*arguments, "--require-covered")
    assert (intact.exit_code, "Intact: records 1 to 12" in intact.stdout) == (0, True)
    name = min(log.files)
    put_down({**log.files, name: log.files[name].replace(b"lease-1", b"lease-2", 1)}, folder)
    changed = terminal.run(*arguments)
    assert changed.exit_code == 1
    assert f"{name}:2: does not hold the hash of record 1" in changed.stdout
    said = json.loads(terminal.run(*arguments, "--json").stdout)
    assert said["intact"] is False
    assert said["findings"][0]["where"] == f"{name}:2"


def test_a_record_that_is_missing_is_no_finding_of_each_later_one(
    terminal: Terminal, log: Log, keys: Path, tmp_path: Path
) -> None:
    file = tmp_path / "log:100:.jsonl"  # what stands between two colons is no name of a picture
    lines = [line for name in sorted(log.files) if name[0].isdigit() for line in log.files[name].splitlines(True)]
    file.write_bytes(b"".join([*lines[:3], *lines[4:], *log.checkpoints]))
    found = terminal.run("audit", "verify", str(file), "--key", str(keys))
    assert found.exit_code == 1
    at_four = [line for line in found.stdout.splitlines() if line.startswith("log:100:.jsonl:")]
    assert [line.partition(":4: ")[2].partition(" ")[0] for line in at_four] == ["should", "does"], found.stdout


def test_a_kept_checkpoint_shows_a_cut(terminal: Terminal, log: Log, keys: Path, tmp_path: Path) -> None:
    file, kept = tmp_path / "export.jsonl", tmp_path / "kept.jsonl"
    lines = [line for name in sorted(log.files) if name[0].isdigit() for line in log.files[name].splitlines(True)]
    file.write_bytes(b"".join([*lines[:7], at_seven(log)]))
    kept.write_bytes(log.checkpoints[-1])
    arguments = ("audit", "verify", str(file), "--key", str(keys))
    assert terminal.run(*arguments).exit_code == 0
    cut = terminal.run(*arguments, "--checkpoint", str(kept))
    assert cut.exit_code == 1
    assert "the log ends at record 7, and a checkpoint covers 12" in cut.stdout


def test_records_after_the_last_checkpoint_are_told(terminal: Terminal, log: Log, keys: Path, tmp_path: Path) -> None:
    file = tmp_path / "export.jsonl"
    lines = [line for name in sorted(log.files) if name[0].isdigit() for line in log.files[name].splitlines(True)]
    file.write_bytes(b"".join([*lines[:9], at_seven(log)]))
    arguments = ("audit", "verify", str(file), "--key", str(keys))
    told = terminal.run(*arguments)
    assert (told.exit_code, "after record 7" in told.stderr) == (0, True)
    assert terminal.run(*arguments, "--require-covered").exit_code == 1
    file.write_bytes(b"".join([*lines[2:7], at_seven(log)]))
    assert terminal.run(*arguments).exit_code == 1
    assert terminal.run(*arguments, "--first", "3").exit_code == 0


def test_what_cannot_be_read_is_a_usage_error(terminal: Terminal, keys: Path, tmp_path: Path) -> None:
    assert terminal.run("audit", "verify", str(tmp_path / "none"), "--key", str(keys)).exit_code == 2
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    assert terminal.run("audit", "verify", str(tmp_path), "--key", str(empty)).exit_code == 2


def test_export_and_keys_make_what_verify_reads(terminal: Terminal, log: Log, tmp_path: Path) -> None:
    pb = audit_service_pb2
    lines = b"".join(log.files[name] for name in sorted(log.files) if name[0].isdigit())
    checkpoints = [parse_checkpoint(line[:-1]) for line in log.checkpoints]
    key_id, key = next(iter(log.keys.items()))
    signing = token_service_pb2.SigningKey(
        key_id=key_id,
        public_key=key.public_bytes_raw(),
        purpose=token_service_pb2.SIGNING_KEY_PURPOSE_AUDIT_CHECKPOINT,
    )
    terminal.services.answers |= {
        "ExportAuditRecords": [
            pb.ExportAuditRecordsResponse(lines=lines),
            *(pb.ExportAuditRecordsResponse(checkpoint=one) for one in checkpoints),
        ],
        "GetSigningKeys": token_service_pb2.GetSigningKeysResponse(signing_keys=[signing]),
        "ListAuditCheckpoints": pb.ListAuditCheckpointsResponse(checkpoints=checkpoints),
    }
    file, keys, kept = tmp_path / "export.jsonl", tmp_path / "keys.pem", tmp_path / "kept.jsonl"
    assert "12 records" in terminal.run("audit", "export", "--chain", CHAIN, "--to", str(file)).stderr
    keys.write_text(terminal.run("audit", "keys").stdout)
    kept.write_text(terminal.run("audit", "checkpoints", "--chain", CHAIN, "--lines").stdout)
    assert kept.read_bytes() == b"".join(log.checkpoints)
    done = terminal.run("audit", "verify", str(file), "--key", str(keys), "--checkpoint", str(kept))
    assert done.exit_code == 0, done.stdout


def test_tail_prints_lines_and_where_to_go_on(terminal: Terminal) -> None:
    record = audit_pb2.AuditRecord(name=f"chains/{CHAIN}/records/1", note="bell\x07")
    answer = audit_service_pb2.TailAuditRecordsResponse
    terminal.services.answers["TailAuditRecords"] = [
        answer(resume_token="a"),
        answer(audit_records=[record], resume_token="b"),
        answer(resume_token="c"),
    ]
    done = terminal.run("audit", "tail", "--limit", "1", "--resource", "organizations/acme")
    assert json.loads(done.stdout)["name"] == record.name
    assert "--resume b" in done.stderr
    assert terminal.services.asked("TailAuditRecords").filter.resource == "organizations/acme"
