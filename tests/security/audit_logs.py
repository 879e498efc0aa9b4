"""Audit logs for the tests of the verifier: written by the service's own code, changed like an attacker would."""

import asyncio
import base64
import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from keyswitch.vault.v1 import audit_pb2

from vault_service.audit.notary import Notary
from vault_service.audit.sink import Sink
from vault_service.store.memory import MemoryStore
from vault_service.store.store import Purpose

CHAIN = "vault-0"
Files = dict[str, bytes]


@dataclass(frozen=True)
class Log:
    """A chain's files, its checkpoints among them, and the keys that signed them."""

    files: Files
    keys: dict[str, Ed25519PublicKey]

    @property
    def checkpoints(self) -> list[bytes]:
        """What somebody kept elsewhere."""
        return self.files["checkpoints.jsonl"].splitlines(keepends=True)


def write_log(root: Path, records: int, *, segment_bytes: int = 2_000, every: int = 7) -> Log:
    """Writes a chain of several segments with the service's own code; its last record is covered."""

    async def write() -> Log:
        times = iter(range(1_795_000_000, 1_796_000_000))
        store = MemoryStore()
        sink = Sink(root, CHAIN, clock=lambda: float(next(times)), segment_bytes=segment_bytes)
        notary = Notary(sink, store, clock=lambda: float(next(times)))
        for number in range(1, records + 1):
            await sink.append(
                audit_pb2.AuditRecord(
                    identity=audit_pb2.AuditIdentity(subject="spiffe://keyswitch/router"),
                    action=audit_pb2.AUDIT_ACTION_LEASE,
                    outcome=audit_pb2.AUDIT_OUTCOME_SUCCEEDED,
                    resource=f"organizations/acme/credentials/main/versions/{number % 3 + 1}",
                    request_id=f"response-{number}",
                    lease_id=f"lease-{number}",
                )
            )
            if number % every == 0:
                await notary.sign()
        await notary.sign()
        await sink.close()
        keys = {
            key.key_id: Ed25519PublicKey.from_public_bytes(key.public_key)
            for key in await store.signing_keys(purpose=Purpose.AUDIT)
        }
        return Log({path.name: path.read_bytes() for path in (root / CHAIN).glob("*.jsonl")}, keys)

    return asyncio.run(write())


def put_down(files: Files, folder: Path) -> None:
    """Writes files into a folder that holds nothing else."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def segments_of(files: Files) -> list[str]:
    return sorted(name for name in files if name != "checkpoints.jsonl")


Change = Callable[[Files, random.Random], Files]


def _flip_bit(files: Files, chance: random.Random) -> Files:
    name = chance.choice(sorted(files))
    content = bytearray(files[name])
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return {**files, name: bytes(content)}


def _cut_bytes(files: Files, chance: random.Random) -> Files:
    name = chance.choice(segments_of(files))
    start = chance.randrange(len(files[name]))
    return {**files, name: files[name][:start] + files[name][start + chance.randint(1, 40) :]}


def _insert_bytes(files: Files, chance: random.Random) -> Files:
    name = chance.choice(segments_of(files))
    start = chance.randrange(len(files[name]) + 1)
    return {**files, name: files[name][:start] + chance.randbytes(chance.randint(1, 20)) + files[name][start:]}


def _lines(files: Files, chance: random.Random) -> tuple[str, list[bytes]]:
    name = chance.choice(segments_of(files))
    return name, files[name].splitlines(keepends=True)


def _delete_lines(files: Files, chance: random.Random) -> Files:
    name, lines = _lines(files, chance)
    start = chance.randrange(len(lines))
    del lines[start : start + chance.randint(1, 3)]
    return {**files, name: b"".join(lines)}


def _swap_lines(files: Files, chance: random.Random) -> Files:
    name, lines = _lines(files, chance)
    first, second = chance.sample(range(len(lines)), 2) if len(lines) > 1 else (0, 0)
    lines[first], lines[second] = lines[second], lines[first]
    if first == second:
        lines.append(lines[0])
    return {**files, name: b"".join(lines)}


def _repeat_line(files: Files, chance: random.Random) -> Files:
    name, lines = _lines(files, chance)
    lines.insert(chance.randrange(len(lines) + 1), chance.choice(lines))
    return {**files, name: b"".join(lines)}


def _edit_record(files: Files, chance: random.Random) -> Files:
    """A well formed edit of one record; its hash no longer fits."""
    name, lines = _lines(files, chance)
    at = chance.randrange(len(lines))
    record = json.loads(lines[at])
    field, value = chance.choice([("leaseId", "other"), ("outcome", "AUDIT_OUTCOME_DENIED"), ("note", "x")])
    lines[at] = _spell({**record, field: value})
    return {**files, name: b"".join(lines)}


def _edit_and_chain_anew(files: Files, chance: random.Random) -> Files:
    """An attacker who knows the rule: edits a record, and computes every hash after it."""
    names = segments_of(files)
    lines = [(name, line) for name in names for line in files[name].splitlines(keepends=True)]
    at = chance.randrange(len(lines))
    made: Files = dict.fromkeys(names, b"")
    previous = b""
    for i, (name, line) in enumerate(lines):
        record = json.loads(line)
        if i > at:
            record["previousHash"] = base64.b64encode(previous).decode()
        if i == at:
            record["leaseId"] = "another"
        spelled = line if i < at else _spell(record)
        previous = hashlib.sha256(spelled[:-1]).digest()
        made[name] += spelled
    return {**files, **made}


def _delete_file(files: Files, chance: random.Random) -> Files:
    gone = chance.choice(segments_of(files))
    return {name: content for name, content in files.items() if name != gone}


def _swap_files(files: Files, chance: random.Random) -> Files:
    first, second = chance.sample(segments_of(files), 2)
    return {**files, first: files[second], second: files[first]}


def _rename_file(files: Files, chance: random.Random) -> Files:
    old = chance.choice(segments_of(files))
    new = f"{int(old[:20]) + chance.choice([-1, 1, 1000]):020d}.jsonl"
    return {(new if name == old else name): content for name, content in files.items()}


def _cut_tail(files: Files, chance: random.Random) -> Files:
    """Cuts the newest records; the checkpoints beside them that tell of it, too."""
    names = segments_of(files)
    at = chance.randrange(len(names))
    lines = files[names[at]].splitlines(keepends=True)
    keep = lines[: chance.randrange(len(lines))]
    kept = {name: files[name] for name in names[:at]} | ({names[at]: b"".join(keep)} if keep else {})
    last = sum(content.count(b"\n") for content in kept.values())
    told = [
        line
        for line in files["checkpoints.jsonl"].splitlines(keepends=True)
        if int(json.loads(line)["lastRecord"]) <= last
    ]
    return {**kept, "checkpoints.jsonl": b"".join(told)}


def _cut_file(files: Files, chance: random.Random) -> Files:
    name = chance.choice(segments_of(files))
    return {**files, name: files[name][: chance.randrange(len(files[name]))]}


def _cut_head(files: Files, chance: random.Random) -> Files:
    names = segments_of(files)
    gone = names[: chance.randint(1, len(names) - 1)]
    return {name: content for name, content in files.items() if name not in gone}


def _forge_checkpoint(files: Files, chance: random.Random) -> Files:
    lines = files["checkpoints.jsonl"].splitlines(keepends=True)
    at = chance.randrange(len(lines))
    fields = json.loads(lines[at])
    field, value = chance.choice(
        [
            ("lastRecord", str(int(fields["lastRecord"]) + 1)),
            ("lastHash", base64.b64encode(chance.randbytes(32)).decode()),
            ("signTime", "2026-01-01T00:00:00Z"),
            ("signature", base64.b64encode(chance.randbytes(64)).decode()),
            ("keyId", "unknown"),
        ]
    )
    lines[at] = _spell({**fields, field: value})
    return {**files, "checkpoints.jsonl": b"".join(lines)}


def _spell(fields: object) -> bytes:
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


CHANGES: Sequence[Change] = (
    _flip_bit,
    _cut_bytes,
    _insert_bytes,
    _delete_lines,
    _swap_lines,
    _repeat_line,
    _edit_record,
    _edit_and_chain_anew,
    _delete_file,
    _swap_files,
    _rename_file,
    _cut_tail,
    _cut_file,
    _cut_head,
    _forge_checkpoint,
)
