"""Credits, claims of request ids, and receipts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None

_APPEND_ONLY = (
    "CREATE FUNCTION ledger_append_only() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RAISE EXCEPTION 'append only'; END $$",
    "CREATE TRIGGER entries_no_change BEFORE UPDATE OR DELETE ON entries"
    " FOR EACH ROW EXECUTE FUNCTION ledger_append_only()",
    "CREATE TRIGGER entries_no_truncate BEFORE TRUNCATE ON entries"
    " FOR EACH STATEMENT EXECUTE FUNCTION ledger_append_only()",
)
_APPEND_ONLY_SQLITE = (
    "CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append only'); END",
    "CREATE TRIGGER entries_no_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append only'); END",
)


def upgrade() -> None:
    """Makes the tables."""
    # One row for each organization that ever had credits. Both sums are of other rows and are changed with them.
    op.create_table(
        "accounts",
        sa.Column("organization", sa.Text, primary_key=True),
        sa.Column("balance_nanos", sa.BigInteger, nullable=False),
        sa.Column("reserved_nanos", sa.BigInteger, nullable=False),
        sa.CheckConstraint("reserved_nanos >= 0", name="accounts_reserved"),
    )
    # Movements. request_id is set for credits that were added, response_id and attempt for what was charged.
    op.create_table(
        "entries",
        sa.Column("entry_id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("organization", sa.Text, nullable=False),
        sa.Column("amount_nanos", sa.BigInteger, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("create_time", sa.Double, nullable=False),
        sa.Column("request_id", sa.Text),
        sa.Column("response_id", sa.Text),
        sa.Column("attempt", sa.Integer),
        sa.CheckConstraint("amount_nanos <> 0", name="entries_amount"),
        sa.UniqueConstraint("organization", "request_id", name="entries_request"),
        sa.UniqueConstraint("response_id", "attempt", name="entries_attempt"),
        sqlite_autoincrement=True,
    )
    # What was set aside. A row is never removed: its state makes settling idempotent and an expired one visible.
    op.create_table(
        "reservations",
        sa.Column("response_id", sa.Text, primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("organization", sa.Text, nullable=False),
        sa.Column("amount_nanos", sa.BigInteger, nullable=False),
        sa.Column("markup_basis_points", sa.Integer, nullable=False),
        sa.Column("expire_time", sa.Double, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("charged_nanos", sa.BigInteger),
        sa.CheckConstraint("amount_nanos >= 0", name="reservations_amount"),
        sa.CheckConstraint("state IN ('HELD', 'SETTLED', 'CANCELLED', 'EXPIRED')", name="reservations_state"),
        sqlite_with_rowid=False,
    )
    held = sa.text("state = 'HELD'")
    op.create_index("reservations_held", "reservations", ["expire_time"], sqlite_where=held, postgresql_where=held)
    # Request ids in use.
    op.create_table(
        "claims",
        sa.Column("organization", sa.Text, primary_key=True),
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("response_id", sa.Text, nullable=False),
        sa.Column("create_time", sa.Double, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("claims_time", "claims", ["create_time"])
    # Receipts as JSON. The columns beside it are what is searched by.
    op.create_table(
        "receipts",
        sa.Column("response_id", sa.Text, primary_key=True),
        sa.Column("organization", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("create_time", sa.Double, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    asked = sa.text("request_id <> ''")
    op.create_index(
        "receipts_request", "receipts", ["organization", "request_id"], sqlite_where=asked, postgresql_where=asked
    )
    # Whatever goes wrong in the code above, a movement cannot be changed or taken out.
    is_sqlite = op.get_context().dialect.name == "sqlite"
    for guard in _APPEND_ONLY_SQLITE if is_sqlite else _APPEND_ONLY:
        op.execute(guard)
