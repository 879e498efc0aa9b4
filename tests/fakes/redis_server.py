"""A real Redis or Valkey server for tests, on a Unix socket in a temporary folder, that keeps nothing.

Over TCP too where a test gives it a port, for what only a network does.
"""

import asyncio
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

FIND = Path(__file__).resolve().parents[1] / "tools" / "redis" / "find"
_START_SECONDS = 20


@dataclass
class RedisServer:
    """A server that a test may stop, freeze and start again, empty."""

    program: Path
    folder: Path
    port: int = 0
    pair: tuple[Path, Path] | None = None
    """A certificate and its key: then the port is for TLS alone."""
    _process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.folder / "redis.sock"

    def url(self, database: int = 0) -> str:
        """Its address."""
        return f"unix://{self.socket}?db={database}"

    def connect(self, database: int = 0) -> "redis.Redis":
        """A connection of the test's own."""
        return redis.Redis(unix_socket_path=str(self.socket), db=database, decode_responses=True)

    def start(self) -> None:
        """Returns when it answers."""
        options = ["--bind", "127.0.0.1", "--unixsocket", str(self.socket)]
        if self.pair is None:
            options += ["--port", str(self.port)]
        else:
            options += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            options += ["--tls-cert-file", str(self.pair[0]), "--tls-key-file", str(self.pair[1])]
        options += ["--save", "", "--appendonly", "no"]
        with (self.folder / "log").open("ab") as log:
            command = [str(self.program), *options, "--dir", str(self.folder), "--databases", "64"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        for _ in range(_START_SECONDS * 20):
            try:
                with self.connect() as client:
                    client.ping()
                    return
            except redis.exceptions.ConnectionError:
                subprocess.run(["sleep", "0.05"], check=True)  # somebody else's program has no event to wait for
        raise AssertionError((self.folder / "log").read_text()[-500:])

    def signal(self, number: signal.Signals) -> None:
        """Freezes or wakes it, where it runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def stop(self) -> None:
        """Ends it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=30)
            self._process = None
            self.socket.unlink(missing_ok=True)


@contextmanager
def running_redis(program: Path, port: int = 0, pair: tuple[Path, Path] | None = None) -> Iterator[RedisServer]:
    """A server, gone with its folder afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="keyswitch-redis-"))
    server = RedisServer(program, folder, port, pair)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def find_program() -> Path:
    """The server's program; installed where it can be, else the test is skipped."""
    done = subprocess.run([FIND], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"NOTHING WAS TESTED AGAINST REDIS: {done.stderr.strip()[-200:]}")
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def redis_program() -> Path:
    return find_program()


@pytest.fixture(scope="session")
def redis_server(redis_program: Path) -> Iterator[RedisServer]:
    """One server for all tests of a run; each empties it first, none may stop it."""
    with running_redis(redis_program) as server:
        yield server


@pytest.fixture
def own_redis_server(redis_program: Path) -> Iterator[RedisServer]:
    """A server of the test's own, to stop or to freeze."""
    with running_redis(redis_program) as server:
        yield server


async def age(server: RedisServer, seconds: float) -> None:
    """Lets time pass for what is stored, without waiting: every stored time moves into the past."""
    await asyncio.to_thread(_age, server, seconds)


def _age(server: RedisServer, seconds: float) -> None:
    ms = round(seconds * 1000)
    with server.connect() as client:
        for key in client.keys("keyswitch:*"):
            if key.endswith((":slots", ":waiting")):
                for ticket, end in client.zrange(key, 0, -1, withscores=True):
                    client.zadd(key, {ticket: end - ms})
            elif ":rate:" in key:
                steps = client.hgetall(key)
                moved = {str(int(step) - round(seconds / 2)): count for step, count in steps.items()}
                client.hdel(key, *steps)
                client.hset(key, mapping=moved)
            elif key == "keyswitch:{rests}":
                for what, rest in client.hgetall(key).items():
                    cause, until, probe, forget, count = rest.split("|")
                    times = (str(max(0, int(time) - ms)) for time in (until, probe, forget))
                    client.hset(key, what, "|".join((cause, *times, count)))
