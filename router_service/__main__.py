"""`python -m router_service`: the only place that reads the environment."""

import asyncio
import ctypes
import gc
import os
import resource
import signal
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from router_service.catalog.problems import ConfigurationError
from router_service.config import Config, SettingsError, load_config
from router_service.core.faults import Fault
from router_service.external import ExternalSettingsError
from router_service.observe.logs import set_up
from router_service.workloads import WorkloadsError

if TYPE_CHECKING:
    from router_service.app import RunningRouter

_PR_SET_DUMPABLE = 4


def main() -> int:
    """Runs until SIGTERM or SIGINT. Exit status 2: the settings or the configuration cannot be used."""
    try:
        config = load_config(os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)  # noqa: T201 # nothing is set up yet
        return 2
    if os.environ.get("GRPC_TRACE") or os.environ.get("GRPC_VERBOSITY", "").lower() == "debug":
        print("GRPC_TRACE and GRPC_VERBOSITY=debug print secrets; unset them.", file=sys.stderr)  # noqa: T201 # as above
        return 2
    _forbid_dumps()
    set_up(config.log_level)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(_run(config))
    return uvloop.run(_run(config))


async def _run(config: Config) -> int:
    from router_service.app import serve

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        router = await _unless(stop, serve(config))
    except (ConfigurationError, ExternalSettingsError, WorkloadsError, OSError, RuntimeError) as error:
        print(f"The router cannot start: {error}", file=sys.stderr)  # noqa: T201 # for whoever started it
        return 2
    except Fault as fault:
        print(f"The router cannot start: {fault.message}", file=sys.stderr)  # noqa: T201 # for whoever started it
        return 2
    if router is None:
        return 0
    loop.add_signal_handler(signal.SIGHUP, router.reload)
    gc.collect()
    gc.freeze()  # what the start has made stays to the end: going through it took 55 ms, in the midst of calls
    await stop.wait()
    await router.stop()
    return 0


async def _unless(stop: asyncio.Event, start: "Coroutine[Any, Any, RunningRouter]") -> "RunningRouter | None":
    """What was started; None where a signal came first. A start may wait for its database for a while."""
    starting, stopping = asyncio.create_task(start), asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        if starting.cancelled():
            return None
    stopping.cancel()
    return await starting


def _forbid_dumps() -> None:
    """No core file and no reading of this process's memory by others of the same user."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
