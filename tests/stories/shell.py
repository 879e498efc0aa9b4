"""A bash as a reader of a story has one: it keeps its variables, and gives what each command writes and how it ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

END = "\x1e"
SECONDS = 60.0


@dataclass(frozen=True)
class Shown:
    """A command, what it wrote to the terminal, and its exit code."""

    command: str
    text: str
    code: int


class Shell:
    """Commands one after the other."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self, command: str) -> Shown:
        """Runs a command to its end."""
        given, said = self._process.stdin, self._process.stdout
        assert given is not None
        assert said is not None
        given.write(f"{{ {command}\n}} </dev/null\nprintf '{END}%d\\n' $?\n".encode())
        async with asyncio.timeout(SECONDS):
            await given.drain()
            text = (await said.readuntil(END.encode())).decode().removesuffix(END)
            code = int(await said.readline())
        return Shown(command, text, code)


@asynccontextmanager
async def running_shell(folder: Path, environment: Mapping[str, str]) -> AsyncIterator[Shell]:
    """A shell in a folder, with these variables and a path."""
    process = await asyncio.create_subprocess_exec(
        "bash", "--noprofile", "--norc",
        cwd=folder,
        env={**environment, "PATH": f"{environment['PATH']}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield Shell(process)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        await process.wait()
