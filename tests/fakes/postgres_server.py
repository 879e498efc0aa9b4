"""A real PostgreSQL server for tests, in a temporary folder, on loopback, with a password."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import psycopg
import pytest

FIND = Path(__file__).resolve().parents[1] / "tools" / "postgres" / "find"
USER = "postgres"
PASSWORD = "only-for-tests"
_START_SECONDS = 60


@dataclass(frozen=True)
class Backend:
    """A process of the server."""

    process_id: int

    def send_signal(self, number: signal.Signals) -> None:
        """Stops it, or lets it go on."""
        os.kill(self.process_id, number)


@dataclass
class PostgresServer:
    """A server that a test may stop, freeze and start again. Its databases are empty when they are made."""

    programs: Path
    folder: Path
    port: int
    is_durable: bool
    _numbers: "count[int]" = field(default_factory=lambda: count(1))
    _process: subprocess.Popen[bytes] | None = None

    @property
    def password_file(self) -> Path:
        """Where the password is, as a deployment would mount it."""
        return self.folder / "password"

    def url(self, database: str = USER) -> str:
        """Without the password."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = USER) -> "psycopg.Connection[tuple[object, ...]]":
        """A connection of the test's own, each statement a transaction."""
        return psycopg.connect(self.url(database), password=PASSWORD, autocommit=True, connect_timeout=10)

    def create_database(self) -> str:
        """The name of a new, empty one."""
        name = f"test_{next(self._numbers)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return name

    def make(self) -> None:
        """Makes the cluster."""
        self.password_file.write_text(PASSWORD)
        options = ["--username", USER, "--pwfile", str(self.password_file), "--auth", "scram-sha-256"]
        _give(self.folder)
        self._run("initdb", "-D", str(self._data), "--encoding", "UTF8", "--no-locale", "--no-sync", *options)

    def start(self) -> None:
        """Returns when it answers."""
        durability = [] if self.is_durable else ["-c", "fsync=off", "-c", "full_page_writes=off"]
        options = ["-c", f"port={self.port}", "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_as_postgres(), self.programs / "postgres", "-D", self._data, *options, *durability],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), attempts=_START_SECONDS * 10)

    def stop(self, number: signal.Signals = signal.SIGQUIT) -> None:
        """Ends it at once, as a crash would; what was acknowledged is kept."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=30)
            self._process = None

    def backend(self, application: str) -> "Backend":
        """The process that serves a program's connection."""
        with self.connect() as connection:
            row = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = %s", (application,)
            ).fetchone()
        assert row is not None
        return Backend(int(str(row[0])))

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _run(self, program: str, *arguments: str, attempts: int = 1) -> None:
        command = [*_as_postgres(), str(self.programs / program), *arguments]
        error = ""
        for _ in range(attempts):
            done = subprocess.run(command, cwd=self.folder, capture_output=True, check=False)
            if done.returncode == 0:
                return
            error = done.stderr.decode()[-500:]
            if attempts > 1:
                subprocess.run(["sleep", "0.1"], check=True)  # somebody else's program has no event to wait for
        raise AssertionError(f"{program} failed: {error}")


@contextmanager
def running_postgres(programs: Path, *, is_durable: bool = False) -> Iterator[PostgresServer]:
    """A server, gone with its folder afterwards. `is_durable` only where commits are measured."""
    folder = Path(tempfile.mkdtemp(prefix="keyswitch-postgres-"))
    server = PostgresServer(programs, folder, _free_port(), is_durable)
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def find_programs() -> Path:
    """The folder of the server's programs; installed where they can be, else the test is skipped."""
    done = subprocess.run([FIND], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"NOTHING WAS TESTED AGAINST POSTGRESQL: {done.stderr.strip()[-200:]}")
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def postgres_programs() -> Path:
    return find_programs()


@pytest.fixture(scope="session")
def postgres_server(postgres_programs: Path) -> Iterator[PostgresServer]:
    """One server for all tests of a run. Each takes a database of its own; none may stop it."""
    with running_postgres(postgres_programs) as server:
        yield server


@pytest.fixture
def own_postgres_server(postgres_programs: Path) -> Iterator[PostgresServer]:
    """A server of the test's own, to stop or to freeze."""
    with running_postgres(postgres_programs) as server:
        yield server


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _give(folder: Path) -> None:
    if os.getuid() == 0:
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, USER, USER)


def _as_postgres() -> list[str]:
    """The server refuses to run as root. A program changes the user, not Popen: that would fork a process that has
    threads of gRPC, which crashes now and then.
    """
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if os.getuid() == 0 else []
