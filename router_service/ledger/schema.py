"""The ledger's tables, in one place for every database.

Imported only where a database is created, because SQLAlchemy is slow to load.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.schema import CreateIndex, CreateTable

metadata = MetaData()

# One row for each organization that ever had credits. Both sums are of other rows and are changed with them.
accounts = Table(
    "accounts",
    metadata,
    Column("organization", Text, primary_key=True),
    Column("balance_nanos", BigInteger, nullable=False),
    Column("reserved_nanos", BigInteger, nullable=False),
    CheckConstraint("reserved_nanos >= 0", name="accounts_reserved"),
)

# Movements. request_id is set for credits that were added, response_id and attempt for what was charged.
entries = Table(
    "entries",
    metadata,
    Column("entry_id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("organization", Text, nullable=False),
    Column("amount_nanos", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
    Column("create_time", Float, nullable=False),
    Column("request_id", Text),
    Column("response_id", Text),
    Column("attempt", Integer),
    CheckConstraint("amount_nanos <> 0", name="entries_amount"),
    UniqueConstraint("organization", "request_id", name="entries_request"),
    UniqueConstraint("response_id", "attempt", name="entries_attempt"),
    sqlite_autoincrement=True,
)

# What was set aside. A row is never removed: its state makes settling idempotent and an expired one visible.
reservations = Table(
    "reservations",
    metadata,
    Column("response_id", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("organization", Text, nullable=False),
    Column("amount_nanos", BigInteger, nullable=False),
    Column("markup_basis_points", Integer, nullable=False),
    Column("expire_time", Float, nullable=False),
    Column("state", Text, nullable=False),
    Column("charged_nanos", BigInteger),
    CheckConstraint("amount_nanos >= 0", name="reservations_amount"),
    CheckConstraint("state IN ('HELD', 'SETTLED', 'CANCELLED', 'EXPIRED')", name="reservations_state"),
    sqlite_with_rowid=False,
)
_held = Index(
    "reservations_held",
    reservations.c.expire_time,
    sqlite_where=reservations.c.state == "HELD",
    postgresql_where=reservations.c.state == "HELD",
)

# Request ids in use.
claims = Table(
    "claims",
    metadata,
    Column("organization", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("response_id", Text, nullable=False),
    Column("create_time", Float, nullable=False),
    sqlite_with_rowid=False,
)
_claimed = Index("claims_time", claims.c.create_time)

# Receipts as JSON. The columns beside it are what is searched by.
receipts = Table(
    "receipts",
    metadata,
    Column("response_id", Text, primary_key=True),
    Column("organization", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("create_time", Float, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
_requested = Index(
    "receipts_request",
    receipts.c.organization,
    receipts.c.request_id,
    sqlite_where=receipts.c.request_id != "",
    postgresql_where=receipts.c.request_id != "",
)


def definitions(dialect: Dialect) -> list[str]:
    """The statements that make an empty database, in order."""
    statements = []
    for table in metadata.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=dialect)))
        statements.extend(
            str(CreateIndex(index).compile(dialect=dialect))
            for index in sorted(table.indexes, key=lambda index: str(index.name))
        )
    return statements
