"""Where the router's database is, as a value: one SQLite file, or a database of a PostgreSQL server."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

_PARAMETERS = frozenset(
    {"sslmode", "sslrootcert", "sslcert", "sslkey", "target_session_attrs", "channel_binding", "host"}
)
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,63}")


@dataclass(frozen=True, slots=True)
class SqliteDatabase:
    """A file, made with mode 0600 where there is none."""

    path: Path

    def __str__(self) -> str:
        return f"sqlite:///{self.path}"


@dataclass(frozen=True, slots=True)
class PostgresDatabase:
    """A server's database. The password is in a file, read at every connection, so that it can be rotated."""

    host: str
    port: int
    name: str
    user: str
    parameters: tuple[tuple[str, str], ...] = ()
    password_file: Path | None = None

    def __str__(self) -> str:
        return f"postgresql://{self.user}@{self.host}:{self.port}/{self.name}"


Database = SqliteDatabase | PostgresDatabase


def parse_database(text: str, password_file: Path | None = None) -> Database:
    """The database of a URL. Raises ValueError, whose text never holds the URL."""
    if text.startswith("sqlite:///"):
        path = unquote(text.removeprefix("sqlite:///"))
        if not path or "\0" in path or "?" in path:
            raise ValueError("must name a file, such as sqlite:////var/lib/keyswitch/router.db")
        return SqliteDatabase(Path(path).expanduser())
    try:
        parts = urlsplit(text)
        port = parts.port or 5432
    except ValueError:
        raise ValueError("must be sqlite:///PATH or postgresql://USER@HOST:PORT/NAME") from None
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError("must be sqlite:///PATH or postgresql://USER@HOST:PORT/NAME")
    if parts.password is not None:
        raise ValueError("must not hold a password: name a file that does, in KEYSWITCH_DATABASE_PASSWORD_FILE")
    parameters = tuple(parse_qsl(parts.query))
    unknown = sorted({name for name, _ in parameters} - _PARAMETERS)
    if unknown:
        raise ValueError(f"may have the parameters {', '.join(sorted(_PARAMETERS))}, and no others")
    name, user = parts.path.removeprefix("/"), unquote(parts.username or "")
    if _NAME.fullmatch(name) is None or _NAME.fullmatch(user) is None:
        raise ValueError("must name a user and a database, as postgresql://USER@HOST:PORT/NAME")
    host = dict(parameters).get("host") or parts.hostname or ""
    if not host:
        raise ValueError("must name a host, as postgresql://USER@HOST:PORT/NAME")
    return PostgresDatabase(
        host, port, name, user, tuple(pair for pair in parameters if pair[0] != "host"), password_file
    )
