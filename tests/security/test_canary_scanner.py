"""The scanner of the canary test finds what it is there to find: otherwise its 0 hits would mean nothing."""

import base64
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from keyswitch.router.v1 import stream_pb2

from tests.security.canary import Canary, Scanner, make_key, token_canary, whole_forms

CANARIES = (make_key("a key"), token_canary("a token", f"eyJhbGciOiJFZERTQSJ9.e30.{'Zm9vYmFyYmF6cXV4' * 4}"))
FORMS = sorted(whole_forms(CANARIES[0].value))


@pytest.fixture(params=CANARIES, ids=lambda canary: canary.name)
def canary(request: pytest.FixtureRequest) -> Canary:
    found: Canary = request.param
    return found


@pytest.fixture
def scanner(canary: Canary) -> Scanner:
    made = Scanner()
    made.add(canary)
    return made


@pytest.mark.parametrize("form", FORMS)
def test_finds_every_form_in_bytes(scanner: Scanner, canary: Canary, form: str) -> None:
    planted = b"noise \x00\xff " + whole_forms(canary.value)[form] + b" more noise"
    assert scanner.scan("bytes", "planted", planted)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["router.log", "audit/vault-0/1.jsonl", "router.db-wal", "deep/er/.hidden"])
def test_finds_every_form_in_every_kind_of_file(
    scanner: Scanner, canary: Canary, form: str, name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(64) + whole_forms(canary.value)[form])
    scanner.scan_files("files", tmp_path, {})
    assert [hit.sink for hit in scanner.hits] == [f"files: {name}"] * len(scanner.hits)
    assert scanner.hits


def test_finds_a_key_in_the_name_of_a_file(scanner: Scanner, canary: Canary, tmp_path: Path) -> None:
    (tmp_path / canary.core[0]).touch()
    scanner.scan_files("files", tmp_path, {})
    assert scanner.hits


@pytest.mark.parametrize("form", FORMS)
def test_finds_every_form_in_a_status_and_in_a_message(scanner: Scanner, canary: Canary, form: str) -> None:
    text = whole_forms(canary.value)[form].decode()
    info = error_details_pb2.ErrorInfo(reason="R", metadata={"model": text})
    status = status_pb2.Status(code=grpc.StatusCode.NOT_FOUND.value[0], message="no")
    status.details.add().Pack(info)
    assert scanner.scan("statuses", "details", status.SerializeToString())
    event = stream_pb2.StreamEvent(sequence=1)
    event.response_ended.receipt.attempts.add().upstream_request_id = text
    assert scanner.scan("messages", "event", event.SerializeToString())


def test_finds_what_a_process_was_started_with(scanner: Scanner, canary: Canary) -> None:
    waiting = "import sys; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", waiting, canary.value]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"LEAK": canary.value}
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # before it runs, /proc may still show nothing
            scanner.scan_process("planted", process.pid)
        finally:
            process.communicate()
    assert {hit.sink for hit in scanner.hits} == {"/proc of planted: environ", "/proc of planted: cmdline"}


def test_a_rightful_file_may_hold_its_own_token_and_no_other(tmp_path: Path) -> None:
    own, other = CANARIES[1], CANARIES[0]
    scanner = Scanner()
    scanner.add(own, other)
    (tmp_path / "operator.token").write_text(own.value)
    scanner.scan_files("files", tmp_path, {"operator.token": own.name})
    assert not scanner.hits
    (tmp_path / "operator.token").write_text(own.value + other.value)
    scanner.scan_files("files", tmp_path, {"operator.token": own.name})
    assert {hit.canary for hit in scanner.hits} == {other.name}


def test_finds_nothing_where_nothing_is(scanner: Scanner, canary: Canary) -> None:
    assert not scanner.scan("bytes", "clean", os.urandom(1 << 20))
    fingerprint = f"{canary.value[:4]}…{canary.value[-4:]}"
    assert not scanner.scan("bytes", "a fingerprint", fingerprint.encode())
    assert scanner.bytes_scanned > 1 << 20


def test_a_hit_and_a_report_hold_no_part_of_a_canary(scanner: Scanner, canary: Canary) -> None:
    scanner.scan("bytes", "planted", canary.value.encode())
    said = f"{scanner.report()} {scanner.hits} {scanner.hits[0]} {canary!r}"
    assert not any(core[5:15] in said for core in canary.core)


@pytest.mark.parametrize(
    "carry",
    [bytes, lambda key: key[::-1], lambda key: key.hex().encode(), base64.b64encode, base64.urlsafe_b64encode],
    ids=["raw", "reversed", "hex", "base64", "base64url"],
)
def test_finds_a_key_of_bytes(carry: Callable[[bytes], bytes]) -> None:
    scanner, key = Scanner(), secrets.token_bytes(32)
    scanner.add_key("a root key", key)
    assert not scanner.scan("log", "another key", carry(secrets.token_bytes(32)))
    assert scanner.scan("log", "this key", b"before " + carry(key) + b" after")
