"""The server that other tests stand on."""

from tests.fakes.postgres_server import PostgresServer


def test_each_test_has_an_empty_database(postgres_server: PostgresServer) -> None:
    first, second = postgres_server.create_database(), postgres_server.create_database()
    with postgres_server.connect(first) as connection:
        connection.execute("CREATE TABLE here (number integer)")
    with postgres_server.connect(second) as connection:
        assert connection.execute("SELECT to_regclass('here')").fetchone() == (None,)


def test_a_crash_keeps_what_was_acknowledged(own_postgres_server: PostgresServer) -> None:
    name = own_postgres_server.create_database()
    with own_postgres_server.connect(name) as connection:
        connection.execute("CREATE TABLE here (number integer)")
        connection.execute("INSERT INTO here VALUES (7)")
    own_postgres_server.stop()
    own_postgres_server.start()
    with own_postgres_server.connect(name) as connection:
        assert connection.execute("SELECT number FROM here").fetchone() == (7,)
