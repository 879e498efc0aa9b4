"""A real TCP fault proxy (toxiproxy) for tests: ways to a port of this machine that can be made bad, and good again.

Where no proxy can be had its tests fail, unless KEYSWITCH_SKIP_PROXY=1 says to skip them.
"""

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import requests

from tests.fakes.vault_server import free_port

BUILD = Path(__file__).resolve().parents[1] / "tools" / "toxiproxy" / "build"
_START_SECONDS = 20
_LATE_MILLISECONDS = 6_000  # toxiproxy lets a way be healed only when what it holds back is through
_CUT_BYTES = 40


class WayFault(Enum):
    """What can be wrong with a way."""

    REFUSED = "nobody listens"
    BLACKHOLE = "connected, and nothing arrives on either side"
    RESET = "reset at the first byte"
    CUT = "cut in the middle of an answer"
    SNAP = "cut after two bytes of an answer"
    DEAF = "half open: what is sent does not arrive"
    MUTE = "half open: no answer arrives"
    LATE = "every answer is six seconds late"
    SLOW = "every answer is a hundredth of a second late"
    DRIP = "one byte a second"
    NARROW = "one kilobyte a second"


@dataclass(frozen=True)
class _Toxic:
    type: str
    stream: str
    attributes: Mapping[str, int] = field(default_factory=dict)


def _both(kind: str, **attributes: int) -> tuple[_Toxic, _Toxic]:
    return _Toxic(kind, "upstream", attributes), _Toxic(kind, "downstream", attributes)


# A time-out of 0 keeps the connection open and drops what comes.
_TOXICS: Mapping[WayFault, Sequence[_Toxic]] = {
    WayFault.REFUSED: (),
    WayFault.BLACKHOLE: _both("timeout", timeout=0),
    WayFault.RESET: _both("reset_peer", timeout=0),
    WayFault.CUT: (_Toxic("limit_data", "downstream", {"bytes": _CUT_BYTES}),),
    WayFault.SNAP: (_Toxic("limit_data", "downstream", {"bytes": 2}),),
    WayFault.DEAF: (_Toxic("timeout", "upstream", {"timeout": 0}),),
    WayFault.MUTE: (_Toxic("timeout", "downstream", {"timeout": 0}),),
    WayFault.LATE: (_Toxic("latency", "downstream", {"latency": _LATE_MILLISECONDS}),),
    WayFault.SLOW: (_Toxic("latency", "downstream", {"latency": 10}),),
    WayFault.DRIP: (_Toxic("slicer", "downstream", {"average_size": 1, "size_variation": 0, "delay": 1_000_000}),),
    WayFault.NARROW: (_Toxic("bandwidth", "downstream", {"rate": 1}),),
}


@dataclass(frozen=True)
class Way:
    """A port of this machine that leads to another one."""

    proxy: "FaultProxy"
    name: str
    port: int

    async def impair(self, fault: WayFault) -> None:
        """Makes the way bad, for the connections that it has and for new ones."""
        await asyncio.to_thread(self._impair, fault)

    async def heal(self) -> None:
        """Makes it good. What hung on it is closed."""
        await asyncio.to_thread(self._heal)

    def _impair(self, fault: WayFault) -> None:
        if fault is WayFault.REFUSED:
            self.proxy.ask("POST", f"proxies/{self.name}", {"enabled": False})
        for toxic in _TOXICS[fault]:
            body = {"type": toxic.type, "stream": toxic.stream, "attributes": toxic.attributes}
            self.proxy.ask("POST", f"proxies/{self.name}/toxics", body)

    def _heal(self) -> None:
        # Closed first: a fault is not taken off a connection in which bytes still wait for it.
        self.proxy.ask("POST", f"proxies/{self.name}", {"enabled": False})
        for toxic in self.proxy.ask("GET", f"proxies/{self.name}/toxics"):
            self._take_off(toxic["name"])
        self.proxy.ask("POST", f"proxies/{self.name}", {"enabled": True})

    def _take_off(self, toxic: str) -> None:
        """Where bytes are still under way the proxy says that it is unavailable, and takes the fault off later."""
        try:
            self.proxy.ask("DELETE", f"proxies/{self.name}/toxics/{toxic}")
        except requests.HTTPError as error:
            if error.response.status_code != requests.codes.unavailable:
                raise


@dataclass(frozen=True)
class FaultProxy:
    """A running proxy."""

    url: str
    process: "subprocess.Popen[bytes]" = field(repr=False)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request to its interface; raises where it is refused."""
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(method, f"{self.url}/{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def way_to(self, port: int) -> Way:
        """A new way to a port."""
        listen = free_port()
        name = f"way-{listen}"
        self.ask("POST", "proxies", {"name": name, "listen": f"127.0.0.1:{listen}", "upstream": f"127.0.0.1:{port}"})
        return Way(self, name, listen)


@contextmanager
def running_proxy() -> Iterator[FaultProxy]:
    """A proxy without ways, gone afterwards."""
    built = subprocess.run([BUILD], check=False, capture_output=True, text=True)
    if built.returncode:
        raise AssertionError(built.stderr.strip())
    port = free_port()
    with tempfile.TemporaryFile() as log:
        command = [built.stdout.strip().splitlines()[-1], "-host", "127.0.0.1", "-port", str(port)]
        environment = {"PATH": os.environ["PATH"], "LOG_LEVEL": "error"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        proxy = FaultProxy(f"http://127.0.0.1:{port}", process)
        try:
            _await_ready(proxy)
            yield proxy
        finally:
            process.kill()
            process.wait()


def _await_ready(proxy: FaultProxy) -> None:
    pause = Event()
    for _ in range(_START_SECONDS * 20):
        if proxy.process.poll() is not None:
            raise AssertionError("the fault proxy ended at once")
        with suppress(requests.RequestException):
            proxy.ask("GET", "proxies")
            return
        pause.wait(0.05)
    raise AssertionError(f"the fault proxy was not ready after {_START_SECONDS} s")


@pytest.fixture(scope="session")
def fault_proxy() -> Iterator[FaultProxy]:
    """One proxy for all tests of a run; each makes its own ways."""
    if os.environ.get("KEYSWITCH_SKIP_PROXY") == "1":
        pytest.skip("KEYSWITCH_SKIP_PROXY=1: NOTHING WAS TRIED OVER A FAULTY NETWORK")
    with running_proxy() as proxy:
        yield proxy
