"""Every setting of the router's process and its default: the one place for both.

What is configured for callers (providers, models, organizations) is in the configuration file: see `catalog`.
`load_config` takes the environment as an argument; only `__main__` passes the real one.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qs, urlsplit

from router_service.core.database import Database, PostgresDatabase, SqliteDatabase, parse_database
from router_service.state.shared import WhenAway

MEBIBYTE = 1 << 20
KIBIBYTE = 1 << 10

MEMORY = "memory"
_HOME = Path(".keyswitch")
_DATABASE = SqliteDatabase(_HOME / "router.db")
_CONFIGURATION_STORE = SqliteDatabase(_HOME / "configuration.db")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Addresses(tuple[Address, ...]):
    """Several, written with commas between them."""

    __slots__ = ()

    def __str__(self) -> str:
        return ",".join(str(address) for address in self)


_LEASE_TARGETS = Addresses([Address("127.0.0.1", 8771)])


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of a router. Paths may be relative to the working directory."""

    home: Path = _HOME
    configuration: Path = _HOME / "keyswitch.yaml"
    configuration_store: Database = _CONFIGURATION_STORE
    database: Database = _DATABASE
    database_wait_seconds: float = 60.0
    outbox: Path = _HOME / "outbox"
    ledger_away: str = "serve"
    ledger_sweep_seconds: float = 2.0
    listen: Address = Address("127.0.0.1", 8760)
    http_listen: Address = Address("127.0.0.1", 8761)
    lease_targets: Addresses = _LEASE_TARGETS
    certificate: Path = _HOME / "router.pem"
    private_key: Path = _HOME / "router-key.pem"
    authority: Path = _HOME / "ca.pem"
    issuers_file: Path | None = None
    workloads_file: Path | None = None
    certificate_listen: Address | None = None  # for callers with certificates
    max_connection_age_seconds: float = 3600.0
    log_level: str = "info"
    disconnect_grace_seconds: float = 2.0
    lease_timeout_seconds: float = 5.0
    drain_seconds: float = 10.0
    reload_interval_seconds: float = 2.0
    max_message_bytes: int = 32 * MEBIBYTE
    max_message_margin_bytes: int = 64 * KIBIBYTE
    limits: str = field(default=MEMORY, repr=False)  # an address with a password is none that is printed
    limits_when_away: WhenAway = WhenAway.CLOSED
    routers: int = 1

    @classmethod
    def below(cls, home: Path) -> "Config":
        """The defaults of a home directory."""
        return cls(
            home=home,
            configuration=home / "keyswitch.yaml",
            configuration_store=SqliteDatabase(home / "configuration.db"),
            database=SqliteDatabase(home / "router.db"),
            outbox=home / "outbox",
            certificate=home / "router.pem",
            private_key=home / "router-key.pem",
            authority=home / "ca.pem",
        )

    @property
    def max_transport_message_bytes(self) -> int:
        """What the transport lets in: more than a message may have, so that ours is the refusal of one too large."""
        return self.max_message_bytes + self.max_message_margin_bytes


class SettingsError(Exception):
    """Environment variables that cannot be used. The text has a line for each and never a value."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(faults))


_PREFIX = "KEYSWITCH_"
_LEDGER_AWAY = ("serve", "refuse")
_NO_FILE = Path()
_LOG_LEVELS = ("debug", "info", "warning", "error")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
_TYPO_CUTOFF = 0.93  # lets other programs of the deployment have variables of this prefix
_OF_OTHERS = frozenset({"KEYSWITCH_ROUTER"})
"""Where the command finds the router: near to KEYSWITCH_ROUTERS, and no typo."""


def load_config(environ: Mapping[str, str]) -> Config:
    """The settings that an environment asks for. Raises SettingsError with every faulty variable."""
    reader = _Reader(environ)
    home = reader.read("HOME", _HOME, _parse_path)
    default = Config.below(home)
    databases = _read_databases(reader, default)
    config = Config(
        home=home,
        configuration=reader.read("CONFIG", default.configuration, _parse_path),
        configuration_store=databases[1],
        database=databases[0],
        database_wait_seconds=reader.read("DATABASE_WAIT_SECONDS", default.database_wait_seconds, _seconds(0, 3600)),
        outbox=reader.read("OUTBOX", default.outbox, _parse_path),
        ledger_away=reader.read("LEDGER_AWAY", default.ledger_away, _parse_ledger_away),
        ledger_sweep_seconds=reader.read("LEDGER_SWEEP_SECONDS", default.ledger_sweep_seconds, _seconds(0.1, 3600)),
        listen=reader.read("LISTEN", default.listen, _parse_listener),
        http_listen=reader.read("HTTP_LISTEN", default.http_listen, _parse_listener),
        lease_targets=reader.read("LEASE_TARGET", default.lease_targets, _parse_targets),
        certificate=reader.read("TLS_CERTIFICATE", default.certificate, _parse_path),
        private_key=reader.read("TLS_PRIVATE_KEY", default.private_key, _parse_path),
        authority=reader.read("TLS_AUTHORITY", default.authority, _parse_path),
        issuers_file=reader.read("ISSUERS_FILE", None, _parse_path),
        workloads_file=reader.read("WORKLOADS_FILE", None, _parse_path),
        certificate_listen=reader.read("CERTIFICATE_LISTEN", None, _parse_listener),
        log_level=reader.read("LOG_LEVEL", default.log_level, _parse_log_level),
        disconnect_grace_seconds=reader.read(
            "DISCONNECT_GRACE_SECONDS", default.disconnect_grace_seconds, _seconds(0, 600)
        ),
        lease_timeout_seconds=reader.read("LEASE_TIMEOUT_SECONDS", default.lease_timeout_seconds, _seconds(0.1, 60)),
        drain_seconds=reader.read("DRAIN_SECONDS", default.drain_seconds, _seconds(0, 3600)),
        reload_interval_seconds=reader.read(
            "RELOAD_INTERVAL_SECONDS", default.reload_interval_seconds, _seconds(0, 3600)
        ),
        max_message_bytes=reader.read(
            "MAX_MESSAGE_BYTES", default.max_message_bytes, _whole(64 * KIBIBYTE, 256 * MEBIBYTE)
        ),
        limits=reader.read("LIMITS", MEMORY, _parse_limits),
        limits_when_away=reader.read("LIMITS_WHEN_AWAY", WhenAway.CLOSED, _parse_when_away),
        routers=reader.read("ROUTERS", 1, _whole(1, 1000)),
    )
    if config.routers > 1 and config.limits == MEMORY:
        reader.complain(
            "KEYSWITCH_ROUTERS says that several routers share the work, and limits in memory hold for one only: every "
            "limit would silently be as many times as large; set KEYSWITCH_LIMITS to the address of a Redis or Valkey"
        )
    if (config.certificate_listen is None) != (config.workloads_file is None):
        reader.complain(
            "KEYSWITCH_CERTIFICATE_LISTEN and KEYSWITCH_WORKLOADS_FILE need each other: the one says where callers "
            "with certificates come, the other who they are; set both or none"
        )
    reader.finish()
    return config


class _Reader:
    """Reads variables, remembers which there are, and collects what is wrong with them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._known: set[str] = set()
        self._faults: list[str] = []

    def read(self, name: str, default: Value, parse: Callable[[str], Value]) -> Value:
        """The value of a variable; the default where it is not set or empty, or faulty."""
        variable = _PREFIX + name
        self._known.add(variable)
        text = self._environ.get(variable, "")
        if not text:
            return default
        try:
            return parse(text)
        except ValueError as error:
            self._faults.append(f"{variable} {error}; unset it for the default ({default})")
            return default

    def complain(self, fault: str) -> None:
        """Notes what is wrong with several variables together."""
        self._faults.append(fault)

    def finish(self) -> None:
        """Raises SettingsError where something was wrong, a misspelt name included."""
        for variable in sorted(self._environ):
            if variable.startswith(_PREFIX) and variable not in self._known | _OF_OTHERS:
                near = get_close_matches(variable, self._known, n=1, cutoff=_TYPO_CUTOFF)
                if near:
                    self._faults.append(f"{variable} is not a setting; did you mean {near[0]}?")
        if self._faults:
            raise SettingsError(self._faults)


def _read_databases(reader: _Reader, default: Config) -> tuple[Database, Database]:
    """The ledger's, and that of the stored configuration: the same server where routers share one."""
    password_file = reader.read("DATABASE_PASSWORD_FILE", _NO_FILE, _parse_path)
    named = None if password_file == _NO_FILE else password_file
    ledger = reader.read("DATABASE_URL", default.database, lambda text: parse_database(text, named))
    shared = ledger if isinstance(ledger, PostgresDatabase) else default.configuration_store

    def parse_store(text: str) -> Database:
        return parse_database(text, named) if "://" in text else SqliteDatabase(_parse_path(text))

    return ledger, reader.read("CONFIGURATION_STORE", shared, parse_store)


def _parse_ledger_away(text: str) -> str:
    if text.lower() not in _LEDGER_AWAY:
        raise ValueError(f"must be one of {', '.join(_LEDGER_AWAY)}")
    return text.lower()


def _parse_path(text: str) -> Path:
    if "\0" in text:
        raise ValueError("must be a path")
    return Path(text).expanduser()


def _parse_listener(text: str) -> Address:
    return _parse_address(text, lowest_port=0)


def _parse_targets(text: str) -> Addresses:
    return Addresses(_parse_address(target.strip(), lowest_port=1) for target in text.split(","))


def _parse_address(text: str, lowest_port: int) -> Address:
    host, colon, port = text.rpartition(":")
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and lowest_port <= int(port) <= 65535
    if not colon or _HOST.fullmatch(host) is None or not is_port:
        raise ValueError("must be host:port, such as 127.0.0.1:8760 or [::1]:8760")
    return Address(host.strip("[]"), int(port))


def _parse_log_level(text: str) -> str:
    if text.lower() not in _LOG_LEVELS:
        raise ValueError(f"must be one of {', '.join(_LOG_LEVELS)}")
    return text.lower()


def _parse_limits(text: str) -> str:
    if text == MEMORY:
        return text
    malformed = "must be memory, or redis://host:port/0, rediss://… or unix:///path"
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError(malformed) from None
    is_address = parts.scheme in {"redis", "rediss", "unix"} and bool(parts.hostname or parts.path)
    if not is_address:
        raise ValueError(malformed)
    has_password = bool(parts.password) or "password" in parse_qs(parts.query)
    if has_password and parts.scheme == "redis" and not _is_this_machine(parts.hostname or ""):
        raise ValueError("would send its password in clear: use rediss://, or a server on this machine")
    return text


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _parse_when_away(text: str) -> WhenAway:
    try:
        return WhenAway(text)
    except ValueError:
        raise ValueError("must be closed (refuse what cannot be counted) or local (each router its share)") from None


def _seconds(lowest: float, highest: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if _DECIMAL.fullmatch(text) is None or not lowest <= float(text) <= highest:
            raise ValueError(f"must be a number of seconds from {lowest:g} to {highest:g}")
        return float(text)

    return parse


def _whole(lowest: int, highest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        is_number = text.isascii() and text.isdigit() and len(text) <= 12
        if not is_number or not lowest <= int(text) <= highest:
            raise ValueError(f"must be a whole number from {lowest} to {highest}")
        return int(text)

    return parse
