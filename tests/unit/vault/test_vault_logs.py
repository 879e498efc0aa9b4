"""Logs: JSON lines in which no secret survives, whatever is logged."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from keyswitch.vault.v1 import credential_pb2, lease_service_pb2, token_service_pb2

from vault_service.core.secret import Secret
from vault_service.observe.logs import configure_logs

CANARY = "sk-CANARY-0123456789abcdefghijklmnop"
JWT = "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJrZXlzd2l0Y2gifQ.c2lnbmF0dXJl"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    kept = structlog.get_config()
    written = io.StringIO()
    configure_logs(written, logging.DEBUG)
    yield written
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**kept)


@pytest.mark.parametrize(
    "fields",
    [
        {"secret": Secret(CANARY.encode())},
        {"api_key": CANARY},
        {"x": {"y": [{"password": CANARY}]}},
        {"authorization": CANARY},
        {"caller_proof": CANARY},
        {"bearer_token": CANARY},
        {"request": credential_pb2.SecretMaterial(api_key=CANARY)},
        {"requests": [lease_service_pb2.LeaseCredentialRequest(caller_proof=CANARY)]},
        {"answer": token_service_pb2.IssueTokenResponse(bearer_token=CANARY)},
        {"data": CANARY.encode()},
        {"error": RuntimeError(CANARY)},
        {"thing": type("Thing", (), {"__repr__": lambda _: CANARY})()},
    ],
)
def test_structured_values(stream: io.StringIO, fields: dict[str, Any]) -> None:
    structlog.stdlib.get_logger("test").warning("event", **fields)
    entry = json.loads(stream.getvalue())
    assert entry["event"] == "event"
    assert "CANARY" not in stream.getvalue()


def test_texts_that_look_like_tokens(stream: io.StringIO) -> None:
    logging.getLogger("other").warning("got %s and Bearer %s", JWT, "abc123")
    structlog.stdlib.get_logger("test").info(f"text {JWT}", note=JWT, vault="hvs.CAESIJ")
    assert "eyJ" not in stream.getvalue()
    assert "abc123" not in stream.getvalue()
    assert "CAESIJ" not in stream.getvalue()


def test_exceptions_of_libraries_keep_their_type_only(stream: io.StringIO) -> None:
    try:
        raise RuntimeError(CANARY)
    except RuntimeError:
        logging.getLogger("library").exception("failed")
    entry = json.loads(stream.getvalue())
    assert entry["exception_type"] == "RuntimeError"
    assert "CANARY" not in stream.getvalue()


def test_own_exceptions_keep_their_type_only(stream: io.StringIO) -> None:
    try:
        raise RuntimeError(CANARY)
    except RuntimeError:
        structlog.stdlib.get_logger("test").exception("failed")
    assert "CANARY" not in stream.getvalue()


def test_what_is_harmless_stays(stream: io.StringIO) -> None:
    structlog.stdlib.get_logger("test").info("event", number=3, token_id="abc", flag=True, nothing=None, list=["a"])
    entry = json.loads(stream.getvalue())
    assert (entry["number"], entry["token_id"], entry["flag"], entry["nothing"], entry["list"]) == (
        3,
        "abc",
        True,
        None,
        ["a"],
    )
