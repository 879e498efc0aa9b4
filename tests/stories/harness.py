"""A story told: both services, the providers, a shell with the keyswitch command, and the page that is played."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from ruamel.yaml import YAML

from tests.service.router_answers import Json
from tests.service.router_harness import Stack, running_stack
from tests.stories.command_server import write_shim
from tests.stories.page import Page
from tests.stories.providers import Providers, lead_to
from tests.stories.shell import Shell, Shown, running_shell

PAGES = Path(__file__).parents[2] / "docs" / "stories"
IS_WRITING = os.environ.get("KEYSWITCH_WRITE_STORIES") == "1"
WIDTH_COLUMNS = 118
KEY = re.compile(r"\bsk-[\w-]{8,}")  # how every key of the stories begins


@dataclass
class Story:
    """What a test holds while it tells a story."""

    stack: Stack
    providers: Providers
    shell: Shell
    page: Page
    folder: Path
    differences: list[str] = field(default_factory=list)
    told: int = 0

    async def play(self, section: str) -> list[Shown]:
        """Runs the commands of a section, the next one that there is."""
        return [shown async for shown in self.steps(section)]

    async def steps(self, section: str) -> AsyncIterator[Shown]:
        """The same, command by command: the test may do something in between."""
        commands = self.page.commands
        assert commands[self.told].section == section
        while self.told < len(commands) and commands[self.told].section == section:
            command = commands[self.told]
            self.told += 1
            shown = await self.shell.run(command.text)
            assert not KEY.search(shown.text), "a key was shown"
            await self.stack.router.ledger.flush()  # what is read next has been written
            await self.stack.settle()  # the router hears of a changed key within its stated time, readers are slower
            difference = self.page.compare(command, shown.text)
            self.page.take(command, shown.text)
            if difference:
                self.differences.append(f"$ {command.text}\n{difference}")
            yield shown

    def end(self) -> None:
        """Insists that all was told, and that the page says what happened."""
        assert self.told == len(self.page.commands), f"not told: {self.page.commands[self.told :]}"
        if IS_WRITING and self.differences:
            self.page.save()  # whole: an id that two commands show is the same one
            return
        assert not self.differences, "`make stories` writes the page anew:\n" + "\n".join(self.differences)

    def list_price_nanos(self, model: str, provider: str) -> int:
        """What an answer of a provider costs by the catalog, with the usage that it reports now."""
        price = self.stack.router.configuration.current.models[model].price_at(provider)
        assert price is not None
        entered, written = self.providers.usage
        nanos = Fraction(entered * (price.input_nanos or 0) + written * (price.output_nanos or 0), 10**6)
        assert nanos.denominator == 1
        return int(nanos)

    async def balance_nanos(self, organization: str) -> int:
        """An organization's credits, when all calls are settled."""
        await self.stack.rest()
        return int((await self.stack.router.ledger.balance(organization)).balance_nanos)


@asynccontextmanager
async def command_server() -> AsyncIterator[Path]:
    """A folder for the path, with a `keyswitch` in it."""
    with tempfile.TemporaryDirectory(prefix="ks") as name:  # short: a socket's path has 107 bytes at most
        folder = Path(name)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.stories.command_server", str(folder / "s"), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        write_shim(folder, str(folder / "s"))
        try:
            yield folder
        finally:
            process.terminate()
            await process.wait()


@asynccontextmanager
async def telling(name: str, home: Path, providers: Sequence[str], path: Path, **changes: Json) -> AsyncIterator[Story]:
    """Everything that a story needs; the configuration is the page's own, its providers lead to the upstream."""
    page = Page(PAGES / f"{name}.md")

    def configure(made: Json) -> None:
        port = made["providers"]["first"]["base_url"].partition("/v1")[0].rpartition(":")[2]
        made.clear()
        made.update(YAML(typ="safe").load(page.block("yaml")))
        lead_to(int(port), providers, made.setdefault("providers", {}))

    async with running_stack(home, configuration=configure, **changes) as stack:
        folder = home / "work"
        folder.mkdir()
        environment = {
            "PATH": str(path),
            "COLUMNS": str(WIDTH_COLUMNS),
            "KEYSWITCH_HOME": str(home),
            "KEYSWITCH_ROUTER": f"localhost:{stack.router.port}",
            "KEYSWITCH_VAULT": f"localhost:{stack.vault.service.management_port}",
        }
        async with running_shell(folder, environment) as shell:
            story = Story(stack, Providers(stack.first), shell, page, folder)
            yield story
            story.end()
