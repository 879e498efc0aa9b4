"""Brings the tables of the stored configuration to what this version needs, whichever router starts first."""

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect

from router_service.core.faults import Fault, Reason
from router_service.database.steps import run_steps

HEAD = "0001"  # the latest file in migrations/versions
VERSION_TABLE = "configuration_version"
_FOLDER = Path(__file__).with_name("migrations")
_LOCK = 0x6B73_636F_6E66  # the same number in every router: "ksconf"
BUSY_SECONDS = 5  # how long another process may hold a file's lock
_WAIT_AND_LOCK = {
    "sqlite": ("PRAGMA busy_timeout = 60000", "BEGIN IMMEDIATE"),
    "postgresql": (
        "SET LOCAL statement_timeout = 0",
        "SET LOCAL idle_in_transaction_session_timeout = 0",
        f"SELECT pg_advisory_xact_lock({_LOCK})",
    ),
}


def upgrade(engine: Engine) -> None:
    """Makes or changes the tables. Raises Fault where they belong to a version that is too new."""
    with engine.connect() as connection:
        if _is_current(connection):
            return
    with engine.connect() as connection:
        # One router at a time; the others wait longer than for anything else. The lock ends with the transaction.
        for statement in _WAIT_AND_LOCK[engine.dialect.name]:
            connection.exec_driver_sql(statement)
        if not _is_current(connection):
            run_steps(connection, _FOLDER, VERSION_TABLE)
        connection.commit()
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")


def _is_current(connection: Connection) -> bool:
    if not inspect(connection).has_table(VERSION_TABLE):
        return False
    version = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()  # noqa: S608 # a constant
    oldest = connection.exec_driver_sql("SELECT oldest_version FROM configuration_compatibility").scalar()
    if oldest is not None and oldest > HEAD:
        message = (
            "The tables of the configuration were made by a newer version of Keyswitch that this one cannot work "
            "beside. Start the newer version."
        )
        raise Fault(Reason.CONFIGURATION_UNAVAILABLE, message)
    return version is not None and version >= HEAD
