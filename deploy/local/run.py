"""`make run`: starts the local deployment, streams a first completion, says what to type next, and stays up."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from deploy.local.stack import KEY_PREFIX, Stack, StackError

FIRST_PROMPT = "Say hello to somebody who has just started Keyswitch."


def main() -> int:
    """Runs until Ctrl-C or SIGTERM."""
    return asyncio.run(_run(Stack(Path(os.environ.get("KEYSWITCH_HOME", ".keyswitch")).resolve())))


async def _run(stack: Stack) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        print("starting the practice provider, vault_service and router_service ...", flush=True)
        await stack.start()
        is_new = await stack.furnish()
        _tell_start(stack, is_new=is_new)
        await _first_chat(stack)
        _tell_next(stack)
        return await _stay(stack, stop)
    except StackError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    finally:
        print("\nstopping ...", flush=True)
        await stack.stop()


async def _stay(stack: Stack, stop: asyncio.Event) -> int:
    while not stop.is_set():
        stack.check_alive()
        try:
            await asyncio.wait_for(stop.wait(), 1.0)
        except TimeoutError:
            continue
    return 0


async def _first_chat(stack: Stack) -> None:
    command = [str(Path(sys.executable).with_name("keyswitch")), "chat", FIRST_PROMPT]
    print(f'\n$ keyswitch --token-file {_short(stack.home)}/ada.token chat "{FIRST_PROMPT}"\n', flush=True)
    environment = os.environ | {
        "KEYSWITCH_HOME": str(stack.home),
        "KEYSWITCH_TOKEN": (stack.home / "ada.token").read_text().strip(),
        "KEYSWITCH_ROUTER": stack.router_target,
        "KEYSWITCH_VAULT": stack.vault_target,
    }
    status = await asyncio.to_thread(subprocess.call, command, env=environment, stdin=subprocess.DEVNULL)
    if status != 0:
        raise StackError("The first completion failed; the words above say why.")


def _tell_start(stack: Stack, *, is_new: bool) -> None:
    home, ports = stack.home, stack.ports
    if is_new:
        print(
            "made the organization demo with the user ada, its application chat, a member's token for ada, and the "
            "practice provider's credential (deployment/credentials/practice)."
        )
    print(f"""
  router             127.0.0.1:{ports.router}   gRPC, TLS (CA: {_short(home)}/ca.pem), reflection
                     127.0.0.1:{ports.router_http}   HTTP: /metrics /healthz /readyz
  credential service 127.0.0.1:{ports.management}   gRPC management, TLS, reflection
                     127.0.0.1:{ports.lease}   gRPC leases, mTLS, routers only
                     127.0.0.1:{ports.vault_http}   HTTP: /metrics /healthz /readyz
  practice provider  127.0.0.1:{ports.practice}   no model runs here: it only speaks the OpenAI and Anthropic wires
  state              {_short(home)}   (operator.token, ada.token, keyswitch.yaml, log/)""", flush=True)  # fmt: skip


def _tell_next(stack: Stack) -> None:
    home = _short(stack.home)
    print(f"""
What to type next, in another terminal, from this folder:

  export PATH="$PWD/.venv/bin:$PATH"
  keyswitch --organization demo tokens issue me --user ada --role admin --out {home}/me.token
  export KEYSWITCH_TOKEN_FILE={home}/me.token
  keyswitch models
  echo {KEY_PREFIX}{"0" * 24} | keyswitch keys add practice --id mine
  keyswitch chat --application chat "Who pays for this?"
  keyswitch keys disable mine
  keyswitch chat --application chat --payer ORGANIZATION_KEY "And now?"

The first of them uses {home}/operator.token. Ctrl-C ends everything.""", flush=True)  # fmt: skip


def _short(path: Path) -> str:
    return os.path.relpath(path)


if __name__ == "__main__":
    sys.exit(main())
