"""The documents, and their one revision.

A file that was made before there were versions has these two tables already.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None


def upgrade() -> None:
    """Makes the tables that are missing."""
    op.create_table(
        "configuration_documents",
        sa.Column("path", sa.Text, primary_key=True),  # a JSON list
        sa.Column("body", sa.Text, nullable=False),  # JSON
        sa.Column("revision", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "configuration_revision",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        if_not_exists=True,
    )
    op.execute("INSERT INTO configuration_revision SELECT 1, 0 WHERE NOT EXISTS (SELECT 1 FROM configuration_revision)")
    op.create_table("configuration_compatibility", sa.Column("oldest_version", sa.Text, nullable=False))
    op.execute("INSERT INTO configuration_compatibility VALUES ('0001')")
