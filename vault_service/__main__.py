"""Runs the credential service: reads the environment, hardens the process, serves until a signal."""

import asyncio
import ctypes
import gc
import os
import resource
import signal
import sys
import traceback
from collections.abc import Coroutine, Mapping, MutableMapping
from typing import Any

import structlog

from vault_service.config import PREFIX, Config, ConfigError, load_config
from vault_service.fixed_settings import is_secret
from vault_service.observe.logs import configure_logs

_PR_SET_DUMPABLE = 4
_EXIT_CONFIGURATION = 78
_EXIT_SOFTWARE = 70
_YOUNG_OBJECTS = 20_000
"""How many more objects there are before the collector looks for circles among them. Python's own number is 700, and
looking again and again took a sixteenth of a lease."""


def main(environment: MutableMapping[str, str]) -> int:
    """Gives the exit code. Takes keys out of the environment."""
    try:
        refuse_tracing(environment)
        config = load_config(environment)
    except ConfigError as error:
        sys.stderr.write(f"vault_service: {error}\n")
        return _EXIT_CONFIGURATION
    finally:
        forget_keys(environment)
    harden_process()
    configure_logs()
    try:
        return _run_loop(_run(config))
    except Exception as error:  # noqa: BLE001 - the last border: Python would print the text, which may hold a secret
        frames = [f"{one.filename}:{one.lineno} {one.name}" for one in traceback.extract_tb(error.__traceback__)]
        structlog.stdlib.get_logger("vault_service").critical(
            "crashed", exception_type=type(error).__name__, frames=frames
        )
        return _EXIT_SOFTWARE


def refuse_tracing(environment: Mapping[str, str]) -> None:
    """Raises where gRPC would print what it carries."""
    if environment.get("GRPC_TRACE"):
        raise ConfigError("GRPC_TRACE is set: gRPC would print messages with secrets; unset it")
    if environment.get("GRPC_VERBOSITY", "").lower() == "debug":
        raise ConfigError("GRPC_VERBOSITY is debug: gRPC would print messages with secrets; unset it")


def forget_keys(environment: MutableMapping[str, str]) -> None:
    """Takes the variables that hold keys away, and overwrites them where /proc/PID/environ shows what the start had."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    for name in [one for one in environment if is_secret(one, PREFIX)]:
        if place := libc.getenv(name.encode()):
            ctypes.memset(place, ord("x"), len(ctypes.string_at(place)))
        del environment[name]


def harden_process() -> None:
    """No core dumps, and no other process of the user may read this one's memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the process cannot be made undumpable")


def _run_loop(main: Coroutine[Any, Any, int]) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


async def _run(config: Config) -> int:
    from vault_service.app import serve
    from vault_service.audit.chain import ChainBroken
    from vault_service.core.faults import Fault
    from vault_service.prerequisites import CannotStart
    from vault_service.store.store import StoreError

    log = structlog.stdlib.get_logger("vault_service")
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    # Certificates are read anew by themselves, so a hangup has nothing to do.
    loop.add_signal_handler(signal.SIGHUP, lambda: log.info("hangup_ignored"))
    try:
        running = await serve(config)
    except (CannotStart, StoreError, ChainBroken) as error:
        log.critical("cannot_start", cause=str(error))
        return 1
    except Fault as fault:
        log.critical("cannot_start", reason=fault.reason.value, metadata=fault.metadata)
        return 1
    _settle_memory()
    await stopped.wait()
    await running.stop()
    log.info("stopped")
    return 0


def _settle_memory() -> None:
    """What the start has made stays to the end: the collector of circles need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)


if __name__ == "__main__":
    sys.exit(main(os.environ))
