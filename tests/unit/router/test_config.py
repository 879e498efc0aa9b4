"""The process's settings: defaults in one place, every variable checked by name."""

# ruff: noqa: E501 - a message is one line, here as it is there

from pathlib import Path

import pytest

from router_service.config import Address, Config, SettingsError, load_config
from router_service.core.database import PostgresDatabase, SqliteDatabase


def test_defaults() -> None:
    config = load_config({})
    assert config == Config()
    assert config.home == Path(".keyswitch")
    assert config.configuration == Path(".keyswitch/keyswitch.yaml")
    assert str(config.listen) == "127.0.0.1:8760"
    assert str(config.http_listen) == "127.0.0.1:8761"
    assert str(config.lease_targets) == "127.0.0.1:8771"
    assert config.max_message_bytes == 33_554_432
    assert config.max_transport_message_bytes > config.max_message_bytes
    assert (config.disconnect_grace_seconds, config.drain_seconds) == (2.0, 10.0)


def test_everything_follows_home_unless_it_is_set_itself() -> None:
    config = load_config(
        {"KEYSWITCH_HOME": "/srv/k", "KEYSWITCH_DATABASE_URL": "sqlite:////data/r.db", "KEYSWITCH_CONFIG": ""}
    )
    assert config.configuration == Path("/srv/k/keyswitch.yaml")
    assert config.authority == Path("/srv/k/ca.pem")
    assert config.certificate == Path("/srv/k/router.pem")
    assert config.private_key == Path("/srv/k/router-key.pem")
    assert config.database == SqliteDatabase(Path("/data/r.db"))


def test_a_database_on_a_server() -> None:
    config = load_config(
        {
            "KEYSWITCH_DATABASE_URL": "postgresql://keys@db.internal/keyswitch?sslmode=verify-full",
            "KEYSWITCH_DATABASE_PASSWORD_FILE": "/run/secrets/database",
        }
    )
    assert config.database == PostgresDatabase(
        "db.internal", 5432, "keyswitch", "keys", (("sslmode", "verify-full"),), Path("/run/secrets/database")
    )
    assert str(config.database) == "postgresql://keys@db.internal:5432/keyswitch"


def test_values_are_read() -> None:
    config = load_config(
        {
            "KEYSWITCH_LISTEN": "[::1]:0",
            "KEYSWITCH_LEASE_TARGET": "vault.internal:8771, [::1]:8771",
            "KEYSWITCH_LOG_LEVEL": "DEBUG",
            "KEYSWITCH_DISCONNECT_GRACE_SECONDS": "0.5",
            "KEYSWITCH_MAX_MESSAGE_BYTES": "65536",
            "PATH": "/bin",
            "KEYSWITCH_RECORDINGS": "somewhere else's",
        }
    )
    assert config.listen == Address("::1", 0)
    assert str(config.listen) == "[::1]:0"
    assert config.lease_targets == (Address("vault.internal", 8771), Address("::1", 8771))
    assert (config.log_level, config.disconnect_grace_seconds, config.max_message_bytes) == ("debug", 0.5, 65_536)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("LISTEN", "8760", "must be host:port, such as 127.0.0.1:8760 or [::1]:8760; unset it for the default (127.0.0.1:8760)"),
        ("LISTEN", "::1:8760", "must be host:port, such as 127.0.0.1:8760 or [::1]:8760; unset it for the default (127.0.0.1:8760)"),
        ("HTTP_LISTEN", "a:70000", "must be host:port, such as 127.0.0.1:8760 or [::1]:8760; unset it for the default (127.0.0.1:8761)"),
        ("LEASE_TARGET", "a:0", "must be host:port, such as 127.0.0.1:8760 or [::1]:8760; unset it for the default (127.0.0.1:8771)"),
        ("LOG_LEVEL", "loud", "must be one of debug, info, warning, error; unset it for the default (info)"),
        ("MAX_MESSAGE_BYTES", "٣", "must be a whole number from 65536 to 268435456; unset it for the default (33554432)"),
        ("DRAIN_SECONDS", "nan", "must be a number of seconds from 0 to 3600; unset it for the default (10.0)"),
        ("DRAIN_SECONDS", "-1", "must be a number of seconds from 0 to 3600; unset it for the default (10.0)"),
        ("MAX_MESSAGE_BYTES", "32MiB", "must be a whole number from 65536 to 268435456; unset it for the default (33554432)"),
        ("LIMITS", "http://a", "must be memory, or redis://host:port/0, rediss://… or unix:///path; unset it for the default (memory)"),
        ("LIMITS", "redis://a:b:c", "must be memory, or redis://host:port/0, rediss://… or unix:///path; unset it for the default (memory)"),
        ("LIMITS", "redis://:secret@limits.internal:6379/0", "would send its password in clear: use rediss://, or a server on this machine; unset it for the default (memory)"),
        ("LIMITS", "redis://192.0.2.1/0?password=secret", "would send its password in clear: use rediss://, or a server on this machine; unset it for the default (memory)"),
        ("LIMITS_WHEN_AWAY", "open", "must be closed (refuse what cannot be counted) or local (each router its share); unset it for the default (closed)"),
            ("DATABASE_PASSWORD_FILE", "a\0b", "must be a path; unset it for the default (.)"),
            ("LEDGER_AWAY", "guess", "must be one of serve, refuse; unset it for the default (serve)"),
            ("DATABASE_URL", "mysql://a@b/c", "must be sqlite:///PATH or postgresql://USER@HOST:PORT/NAME; unset it for the default (sqlite:///.keyswitch/router.db)"),
            ("DATABASE_URL", "postgresql://u:secret@h/d", "must not hold a password: name a file that does, in KEYSWITCH_DATABASE_PASSWORD_FILE; unset it for the default (sqlite:///.keyswitch/router.db)"),
            ("DATABASE_URL", "postgresql://u@h:x/d", "must be sqlite:///PATH or postgresql://USER@HOST:PORT/NAME; unset it for the default (sqlite:///.keyswitch/router.db)"),
            ("DATABASE_URL", "postgresql://u@h/d?options=-cfsync", "may have the parameters channel_binding, host, sslcert, sslkey, sslmode, sslrootcert, target_session_attrs, and no others; unset it for the default (sqlite:///.keyswitch/router.db)"),
    ],
)  # fmt: skip
def test_a_faulty_variable_is_named(variable: str, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_config({f"KEYSWITCH_{variable}": text})
    assert caught.value.faults == (f"KEYSWITCH_{variable} {message}",)


@pytest.mark.parametrize(
    "limits",
    ["redis://limits.internal/0", "redis://:secret@127.0.0.2/0", "redis://u:secret@localhost/0", "redis://:s@[::1]:1/0", "rediss://:secret@limits.internal/0"],
)  # fmt: skip
def test_a_password_of_limits_goes_where_nobody_reads_it(limits: str) -> None:
    assert load_config({"KEYSWITCH_LIMITS": limits}).limits == limits


def test_all_faults_come_together_and_a_misspelt_name_is_one() -> None:
    with pytest.raises(SettingsError) as caught:
        load_config({"KEYSWITCH_LISTEN": "x", "KEYSWITCH_HTTP_LISTN": "127.0.0.1:1", "KEYSWITCH_LOG_LEVEL": "x"})
    assert [fault.split(" ")[0] for fault in caught.value.faults] == [
        "KEYSWITCH_LISTEN",
        "KEYSWITCH_LOG_LEVEL",
        "KEYSWITCH_HTTP_LISTN",
    ]
    assert caught.value.faults[2].endswith("did you mean KEYSWITCH_HTTP_LISTEN?")


def test_limits_in_memory_hold_for_one_router_only() -> None:
    with pytest.raises(SettingsError) as caught:
        load_config({"KEYSWITCH_ROUTERS": "2"})
    assert "set KEYSWITCH_LIMITS to the address of a Redis or Valkey" in caught.value.faults[0]
    shared = load_config({"KEYSWITCH_ROUTERS": "2", "KEYSWITCH_LIMITS": "redis://:password@127.0.0.1:6379/0"})
    assert shared.routers == 2
    assert "password" not in repr(shared)


def test_callers_with_certificates_need_a_listener_and_a_file() -> None:
    both = {"KEYSWITCH_CERTIFICATE_LISTEN": "127.0.0.1:8762", "KEYSWITCH_WORKLOADS_FILE": "/srv/workloads.json"}
    config = load_config(both)
    assert config.certificate_listen == Address("127.0.0.1", 8762)
    assert config.workloads_file == Path("/srv/workloads.json")
    for name, value in both.items():
        with pytest.raises(SettingsError, match="need each other"):
            load_config({name: value})
