"""Writes to both services' stores and is killed, again and again.

Each round a child goes on with the embedded store, the ledger and the stored configuration, as the services do, and
says on a pipe what was acknowledged to it. It is killed with SIGKILL at a moment of chance. At the end everything
acknowledged is looked for; prints what there was, and what of it is missing. `python -m tests.security.crash_loop ROOT
ROUNDS SEED`.
"""

import asyncio
import itertools
import json
import os
import random
import secrets
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from router_service.core.database import SqliteDatabase
from router_service.ledger.sql_ledger import open_ledger
from router_service.state.documents import Superseded
from router_service.state.open_documents import open_documents
from vault_service.core.access import Role
from vault_service.core.changes import ChangeLog
from vault_service.core.credential import Draft
from vault_service.core.credentials import Credentials
from vault_service.core.issuance import Issuance
from vault_service.core.names import CredentialName, Owner, VersionName
from vault_service.core.policies import Policies
from vault_service.core.secret import Secret
from vault_service.core.states import VersionState
from vault_service.store.embedded import EmbeddedStore

MOST_WORDS = 40
LONGEST_SECONDS = 0.01
SILENT_SECONDS = 30.0
ACME = Owner("acme")
DRAFT = Draft(provider="providers/openai", kind="API_KEY", allowed_origins=("https://api.openai.com",))
Say = Callable[..., None]
Entry = dict[str, Any]


class Keys:
    """The credential service's part, over its embedded store."""

    def __init__(self, store: EmbeddedStore) -> None:
        changes = ChangeLog(store, clock=time.time, monotonic=time.monotonic, fresh_seconds=1)
        policies = Policies(store, changes, deployment_default=True)
        self.store = store
        self.credentials = Credentials(store, changes, policies, clock=time.time)
        self.issuance = Issuance(store, changes, issuer="keyswitch", clock=time.time, new_id=new_id)


def new_id() -> str:
    return secrets.token_urlsafe(16)


def main(root: Path, rounds: int, seed: int) -> None:
    """Runs all rounds and prints the result as JSON."""
    asyncio.run(find_missing(root, []))  # makes the files, and loads here once what each child would load anew
    chance = random.Random(seed)
    said = [
        entry
        for number in range(rounds)
        for entry in run_round(root, number, chance.randint(1, MOST_WORDS), chance.uniform(0, LONGEST_SECONDS))
    ]
    missing = asyncio.run(find_missing(root, said))
    counts = Counter(entry["kind"] for entry in said)
    print(json.dumps({"rounds": rounds, "acknowledged": counts, "missing": missing[:10]}))


def run_round(root: Path, number: int, words: int, seconds: float) -> list[Entry]:
    """Lets a child live until it has said so much and a moment longer, and gives what was acknowledged to it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        asyncio.run(write_everything(root, number, writing))
        os._exit(1)
    os.close(writing)
    said = b""
    while said.count(b"\n") < words and select.select([reading], [], [], SILENT_SECONDS)[0]:
        said += os.read(reading, 65536) or b"\n" * words
    select.select([], [], [], seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        said += pipe.read()
    return [json.loads(line) for line in said.splitlines(keepends=True) if line.strip() and line.endswith(b"\n")]


async def write_everything(root: Path, number: int, pipe: int) -> None:
    """Writes without an end."""

    def say(kind: str, **fields: Any) -> None:
        os.write(pipe, json.dumps({"kind": kind, "round": number, **fields}).encode() + b"\n")

    keys = Keys(await EmbeddedStore.open(root / "vault"))
    await asyncio.gather(
        rotate(keys, number, say), issue(keys, say), configure(root, number, say), pay(root, number, say)
    )


async def rotate(keys: Keys, number: int, say: Say) -> None:
    name = CredentialName(ACME, f"r-{number}")
    await keys.credentials.create(name, DRAFT)
    for _ in itertools.count():
        key = f"sk-{secrets.token_hex(16)}"
        made = await keys.credentials.add_version(name, "API_KEY", Secret(key.encode()), "")
        say("put", number=made.number, key=key)
        await keys.credentials.activate(VersionName(name, made.number), force=True)
        say("rotate", number=made.number)


async def issue(keys: Keys, say: Say) -> None:
    for count in itertools.count():
        token = keys.issuance.draft(ACME, "test", frozenset({Role.MEMBER}), 3600.0)
        await keys.issuance.issue(token)
        say("token", name=token.name.token_id)
        if count % 2:
            await keys.issuance.revoke(token.name)
            say("token revoked", name=token.name.token_id)


async def configure(root: Path, number: int, say: Say) -> None:
    documents = await open_documents(SqliteDatabase(root / "configuration.db"))
    for count in itertools.count():
        loaded = await documents.load()
        assert loaded is not None
        name = f"o-{number}-{count}"
        try:
            await documents.write(loaded.revision, {("organizations", name): {"users": [name]}})
        except Superseded:
            continue
        say("organization", name=name)


async def pay(root: Path, number: int, say: Say) -> None:
    ledger = await open_ledger(SqliteDatabase(root / "router.db"), time.time)
    for count in itertools.count():
        await ledger.add_credits("acme", 1, f"{number:08x}-0000-4000-8000-{count:012x}", "", time.time())
        say("credits")


async def find_missing(root: Path, said: list[Entry]) -> list[str]:
    """What was acknowledged and cannot be read."""
    keys = Keys(await EmbeddedStore.open(root / "vault"))
    missing = [await look_for_key(keys, entry) for entry in said if entry["kind"] == "put"]
    missing += await look_for_active(keys, said)
    issued = {one.name.token_id: one for one in await keys.issuance.list_issued(ACME, show_inactive=True)}
    for entry in said:
        if entry["kind"] == "token" and entry["name"] not in issued:
            missing.append(f"token {entry['name']}")
        if entry["kind"] == "token revoked" and issued[entry["name"]].revoke_time is None:
            missing.append(f"revocation of token {entry['name']}")
    await keys.store.close()
    documents = await open_documents(SqliteDatabase(root / "configuration.db"))
    loaded = await documents.load()
    assert loaded is not None
    organizations = {path[1] for path in loaded.entries}
    missing += [
        f"organization {entry['name']}"
        for entry in said
        if entry["kind"] == "organization" and entry["name"] not in organizations
    ]
    await documents.close()
    ledger = await open_ledger(SqliteDatabase(root / "router.db"), time.time)
    paid, balance = sum(entry["kind"] == "credits" for entry in said), (await ledger.balance("acme")).balance_nanos
    if balance < paid:
        missing.append(f"{paid - balance} of {paid} credits")
    if not (await ledger.verify()).is_right:
        missing.append("the ledger's sums")
    await ledger.close()
    return [one for one in missing if one]


async def look_for_key(keys: Keys, entry: Entry) -> str:
    version = VersionName(CredentialName(ACME, f"r-{entry['round']}"), entry["number"])
    found = await keys.credentials.open_material(version)
    return "" if found.reveal().decode() == entry["key"] else f"key of {version}"


async def look_for_active(keys: Keys, said: list[Entry]) -> list[str]:
    """The last acknowledged rotation holds, or one after it of which nobody was told any more."""
    missing = []
    last = {entry["round"]: entry["number"] for entry in said if entry["kind"] == "rotate"}
    for number, version in last.items():
        found = await keys.credentials.get(CredentialName(ACME, f"r-{number}"))
        active = [one.number for one in found.versions if one.state is VersionState.ACTIVE]
        if len(active) != 1 or active[0] < version:
            missing.append(f"rotation {number} to {version}")
    return missing


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
