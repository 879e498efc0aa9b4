"""Whether an audit log is what the credential service wrote: offline, with nothing but its public keys.

It shares no code with the service on purpose: a fault of the writer is not repeated here. What is read is either the
folder of a chain (its segments and checkpoints.jsonl) or a file that `keyswitch audit export` wrote; both are lines of
JSON. docs/audit.md says the rules in words.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

CHECKPOINTS_FILE = "checkpoints.jsonl"
MAX_FINDINGS = 100
_LABEL = b"keyswitch.vault.v1.AuditCheckpoint"
_CHECKPOINT_FIELDS = ("chain", "lastRecord", "lastHash", "signTime", "keyId", "signature")
_CHECKPOINT_START = b'{"chain":'
_SEGMENT_DIGITS = 20
_MOST_SHOWN = 200

Keys = Mapping[str, Ed25519PublicKey]
Line = tuple[str, bytes]
"""Where a line stands, and its bytes with the line feed, where it has one."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it was written: where, and what."""

    where: str
    what: str


@dataclass(frozen=True)
class Checkpoint:
    """A signed statement of how far a chain goes."""

    chain: str
    last_record: int
    last_hash: bytes
    seconds: int
    key_id: str
    signature: bytes

    def statement(self) -> bytes:
        """The bytes that are signed."""
        parts = (
            _with_length(_LABEL),
            _with_length(self.chain.encode()),
            self.last_record.to_bytes(8, "big"),
            _with_length(self.last_hash),
            self.seconds.to_bytes(8, "big"),
        )
        return b"".join(parts)


@dataclass
class Verdict:
    """What was read, and what is wrong with it. Numbers are 0 where there are none."""

    chain: str = ""
    first_record: int = 0
    last_record: int = 0
    records: int = 0
    checkpoints: int = 0
    covered_record: int = 0
    """The newest record that a checkpoint with a good signature covers; what comes after it is chained, not signed."""
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_intact(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def find(self, where: str, what: str) -> None:
        """Adds a finding; beyond the first hundred they only repeat themselves."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(where, what))


def verify(path: Path, keys: Keys, *, known: Sequence[Line] = (), first_record: int | None = None) -> Verdict:
    """Reads a folder or file. `known` are lines of checkpoints that were kept elsewhere; `first_record` is the one
    that an export was asked to begin with. Raises OSError."""
    verdict = Verdict()
    records, beside = _open(path, verdict)
    checkpoints = [*_read_checkpoints(beside, keys, verdict), *_read_checkpoints(known, keys, verdict)]
    verdict.checkpoints = len(checkpoints)
    _walk(records, checkpoints, verdict, first_record)
    return verdict


def key_id_of(key: Ed25519PublicKey) -> str:
    """A key is named by its own bytes, so a list of keys cannot say one thing and hold another."""
    return base64.urlsafe_b64encode(hashlib.sha256(key.public_bytes_raw()).digest()[:12]).decode()


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a file."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            yield f"{path.name}:{number}", line


def _open(path: Path, verdict: Verdict) -> tuple[Iterable[Line], Iterable[Line]]:
    """The lines that may be records, and those that are checkpoints."""
    if not path.is_dir():
        return (
            (line for line in read_lines(path) if not line[1].startswith(_CHECKPOINT_START)),
            (line for line in read_lines(path) if line[1].startswith(_CHECKPOINT_START)),
        )
    segments: list[Path] = []
    for found in sorted(path.glob("*.jsonl")):
        if found.stem.isdecimal() and len(found.stem) == _SEGMENT_DIGITS:
            segments.append(found)
        elif found.name != CHECKPOINTS_FILE:
            verdict.find(found.name, "is a file that the service does not write")
    beside = path / CHECKPOINTS_FILE
    return _segment_lines(segments, verdict), read_lines(beside) if beside.exists() else ()


def _segment_lines(segments: Sequence[Path], verdict: Verdict) -> Iterator[Line]:
    for path in segments:
        is_empty = True
        for where, line in read_lines(path):
            if is_empty and _number_in(line) != int(path.stem):
                verdict.find(path.name, "does not begin with the record that its name says")
            is_empty = False
            yield where, line
        if is_empty:
            verdict.find(path.name, "is empty")


def _walk(lines: Iterable[Line], checkpoints: Sequence[Checkpoint], verdict: Verdict, first: int | None) -> None:
    signed: dict[int, list[Checkpoint]] = {}
    for checkpoint in checkpoints:
        signed.setdefault(checkpoint.last_record, []).append(checkpoint)
    previous, number, removed_to = b"", 0, 0
    start: tuple[str, bytes] | None = None
    for where, line in lines:
        record = _read_record(where, line, verdict)
        verdict.records += 1
        name = str(record.get("name", ""))
        chain, _, digits = name.rpartition("/records/")
        found = int(digits) if _is_number(digits) else 0
        if start is None:
            verdict.chain, verdict.first_record, number = chain, found, found - 1
            start = where, _bytes_of(record.get("previousHash"))
            previous = start[1]
        if found != number + 1 or chain != verdict.chain:
            verdict.find(where, f"should be record {number + 1} of {_shown(verdict.chain)}, and is {_shown(name)}")
        if _bytes_of(record.get("previousHash")) != previous:
            verdict.find(where, f"does not hold the hash of record {number}: one of the two was changed")
        # After a gap it counts on from what is there: each later record would else be one more finding.
        number = found if found and chain == verdict.chain else number + 1
        previous = hashlib.sha256(line.removesuffix(b"\n")).digest()
        for checkpoint in signed.get(number, ()):
            _compare(checkpoint, chain, previous, where, verdict)
        removed_to = max(removed_to, _removed_to(record, chain))
    verdict.last_record = number
    _check_ends(checkpoints, verdict)
    if start is not None:
        _check_start(start, signed, removed_to, verdict, first)


def _shown(name: str) -> str:
    """What stands in a file that somebody may have changed is no text for a terminal."""
    return name if name and name.isascii() and name.isprintable() and len(name) <= _MOST_SHOWN else "no such name"


def _read_record(where: str, line: bytes, verdict: Verdict) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        verdict.find(where, "is cut: its line has no end (a crash leaves this, and the next start cuts it away)")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        verdict.find(where, "is no JSON object")
        return {}
    return record


def _compare(checkpoint: Checkpoint, chain: str, found: bytes, where: str, verdict: Verdict) -> None:
    number = checkpoint.last_record
    if checkpoint.chain != chain or checkpoint.last_hash != found:
        verdict.find(where, f"record {number} is not the one that was signed: it or one before it was changed")
    else:
        verdict.covered_record = max(verdict.covered_record, number)


def _check_ends(checkpoints: Sequence[Checkpoint], verdict: Verdict) -> None:
    if not checkpoints:
        verdict.find("checkpoints", "there is none with a good signature, so nothing vouches for any record")
        return
    furthest = max(checkpoints, key=lambda one: one.last_record)
    if furthest.last_record > verdict.last_record:
        verdict.find(
            "end",
            f"the log ends at record {verdict.last_record}, and a checkpoint covers {furthest.last_record}: it was cut",
        )


def _check_start(
    start: tuple[str, bytes],
    signed: Mapping[int, Sequence[Checkpoint]],
    removed_to: int,
    verdict: Verdict,
    first: int | None,
) -> None:
    where, previous = start
    begins = verdict.first_record
    if first is not None:
        if begins != first:
            verdict.find(where, f"the log begins with record {begins}, and should with {first}")
        return
    if begins <= 1:
        if previous != bytes(32):
            verdict.find(where, "the first record of a chain holds 32 zero bytes as the hash before it")
        return
    if removed_to < begins - 1:
        verdict.find(where, f"records 1 to {begins - 1} are missing, and no record says that they were removed")
    anchors = [one for one in signed.get(begins - 1, ()) if one.chain == verdict.chain]
    if not anchors:
        verdict.find(where, f"no checkpoint vouches for the end of what was removed, record {begins - 1}")
    elif any(one.last_hash != previous for one in anchors):
        verdict.find(where, f"does not hold the hash that was signed for record {begins - 1}")


def _removed_to(record: Mapping[str, Any], chain: str) -> int:
    """The last record that this one says was removed."""
    if record.get("action") != "AUDIT_ACTION_REMOVE_RECORDS" or record.get("outcome") != "AUDIT_OUTCOME_SUCCEEDED":
        return 0
    found, _, number = str(record.get("resource", "")).rpartition("/records/")
    return int(number) if found == chain and _is_number(number) else 0


def _read_checkpoints(lines: Iterable[Line], keys: Keys, verdict: Verdict) -> Iterator[Checkpoint]:
    for where, line in lines:
        checkpoint = _parse_checkpoint(line)
        if checkpoint is None:
            verdict.find(where, "is no checkpoint as the service writes it")
            continue
        key = keys.get(checkpoint.key_id)
        if key is None:
            verdict.find(where, f"is signed with the key {_shown(checkpoint.key_id)}, which is none of those given")
            continue
        try:
            key.verify(checkpoint.signature, checkpoint.statement())
        except InvalidSignature:
            verdict.find(where, "its signature does not fit: it was changed, or never signed")
            continue
        yield checkpoint


def _parse_checkpoint(line: bytes) -> Checkpoint | None:
    """Only the exact spelling of the service is taken: what was touched never passes for what was written."""
    try:
        fields = json.loads(line)
        if tuple(fields) != _CHECKPOINT_FIELDS or _spell(fields) != line or not _is_number(fields["lastRecord"]):
            return None
        found = Checkpoint(
            chain=fields["chain"],
            last_record=int(fields["lastRecord"]),
            last_hash=_bytes_of(fields["lastHash"]),
            seconds=_seconds_of(fields["signTime"]),
            key_id=fields["keyId"],
            signature=_bytes_of(fields["signature"]),
        )
        found.statement()
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return found


def _spell(fields: object) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) < _SEGMENT_DIGITS and str(int(text)) == text


def _seconds_of(text: str) -> int:
    """Whole seconds of "2026-11-27T00:00:00Z", and of no other spelling."""
    moment = dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)
    if moment.strftime("%Y-%m-%dT%H:%M:%SZ") != text:
        raise ValueError
    return int(moment.timestamp())


def _bytes_of(text: object) -> bytes:
    """Base64 in its one canonical spelling; nothing else."""
    if not isinstance(text, str):
        return b""
    try:
        value = base64.b64decode(text, validate=True)
    except ValueError:
        return b""
    return value if base64.b64encode(value).decode() == text else b""


def _number_in(line: bytes) -> int:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return 0
    digits = str(record.get("name", "")).rpartition("/")[2] if isinstance(record, dict) else ""
    return int(digits) if _is_number(digits) else 0


def _with_length(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value
