"""The clients with certificates: the command line, the one for Python without a loop, the one for Go."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from keyswitch_client import Client, ClientCertificate, text_of

from tests.service.callers_harness import Callers, running_callers
from tests.service.router_answers import Json, answer
from tests.service.router_harness import DEMO

ROOT = Path(__file__).parents[2]
MAIN = f"{DEMO}/credentials/main"


def write(folder: Path, certificate: ClientCertificate) -> dict[str, str]:
    """The files, and the environment that names them."""
    (folder / "caller.pem").write_bytes(certificate.chain_pem)
    (folder / "caller-key.pem").write_bytes(certificate.key_pem)
    return {
        "KEYSWITCH_CERT": str(folder / "caller.pem"),
        "KEYSWITCH_KEY": str(folder / "caller-key.pem"),
        "KEYSWITCH_CA": str(folder / "ca.pem"),
    }


async def run(*command: str, environment: dict[str, str], cwd: Path = ROOT) -> tuple[int, str, str]:
    """Runs a program beside the services."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("KEYSWITCH_")}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=known | environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


def addresses(callers: Callers) -> dict[str, str]:
    """Where callers with certificates come."""
    return {"KEYSWITCH_ROUTER": callers.router_target, "KEYSWITCH_VAULT": callers.vault_target}


async def test_the_command_line(tmp_path: Path) -> None:
    async with running_callers(tmp_path) as callers:
        await callers.stack.save_key(MAIN)
        callers.stack.first.script(answer())
        environment = write(tmp_path, callers.authority.caller("demo/chat")) | addresses(callers)
        command = (sys.executable, "-m", "keyswitch_cli")
        code, out, err = await run(*command, "chat", "Hi", environment=environment)
        assert code == 0, err
        assert "Hello world" in out
        assert MAIN in err
        code, out, err = await run(*command, "-o", "demo", "keys", "list", environment=environment)
        assert code == 0, err
        assert "main" in out
        code, _, err = await run(
            *command, "--cert", environment.pop("KEYSWITCH_CERT"), "chat", "Hi", environment=addresses(callers)
        )
        assert code == 2
        assert "--key" in err
        broken = environment | {"KEYSWITCH_CERT": environment["KEYSWITCH_KEY"]}
        code, _, err = await run(*command, "chat", "Hi", environment=broken)
        assert code == 3
        assert "PEM" in err


async def test_python_without_a_loop(tmp_path: Path) -> None:
    async with running_callers(tmp_path) as callers:
        await callers.stack.save_key(MAIN)
        callers.stack.first.script(answer(), answer())
        files = write(tmp_path, callers.authority.caller("demo/chat"))
        certificate = ClientCertificate.read(files["KEYSWITCH_CERT"], files["KEYSWITCH_KEY"])

        def talk() -> list[str]:
            target, ca = callers.router_target, files["KEYSWITCH_CA"]
            with Client(target, ca_path=ca, certificate=certificate, vault_target=callers.vault_target) as client:
                first = text_of(client.complete("hi").message)
                client.renew(callers.authority.caller("demo/chat"))
                with client.stream("hi") as stream:
                    return [first, "".join(stream.text())]

        assert await asyncio.to_thread(talk) == ["Hello world", "Hello world"]


@pytest.mark.timeout(400)  # the first build compiles grpc
async def test_go(tmp_path: Path) -> None:
    def named_as_the_example_asks(configuration: Json) -> None:
        configuration["models"]["test/echo"]["aliases"] = ["practice/echo"]

    async with running_callers(tmp_path, configuration=named_as_the_example_asks) as callers:
        await callers.stack.save_key(MAIN)
        callers.stack.first.script(answer())
        environment = write(tmp_path, callers.authority.caller("demo/chat")) | addresses(callers)
        code, out, err = await run(
            "go", "run", "./examples/first", cwd=ROOT / "clients" / "go", environment=environment
        )
        assert code == 0, err
        assert out.startswith("Hello world")
        assert "paid by PAYER_ORGANIZATION_KEY" in out
