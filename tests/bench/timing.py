"""`python -m tests.bench.timing`: whether time tells what is another's from what is not there.

Every method of both services is asked, over gRPC, by somebody who may not know: for a thing that is there, for one that
is not, and for another one that is not. The three are interleaved in an order of chance, so that whatever else the
machine does is in all of them. The last two are the same case, and show what the method sees where there is nothing.

What is said of each: the median of the differences of one round with an interval that holds in 19 of 20 runs for *all*
rows together (order statistics, no assumption of a distribution), and the AUC, the chance that a call for what is there
takes longer than one for what is not: 0.5 tells nothing, 1 everything.
"""

import argparse
import asyncio
import gc
import math
import random
import re
import sys
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, median

from tests.fakes.vault_server import find_binary, running_server
from tests.security.canary import Scanner
from tests.security.canary_requests import Step
from tests.security.test_equal_answers import (
    LEAVES,
    MINE,
    OF_NO_TENANT,
    TENANT,
    World,
    as_stranger,
    changed,
    running_world,
)
from vault_service.store.embedded import EmbeddedStore
from vault_service.store.hashicorp import HashiCorpStore
from vault_service.store.vault_settings import AppRoleFiles, VaultSettings

FALSE_ALARMS = 0.05
SHOWN = 12
WARM_UP = 5


@dataclass(frozen=True)
class Question:
    """One that is asked three times: of what is there, of what is not, and of what else is not."""

    name: str
    steps: tuple[Step, Step, Step]
    token: str


@dataclass(frozen=True)
class Told:
    """What the times of two cases say of each other, in microseconds."""

    difference: float
    lowest: float
    highest: float
    auc: float

    @property
    def is_apart(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.lowest > 0 or self.highest < 0


@dataclass(frozen=True)
class Row:
    """What was found for a question."""

    name: str
    median: float
    there: Told
    null: Told


def compare(first: Sequence[float], second: Sequence[float], comparisons: int) -> Told:
    """Compares the cases of the same rounds; the interval is widened for so many comparisons."""
    differences = sorted(one - other for one, other in zip(first, second, strict=True))
    count = len(differences)
    quantile = NormalDist().inv_cdf(1 - FALSE_ALARMS / comparisons / 2)
    low = max(0, math.floor(count / 2 - quantile * math.sqrt(count) / 2) - 1)
    return Told(median(differences), differences[low], differences[count - 1 - low], auc(first, second))


def auc(first: Sequence[float], second: Sequence[float]) -> float:
    """The chance that one of the first is greater than one of the second; equals count a half."""
    ordered = sorted(second)
    below = sum((bisect_left(ordered, one) + bisect_right(ordered, one)) / 2 for one in first)
    return below / len(first) / len(second)


def other_names(names: Mapping[str, str]) -> dict[str, str]:
    """Names of something else that is not there, as long as the first ones."""
    return {name: f"{unknown[:-1]}9" for name, unknown in names.items()}


def questions_of(step: Step, world: World, colleague: str) -> list[Question]:
    """By somebody of another tenant, and by a colleague for what is a person's own."""
    asked = [
        ("another's administrator", world.strangers["another's administrator"], names) for names in (TENANT, LEAVES)
    ]
    if re.search(rb"users/ada", step.request.SerializeToString()):
        asked.append(("a colleague", colleague, MINE))
    found = []
    for who, token, names in asked:
        there = as_stranger(step, token)
        unknown, another = changed(there, names), changed(there, other_names(names))
        if unknown is not None and another is not None:
            kind = "tenant" if names is TENANT else "thing"
            found.append(Question(f"{step.method}, {kind}, {who}", (there, unknown, another), token))
    return found


async def ask(world: World, question: Question, rounds: int, chance: random.Random) -> list[list[float]]:
    """The times of the three cases, in microseconds."""
    times: list[list[float]] = [[], [], []]
    order = [0, 1, 2]
    gc.collect()
    gc.disable()
    for number in range(rounds + WARM_UP):
        chance.shuffle(order)
        for case in order:
            began = time.perf_counter_ns()
            await world.both.run(question.steps[case], question.token)
            took = (time.perf_counter_ns() - began) / 1000
            if number >= WARM_UP:
                times[case].append(took)
    gc.enable()
    return times


async def measure(rounds: int, over: str, methods: Sequence[str], folder: Path) -> list[Row]:
    """Everything, over one store."""
    chance, asked = random.Random(8), list[tuple[str, list[list[float]]]]()
    async with AsyncExitStack() as exits:
        if over == "vault":
            server = exits.enter_context(running_server(find_binary()))
            store: object = HashiCorpStore(VaultSettings(server.url, AppRoleFiles(*server.write_credentials(folder))))
        else:
            store = await EmbeddedStore.open(folder / "store")
        world = await exits.enter_async_context(running_world(folder / "home", store))
        world.both.watched.calls.scanner = Scanner()  # looks for nothing, which takes no time
        bob = await world.both.stack.vault.issue("organizations/demo", "MEMBER", user="organizations/demo/users/bob")
        for step in await world.both.steps():
            await world.both.run(step)  # makes what is then asked for
            if step.method in OF_NO_TENANT or (methods and step.method not in methods):
                continue
            for question in questions_of(step, world, bob.token):
                asked.append((question.name, await ask(world, question, rounds, chance)))
                print(".", end="", flush=True, file=sys.stderr)
    print(file=sys.stderr)
    return [
        Row(name, median(unknown), compare(there, unknown, len(asked)), compare(another, unknown, len(asked)))
        for name, (there, unknown, another) in asked
    ]


def report(rows: Sequence[Row], rounds: int, over: str) -> str:
    """The rows that differ most, and how many tell something."""
    ordered = sorted(rows, key=lambda row: -abs(row.there.auc - 0.5))
    lines = [
        f"Time for what is another's and for what is not there: {len(rows)} questions, {rounds} rounds each, {over}",
        f"{'':58}  median µs  difference µs [interval]      AUC    AUC of two unknown",
    ]
    for row in ordered[:SHOWN]:
        told = row.there
        interval = f"{told.difference:+8.1f} [{told.lowest:+.0f}, {told.highest:+.0f}]"
        lines.append(f"{row.name[:58]:58}  {row.median:9.0f}  {interval:28}  {told.auc:.3f}  {row.null.auc:.3f}")
    furthest = max(abs(row.there.auc - 0.5) for row in rows) + 0.5
    null = max(abs(row.null.auc - 0.5) for row in rows) + 0.5
    lines += [
        f"told apart: {sum(row.there.is_apart for row in rows)} of {len(rows)}; "
        f"two unknown ones: {sum(row.null.is_apart for row in rows)} of {len(rows)}",
        f"AUC at most {furthest:.3f}, of two unknown ones {null:.3f}; median difference at most "
        f"{max(abs(row.there.difference) for row in rows):.0f} µs, of two unknown ones "
        f"{max(abs(row.null.difference) for row in rows):.0f} µs",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--methods", nargs="*", default=(), help="these only; all by default")
    parser.add_argument("--over", choices=("embedded", "vault"), default="embedded")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "home").mkdir(mode=0o700)
        rows = asyncio.run(measure(arguments.rounds, arguments.over, arguments.methods, Path(folder)))
    print(report(rows, arguments.rounds, arguments.over))


if __name__ == "__main__":
    main()
