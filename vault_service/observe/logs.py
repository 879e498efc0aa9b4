"""Logs as JSON lines on stderr, with a last processor that lets no secret through.

It works by structure: values under telling names, messages of the contract, bytes and texts that look like a token are
replaced, whatever they hold. Nothing relies on a secret looking like one.
"""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog
from google.protobuf.message import Message

from vault_service.core.secret import Secret

REDACTED = "[redacted]"
_SECRET_NAMES = re.compile(
    r"(authorization|bearer|secret|password|passphrase|api_?key|private_?key|token|caller_proof|material)$",
    re.IGNORECASE,
)
_TOKEN_TEXT = re.compile(r"eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){0,2}|hvs\.[A-Za-z0-9_-]+|(?i:bearer)\s+\S+")
_MAX_DEPTH = 6


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replaces what must not be logged; the last processor before the line is made."""
    return {key: _redact_value(key, value, 0) for key, value in event.items()}


def configure_logs(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Sends structlog's and the standard library's logs through the same processors."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, _drop_exception_text],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            redact,
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("grpc", "urllib3", "asyncio", "aiohttp.access", "httpx", "hpack"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _drop_exception_text(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keeps an exception's type and drops its text and traceback, which may quote what the code held."""
    info = event.pop("exc_info", None)
    record: logging.LogRecord | None = event.get("_record")
    if record is not None:
        info = info or record.exc_info
        record.exc_info = None
        record.exc_text = None
    if isinstance(info, tuple) and info[0] is not None:
        event["exception_type"] = info[0].__name__
    return event


def _redact_value(key: str, value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH or isinstance(value, Secret | Message | bytes | bytearray | memoryview):
        return REDACTED
    if isinstance(value, BaseException):
        return type(value).__name__
    if value is not None and not isinstance(value, bool) and _SECRET_NAMES.search(key):
        return REDACTED
    if isinstance(value, str):
        return _TOKEN_TEXT.sub(REDACTED, value)
    if isinstance(value, Mapping):
        return {str(name): _redact_value(str(name), one, depth + 1) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redact_value("", one, depth + 1) for one in value]
    return value if isinstance(value, int | float | None.__class__) else REDACTED
