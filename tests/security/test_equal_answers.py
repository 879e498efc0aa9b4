"""Unknown and forbidden look alike: to whoever may not know of a thing, every method answers as if it were not there.

Each right request of each method is made by callers of another tenant, and by members who may not, three times: as it
is, for another tenant that does not exist, and for things of that name that do not. Status, reason, message, details,
answers and the work that is done must be the same; ids are put back before they are compared.
"""

import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from keyswitch.vault.v1 import lease_service_pb2

from tests.security.canary_calls import METHODS, find_method
from tests.security.canary_requests import Step
from tests.security.in_process import InProcess, renamed, running_in_process
from tests.security.promises import tried
from vault_service.store.memory import MemoryStore

LEDGER = (
    "balance",
    "get_budget",
    "get_receipt",
    "list_budgets",
    "list_entries",
    "list_receipts",
    "summarize",
    "verify",
)
MOST_TRIES = 3  # reports of uses that end meanwhile read as well; what differs differs each time
TENANT = {"organizations/demo": "organizations/dem0"}
LEAVES = {
    "credentials/spare": "credentials/spar0",
    "credentials/own": "credentials/ow0",
    "credentials/claude": "credentials/claud0",
    "applications/extra": "applications/extr0",
    "applications/chat": "applications/cha0",
    "overrides/title": "overrides/titl0",
    "providers/lab": "providers/la0",
    "models/lab/x": "models/lab/0",
    "budgets/cap": "budgets/ca0",
    "users/ada": "users/ad0",
}
MINE = {  # what is looked for by somebody of the same organization, to whom its people's things are unknown
    "credentials/own": "credentials/ow0",
    "users/ada": "users/ad0",
}
OF_NO_TENANT = {
    "GetSigningKeys": "public keys, for anybody",
    "WatchCredentialChanges": "for routers, by their certificate: names of all tenants",
    "ReportUses": "of routers, about leases that they hold",
    "ReportTest": "of routers, about leases that they hold",
    "ReportRefusals": "of routers, about callers that are nobody",
}


@dataclass
class Work:
    """Counts what is read for a call: documents of the credential service's store, and statements of the ledger."""

    counts: Counter[str]

    def watch(self, target: Any, *names: str, is_store: bool = False) -> None:
        for name in names:
            setattr(target, name, self._counted(name, getattr(target, name), is_store))

    def _counted(self, name: str, method: Any, is_store: bool) -> Any:
        async def counted(*arguments: Any, **options: Any) -> Any:
            if not is_store or options.get("request_id"):  # what the service reads by itself is for no call
                self.counts[name] += 1
            return await method(*arguments, **options)

        return counted


@dataclass
class World:
    """Both services, callers of every kind who may not, and what their calls cost."""

    both: InProcess
    strangers: dict[str, str]
    work: Work

    async def ask(self, step: Step, token: str) -> tuple[Any, ...]:
        """How a call ends, and the work that it was."""
        await self.both.run(step, token)  # what is remembered of the caller is remembered now
        self.work.counts.clear()
        outcome = await self.both.run(step, token)
        answers = in_order(outcome.answers)
        return outcome.code, outcome.reason, outcome.message, outcome.details, answers, dict(self.work.counts)


@asynccontextmanager
async def running_world(home: Path, store: Any = None) -> AsyncIterator[World]:
    store = MemoryStore() if store is None else store
    work = Work(Counter())
    async with running_in_process(home, vault_changes={"store": store}) as both:
        vault = both.stack.vault
        other = "organizations/other"
        strangers = {
            "another's administrator": await vault.issue(other, "ADMIN"),
            "another's member": await vault.issue(other, "MEMBER", user=f"{other}/users/eve"),
            "another's auditor": await vault.issue(other, "AUDITOR"),
            "another's service": await vault.issue(other, "MEMBER", scopes=["COMPLETE", "ACT_ON_BEHALF"]),
        }
        work.watch(store, "read", "write", "list", "delete", "seal", "unseal", is_store=True)
        work.watch(both.stack.router.ledger, *LEDGER)
        yield World(both, {name: client.token for name, client in strangers.items()}, work)


def put_back(value: Any, names: dict[str, str]) -> Any:
    """What was answered, with the ids of the things that there are."""
    if isinstance(value, tuple):
        return tuple(put_back(one, names) for one in value)
    for name, unknown in names.items():
        if isinstance(value, str):
            value = value.replace(unknown, name)
        elif isinstance(value, bytes):
            value = value.replace(unknown.encode(), name.encode())
    return value


def as_stranger(step: Step, token: str) -> Step:
    """The request as a router would make it for the stranger."""
    request: Any = step.request
    if isinstance(request, lease_service_pb2.LeaseCredentialRequest | lease_service_pb2.ListLeasableRequest):
        request = renamed(request, {})
        request.caller_proof = token
    elif isinstance(request, lease_service_pb2.BatchLeaseCredentialsRequest):
        request = renamed(request, {})
        for one in request.requests:
            one.caller_proof = token
    return replace(step, request=request)


def in_order(answers: Sequence[Message]) -> tuple[bytes, ...]:
    """The answers as bytes. Those of a batch come as they are there, and are put into the order of its requests."""
    results: list[Any] = [one for answer in answers for one in getattr(answer, "results", ())]
    found: Sequence[Message] = sorted(results, key=attrgetter("index")) if results else answers
    return tuple(one.SerializeToString(deterministic=True) for one in found)


def changed(step: Step, names: dict[str, str]) -> Step | None:
    """The same for what is not there; None where the request names nothing of it."""
    request: Message = renamed(step.request, names)
    return None if request == step.request else replace(step, request=request)


async def compare(world: World, step: Step, who: str, token: str, names: dict[str, str]) -> list[str]:
    """What differs."""
    unknown = changed(step, names)
    if unknown is None:
        return []
    there: tuple[Any, ...] = ()
    not_there: tuple[Any, ...] = ()
    for _ in range(MOST_TRIES):
        there, not_there = await world.ask(step, token), put_back(await world.ask(unknown, token), names)
        if there == not_there:
            return []
    labels = ("code", "reason", "message", "details", "answers", "work")
    return [
        f"{step.method} by {who}: {label} {one!r} of what is there, {other!r} of what is not"
        for label, one, other in zip(labels, there, not_there, strict=True)
        if one != other
    ]


async def test_what_is_anothers_looks_as_if_it_were_not_there(tmp_path: Path) -> None:
    differences: list[str] = []
    compared: Counter[str] = Counter()
    async with running_world(tmp_path) as world:
        for step in await world.both.steps():
            await world.both.run(step)  # makes what the strangers then ask for
            if step.method in OF_NO_TENANT:
                continue
            for who, token in world.strangers.items():
                asked = as_stranger(step, token)
                for names in (TENANT, LEAVES):
                    differences += await compare(world, asked, who, token, names)
                compared[find_method(step.method)] += 1
    assert not differences, "\n".join(differences)
    left_out = {find_method(name) for name in OF_NO_TENANT}
    assert set(compared) | left_out == set(METHODS)
    tried(
        8,
        "unknown and another's, compared by status, details, answers and work",
        methods=len(compared),
        identities=len(world.strangers),
        comparisons=2 * sum(compared.values()),
    )


async def test_what_is_a_persons_own_looks_to_colleagues_as_if_it_were_not_there(tmp_path: Path) -> None:
    differences: list[str] = []
    compared = 0
    async with running_world(tmp_path) as world:
        bob = await world.both.stack.vault.issue("organizations/demo", "MEMBER", user="organizations/demo/users/bob")
        own = re.compile(rb"users/ada")
        for step in await world.both.steps():
            await world.both.run(step)
            if step.method in OF_NO_TENANT or not own.search(step.request.SerializeToString()):
                continue
            asked = as_stranger(step, bob.token)
            differences += await compare(world, asked, "a colleague", bob.token, MINE)
            compared += 1
    assert not differences, "\n".join(differences)
    assert compared
    tried(8, "a colleague's own and unknown, compared", requests=compared)


def test_the_leaves_are_as_long_as_what_they_stand_for() -> None:
    for name, other in (*TENANT.items(), *LEAVES.items()):
        assert len(name) == len(other)
