"""A connection to a PostgreSQL server that waits for nothing for long, and how to free whoever waits all the same."""

import contextlib
import os
import socket
from typing import Any

import psycopg
from psycopg import conninfo

from router_service.core.database import PostgresDatabase

_CONNECT_SECONDS = 3
_STATEMENT_MILLISECONDS = 5000
_IDLE_MILLISECONDS = 4_000  # a router that stops in a transaction is over before those who wait for it are refused
_SILENT_SECONDS = 5  # after which a server that says nothing is asked whether it lives


def connect_raw(database: PostgresDatabase) -> "psycopg.Connection[tuple[Any, ...]]":
    """A connection of which each statement is a transaction unless one is begun."""
    password = None
    if database.password_file is not None:
        password = database.password_file.read_text().strip()
    text = conninfo.make_conninfo(
        "",
        host=database.host,
        port=database.port,
        dbname=database.name,
        user=database.user,
        password=password,
        connect_timeout=_CONNECT_SECONDS,
        tcp_user_timeout=_STATEMENT_MILLISECONDS,
        keepalives_idle=_SILENT_SECONDS,
        keepalives_interval=1,
        keepalives_count=5,
        application_name="keyswitch-router",
        options=f"-c statement_timeout={_STATEMENT_MILLISECONDS} -c synchronous_commit=on"
        f" -c idle_in_transaction_session_timeout={_IDLE_MILLISECONDS}",
        **dict(database.parameters),
    )
    return psycopg.connect(text, autocommit=True)


def interrupt_raw(connection: "psycopg.Connection[tuple[Any, ...]]") -> None:
    """Makes what waits for the server fail soon, from another thread.

    The socket is shut under the driver, because a server that is frozen answers no cancel either.
    """
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as twin:
        twin.shutdown(socket.SHUT_RDWR)
