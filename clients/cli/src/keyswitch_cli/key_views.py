"""Credentials as tables. They hold no secret: the service gives none."""

from __future__ import annotations

from collections.abc import Sequence

from keyswitch.router.v1 import credential_test_service_pb2
from keyswitch.vault.v1 import credential_pb2, credential_test_pb2

from keyswitch_cli import tables, words
from keyswitch_cli.session import Session

PASSED = credential_test_pb2.CREDENTIAL_TEST_OUTCOME_PASSED


def outcome_word(outcome: credential_test_pb2.CredentialTestOutcome.ValueType) -> str:
    """What a provider said of a key."""
    return words.enum_word(credential_test_pb2.CredentialTestOutcome, outcome, "CREDENTIAL_TEST_OUTCOME_")


def show_list(session: Session, credentials: Sequence[credential_pb2.Credential]) -> None:
    """One row for each, all of one owner."""
    session.say(f"keys of {credentials[0].name.rpartition('/credentials/')[0]}", "dim")
    table = tables.listing(
        "key", "provider", "state", "version", "looks like", "last test", "last use", long=("key", "state", "last test")
    )
    for credential in credentials:
        table.add_row(
            words.last(credential.name),
            words.last(credential.provider),
            ", ".join(filter(None, (_state(credential), _source(credential)))),
            _version(credential.active_version),
            credential.fingerprint or "-",
            _test(credential.last_test) if credential.HasField("last_test") else "never",
            words.minute(credential.last_use_time) if credential.HasField("last_use_time") else "never",
        )
    session.out.print(table)


def show_one(
    session: Session,
    credential: credential_pb2.Credential,
    versions: Sequence[credential_pb2.CredentialVersion],
) -> None:
    """Everything about one, with its versions."""
    rows = [
        ("key", credential.name),
        ("for people", credential.display_name),
        ("provider", words.last(credential.provider)),
        ("plan", credential.plan),
        ("kind", words.enum_word(credential_pb2.CredentialKind, credential.kind, "CREDENTIAL_KIND_")),
        ("state", _state(credential)),
        ("from", _source(credential)),
        ("may go to", ", ".join(credential.allowed_origins)),
        ("at once", str(credential.max_concurrent_requests) if credential.max_concurrent_requests else ""),
        ("expires", words.moment(credential.expire_time) if credential.HasField("expire_time") else ""),
        ("last use", words.moment(credential.last_use_time) if credential.HasField("last_use_time") else "never"),
        ("created", words.moment(credential.create_time)),
        ("etag", credential.etag),
    ]
    session.out.print(tables.sheet(rows))
    table = tables.listing(
        "version", "state", "looks like", "last test", "created", "activated", "destroyed", long=("last test",)
    )
    for version in versions:
        state = words.enum_word(credential_pb2.CredentialVersionState, version.state, "CREDENTIAL_VERSION_STATE_")
        table.add_row(
            words.last(version.name),
            state,
            version.fingerprint or "-",
            _test(version.last_test) if version.HasField("last_test") else "never",
            words.minute(version.create_time),
            words.minute(version.activate_time) if version.HasField("activate_time") else "-",
            words.minute(version.destroy_time) if version.HasField("destroy_time") else "-",
        )
    session.out.print(table)


def show_test(session: Session, answer: credential_test_service_pb2.TestCredentialResponse) -> None:
    """What came of trying a key."""
    passed = answer.outcome == PASSED
    took = f" in {words.seconds(answer.latency)}" if answer.HasField("latency") else ""
    status = f" (the provider answered {answer.upstream_status})" if answer.HasField("upstream_status") else ""
    mark, style = ("✓", "green") if passed else ("✗", "bold red")
    session.say(f"{mark} {outcome_word(answer.outcome)}{took}{'' if passed else status}", style)
    if answer.message:
        session.say(f"  {answer.message}")
    if answer.detected_plan and answer.detected_plan not in answer.message:
        session.say(f"  The key looks like one of the plan {answer.detected_plan}.")
    if answer.HasField("retry_delay"):
        session.say(f"  Try again in {words.seconds(answer.retry_delay)}.")
    if answer.models:
        shown = [model.model or model.upstream_model_id for model in answer.models[:12]]
        more = len(answer.models) - len(shown)
        rest = f" and {more} more" if more else ""
        session.say(f"  It can use {', '.join(shown)}{rest}{' at least' if answer.is_models_truncated else ''}.")


def show_status(session: Session, answer: credential_test_service_pb2.GetKeyStatusResponse, *, is_all: bool) -> None:
    """Which key each provider would get. Providers without any are only counted, unless all are asked for."""
    none = credential_test_service_pb2.KEY_STATE_NONE
    shown = [one for one in answer.statuses if is_all or one.state != none or one.is_saved_key_ignored]
    heads = ("application", "provider", "status", "paid by", "key", "last test")
    table = tables.listing(*heads, long=("key", "last test"))
    for status in shown:
        ignored = " (a saved own key is ignored)" if status.is_saved_key_ignored else ""
        table.add_row(
            words.last(status.application) or "-",
            words.last(status.provider),
            _KEY_STATES.get(status.state, str(status.state)) + ignored,
            words.payer(status.payer) if status.payer else "-",
            words.last(status.credential) or ("the deployment's" if status.payer else "-"),
            _test(status.last_test) if status.HasField("last_test") else "-",
        )
    if shown:
        session.out.print(table)
    if len(shown) < len(answer.statuses):
        session.say("Providers without a key are left out: --all lists them.", "dim")


_KEY_STATES = {
    credential_test_service_pb2.KEY_STATE_SAVED: "key saved",
    credential_test_service_pb2.KEY_STATE_SHARED: "using shared key",
    credential_test_service_pb2.KEY_STATE_NONE: "no key",
}


def _state(credential: credential_pb2.Credential) -> str:
    if credential.state == credential_pb2.CREDENTIAL_STATE_ENABLED and not credential.active_version:
        return "enabled, no active version"
    return words.enum_word(credential_pb2.CredentialState, credential.state, "CREDENTIAL_STATE_")


def _source(credential: credential_pb2.Credential) -> str:
    """Where its value comes from, unless it is from requests like most."""
    if credential.source in (credential_pb2.CREDENTIAL_SOURCE_UNSPECIFIED, credential_pb2.CREDENTIAL_SOURCE_STORED):
        return ""
    return words.enum_word(credential_pb2.CredentialSource, credential.source, "CREDENTIAL_SOURCE_")


def _version(name: str) -> str:
    return words.last(name) if name else "-"


def _test(test: credential_test_pb2.CredentialTest) -> str:
    return f"{outcome_word(test.outcome)}, {words.minute(test.test_time)}"
