"""Budgets, thresholds of balances, and calls and their usage as rows that can be searched and added up.

Version 0001's statements run on these tables: nothing of what they name was touched.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the tables."""
    op.create_table("ledger_compatibility", sa.Column("oldest_version", sa.Text, nullable=False))
    op.execute("INSERT INTO ledger_compatibility VALUES ('0001')")
    op.create_table(
        "account_settings",
        sa.Column("organization", sa.Text, primary_key=True),
        sa.Column("low_balance_nanos", sa.BigInteger),
    )
    _create_budgets()
    _create_usage()


def _create_budgets() -> None:
    # uid tells a budget from an earlier one of the same name, whose spending is not its own.
    op.create_table(
        "budgets",
        sa.Column("organization", sa.Text, primary_key=True),
        sa.Column("budget_id", sa.Text, primary_key=True),
        sa.Column("uid", sa.Text, nullable=False, unique=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("basis", sa.Text, nullable=False),
        sa.Column("limit_nanos", sa.BigInteger, nullable=False),
        sa.Column("expire_time", sa.Double),
        sa.Column("create_time", sa.Double, nullable=False),
        sa.Column("update_time", sa.Double, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.CheckConstraint("limit_nanos >= 0", name="budgets_limit"),
        sa.CheckConstraint("period IN ('DAY', 'MONTH', 'TOTAL')", name="budgets_period"),
        sa.CheckConstraint("basis IN ('CHARGED', 'LIST_PRICE')", name="budgets_basis"),
        sqlite_with_rowid=False,
    )
    # Both sums are of holds and are changed with them.
    op.create_table(
        "budget_windows",
        sa.Column("uid", sa.Text, primary_key=True),
        sa.Column("start_time", sa.BigInteger, primary_key=True),
        sa.Column("spent_nanos", sa.BigInteger, nullable=False),
        sa.Column("reserved_nanos", sa.BigInteger, nullable=False),
        sa.CheckConstraint("reserved_nanos >= 0", name="budget_windows_reserved"),
        sqlite_with_rowid=False,
    )
    # What an attempt holds of a budget, and afterwards spent. The window is the one in which it was reserved.
    op.create_table(
        "holds",
        sa.Column("response_id", sa.Text, primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("uid", sa.Text, primary_key=True),
        sa.Column("start_time", sa.BigInteger, nullable=False),
        sa.Column("basis", sa.Text, nullable=False),
        sa.Column("amount_nanos", sa.BigInteger, nullable=False),
        sa.Column("expire_time", sa.Double, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("spent_nanos", sa.BigInteger),
        sa.CheckConstraint("amount_nanos >= 0", name="holds_amount"),
        sa.CheckConstraint("state IN ('HELD', 'SETTLED', 'CANCELLED', 'EXPIRED')", name="holds_state"),
        sqlite_with_rowid=False,
    )
    held = sa.text("state = 'HELD'")
    op.create_index("holds_held", "holds", ["expire_time"], sqlite_where=held, postgresql_where=held)


def _create_usage() -> None:
    # A row for each receipt; the receipt itself stays where it was.
    op.create_table(
        "calls",
        sa.Column("response_id", sa.Text, primary_key=True),
        sa.Column("organization", sa.Text, nullable=False),
        sa.Column("application", sa.Text, nullable=False),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("create_time", sa.Double, nullable=False),
    )
    op.create_index("calls_time", "calls", ["organization", "create_time", "response_id"])
    # A row for each attempt that was sent. Buckets are disjoint, and NULL is what is not known.
    op.create_table(
        "usage",
        sa.Column("response_id", sa.Text, primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("organization", sa.Text, nullable=False),
        sa.Column("application", sa.Text, nullable=False),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("payer", sa.Text, nullable=False),
        sa.Column("start_time", sa.Double, nullable=False),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("uncached_input_tokens", sa.BigInteger),
        sa.Column("cache_read_tokens", sa.BigInteger),
        sa.Column("cache_write_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("reasoning_tokens", sa.BigInteger),
        sa.Column("upstream_nanos", sa.BigInteger),
        sa.Column("list_nanos", sa.BigInteger),
        sa.Column("charged_nanos", sa.BigInteger),
        sa.Column("is_estimate", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("usage_time", "usage", ["organization", "start_time"])
