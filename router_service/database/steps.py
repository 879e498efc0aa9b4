"""Alembic's steps, run from a folder without its command: each kind of tables has a version of its own.

A version and the one before it run side by side, so a step only adds. A kind's compatibility table names the oldest
version whose statements still run, so that a router that meets tables newer than its own knows whether it may go on.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection


def run_steps(connection: "Connection", folder: Path, version_table: str, target: str = "head") -> None:
    """Takes the steps that are missing, in the transaction of whoever calls. SQLAlchemy and Alembic load slowly."""
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(folder))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)

    def steps(revision: Any, _context: Any) -> Any:
        return script._upgrade_revs(target, revision)  # noqa: SLF001 # how Alembic's own command does it

    with EnvironmentContext(config, script, fn=steps) as context:
        context.configure(connection=connection, version_table=version_table, transactional_ddl=True)
        context.run_migrations()
