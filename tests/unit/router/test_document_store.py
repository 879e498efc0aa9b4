"""The store of the configuration on SQLite and PostgreSQL: the suite, its migrations, and a server that goes away."""

import signal
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from router_service.catalog.stored import Documents, StoredDocument
from router_service.core.database import Database, SqliteDatabase, parse_database
from router_service.core.faults import Reason
from router_service.state import migration
from router_service.state.documents import metadata
from router_service.state.open_documents import open_documents
from tests.fakes.postgres_server import PostgresServer
from tests.suites.document_suite import ONE, TWO, DocumentSuite
from tests.suites.ledger_values import reason_of

VERSIONS = sorted(Path(migration.__file__).with_name("migrations").glob("versions/v*.py"))


def place_of(server: PostgresServer, name: str) -> Database:
    return parse_database(server.url(name), server.password_file)


class TestSqlite(DocumentSuite):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Database:
        return SqliteDatabase(tmp_path / "configuration.db")


class TestPostgres(DocumentSuite):
    @pytest.fixture
    def place(self, postgres_server: PostgresServer) -> Database:
        return place_of(postgres_server, postgres_server.create_database())


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "configuration.db").write_bytes(b"this is something else altogether " * 100)
    opening = open_documents(SqliteDatabase(tmp_path / "configuration.db"))
    assert await reason_of(opening) is Reason.CONFIGURATION_UNAVAILABLE


async def test_a_file_from_before_there_were_versions_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "configuration.db"
    engine = create_engine(f"sqlite:///{path}")
    metadata.create_all(engine)  # as the version before made them
    engine.dispose()
    old = sqlite3.connect(path, isolation_level=None)
    old.execute("INSERT INTO configuration_revision VALUES (1, 7)")
    old.execute("""INSERT INTO configuration_documents VALUES ('["providers", "one"]', '{}', 7)""")
    store = await open_documents(SqliteDatabase(path))
    assert await store.load() == Documents(7, {ONE: StoredDocument({}, 7)})
    # The version before goes on writing beside this one, word for word:
    old.execute("UPDATE configuration_revision SET revision = 8 WHERE configuration_revision.revision = 7")
    old.execute("""DELETE FROM configuration_documents WHERE configuration_documents.path = '["providers", "one"]'""")
    old.execute(
        """INSERT INTO configuration_documents (path, body, revision) VALUES ('["providers", "one"]', '1', 8)"""
    )
    assert await store.load(7) == Documents(8, {ONE: StoredDocument(1, 8)})
    await store.close()
    old.close()


async def test_tables_of_a_newer_version_serve_while_it_says_so(tmp_path: Path) -> None:
    place = SqliteDatabase(tmp_path / "configuration.db")
    await (await open_documents(place)).close()
    newer = sqlite3.connect(place.path, isolation_level=None)
    newer.execute(f"UPDATE {migration.VERSION_TABLE} SET version_num = '0099'")
    await (await open_documents(place)).close()
    newer.execute("UPDATE configuration_compatibility SET oldest_version = '0099'")
    newer.close()
    assert await reason_of(open_documents(place)) is Reason.CONFIGURATION_UNAVAILABLE


def test_the_latest_migration_is_the_one_that_is_expected() -> None:
    assert VERSIONS[-1].name.startswith(f"v{migration.HEAD}_")


async def test_a_server_that_crashes_is_said_and_got_over(own_postgres_server: PostgresServer) -> None:
    server = own_postgres_server
    store = await open_documents(place_of(server, server.create_database()))
    written = await store.write(0, {ONE: 1})
    server.stop()
    assert await reason_of(store.load(1)) is Reason.CONFIGURATION_UNAVAILABLE
    assert await reason_of(store.write(1, {TWO: 2})) is Reason.CONFIGURATION_UNAVAILABLE
    server.start()
    assert await store.load() == written
    assert (await store.write(1, {TWO: 2})).revision == 2
    await store.close()


async def test_a_server_that_freezes_holds_nobody_up(own_postgres_server: PostgresServer) -> None:
    server = own_postgres_server
    store = await open_documents(place_of(server, server.create_database()), wait_seconds=0.5)
    written = await store.write(0, {ONE: 1})
    frozen = server.backend("keyswitch-router")
    frozen.send_signal(signal.SIGSTOP)
    try:
        assert await reason_of(store.write(1, {ONE: 2})) is Reason.CONFIGURATION_UNAVAILABLE
    finally:
        frozen.send_signal(signal.SIGCONT)
    assert await store.load() == written
    await store.close()


async def test_a_wrong_password_is_unavailable(postgres_server: PostgresServer) -> None:
    place = parse_database(postgres_server.url(postgres_server.create_database()), postgres_server.password_file)
    wrong = postgres_server.folder / "wrong-password"
    wrong.write_text("nothing like it")
    opening = open_documents(replace(place, password_file=wrong))  # type: ignore[arg-type] # a server's place has it
    assert await reason_of(opening) is Reason.CONFIGURATION_UNAVAILABLE
