"""Structured logs: JSON lines on stderr. The last processor before rendering redacts by structure (core/secret.py)."""

import logging
import sys
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from router_service.core.secret import redact


def set_up(level: str, stream: TextIO | None = None) -> None:
    """Sets up logging for the process. Libraries that print URLs or headers are kept at WARNING."""
    stream = stream or sys.stderr
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _drop_exception_text,
            _redact,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_TextlessFormatter("%(levelname)s %(name)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)


class _TextlessFormatter(logging.Formatter):
    """Of a library's record only its level, its logger and the exception's class: all else may hold anything."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 # overrides
        return str(ei[0].__qualname__) if ei[0] is not None else ""

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 # overrides
        return ""


def _drop_exception_text(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """An exception's text may hold anything; its class and place say enough."""
    exception = event.pop("exc_info", None)
    if exception:
        found = exception if isinstance(exception, BaseException) else sys.exc_info()[1]
        if found is not None:
            event["exception"] = type(found).__qualname__
            frame = found.__traceback__
            while frame is not None and frame.tb_next is not None:
                frame = frame.tb_next
            if frame is not None:
                event["at"] = f"{frame.tb_frame.f_code.co_filename.rpartition('/')[2]}:{frame.tb_lineno}"
    return event


def _redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return redact(event)
